"""What a teacher of text leaves on disk: exact or unbiased, and the same bits when it is read."""

import pytest
import torch

from ctkd.data.text.documents import Document
from ctkd.data.text.python_topics import PythonTopics
from ctkd.data.text.text_dataset import TextSplits
from ctkd.data.text.windows import Windows, stream_of
from ctkd.engine.distributed.world import World
from ctkd.engine.job import Job
from ctkd.engine.tasks.language import LanguageTask
from ctkd.engine.tasks.language_settings import LanguageSettings
from ctkd.engine.teacher.cache import open_cache
from ctkd.engine.teacher.frozen_language import FrozenLanguageModel
from ctkd.engine.teacher.token_rows import HiddenRows16, SampledRows
from ctkd.errors import ConfigError
from ctkd.losses.kd import kd_loss
from ctkd.losses.sampled import sampled_kd_rows
from ctkd.models.decoder import decoder

CPU = torch.device("cpu")
TEXTS = ("a window lies at a fixed offset of the text, and its rows", "are computed once", "test")


@pytest.fixture(scope="module")
def made():
    """A student, a teacher, and a task of windows of which some hold two documents."""
    torch.manual_seed(0)
    sizes = {"num_classes": 260, "depth": 1, "width": 16, "heads": 2}
    student, teacher = decoder(**sizes), decoder(**sizes)
    for parameter in (*student.parameters(), *teacher.parameters()):
        torch.nn.init.normal_(parameter, std=0.3)
    data = PythonTopics(context=12)
    windows = Windows(stream_of([Document(t, t) for t in TEXTS], data.tokenizer), 12)
    splits = TextSplits(windows, {"test": windows})
    task = LanguageTask(data, splits, 3, 0, CPU, World(), None, LanguageSettings())
    return student, FrozenLanguageModel(teacher, CPU, "float32", "x", batch_size=2), task


def opened(form, folder, teacher, task):
    rows, key = form(teacher, task), {"teacher": "x"}
    said = {"say": lambda text: None, "warn": pytest.fail}
    cache = open_cache(folder, key, rows, rows, dtype=rows.dtype, limit=2**40, device=CPU, **said)
    return rows, cache


@pytest.mark.parametrize("form", [HiddenRows16, SampledRows])
def test_read_rows_have_the_bits_of_computed_rows(made, form, tmp_path):
    student, teacher, task = made
    batches = list(task.batches(1, 0))
    found = []
    for cached in (False, True, True):
        teacher.windows, cache = opened(form, tmp_path, teacher, task)
        teacher.cache = cache if cached else None
        found.append(torch.cat([task.rows(student, teacher, each).teacher for each in batches]))
    assert cache.hits == sum(len(batch.indices) for batch in batches)
    assert cache.misses == 0
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    assert cache.store.dtype.name == ("float16" if form is HiddenRows16 else "float32")


def test_hidden_states_give_the_logits_to_16_bits_in_one_piece_and_in_blocks(made):
    student, teacher, task = made
    batch = next(task.batches(1, 0))
    teacher.windows = teacher.cache = None
    exact = task.rows(student, teacher, batch).teacher
    teacher.windows = HiddenRows16(teacher, task)
    logits = task.rows(student, teacher, batch).teacher
    assert logits.shape == exact.shape == (batch.rows, 256)
    assert 0 < (logits - exact).abs().max() < 2e-3 * exact.abs().max()
    task.settings = LanguageSettings(block=5)
    blocks = [block.teacher for block in task.rows(student, teacher, batch).blocks()]
    task.settings = LanguageSettings()
    torch.testing.assert_close(torch.cat(blocks), logits)


def test_drawn_tokens_estimate_the_loss(made):
    student, teacher, task = made
    batch = next(task.batches(1, 0))
    teacher.windows = teacher.cache = None
    with torch.no_grad():
        rows = task.rows(student, teacher, batch)
        teacher.windows = SampledRows(teacher, task, draws=512)
        drawn = task.rows(student, teacher, batch)
    assert drawn.is_sampled
    truth = kd_loss(rows.student, rows.teacher, 2.0)
    assert sampled_kd_rows(drawn.student, drawn.teacher, 2.0).mean() == pytest.approx(
        truth, rel=0.1
    )


def built(*bindings, file="gin/language/kd.gin"):
    return Job([file], [*bindings]).build(meta=True)


SAMPLED = ("Teacher.rows = 'sampled'", "Method.objective = @SampledKD")
MISTAKES = [
    (["Teacher.rows = 'top_k'"], r"move the maximum of L\(T\)"),
    (SAMPLED[:1], "KD needs logits; set Method.objective = @SampledKD"),
    (SAMPLED, "Instrument.low and high are 0.5 and 40: set them inside"),
    ([*SAMPLED, "Language.block = 64"], "has no head to apply in blocks"),
    (
        [*SAMPLED, "Method.policy = @TokenTemperature", "Method.schedule = @CosineLambda"],
        "TokenTemperature reads the teacher's logits",
    ),
]


@pytest.mark.parametrize(("bindings", "message"), MISTAKES)
def test_what_a_form_does_not_allow_is_refused(bindings, message):
    with pytest.raises(ConfigError, match=message):
        built(*bindings)


def test_images_have_no_tokens():
    with pytest.raises(ConfigError, match="is for language models"):
        built("Teacher.rows = 'hidden16'", file="gin/digits/kd.gin")
