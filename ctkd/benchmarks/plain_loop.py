"""A distillation loop as most public code has it, to compare ours with; written for this purpose.

Images go one by one through torchvision's transforms on PIL images and a DataLoader, both networks
are eager and contiguous (NCHW), the loss is F.kl_div of softmaxes with a learned temperature, the
optimizer is SGD as constructed by default, and losses and accuracies are read back at every step.
"""

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

MEAN, STD = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)


class PILImages(Dataset[tuple[Tensor, int]]):
    """Images [N, 32, 32, 3] of bytes, each turned into a PIL image and transformed when asked."""

    def __init__(self, images: np.ndarray[Any, Any], targets: list[int]) -> None:
        self._images, self._targets = images, targets
        self._transform = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self._targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._transform(Image.fromarray(self._images[index])), self._targets[index]


def endless(loader: "DataLoader[tuple[Tensor, int]]") -> Iterator[list[Tensor]]:
    """Epoch after epoch; one of them is always begun, so that no number holds a worker's start."""
    while True:
        yield from loader


class PlainLoop:
    """Takes one step a call."""

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        loader: "DataLoader[tuple[Tensor, int]]",
        device: torch.device,
    ) -> None:
        """Copies both networks, so that other cases can train them."""
        self.student = copy.deepcopy(student).to(device).train()
        self.teacher = copy.deepcopy(teacher).to(device).eval()
        self.raw = nn.Parameter(torch.ones((), device=device))
        self.optimizer = torch.optim.SGD(
            [*self.student.parameters(), self.raw], lr=0.05, momentum=0.9, weight_decay=5e-4
        )
        self.device, self._batches = device, endless(loader)
        self.losses: list[float] = []
        self.accuracies: list[float] = []

    def __call__(self) -> None:
        """One step."""
        images, targets = next(self._batches)
        images, targets = images.to(self.device), targets.to(self.device)
        logits = self.student(images)
        with torch.no_grad():
            teacher_logits = self.teacher(images)
        temperature = 1 + 20 * torch.sigmoid(self.raw)
        soft = F.kl_div(
            F.log_softmax(logits / temperature, dim=1),
            F.softmax(teacher_logits / temperature, dim=1),
            reduction="batchmean",
        )
        loss = 0.1 * F.cross_entropy(logits, targets) + 0.9 * soft * temperature**2
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        assert self.raw.grad is not None
        self.raw.grad.neg_()  # the adversary
        self.optimizer.step()
        self.losses.append(loss.item())
        for k in (1, 5):
            best = logits.topk(k, dim=1).indices.eq(targets[:, None])
            self.accuracies.append(best.any(1).float().mean().item())
