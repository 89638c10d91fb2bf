"""The distiller on fixed rows: the loss as a function of T, and what its gradients reveal."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from ctkd.distiller import Distiller
from ctkd.engine.task import Rows
from ctkd.losses.term_means import weigh

PROBE_STEP = 1e-3  # length of a trial step of the policy's parameters
ROUNDING = 1e-6  # a policy's T is float32, so smaller relative changes of the loss say nothing
AGREEMENT = 1e-6  # of a term's usual size: what rounding leaves where both networks agree
GRADIENT_TOLERANCE = 0.05  # finite differences of a float64 loss agree far better than this

Temperatures = Tensor | tuple[Tensor, Tensor]


class FixedGame:
    """The distiller on rows in float64, without gradient, one block of rows at a time."""

    def __init__(self, distiller: Distiller, rows: Rows) -> None:
        """Finds the terms that T has a part in."""
        self._distiller, self._rows = distiller, rows
        own = [self._terms(block)[1] for block in self._blocks()]
        self._pair: tuple[Tensor, Tensor] | None = None
        if isinstance(own[0], tuple):  # such a policy is not used with blocks
            self._pair = (own[0][0].double(), own[0][1].double())
            own = [self._pair[0]]
        parts = [each.double() for each in own if isinstance(each, Tensor)]
        # The policy's own temperatures, 0-d or [N, 1]; of two, the student's.
        self.temperatures = parts[0] if parts[0].dim() == 0 else torch.cat(parts)
        # A term that T has no part in (cross-entropy) would only lift the landscape.
        temperature = self._tensor(4.0).requires_grad_()
        with torch.enable_grad():
            terms, _ = self._terms(next(self._blocks()), self._at(temperature))
        self._names = [name for name, term in terms.items() if term.requires_grad]

    def _blocks(self) -> Iterator[Rows]:
        for block in self._rows.blocks():
            assert block.teacher is not None
            strong = block.strong and (block.strong[0].double(), block.strong[1].double())
            student, teacher = block.student.double(), block.teacher.double()
            yield replace(block, student=student, teacher=teacher, strong=strong)

    def _tensor(self, value: float) -> Tensor:
        return torch.tensor(value, dtype=torch.float64, device=self._rows.targets.device)

    def _at(self, temperature: Tensor) -> Temperatures:
        """A common T, or the policy's two temperatures, scaled to this mean of the student's."""
        if self._pair is None:
            return temperature
        student_t, teacher_t = self._pair
        scale = temperature / student_t.mean()
        return scale * student_t, scale * teacher_t

    def _terms(
        self, block: Rows, temperature: Temperatures | None = None
    ) -> tuple[dict[str, Tensor], Temperatures | None]:
        logits = (block.student, block.teacher, block.targets)
        with torch.set_grad_enabled(torch.is_grad_enabled() and temperature is not None):
            return self._distiller.terms(*logits, temperature, strong=block.strong)

    def _losses(self, temperature: Tensor | None) -> Iterator[Tensor]:
        """The share of each block in L at a common T, or at the policy's own temperatures."""
        for block in self._blocks():
            logits = (block.student, block.teacher, block.targets)
            at = None if temperature is None else self._at(temperature)
            terms, _ = self._distiller.terms(*logits, at, strong=block.strong)
            felt = weigh({name: terms[name] for name in self._names}, block.weights)
            yield self._distiller.weighted(felt) * (len(block.targets) / len(self._rows.targets))

    def loss(self, temperature: float | None) -> float:
        """L at a common temperature, or at the policy's own ones."""
        if not self._names:
            return 0.0
        with torch.no_grad():
            at = None if temperature is None else self._tensor(temperature)
            return sum(share.item() for share in self._losses(at))

    def row_losses(self, temperatures: Sequence[float]) -> Tensor:
        """[points, N]: the part of each row's loss that T has a part in, at each temperature."""
        found: list[Tensor] = []
        for block in self._blocks():
            values = block.student.new_zeros(len(temperatures), len(block.targets))
            for point, temperature in enumerate(temperatures):
                with torch.no_grad():
                    terms, _ = self._terms(block, self._at(self._tensor(temperature)))
                for name in self._names:
                    weight = self._distiller.get_buffer(f"weight_{name}")
                    values[point] += weight * terms[name]
            found.append(values)
        return torch.cat(found, dim=1)

    def _gradients(
        self, temperature: Tensor | None, inputs: Sequence[Tensor]
    ) -> tuple[float, list[Tensor] | None]:
        """L and its gradients, summed over the blocks; None where L has no gradient."""
        total, sums = 0.0, [torch.zeros_like(each) for each in inputs]
        with torch.enable_grad():
            for loss in self._losses(temperature):
                if not loss.requires_grad:
                    return loss.item(), None
                found = torch.autograd.grad(loss, inputs, allow_unused=True)
                total += loss.item()
                for each, gradient in zip(sums, found, strict=True):
                    if gradient is not None:
                        each += gradient
        return total, sums

    def faults(self) -> list[str]:
        """The faults that the gradients show, as texts for the user."""
        policy = self._distiller.policy
        if policy is None or not self._distiller.learned or not self._names:
            return []
        found = []
        temperature = self.temperatures.mean().item()
        step = 1e-3 * temperature
        slope = (self.loss(temperature + step) - self.loss(temperature - step)) / (2 * step)
        _, gradients = self._gradients(t := self._tensor(temperature).requires_grad_(), [t])
        felt = 0.0 if gradients is None else gradients[0].item()
        scale = max(abs(slope), 1e-3 * abs(self.loss(temperature)) / temperature)
        if abs(felt - slope) > GRADIENT_TOLERANCE * scale:
            found.append(
                f"the gradient that reaches the temperature ({felt:.3g}) is not the loss's "
                f"derivative there ({slope:.3g}): is a factor T² or a softmax detached?"
            )
        others = (self._fault_of_agreement(temperature), self._fault_of_update(policy))
        return found + [fault for fault in others if fault is not None]

    def _fault_of_agreement(self, temperature: float) -> str | None:
        """What is wrong if a term is not 0 where student and teacher have the same logits."""
        block = next(self._blocks())
        assert block.teacher is not None
        if block.teacher_targets is not None or block.is_sampled:
            return None  # no row of such a teacher is one of the student
        same = replace(block, student=block.teacher, strong=block.strong and (block.strong[1],) * 2)
        with torch.no_grad():
            at = self._at(self._tensor(temperature))
            agreeing, _ = self._terms(same, at)
            played, _ = self._terms(block, at)
        for name in self._names:
            value, usual = agreeing[name].mean().item(), played[name].abs().mean().item()
            if abs(value) > AGREEMENT * max(usual, AGREEMENT):
                return (
                    f"the term {name} is {value:.3g} where student and teacher agree (it is "
                    f"{usual:.3g} now), and 0 was expected: does it leave out the teacher's "
                    "entropy? A learned T of such a loss runs to a bound"
                )
        return None

    def _fault_of_update(self, policy: nn.Module) -> str | None:
        """What is wrong if no gradient reaches the policy, or a small step down it lowers L."""
        parameters = [p for p in policy.parameters() if p.requires_grad]
        strength = self._distiller.get_buffer("lambda_")
        kept = [tensor.detach().clone() for tensor in (strength, *parameters)]
        try:
            strength.fill_(1.0)
            before, gradients = self._gradients(None, parameters)
            if gradients is None:
                return (
                    "no gradient of the loss reaches the policy, so that its temperature will "
                    "stay as it is: is its T detached, or made under no_grad?"
                )
            norm = torch.stack([g.double().norm() for g in gradients]).norm()
            if not norm > 0:
                return None
            with torch.no_grad():
                for parameter, gradient in zip(parameters, gradients, strict=True):
                    parameter.sub_(PROBE_STEP / norm.to(gradient) * gradient)
            change = self.loss(None) - before
            change = -change if self._distiller.cooperative else change  # it should lower L
            if not change < -ROUNDING * abs(before):
                return None
            return (
                "the policy's update lowers the loss instead of raising it: is the sign of λ "
                "wrong, or the gradient reversed twice?"
            )
        finally:
            with torch.no_grad():
                for tensor, value in zip((strength, *parameters), kept, strict=True):
                    tensor.copy_(value)
