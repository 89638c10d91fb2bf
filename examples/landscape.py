"""The landscape L(T) of a teacher and a student that you have: which T suits the pair.

python examples/landscape.py           # scikit-learn's digits, seconds on a CPU

It prints T*, the temperature at which the loss is largest, and draws L(T) into landscape.png. At
the start of training a learned temperature goes to T*; for a constant one, try values near it.
"""

import sys

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import ctkd
from ctkd.registry import DATASETS, MODELS


def main(target: str = "landscape.png", epochs: int = 3) -> None:
    """Trains a small teacher, then draws the landscape of a student without training."""
    torch.manual_seed(0)
    digits = DATASETS.get("digits")().load().train
    images = (digits.images.permute(0, 3, 1, 2).float() / 255 - 0.3) / 0.38
    loader = DataLoader(TensorDataset(images, digits.targets), batch_size=64, shuffle=True)
    teacher, student = MODELS.get("digits_teacher")(), MODELS.get("digits_student")()
    optimizer = torch.optim.SGD(teacher.parameters(), lr=0.05, momentum=0.9)
    for _ in range(epochs):
        for inputs, targets in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(teacher(inputs), targets).backward()
            optimizer.step()

    found = ctkd.landscape(student, teacher, loader)
    print(f"T* = {found.t_star:.2f}, L(T*) = {found.loss_star:.3f}, {found.samples} samples")
    print(*found.save(target), sep="\n")


if __name__ == "__main__":
    main(*sys.argv[1:2])
