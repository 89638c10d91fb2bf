"""A training step: ours, through the engine's own Trainer, against a plain loop, and its stages."""

import itertools
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from ctkd.benchmarks.counts import split_name
from ctkd.benchmarks.measured_images import MeasuredCIFAR
from ctkd.benchmarks.plain_loop import PILImages, PlainLoop
from ctkd.benchmarks.timing import (
    Section,
    Work,
    in_turns,
    quartiles,
    ratios,
    spelled,
    wait_for_device,
)
from ctkd.engine.config.run import Run
from ctkd.engine.device import device_of
from ctkd.engine.job import Job
from ctkd.engine.output.console import Console
from ctkd.engine.output.workdir import Workdir
from ctkd.engine.prepare import prepare
from ctkd.engine.task import Batch
from ctkd.engine.teacher.frozen import FrozenTeacher
from ctkd.engine.train import Trainer
from ctkd.results.compare.tables import Column, Table

BATCH = 64
PLAIN, OFF, COLD, WARM = "plain loop", "ours, no cache", "ours, cold cache", "ours, warm cache"
EAGER, BF16 = "ours, no cache, nothing compiled", "ours, no cache, bfloat16 (inexact)"
STAGES = ("views", "teacher", "student", "loss and T", "backward", "optimizer", "metrics")
COLD_EPOCH, WARM_EPOCH, OTHER_EPOCH = 1, 2, 3


@dataclass
class Ours:
    """The engine's Trainer on a pair, and an endless stream of batches."""

    trainer: Trainer
    batches: Iterator[Batch]

    def __call__(self) -> None:
        """One step."""
        self.trainer.train_step(next(self.batches))


class Pair:
    """A teacher and a student, and what is measured of them."""

    def __init__(self, name: str, dataset: MeasuredCIFAR, settings: list[str], steps: int) -> None:
        """Takes a pair's name, such as resnet56_resnet20, and how many steps are to come."""
        self.name, self._dataset, self._steps = name, dataset, steps
        teacher, student = split_name(name)
        self._settings = [f"teacher = @{teacher}", f"student = @{student}", *settings]
        self._folder = Path(tempfile.mkdtemp(prefix="ctkd-benchmark-"))
        self._splits = dataset.load()

    def build(self, *more: str, method: str = "ctkd") -> Run:
        """A run of a method with the pair, on the measured images."""
        job = Job([f"gin/cifar100/{method}.gin"], [*self._settings, *more], str(self._folder))
        run = job.build()
        weights = self._folder / "teacher.pt"
        if run.teacher_network is not None and not weights.exists():
            torch.save(run.teacher_network.state_dict(), weights)
        teacher = replace(run.teacher, weights=str(weights))
        return replace(run, dataset=self._dataset, teacher=teacher)

    def ours(self, *more: str, cache: str | None = None, method: str = "ctkd") -> Ours:
        """The engine's step, with the cache "cold" (no row is in it), "warm" (all are) or off."""
        folder = None if cache is None else str(self._folder / cache)
        steps = f"steps_per_epoch = {self._steps}"
        run = self.build(*more, steps, f"teacher_cache = {folder!r}", method=method)
        console = Console(quiet=True)
        prepared = prepare(run, Workdir(self._folder), console)
        task, teacher = prepared.task, prepared.teacher
        epoch = OTHER_EPOCH if cache is None else {"cold": COLD_EPOCH, "warm": WARM_EPOCH}[cache]
        if cache == "warm" and teacher is not None:
            for batch in task.batches(epoch, skip=0):
                teacher(batch)
        trainer = Trainer(prepared, Workdir(self._folder), console)
        trainer.set_position()
        trainer.student.train()
        fresh = 10 if cache == "cold" else 0  # later epochs, so that no row is in the cache
        batches = (b for k in itertools.count() for b in task.batches(epoch + fresh * k, 0))
        return Ours(trainer, batches)

    def close(self) -> None:
        """Removes the files."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def plain(self, workers: int) -> PlainLoop:
        """The plain loop on the same networks and images."""
        run = self.build()
        images = PILImages(self._splits.train.images.numpy(), self._splits.train.targets.tolist())
        loader = DataLoader(
            images, BATCH, shuffle=True, num_workers=workers, persistent_workers=workers > 0
        )
        assert run.teacher_network is not None
        return PlainLoop(run.student, run.teacher_network, loader, device_of(run))


def measure_pair(pair: Pair, rounds: int, block: int, workers: int, plain: bool) -> list[Section]:
    """The steps against each other, and the stages of ours."""
    cases: dict[str, Work] = {PLAIN: pair.plain(workers)} if plain else {}
    cases |= {
        OFF: pair.ours(),
        EAGER: pair.ours("compile = False"),
        COLD: pair.ours(cache="cold"),
        WARM: pair.ours(cache="warm"),
        BF16: pair.ours("precision = 'bfloat16'"),
    }
    seconds = in_turns(cases, rounds, warm_up=1, repeat=block)
    base = seconds[PLAIN if plain else OFF]
    rows, data = [], []
    for name, values in seconds.items():
        speed = BATCH / quartiles(values)[1]
        ratio = ratios(base, values)
        rows.append([name, spelled(quartiles(values), 1e3), f"{speed:.0f}", spelled(ratio, 1, 2)])
        data.append(
            {"pair": pair.name, "case": name, "seconds": values, "images_per_s": speed}
            | {"ratio": ratio[1], "ratio_low": ratio[0], "ratio_high": ratio[2]}
        )
    columns = [Column("step"), Column("ms [quartiles]", "number"), Column("images/s", "number")]
    over = "plain loop" if plain else "no cache"
    columns.append(Column(f"times as fast as {over}", "number"))
    title = f"A step of {' → '.join(split_name(pair.name))}, batch {BATCH}"
    stages = [_stages(pair, cases[name], name, rounds * block) for name in (OFF, WARM)]
    return [Section("step", title, Table(columns, rows), data), *stages]


def _stages(pair: Pair, ours: object, name: str, steps: int) -> Section:
    """Where a step's time goes; each stage waited for, so the sum is above the step on a GPU."""
    assert isinstance(ours, Ours)
    taken: dict[str, list[float]] = {stage: [] for stage in STAGES}
    for number in range(steps + 2):
        times = _staged(ours)
        if number >= 2:
            for stage, seconds in times.items():
                taken[stage].append(seconds)
    whole = sum(quartiles(values)[1] for values in taken.values())
    rows = [
        [stage, spelled(quartiles(values), 1e3, 2), f"{100 * quartiles(values)[1] / whole:.1f}"]
        for stage, values in taken.items()
    ]
    data = [{"pair": pair.name, "case": name, "stage": s, "seconds": v} for s, v in taken.items()]
    columns = [
        Column("stage"),
        Column("ms [quartiles]", "number"),
        Column("% of the sum", "number"),
    ]
    return Section("stages", f"Stages of {pair.name}, {name}", Table(columns, rows), data)


def _staged(ours: Ours) -> dict[str, float]:
    """One step of the Trainer's, stage by stage."""
    trainer, batch = ours.trainer, next(ours.batches)
    times: dict[str, float] = {}
    clock = time.perf_counter()

    def lap(stage: str) -> None:
        nonlocal clock
        wait_for_device()
        now = time.perf_counter()
        times[stage] = now - clock
        clock = now

    targets = batch.targets
    lap("views")
    assert isinstance(trainer.teacher, FrozenTeacher)
    teacher_logits = trainer.teacher(batch)
    lap("teacher")
    with trainer.game.autocast:
        logits = trainer.game.forward_student(batch.inputs)
    lap("student")
    outcome = trainer.distiller(logits.float(), teacher_logits, targets)
    lap("loss and T")
    outcome.loss.backward()
    lap("backward")
    norms = trainer.optimizer.step()
    lap("optimizer")
    trainer.set_position()
    trainer.meter.update(trainer.progress.steps, outcome, norms)
    lambda_ = trainer.distiller.get_buffer("lambda_")
    trainer.trace.update(trainer.progress.steps, outcome.temperature, lambda_)
    trainer.progress.steps += 1
    lap("metrics")
    return times
