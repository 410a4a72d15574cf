"""Claims checked where they are made, and the exercises' checks.

check("distilled beats labels only, points", gain.mean, above=2.0)     # a claim: raises when missed
kdutils.check.soft_loss(soft_loss)                                      # an exercise: never raises
"""

from kdutils.check.chapter01 import permuted_teacher, ratio_temperature, soft_loss
from kdutils.check.claim import ClaimFailed, check

__all__ = ["ClaimFailed", "check", "permuted_teacher", "ratio_temperature", "soft_loss"]
