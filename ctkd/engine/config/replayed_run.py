"""Whether a run fits the finished run whose temperatures it replays."""

from typing import Any

from ctkd.data.dataset import ImageDataset
from ctkd.engine.config.identity import SOURCES
from ctkd.engine.config.run import Run
from ctkd.errors import ConfigError
from ctkd.registry import TEMPERATURES
from ctkd.results.read.schema import SETTINGS_FILE, RunSettings
from ctkd.results.read.work_files import read_object
from ctkd.temperature.replay import ReplayedTemperature

OF_BATCHES = ("Recipe.dataset", "Recipe.batch_size", "Recipe.epochs", "Recipe.steps_per_epoch")
WITHOUT_EFFECT = ("Recipe.eval_every", *SOURCES)  # on training, or unknown before data are read


def check_recorded(run: Run) -> None:
    """Raises ConfigError where T of every row is to be kept, and samples are not rows."""
    if run.instrument.record_rows and not isinstance(run.dataset, ImageDataset):
        raise ConfigError(
            "Instrument.record_rows = True keeps a T for each image of a step, and a sample of "
            f"{run.dataset_name} gives many rows: leave it out, and the mean of each step is kept"
        )


def check_replayed(run: Run) -> None:
    """Refuses to replay what does not fit.

    Raises:
        ConfigError: T of each row is replayed, and the finished run had other batches; or the
            finished run had two temperatures, of which it recorded one.
    """
    policy, finished = run.distiller.policy, _finished(run)
    if not isinstance(policy, ReplayedTemperature) or finished is None:
        return
    name = str(finished.method.get("Method.policy")).removeprefix("@")
    if name in TEMPERATURES and getattr(TEMPERATURES.get(name), "two_temperatures", False):
        raise ConfigError(
            f"the run in {policy.folder} had two temperatures ({name}), and recorded the student's "
            "only: it cannot be replayed"
        )
    ours, theirs = run.settings, finished
    names = [n for n in ours["recipe"] if n in OF_BATCHES or n.startswith(f"{run.dataset_name}.")]
    different = _lines(ours["recipe"], theirs.recipe, names)
    different += _lines(ours["seed"], theirs.seed, ours["seed"])
    if policy.needs_whole_step and different:
        raise ConfigError(
            f"ReplayedTemperature replays a T for each row, and the run in {policy.folder} had "
            f"other batches: {'; '.join(different)}. Give this run the same settings, or replay "
            "the mean of each step: ReplayedTemperature.rows = 'mean'"
        )


def faults_of_replayed(run: Run) -> list[str]:
    """A warning about another recipe: it changes more than the temperature."""
    policy, finished = run.distiller.policy, _finished(run)
    if not isinstance(policy, ReplayedTemperature) or finished is None:
        return []
    recipe = run.settings["recipe"]
    names = [name for name in recipe if name not in WITHOUT_EFFECT]
    different = _lines(recipe, finished.recipe, names)
    if not different:
        return []
    return [
        f"the run in {policy.folder}, whose T is replayed, had another recipe: "
        f"{'; '.join(different)}. Each step has the T of the same share of that run"
    ]


def _finished(run: Run) -> RunSettings | None:
    """The settings of the finished run; None in a dry run, and where its folder has none."""
    folder = getattr(run.distiller.policy, "folder", None)
    if folder is None or not (path := folder / SETTINGS_FILE).is_file():
        return None
    return RunSettings.from_json(read_object(path))


def _lines(ours: dict[str, Any], theirs: dict[str, Any], names: Any) -> list[str]:
    """The settings of these names in which both runs differ."""
    return [
        f"{name} = {theirs[name]!r} there, {ours[name]!r} here"
        for name in sorted(names)
        if name in theirs and theirs[name] != ours[name]
    ]
