"""Losses: functions of tensors, transforms of the logits, and objectives of named terms."""

from ctkd.losses.dkd import dkd_loss
from ctkd.losses.kd import kd_loss

__all__ = ["dkd_loss", "kd_loss"]
