"""The cache of a teacher's rows: exact, shared, and harmless whatever happens to the disk."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from ctkd.data.digits import Digits
from ctkd.data.resident import Split, Splits
from ctkd.engine import cache_store
from ctkd.engine.cache_store import RowStore
from ctkd.engine.classification import ClassificationTask
from ctkd.engine.distributed import World
from ctkd.engine.teacher import FrozenTeacher
from ctkd.engine.teacher_cache import open_cache
from ctkd.registry import MODELS

CPU = torch.device("cpu")
# Fills a cache in an order of its own; the process of seed 2 writes on and on, to be killed in it.
FILL = """
import pathlib, sys
import torch
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[3])
from test_teacher_cache import CPU, ClassificationTask, Digits, World, cache_of, teacher_of

root, seed = pathlib.Path(sys.argv[1]), int(sys.argv[2])
dataset = Digits(train_images=96)
task = ClassificationTask(dataset, dataset.load(), 32, 0, CPU, World())
cache = cache_of(root, teacher_of(), task)
order = torch.randperm(96 * 9, generator=torch.Generator().manual_seed(seed))
print("begins", flush=True)
for _ in range(10_000 if seed == 2 else 1):
    for places in order.split(7):
        rows = cache.rows(task.batch_of(places // 9, places % 9))
        if seed == 2:
            cache.store.write(places.numpy(), rows.numpy())
print("ends", flush=True)
"""
GIN = pathlib.Path(__file__).parents[2] / "gin" / "digits"
METHODS = sorted({path.stem for path in GIN.glob("*.gin")} - {"base", "teacher", "vanilla"})


def row_store(folder, count=200, width=10, dtype="float32", limit=2**30, said=None):
    folder.mkdir(parents=True, exist_ok=True)
    return RowStore(folder, count, width, dtype, limit, [].append if said is None else said.append)


def some_rows(count=200, width=10, seed=0):
    rows = np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)
    return np.arange(count), rows


@pytest.fixture
def task():
    """96 digits, nine views each."""
    dataset = Digits(train_images=96)
    return ClassificationTask(dataset, dataset.load(), 32, 0, CPU, World())


def teacher_of(seed=0, batch_size=16, name="digits_teacher", precision="float32"):
    torch.manual_seed(seed)
    network = MODELS.get(name)()
    return FrozenTeacher(network, CPU, precision, f"weights {seed}", batch_size=batch_size)


def cache_of(root, teacher, task, key=None, dtype="float32", said=None, **more):
    said = [] if said is None else said
    more = {"limit": 2**30, "device": CPU, "say": said.append, "warn": said.append, **more}
    return open_cache(root, key or {"teacher": "one"}, teacher, task, dtype=dtype, **more)


class TestStore:
    def test_rows_come_back_bit_by_bit_and_only_where_written(self, tmp_path):
        places, rows = some_rows()
        store = row_store(tmp_path / "a")
        order = np.random.default_rng(1).permutation(150)
        store.write(places[order], rows[order])
        for again in (store, row_store(tmp_path / "a")):
            found, read = again.read(places[::-1])
            assert (found == (places[::-1] < 150)).all()
            np.testing.assert_array_equal(read[found], rows[::-1][found])
            assert again.share() == 0.75

    def test_sixteen_bits_hold_what_sixteen_bits_can(self, tmp_path):
        places, rows = some_rows()
        store = row_store(tmp_path / "a", dtype="float16")
        store.write(places, rows)
        found, read = store.read(places)
        assert found.all()
        np.testing.assert_array_equal(read, rows.astype(np.float16).astype(np.float32))
        assert (tmp_path / "a/rows").stat().st_size == 200 * 10 * 2

    def test_a_row_of_zeros_is_a_row(self, tmp_path):
        store = row_store(tmp_path / "a")
        store.write(np.array([7]), np.zeros((1, 10), np.float32))
        found, read = store.read(np.array([6, 7]))
        assert found.tolist() == [False, True]
        assert not read[1].any()

    @pytest.mark.parametrize("file", ["rows", "sums"])
    @pytest.mark.parametrize("bit", [0, 7])
    def test_a_flipped_bit_anywhere_makes_a_row_absent(self, tmp_path, file, bit):
        places, rows = some_rows()
        said = []
        store = row_store(tmp_path / "a", said=said)
        store.write(places, rows)
        item = 40 if file == "rows" else 8
        with open(tmp_path / "a" / file, "r+b") as damaged:
            for place in range(0, 200, 2):
                damaged.seek(place * item + place % item)
                byte = damaged.read(1)[0]
                damaged.seek(place * item + place % item)
                damaged.write(bytes([byte ^ 1 << bit]))
        found, read = store.read(places)
        assert (found == (places % 2 == 1)).all()
        np.testing.assert_array_equal(read[found], rows[found])
        assert store.damaged == 100
        assert "damaged" in said[0]

    def test_a_row_in_anothers_place_is_not_taken(self, tmp_path):
        places, rows = some_rows()
        store = row_store(tmp_path / "a")
        store.write(places, rows)
        for file, item in (("rows", 40), ("sums", 8)):
            path = tmp_path / "a" / file
            content = path.read_bytes()
            with path.open("r+b") as moved:  # in place: the store has it open
                moved.write(content[item:] + content[:item])
        assert not store.read(places)[0].any()

    def test_a_file_cut_short_is_noticed_before_it_is_touched(self, tmp_path):
        places, rows = some_rows(count=5000)
        said = []
        store = row_store(tmp_path / "a", count=5000, said=said)
        store.write(places, rows)
        os.truncate(tmp_path / "a/rows", 100)
        found, _ = store.read(places)
        assert not found.any()
        store.write(places, rows)
        assert not store.present(places).any()
        assert len(said) == 1
        assert "cut short" in said[0]

    def test_a_file_cut_short_before_is_made_whole_and_its_rows_are_gone(self, tmp_path):
        places, rows = some_rows(count=5000)
        row_store(tmp_path / "a", count=5000).write(places, rows)
        os.truncate(tmp_path / "a/rows", 4000)
        found, read = row_store(tmp_path / "a", count=5000).read(places)
        assert found[:100].all()
        assert not found[100:].any()
        np.testing.assert_array_equal(read[:100], rows[:100])

    def test_a_full_disk_ends_the_writing_not_the_run(self, tmp_path, monkeypatch):
        places, rows = some_rows()
        said = []
        store = row_store(tmp_path / "a", said=said)
        store.write(places[:50], rows[:50])
        real, left = os.pwrite, [1000]

        def full(file, data, offset):
            if left[0] <= 0:
                raise OSError(28, "No space left on device")
            taken = min(len(data), left[0])
            left[0] -= taken
            return real(file, data[:taken], offset)

        monkeypatch.setattr(os, "pwrite", full)
        store.write(places[50:], rows[50:])
        assert "No space left on device" in said[0]
        store.write(places[50:], rows[50:])
        assert len(said) == 1
        found, read = store.read(places)
        assert found[:50].all()
        np.testing.assert_array_equal(read[found], rows[found])

    def test_the_limit_is_kept_and_told(self, tmp_path, monkeypatch):
        monkeypatch.setattr(cache_store, "CHECK_EVERY", 2)
        places, rows = some_rows(count=40_000)
        said = []
        store = row_store(tmp_path / "caches/a", count=40_000, limit=2**20, said=said)
        for start in range(0, 40_000, 1000):
            store.write(places[start : start + 1000], rows[start : start + 1000])
        used = sum(p.stat().st_blocks * 512 for p in (tmp_path / "caches").glob("*/*"))
        assert 2**20 <= used < 1.5 * 2**20
        assert "Runtime.teacher_cache_gb" in said[0]
        assert len(said) == 1
        found, read = store.read(places)
        np.testing.assert_array_equal(read[found], rows[found])

    def test_the_disks_last_gigabyte_is_left_to_others(self, tmp_path, monkeypatch):
        monkeypatch.setattr(cache_store, "RESERVE", 2**62)
        said = []
        store = row_store(tmp_path / "a", said=said)
        store.write(*some_rows())
        assert store.share() == 0
        assert "are free on the disk" in said[0]

    def test_a_real_full_disk(self, tmp_path, monkeypatch):
        """A tiny file system in memory, where a careless read or write would kill the process."""
        monkeypatch.setattr(cache_store, "RESERVE", 0)
        small = tmp_path / "small"
        small.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(small)]
        try:
            mounted = subprocess.run(mount, capture_output=True).returncode == 0
        except OSError:
            mounted = False
        if not mounted:
            pytest.skip("this user cannot mount a tmpfs")
        try:
            said = []
            places, rows = some_rows(count=10_000)
            store = row_store(small / "a", count=10_000, said=said)
            for start in range(0, 10_000, 100):
                store.write(places[start : start + 100], rows[start : start + 100])
            assert "No space left on device" in said[0]
            found, read = store.read(places)
            assert 1000 < found.sum() < 6000
            np.testing.assert_array_equal(read[found], rows[found])
        finally:
            subprocess.run(["umount", "-l", str(small)], check=True)


class TestTeacher:
    @pytest.mark.parametrize("name", ["digits_teacher", "resnet8", "wrn_16_1"])
    def test_a_row_has_the_same_bits_in_whatever_batch(self, name):
        teacher = teacher_of(name=name)
        shape = (1, 8, 8) if name == "digits_teacher" else (3, 32, 32)
        images = torch.randn(40, *shape)
        expected = teacher.compute(images)
        generator = torch.Generator().manual_seed(0)
        for count in (40, 33, 16, 15, 7, 1):
            order = torch.randperm(40, generator=generator)[:count]
            assert torch.equal(teacher.compute(images[order]), expected[order])

    def test_the_batch_it_computes_in_has_one_size(self):
        teacher = teacher_of(batch_size=8)
        seen = []
        teacher.network.register_forward_pre_hook(lambda module, inputs: seen.append(len(*inputs)))
        assert teacher.compute(torch.randn(19, 1, 8, 8)).shape == (19, 10)
        assert seen == [8, 8, 8]


class TestCache:
    def test_rows_are_those_that_the_teacher_computes(self, tmp_path, task):
        teacher = teacher_of(batch_size=24)
        cache = cache_of(tmp_path, teacher, task)
        for _ in range(2):
            for batch in task.batches(1, skip=0):
                assert torch.equal(cache.rows(batch), teacher.compute(batch.inputs))
        assert (cache.hits, cache.misses) == (96 + 96 - cache.misses, cache.misses)
        assert 0 < cache.misses < 96  # some were computed ahead, for later batches

    @pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
    def test_as_much_is_computed_as_is_missing(self, tmp_path, task, share):
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

    def test_each_part_of_the_fingerprint_makes_another_cache(self, tmp_path, monkeypatch):
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

    def test_other_rows_than_the_teachers_are_refused(self, tmp_path, task):
        """The key cannot know that a network's code was changed; the rows tell."""
        batch = next(task.batches(1, skip=0))
        cache_of(tmp_path, teacher_of(), task).rows(batch)
        changed = teacher_of(seed=1)
        said = []
        assert cache_of(tmp_path, changed, task, said=said) is None
        assert "holds other rows than this teacher computes" in said[0]
        assert cache_of(tmp_path, teacher_of(), task) is not None

    def test_no_folder_no_cache(self, tmp_path, task):
        (tmp_path / "file").write_text("")
        said = []
        assert cache_of(tmp_path / "file", teacher_of(), task, said=said) is None
        assert said[0].startswith("no teacher cache: ")

    def test_a_whole_cache_can_live_on_the_device(self, tmp_path, task):
        teacher = teacher_of()
        cache = cache_of(tmp_path, teacher, task)
        assert cache.store.table() is None
        places = torch.arange(96 * 9)
        expected = cache.rows(task.batch_of(places // 9, places % 9))
        np.testing.assert_array_equal(cache.store.table(), expected.numpy())

    @pytest.mark.slow
    def test_two_processes_fill_it_while_a_third_is_killed(self, tmp_path, task, environment):
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
        places = np.arange(96 * 9)
        found, rows = cache.store.read(places)
        assert found.all()
        where = torch.from_numpy(places)
        expected = teacher.compute(task.batch_of(where // 9, where % 9).inputs)
        np.testing.assert_array_equal(rows, expected.numpy())


@pytest.fixture
def outcome(train, folder):
    """What a run leaves that must not depend on a cache."""

    def call(method, *bindings, workdir):
        run = train(method, *bindings, workdir=workdir)
        metrics = [{k: v for k, v in row.items() if k != "images_per_s"} for row in run.metrics]
        return run, metrics, run.landscape, run.tensors()

    return call


SHORT = ["digits.train_images = 100", "batch_size = 32"]  # the last batch of an epoch has 4 images


class TestRuns:
    @pytest.mark.parametrize("method", METHODS)
    def test_cached_and_uncached_runs_are_bit_identical(self, outcome, tmp_path, method, same):
        cached = f"teacher_cache = {str(tmp_path / 'cache')!r}"
        off = outcome(method, *SHORT, "teacher_cache = None", workdir="off")
        assert not (tmp_path / "cache").exists()
        for state in ("cold", "warm"):
            run, metrics, landscape, weights = outcome(method, *SHORT, cached, workdir=state)
            assert metrics == off[1]
            assert landscape == off[2]
            assert same(weights, off[3])
            assert f"teacher rows are remembered in {tmp_path / 'cache'}" in run.result.out

    def test_the_same_on_images_of_cifars_size(self, command, tmp_path, monkeypatch, folder, same):
        generator = torch.Generator().manual_seed(0)

        def split(count):
            images = torch.randint(256, (count, 32, 32, 3), generator=generator)
            return Split(images.to(torch.uint8), torch.arange(count) % 100)

        splits = Splits(split(150), split(100))
        monkeypatch.setattr("ctkd.data.cifar.CIFAR.load", lambda self: splits)
        monkeypatch.setattr("ctkd.results.figures.save_figures", lambda record, place: [])
        torch.manual_seed(0)
        torch.save(MODELS.get("resnet14")().state_dict(), tmp_path / "teacher.pt")
        (tmp_path / "images").mkdir()

        def run(workdir, cache):
            given = ["epochs = 2", "student = @resnet8", "teacher = @resnet14", "compile = False"]
            given += [f"data_dir = {str(tmp_path / 'images')!r}", "Teacher.floor = None"]
            given += [f"teacher_weights = {str(tmp_path / 'teacher.pt')!r}", "threads = 1"]
            given += [f"teacher_cache = {cache!r}", "Runtime.tensorboard = False"]
            result = command(
                "--gin_file=gin/cifar100/ctkd_instance.gin",
                *(f"--gin_param={binding}" for binding in given),
                f"--workdir={workdir}",
            )
            assert result.status == 0, result.err
            return folder(tmp_path / workdir, result)

        off = run("off", None)
        for state in ("cold", "warm"):  # "auto": beside the images
            assert same(run(state, "auto").tensors(), off.tensors())
        (home,) = (tmp_path / "images/teacher_cache").iterdir()
        assert {path.name for path in home.iterdir()} == {"key.json", "rows", "sums"}

    def test_a_run_outlives_its_cache(self, outcome, tmp_path, same, monkeypatch):
        """A disk that is full from the first write on, and rows that are damaged."""
        cached = f"teacher_cache = {str(tmp_path / 'cache')!r}"
        off = outcome("ctkd", *SHORT, "teacher_cache = None", workdir="off")
        with monkeypatch.context() as patched:

            def full(*_):
                raise OSError(28, "No space left on device")

            patched.setattr(os, "pwrite", full)
            run, *_, weights = outcome("ctkd", *SHORT, cached, workdir="full")
        assert same(weights, off[3])
        assert run.result.err.count("No space left on device") == 1
        outcome("ctkd", *SHORT, cached, workdir="fills")
        (rows,) = (tmp_path / "cache").glob("*/rows")
        content = bytearray(rows.read_bytes())
        content[::97] = bytes(len(content[::97]))
        rows.write_bytes(content)
        run, *_, weights = outcome("ctkd", *SHORT, cached, workdir="damaged")
        assert same(weights, off[3])
        assert run.result.err.count("damaged") == 1

    def test_sixteen_bits_are_named_inexact_and_are_another_recipe(self, outcome, tmp_path, same):
        half = [*SHORT, "Teacher.rows = 'float16'"]
        off = outcome("kd", *half, "teacher_cache = None", workdir="off")
        assert "inexact" in off[0].result.err
        cached = f"teacher_cache = {str(tmp_path / 'cache')!r}"
        for state in ("cold", "warm"):  # a row is rounded before it was ever on the disk
            assert same(outcome("kd", *half, cached, workdir=state)[3], off[3])
        exact = outcome("kd", *SHORT, "teacher_cache = None", workdir="exact")
        assert not same(exact[3], off[3])
        assert exact[0].settings["recipe"] != off[0].settings["recipe"]
        assert exact[0].settings["runtime"]["Runtime.teacher_cache"] is None

    def test_with_accumulated_gradients(self, outcome, tmp_path, same):
        parts = [*SHORT, "Runtime.accumulate = 3"]
        cached = f"teacher_cache = {str(tmp_path / 'cache')!r}"
        off = outcome("ctkd", *parts, "teacher_cache = None", workdir="off")
        for state in ("cold", "warm"):
            assert same(outcome("ctkd", *parts, cached, workdir=state)[3], off[3])
