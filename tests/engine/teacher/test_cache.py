"""The cache of a teacher's rows: exact, shared, and harmless whatever happens to the disk."""

import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from ctkd.data.digits import Digits
from ctkd.engine.distributed.world import World
from ctkd.engine.tasks.images_in_memory import ClassificationTask
from ctkd.engine.teacher.cache import open_cache
from ctkd.engine.teacher.frozen import FrozenTeacher
from ctkd.registry import MODELS

CPU = torch.device("cpu")
# Fills a cache in an order of its own; the process of seed 2 writes on and on, to be killed in it.
FILL = """
import pathlib, sys
import torch
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[3])
from test_cache import CPU, ClassificationTask, Digits, World, cache_of, teacher_of

root, seed = pathlib.Path(sys.argv[1]), int(sys.argv[2])
dataset = Digits(train_images=96)
task = ClassificationTask(dataset, dataset.load(), 32, 0, CPU, World())
cache = cache_of(root, teacher_of(), task)
order = torch.randperm(96 * 9, generator=torch.Generator().manual_seed(seed))
print("begins", flush=True)
for _ in range(10_000 if seed == 2 else 1):
    for row_indices in order.split(7):
        rows = cache.rows(task.batch_of(row_indices // 9, row_indices % 9))
        if seed == 2:
            cache.store.write(row_indices.numpy(), rows.numpy())
print("ends", flush=True)
"""
GIN = pathlib.Path(__file__).parents[3] / "gin" / "digits"
METHODS = sorted({path.stem for path in GIN.glob("*.gin")} - {"base", "teacher", "vanilla"})


@pytest.fixture
def task():
    """96 digits, nine views each."""
    dataset = Digits(train_images=96)
    return ClassificationTask(dataset, dataset.load(), 32, 0, CPU, World())


def teacher_of(seed=0, batch_size=16, name="digits_teacher", precision="float32"):
    torch.manual_seed(seed)
    network = MODELS.get(name)()
    return FrozenTeacher(network, CPU, precision, f"weights {seed}", batch_size=batch_size)


def cache_of(root, teacher, task, key=None, dtype="float32", messages=None, **more):
    messages = [] if messages is None else messages
    more = {"limit": 2**30, "device": CPU, "say": messages.append, "warn": messages.append, **more}
    return open_cache(root, key or {"teacher": "one"}, teacher, task, dtype=dtype, **more)


@pytest.mark.parametrize("name", ["digits_teacher", "resnet8", "wrn_16_1"])
def test_a_row_has_the_same_bits_in_whatever_batch(name):
    teacher = teacher_of(name=name)
    shape = (1, 8, 8) if name == "digits_teacher" else (3, 32, 32)
    images = torch.randn(40, *shape)
    expected = teacher.compute(images)
    generator = torch.Generator().manual_seed(0)
    for count in (40, 33, 16, 15, 7, 1):
        order = torch.randperm(40, generator=generator)[:count]
        assert torch.equal(teacher.compute(images[order]), expected[order])


def test_the_batch_it_computes_in_has_one_size():
    teacher = teacher_of(batch_size=8)
    seen = []
    teacher.network.register_forward_pre_hook(lambda module, inputs: seen.append(len(*inputs)))
    assert teacher.compute(torch.randn(19, 1, 8, 8)).shape == (19, 10)
    assert seen == [8, 8, 8]


def test_rows_are_those_that_the_teacher_computes(tmp_path, task):
    teacher = teacher_of(batch_size=24)
    cache = cache_of(tmp_path, teacher, task)
    for _ in range(2):
        for batch in task.batches(1, skip=0):
            assert torch.equal(cache.rows(batch), teacher.compute(batch.inputs))
    assert (cache.hits, cache.misses) == (96 + 96 - cache.misses, cache.misses)
    assert 0 < cache.misses < 96  # some were computed ahead, for later batches


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
def test_as_much_is_computed_as_is_missing(tmp_path, task, share):
    teacher = teacher_of()
    cache = cache_of(tmp_path, teacher, task)
    batches = list(task.batches(1, skip=0))
    known = np.random.default_rng(0).random(96) < share
    indices = torch.cat([batch.indices for batch in batches])[torch.from_numpy(known)]
    views = torch.cat([batch.views for batch in batches])[torch.from_numpy(known)]
    if known.any():
        cache.rows(task.batch_of(indices, views))
    calls = []
    teacher.network.register_forward_pre_hook(lambda *_: calls.append(1))
    for batch in batches:
        cache.rows(batch)
    assert len(calls) == -(-int((~known).sum()) // 16)


def test_each_part_of_the_fingerprint_makes_another_cache(tmp_path, monkeypatch):
    def folder(key=None, train_images=96, padding=1, mean=None, dtype="float32"):
        dataset = Digits(train_images=train_images, padding=padding)
        if mean is not None:
            dataset.mean = mean
        task = ClassificationTask(dataset, dataset.load(), 32, 0, CPU, World())
        return cache_of(tmp_path, teacher_of(), task, key, dtype).store.folder

    first = folder()
    assert folder() == first
    folders = [
        first,
        folder({"teacher": "other weights"}),
        folder({"teacher": "one", "precision": "bfloat16"}),
        folder(train_images=95),
        folder(padding=2),
        folder(mean=(0.3,)),
        folder(dtype="float16"),
    ]
    with monkeypatch.context() as patched:
        patched.setattr(torch, "__version__", "9.9")
        folders.append(folder())
    with monkeypatch.context() as patched:
        patched.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "another")
        folders.append(folder())
    with monkeypatch.context() as patched:
        patched.setattr(torch, "get_num_threads", lambda: 3)
        folders.append(folder())
    assert len(set(folders)) == len(folders) == 10


def test_other_rows_than_the_teachers_are_refused(tmp_path, task):
    """The key cannot know that a network's code was changed; the rows tell."""
    batch = next(task.batches(1, skip=0))
    cache_of(tmp_path, teacher_of(), task).rows(batch)
    changed = teacher_of(seed=1)
    messages = []
    assert cache_of(tmp_path, changed, task, messages=messages) is None
    assert "has other rows than this teacher computes" in messages[0]
    assert cache_of(tmp_path, teacher_of(), task) is not None


def test_no_folder_no_cache(tmp_path, task):
    (tmp_path / "file").write_text("")
    messages = []
    assert cache_of(tmp_path / "file", teacher_of(), task, messages=messages) is None
    assert messages[0].startswith("no teacher cache: ")


def test_a_whole_cache_can_live_on_the_device(tmp_path, task):
    teacher = teacher_of()
    cache = cache_of(tmp_path, teacher, task)
    assert cache.store.table() is None
    row_indices = torch.arange(96 * 9)
    expected = cache.rows(task.batch_of(row_indices // 9, row_indices % 9))
    np.testing.assert_array_equal(cache.store.table(), expected.numpy())


@pytest.mark.slow
def test_two_processes_fill_it_while_a_third_is_killed(tmp_path, task, environment):
    program = tmp_path / "fill.py"
    program.write_text(FILL)
    here = str(pathlib.Path(__file__).parent)
    processes = [
        subprocess.Popen(
            [sys.executable, str(program), str(tmp_path / "caches"), str(seed), here],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in range(3)
    ]
    assert processes[2].stdout.readline() == "begins\n"
    time.sleep(0.3)
    processes[2].send_signal(signal.SIGKILL)
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert [output.endswith("ends\n") for output in outputs] == [True, True, False]
    teacher = teacher_of()
    cache = cache_of(tmp_path / "caches", teacher, task)
    row_indices = np.arange(96 * 9)
    found, rows = cache.store.read(row_indices)
    assert found.all()
    where = torch.from_numpy(row_indices)
    expected = teacher.compute(task.batch_of(where // 9, where % 9).inputs)
    np.testing.assert_array_equal(rows, expected.numpy())
