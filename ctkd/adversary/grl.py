"""The gradient reversal layer, as a function of tensors (no Gin)."""

import math
from typing import Any

import torch
from torch import Tensor


def gradient_reversal(x: Tensor, lambda_: float | Tensor) -> Tensor:
    """The identity, whose backward multiplies the gradient by −lambda_ (arXiv 1505.07818).

    One optimizer then minimizes the loss over the student and maximizes it over the module that
    computed x: the temperature policy. lambda_ is negated here and nowhere else. With lambda_ = 0
    the gradient is exactly 0, even if the incoming gradient is infinite or NaN.

    Args:
        x: a tensor of any shape, such as a temperature, 0-d or [N, 1].
        lambda_: strength >= 0: a number, or a tensor of one element on the device of x. The value
            of a tensor is not checked, because the check would wait for the device. In a captured
            graph a tensor may change between steps.

    Returns:
        x, of the same shape and dtype.

    Raises:
        ValueError: a number that is negative or not finite, a tensor of more than one element or
            on another device.
    """
    if not isinstance(lambda_, Tensor):
        if not (lambda_ >= 0 and math.isfinite(lambda_)):
            raise ValueError(
                f"lambda_ = {lambda_!r}: expected a finite number >= 0; the backward negates it"
            )
    elif lambda_.numel() != 1:
        raise ValueError(f"lambda_ has shape {list(lambda_.shape)}: expected one element")
    elif lambda_.device != x.device:
        # A CPU scalar works, but a captured graph would silently keep its first value.
        raise ValueError(f"lambda_ is on {lambda_.device}, x on {x.device}: expected one device")
    else:
        lambda_ = lambda_.detach().reshape(())
    transformed: bool = torch._C._are_functorch_transforms_active()
    function = _TransformedReversal if transformed else _GradientReversal
    reversed_: Tensor = function.apply(x, lambda_)
    return reversed_


class _GradientReversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, lambda_: float | Tensor) -> Tensor:
        ctx.number = None if isinstance(lambda_, Tensor) else lambda_
        if isinstance(lambda_, Tensor):
            ctx.save_for_backward(lambda_)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        if ctx.number is not None:
            reversed_ = gradient * -ctx.number if ctx.number else torch.zeros_like(gradient)
            return reversed_, None
        (lambda_,) = ctx.saved_tensors
        # 0 · inf would be NaN.
        reversed_ = torch.where(lambda_ == 0, 0.0, gradient * -lambda_)
        return reversed_.to(gradient.dtype), None


class _TransformedReversal(_GradientReversal):
    """The same in the form that torch.func needs. Its `apply` costs 40 µs more."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, lambda_: float | Tensor) -> Tensor:  # type: ignore[override]
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _GradientReversal.forward(ctx, *inputs)
