"""Named components: one `Registry` per kind, and with each name a Gin configurable.

`@MODELS.register` on a class or function gives it a name (its own, or one passed), lists it, and
registers it with Gin where gin-config is installed. The object itself stays as it was, so that
`MODELS.get("resnet20")(num_classes=100)` builds a network without Gin. Built-in names are listed
with the modules that define them, and such a module is imported only when its name is looked up.
"""

import functools
import importlib
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, overload

from ctkd import builtin
from ctkd.checks import check_types, suggest
from ctkd.errors import ConfigError

# A folder gin/ in the working directory satisfies `import gin` as an empty namespace package,
# so what counts is whether the real one's attribute is there.
try:
    import gin as gin
except ImportError:
    gin = None  # type: ignore[assignment]
GIN_INSTALLED = hasattr(gin, "external_configurable")

SettingsSet = Literal["method", "recipe", "seed", "runtime"]
C = TypeVar("C", bound=Callable[..., Any])


@dataclass(frozen=True)
class Component:
    """A registered name.

    Attributes:
        target: the class or function as it was written.
        bound: the same with Gin's bindings applied and their types checked (`target` without Gin).
        settings: the set of settings its parameters belong to, except those named in `runtime`.
    """

    name: str
    kind: str
    target: Callable[..., Any]
    bound: Callable[..., Any]
    settings: SettingsSet
    runtime: tuple[str, ...] = ()

    def settings_of(self, parameter: str) -> SettingsSet:
        """The set of settings that a parameter belongs to."""
        return "runtime" if parameter in self.runtime else self.settings


COMPONENTS: dict[str, Component] = {}  # of every kind: a Gin file has one space of names


class Registry:
    """The components of one kind, by name; iterating gives the names, sorted."""

    def __init__(
        self,
        kind: str,
        settings: SettingsSet,
        builtin: Mapping[str, str] | None = None,
        families: Mapping[str, str] | None = None,
    ) -> None:
        """Names a kind ("temperature policy"), and its built-in names with their modules.

        `families` are prefixes of names that are not listed, with the modules whose `provide(name)`
        registers one when it is looked up.
        """
        self.kind = kind
        self.settings: SettingsSet = settings
        self._modules, self._families = dict(builtin or {}), dict(families or {})
        self._names: set[str] = set()
        REGISTRIES.append(self)

    @overload
    def register(self, target: C) -> C: ...
    @overload
    def register(
        self,
        target: str | None = None,
        *,
        settings: SettingsSet | None = None,
        runtime: tuple[str, ...] = (),
    ) -> Callable[[C], C]: ...
    def register(
        self,
        target: C | str | None = None,
        *,
        settings: SettingsSet | None = None,
        runtime: tuple[str, ...] = (),
    ) -> C | Callable[[C], C]:
        """Decorates a class or function; `register("name")` gives it another name than its own.

        `settings` is the set its parameters belong to (default: the kind's), but for those named
        in `runtime`, which do not change what is computed (paths, say).

        Raises:
            ConfigError: the name is taken.
        """
        if callable(target):
            return self._add(target, target.__name__, settings, runtime)
        name = target

        def decorate(decorated: C) -> C:
            return self._add(decorated, name or decorated.__name__, settings, runtime)

        return decorate

    def _add(
        self, target: C, name: str, settings: SettingsSet | None, runtime: tuple[str, ...]
    ) -> C:
        taken = COMPONENTS.get(name)
        if taken is not None:
            raise ConfigError(f"the name {name!r} is taken by the {taken.kind} {taken.target!r}")
        bound = _bind(target, name, self.kind) if GIN_INSTALLED else target
        COMPONENTS[name] = Component(
            name, self.kind, target, bound, settings or self.settings, runtime
        )
        self._names.add(name)
        return target

    def get(self, name: str) -> Callable[..., Any]:
        """The class or function registered as `name`, without Gin's bindings.

        Raises:
            ConfigError: no component of this kind has the name.
        """
        return self.component(name).target

    def component(self, name: str) -> Component:
        """The whole entry of `name`, its module imported if need be."""
        if name not in self._names and name in self._modules:
            importlib.import_module(self._modules[name])
        if name not in self._names and (family := self._family(name)):
            importlib.import_module(self._families[family]).provide(name)
        if name not in self._names:
            hint = suggest(name, self)
            raise ConfigError(f"no {self.kind} is named {name!r}{hint} ({self.listed()})")
        return COMPONENTS[name]

    def module_of(self, name: str) -> str:
        """The module that defines `name`; a built-in module is not imported for that."""
        if name in COMPONENTS:
            return COMPONENTS[name].target.__module__
        return self._modules.get(name) or self._families.get(self._family(name) or "", "")

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._names | self._modules.keys()))

    def __contains__(self, name: object) -> bool:
        listed = name in self._names or name in self._modules
        return listed or (isinstance(name, str) and self._family(name) is not None)

    def listed(self) -> str:
        """The names for a message; of very many only the first ones."""
        names = list(self)
        more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
        return ", ".join(names[:LISTED]) + more

    def _family(self, name: str) -> str | None:
        return next((p for p in self._families if name.startswith(p) and name != p), None)


def name_of(target: object) -> str:
    """The name that a class or function is registered as, or else its own."""
    own: str = getattr(target, "__name__", "")
    return next((c.name for c in COMPONENTS.values() if c.target is target), own)


REGISTRIES: list[Registry] = []
LISTED = 40  # names in a message


def import_mentioned(text: str) -> None:
    """Imports the modules of the built-in components that a configuration's text mentions."""
    words = set(re.findall(r"[A-Za-z_]\w*", text))
    # A name that only its prefix makes one must be referred to: a path may hold such a word too.
    referred = set(re.findall(r"@([A-Za-z_]\w*)", text))
    for registry in REGISTRIES:
        for name in words.intersection(registry) | {n for n in referred if n in registry}:
            registry.component(name)


def _bind(target: Callable[..., Any], name: str, kind: str) -> Callable[..., Any]:
    """Makes `target` known to Gin as `name`, through a function that checks the types bound."""

    @functools.wraps(target, updated=())
    def checked(*arguments: Any, **keywords: Any) -> Any:
        given = inspect.signature(target).bind_partial(*arguments, **keywords).arguments
        check_types(name, target, given)
        return target(*arguments, **keywords)

    # Gin then lists the defaults too, in the configuration that it says was in force.
    vars(checked)["__signature__"] = inspect.signature(target)
    checked.__name__ = name  # what a reference @name is recognized by when a run is built
    module = f"ctkd.{kind.replace(' ', '_')}"
    bound: Callable[..., Any] = gin.external_configurable(checked, name=name, module=module)
    return bound


DATASETS = Registry("data set", "recipe", builtin.DATASETS)
MODELS = Registry("network", "recipe", builtin.MODELS, families=builtin.MODEL_FAMILIES)
TRANSFORMS = Registry("logit transform", "method", builtin.TRANSFORMS)
TEMPERATURES = Registry("temperature policy", "method", builtin.TEMPERATURES)
SCHEDULES = Registry("lambda schedule", "method", builtin.SCHEDULES)
OBJECTIVES = Registry("objective", "method", builtin.OBJECTIVES)
OPTIMIZERS = Registry("optimizer", "recipe", builtin.OPTIMIZERS)
LR_SCHEDULES = Registry("learning rate schedule", "recipe", builtin.LR_SCHEDULES)
FEATURES = Registry("feature loss", "method", builtin.FEATURES)
