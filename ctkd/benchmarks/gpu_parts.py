"""The parts of the check of a GPU: each returns what its line of results.jsonl holds."""

import contextlib
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from ctkd.results.read.work_files import read_rows

if TYPE_CHECKING:
    from ctkd.benchmarks.step import Pair

ROOT = Path(__file__).resolve().parents[2]
MARK = "mark.gpu"
METHODS = ("ctkd", "kd", "dkd", "dkd_ctkd")
STEPS_PER_EPOCH = 782  # of CIFAR-100 in batches of 64
EPOCHS = 240
Line = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """The settings of a part, from the command line.

    Attributes:
        seconds: until the part is cut.
    """

    out: Path
    quick: bool
    seconds: float
    data_dir: str | None
    teacher_weights: str | None


def machine(settings: Settings) -> Line:
    """Device and versions; passes where PyTorch computes on the device."""
    import torch
    import torchvision

    from ctkd.benchmarks.timing import machine as described

    device = "cuda" if torch.cuda.is_available() else "cpu"
    total = torch.ones(256, 256, device=device) @ torch.ones(256, 256, device=device)
    line = {**described(), "torchvision": torchvision.__version__, "cuda": torch.version.cuda}
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        line |= {"memory_gib": round(properties.total_memory / 2**30, 1)}
    return {"passed": total.sum().item() == 256.0**3, **line}


def tests(settings: Settings) -> Line:
    """The tests marked gpu. On a CPU they run too, except those that need a GPU's own functions."""
    report = settings.out / "tests.xml"
    # To collect all files would take longer than to run these.
    marked = [
        p for p in sorted((ROOT / "tests").rglob("test_*.py")) if MARK in p.read_text("utf-8")
    ]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", f"--junitxml={report}"]
    command += map(str, marked)
    environment = {**os.environ, "CTKD_GPU_REHEARSAL": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=sys.stderr, timeout=None)
    suite = ElementTree.parse(report).getroot()[0]
    counts = {key: int(suite.attrib[key]) for key in ("tests", "failures", "errors", "skipped")}
    failed = [case.attrib["name"] for case in suite if case.find("failure") is not None]
    return {"passed": done.returncode == 0, **counts, "failed": failed}


def profile(settings: Settings) -> Line:
    """Kernels, launches and waits of one step, eager and captured; passes if no step waits."""
    import torch
    from torch.profiler import ProfilerActivity

    gpu = torch.cuda.is_available()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]
    line: Line = {"passed": True}
    with _pair(settings, steps=64) as pair:
        cases = {"eager": pair.ours("compile = False")}
        if gpu:
            cases["captured"] = pair.ours("compile = False", "Runtime.cuda_graph = True")
        for name, step in cases.items():
            for _ in range(6):  # past the first steps and the capture
                step()
            with torch.profiler.profile(activities=activities) as seen:
                step()
            counts = {event.key: event.count for event in seen.key_averages()}
            waits = sum(n for key, n in counts.items() if "Synchronize" in key)
            line[name] = {
                "launches": sum(n for key, n in counts.items() if "Launch" in key),
                "waits": max(0, waits - 1) if gpu else 0,  # the profiler's own, at its end
                "operations": sum(n for key, n in counts.items() if key.startswith("aten::")),
            }
            line["passed"] &= line[name]["waits"] == 0
    return line


def speed(settings: Settings) -> Line:
    """images/s of a plain loop, and of ours: eager, compiled, captured, in bfloat16."""
    import torch

    from ctkd.benchmarks import step
    from ctkd.benchmarks.measured_images import default_workers
    from ctkd.benchmarks.timing import in_turns, quartiles, ratios

    gpu = torch.cuda.is_available()
    rounds, block = (6, 20) if gpu and not settings.quick else (2, 1)
    with _pair(settings, steps=2 * (rounds + 2) * block) as pair:
        cases: dict[str, Callable[[], object]] = {
            "plain loop": pair.plain(default_workers()),
            "eager": pair.ours("compile = False"),
        }
        if gpu:
            graph = "Runtime.cuda_graph = True"
            cases["compiled"] = pair.ours("compile = True")
            cases["captured"] = pair.ours("compile = False", graph)
            cases["captured, bfloat16"] = pair.ours("precision = 'bfloat16'", graph)
        seconds = in_turns(cases, rounds, warm_up=2, repeat=block)
    plain = seconds["plain loop"]
    line = {
        name: {
            "images_per_s": round(step.BATCH / quartiles(values)[1]),
            "ratio_to_plain": [round(ratio, 2) for ratio in ratios(plain, values)],
        }
        for name, values in seconds.items()
    }
    return {"passed": True, "cases": line}


def group(settings: Settings) -> Line:
    """Milliseconds of a turn of 1, 2, 4 and 8 students that share the device."""
    import torch

    from ctkd.benchmarks.timing import in_turns, quartiles

    gpu = torch.cuda.is_available()
    counts = (1, 2, 4, 8) if gpu else (1, 2)
    rounds, block = (6, 20) if gpu and not settings.quick else (2, 1)
    settings_of_step = ["Runtime.cuda_graph = True"] if gpu else ["compile = False"]
    with _pair(settings, steps=4 * (rounds + 4) * block) as pair:
        students = [pair.ours(*settings_of_step, f"seed = {s}") for s in range(counts[-1])]
        streams = [torch.cuda.Stream() if gpu else None for _ in students]  # type: ignore[no-untyped-call]

        def turn(count: int) -> None:
            for student, stream in zip(students[:count], streams[:count], strict=True):
                with contextlib.nullcontext() if stream is None else torch.cuda.stream(stream):
                    student()

        cases = {str(count): (lambda n=count: turn(n)) for count in counts}
        seconds = in_turns(cases, rounds, warm_up=2, repeat=block)
    line = {name: round(1e3 * quartiles(values)[1], 3) for name, values in seconds.items()}
    return {"passed": True, "turn_ms": line}


def runs(settings: Settings) -> Line:
    """Full-length runs in one group, as many as fit; on a CPU, two short ones of the digits."""
    import torch

    from ctkd.engine.group import execute_group
    from ctkd.engine.job import Job

    folder = settings.out / "runs"
    if not torch.cuda.is_available():
        short = ["epochs = 2", "steps_per_epoch = 4", "threads = 1", "Runtime.figures = False"]
        job = Job(["gin/digits/ctkd.gin"], short, str(folder))
        execute_group([job.for_seed(seed) for seed in (0, 1)])
        return {"passed": True}
    if settings.data_dir is None or settings.teacher_weights is None:
        return {"passed": True, "left_out": "--data_dir and --teacher_weights are needed"}
    students, epochs = _plan(settings)
    params = [f"data_dir = {settings.data_dir!r}", f"epochs = {epochs}", "Recipe.eval_every = 10"]
    params += [f"teacher_weights = {settings.teacher_weights!r}", "Runtime.cuda_graph = True"]
    params += ["compile = False", "teacher_cache = None", "Runtime.tensorboard = False"]
    jobs = [
        Job([f"gin/cifar100/{method}.gin"], [*params, f"seed = {seed}"], f"{folder}/{method}{seed}")
        for seed, method in itertools.product(range(8), METHODS)
    ]
    started = time.monotonic()
    execute_group(jobs[:students])
    return {"passed": True, "students": students, "seconds_of_group": time.monotonic() - started}


def _plan(settings: Settings) -> tuple[int, int]:
    """How many students the time allows at full length, and the epochs; one shorter run if none."""
    lines = (settings.out / "results.jsonl").read_text(encoding="utf-8").splitlines()
    turns = [json.loads(line).get("turn_ms") for line in lines]
    turn_ms = next(found for found in reversed(turns) if found)
    steps, usable = STEPS_PER_EPOCH * EPOCHS, 0.85 * settings.seconds
    fits = [int(count) for count, ms in turn_ms.items() if steps * ms / 1e3 < usable]
    if fits and not settings.quick:
        return max(fits), EPOCHS
    return 1, max(1, min(EPOCHS, int(usable / (STEPS_PER_EPOCH * turn_ms["1"] / 1e3))))


def read_runs(out: Path) -> list[Line]:
    """The last epoch and accuracy of every run, finished or not."""
    found = []
    for path in sorted((out / "runs").rglob("metrics.jsonl")):
        if rows := read_rows(path):  # also of a run that was cut while it wrote
            keys = ("epoch", "test_top1", "temperature", "t_star", "images_per_s")
            name = str(path.parent.relative_to(out / "runs"))
            last = {k: row[k] for row in rows for k in keys if row.get(k) is not None}
            found.append({"run": name, "finished": (path.parent / "summary.json").exists(), **last})
    return found


def _pair(settings: Settings, steps: int) -> "contextlib.closing[Pair]":
    """ResNet-56 → ResNet-20 on CIFAR-100, or on random images; small networks on a CPU."""
    import torch

    from ctkd.benchmarks.measured_images import MeasuredCIFAR
    from ctkd.benchmarks.step import Pair

    name = "resnet56_resnet20" if torch.cuda.is_available() else "resnet14_resnet8"
    return contextlib.closing(Pair(name, MeasuredCIFAR(settings.data_dir), [], steps))


PARTS: dict[str, Callable[[Settings], Line]] = {
    function.__name__: function for function in (machine, tests, profile, speed, group, runs)
}
