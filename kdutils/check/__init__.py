"""Claims checked where they are made, and the exercises' checks.

check("distilled beats labels only, points", gain.mean, above=2.0)     # a claim: raises when missed
kdutils.check.soft_loss(soft_loss)                                      # an exercise: never raises
"""

from kdutils.check.audit import audit
from kdutils.check.chapter00 import conv_macs, labels_matched, twice_the_width
from kdutils.check.chapter01 import permuted_teacher, ratio_temperature, soft_loss
from kdutils.check.chapter02 import compared_numbers, effect_of_p, nst_loss_written_out
from kdutils.check.chapter03 import centred_sp_loss, points_on_a_line, wider_embedding
from kdutils.check.chapter04 import cache_mb, ensemble_targets, shoes_from_tops
from kdutils.check.chapter05 import break_even, cohort_loss, heavy_weight
from kdutils.check.chapter06 import mean_cost, present_teacher, smoothed_cross_entropy
from kdutils.check.chapter07 import head_start, merged_weight, times_fewer
from kdutils.check.chapter08 import layer_bytes, one_loud_channel, straight_through
from kdutils.check.chapter09 import millisecond_budget, rank_correlation, times_cheaper
from kdutils.check.chapter10 import break_even_sparsity, sensitive_layer, without_inputs
from kdutils.check.chapter11 import five_faults, forgotten_weight, share_in_step
from kdutils.check.chapter12 import hidden_mse, lost_above_chance, saved_of_large
from kdutils.check.claim import ClaimFailed, check

__all__ = [
    "ClaimFailed",
    "audit",
    "break_even",
    "break_even_sparsity",
    "cache_mb",
    "centred_sp_loss",
    "check",
    "cohort_loss",
    "compared_numbers",
    "conv_macs",
    "effect_of_p",
    "ensemble_targets",
    "five_faults",
    "forgotten_weight",
    "head_start",
    "heavy_weight",
    "hidden_mse",
    "labels_matched",
    "layer_bytes",
    "lost_above_chance",
    "mean_cost",
    "merged_weight",
    "millisecond_budget",
    "nst_loss_written_out",
    "one_loud_channel",
    "permuted_teacher",
    "points_on_a_line",
    "present_teacher",
    "rank_correlation",
    "ratio_temperature",
    "saved_of_large",
    "sensitive_layer",
    "share_in_step",
    "shoes_from_tops",
    "smoothed_cross_entropy",
    "soft_loss",
    "straight_through",
    "times_cheaper",
    "times_fewer",
    "twice_the_width",
    "wider_embedding",
    "without_inputs",
]
