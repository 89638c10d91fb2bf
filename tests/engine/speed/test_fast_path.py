"""What makes a step fast, and that it stays the same step: folding, compiling, capturing."""

import ctypes
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ctkd import memory
from ctkd.data.digits import Digits
from ctkd.engine.distributed.world import World
from ctkd.engine.task import Batch, DeferredBatch
from ctkd.engine.tasks.images_in_memory import ClassificationTask

CPU = torch.device("cpu")
GPU = pytest.mark.gpu(only=True)
GRAPH = "Runtime.cuda_graph = True"
CAPTURED = [
    ("kd", ["SGD.warmup_epochs = 3.0"]),
    ("ctkd", ["Recipe.ema_decay = 0.9"]),
    ("ctkd_instance", ["Runtime.accumulate = 2", "SGD.clip_norm = 1.0"]),
    ("dkd_ctkd", ["Recipe.optimizer = @AdamW"]),
    ("kd", ["Method.features = [@CRD]", "CRD.negatives = 16"]),
    ("kd", ["Augmentation.mixup = 0.5", "Augmentation.erasing = 0.5"]),
]


class Watch(TorchDispatchMode):
    """Keeps the names of the operations."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func.name())
        return func(*args, **(kwargs or {}))


class TestStep:
    @pytest.mark.parametrize("method", ["kd", "ctkd", "ctkd_instance", "dkd_ctkd", "annealed"])
    def test_nothing_in_a_step_waits_for_the_device(self, trainer, method):
        """Reading a value, a size that depends on values, or a tensor made of Python numbers."""
        made = trainer(method)
        batches = made.task.batches(1, skip=0)
        made.train_step(next(batches))  # momentum and the like are made in the first
        made.set_position()
        batch = next(batches)
        with Watch() as watch:
            made.captured_update(batch, made.teacher)
        seen = {name.partition(".")[0] for name in watch.names}
        assert "aten::convolution" in seen
        waiting = {"_local_scalar_dense", "nonzero", "masked_select", "item", "is_nonzero"}
        waiting |= {"lift_fresh"}  # of a tensor made of a number
        assert not seen & {f"aten::{name}" for name in waiting}

    def test_a_batch_is_made_when_it_is_asked_for_and_once(self):
        dataset = Digits(train_images=40)
        task = ClassificationTask(dataset, dataset.load(), 32, 0, CPU, World())
        (first, last) = task.batches(1, skip=0)
        assert "_made" not in vars(first)
        assert first.inputs is first.inputs
        assert first.inputs.shape == (32, 1, 8, 8)
        assert torch.equal(first.coming[0], last.indices)
        assert len(last.coming[0]) == 0
        again = task.batch_of(first.indices, first.views)
        assert torch.equal(again.inputs, first.inputs)
        assert torch.equal(again.targets, first.targets)
        assert [len(part.inputs) for part in first.parts(3)] == [11, 11, 10]

    @GPU
    @pytest.mark.parametrize(("method", "bindings"), CAPTURED)
    def test_a_captured_step_equals_the_eager_one(self, trainer, method, bindings):
        """The same steps, with λ and the learning rate moving, an epoch's short batch included."""
        ended = []
        for more in ((), (GRAPH,)):
            made = trainer(method, *bindings, *more)
            for epoch in (1, 2, 3):
                for batch in made.task.batches(epoch, skip=0):
                    made.train_step(batch)
            ended.append((made.student.state_dict(), made.distiller.state_dict(), made.meter))
        for one, other in zip(ended[0][:2], ended[1][:2], strict=True):
            for name in one:
                torch.testing.assert_close(one[name], other[name], rtol=1e-5, atol=1e-6)
        for name, value in ended[0][2].read().items():
            assert ended[1][2].read()[name] == pytest.approx(value, rel=1e-4)

    @GPU
    @pytest.mark.parametrize("more", [(), (GRAPH,)])
    @pytest.mark.parametrize(("method", "bindings"), CAPTURED)
    def test_cuda_counts_no_wait_in_a_step(self, trainer, method, bindings, more):
        """Eager, and captured; the first steps initialize libraries, and the capture waits."""
        made = trainer(method, *bindings, *more)
        for epoch in (1, 2):
            for batch in made.task.batches(epoch, skip=0):
                made.train_step(batch)
        batches = list(made.task.batches(3, skip=0))
        torch.cuda.set_sync_debug_mode("error")
        try:
            for batch in batches:
                made.train_step(batch)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    def test_without_a_gpu_a_run_says_that_nothing_is_captured(self, train):
        if torch.cuda.is_available():
            pytest.skip("there is a GPU here")
        run = train("kd", "Runtime.cuda_graph = True", "epochs = 1")
        assert "Runtime.cuda_graph has no effect: there is no GPU" in run.result.err


class TestMemory:
    def test_glibc_is_set_to_keep_what_is_freed(self, monkeypatch):
        options = {}
        library = SimpleNamespace(mallopt=options.__setitem__)
        monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
        memory.keep_freed_memory()
        # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX of glibc's malloc.h
        assert options == {-1: 2**31 - 1, -3: 2**25, -4: 0}

    def test_it_needs_no_torch(self, python):
        done = python(
            "from ctkd.memory import keep_freed_memory; keep_freed_memory();"
            "import sys; print('torch' in sys.modules)"
        )
        assert (done.status, done.out) == (0, "False\n")

    @pytest.mark.parametrize("error", [OSError, AttributeError])
    def test_other_libraries_are_left_as_they_are(self, monkeypatch, error):
        class Library:
            def __init__(self, name):
                if error is OSError:
                    raise OSError("no C library")

        monkeypatch.setattr(ctypes, "CDLL", Library)
        memory.keep_freed_memory()


def test_a_deferred_batch_is_a_batch():
    batch = DeferredBatch(lambda i, v: (i + v, i), torch.arange(3), torch.ones(3).long(), 3)
    assert isinstance(batch, Batch)
    assert batch.inputs.tolist() == [1, 2, 3]
    assert batch.targets.tolist() == [0, 1, 2]
