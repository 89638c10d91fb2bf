"""What feature losses need of a run: training samples, and the teacher's last layer."""

from torch import nn

from ctkd.engine.config.run import Run
from ctkd.engine.reused_classifier import ReusedClassifier
from ctkd.engine.task import Task
from ctkd.engine.tasks.images import ImageTask
from ctkd.errors import ConfigError
from ctkd.models.feature_paths import classifier_path


def give_samples(run: Run, task: Task) -> None:
    """Gives the classes of the training samples to the losses that need them.

    Raises:
        ConfigError: the task has no training samples of one class each.
    """
    for loss in run.distiller.features:
        if "samples" in loss.needs:
            if not isinstance(task, ImageTask):
                raise ConfigError(f"{loss.named} needs training images with one class each")
            loss.use_samples(task.train.targets)


def give_classifier(run: Run, teacher: nn.Module | None) -> None:
    """Gives the teacher's last layer to the losses that need it.

    Raises:
        ConfigError: the teacher has no linear layer.
    """
    asking = [loss for loss in run.distiller.features if "classifier" in loss.needs]
    path = None if teacher is None else classifier_path(teacher)
    if asking and path is None:
        raise ConfigError(f"{asking[0].named} needs a teacher whose last layer is linear")
    if teacher is None or path is None:
        return
    for loss in asking:
        loss.use_classifier(teacher.get_submodule(path))
    if isinstance(run.deployed, ReusedClassifier):
        last = teacher.get_submodule(path)
        run.deployed.classifier.load_state_dict(last.state_dict())
        run.deployed.to(next(last.parameters()).device)
