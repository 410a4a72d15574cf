"""All distillation losses, by their papers' abbreviations: `from kdutils.losses import kd_loss`.

The modules beneath are named after what is passed on: `response` (answers), `feature` (what hidden layers
compute), `relation` (how samples relate), `online` (among peers), `self_distillation` (a model's own
answers), `transformer` (hidden states and attention).
"""

from kdutils.losses.feature import Regressor, VIDLoss, at_loss, attention_map, fsp_loss, hint_loss, nst_loss
from kdutils.losses.online import dml_loss, ensemble_kd_loss, ensemble_logits
from kdutils.losses.relation import cc_loss, pkt_loss, rkd_angle_loss, rkd_distance_loss, rkd_loss, sp_loss
from kdutils.losses.response import (
    dist_loss,
    dkd_loss,
    kd_loss,
    logit_mse_loss,
    nkd_loss,
    standardized_kd_loss,
)
from kdutils.losses.self_distillation import cs_kd_loss, ps_kd_loss, tf_kd_loss
from kdutils.losses.transformer import (
    attention_mse_loss,
    hidden_cosine_loss,
    hidden_mse_loss,
    minilm_loss,
    patient_loss,
    token_kd_loss,
    value_relation_loss,
)

__all__ = [
    "Regressor",
    "VIDLoss",
    "at_loss",
    "attention_map",
    "attention_mse_loss",
    "cc_loss",
    "cs_kd_loss",
    "dist_loss",
    "dkd_loss",
    "dml_loss",
    "ensemble_kd_loss",
    "ensemble_logits",
    "fsp_loss",
    "hidden_cosine_loss",
    "hidden_mse_loss",
    "hint_loss",
    "kd_loss",
    "logit_mse_loss",
    "minilm_loss",
    "nkd_loss",
    "nst_loss",
    "patient_loss",
    "pkt_loss",
    "ps_kd_loss",
    "rkd_angle_loss",
    "rkd_distance_loss",
    "rkd_loss",
    "sp_loss",
    "standardized_kd_loss",
    "tf_kd_loss",
    "token_kd_loss",
    "value_relation_loss",
]
