"""Batch normalization when several processes share a step."""

import torch
from torch import Tensor, nn

from ctkd.engine.distributed.world import World


def synchronize_batch_norm(network: nn.Module, world: World) -> None:
    """Replaces batch normalizations, in place, by ones with the statistics of all ranks.

    Otherwise a run would depend on its number of processes. Parameters, buffers and their names
    stay. torch's SyncBatchNorm does the same, but only on GPUs.
    """
    if world.size == 1:
        return
    for name, child in network.named_children():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            setattr(network, name, SyncedBatchNorm.of(child, world))
        else:
            synchronize_batch_norm(child, world)


def average_statistics(network: nn.Module, world: World) -> None:
    """Averages the running statistics of batch normalizations over the ranks, in place.

    If each rank has its own statistics, a network is evaluated and saved with the averages.
    """
    if world.size == 1:
        return
    own = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    own = [m for m in own if not isinstance(m, SyncedBatchNorm)]
    statistics = [s for m in own for s in (m.running_mean, m.running_var) if s is not None]
    if not statistics:
        return
    flat = world.sum(torch.cat([s.reshape(-1) for s in statistics])) / world.size
    means = torch.split(flat, [s.numel() for s in statistics])
    for statistic, mean in zip(statistics, means, strict=True):
        statistic.copy_(mean)


class SyncedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalization over the rows of all ranks; in eval mode the usual one."""

    world: World

    @classmethod
    def of(cls, norm: nn.modules.batchnorm._BatchNorm, world: World) -> "SyncedBatchNorm":
        """The same normalization over a world; it shares the parameters and buffers."""
        made = cls(norm.num_features, norm.eps, norm.momentum, False, False)
        made.affine, made.track_running_stats = norm.affine, norm.track_running_stats
        made._parameters, made._buffers = norm._parameters, norm._buffers
        made.training, made.world = norm.training, world
        return made

    def _check_input_dim(self, input: Tensor) -> None:
        """Accepts any input [N, C, …]."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalizes [N, C, …] by mean and variance over all dimensions except C, on all ranks."""
        if not self.training:
            return super().forward(input)
        axes = [axis for axis in range(input.dim()) if axis != 1]
        values = input.float()
        # In float64, since the square of the mean is subtracted from the mean of the squares.
        first = values.sum(axes, dtype=torch.float64)
        second = values.square().sum(axes, dtype=torch.float64)
        count = first.new_full((1,), input.numel() / self.num_features)
        sums = torch.cat([first, second, count])
        everywhere = SumOverRanks.apply(sums, self.world)
        channels = self.num_features
        total, squares, rows = torch.split(everywhere, [channels, channels, 1])
        mean = total / rows
        variance = (squares / rows - mean.square()).clamp_min(0.0)
        self._track(mean.detach(), variance.detach(), rows.detach())
        scale = (variance + self.eps).rsqrt()
        shift = -mean * scale
        shape = [1, -1] + [1] * (input.dim() - 2)
        # At least float32, as in torch: the two terms may be large and nearly cancel.
        exact = input.to(torch.promote_types(input.dtype, torch.float32))
        normal = exact * scale.to(exact).view(shape) + shift.to(exact).view(shape)
        if self.affine:
            normal = normal * self.weight.view(shape) + self.bias.view(shape)
        return normal.to(input.dtype)

    def _track(self, mean: Tensor, variance: Tensor, rows: Tensor) -> None:
        """Updates the running statistics, as torch does, with the unbiased variance."""
        if not self.track_running_stats or self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = self.momentum
        if share is None:
            share = 1.0 / float(self.num_batches_tracked)
        unbiased = variance * rows / (rows - 1).clamp_min(1.0)
        self.running_mean.lerp_(mean.to(self.running_mean), share)
        self.running_var.lerp_(unbiased.to(self.running_var), share)


class SumOverRanks(torch.autograd.Function):
    """A sum over ranks. Every rank's loss depends on it, so its gradient is also summed."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, tensor: Tensor, world: World) -> Tensor:
        """The sum over ranks."""
        ctx.world = world  # type: ignore[attr-defined]
        return world.sum(tensor.clone())

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        """The sum of the ranks' gradients."""
        return ctx.world.sum(gradient.clone()), None  # type: ignore[attr-defined]
