"""The Distiller in anybody's own loop: the README's, run as it stands there, without Gin."""

import pathlib
import re

import pytest
import torch
from torch.nn import functional as F

from ctkd import Distiller
from ctkd.adversary.schedules import CosineLambda
from ctkd.data.digits import Digits
from ctkd.data.in_memory import ResidentImages
from ctkd.losses.objectives import KD
from ctkd.registry import MODELS
from ctkd.temperature import GlobalTemperature

README = pathlib.Path(__file__).parents[1] / "README.md"


class Loader:
    """The digits in batches of 64."""

    def __init__(self):
        dataset = Digits()
        self.images = ResidentImages(dataset.load().train, dataset, torch.device("cpu"))

    def __iter__(self):
        order = torch.randperm(len(self.images))
        for rows in order.split(64):
            yield self.images.batch(rows), self.images.targets[rows]

    def accuracy(self, network):
        with torch.no_grad():
            logits = network.eval()(self.images.batch(torch.arange(len(self.images))))
        network.train()
        return logits.argmax(1).eq(self.images.targets).float().mean().item()


@pytest.fixture
def names(teacher_file):
    """What a reader of the README has at hand: networks, a loader, the number of epochs."""
    torch.manual_seed(0)
    student, teacher = (MODELS.get(f"digits_{role}")() for role in ("student", "teacher"))
    teacher.load_state_dict(torch.load(teacher_file, weights_only=True))
    given = {"student": student, "teacher": teacher.eval(), "loader": Loader(), "epochs": 12}
    return given | {"torch": torch}


def trains(names, run):
    """Runs it, and checks what distilling must do."""
    student, teacher, loader = (names[name] for name in ("student", "teacher", "loader"))
    before, frozen = loader.accuracy(student), [p.clone() for p in teacher.parameters()]
    run()
    assert before < 0.3
    assert loader.accuracy(student) > 0.8
    assert all(torch.equal(p, q) for p, q in zip(teacher.parameters(), frozen, strict=True))


@pytest.mark.skipif(not README.exists(), reason="there is no README here")
def test_the_readmes_loop_is_short_and_trains(names, capsys):
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    code = next(block for block in blocks if "Distiller" in block)
    loop = code[code.index("for ") :]
    assert len([line for line in loop.splitlines() if line.strip()]) < 15
    assert "gin" not in code
    torch.manual_seed(0)
    trains(names, lambda: exec(compile(code, "README.md", "exec"), names))
    temperatures = [float(t) for t in re.findall(r"T = ([\d.]+)", capsys.readouterr().out)]
    assert len(temperatures) == 12
    assert min(temperatures) < 10  # it plunged from 15.6
    assert all(1 < t < 21 for t in temperatures)


def test_the_temperature_ends_where_the_loss_is_largest(names):
    """|L(T) − L(T*)| / L(T*) < 1 % once the learning rate has dropped (facts.md)."""
    student, teacher, loader = (names[name] for name in ("student", "teacher", "loader"))
    distiller = Distiller(GlobalTemperature(), CosineLambda(epochs=4.0), KD())
    groups = [{"params": student.parameters()}, {"params": distiller.parameters()}]
    optimizer = torch.optim.SGD(groups, lr=0.05, momentum=0.9)
    for epoch in range(12):
        for group in optimizer.param_groups:
            group["lr"] = 0.05 if epoch < 8 else 0.005
        for images, targets in loader:
            outcome = distiller(student(images), teacher(images).detach(), targets, position=epoch)
            optimizer.zero_grad()
            outcome.loss.backward()
            optimizer.step()
    everything = torch.arange(len(loader.images))
    with torch.no_grad():
        logits = [network(loader.images.batch(everything)) for network in (student, teacher)]

    def loss(t):
        q, p = (F.log_softmax(z / t, dim=1) for z in logits)
        return (t * t * (p.exp() * (p - q)).sum(1)).mean().item()

    largest = max(loss(1 + 20 * k / 400) for k in range(401))
    assert loss(outcome.temperature.item()) > 0.99 * largest
    assert outcome.temperature < 13  # from 15.6, and
    assert loss(3.0) < 0.95 * largest  # not because it would be so everywhere
