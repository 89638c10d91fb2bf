"""The adversary: gradient reversal (`grl`), and the schedules of its strength (`schedules`)."""

from ctkd.adversary.grl import gradient_reversal

__all__ = ["gradient_reversal"]
