"""All distillation losses, by their papers' abbreviations: `from kdutils.losses import kd_loss`.

The modules beneath are named after what is passed on: `response` (answers), `feature` (what hidden layers
compute), `relation` (how samples relate), `online` (among peers), `self_distillation` (a model's own
answers), `transformer` (hidden states and attention), `sequence` (texts, token by token).
"""

from kdutils.losses.feature import (
    Regressor,
    VIDLoss,
    at_loss,
    attention_map,
    channel_kd_loss,
    fsp_loss,
    hint_loss,
    nst_loss,
)
from kdutils.losses.online import dml_loss, ensemble_kd_loss, ensemble_logits, mutual_terms
from kdutils.losses.relation import (
    cc_loss,
    info_nce_loss,
    pkt_loss,
    rkd_angle_loss,
    rkd_distance_loss,
    rkd_loss,
    sp_loss,
)
from kdutils.losses.response import (
    dist_loss,
    dkd_loss,
    kd_loss,
    logit_mse_loss,
    multilabel_kd_loss,
    nkd_loss,
    regression_kd_loss,
    standardized_kd_loss,
)
from kdutils.losses.self_distillation import cs_kd_loss, ps_kd_loss, tf_kd_loss
from kdutils.losses.sequence import (
    generalized_jsd_loss,
    next_token,
    policy_gradient_kd_loss,
    reverse_kl_loss,
    sequence_kd_loss,
    skew_kl_loss,
    sparse_kd_loss,
)
from kdutils.losses.transformer import (
    attention_mse_loss,
    hidden_cosine_loss,
    hidden_mse_loss,
    minilm_loss,
    patient_loss,
    value_relation_loss,
)

__all__ = [
    "Regressor",
    "VIDLoss",
    "at_loss",
    "attention_map",
    "attention_mse_loss",
    "cc_loss",
    "channel_kd_loss",
    "cs_kd_loss",
    "dist_loss",
    "dkd_loss",
    "dml_loss",
    "ensemble_kd_loss",
    "ensemble_logits",
    "fsp_loss",
    "generalized_jsd_loss",
    "hidden_cosine_loss",
    "hidden_mse_loss",
    "hint_loss",
    "info_nce_loss",
    "kd_loss",
    "logit_mse_loss",
    "minilm_loss",
    "multilabel_kd_loss",
    "mutual_terms",
    "next_token",
    "nkd_loss",
    "nst_loss",
    "patient_loss",
    "pkt_loss",
    "policy_gradient_kd_loss",
    "ps_kd_loss",
    "regression_kd_loss",
    "reverse_kl_loss",
    "rkd_angle_loss",
    "rkd_distance_loss",
    "rkd_loss",
    "sequence_kd_loss",
    "skew_kl_loss",
    "sp_loss",
    "sparse_kd_loss",
    "standardized_kd_loss",
    "tf_kd_loss",
    "value_relation_loss",
]
