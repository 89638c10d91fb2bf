"""What is measured step by step, accumulated on the device and read only now and then."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ctkd.distiller import Outcome
from ctkd.errors import NonFiniteError
from ctkd.losses.row_groups import group_means

if TYPE_CHECKING:
    from ctkd.engine.config.run import Run


class Meter:
    """Means over the steps since `reset`, the extremes of T, and the first non-finite quantity.

    Everything lives on the device: `update` reads nothing back, `read` does so once.
    """

    def __init__(self, device: torch.device) -> None:
        """Starts empty; the names of the quantities are those of the first update."""
        self.device = device
        self.names: list[str] = []
        self.reset()
        self.bad_step = torch.full((), -1, dtype=torch.int64, device=device)
        self.bad_name = torch.zeros((), dtype=torch.int64, device=device)

    def reset(self) -> None:
        """Begins a new epoch; a non-finite quantity stays on record."""
        self.steps = 0
        self.sums = torch.zeros(len(self.names), dtype=torch.float64, device=self.device)
        self.extremes = torch.tensor([torch.inf, -torch.inf], device=self.device)

    def update(self, step: int, outcome: Outcome, norms: tuple[Tensor, Tensor]) -> None:
        """Adds a step: its losses, temperature and gradient norms (student's, policy's)."""
        # In the order of cause and effect, so that the first bad one is where it began.
        quantities = {}
        if outcome.temperature is not None:
            quantities["temperature"] = outcome.temperature.mean()
            low, high = outcome.temperature.aminmax()
            self.extremes[0].clamp_(max=low)
            self.extremes[1].clamp_(min=high)
        quantities |= {**outcome.terms, "loss": outcome.loss.detach()}
        quantities["gradient"], quantities["policy_gradient"] = norms
        quantities |= outcome.groups
        if not self.names:
            self.names = list(quantities)
            self.reset_sums()
        values = torch.stack([value.to(self.device).float() for value in quantities.values()])
        self.sums += values
        self.steps += 1
        bad = ~torch.isfinite(values)
        first = bad.any() & (self.bad_step < 0)
        self.bad_name = torch.where(first, bad.int().argmax(), self.bad_name)
        self.bad_step = torch.where(first, step, self.bad_step)

    def reset_sums(self) -> None:
        """Makes room for the quantities, once their names are known."""
        self.sums = torch.zeros(len(self.names), dtype=torch.float64, device=self.device)

    @property
    def losses(self) -> list[str]:
        """The names of the loss and of its terms."""
        others = ("temperature", "temperature_teacher", "gradient", "policy_gradient")
        return [name for name in self.names if name not in others and "@" not in name]

    def read(self) -> dict[str, float]:
        """The means so far, by name, with `temperature_low` and `temperature_high`."""
        if not self.steps:
            return {}
        means = dict(zip(self.names, (self.sums / self.steps).tolist(), strict=True))
        sums = {name: means.pop(name) for name in self.names if "@" in name}
        means |= group_means(sums)
        if "temperature" in means:
            means["temperature_low"], means["temperature_high"] = self.extremes.tolist()
        return means

    def check(self, steps_per_epoch: int) -> None:
        """Raises NonFiniteError, naming the first step and quantity that was NaN or infinite."""
        step = int(self.bad_step)
        if step >= 0:
            epoch = step // steps_per_epoch + 1
            raise NonFiniteError(
                f"{self.names[int(self.bad_name)]} was NaN or infinite first at step {step + 1} "
                f"(epoch {epoch}); nothing after the last checkpoint was saved"
            )

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {
            "names": self.names,
            "steps": self.steps,
            "sums": self.sums,
            "extremes": self.extremes,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Takes up a checkpoint's state."""
        self.names, self.steps = state["names"], state["steps"]
        self.sums, self.extremes = state["sums"].to(self.device), state["extremes"].to(self.device)


class Trace:
    """T at every step: of the first epochs with extremes and λ, of all epochs to the last bit.

    Attributes:
        values: mean, lowest and highest T over the rows, and λ: [first steps, 4].
        record: what `ReplayedTemperature` replays: [steps, 1], the mean of T over the rows; or
            [steps, rows], with NaN where a step or a row is missing.
    """

    def __init__(
        self, steps: int, device: torch.device, recorded: int = 0, columns: int = 1
    ) -> None:
        """Makes room for the first `steps` steps, and for the record of `recorded` steps."""
        self.values = torch.full((steps, 4), torch.nan, device=device)
        self.record = torch.full((recorded, columns), torch.nan, device=device)

    @classmethod
    def of(cls, run: "Run", steps_per_epoch: int, device: torch.device) -> "Trace":
        """The trace of a run, empty; a run without a teacher has none."""
        instrument, epochs = run.instrument, run.recipe.epochs
        if run.teacher_network is None:
            return cls(0, device)
        columns = run.recipe.batch_size if instrument.record_rows else 1
        first = min(instrument.trace_epochs, epochs) * steps_per_epoch
        return cls(first, device, epochs * steps_per_epoch, columns)

    def update(self, step: int, temperature: Tensor | None, lambda_: Tensor) -> None:
        """Records a step (from 0), if there is a temperature and room."""
        if temperature is None:
            return
        if step < len(self.record):
            flat, columns = temperature.reshape(-1), self.record.shape[1]
            if len(flat) == 1 or columns == 1 or len(flat) > columns:
                self.record[step, 0] = flat.mean()
            else:
                self.record[step, : len(flat)] = flat
        if step < len(self.values):
            low, high = temperature.aminmax()
            self.values[step] = torch.stack([temperature.mean(), low, high, lambda_])

    def kept_record(self) -> Tensor:
        """The record on the CPU, without empty columns; [0, 1] if nothing was recorded."""
        several = bool(self.record[:, 1:].isfinite().any())
        return (self.record if several else self.record[:, :1]).cpu().contiguous()

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint holds."""
        return {"trace": self.values, "record": self.record}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Takes up a checkpoint's state; a run may record more, or less, than before."""
        both = min(len(state["trace"]), len(self.values))
        self.values[:both].copy_(state["trace"][:both])
        recorded = state.get("record")  # an older checkpoint has none
        if recorded is not None and recorded.shape == self.record.shape:
            self.record.copy_(recorded)

    def rows(self, steps: int, steps_per_epoch: int) -> list[tuple[float, ...]]:
        """The first `steps` steps; columns: `TRACE_COLUMNS` of `ctkd.results.read.schema`."""
        values = self.values[:steps].tolist()
        return [
            (step + 1, (step + 1) / steps_per_epoch, *row)
            for step, row in enumerate(values)
            if row[0] == row[0]  # a run without a temperature leaves NaN
        ]


def check_weights(modules: dict[str, nn.Module], step: int, rate: float) -> None:
    """Raises NonFiniteError if a weight of one of the named modules is NaN or infinite."""
    for owner, module in modules.items():
        finite = [tensor.isfinite().all() for tensor in module.state_dict().values()]
        if finite and not torch.stack(finite).all():
            raise NonFiniteError(
                f"the weights of the {owner} became NaN or infinite by step {step} "
                f"(learning rate {rate:g}); nothing after the last checkpoint was saved"
            )
