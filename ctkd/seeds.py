"""Stateless randomness: every random number is a function of the names of its purpose.

An epoch's order is drawn from (seed, "order", epoch), initial weights from (seed, "student"), and
so on. Runs that share a seed therefore share everything that their methods do not change, and a
run resumes anywhere without a generator's state having been saved.
"""

import contextlib
import hashlib
from collections.abc import Iterator

import torch


def seed_of(*names: int | str) -> int:
    """A 63-bit seed that depends on every one of `names` and on their order."""
    digest = hashlib.blake2b(repr(names).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(*names: int | str) -> torch.Generator:
    """A CPU generator of its own for the purpose that `names` spell."""
    return torch.Generator().manual_seed(seed_of(*names))


@contextlib.contextmanager
def seeded(*names: int | str) -> Iterator[None]:
    """Inside, torch's global generators start at `seed_of(*names)`; outside they are as before."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed_of(*names))
        yield
