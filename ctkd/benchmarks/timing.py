"""Timing on a machine with other load: in turns, with medians, spreads and paired ratios."""

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ctkd.results.compare.tables import Table

Work = Callable[[], object]
Seconds = dict[str, list[float]]


@dataclass(frozen=True)
class Section:
    """One table of the benchmark.

    Attributes:
        name: as --only takes it.
        title: above the table.
        table: for a reader.
        data: the same and more for a program: one flat object for each row.
    """

    name: str
    title: str
    table: Table
    data: Sequence[Mapping[str, object]]


def in_turns(cases: Mapping[str, Work], rounds: int, warm_up: int = 1, repeat: int = 1) -> Seconds:
    """Seconds a call of each case, one number a round; a round runs them all, in changing order.

    So a disturbance of the machine slows all of them, and the ratio of two cases is taken
    within a round.

    Args:
        rounds: counted ones.
        warm_up: rounds before, not counted: compilation, first touches of memory.
        repeat: calls in a row that one number is the mean of.
    """
    seconds: Seconds = {name: [] for name in cases}
    names = list(cases)
    for number in range(-warm_up, rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            started = time.perf_counter()
            for _ in range(repeat):
                cases[name]()
            wait_for_device()
            if number >= 0:
                seconds[name].append((time.perf_counter() - started) / repeat)
    return seconds


def wait_for_device() -> None:
    """Waits for a GPU, so that its work is counted."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.synchronize()


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """(lower quartile, median, upper quartile)."""
    if len(values) < 2:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def ratios(over: Sequence[float], under: Sequence[float]) -> tuple[float, float, float]:
    """Quartiles of the rounds' own ratios."""
    return quartiles([a / b for a, b in zip(over, under, strict=True)])


def spelled(values: tuple[float, float, float], scale: float = 1.0, digits: int = 1) -> str:
    """Such as "12.3 [11.9, 13.0]": the median and the quartiles around it."""
    low, middle, high = (f"{value * scale:.{digits}f}" for value in values)
    return f"{middle} [{low}, {high}]"


def machine() -> dict[str, object]:
    """The machine and the versions that were measured."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.platform(terse=True),
        "load": os.getloadavg()[0],
    }


def _processor() -> str:
    """The processor's name, from Linux's /proc/cpuinfo."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
