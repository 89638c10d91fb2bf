"""CTKD in your own training loop: no Gin file, no engine.

python examples/own_loop.py            # scikit-learn's digits, seconds on a CPU

Three lines differ from an ordinary loop: the distiller, its parameters in the optimizer (without
weight decay), and its loss in place of the criterion.
"""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from ctkd import KD, CosineLambda, Distiller, GlobalTemperature
from ctkd.registry import DATASETS, MODELS


def train(network: nn.Module, loader: DataLoader, epochs: int, teacher: nn.Module | None = None):
    """Trains a network; with a teacher by distillation. Returns T of each epoch."""
    distiller = Distiller(GlobalTemperature(), CosineLambda(epochs=epochs), KD(0.1, 0.9))
    groups = [
        {"params": network.parameters(), "weight_decay": 5e-4},
        {"params": distiller.parameters()},
    ]
    optimizer = torch.optim.SGD(groups, lr=0.05, momentum=0.9)
    temperatures, temperature = [], 0.0
    for epoch in range(epochs):
        for images, targets in loader:
            logits = network(images)
            if teacher is None:
                loss = nn.functional.cross_entropy(logits, targets)
            else:
                with torch.no_grad():
                    teacher_logits = teacher(images)
                outcome = distiller(logits, teacher_logits, targets, position=epoch)
                loss, temperature = outcome.loss, outcome.temperature.item()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        temperatures.append(temperature)
    return temperatures


def main(epochs: int = 6) -> list[float]:
    """Trains a teacher, then a student; prints T, epoch by epoch."""
    torch.manual_seed(0)
    digits = DATASETS.get("digits")().load().train
    images = (digits.images.permute(0, 3, 1, 2).float() / 255 - 0.3) / 0.38
    loader = DataLoader(TensorDataset(images, digits.targets), batch_size=64, shuffle=True)
    teacher, student = MODELS.get("digits_teacher")(), MODELS.get("digits_student")()
    train(teacher, loader, 3)
    return train(student, loader, epochs, teacher.eval())


if __name__ == "__main__":
    print("T after each epoch:", *(f"{t:.2f}" for t in main()))
