"""The temperatures of a finished run, replayed as recorded or rearranged: a counterfactual."""

import pickle
from pathlib import Path
from typing import ClassVar, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ctkd.checks import expect
from ctkd.errors import ConfigError
from ctkd.files import user_path
from ctkd.registry import TEMPERATURES
from ctkd.seeds import generator

RECORD_FILE = "temperatures.pt"  # in a work directory: float32 [steps, 1] or [steps, rows]

Order = Literal["recorded", "reversed", "shuffled", "mean"]
Rows = Literal["recorded", "permuted", "mean", "hard_low", "hard_high"]


@TEMPERATURES.register
class ReplayedTemperature(nn.Module):
    """T(step) of a finished run, not learned, to ask which part of it does the work.

    Each setting keeps the recorded values and changes one property of them.

    `order` is the order in time. "recorded" replays T step by step: with the seed of the finished
    run, and one T per step, it trains the same student, bit by bit. "reversed" and "shuffled"
    rearrange the steps. "mean" is one constant T, the mean over all steps.

    `rows` is for a run that recorded a T for every row (`Instrument.record_rows`), and must have
    the same batches: the same data set, seed and batch size. "recorded" gives each row its T.
    "permuted" deals the T of a step out to its rows at random. "mean" is the mean of the step.
    "hard_low" gives the lowest T to the row with the largest cross-entropy of the student,
    "hard_high" the highest.

    A run of another length replays T of a step at the same share of the run. Rows that the
    finished run did not have (the probe's) get the mean of the step.

    Args:
        run: the work directory of the finished run; `{seed}` in it becomes the seed of this run.
        seed: for what is drawn at random; a run passes its own, None is 0.
        dry: whether the file is not to be read, because nothing will be trained.

    Attributes:
        folder: the work directory of the finished run; None if it is not to be read.
        needs_targets: whether the policy is called with the targets too.
        needs_whole_step: whether all rows of a step must be in one call.

    Raises:
        ConfigError: an unknown choice, or a folder without the record that the choice needs.
    """

    learned: ClassVar[bool] = False
    bounds: ClassVar[tuple[float, float] | None] = None
    values: Tensor
    means: Tensor

    def __init__(
        self,
        run: str | None = None,
        order: Order = "recorded",
        rows: Rows = "recorded",
        seed: int | None = None,
        dry: bool = False,
    ) -> None:
        super().__init__()
        owner, seed = type(self).__name__, seed or 0
        expect(run is not None, owner, "run", run, "the work directory of a finished run")
        for name, choice, known in (("order", order, Order), ("rows", rows, Rows)):
            choices = get_args(known)
            expect(choice in choices, owner, name, choice, f"one of {', '.join(choices)}")
        folder = user_path(str(run).replace("{seed}", str(seed)), f"{owner}.run")
        values = torch.ones(1, 1) if dry else read_record(folder)
        if not dry:
            _check_choice(folder, values, order, rows)
        self.folder = None if dry else folder
        values = _arranged(values, order, rows, seed)
        self.rows = rows
        self.needs_whole_step: bool = values.shape[1] > 1
        self.needs_targets: bool = self.needs_whole_step and rows in ("hard_low", "hard_high")
        # The record is the configuration of this policy, so that checkpoints do not hold it.
        self.register_buffer("values", values, persistent=False)
        self.register_buffer("means", values.double().nanmean(1).float(), persistent=False)

    def forward(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        progress: float | Tensor,
        targets: Tensor | None = None,
    ) -> Tensor:
        """T of the step at `progress`: 0-d, or [N, 1]."""
        if not isinstance(progress, Tensor):
            progress = torch.full_like(self.means[0], progress)  # no copy from the host
        steps, columns = self.values.shape
        step = (progress.to(self.values) * steps).round().long().clamp(0, steps - 1).reshape(1)
        count = len(student_logits)
        if columns == 1 or count > columns:
            return self.means.index_select(0, step).reshape(())
        temperature = self.values.index_select(0, step)[0, :count]
        if self.needs_targets:
            if targets is None:
                raise ValueError(f"ReplayedTemperature.rows = {self.rows!r} needs the targets")
            logits = student_logits.detach().float()
            loss = F.cross_entropy(logits, targets, reduction="none")
            rank = loss.argsort(descending=self.rows == "hard_low").argsort()
            temperature = temperature.sort().values.gather(0, rank)
        return temperature.unsqueeze(1)


def read_record(folder: Path) -> Tensor:
    """The temperatures of a finished run, [steps, 1] or [steps, rows]; NaN where a row is missing.

    Raises:
        ConfigError: there is no record, it cannot be read, a step is missing in it, or a T is not
            a finite number > 0.
    """
    path = folder / RECORD_FILE
    try:
        values: Tensor = torch.load(path, weights_only=True)["temperatures"]
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ConfigError(
            f"there is no {path}: expected the work directory of a finished run with a teacher. "
            "Train that run first, to its end"
        ) from error
    except (OSError, RuntimeError, KeyError, TypeError, EOFError, pickle.PickleError) as error:
        reason = (
            error.strerror if isinstance(error, OSError) else "it is not a record of temperatures"
        )
        raise ConfigError(f"{path} cannot be read: {reason}. Train that run again") from error
    missing = values[:, 0].isnan().nonzero()
    if len(missing):
        raise ConfigError(
            f"{path} holds {len(values)} steps, and T of step {int(missing[0]) + 1} is missing: "
            "train that run to its end first; or, if it was resumed with another "
            "Instrument.record_rows, again from its beginning"
        )
    wrong = (~(values.nan_to_num(nan=1.0, posinf=0.0) > 0).all(1)).nonzero()
    if len(wrong):
        raise ConfigError(
            f"{path}: T of step {int(wrong[0]) + 1} is not a finite number > 0. "
            "Train that run again"
        )
    return values


def _check_choice(folder: Path, values: Tensor, order: Order, rows: Rows) -> None:
    """Raises ConfigError where the record does not have what `order` and `rows` rearrange."""
    per_row = values.shape[1] > 1
    if not per_row and rows not in ("recorded", "mean"):
        raise ConfigError(
            f"ReplayedTemperature.rows = {rows!r}: the run in {folder} recorded one T per step. "
            "Train it with a policy per sample and --gin_param 'Instrument.record_rows = True'"
        )
    if per_row and order != "recorded" and rows != "mean":
        raise ConfigError(
            f"ReplayedTemperature.order = {order!r}: the run in {folder} recorded a T for each "
            "row, which belongs to its step. Set ReplayedTemperature.rows = 'mean' as well"
        )


def _arranged(values: Tensor, order: Order, rows: Rows, seed: int) -> Tensor:
    """The record with its rows and then its steps rearranged."""
    if rows == "mean":
        values = values.double().nanmean(1, keepdim=True).float()
    if rows == "permuted":
        keys = torch.rand(values.shape, generator=generator(seed, "replay", "rows"))
        values = values.gather(1, keys.where(~values.isnan(), torch.inf).argsort(1))
    if order == "reversed":
        values = values.flip(0)
    if order == "shuffled":
        values = values[torch.randperm(len(values), generator=generator(seed, "replay", "steps"))]
    if order == "mean":
        values = values.double().mean(0, keepdim=True).float()
    return values.contiguous()
