"""What is compiled, and that it is compiled once."""

import pytest
import torch
from torch import nn

from ctkd.engine.distributed.world import World
from ctkd.engine.job import Job
from ctkd.engine.speed import compile as compilation
from ctkd.engine.speed.compile import WholeBatches, compiles_student, compiles_teacher
from ctkd.errors import ConfigError

CPU = torch.device("cpu")


@pytest.fixture
def run():
    def build(*bindings):
        return Job(["gin/cifar100/kd.gin"], list(bindings)).build(meta=True)

    return build


@pytest.mark.parametrize(
    ("bindings", "device", "teacher", "student"),
    [
        (["compile = False"], "cpu", False, False),
        (["compile = True"], "cpu", True, True),
        ([], "cpu", True, False),
        ([], "cuda", True, True),
        (["steps_per_epoch = 5", "epochs = 2"], "cpu", False, False),
        (["steps_per_epoch = 500", "epochs = 4"], "cpu", True, False),
        (["compile = True", "steps_per_epoch = 5"], "cpu", True, True),
    ],
)
def test_what_is_compiled(run, monkeypatch, bindings, device, teacher, student):
    monkeypatch.setattr(compilation, "has_compiler", lambda device: True)
    built, device = run(*bindings), torch.device(device)
    assert (compiles_teacher(built, device), compiles_student(built, device)) == (
        teacher,
        student,
    )


def test_without_a_compiler_auto_does_without_and_true_says_so(run, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert not compiles_teacher(run(), CPU)
    with pytest.raises(ConfigError, match=r"Runtime.compile = True needs a C\+\+ compiler"):
        compiles_student(run("compile = True"), CPU)


def test_on_a_gpu_triton_needs_a_c_compiler(run, monkeypatch):
    auto, asked, gpu = run(), run("compile = True"), torch.device("cuda")  # which import things
    original = compilation.importlib.util.find_spec

    def find_spec(name, package=None):
        return "found" if name == "triton" else original(name, package)

    monkeypatch.setattr(compilation.importlib.util, "find_spec", find_spec)
    found = {"gcc"}
    monkeypatch.setattr(compilation.shutil, "which", lambda name: name if name in found else None)
    monkeypatch.delenv("CC", raising=False)
    assert compiles_student(auto, gpu)
    monkeypatch.setenv("CC", "other")
    assert not compiles_student(auto, gpu)
    found.add("clang")
    assert compiles_student(auto, gpu)
    found.clear()
    with pytest.raises(ConfigError, match="needs Triton and a C compiler"):
        compiles_student(asked, gpu)


@pytest.mark.parametrize(
    ("ranks", "accumulate", "size"),
    [(1, 1, 64), (1, 3, 22), (2, 1, 32), (2, 2, 16), (3, 1, None), (2, 3, None)],
)
def test_a_student_is_compiled_where_ranks_have_equal_shares(
    run, monkeypatch, ranks, accumulate, size
):
    sizes = []
    monkeypatch.setattr(compilation, "WholeBatches", lambda student, size: sizes.append(size))
    built = run("compile = True", f"Runtime.accumulate = {accumulate}")
    student = nn.Identity()
    made = compilation.compile_student(built, student, CPU, World(0, ranks))
    assert sizes == ([] if size is None else [size])
    assert (made is student) == (size is None)


def test_only_whole_batches_meet_the_compiled_network(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda network, dynamic: lambda x: network(x) + 100)
    network = WholeBatches(nn.Identity(), 8)
    assert (network(torch.zeros(8, 1)) == 100).all()
    assert (network(torch.zeros(5, 1)) == 0).all()


@pytest.mark.slow
def test_compiled_runs_compile_once_and_do_as_eager_ones(train, tmp_path, same):
    counters = torch._dynamo.utils.counters
    short = ["digits.train_images = 100", "batch_size = 32", "teacher_cache = None"]
    eager = train("ctkd", *short, workdir="eager")
    torch._dynamo.reset()
    counters.clear()
    compiled = train("ctkd", *short, "compile = True", workdir="compiled")
    assert counters["stats"]["unique_graphs"] == 2  # the teacher's and the student's
    for one, other in zip(eager.metrics, compiled.metrics, strict=True):
        assert other["train_loss"] == pytest.approx(one["train_loss"], rel=1e-3)
    cached = [*short[:2], f"teacher_cache = {str(tmp_path / 'cache')!r}", "compile = True"]
    for state in ("cold", "warm"):
        assert same(train("ctkd", *cached, workdir=state).tensors(), compiled.tensors())
