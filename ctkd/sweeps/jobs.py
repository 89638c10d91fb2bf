"""What a cluster says of a job."""

from typing import Literal, NamedTuple

Phase = Literal["queued", "running", "ended", "cancelled"]


class JobState(NamedTuple):
    """A job's phase, the node it is on, and why it waits, if it does."""

    phase: Phase
    node: str = ""
    reason: str = ""
