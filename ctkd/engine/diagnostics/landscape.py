"""The landscape L(T): where the adversary drives the temperature, and whether it gets there.

On a fixed batch of training images, with the student in train mode (batch statistics: in eval
mode the landscape misleads) and its running statistics left as they were, the part of the loss
that depends on T is measured over a grid of temperatures:

    L(T) = Σ weight · mean of the terms that feel T,   T* = argmax L(T),   regret = 1 − L(T)/L(T*).

For a per-row policy L is taken at one common T, and the policy's own temperatures are quantiles.
For a policy of two temperatures, the student's and the teacher's, L is taken at common multiples of
the policy's own ones, and T is the mean of the student's.
"""

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ctkd.distiller import Distiller
from ctkd.engine.config.settings import Instrument
from ctkd.engine.diagnostics.fixed_game import FixedGame
from ctkd.engine.diagnostics.kinds import landscape_of_kinds, peak, with_entropy
from ctkd.engine.task import Batch, Rows, Task, TeacherFunction
from ctkd.losses.per_row import cross_entropy_rows
from ctkd.seeds import seed_of

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
GOLDEN = (math.sqrt(5) - 1) / 2
REFINEMENTS = 30  # golden sections: the bracket of two grid steps shrinks by 1e6


class Probe:
    """Measures a run's landscape; holds the fixed batch.

    Attributes:
        samples: the number of samples in the batch.
    """

    def __init__(self, settings: Instrument, task: Task, teacher: TeacherFunction) -> None:
        """Draws the batch; it is the same for every run of a seed."""
        self._task, self._teacher = task, teacher
        self._batch: Batch = task.probe(settings.probe_size)
        self.samples = self._batch.samples
        low, high = math.log(settings.low), math.log(settings.high)
        steps = settings.points - 1
        self._grid = [math.exp(low + (high - low) * k / steps) for k in range(settings.points)]

    def measure(self, student: nn.Module, distiller: Distiller) -> dict[str, Any]:
        """L over the grid, T*, the policy's T and the regret; see BUILD.md's words and keys.

        The `warnings` name the faults of the policy's gradient: it does not climb L, or it is not
        L's derivative. The `rows` are those of `rows.csv`, none for one common T.
        """
        with undisturbed(student, distiller):
            return self._measure(student, distiller)

    def _measure(self, student: nn.Module, distiller: Distiller) -> dict[str, Any]:
        with torch.no_grad():
            rows = self._task.rows(student, self._teacher, self._batch)
        game = FixedGame(distiller, rows)
        kinds, by_kind = self._task.kinds(self._batch), dict[str, Any]()
        if kinds:
            row_losses = game.row_losses(self._grid)
            kinds, losses = with_entropy(kinds, rows), row_losses.mean(1).tolist()
            temperatures = game.temperatures.flatten()
            by_kind = landscape_of_kinds(kinds, row_losses, self._grid, temperatures)
        else:
            losses = [game.loss(temperature) for temperature in self._grid]
        if by_kind:  # many rows: the golden sections would take as long as the grid
            t_star = peak(self._grid, losses)
            loss_star = max(game.loss(t_star), *losses)
        else:
            best = max(range(len(losses)), key=losses.__getitem__)
            t_star, loss_star = self._refine(game, best, losses[best])
        temperatures = game.temperatures.flatten()
        temperature = temperatures.mean().item()
        own = game.loss(temperature)
        if by_kind and own > loss_star:  # on a coarse grid the parabola can miss the top
            t_star, loss_star = temperature, own
        quantiles = None
        if len(temperatures) > 1:
            points = torch.tensor(QUANTILES, dtype=temperatures.dtype, device=temperatures.device)
            quantiles = temperatures.quantile(points).tolist()
        bounds = distiller.bounds
        return {
            "temperatures": self._grid,
            "losses": losses,
            "t_star": t_star,
            "loss_star": loss_star,
            "temperature": temperature,
            "quantiles": quantiles,
            "regret": 1 - own / loss_star if loss_star > 0 else 0.0,
            "bounds": list(bounds) if bounds else None,
            **by_kind,
            "rows": self._by_row(rows, temperatures) if len(temperatures) > 1 else [],
            "warnings": game.faults(),
        }

    def _by_row(self, rows: Rows, temperatures: Tensor) -> list[tuple[str | float, ...]]:
        """The rows of `rows.csv`, with the columns `ROW_COLUMNS` of `ctkd.results.read.schema`.

        Confidence and target are the teacher's probabilities at T = 1: the largest, the target's.
        """
        soft = rows.targets.is_floating_point()  # of mixed images, the class of the larger share
        theirs = rows.teacher_targets
        classes = rows.targets.argmax(dim=1) if soft else rows.targets
        parts: list[Tensor] = []
        for block in rows.blocks():
            assert block.teacher is not None
            chosen = block.targets.argmax(dim=1) if soft else block.targets
            chosen = chosen if theirs is None else theirs  # such rows are one block
            confidences = block.teacher.double().softmax(dim=1)
            losses = cross_entropy_rows(block.student.double(), block.targets)
            of_targets = confidences.gather(1, chosen[:, None]).squeeze(1)
            parts.append(torch.stack([losses, confidences.amax(dim=1), of_targets]))
        numbers = (temperatures.double(), *torch.cat(parts, dim=1))
        names = self._task.class_names
        targets = [names.get(number, str(number)) for number in classes.tolist()]
        groups = ["all"] * len(targets)
        if rows.groups is not None:
            groups = [rows.group_names[index] for index in rows.groups.tolist()]
        return list(zip(groups, targets, *(values.tolist() for values in numbers), strict=True))

    def _refine(self, game: FixedGame, best: int, loss: float) -> tuple[float, float]:
        """Golden-section search between the best grid point's neighbors, in log T."""
        low = math.log(self._grid[max(best - 1, 0)])
        high = math.log(self._grid[min(best + 1, len(self._grid) - 1)])
        t_star, loss_star = self._grid[best], loss
        for _ in range(REFINEMENTS):
            left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
            at_left, at_right = game.loss(math.exp(left)), game.loss(math.exp(right))
            if at_left >= at_right:
                high, t, value = right, math.exp(left), at_left
            else:
                low, t, value = left, math.exp(right), at_right
            if value > loss_star:
                t_star, loss_star = t, value
        return t_star, loss_star


@contextlib.contextmanager
def undisturbed(*modules: nn.Module) -> Iterator[None]:
    """Inside: train mode, and always the same random numbers. Afterwards all is as before.

    Each part of a module gets its own mode back: a network may keep some parts in eval mode.
    """
    modes = [(part, part.training) for module in modules for part in module.modules()]
    buffers = [(buffer, buffer.clone()) for module in modules for buffer in module.buffers()]
    devices = {p.device for module in modules for p in module.parameters() if p.is_cuda}
    with torch.random.fork_rng(list(devices)):  # by default of every GPU there is
        torch.manual_seed(seed_of("instrument"))  # a detector draws its proposals
        try:
            for module in modules:
                module.train()
            yield
        finally:
            for part, was_training in modes:
                part.training = was_training
            with torch.no_grad():
                for buffer, kept in buffers:
                    buffer.copy_(kept)
