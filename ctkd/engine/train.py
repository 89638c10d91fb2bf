"""The training loop: one loop for every method, task and machine."""

import time
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from ctkd.data.workers import while_waiting
from ctkd.distiller import Outcome
from ctkd.engine.config.identity import identity_of
from ctkd.engine.device import to_device
from ctkd.engine.diagnostics import warnings as faults
from ctkd.engine.diagnostics.landscape import Probe
from ctkd.engine.distributed.batch_norm import average_statistics, synchronize_batch_norm
from ctkd.engine.distributed.reduce import merge, parallel, sum_over_ranks, without_sum
from ctkd.engine.distributed.stop_vote import StopVote
from ctkd.engine.distributed.world import World
from ctkd.engine.ema import Average
from ctkd.engine.game import game_of
from ctkd.engine.interrupt import StopRequests
from ctkd.engine.metrics import Meter, Trace, check_weights
from ctkd.engine.optim import optimizer_of
from ctkd.engine.output import records
from ctkd.engine.output.checkpoint import Checkpoints
from ctkd.engine.output.console import Console
from ctkd.engine.output.trackers import Trackers
from ctkd.engine.output.workdir import Workdir
from ctkd.engine.prepare import Prepared
from ctkd.engine.progress import Moving, Progress
from ctkd.engine.speed.cuda_graph import capture
from ctkd.engine.task import Batch, TeacherFunction
from ctkd.engine.teacher.frozen import judge
from ctkd.errors import Interrupted
from ctkd.seeds import seed_of


def train(prepared: Prepared, folder: Workdir, console: Console) -> records.Summary:
    """Trains from the latest checkpoint, or from the beginning, to the end.

    Raises:
        NonFiniteError: a quantity became NaN or infinite; nothing of it is saved.
        Interrupted: a stop was requested; if the error has a message, the state is saved.
    """
    trainer = Trainer(prepared, folder, console)
    with StopRequests() as stop, while_waiting(stop.check):
        for _ in trainer.turns(stop):
            pass  # runs that share a process take turns here: see `engine.group`
    return records.finish(prepared, trainer.progress, folder, console)


class Trainer:
    """A run in progress."""

    def __init__(self, prepared: Prepared, folder: Workdir, console: Console) -> None:
        """Moves the networks to the device, and draws the batch of the landscape."""
        run, task, device = prepared.run, prepared.task, prepared.device
        self.run, self.task, self.teacher = run, task, prepared.teacher
        self.prepared, self.console = prepared, console
        self.folder, self.world = folder, folder.world
        average = Average(run.student, run.recipe.ema_decay)
        synchronize_batch_norm(run.student, self.world if run.recipe.sync_batch_norm else World())
        synchronize_batch_norm(run.distiller, self.world)
        self.student = to_device(run.student, device)
        self.distiller = run.distiller.to(device)
        self.optimizer = optimizer_of(run, self.student, self.distiller, average)
        self.meter = Meter(device)
        self.trace = Trace.of(run, task.steps_per_epoch, device)
        self.moving = Moving(self.student, self.distiller, self.optimizer, self.meter, self.trace)
        self.game = game_of(run, self.student, self.distiller, task, device, self.world)
        self.parallel_game = parallel(self.game, self.world, run.runtime.accumulate)
        # `self.update`, or on a GPU its capture as one CUDA graph.
        self.captured_update = capture(run, self.update, task, device, self.world, console.warn)
        probed = self.teacher if self.distiller.policy else None  # without a T there is no L(T)
        self.probe = Probe(run.instrument, task, probed) if probed else None
        keep = run.runtime.keep_checkpoints
        self.checkpoints = Checkpoints(folder.path / "checkpoints", keep, console.warn)
        self.identity = identity_of(run.settings)
        self.progress = Progress()
        self.saved_at, self.lr = -1, 0.0
        self.warm = False  # whether this process has taken a step
        self.clock = time.monotonic()

    @property
    def epoch(self) -> int:
        """The epoch of the next step, from 1."""
        return self.progress.steps // self.task.steps_per_epoch + 1

    @property
    def steps_into_epoch(self) -> int:
        """Steps done in that epoch."""
        return self.progress.steps % self.task.steps_per_epoch

    @property
    def checkpoint_is_due(self) -> bool:
        """True after every epoch, and after every `Runtime.checkpoint_steps` steps."""
        by_steps = self.progress.steps % self.run.runtime.checkpoint_steps == 0
        return by_steps or self.steps_into_epoch == 0

    def turns(self, stop: StopRequests) -> Iterator[None]:
        """Trains from the latest checkpoint to the end; pauses after every step."""
        self.resume()
        run, must_stop = self.run, StopVote(self.world, lambda: stop.requested)
        with self.console.live(run, self.task), Trackers(run, self.folder, self.trace) as board:
            self.begin()
            while self.epoch <= run.recipe.epochs:
                for batch in self.batches(stop):
                    if must_stop():  # all ranks before the same step
                        self.stop()
                    self.train_step(batch)
                    if self.steps_into_epoch == 0:
                        board.add(self.finish_epoch())
                    if self.checkpoint_is_due:
                        self.save()
                    yield
                if must_stop():
                    self.stop()

    def resume(self) -> None:
        """Loads the latest usable checkpoint, and rewrites the files that follow from it."""
        state = self.folder.on_rank_0(lambda: self.checkpoints.latest(self.identity))
        if state is None:
            return
        self.progress = self.moving.load(state)
        self.saved_at = self.progress.steps
        self.write_files()  # a process may have been killed before it did
        self.console.say(f"resumed at step {self.progress.steps}, epoch {self.epoch}")

    def begin(self) -> None:
        """Evaluates the teacher and measures the first landscape, unless a checkpoint has them."""
        if self.teacher is not None and not self.progress.teacher:
            self.console.between_steps("evaluating the teacher", logged=True)
            expected = replace(self.run.teacher, min_accuracy=self.prepared.min_accuracy)
            cause = faults.cause_of_weak_teacher(self.run)
            self.progress.teacher = judge(self.teacher, expected, self.task, cause)
        self.console.teacher(self.run, self.progress.teacher)
        for fault in faults.faults_of_teacher(self.run, self.progress.teacher, self.task):
            self.console.warn(fault)
        self.set_position()
        if self.progress.steps == 0:
            self.measure_landscape(0)
        self.student.train()

    def batches(self, stop: StopRequests) -> Iterator[Batch]:
        """The rest of the epoch's batches; the time spent waiting for them is counted."""
        batches = self.task.batches(self.epoch, skip=self.steps_into_epoch)
        batches = self.progress.waited(batches, lambda: self.warm)
        # With several ranks, the others may be inside the step for which this rank has no batch:
        # they could not save together.
        return stop.until_stopped(batches) if self.world.size == 1 else batches

    def set_position(self) -> None:
        """Sets what depends on the position in the recipe: λ, weights, progress, learning rate.

        All of it is in 0-d tensors on the device, so that a captured step sees it change.
        """
        recipe, per_epoch = self.run.recipe, self.task.steps_per_epoch
        position = recipe.position(self.progress.steps, per_epoch)
        self.distiller.at(position, self.progress.steps / (per_epoch * recipe.epochs))
        self.lr = self.optimizer.at(self.progress.steps, self.run.optimizers.schedule(position))

    def train_step(self, batch: Batch) -> None:
        """One step of the game; nothing in it waits for the device."""
        started = time.perf_counter()
        self.set_position()
        rank = (self.world.rank,) if self.world.rank else ()  # dropout differs from rank to rank
        torch.manual_seed(seed_of(self.run.seed, "step", self.progress.steps, *rank))
        outcome, norms = self.captured_update(batch, self.teacher)
        self.meter.update(self.progress.steps, outcome, norms)
        lambda_ = self.distiller.get_buffer("lambda_")
        self.trace.update(self.progress.steps, outcome.temperature, lambda_)
        self.progress.steps += 1
        if self.warm:
            self.progress.train_seconds += time.perf_counter() - started
            self.progress.timed_images += batch.rows or batch.samples
        self.warm = True
        shown = lambda_ if self.distiller.learned else None
        self.console.step(self.progress, self.meter, self.lr, shown)

    def update(
        self, batch: Batch, teacher: TeacherFunction | None
    ) -> tuple[Outcome, tuple[Tensor, Tensor]]:
        """Forward, backward, optimizer: the student descends, the temperature ascends.

        Returns:
            The outcome of the whole step, and the gradient norms of student and policy.
        """
        outcomes: list[Outcome] = []
        parts = list(batch.parts(self.run.runtime.accumulate))
        for part in parts[:-1]:
            with without_sum(self.parallel_game):  # gradients add up on this rank
                outcomes.append(self.backward(part, teacher))
        # With several processes: one all-reduce of the gradients, during this backward pass.
        outcomes.append(self.backward(parts[-1], teacher))
        # Where samples are not rows, the ranks have different numbers of them (proposals).
        rows = batch.samples if self.game.rows is None else None
        outcome = sum_over_ranks(self.world, merge(outcomes), rows)  # one more, small, all-reduce
        return outcome, self.optimizer.step()

    def backward(self, part: Batch, teacher: TeacherFunction | None) -> Outcome:
        """Adds the gradients of a part of the step; returns its share of the outcome."""
        outcome: Outcome = self.parallel_game(part, teacher)
        # DistributedDataParallel takes the mean over ranks, the step is their sum.
        self.optimizer.backward(outcome.loss * self.world.size)
        return outcome

    def finish_epoch(self) -> records.Record:
        """Evaluates, measures the landscape, and keeps the record; the caller saves."""
        epoch, recipe = self.epoch - 1, self.run.recipe
        waiting = time.perf_counter()
        average_statistics(self.student, self.world)
        self.check()  # waits for the device, which may still compute the steps of the epoch
        self.progress.train_seconds += time.perf_counter() - waiting
        lambda_ = self.distiller.get_buffer("lambda_").item() if self.distiller.schedule else None
        record = records.epoch_record(
            epoch, self.progress, self.meter, self.lr, lambda_, self.task.unit
        )
        if epoch % recipe.eval_every == 0 or epoch == recipe.epochs:
            self.console.between_steps("evaluating the student")
            record |= self.optimizer.average.evaluate(self.task, self.world)
            record |= self.task.evaluate_student(self.run.deployed, self.teacher)
            record |= self.measure_landscape(epoch)
            records.keep_best(record, self.task, self.run.deployed, self.progress, self.folder)
        record |= records.reading_record(self.task, self.console.warn)
        for fault in faults.faults_of_epoch(self.distiller, self.meter):
            self.console.warn(fault)
        self.progress.history.append(record)
        self.meter.reset()
        self.progress.restart_clock()
        self.console.epoch(record, recipe.epochs, self.task)
        return record

    def check(self) -> None:
        """Reads back from the device; raises NonFiniteError if anything is NaN or infinite."""
        self.optimizer.check()
        self.meter.check(self.task.steps_per_epoch)
        modules = {"student": self.student, "temperature policy": self.distiller}
        check_weights(modules, self.progress.steps, self.lr)

    def measure_landscape(self, epoch: int) -> dict[str, float]:
        """Measures L(T); returns its part of the epoch's record."""
        if self.probe is None:
            return {}
        self.console.between_steps("measuring the landscape")
        measured = self.probe.measure(self.student, self.distiller)
        for fault in measured.pop("warnings") + faults.faults_of_probe(measured, first=epoch == 0):
            self.console.warn(fault)
        self.progress.rows = measured.pop("rows")
        self.progress.landscape.append({"epoch": epoch, **measured})
        return records.landscape_record(measured)

    def stop(self) -> None:
        """Saves, and raises Interrupted."""
        steps = self.progress.steps
        if steps > 0:  # before the first step there is nothing to save
            self.save()
        raise Interrupted(f"interrupted after step {steps}" if steps else "")

    def save(self) -> None:
        """Writes a checkpoint and the files that follow from it, unless something is not finite."""
        if self.saved_at == self.progress.steps:
            return
        average_statistics(self.student, self.world)
        self.check()
        before, self.clock = self.clock, time.monotonic()
        self.progress.seconds += self.clock - before
        state = {"identity": self.identity, **self.moving.state(self.progress)}
        if self.folder.writes:
            self.checkpoints.save(self.progress.steps, state)
        self.saved_at = self.progress.steps
        if self.steps_into_epoch == 0:
            self.write_files()

    def write_files(self) -> None:
        """Makes the record files and, after an epoch, the weights agree with the checkpoint."""
        if self.steps_into_epoch == 0:
            records.write_weights(self.folder, "student_last.pt", self.run.deployed)
            self.optimizer.average.write(self.folder)
        records.write_records(self.folder, self.progress, self.trace, self.task)
