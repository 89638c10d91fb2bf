"""Images of CIFAR's shape for measurements: the real ones if they are there, else random bytes."""

import os

import torch

from ctkd.data.cifar import CIFAR100
from ctkd.data.in_memory import Split, Splits
from ctkd.errors import DataError


class MeasuredCIFAR(CIFAR100):
    """CIFAR-100, or as many random bytes: the speeds do not depend on the pixels."""

    def __init__(self, data_dir: str | None) -> None:
        super().__init__(data_dir)
        self.real = True

    def load(self) -> Splits:
        """See `ResidentDataset`."""
        try:
            return super().load()
        except DataError:
            self.real = False
        generator = torch.Generator().manual_seed(0)

        def split(count: int) -> Split:
            size = (count, 32, 32, 3)
            images = torch.randint(256, size, generator=generator, dtype=torch.uint8)
            return Split(images, torch.arange(count) % 100)

        return Splits(split(50_000), split(1_000))


def default_workers() -> int:
    """Processes of a DataLoader here: as many as there are cores, at most the usual eight."""
    return min(8, os.cpu_count() or 1)
