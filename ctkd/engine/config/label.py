"""The label of a run: in its settings, its folder, its console, and in tables and figures."""

from ctkd.engine.config.builder import Builder
from ctkd.engine.config.settings import Recipe, Runtime
from ctkd.engine.config.trial import SUFFIX
from ctkd.registry import gin


def named(call: Builder, name: str) -> Runtime:
    """The runtime, its run named `name` unless the configuration gives a name."""
    runtime: Runtime = call.part(Runtime)
    if runtime.name is None:
        gin.parse_config(f"Runtime.name = {name!r}")  # so that config.gin keeps it
        runtime = call.part(Runtime)
    return runtime


def labeled(call: Builder, runtime: Runtime, recipe: Recipe) -> str:
    """The name of the run, that of a trial with its suffix.

    Only a trial has the setting: so the settings of other runs are those of version 0.1.
    """
    name = runtime.name or ""
    if not recipe.trial:
        call.settings["recipe"].pop("Recipe.trial", None)
        return name
    call.settings["runtime"]["Runtime.name"] = f"{name}{SUFFIX}"
    return f"{name}{SUFFIX}"
