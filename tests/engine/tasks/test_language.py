"""Language: a token is a row; padding, packing, parts and ranks change nothing but the rounding."""

import math

import pytest
import torch
from torch.nn import functional as F

from ctkd import Distiller
from ctkd.adversary.schedules import ConstantLambda
from ctkd.data.text.documents import Document
from ctkd.data.text.text_dataset import TextDataset, TextSplits
from ctkd.data.text.windows import IGNORED, Windows, stream_of
from ctkd.engine.distributed.world import World
from ctkd.engine.game import Game
from ctkd.engine.tasks.language import FrozenLanguageModel, LanguageTask
from ctkd.engine.tasks.language_settings import LanguageSettings
from ctkd.losses.objectives import KD
from ctkd.models.decoder import decoder
from ctkd.models.language_model import TokenInputs
from ctkd.temperature import GlobalTemperature

CPU = torch.device("cpu")


class Fixed(TextDataset):
    """Given documents: the first ones train, the last one is the test."""

    owner = "fixed"

    def __init__(self, *texts, context=8, prompt=0):
        super().__init__(context, "bytes", 257, None, 0.05, 0.0)
        self._documents = [Document(str(n), t, prompt=prompt) for n, t in enumerate(texts)]

    def documents(self):
        return self._documents


class Setting:
    """Two small networks in float64, a Global-T, and tasks on given documents."""

    def __init__(self):
        torch.manual_seed(0)
        sizes = {"num_classes": 256, "depth": 1, "width": 8, "heads": 2}
        self.student, teacher = decoder(**sizes).double(), decoder(**sizes).double()
        for parameter in (*self.student.parameters(), *teacher.parameters()):
            torch.nn.init.normal_(parameter, std=0.3)
        self.teacher = FrozenLanguageModel(teacher, CPU, "float32", "x")
        policy = GlobalTemperature(tau_init=1.0, tau_range=5.0, raw_init=-1.0)
        self.distiller = Distiller(policy, ConstantLambda(0.7), KD(0.5, 0.5))
        self.distiller.at(0.0)

    def task(self, *texts, batch_size=4, world=None, block=None, **options):
        data = Fixed(*texts, "unused", "unused", **options)
        train = stream_of(data.documents()[:-2], data.tokenizer)
        test = stream_of(data.documents()[-1:], data.tokenizer)
        windows = Windows(train, data.context), {"test": Windows(test, data.context, 4)}
        given = (data, TextSplits(*windows), batch_size, 0, CPU, world or World(), None)
        return LanguageTask(*given, LanguageSettings(block=block))

    def played(self, parts):
        """Loss and gradients (student, T) of a step, the sum of its parts."""
        modules = (self.student, self.distiller)
        for module in modules:
            module.zero_grad()
        losses = []
        for task, part in parts:
            game = Game(
                self.student,
                self.distiller,
                task,
                self.student,
                torch.autocast("cpu", enabled=False),
            )
            outcome = game(part, self.teacher)
            outcome.loss.backward()
            losses.append(outcome.loss.item())
        gradients = [p.grad.flatten() for module in modules for p in module.parameters()]
        return torch.cat([torch.tensor([sum(losses)], dtype=torch.float64), *gradients])

    def step(self, task, batch=None, count=1):
        batch = next(task.batches(1, 0)) if batch is None else batch
        return self.played([(task, part) for part in batch.parts(count)])


@pytest.fixture
def setting():
    return Setting()


def close(one, other):
    torch.testing.assert_close(one, other, rtol=2e-5, atol=1e-7)


TEXT = "the quick brown fox jumps over the lazy dog"


def test_loss_and_gradients_are_those_of_a_loop_over_tokens(setting):
    task = setting.task(TEXT, batch_size=6)
    played = setting.step(task)
    for module in (setting.student, setting.distiller):
        module.zero_grad()
    temperature = 1 + 5 * torch.sigmoid(setting.distiller.policy.raw.double())
    losses = []
    batch = next(task.batches(1, 0))
    for ids, targets in zip(batch.inputs.ids, batch.targets, strict=True):
        one = TokenInputs(ids[None])
        for student, teacher, target in zip(
            setting.student(one), setting.teacher.network(one), targets, strict=True
        ):
            if target == IGNORED:
                continue
            p, q = (teacher / temperature).log_softmax(0), (student / temperature).log_softmax(0)
            kl = sum(p[c].exp() * (p[c] - q[c]) for c in range(256))
            losses.append(0.5 * temperature**2 * kl - 0.5 * student.log_softmax(0)[target])
    loss = sum(losses) / len(losses)
    loss.backward()
    raw = setting.distiller.policy.raw
    raw.grad *= -0.7  # the reversal
    gradients = [p.grad.flatten() for p in (*setting.student.parameters(), raw)]
    close(played, torch.cat([loss.detach()[None], *gradients]).double())


@pytest.mark.parametrize("count", [2, 4])
def test_parts_add_up_to_the_step(setting, count):
    task = setting.task(TEXT, batch_size=6, prompt=9)
    close(setting.step(task, count=count), setting.step(task))


def test_two_ranks_add_up_to_the_step(setting):
    whole = setting.step(setting.task(TEXT, batch_size=6, prompt=3))
    ranks = [setting.task(TEXT, batch_size=6, prompt=3, world=World(r, 2)) for r in (0, 1)]
    close(setting.played([(task, next(task.batches(1, 0))) for task in ranks]), whole)


@pytest.mark.parametrize("block", [1, 5, 100])
def test_blocks_of_rows_add_up_to_the_step(setting, block):
    whole = setting.step(setting.task(TEXT, batch_size=6, prompt=3))
    blocks = setting.task(TEXT, batch_size=6, prompt=3, block=block)
    close(setting.step(blocks, count=2), whole)


def test_padding_changes_nothing(setting):
    close(
        setting.step(setting.task(TEXT[:20], context=20, batch_size=1)),
        setting.step(setting.task(TEXT[:20], context=50, batch_size=1)),
    )


def test_packing_two_documents_into_a_window_changes_nothing(setting):
    packed = setting.task("abcdefg", "hijklmno", context=16, batch_size=1)
    (batch,) = packed.batches(1, 0)
    assert batch.inputs.documents is not None
    whole = setting.step(packed, batch)
    parts = []
    for text in ("abcdefg", "hijklmno"):
        task = setting.task(text, context=16, batch_size=1)
        (one,) = task.batches(1, 0)
        vars(one)["rows"] = batch.rows
        parts.append((task, one))
    close(setting.played(parts), whole)


def test_what_padding_holds_does_not_matter(setting):
    task = setting.task(TEXT[:20], context=32, batch_size=1)
    (batch,) = task.batches(1, 0)
    before = setting.step(task, batch)
    batch.inputs.ids[0, 20:] = 99
    assert torch.equal(setting.step(task, batch), before)


def test_columns_beyond_the_tokenizer_are_cut(setting):
    wide = decoder(num_classes=300, depth=1, width=8, heads=2)
    task = setting.task(TEXT, batch_size=6)
    rows = task.rows(wide, None, next(task.batches(1, 0)))
    assert rows.student.shape == (rows.total, 256)
    assert rows.total == len(TEXT) - 1


def test_an_evaluation_is_nats_and_bits_of_each_token(setting):
    task = setting.task(TEXT)
    task.evaluated["test"] = task.train
    found = task.evaluate_student(setting.student, setting.teacher)
    inputs, targets = task.inputs(task.train, torch.arange(len(task.train)))
    logits = setting.student(inputs)
    nats = F.cross_entropy(logits, targets[targets != IGNORED]).item()
    assert found["test_loss"] == pytest.approx(nats, rel=1e-5)
    assert found["test_perplexity"] == pytest.approx(math.exp(nats), rel=1e-5)
    assert found["test_bits_per_byte"] == pytest.approx(nats / math.log(2), rel=1e-5)
    teacher = setting.teacher.network(inputs)
    same = (teacher.argmax(1) == logits.argmax(1)).float().mean().item()
    assert found["test_agreement"] == pytest.approx(100 * same)
    kl = F.kl_div(logits.log_softmax(1), teacher.log_softmax(1), log_target=True, reduction="sum")
    assert found["test_kl"] == pytest.approx(kl.item() / len(logits), rel=1e-4)
