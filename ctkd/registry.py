"""Named components: one `Registry` per kind, and with each name a Gin configurable.

`@MODELS.register` on a class or function gives it a name (its own, or one passed), lists it, and
registers it with Gin where gin-config is installed. The object itself stays as it was, so that
`MODELS.get("resnet20")(num_classes=100)` builds a network without Gin. Built-in names are listed
with the modules that define them, and such a module is imported only when its name is asked for.
"""

import functools
import importlib
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, overload

from ctkd.checks import check_types, suggest
from ctkd.errors import ConfigError

# A folder gin/ in the working directory satisfies `import gin` as an empty namespace package,
# so what counts is whether the real one's attribute is there.
try:
    import gin as gin
except ImportError:
    gin = None  # type: ignore[assignment]
GIN_INSTALLED = hasattr(gin, "external_configurable")

Settings = Literal["method", "recipe", "seed", "runtime"]
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
    settings: Settings
    runtime: tuple[str, ...] = ()

    def settings_of(self, parameter: str) -> Settings:
        """The set of settings that a parameter belongs to."""
        return "runtime" if parameter in self.runtime else self.settings


COMPONENTS: dict[str, Component] = {}  # of every kind: a Gin file has one space of names


class Registry:
    """The components of one kind, by name; iterating gives the names, sorted."""

    def __init__(
        self, kind: str, settings: Settings, builtin: Mapping[str, str] | None = None
    ) -> None:
        """Names a kind ("temperature policy"), and its built-in names with their modules."""
        self.kind = kind
        self.settings: Settings = settings
        self._modules = dict(builtin or {})
        self._names: set[str] = set()
        REGISTRIES.append(self)

    @overload
    def register(self, target: C) -> C: ...
    @overload
    def register(
        self,
        target: str | None = None,
        *,
        settings: Settings | None = None,
        runtime: tuple[str, ...] = (),
    ) -> Callable[[C], C]: ...
    def register(
        self,
        target: C | str | None = None,
        *,
        settings: Settings | None = None,
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

    def _add(self, target: C, name: str, settings: Settings | None, runtime: tuple[str, ...]) -> C:
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
        if name not in self._names:
            known = ", ".join(self)
            raise ConfigError(f"no {self.kind} is named {name!r}{suggest(name, self)} ({known})")
        return COMPONENTS[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._names | self._modules.keys()))

    def __contains__(self, name: object) -> bool:
        return name in self._names or name in self._modules


REGISTRIES: list[Registry] = []


def import_mentioned(text: str) -> None:
    """Imports the modules of the built-in components that a configuration's text mentions."""
    words = set(re.findall(r"[A-Za-z_]\w*", text))
    for registry in REGISTRIES:
        for name in words.intersection(registry):
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
    checked.__name__ = name  # what a reference @name is recognised by when a run is built
    module = f"ctkd.{kind.replace(' ', '_')}"
    bound: Callable[..., Any] = gin.external_configurable(checked, name=name, module=module)
    return bound


DATASETS = Registry(
    "data set",
    "recipe",
    {
        "digits": "ctkd.data.digits",
        "cifar100": "ctkd.data.cifar",
        "cifar10": "ctkd.data.cifar",
        "coco": "ctkd.data.coco",
    },
)
# For small images, and quick to build: a file of weights that does not fit is compared with these.
SMALL_NETWORKS = {
    name: f"ctkd.models.{module}"
    for module, names in {
        "digits_cnn": "digits_student digits_teacher",
        "cifar_resnet": "resnet8 resnet14 resnet20 resnet32 resnet44 resnet56 resnet110 "
        "resnet8x4 resnet32x4 ResNet50",
        "wrn": "wrn_16_1 wrn_16_2 wrn_40_1 wrn_40_2",
        "vgg": "vgg8 vgg11 vgg13 vgg16 vgg19",
        "mobilenet": "MobileNetV2",
        "shufflenet": "ShuffleV1 ShuffleV2",
    }.items()
    for name in names.split()
}
DETECTORS = {
    f"fasterrcnn_{backbone}_fpn": "ctkd.models.detection"
    for backbone in ("resnet18", "resnet50", "resnet101", "mobilenet_v2")
}
MODELS = Registry("network", "recipe", {**SMALL_NETWORKS, **DETECTORS})
TRANSFORMS = Registry(
    "logit transform", "method", {"LogitStandardization": "ctkd.losses.transforms"}
)
TEMPERATURES = Registry(
    "temperature policy",
    "method",
    {
        "ConstantTemperature": "ctkd.temperature.constant",
        "AnnealedTemperature": "ctkd.temperature.annealed",
        "GlobalTemperature": "ctkd.temperature.global_",
        "InstanceTemperature": "ctkd.temperature.instance",
    },
)
SCHEDULES = Registry(
    "lambda schedule",
    "method",
    dict.fromkeys(("ConstantLambda", "LinearLambda", "CosineLambda"), "ctkd.adversary.schedules"),
)
OBJECTIVES = Registry(
    "objective",
    "method",
    {
        **dict.fromkeys(("CrossEntropy", "KD", "DKD"), "ctkd.losses.objectives"),
        "DTKD": "ctkd.losses.dtkd",
        "WTTM": "ctkd.losses.wttm",
        "DIST": "ctkd.losses.dist",
    },
)
