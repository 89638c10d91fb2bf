"""What a temperature policy costs by the clock: alone, and as a part of a training step."""

import random
import statistics
from collections.abc import Sequence
from typing import Any

import torch

from ctkd.benchmarks.measured_images import MeasuredCIFAR
from ctkd.benchmarks.policies import own_step
from ctkd.benchmarks.step import BATCH, Ours, Pair
from ctkd.benchmarks.timing import in_turns, quartiles
from ctkd.results.compare.tables import Column, Table

METHODS = {
    "ConstantTemperature": "kd",
    "AnnealedTemperature": "annealed",
    "GlobalTemperature": "ctkd",
    "InstanceTemperature": "ctkd_instance",
}
BLOCK = (
    2  # steps in a row; few, so that a turn is shorter than the changes in the speed of the machine
)
RESAMPLES = 2000
Interval = tuple[float, float, float]


def measure_costs(name: str, rounds: int) -> dict[str, Any]:
    """Each policy's own time over the step's, and the step with it over that with a constant T.

    The teacher's rows come from a warm cache: the shorter the step, the larger the shares.
    """
    steps = 2 * (rounds + 2) * BLOCK
    pair = Pair(name, MeasuredCIFAR(None), [f"threads = {torch.get_num_threads()}"], steps)
    try:
        games: dict[str, Ours] = {
            policy: pair.ours(cache="warm", method=method) for policy, method in METHODS.items()
        }
        device = games["ConstantTemperature"].trainer.meter.device
        alone = {policy: own_step(policy, BATCH, device) for policy in METHODS}
        whole = in_turns(games, rounds, warm_up=1, repeat=BLOCK)
        own = in_turns(alone, 3 * rounds, warm_up=3, repeat=20)
    finally:
        pair.close()
    constant = whole["ConstantTemperature"]
    step = statistics.median(constant)
    over = {
        policy: [a / b for a, b in zip(seconds, constant, strict=True)]
        for policy, seconds in whole.items()
    }
    return {
        "pair": name,
        "device": str(device),
        "threads": torch.get_num_threads(),
        "step_seconds": step,
        "policies": [
            {
                "policy": policy,
                "own_seconds": quartiles(own[policy])[1],
                "own_percent": [100 * seconds / step for seconds in median_interval(own[policy])],
                "step_percent_more": [100 * (ratio - 1) for ratio in median_interval(over[policy])],
            }
            for policy in METHODS
        ],
    }


def median_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """(low, median, high): the median and its interval by the bootstrap's percentiles."""
    chance = random.Random(0)
    found = sorted(
        statistics.median(chance.choices(values, k=len(values))) for _ in range(RESAMPLES)
    )
    tail = (1 - level) / 2
    low, high = found[int(tail * RESAMPLES)], found[int((1 - tail) * RESAMPLES) - 1]
    return low, statistics.median(values), high


def cost_table(costs: dict[str, Any]) -> Table:
    """For a reader."""
    columns = [
        Column("policy"),
        Column("own µs", "number", 1),
        Column("own % of a step [95 %]", "number"),
        Column("step: % more than with constant T [95 %]", "number"),
    ]
    rows = []
    for cost in costs["policies"]:
        own, more = cost["own_percent"], cost["step_percent_more"]
        constant = cost["policy"] == "ConstantTemperature"
        rows.append(
            [
                cost["policy"],
                1e6 * cost["own_seconds"],
                f"{own[1]:.3f} [{own[0]:.3f}, {own[2]:.3f}]",
                None if constant else f"{more[1]:+.2f} [{more[0]:+.2f}, {more[2]:+.2f}]",
            ]
        )
    note = (
        f"{costs['device']}, {costs['threads']} threads, a step of "
        f"{1e3 * costs['step_seconds']:.1f} ms, the teacher's rows from the cache"
    )
    return Table(columns, rows, [note])
