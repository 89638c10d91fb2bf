"""The one loop: every method, every task, every machine."""

import time

import torch
from torch import Tensor, nn

from ctkd.distiller import Outcome
from ctkd.engine.config.build import Run
from ctkd.engine.device import device_of, to_device
from ctkd.engine.diagnostics import warnings as faults
from ctkd.engine.diagnostics.landscape import Probe
from ctkd.engine.distributed.reduce import (
    average_statistics,
    merge,
    sum_over_ranks,
    synchronise_batch_norm,
)
from ctkd.engine.distributed.world import World
from ctkd.engine.interrupt import StopRequests
from ctkd.engine.metrics import Meter, Trace
from ctkd.engine.optim import Optimizer
from ctkd.engine.output import records as report
from ctkd.engine.output.checkpoint import Checkpoints
from ctkd.engine.output.console import Console
from ctkd.engine.output.workdir import Workdir, identity_of
from ctkd.engine.progress import Moving, Progress
from ctkd.engine.speed.choose import fast_step, fast_student
from ctkd.engine.task import Batch, Task, TeacherFunction
from ctkd.engine.teacher.frozen import FrozenTeacher, autocast, judge
from ctkd.errors import Interrupted, NonFiniteError
from ctkd.seeds import seed_of


def train(
    run: Run,
    task: Task,
    teacher: FrozenTeacher | None,
    workdir: Workdir,
    console: Console,
    world: World,
) -> report.Summary:
    """Trains from the latest checkpoint, or from the beginning, to the end.

    Raises:
        NonFiniteError: a quantity became NaN or infinite; nothing of it is saved.
        Interrupted: the process was asked to stop; the state is saved.
    """
    trainer = Trainer(run, task, teacher, workdir, console, world)
    trainer.resume()
    with StopRequests() as stop, console.live(run, task), report.Board(run, workdir) as board:
        trainer.prepare()
        while trainer.epoch <= run.recipe.epochs:
            batches = task.batches(trainer.epoch, skip=trainer.steps_into_epoch)
            for batch in trainer.progress.waited(batches, lambda: trainer.warm):
                trainer.step(batch)
                if trainer.steps_into_epoch == 0:
                    record = trainer.finish_epoch()
                    if world.is_main:
                        board.add(record)
                stopping = world.any(stop.requested)  # all ranks after the same step
                if stopping or trainer.checkpoint_is_due:
                    trainer.save()
                if stopping:
                    raise Interrupted(f"interrupted after step {trainer.progress.steps}")
    if not world.is_main:
        return report.summarize(run, task, trainer.progress)
    if teacher is not None and teacher.cache is not None:
        console.say(teacher.cache.told())
    return report.finish(run, task, trainer.progress, workdir, console)


class Trainer:
    """A run in progress."""

    def __init__(
        self,
        run: Run,
        task: Task,
        teacher: FrozenTeacher | None,
        workdir: Workdir,
        console: Console,
        world: World,
    ) -> None:
        """Moves the networks to the device, and draws the instrument's batch."""
        self.run, self.task, self.teacher = run, task, teacher
        self.workdir, self.console, self.world = workdir, console, world
        synchronise_batch_norm(run.student, world if run.recipe.sync_batch_norm else World())
        synchronise_batch_norm(run.distiller, world)
        device = device_of(run)
        self.student = to_device(run.student, device)
        self.distiller = run.distiller.to(device)
        self.optimizer = Optimizer(
            run.optimizer,
            nn.ModuleList([self.student, *self.distiller.helpers]),
            self.distiller.policy,
            scaled=run.runtime.precision == "float16",
        )
        self.meter = Meter(device)
        traced = min(run.instrument.trace_epochs, run.recipe.epochs) * task.steps_per_epoch
        self.trace = Trace(traced if teacher else 0, device)
        self.moving = Moving(self.student, self.distiller, self.optimizer, self.meter, self.trace)
        self.network = fast_student(run, self.student, device, world)
        self.take = fast_step(run, self.take_step, task, device, world, console.warn)
        self.autocast = autocast(device, run.runtime.precision)
        self.probe = Probe(run.instrument, task, teacher) if teacher else None
        folder, keep = workdir.path / "checkpoints", run.runtime.keep_checkpoints
        self.checkpoints = Checkpoints(folder, keep, console.warn)
        self.identity = identity_of(run.settings)
        self.progress = Progress()
        self.saved_at = -1
        self.warm = False  # whether this process has taken a step
        self.rate = 0.0
        self.clock = time.monotonic()

    @property
    def epoch(self) -> int:
        """The epoch that the next step belongs to, from 1."""
        return self.progress.steps // self.task.steps_per_epoch + 1

    @property
    def steps_into_epoch(self) -> int:
        """Steps done of that epoch."""
        return self.progress.steps % self.task.steps_per_epoch

    @property
    def checkpoint_is_due(self) -> bool:
        """After every epoch, and every so many steps."""
        by_steps = self.progress.steps % self.run.runtime.checkpoint_steps == 0
        return by_steps or self.steps_into_epoch == 0

    def resume(self) -> None:
        """Takes up the latest usable checkpoint, and makes the files agree with it."""
        state = self.world.agree(lambda: self.checkpoints.latest(self.identity))
        if state is None:
            return
        self.progress = self.moving.load(state)
        self.saved_at = self.progress.steps
        self.write_files()  # a process may have been killed before it did
        self.console.say(f"resumed at step {self.progress.steps}, epoch {self.epoch}")

    def prepare(self) -> None:
        """Judges the teacher and takes the first landscape, unless a checkpoint holds them."""
        for fault in faults.faults_of_run(self.run):
            self.console.warn(fault)
        if self.teacher is not None and not self.progress.teacher:
            cause = faults.cause_of_weak_teacher(self.run)
            self.progress.teacher = judge(self.teacher, self.run.teacher, self.task, cause)
        self.console.teacher(self.run, self.progress.teacher)
        for fault in faults.faults_of_teacher(self.run, self.progress.teacher, self.task):
            self.console.warn(fault)
        self.place()
        if self.progress.steps == 0:
            self.measure_landscape(0)
        self.student.train()

    def place(self) -> None:
        """Sets what depends on the place in the recipe: λ, weights, progress, learning rate."""
        recipe, per_epoch = self.run.recipe, self.task.steps_per_epoch
        position = recipe.position(self.progress.steps, per_epoch)
        self.distiller.at(position, self.progress.steps / (per_epoch * recipe.epochs))
        self.rate = self.run.optimizer.learning_rate(position, self.run.recipe_epochs)
        self.optimizer.set_learning_rate(self.rate)

    def step(self, batch: Batch) -> None:
        """One step of the game: one backward and one optimizer for student and temperature."""
        started = time.perf_counter()
        self.place()
        rank = (self.world.rank,) if self.world.rank else ()  # dropout differs from rank to rank
        torch.manual_seed(seed_of(self.run.seed, "step", self.progress.steps, *rank))
        outcome, norms = self.take(batch, self.teacher)
        self.meter.update(self.progress.steps, outcome, norms)
        lambda_ = self.distiller.get_buffer("lambda_")
        self.trace.update(self.progress.steps, outcome.temperature, lambda_)
        self.progress.steps += 1
        if self.warm:
            self.progress.train_seconds += time.perf_counter() - started
            self.progress.timed_images += batch.samples
        self.warm = True
        shown = lambda_ if self.distiller.learned else None
        self.console.step(self.progress, self.meter, self.rate, shown)

    def take_step(
        self, batch: Batch, teacher: TeacherFunction | None
    ) -> tuple[Outcome, tuple[Tensor, Tensor]]:
        """Moves student and temperature; nothing here waits for the device."""
        cut = batch.parts(self.run.runtime.accumulate)
        parts, totals = zip(*(self.backward(part, teacher) for part in cut), strict=True)
        moved = [*self.optimizer.student, *self.optimizer.policy]
        # Where samples are not rows, each rank has as many as it has (a detector's proposals).
        rows = batch.samples if totals[0] is None else None
        outcome = sum_over_ranks(self.world, moved, merge(parts), rows)
        return outcome, self.optimizer.step()

    def backward(self, part: Batch, teacher: TeacherFunction | None) -> tuple[Outcome, int | None]:
        """Adds a part's share of the step's gradients; its outcome, and `Rows.total`."""
        with self.autocast:
            rows = self.task.rows(self.network, teacher, part)
        outcome: Outcome = self.distiller(
            rows.student.float(),
            rows.teacher,
            rows.targets,
            total_rows=rows.total or part.samples,
            other_losses=rows.other_losses,
            groups=rows.groups,
            group_names=rows.group_names,
            row_weights=rows.weights,
        )
        self.optimizer.backward(outcome.loss)
        return outcome, rows.total

    def finish_epoch(self) -> report.Record:
        """Evaluates, measures the landscape, and keeps the record; the caller saves."""
        epoch, recipe = self.epoch - 1, self.run.recipe
        waiting = time.perf_counter()  # a GPU may still be at work on the epoch's steps
        self.check()
        self.progress.train_seconds += time.perf_counter() - waiting
        lambda_ = self.distiller.get_buffer("lambda_").item() if self.distiller.schedule else None
        record = report.epoch_record(epoch, self.progress, self.meter, self.rate, lambda_)
        if epoch % recipe.eval_every == 0 or epoch == recipe.epochs:
            record |= self.task.evaluate(self.student)
            record |= self.measure_landscape(epoch)
            place = self.workdir if self.world.is_main else None
            report.keep_best(record, self.task.primary, self.student, self.progress, place)
        record |= report.reading_record(self.task, self.console.warn)
        for fault in faults.faults_of_epoch(self.distiller, self.meter):
            self.console.warn(fault)
        self.progress.history.append(record)
        self.meter.reset()
        self.progress.restart_clock()
        self.console.epoch(record, recipe.epochs, self.task)
        return record

    def check(self) -> None:
        """Raises NonFiniteError if anything has become NaN or infinite; the one read-back."""
        average_statistics(self.student, self.world)  # it is judged or saved next
        self.optimizer.check()
        self.meter.check(self.task.steps_per_epoch)
        for whose, module in (("student", self.student), ("temperature policy", self.distiller)):
            finite = [tensor.isfinite().all() for tensor in module.state_dict().values()]
            if finite and not torch.stack(finite).all():
                raise NonFiniteError(
                    f"the {whose}'s weights became NaN or infinite by step {self.progress.steps} "
                    f"(learning rate {self.rate:g}); nothing after the last checkpoint was saved"
                )

    def measure_landscape(self, epoch: int) -> dict[str, float]:
        """Asks the instrument; what the epoch's record says of it."""
        if self.probe is None:
            return {}
        measured = self.probe.measure(self.student, self.distiller)
        for fault in [*measured.pop("warnings"), *faults.faults_of_probe(measured)]:
            self.console.warn(fault)
        self.progress.rows = measured.pop("rows")
        self.progress.landscape.append({"epoch": epoch, **measured})
        return report.landscape_record(measured)

    def save(self) -> None:
        """Writes a checkpoint and the files that follow from it, unless something went bad."""
        if self.saved_at == self.progress.steps:
            return
        self.check()
        now = time.monotonic()
        self.progress.seconds += now - self.clock
        self.clock = now
        state = {"identity": self.identity, **self.moving.state(self.progress)}
        if self.world.is_main:
            self.checkpoints.save(self.progress.steps, state)
        self.saved_at = self.progress.steps
        if self.steps_into_epoch == 0:
            self.write_files()

    def write_files(self) -> None:
        """Brings what follows from the newest checkpoint into agreement with it."""
        if not self.world.is_main:
            return
        if self.steps_into_epoch == 0:
            report.write_weights(self.workdir, "student_last.pt", self.student)
        report.write_records(self.workdir, self.progress, self.trace, self.task)
