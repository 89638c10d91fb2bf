"""The vote of all ranks on whether to stop, so that they stop after the same step."""

import time
from collections.abc import Callable

from ctkd.engine.distributed.world import World

SECONDS = 1.0  # approximate time between two votes
MOST_STEPS = 1000


class StopVote:
    """Asks the ranks, about once a second, whether one of them received a signal to stop.

    A vote is a collective on the CPU; at every step it would add its latency. So the ranks agree on
    the step of the next vote: the number of steps that the slowest rank takes in about a second.
    """

    def __init__(self, world: World, requested: Callable[[], bool]) -> None:
        """`requested` returns whether this rank received a signal to stop."""
        self._world, self._requested = world, requested
        self._steps_left, self._steps, self._since = 1, 0, time.monotonic()

    def __call__(self) -> bool:
        """Whether to stop now; every rank calls it before every step."""
        if self._world.size == 1:
            return self._requested()
        self._steps, self._steps_left = self._steps + 1, self._steps_left - 1
        if self._steps_left > 0:
            return False
        now = time.monotonic()
        votes = self._world.gather((self._requested(), (now - self._since) / self._steps))
        slowest = max(seconds for _, seconds in votes)
        self._steps_left = max(1, min(MOST_STEPS, int(SECONDS / max(slowest, 1e-9))))
        self._steps, self._since = 0, now
        return any(requested for requested, _ in votes)
