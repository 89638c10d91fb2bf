"""The landscape L(T) of any two networks: `ctkd.landscape(student, teacher, loader)`.

It shows where a learned temperature would go at this moment, and what a constant one would do.
"""

import io
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ctkd.checks import expect, finite
from ctkd.distiller import Distiller
from ctkd.engine.diagnostics.fixed_game import FixedGame
from ctkd.engine.diagnostics.landscape import undisturbed
from ctkd.engine.task import Rows
from ctkd.errors import DataError
from ctkd.losses.objectives import KD, ObjectiveLike
from ctkd.temperature.constant import ConstantTemperature

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STEP = 1e-4  # of log T, for the slope: the loss is float64


@dataclass(frozen=True)
class LandscapeOfNetworks:
    """L(T) over a grid of temperatures.

    Attributes:
        slopes: dL/dT at each temperature of the grid.
        t_star: the maximizer of L; an end of the grid if L rises or falls over all of it.
        samples: the rows that were measured.
    """

    temperatures: list[float]
    losses: list[float]
    slopes: list[float]
    t_star: float
    loss_star: float
    samples: int

    def figure(self) -> "Figure":
        """A matplotlib figure of L(T), dL/dT and T*."""
        from ctkd.results.figures.draw_one_landscape import draw_one_landscape

        return draw_one_landscape(self.temperatures, self.losses, self.slopes, self.t_star)

    def save(self, path: str | os.PathLike[str]) -> list[Path]:
        """Writes the figure as PNG and PDF; `path` may have either suffix or none."""
        from ctkd.results.figures.save import save_figure

        target = Path(path).with_suffix("")
        return save_figure(self.figure(), target.parent, target.name)

    def _repr_png_(self) -> bytes:
        """The figure, which a notebook shows."""
        stream = io.BytesIO()
        self.figure().savefig(stream, format="png", dpi=100)
        return stream.getvalue()


def landscape(
    student: nn.Module,
    teacher: nn.Module,
    loader: Iterable[tuple[Tensor, Tensor]],
    objective: ObjectiveLike | None = None,
    *,
    samples: int = 512,
    low: float = 0.5,
    high: float = 40.0,
    points: int = 65,
) -> LandscapeOfNetworks:
    """Measures L(T) of two networks on the first batches of a loader; trains nothing.

    The student is in train mode (batch statistics, as in training; its running statistics stay as
    they are), the teacher in eval mode.

    Args:
        loader: yields (inputs, targets [B]).
        objective: KD's T² · KL by default; terms that T has no part in are left out.
        samples: whole batches are taken until there are as many.
        low, high, points: the grid of temperatures, equally spaced in log T.

    Raises:
        ConfigError: the grid is empty, or a number is out of its range.
        DataError: the loader yields nothing, or no pairs; or the networks yield no logits, or
            logits that are not finite.
    """
    expect(0 < low < high, "landscape", "low", low, f"a temperature between 0 and high = {high}")
    expect(finite(high), "landscape", "high", high, "a finite temperature")
    expect(points >= 5, "landscape", "points", points, "5 or more")
    expect(samples >= 1, "landscape", "samples", samples, "1 or more")
    distiller = Distiller(ConstantTemperature(4.0), None, objective or KD(0.0, 1.0))
    with undisturbed(student, distiller), undisturbed(teacher):
        game, count = _game(student, teacher, loader, distiller, samples)
        ends = math.log(low), math.log(high)
        grid = [math.exp(ends[0] + (ends[1] - ends[0]) * k / (points - 1)) for k in range(points)]
        losses = [game.loss(t) for t in grid]
        slopes = [_slope(game, t) for t in grid]
        t_star, loss_star = _peak(game, grid, losses)
    return LandscapeOfNetworks(grid, losses, slopes, t_star, loss_star, count)


def _game(
    student: nn.Module,
    teacher: nn.Module,
    loader: Iterable[tuple[Tensor, Tensor]],
    distiller: Distiller,
    samples: int,
) -> tuple[FixedGame, int]:
    """The game on the rows of the first batches, and their number."""
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    count = 0
    teacher.eval()
    with torch.no_grad():
        for batch in loader:
            inputs, targets = _pair(batch)
            first = next(student.parameters(), inputs)
            inputs, targets = inputs.to(first.device), targets.to(first.device)
            ours, theirs = (
                _logits(name, network(inputs))
                for name, network in (("student", student), ("teacher", teacher))
            )
            parts.append((ours, theirs, targets))
            count += len(targets)
            if count >= samples:
                break
    if not parts:
        raise DataError("landscape: the loader yields no batch")
    ours, theirs, targets = (torch.cat(column) for column in zip(*parts, strict=True))
    return FixedGame(distiller.to(ours.device), Rows(ours, theirs, targets)), count


def _pair(batch: object) -> tuple[Tensor, Tensor]:
    """The batch, if it is (inputs, targets)."""
    match batch:
        case (Tensor() as inputs, Tensor() as targets):
            return inputs, targets
    size = f" of {len(batch)}" if isinstance(batch, (tuple, list)) else ""
    raise DataError(
        f"landscape: the loader yields a {type(batch).__name__}{size}: expected pairs of tensors, "
        "(inputs, targets). Wrap the loader in a generator that yields them"
    )


def _logits(role: str, output: object) -> Tensor:
    """The output of a network, if it is finite logits."""
    if not isinstance(output, Tensor):
        raise DataError(
            f"landscape: the {role} returns a {type(output).__name__}: expected logits [B, C]. "
            "Wrap it in a module that returns its logits"
        )
    if not output.isfinite().all():
        raise DataError(
            f"landscape: the {role}'s logits are not all finite, so that L(T) has no value. "
            "Check its weights and the normalization of the inputs"
        )
    return output


def _slope(game: FixedGame, temperature: float) -> float:
    """The slope dL/dT, by a central difference in log T."""
    above, below = (game.loss(temperature * math.exp(sign * STEP)) for sign in (1, -1))
    return (above - below) / (2 * STEP * temperature)


def _peak(game: FixedGame, grid: list[float], losses: list[float]) -> tuple[float, float]:
    """T* and L(T*): the best grid point, refined between its neighbors."""
    from scipy.optimize import minimize_scalar

    best = max(range(len(losses)), key=losses.__getitem__)
    if best in (0, len(grid) - 1):
        return grid[best], losses[best]
    bounds = math.log(grid[best - 1]), math.log(grid[best + 1])
    found = minimize_scalar(
        lambda x: -game.loss(math.exp(x)), bounds=bounds, method="bounded", options={"xatol": 1e-6}
    )
    return math.exp(found.x), -float(found.fun)
