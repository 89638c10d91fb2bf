"""The line of an epoch: aligned columns; a narrow terminal drops the least important ones."""

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ctkd.results.read.grid_ends import bound_of, bound_text

if TYPE_CHECKING:
    from ctkd.engine.task import Task

WAIT_SHOWN = 0.05  # share of the training time; a lower share is not shown
PERCENT = re.compile(r"(.*[_/])?(top\d+|a[pr]\d*|claimed|agreement)([_/].*)?")  # metrics in percent
# The order in which a narrow terminal drops columns: the first ones first.
DROPPED = ("lr", "images_per_s", "tokens_per_s", "data_wait", "lambda", "ema", "labels", "t_star")


def as_text(name: str, value: float) -> str:
    """A number as text, with its unit if that is percent; "–" if undefined."""
    if math.isnan(value):
        return "–"
    return f"{value:.2f} %" if PERCENT.fullmatch(name) else f"{value:.4g}"


def speed_text(value: float) -> str:
    """A number per second as text: 12,345, or 0.25."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2f}"


def epoch_line(
    record: dict[str, Any],
    epochs: int,
    task: "Task",
    grid: Sequence[float],
    width: float = math.inf,
) -> str:
    """The text, at most `width` characters if that is possible.

    Args:
        record: the numbers of the epoch, see `records.epoch_record`.
        grid: the temperatures of the instrument, or their ends: T* at an end is a bound.
    """
    parts = [("epoch", f"epoch {record['epoch']:>{len(str(epochs))}}/{epochs}")]
    parts += [*_results(record, task), *_temperatures(record, grid), *_speed(record)]
    for name in DROPPED:
        if len(_joined(parts)) <= width:
            break
        parts = [part for part in parts if part[0] != name]
    return _joined(parts)


def _joined(parts: Sequence[tuple[str, str]]) -> str:
    return "  ".join(text for _, text in parts).rstrip()


def _results(record: dict[str, Any], task: "Task") -> list[tuple[str, str]]:
    """The training loss and the metrics; the first metric is never dropped."""
    found = []
    if record.get("train_loss") is not None:
        found.append(("loss", f"loss {record['train_loss']:>7.4f}"))
    labels = task.labels or {task.monitor: task.monitor}
    for number, (key, label) in enumerate(labels.items()):
        for prefix, kind in (("", "labels" if number else "first"), ("ema_", "ema")):
            if (value := record.get(f"{prefix}{key}")) is not None:
                wide = 8 if PERCENT.fullmatch(key) else 0
                found.append((kind, f"{'ema' if prefix else label} {as_text(key, value):>{wide}}"))
    return found


def _temperatures(record: dict[str, Any], grid: Sequence[float]) -> list[tuple[str, str]]:
    """T, T*, λ and the learning rate."""
    found = []
    if (value := record.get("temperature")) is not None:
        found.append(("temperature", f"T {_three_digits(value):>4}"))
    if (value := record.get("t_star")) is not None:
        bound = bound_of(value, grid)
        text = bound_text(value, bound) if bound else _three_digits(value)
        found.append(("t_star", f"T* {text:>4}"))
    if (value := record.get("lambda")) is not None:
        found.append(("lambda", f"λ {value:.3f}"))
    if (value := record.get("lr")) is not None:
        found.append(("lr", f"lr {value:<8.3g}"))
    return found


def _three_digits(value: float) -> str:
    """Three significant digits with their zeros: 8.00, 15.3, 120."""
    return f"{value:#.3g}".rstrip(".")


def _speed(record: dict[str, Any]) -> list[tuple[str, str]]:
    """The speed, a wait for data that is worth showing, and unreadable images."""
    found = []
    for unit in ("images", "tokens"):
        if speed := record.get(f"{unit}_per_s"):
            found.append((f"{unit}_per_s", f"{speed_text(speed)} {unit}/s"))
    if (record.get("data_wait") or 0) >= WAIT_SHOWN:
        found.append(("data_wait", f"waiting for data {record['data_wait']:.0%}"))
    if record.get("bad_images"):
        found.append(("bad_images", f"bad images {record['bad_images']}"))
    return found
