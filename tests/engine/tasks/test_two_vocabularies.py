"""Two vocabularies: the game on the rows that have a partner, cross-entropy on all others."""

import re

import numpy as np
import pytest
import torch

from ctkd import Distiller
from ctkd.adversary.schedules import ConstantLambda
from ctkd.data.text.alignment import other_text
from ctkd.data.text.chunks import chunks_of
from ctkd.data.text.documents import Document
from ctkd.data.text.python_topics import PythonTopics
from ctkd.data.text.text_dataset import TextSplits
from ctkd.data.text.tokenizer import Encoded
from ctkd.data.text.windows import Windows, stream_of
from ctkd.engine.distributed.world import World
from ctkd.engine.game import Game
from ctkd.engine.tasks.alignment_settings import TeacherRowsSettings
from ctkd.engine.tasks.two_vocabularies import TwoVocabularies
from ctkd.engine.teacher.cache import open_cache
from ctkd.engine.teacher.frozen_language import FrozenLanguageModel
from ctkd.engine.teacher.token_rows import HiddenRows16
from ctkd.losses.alm import ALM
from ctkd.losses.columns import SharedColumns
from ctkd.losses.objectives import KD
from ctkd.losses.prefix_bytes import PrefixBytes
from ctkd.models.decoder import decoder
from ctkd.temperature import GlobalTemperature

CPU = torch.device("cpu")
TEXTS = ("a fox jumps over a dog.", "a dog sleeps", "six cats jump in a box.")
PIECES = [" ", ".", "a", "fox", "jump", "s", " over", " a", " dog", "dog", " sleep", " jump"]
PIECES += ["six", " cat", " in", " box"]


class Pieces:
    """A tokenizer of fixed pieces."""

    size, named = len(PIECES), "pieces"

    def encode(self, texts):
        pattern = "|".join(sorted(map(re.escape, PIECES), key=len, reverse=True))
        found = []
        for text in texts:
            parts = re.findall(pattern, text)
            ends = np.cumsum([len(part) for part in parts])
            starts = ends - [len(part) for part in parts]
            ids = np.array([PIECES.index(part) for part in parts])
            found.append(Encoded(ids, starts, ends, ends - starts))
        return found

    def token_bytes(self):
        return [piece.encode() for piece in PIECES]

    def fingerprint(self):
        return "pieces"


class Setting:
    """Two small networks in float64 with tokens of their own, and a learned T."""

    def __init__(self, transform, objective):
        torch.manual_seed(0)
        sizes = {"depth": 1, "width": 8, "heads": 2}
        self.student = decoder(num_classes=256, **sizes).double()
        teacher = decoder(num_classes=Pieces.size, **sizes).double()
        for parameter in (*self.student.parameters(), *teacher.parameters()):
            torch.nn.init.normal_(parameter, std=0.3)
        self.teacher = FrozenLanguageModel(teacher, CPU, "float32", "x")
        policy = GlobalTemperature(tau_init=1.0, tau_range=5.0, raw_init=-1.0)
        self.distiller = Distiller(policy, ConstantLambda(0.7), objective, transform)
        self.distiller.at(0.0)

    def task(self, shuffled=False):
        data = PythonTopics(context=12)
        data.teacher_tokenizer = Pieces()
        documents = [Document(str(n), text) for n, text in enumerate(TEXTS)]
        streams = [stream_of(documents, each) for each in (data.tokenizer, data.teacher_tokenizer)]
        windows = Windows(streams[0], 12)
        splits = TextSplits(windows, {"test": windows})
        task = TwoVocabularies(data, splits, 5, 0, CPU, World(), None)
        other = other_text(documents, streams[1])
        task.align({"train": other, "test": other}, self.distiller, TeacherRowsSettings(shuffled))
        return task

    def played(self, task, count=1):
        """Loss and gradients (student, T) of a step, the sum of its parts, and the outcome."""
        modules, losses = (self.student, self.distiller), []
        for module in modules:
            module.zero_grad()
        plain = torch.autocast("cpu", enabled=False)
        game = Game(self.student, self.distiller, task, self.student, plain)
        for part in next(task.batches(1, 0)).parts(count):
            outcome = game(part, self.teacher)
            outcome.loss.backward()
            losses.append(outcome.loss.item())
        gradients = [p.grad.flatten() for module in modules for p in module.parameters()]
        return torch.cat([torch.tensor([sum(losses)], dtype=torch.float64), *gradients]), outcome


@pytest.fixture(scope="module")
def setting():
    return Setting(SharedColumns(), KD(0.5, 0.5))


def test_the_loss_is_that_of_a_loop_over_the_rows(setting):
    task = setting.task()
    batch = next(task.batches(1, 0))
    found, outcome = setting.played(task)
    with torch.no_grad():
        rows = task.rows(setting.student, setting.teacher, batch)
        logits = setting.student(batch.inputs)
        pairs = task.alignment.pairs(batch.indices)
    temperature = setting.distiller.policy(None, None, 0.0).item()
    shared = [(ord(p), n) for n, p in enumerate(PIECES) if len(p) == 1]
    targets = batch.targets[batch.targets >= 0]
    partner = dict(zip(pairs.rows.tolist(), rows.teacher, strict=True))
    total = 0.0
    for n, (row, target) in enumerate(zip(logits, targets, strict=True)):
        ce = -row.double().log_softmax(0)[target]
        if n not in partner:
            total += ce
            continue
        q = (row.double()[[s for s, _ in shared]] / temperature).log_softmax(0)
        p = (partner[n].double()[[t for _, t in shared]] / temperature).log_softmax(0)
        kl = sum(a.exp() * (a - b) for a, b in zip(p, q, strict=True))
        total += 0.5 * ce + 0.5 * temperature**2 * kl
    assert 0 < len(partner) < len(targets)
    assert found[0].item() == pytest.approx(total.item() / len(targets), rel=1e-5)
    assert {*outcome.terms} == {"ce", "kd", "ce_unpaired"}


def test_partners_are_the_teachers_rows_of_the_text_before(setting):
    """Every row of the teacher equals that of the tokens of its window, read alone."""
    task = setting.task()
    batch = next(task.batches(1, 0))
    pairs = task.alignment.pairs(batch.indices)
    rows = task.teacher_rows(setting.teacher, pairs, batch.indices)
    width = pairs.ids.shape[1]
    for partner, row in zip(pairs.partners.tolist(), rows, strict=True):
        window, at = divmod(partner, width)
        ids, documents = pairs.ids[window, : at + 1], pairs.documents[window, : at + 1]
        alone = ids[documents == documents[-1]][None]
        expected = setting.teacher.network(type(batch.inputs)(alone))[-1]
        torch.testing.assert_close(row, expected.float(), rtol=1e-5, atol=1e-6)


def test_chunks_have_the_likelihood_of_their_tokens():
    setting = Setting(None, ALM(0.5, 0.5))
    task = setting.task()
    batch = next(task.batches(1, 0))
    targets = batch.targets[batch.targets >= 0]
    pairs = task.alignment.pairs(batch.indices)
    chunks = chunks_of(pairs, len(targets))
    with torch.no_grad():
        rows = task.rows(setting.student, setting.teacher, batch)
        log_q = setting.student(batch.inputs).log_softmax(1)
        inputs = type(batch.inputs)(pairs.ids, pairs.documents)
        log_p = setting.teacher.network(inputs).log_softmax(1)
    for chunk in range(chunks.size):
        ours = sum(log_q[n, targets[n]] for n in (chunks.student == chunk).nonzero())
        mine = (chunks.teacher == chunk).nonzero()
        theirs = sum(log_p[chunks.partners[r], chunks.targets[r]] for r in mine)
        assert rows.student[chunk, 0] == pytest.approx(ours.item(), rel=1e-5)
        assert rows.teacher[chunk, 0] == pytest.approx(theirs.item(), rel=1e-5)
    torch.testing.assert_close(rows.student.exp().sum(1), torch.ones(chunks.size))
    _, outcome = setting.played(task)
    mean = -log_q.gather(1, targets[:, None]).mean().item()
    assert sum(outcome.terms[k] for k in ("ce", "ce_unpaired")) == pytest.approx(mean, rel=1e-5)
    assert {len(kind.groups) for kind in task.kinds(batch).values()} == {chunks.size}


@pytest.mark.parametrize("objective", [KD(0.5, 0.5), ALM(0.5, 0.5)])
def test_parts_add_up_to_the_step(objective):
    setting = Setting(PrefixBytes() if isinstance(objective, KD) else None, objective)
    task = setting.task()
    torch.testing.assert_close(
        setting.played(task, 2)[0], setting.played(task)[0], rtol=2e-5, atol=1e-7
    )


def test_shuffled_rows_are_the_same_rows_in_another_order(setting):
    batch = next(setting.task().batches(1, 0))
    plain, once, twice = (
        task.rows(setting.student, setting.teacher, batch).teacher
        for task in (setting.task(), setting.task(True), setting.task(True))
    )
    assert torch.equal(once, twice)
    assert not torch.equal(plain, once)
    assert torch.equal(plain.sort(0).values, once.sort(0).values)


def test_kinds_and_an_evaluation_of_the_teacher(setting):
    task = setting.task()
    batch = task.probe(3)
    count = len(task.alignment.pairs(batch.indices).rows)
    assert {len(kind.groups) for kind in task.kinds(batch).values()} == {count}
    found = task.evaluate_teacher(setting.teacher.network)
    made = Pieces().encode(TEXTS)
    tokens = sum(len(each.ids) - 1 for each in made)  # the first of a document is not predicted
    read = sum(each.bytes[1:].sum() for each in made)
    nats = found["test_loss"] * tokens
    assert found["test_bits_per_byte"] == pytest.approx(nats / np.log(2) / read)


@pytest.mark.parametrize("objective", [KD(0.5, 0.5), ALM(0.5, 0.5)])
def test_states_on_disk_give_the_teachers_rows_to_16_bits(objective, tmp_path):
    setting = Setting(PrefixBytes() if isinstance(objective, KD) else None, objective)
    task, student = setting.task(), setting.student.float()
    teacher = FrozenLanguageModel(
        setting.teacher.network.float(), CPU, "float32", "x", batch_size=2
    )
    # Parts of a step have other longest windows than the text.
    parts = list(next(task.batches(1, 0)).parts(3))

    def rows():
        return torch.cat([task.rows(student, teacher, part).teacher for part in parts])

    exact = rows()
    teacher.windows = kept = HiddenRows16(teacher, task)
    found = [rows()]
    for _ in range(2):
        given = {"dtype": kept.dtype, "limit": 2**40, "device": CPU}
        teacher.cache = open_cache(
            tmp_path, {}, kept, kept, say=lambda text: None, warn=pytest.fail, **given
        )
        found.append(rows())
    assert (teacher.cache.hits, teacher.cache.misses) == (len(task.train), 0)
    assert all(torch.equal(found[0], each) for each in found[1:])
    assert 0 < (found[0] - exact).abs().max() < 2e-3 * exact.abs().max()
