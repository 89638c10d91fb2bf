"""A run, built from Gin's configuration: what training, evaluation and benchmarks are given."""

from dataclasses import dataclass
from typing import Any

from torch import nn

from ctkd.data.dataset import Dataset
from ctkd.distiller import Distiller
from ctkd.engine.config.build_optimizers import Optimizers
from ctkd.engine.config.feature_plan import FeaturePlan
from ctkd.engine.config.gin_files import GinFile
from ctkd.engine.config.identity import Settings
from ctkd.engine.config.settings import Instrument, Method, Recipe, Runtime, Teacher
from ctkd.engine.tasks.alignment_settings import TeacherRowsSettings
from ctkd.engine.tasks.strong_view import StrongViewSettings


@dataclass(frozen=True)
class Run:
    """A run, built from Gin's configuration, without its data and the teacher's weights.

    Attributes:
        teacher_network: None where the method needs no teacher.
        settings: every value that was used, in four sets, as `settings.json` holds it.
        config: Gin text that builds this run again.
        inherited: macros that hold for the teacher too, where this run trains one.
        gin_files: the Gin files that were read, in the order in which they take effect.
        teacher_gin: the path of `Teacher.run`, or its name where there is no such file.
        features: which features are compared; None without feature losses.
        method: the settings that say how the student is taught.
        task_part: the further settings of the data set's kind, if it has any.
        strong_view: None where the objective needs no strong view.
        teacher_rows: what is done to the teacher's rows; None for nothing.
        config_faults: warnings about the Gin files and bindings.
    """

    name: str
    recipe: Recipe
    seed: int
    runtime: Runtime
    instrument: Instrument
    optimizers: Optimizers
    teacher: Teacher
    dataset: Dataset
    student: nn.Module
    teacher_network: nn.Module | None
    distiller: Distiller
    settings: Settings
    config: str
    inherited: dict[str, Any]
    gin_files: tuple[GinFile, ...] = ()
    teacher_gin: str | None = None
    features: FeaturePlan | None = None
    task_part: Any = None
    method: Method | None = None
    strong_view: StrongViewSettings | None = None
    teacher_rows: TeacherRowsSettings | None = None
    config_faults: tuple[str, ...] = ()

    @property
    def dataset_name(self) -> str:
        """The name of the data set, without its @."""
        return str(self.settings["recipe"]["Recipe.dataset"]).removeprefix("@")

    @property
    def pair(self) -> str:
        """TEACHER_STUDENT, as the files of pairs are called; without a teacher STUDENT."""
        roles = ["Teacher.network"] * (self.teacher_network is not None) + ["Recipe.student"]
        return "_".join(str(self.settings["recipe"][role]).removeprefix("@") for role in roles)

    @property
    def deployed(self) -> nn.Module:
        """The network that is evaluated and saved: the student, except for SimKD."""
        return self.student if self.features is None else self.features.deployed

    @property
    def recipe_epochs(self) -> int:
        """The epochs that the schedules' numbers refer to."""
        return self.recipe.recipe_epochs or self.recipe.epochs
