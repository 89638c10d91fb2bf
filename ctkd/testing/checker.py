"""What the contracts share: logits to call a component with, and checks of what it returns."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ctkd.losses.two_views import StrongView

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
LARGE = 1e4  # magnitude of logits up to which values and gradients must be finite
# Of finite differences in float64. A kink (of a ReLU, say) is within a step by chance; a shorter
# step then avoids it.
STEPS = (1e-5, 1e-6, 1e-7)
# Operations that read a value, or a size that depends on values: a GPU waits for them, and a
# captured graph cannot hold them. lift_fresh is torch.tensor: a copy from the host.
WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "lift_fresh"}

Rows = tuple[Tensor, Tensor, Tensor]  # student's and teacher's logits [N, C], targets [N]


def ordinary_rows(count: int, classes: int, dtype: torch.dtype = torch.float64) -> Rows:
    """Logits of magnitude 3, always the same."""
    drawn = torch.Generator().manual_seed(0)
    student, teacher = (
        (3 * torch.randn(count, classes, generator=drawn, dtype=torch.float64)).to(dtype)
        for _ in range(2)
    )
    return student, teacher, torch.randint(classes, (count,), generator=drawn)


def strong_view_of(student: Tensor, teacher: Tensor) -> StrongView:
    """Other logits of the same rows, which depend on the given ones row by row."""
    student, raw_student = 0.5 * student.flip(1), 0.5 * student.roll(1, 1)
    return StrongView(student, 0.5 * teacher.roll(2, 1), raw_student, 2 * teacher.flip(1), teacher)


def hard_rows(classes: int, dtype: torch.dtype) -> Rows:
    """Logits of magnitude 1e4: networks that are sure, of one class or two, and equal logits."""
    student, teacher = (torch.zeros(8, classes, dtype=dtype) for _ in range(2))
    for row, (of_teacher, of_student) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        teacher[row, of_teacher] = student[row, of_student] = LARGE
    teacher[4, 0] = student[5, 0] = (
        LARGE  # against a uniform network; rows 6 and 7 are equal logits
    )
    student[7], teacher[7] = LARGE, -LARGE
    return student, teacher, torch.zeros(8, dtype=torch.long)


class Checker:
    """Checks of one component; called with a condition and what is wrong if it is false."""

    def __init__(self, component: object) -> None:
        named = component if hasattr(component, "__name__") else type(component)
        self.name: str = named.__name__

    def __call__(self, condition: bool, fault: str) -> None:
        """Raises AssertionError unless `condition`."""
        if not condition:
            raise AssertionError(f"{self.name}: {fault}")

    def equal(self, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], fault: str) -> None:
        """Checks that the tensors of `wanted` are in `found`, equal except for rounding."""
        for name, tensor in wanted.items():
            near = torch.allclose(found[name].double(), tensor.double(), rtol=1e-4, atol=1e-5)
            self(near, f"{fault} {name}")

    def finite(
        self, function: Callable[..., Tensor], inputs: tuple[Tensor, ...], when: str
    ) -> None:
        """Checks the value of a scalar function, and its gradients in the inputs that need one."""
        value = function(*inputs)
        moved = [tensor for tensor in inputs if tensor.requires_grad]
        found = torch.autograd.grad(value, moved, allow_unused=True) if value.requires_grad else ()
        self(bool(value.isfinite()), f"the value is not finite {when}")
        for gradient in found:
            self(
                gradient is None or bool(gradient.isfinite().all()),
                f"a gradient is not finite {when}",
            )

    def gradient(self, function: Callable[..., Tensor], *inputs: Tensor, what: str) -> None:
        """Checks the gradient of a scalar function in float64, along a random direction."""
        drawn = torch.Generator().manual_seed(1)
        along = [torch.randn(x.shape, generator=drawn, dtype=torch.float64) for x in inputs]
        leaves = [x.detach().clone().requires_grad_() for x in inputs]
        value = function(*leaves)
        found = torch.autograd.grad(value, leaves, allow_unused=True) if value.requires_grad else ()
        slope = sum(
            float((g * d).sum()) for g, d in zip(found, along, strict=False) if g is not None
        )
        differences = [_difference(function, inputs, along, step) for step in STEPS]
        near = any(abs(slope - d) <= 1e-5 * max(1.0, abs(d)) for d in differences)
        numeric = f"by finite differences {differences[0]:.6g}"
        self(near, f"the gradient in {what} is {slope:.6g}, {numeric}")

    def raises(self, error: type[Exception], fault: str, function: Any, *arguments: Any) -> None:
        """Checks that the call raises `error`, and nothing else."""
        try:
            function(*arguments)
        except error:
            return
        except Exception as other:
            raise AssertionError(
                f"{self.name}: {fault}: {type(other).__name__}: {other}"
            ) from other
        raise AssertionError(f"{self.name}: {fault}")

    def unchanged(self, kept: list[Tensor], given: tuple[Tensor, ...]) -> None:
        """Checks that a call left its arguments as they were."""
        same = all(torch.equal(a, b) for a, b in zip(kept, given, strict=True))
        self(same, "the call overwrites its arguments")

    def waits_for_nothing(self, function: Callable[..., Tensor], *inputs: Tensor) -> None:
        """Checks which operations a scalar function and its backward pass are made of."""
        with Watch() as watch:
            value = function(*inputs)
            if value.requires_grad:
                value.backward()  # type: ignore[no-untyped-call]
        waiting = ", ".join(sorted(watch.waiting))
        self(not watch.waiting, f"a GPU would wait for {waiting}: do not read a tensor's value")


def _difference(
    function: Callable[..., Tensor], inputs: Sequence[Tensor], along: Sequence[Tensor], step: float
) -> float:
    """The central difference of a scalar function."""
    with torch.no_grad():
        ahead, behind = (
            function(*(x + sign * step * d for x, d in zip(inputs, along, strict=True)))
            for sign in (1, -1)
        )
    return float(ahead - behind) / (2 * step)


class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Collects the operations that a GPU would wait for, while it is entered."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.waiting: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Notes the operation, and runs it."""
        name = func.name().removeprefix("aten::").partition(".")[0]
        masks = args[1] if name == "index" else ()
        if name in WAITING or any(mask is not None and mask.dtype == torch.bool for mask in masks):
            self.waiting.add(name)
        return func(*args, **(kwargs or {}))
