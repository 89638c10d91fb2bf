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

from ctkd.distiller import Distiller, weigh
from ctkd.engine.config.settings import Instrument
from ctkd.engine.task import Batch, Rows, Task, TeacherFunction
from ctkd.losses.per_row import cross_entropy_rows
from ctkd.seeds import seed_of

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
GOLDEN = (math.sqrt(5) - 1) / 2
REFINEMENTS = 30  # golden sections: the bracket of two grid steps shrinks by 1e6
PROBE_STEP = 1e-3  # length of a trial step of the policy's parameters
ROUNDING = 1e-6  # a policy's T is float32, so smaller relative changes of the loss say nothing
GRADIENT_TOLERANCE = 0.05  # finite differences of a float64 loss agree far better than this


class Probe:
    """Measures a run's landscape; holds the fixed batch."""

    def __init__(self, settings: Instrument, task: Task, teacher: TeacherFunction) -> None:
        """Draws the batch; it is the same for every run of a seed."""
        self._task, self._teacher = task, teacher
        self._batch: Batch = task.probe(settings.probe_size)
        low, high = math.log(settings.low), math.log(settings.high)
        steps = settings.points - 1
        self._grid = [math.exp(low + (high - low) * k / steps) for k in range(settings.points)]

    def measure(self, student: nn.Module, distiller: Distiller) -> dict[str, Any]:
        """L over the grid, T*, the policy's T and the regret; see BUILD.md's words and keys.

        The `warnings` say what the policy's gradient betrays: one that does not climb L, or that
        is not L's derivative. The `rows` are those of `rows.csv`, none for one common T.
        """
        with undisturbed(student, distiller):
            return self._measure(student, distiller)

    def _measure(self, student: nn.Module, distiller: Distiller) -> dict[str, Any]:
        with torch.no_grad():
            rows = self._task.rows(student, self._teacher, self._batch)
        assert rows.teacher is not None
        logits = rows.student.double(), rows.teacher.double()
        strong = rows.strong and (rows.strong[0].double(), rows.strong[1].double())
        game = _Game(distiller, *logits, rows.targets, rows.weights, strong)
        losses = [game.loss(temperature) for temperature in self._grid]
        best = max(range(len(losses)), key=losses.__getitem__)
        t_star, loss_star = self._refine(game, best, losses[best])
        temperatures = game.policy_temperatures().flatten()
        temperature = temperatures.mean().item()
        own = game.loss(temperature)
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
            "rows": self._by_row(rows, temperatures) if len(temperatures) > 1 else [],
            "warnings": game.faults(),
        }

    def _by_row(self, rows: Rows, temperatures: Tensor) -> list[tuple[str | float, ...]]:
        """The rows of `rows.csv`, with the columns `ROW_COLUMNS` of `ctkd.results.read.schema`.

        Confidence and target are the teacher's probabilities at T = 1: the largest, the target's.
        """
        assert rows.teacher is not None
        confidences = rows.teacher.double().softmax(dim=1)
        soft = rows.targets.is_floating_point()  # of mixed images, the class of the larger share
        classes = rows.targets.argmax(dim=1) if soft else rows.targets
        numbers = (
            temperatures.double(),
            cross_entropy_rows(rows.student.double(), rows.targets),
            confidences.amax(dim=1),
            confidences.gather(1, classes[:, None]).squeeze(1),
        )
        names = self._task.class_names
        targets = [names.get(number, str(number)) for number in classes.tolist()]
        groups = ["all"] * len(targets)
        if rows.groups is not None:
            groups = [rows.group_names[place] for place in rows.groups.tolist()]
        return list(zip(groups, targets, *(values.tolist() for values in numbers), strict=True))

    def _refine(self, game: "_Game", best: int, loss: float) -> tuple[float, float]:
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


class _Game:
    """The distiller on fixed logits [N, C] (float64, no gradient)."""

    def __init__(
        self,
        distiller: Distiller,
        student: Tensor,
        teacher: Tensor,
        targets: Tensor,
        weights: Tensor | None = None,
        strong: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        self._distiller, self._strong = distiller, strong
        self._rows, self._weights = (student, teacher, targets), weights
        with torch.no_grad():
            own = self._terms()[1]
        self._pair = tuple(each.double() for each in own) if isinstance(own, tuple) else None
        # A term that T has no part in (cross-entropy) would only lift the landscape.
        temperature = self._tensor(4.0).requires_grad_()
        with torch.enable_grad():
            terms, _ = self._terms(self._at(temperature))
        self._names = [name for name, term in terms.items() if term.requires_grad]

    def _tensor(self, value: float) -> Tensor:
        return torch.tensor(value, dtype=torch.float64, device=self._rows[0].device)

    def _at(self, temperature: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """A common T, or the policy's two temperatures, scaled to this mean of the student's."""
        if self._pair is None:
            return temperature
        student_t, teacher_t = self._pair
        scale = temperature / student_t.mean()
        return scale * student_t, scale * teacher_t

    def _terms(
        self, temperature: Tensor | tuple[Tensor, Tensor] | None = None
    ) -> tuple[dict[str, Tensor], Tensor | tuple[Tensor, Tensor] | None]:
        return self._distiller.terms(*self._rows, temperature, strong=self._strong)

    def _loss_at(self, temperature: Tensor) -> Tensor:
        terms, _ = self._terms(self._at(temperature))
        return self._weighted(terms)

    def _weighted(self, terms: dict[str, Tensor]) -> Tensor:
        """The part of the loss that feels T."""
        felt = {name: terms[name] for name in self._names}
        return self._distiller.weighted(weigh(felt, self._weights))

    def loss(self, temperature: float) -> float:
        """L at a common temperature."""
        if not self._names:
            return 0.0
        with torch.no_grad():
            return self._loss_at(self._tensor(temperature)).item()

    def policy_temperatures(self) -> Tensor:
        """The policy's own temperatures, 0-d or [N, 1]; of two, the student's."""
        if self._pair is not None:
            return self._pair[0]
        with torch.no_grad():
            _, temperature = self._terms()
        assert isinstance(temperature, Tensor)
        return temperature.double()

    def faults(self) -> list[str]:
        """What the gradients say that they should not, in a user's words."""
        policy = self._distiller.policy
        if policy is None or not self._distiller.learned or not self._names:
            return []
        found = []
        temperature = self.policy_temperatures().mean().item()
        step = 1e-3 * temperature
        slope = (self.loss(temperature + step) - self.loss(temperature - step)) / (2 * step)
        with torch.enable_grad():
            t = self._tensor(temperature).requires_grad_()
            (felt,) = torch.autograd.grad(self._loss_at(t), t)
        scale = max(abs(slope), 1e-3 * abs(self.loss(temperature)) / temperature)
        if abs(felt.item() - slope) > GRADIENT_TOLERANCE * scale:
            found.append(
                f"the gradient that reaches the temperature ({felt.item():.3g}) is not the loss's "
                f"derivative there ({slope:.3g}): is a factor T² or a softmax detached?"
            )
        wrong = self._fault_of_update(policy)
        return found if wrong is None else [*found, wrong]

    def _fault_of_update(self, policy: nn.Module) -> str | None:
        """What is wrong if no gradient reaches the policy, or a small step down it lowers L."""
        parameters = [p for p in policy.parameters() if p.requires_grad]
        strength = self._distiller.get_buffer("lambda_")
        kept = [tensor.detach().clone() for tensor in (strength, *parameters)]
        try:
            strength.fill_(1.0)
            with torch.enable_grad():
                before = self._own_loss()
                if not before.requires_grad:
                    return (
                        "no gradient of the loss reaches the policy, so that its temperature will "
                        "stay as it is: is its T detached, or made under no_grad?"
                    )
                gradients = torch.autograd.grad(before, parameters, allow_unused=True)
            moved = [(p, g) for p, g in zip(parameters, gradients, strict=True) if g is not None]
            norm = torch.stack([before.new_zeros(()), *(g.norm() for _, g in moved)]).norm()
            if not norm > 0:
                return None
            with torch.no_grad():
                for parameter, gradient in moved:
                    parameter.sub_(PROBE_STEP / norm * gradient)
                change = self._own_loss().item() - before.item()
            change = -change if self._distiller.cooperative else change  # it should lower L
            if not change < -ROUNDING * abs(before.item()):
                return None
            return (
                "the policy's update lowers the loss instead of raising it: is the sign of λ "
                "wrong, or the gradient reversed twice?"
            )
        finally:
            with torch.no_grad():
                for tensor, value in zip((strength, *parameters), kept, strict=True):
                    tensor.copy_(value)

    def _own_loss(self) -> Tensor:
        """L at the policy's own temperatures."""
        terms, _ = self._terms()
        return self._weighted(terms)


@contextlib.contextmanager
def undisturbed(*modules: nn.Module) -> Iterator[None]:
    """Inside: train mode, and always the same random numbers. Afterwards all is as before."""
    modes = [(module, module.training) for module in modules]
    buffers = [(buffer, buffer.clone()) for module in modules for buffer in module.buffers()]
    devices = {p.device for module in modules for p in module.parameters() if p.is_cuda}
    with torch.random.fork_rng(list(devices)):  # by default of every GPU there is
        torch.manual_seed(seed_of("instrument"))  # a detector draws its proposals
        try:
            for module in modules:
                module.train()
            yield
        finally:
            for module, was_training in modes:
                module.train(was_training)
            with torch.no_grad():
                for buffer, kept in buffers:
                    buffer.copy_(kept)
