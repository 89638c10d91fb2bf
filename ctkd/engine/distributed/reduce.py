"""Sums over the parts and the ranks of a step: gradients, losses, and every row's temperature."""

import contextlib
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ctkd.distiller import Outcome
from ctkd.engine.distributed.batch_norm import SumOverRanks
from ctkd.engine.distributed.world import World


def parallel(module: nn.Module, world: World, accumulate: int) -> nn.Module:
    """`module` wrapped in DistributedDataParallel; unchanged if there is one process.

    DistributedDataParallel sums the gradients of all ranks during the backward pass and divides
    them by the number of ranks: multiply the loss by `world.size` for the sum. Buffers are not
    broadcast: batch normalizations are handled in `batch_norm.py`.

    A parameter may have no part in the loss (as in an auxiliary head). The graph is the same in
    every step, so a static graph finds such parameters once. `without_sum` does not work
    with a static graph; with accumulated parts the graph is searched in every step instead.
    """
    if world.size == 1:
        return module
    own = list(getattr(module, "not_summed", ()))
    ignore = DistributedDataParallel._set_params_and_buffers_to_ignore_for_model
    ignore(module, own)  # type: ignore[no-untyped-call]
    warnings.filterwarnings("ignore", "find_unused_parameters=True was specified")
    warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated")  # its successor is new
    return DistributedDataParallel(
        module,
        broadcast_buffers=False,
        static_graph=accumulate == 1,
        find_unused_parameters=accumulate > 1,
    )


def without_sum(module: nn.Module) -> contextlib.AbstractContextManager[None]:
    """A context without the sum over ranks, for the backward pass of all parts except the last."""
    if isinstance(module, DistributedDataParallel):
        return module.no_sync()
    return contextlib.nullcontext()


def merge(parts: Sequence[Outcome]) -> Outcome:
    """The outcome of a whole step from the outcomes of its accumulated parts."""
    if len(parts) == 1:
        return parts[0]
    terms = {name: torch.stack([p.terms[name] for p in parts]).sum() for name in parts[0].terms}
    temperatures = [part.temperature for part in parts if part.temperature is not None]
    loss = torch.stack([part.loss.detach() for part in parts]).sum()
    names = parts[0].groups
    groups = {name: torch.stack([p.groups[name] for p in parts]).sum() for name in names}
    return Outcome(loss, terms, _of_step(temperatures) if temperatures else None, groups)


def _of_step(temperatures: Sequence[Tensor]) -> Tensor:
    """The temperature of a step from those of its parts: 0-d where each is, otherwise [N, 1]."""
    if any(temperature.dim() for temperature in temperatures):
        return torch.cat([temperature.reshape(-1, 1) for temperature in temperatures])
    each = torch.stack(list(temperatures))
    return each.mean().clamp(each.amin(), each.amax())  # without rounding where all are equal


def sum_over_ranks(world: World, outcome: Outcome, rows: int | None) -> Outcome:
    """The outcome of the whole step from this rank's outcome: one small all-reduce per step.

    Args:
        outcome: of this rank's rows, already divided by the number of rows of the whole step.
        rows: rows of the whole step, divided by `world.shard`; None if only each rank knows its
            number of rows (a detector's proposals).
    """
    if world.size == 1:
        return outcome
    values = [outcome.loss.detach(), *outcome.terms.values(), *outcome.groups.values()]
    parts = [torch.stack(values)]
    per_row = outcome.temperature is not None and outcome.temperature.dim() > 0
    if outcome.temperature is not None and per_row:
        # Every rank fills the indices of its rows, with zeros elsewhere: the sum has all rows.
        parts.append(_spread(world, outcome.temperature.reshape(-1).to(parts[0]), rows))
    sums = torch.split(world.sum(torch.cat(parts)), [len(part) for part in parts])
    loss, *rest = sums[0].unbind()
    terms = dict(zip(outcome.terms, rest, strict=False))
    groups = dict(zip(outcome.groups, rest[len(terms) :], strict=True))
    temperature = sums[-1].reshape(-1, 1) if per_row else outcome.temperature
    return Outcome(loss, terms, temperature, groups)


class RowGatherer:
    """Gathers rows [n, …] of all ranks, in an order that is the same on every rank.

    The gradient of the gathered rows is summed over all ranks. Two all-reduces per call.
    """

    def __init__(self, world: World) -> None:
        self._world = world

    def __call__(self, mine: Tensor) -> Tensor:
        """[N, …], the rows of rank 0 first."""
        world = self._world
        counts = torch.zeros(world.size, dtype=torch.int64)  # on the CPU: nothing waits
        counts[world.rank] = len(mine)
        counts = world.sum(counts)
        before, after = int(counts[: world.rank].sum()), int(counts[world.rank + 1 :].sum())
        blank = [mine.new_zeros(count, *mine.shape[1:]) for count in (before, after)]
        spread = torch.cat([blank[0], mine, blank[1]])
        if not mine.is_floating_point():
            return world.sum(spread)
        gathered: Tensor = SumOverRanks.apply(spread, world)
        return gathered


def _spread(world: World, mine: Tensor, rows: int | None) -> Tensor:
    """A rank's values at the indices of its rows among all rows of the step, zeros elsewhere."""
    if rows is not None:
        spread = mine.new_zeros(rows)
        world.shard(spread).copy_(mine)
        return spread
    counts = torch.zeros(world.size, dtype=torch.int64)  # on the CPU: nothing waits for a device
    counts[world.rank] = len(mine)
    before = world.sum(counts)[: world.rank].sum()
    spread = mine.new_zeros(int(counts.sum()))
    spread[int(before) :][: len(mine)] = mine
    return spread
