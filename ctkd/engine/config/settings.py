"""What a run is made of, in four sets: method, recipe, seed, runtime. All of it comes from Gin.

Resuming needs the first three sets equal, comparing needs equal recipes, and the fourth hinders
neither. The components are references (`@GlobalTemperature`): `build` calls each exactly once.
"""

import importlib.util
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ctkd.checks import expect, finite
from ctkd.errors import ConfigError
from ctkd.registry import Registry

Factory = Callable[..., Any]
DEVICE = re.compile(r"auto|(cpu|cuda)(:\d+)?")
OWN_PARTS = {
    "Alignment": "ctkd.engine.tasks.alignment_settings",
    "Augmentation": "ctkd.engine.tasks.augmentation",
    "Language": "ctkd.engine.tasks.language_settings",
    "Proposals": "ctkd.engine.tasks.proposals",
    "StrongView": "ctkd.engine.tasks.strong_view",
    "TeacherRows": "ctkd.engine.tasks.alignment_settings",
}
PARTS = Registry("engine part", "recipe", OWN_PARTS)


@PARTS.register(settings="method")
@dataclass(frozen=True)
class Method:
    """What is compared: how the student is taught.

    Attributes:
        objective: what is minimized; without it there is no run.
        policy: the temperature; None where nothing is distilled.
        schedule: λ, the strength of the gradient reversal; for learned policies.
        transform: of both logits, before everything else; None for none.
        features: feature losses, terms next to the objective that never see T.
        cooperative: whether a learned policy descends too, instead of ascending: the flipped sign.
        temperature_per_rank: whether each process learns a T of its own: a mistake of public code,
            which does not sum the gradient of T over the ranks.
    """

    objective: Factory | None = None
    policy: Factory | None = None
    schedule: Factory | None = None
    transform: Factory | None = None
    features: Sequence[Factory] = ()
    cooperative: bool = False
    temperature_per_rank: bool = False

    def __post_init__(self) -> None:
        expect(self.objective is not None, "Method", "objective", None, "an objective, such as @KD")


@PARTS.register(settings="method")
@dataclass(frozen=True)
class Features:
    """Where feature losses find the features of a network; see `ctkd.models.feature_paths`.

    Attributes:
        student, teacher: feature name -> module path, such as {'stage1': 'layer1'}; the names that
            are not given are the built-in ones.
    """

    student: Mapping[str, str] | None = None
    teacher: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        for name in ("student", "teacher"):
            paths = getattr(self, name) or {}
            fine = isinstance(paths, Mapping) and all(
                isinstance(text, str) for pair in paths.items() for text in pair
            )
            expect(fine, "Features", name, paths, "a dictionary of names and module paths")


@PARTS.register
@dataclass(frozen=True)
class Recipe:
    """What methods have in common when they are compared.

    Attributes:
        dataset, student: components.
        optimizer: the student's; None for SGD.
        policy_optimizer: the policy's; None for SGD, since λ hardly changes a step of Adam.
        lr_schedule: of the learning rate; None for SGD's milestones, or CosineLR with another
            optimizer.
        epochs: how long to train.
        recipe_epochs: the epochs that the schedules' numbers refer to; None for `epochs`. A run of
            24 epochs of a recipe of 240 passes through all its schedules ten times as fast.
        batch_size: of a whole step, all ranks and accumulated parts together.
        steps_per_epoch: a cut for trying things out; None for the whole data set.
        eval_every: in epochs; the last epoch is always evaluated.
        ema_decay: of the moving average of the student's weights, which is evaluated and saved
            next to the student; None for no average.
        sync_batch_norm: whether batch normalizations take the statistics of all ranks' rows, so
            that a run does not depend on how many share it. Published recipes for several GPUs
            take each rank's own, which is faster.
        trial: whether everything is cut to seconds, to try a configuration out; see
            `ctkd.engine.config.trial`.
    """

    dataset: Factory | None = None
    student: Factory | None = None
    optimizer: Factory | None = None
    policy_optimizer: Factory | None = None
    lr_schedule: Factory | None = None
    epochs: int = 240
    recipe_epochs: int | None = None
    batch_size: int = 64
    steps_per_epoch: int | None = None
    eval_every: int = 1
    ema_decay: float | None = None
    sync_batch_norm: bool = True
    trial: bool = False

    def __post_init__(self) -> None:
        expect(self.dataset is not None, "Recipe", "dataset", None, "a data set, such as @digits")
        expect(self.student is not None, "Recipe", "student", None, "a network, such as @resnet20")
        for name in ("epochs", "recipe_epochs", "batch_size", "steps_per_epoch", "eval_every"):
            value = getattr(self, name)
            optional = name in ("recipe_epochs", "steps_per_epoch")
            expected = "None or a number of 1 or more" if optional else "a number of 1 or more"
            expect((optional and value is None) or value >= 1, "Recipe", name, value, expected)

        value, expected = self.ema_decay, "None or a number from 0 to below 1"
        expect(value is None or 0 <= value < 1, "Recipe", "ema_decay", value, expected)

    def position(self, step: int, steps_per_epoch: int) -> float:
        """The position in the published recipe, in its epochs, after `step` steps.

        One correctly rounded division, so that a whole epoch is a whole number.
        """
        return step * (self.recipe_epochs or self.epochs) / (steps_per_epoch * self.epochs)


@PARTS.register(runtime=("weights", "min_accuracy", "published_accuracy"))
@dataclass(frozen=True)
class Teacher:
    """Where the frozen teacher comes from.

    Attributes:
        network: a component; None in a run whose objective needs no teacher.
        weights: a file or a URL (with a member of an archive or a part of a file, see
            `ctkd.models.weights.source`), or the name of torchvision's weights; None if `run`
            trains it.
        run: the Gin file that trains it, once, shared by all runs of the user.
        min_accuracy: the test accuracy in percent below which the run is refused; None accepts all.
        published_accuracy: in percent, for the summary; None where there is none.
        rows: "float16" rounds its logits to 16 bits, which halves the cache of them; inexact, and
            therefore part of the recipe. Of text: "hidden16", its states before the head in 16
            bits, or "sampled", tokens that it drew; see `ctkd.engine.teacher.token_rows`.
    """

    network: Factory | None = None
    weights: str | None = None
    run: str | None = None
    min_accuracy: float | None = None
    published_accuracy: float | None = None
    rows: Literal["float32", "float16", "hidden16", "sampled", "top_k"] = "float32"

    def __post_init__(self) -> None:
        for name in ("min_accuracy", "published_accuracy"):
            value = getattr(self, name)
            expected = "None or an accuracy in percent"
            expect(value is None or 0 <= value <= 100, "Teacher", name, value, expected)


@PARTS.register(settings="seed")
@dataclass(frozen=True)
class Seed:
    """The one seed; runs that share it share order, views and first weights."""

    seed: int = 0

    def __post_init__(self) -> None:
        expect(self.seed >= 0, "Seed", "seed", self.seed, "a whole number of 0 or more")


@PARTS.register(settings="runtime")
@dataclass(frozen=True)
class Runtime:
    """Where and how a run is carried out.

    Attributes:
        name: the method's label in tables; by default the first Gin file's.
        device: "auto" takes a GPU where there is one.
        precision: of the networks; the losses are always in float32. With float16 the loss is
            scaled for its gradients' sake, and a step whose gradients overflow is passed over.
        compile: whether the networks are compiled by torch.compile; "auto" compiles the teacher,
            and on a GPU the student too, unless steps_per_epoch leaves too few steps for it.
        cuda_graph: whether a GPU captures the whole step once and then replays it; what it cannot
            capture is refused, see `ctkd.engine.speed.capturable`.
        threads: for computing on a CPU; None leaves torch's own choice.
        workers: processes that load data, for data sets that need them.
        accumulate: parts in which a step is computed, to save memory.
        checkpoint_steps: steps between checkpoints; they are also taken after every epoch.
        keep_checkpoints: how many of the newest stay.
        teachers_dir: where trained teachers are shared; None for the user's cache (CTKD_CACHE).
        teacher_cache: the folder in which teachers' rows are remembered for all runs, exactly;
            "auto" for one next to the images (see `teacher.load.cache_root`), None for none.
        teacher_cache_gb: what that folder may take on the disk; then nothing more is added.
        tensorboard: whether to write TensorBoard's events.
        figures: whether to draw the figures at the end of the run, which takes seconds.
        trackers: where else the numbers of each epoch go: 'csv' (metrics.csv), 'wandb'.
    """

    name: str | None = None
    device: str = "auto"
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    compile: bool | Literal["auto"] = False
    cuda_graph: bool = False
    threads: int | None = None
    workers: int = 0
    accumulate: int = 1
    checkpoint_steps: int = 1000
    keep_checkpoints: int = 2
    teachers_dir: str | None = None
    teacher_cache: str | None = "auto"
    teacher_cache_gb: float = 16.0
    tensorboard: bool = True
    figures: bool = True
    trackers: Sequence[Literal["csv", "wandb"]] = ()

    def __post_init__(self) -> None:
        for name in ("accumulate", "checkpoint_steps", "keep_checkpoints"):
            value = getattr(self, name)
            expect(value >= 1, "Runtime", name, value, "a number of 1 or more")
        expect(self.workers >= 0, "Runtime", "workers", self.workers, "a number of 0 or more")
        fine = DEVICE.fullmatch(self.device) is not None
        expect(fine, "Runtime", "device", self.device, "auto, cpu, cuda or cuda:N")
        fine = self.threads is None or self.threads >= 1
        expect(fine, "Runtime", "threads", self.threads, "None or a number of 1 or more")
        size, expected = self.teacher_cache_gb, "a number of gigabytes above 0"
        expect(size > 0 and finite(size), "Runtime", "teacher_cache_gb", size, expected)
        if "wandb" in self.trackers and importlib.util.find_spec("wandb") is None:
            raise ConfigError(
                "Runtime.trackers names 'wandb', which is not installed: pip install 'ctkd[wandb]'"
            )


@PARTS.register(settings="runtime")
@dataclass(frozen=True)
class Instrument:
    """What is recorded of the temperature; none of it changes the training.

    Attributes:
        probe_size: samples of the fixed batch on which L(T) is measured at every evaluation.
        low, high, points: the grid of temperatures, equally spaced in log T.
        trace_epochs: the first epochs, in which `temperature.csv` has a line for every step.
        record_rows: whether `temperatures.pt` holds T of every row of every step, instead of the
            mean of each step: four bytes an image and epoch. For `ReplayedTemperature`, of images.
    """

    probe_size: int = 256
    low: float = 0.5
    high: float = 40.0
    points: int = 65
    trace_epochs: int = 10
    record_rows: bool = False

    def __post_init__(self) -> None:
        expect(self.probe_size >= 2, "Instrument", "probe_size", self.probe_size, "2 or more")
        expect(self.points >= 5, "Instrument", "points", self.points, "5 or more")
        expect(self.trace_epochs >= 0, "Instrument", "trace_epochs", self.trace_epochs, "0 or more")
        expect(self.low > 0, "Instrument", "low", self.low, "a temperature above 0")
        fine = finite(self.high) and self.high > self.low
        expect(fine, "Instrument", "high", self.high, f"a temperature above the low {self.low}")


def spell(value: Any) -> Any:
    """A setting as JSON holds it: components by name, sequences as lists."""
    if callable(value):
        return f"@{getattr(value, '__name__', value)}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [spell(item) for item in value]
    return dict(value) if isinstance(value, Mapping) else value
