"""Samples of other classes for a whole batch, a function of (seed, step) alone."""

import functools

import torch
from torch import Tensor, nn

from ctkd.errors import ConfigError

PRIMES, ABOVE = 1024, 2**22  # more than any number of samples


class Negatives(nn.Module):
    """For each row `count` training samples of other classes, all different if there are enough.

    With the samples sorted by class, those of the other classes have the positions 0 to M − 1. The
    k-th negative of a row is at position (a·k + b) mod M. The factor a is a prime above M, so that
    the positions of k < M differ; a and b are drawn for each row, from (seed, step, index). The
    samples of a class are in random order.
    """

    def __init__(self, targets: Tensor, count: int) -> None:
        """Takes the classes [n] of all training samples, on the CPU.

        Raises:
            ConfigError: all samples are of one class, or there are too many.
        """
        super().__init__()
        sizes = torch.bincount(targets)
        if int(sizes.max()) == len(targets) or len(targets) >= ABOVE:
            raise ConfigError(
                f"CRD draws negatives from other classes: found {len(targets)} training samples of "
                f"{int((sizes > 0).sum())} classes, expected two classes or more and fewer than "
                f"{ABOVE} samples"
            )
        shuffled = torch.randperm(len(targets), generator=torch.Generator().manual_seed(0))
        order = shuffled[targets[shuffled].argsort(stable=True)]
        starts = sizes.cumsum(0) - sizes
        kept = {"order": order, "sizes": sizes, "starts": starts, "primes": _primes().clone()}
        kept["ranks"] = torch.arange(count)
        for name, tensor in kept.items():
            self.register_buffer(name, tensor, persistent=False)

    def forward(self, targets: Tensor, indices: Tensor, seed: Tensor, step: Tensor) -> Tensor:
        """Indices [N, count] for the samples `indices` [N] of the classes `targets` [N].

        Seed and step are 0-d. The result of a row does not depend on the order of the rows.
        """
        order, primes = self.get_buffer("order"), self.get_buffer("primes")
        size = self.get_buffer("sizes")[targets]
        start = self.get_buffer("starts")[targets]
        others = len(order) - size
        first = mixed(mixed(seed + step) + indices)
        a, b = primes[first % len(primes)] % others, mixed(first) % others
        positions = (a[:, None] * self.get_buffer("ranks") + b[:, None]) % others[:, None]
        # Skip the samples of the row's own class.
        positions += size[:, None] * (positions >= start[:, None])
        return order[positions]


def mixed(values: Tensor) -> Tensor:
    """The splitmix64 scrambling of int64 (Steele, Lea and Flood 2014), without the highest bit."""
    z = values + 0x1E3779B97F4A7C15
    z = (z ^ ((z >> 30) & (2**34 - 1))) * (0xBF58476D1CE4E5B9 - 2**64)
    z = (z ^ ((z >> 27) & (2**37 - 1))) * (0x94D049BB133111EB - 2**64)
    return (z ^ ((z >> 31) & (2**33 - 1))) & (2**63 - 1)


@functools.cache
def _primes() -> Tensor:
    """The first primes above every number of samples."""
    candidates = torch.arange(ABOVE + 1, ABOVE + 40 * PRIMES, 2)
    divisors = torch.arange(3, 2100, 2)  # 2100² is above all candidates
    composite = torch.zeros(len(candidates), dtype=torch.bool)
    for divisor in divisors.tolist():
        composite |= candidates % divisor == 0
    return candidates[~composite][:PRIMES]
