"""The files of a work directory: their names, keys and columns, each defined once.

The engine writes these files and `ctkd.results.read` reads them; both import this module.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, TypeVar, get_args

from ctkd.renamed import keys_with_new_names
from ctkd.results.read.grid_ends import Bound

SETTINGS_FILE = "settings.json"  # makes a folder a work directory
METRICS_FILE, LANDSCAPE_FILE = "metrics.jsonl", "landscape.jsonl"
TRACE_FILE, ROWS_FILE = "temperature.csv", "rows.csv"
PREDICTIONS_FILE = "predictions.csv"  # columns: target, prediction
SUMMARY_FILE = "summary.json"
CONFIG_FILE = "config.gin"
PROVENANCE_FILE = "provenance.jsonl"  # a line for each start
TEACHER_FILE = ".teacher.json"  # while a run trains its teacher, or waits for it

IDENTITY = ("method", "recipe", "seed")  # the sets that make a run what it is
SETS = (*IDENTITY, "runtime")
TRACE_COLUMNS = ("step", "epoch", "temperature", "low", "high", "lambda")
ROW_TEXTS = ("group", "target")
ROW_NUMBERS = ("temperature", "student_ce", "teacher_confidence", "teacher_target")
ROW_COLUMNS = ROW_TEXTS + ROW_NUMBERS
Accuracy = Literal["last", "best", "chosen"]  # the epochs whose result a summary contains
KINDS: tuple[Accuracy, ...] = get_args(Accuracy)

R = TypeVar("R", bound="_FlatRecord")


def measure_of(primary: str) -> str:
    """A primary metric in the keys of a summary: "top1" for "test_top1", as in last_top1."""
    return primary.removeprefix("test_")


def with_speed_of(record: dict[str, Any], unit: str) -> dict[str, Any]:
    """The record with only the task's speed: "images_per_s" or "tokens_per_s"."""
    return {k: v for k, v in record.items() if not k.endswith("s_per_s") or k == f"{unit}_per_s"}


@dataclass(frozen=True)
class RunSettings:
    """`settings.json`: the name of a run and every value of its settings, in four sets.

    A set maps "Component.parameter" to a value; "@resnet20" is the choice of a component.
    """

    name: str = ""
    method: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    seed: dict[str, Any] = field(default_factory=dict)
    runtime: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "RunSettings":
        """The settings in a JSON object.

        Raises:
            ValueError: a set is not an object; the message states what was expected.
        """
        for name in SETS:
            if not isinstance(data.get(name, {}), dict):
                raise ValueError(f"an object under {name!r}")
        sets = {name: keys_with_new_names(data.get(name, {})) for name in SETS}
        return cls(str(data.get("name") or ""), **sets)

    def to_json(self) -> dict[str, Any]:
        """The JSON object."""
        return asdict(self)


class _FlatRecord:
    """A flat JSON object: the fields of a dataclass, and the entries of its field `more`.

    `more` contains the keys that depend on the task, the losses and the policy.
    """

    def to_json(self) -> dict[str, Any]:
        """The JSON object, with the entries of `more` at the position of `more`."""
        data: dict[str, Any] = {}
        for each in fields(self):  # type: ignore[arg-type]
            value = getattr(self, each.name)
            if each.name == "tokens_per_s" and value is None:
                continue  # a run on images
            data |= value if each.name == "more" else {each.name.rstrip("_"): value}
        return data

    @classmethod
    def from_json(cls: type[R], data: Mapping[str, Any]) -> R:
        """The record in a JSON object; a key that is not a field goes to `more`."""
        names = {each.name.rstrip("_"): each.name for each in fields(cls)}  # type: ignore[arg-type]
        values = {names[key]: value for key, value in data.items() if key in names}
        values["more"] = {key: value for key, value in data.items() if key not in names}
        return cls(**values)


@dataclass(frozen=True)
class EpochRecord(_FlatRecord):
    """One line of `metrics.jsonl`: an epoch in numbers; accuracies in percent.

    Attributes:
        step: optimizer steps since the start of the run.
        lr, lambda_: their values at the last step; the key of `lambda_` is "lambda".
        temperature: mean over the steps of the epoch; None without a teacher.
        more: train_loss and the other means over the steps, test_top1 and the other metrics of the
            task, t_star and regret.
        data_wait: share of the time in which the training waited for data.
    """

    epoch: int
    step: int | None = None
    lr: float | None = None
    lambda_: float | None = None
    temperature: float | None = None
    more: dict[str, Any] = field(default_factory=dict)
    images_per_s: float | None = None
    data_wait: float | None = None
    tokens_per_s: float | None = None

    def get(self, key: str) -> Any:
        """The value under a key of the JSON object, or None."""
        return self.to_json().get(key)


@dataclass(frozen=True)
class RunSummary(_FlatRecord):
    """`summary.json`: the result of a finished run; accuracies in percent.

    Attributes:
        primary: the metric of `last`, `best` and `chosen`. In the file their keys end
            with its name: last_top1 for "test_top1", last_ap for "ap".
        more: the teacher's metrics (teacher_top1, …).
        best, best_epoch: chosen on the test set.
        chosen, chosen_epoch: the test metric at the best epoch on the validation split;
            without a split the file has neither key.
        temperature, t_star, regret: of the last measurement of the landscape.
        t_star_is: "at least" or "at most" if T* is an end of the grid, so that the maximizer lies
            outside; the file has the key only then.
        images_per_s: median over the epochs; a run on text has tokens_per_s instead.
        lower_is_better: whether a lower value of the primary metric is better; the file has the key
            only if it is true.
    """

    finished: bool = False
    name: str | None = None
    dataset: str | None = None
    student: str | None = None
    teacher: str | None = None
    seed: int | None = None
    epochs: int | None = None
    steps: int | None = None
    primary: str = "test_top1"
    lower_is_better: bool = False
    more: dict[str, Any] = field(default_factory=dict)
    teacher_claimed: float | None = None
    teacher_fingerprint: str | None = None
    last: float | None = None
    best: float | None = None
    best_epoch: int | None = None
    chosen: float | None = None
    chosen_epoch: int | None = None
    temperature: float | None = None
    t_star: float | None = None
    t_star_is: Bound | None = None
    regret: float | None = None
    images_per_s: float | None = None
    seconds: float | None = None
    tokens_per_s: float | None = None

    @property
    def measure(self) -> str:
        """The primary metric in the keys of the file, see `measure_of`."""
        return measure_of(self.primary)

    def to_json(self) -> dict[str, Any]:
        """The JSON object."""
        absent: tuple[str, ...] = ("chosen", "chosen_epoch") if self.chosen is None else ()
        absent += () if self.lower_is_better else ("lower_is_better",)
        absent += () if self.t_star_is else ("t_star_is",)
        return {
            f"{key}_{self.measure}" if key in KINDS else key: value
            for key, value in super().to_json().items()
            if key not in absent
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "RunSummary":
        """The summary in a JSON object; a key that is not a field goes to `more`."""
        primary = str(data.get("primary") or cls.primary)
        names = {f"{kind}_{cls(primary=primary).measure}": kind for kind in KINDS}
        renamed = {names.get(key, key): value for key, value in data.items()}
        return super().from_json(renamed | {"primary": primary})
