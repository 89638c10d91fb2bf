"""Calls configurables, each once, and records the values they were called with."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn

from ctkd.checks import expect
from ctkd.data.dataset import Dataset
from ctkd.engine.config.identity import Settings
from ctkd.engine.config.settings import PARTS, spell
from ctkd.errors import ConfigError
from ctkd.registry import COMPONENTS, MODELS, Registry, gin, name_of

T = TypeVar("T")


class KnownNetworks:
    """Networks on the meta device, so that many runs of the same few are checked quickly."""

    def __init__(self) -> None:
        self._built: dict[str, nn.Module] = {}
        self._fitting: set[tuple[object, ...]] = set()
        self._facts: dict[tuple[object, ...], Any] = {}

    def get(self, settings: str, make: Callable[[], nn.Module]) -> nn.Module:
        """The network of these settings, made if it is the first."""
        if settings not in self._built:
            self._built[settings] = make()
        return self._built[settings]

    def is_new(self, network: nn.Module, dataset: Dataset) -> bool:
        """Whether the network has yet to be tried on images like these."""
        return self._case(network, dataset) not in self._fitting

    def add(self, network: nn.Module, dataset: Dataset) -> None:
        """Remembers that the network was tried and fits."""
        self._fitting.add(self._case(network, dataset))

    def fact(self, network: nn.Module, case: object, find: Callable[[], T]) -> T:
        """What `find` finds out about the network in this case; nothing may change the network."""
        key = (id(network), repr(case))
        if key not in self._facts:
            self._facts[key] = find()
        found: T = self._facts[key]
        return found

    @staticmethod
    def _case(network: nn.Module, dataset: Dataset) -> tuple[object, ...]:
        return (id(network), dataset.kind, getattr(dataset, "shape", None), dataset.num_classes)


class Builder:
    """Calls configurables, and keeps the values they were called with."""

    def __init__(self, known: KnownNetworks | None = None) -> None:
        self.settings: Settings = {"method": {}, "recipe": {}, "seed": {}, "runtime": {}}
        self.used: set[str] = set()
        self._known = known

    def part(self, kind: type[T]) -> T:
        """One of the engine's own parts."""
        part: T = self._call(name_of(kind), {})
        return part

    def part_if_bound(self, name: str) -> Any:
        """One of the engine's own parts where the configuration binds it, else None.

        A run without the part then has the same settings as before the part existed.
        """
        component = PARTS.component(name)
        bound = gin.get_bindings(component.bound)
        return self._call(name, {}) if bound else None

    def component(self, registry: Registry, role: str, reference: Any, **offers: Any) -> Any:
        """The component a setting refers to, or None; it is offered values it may have use for."""
        if reference is None:
            return None
        name = getattr(reference, "__name__", "")
        if callable(reference) and not name:
            raise ConfigError(
                f"{role} is a {type(reference).__name__} that was made already: write the "
                "reference without its (), as in @Name"
            )
        fine = callable(reference) and name in registry
        owner, parameter = role.split(".")
        article = "an" if registry.kind[0] in "aeiou" else "a"
        expected = f"{article} {registry.kind}: {registry.listed()}"
        expect(fine, owner, parameter, spell(reference), expected)
        registry.component(name)
        call = functools.partial(self._call, name, offers, reference)
        if self._known is None or registry is not MODELS:
            return call()
        self._record(name, offers)
        return self._known.get(f"{name} {offers} {gin.get_bindings(COMPONENTS[name].bound)}", call)

    def fact(self, network: nn.Module, case: object, find: Callable[[], T]) -> T:
        """What `find` finds out about a network; in a sweep's check, once for each case."""
        return find() if self._known is None else self._known.fact(network, case, find)

    def _call(self, name: str, offers: dict[str, Any], reference: Any = None) -> Any:
        given = self._record(name, offers)
        try:
            return (reference or COMPONENTS[name].bound)(**given)
        except ConfigError as error:  # without the lines that Gin adds about its own call
            raise ConfigError(str(error).split("\n  In call to")[0]) from error

    def _record(self, name: str, offers: dict[str, Any]) -> dict[str, Any]:
        """Keeps the values a component is called with; those of the offers that it takes."""
        component = COMPONENTS[name]
        parameters = inspect.signature(component.target).parameters
        bound = gin.get_bindings(component.bound)
        given = {k: v for k, v in offers.items() if k in parameters and k not in bound}
        for parameter, description in parameters.items():
            value = {**given, **bound}.get(parameter, description.default)
            if value is inspect.Parameter.empty or value is gin.REQUIRED:
                raise ConfigError(f"{name}.{parameter} must be set: it has no default")
            if parameter not in given:
                settings = self.settings[component.settings_of(parameter)]
                settings[f"{name}.{parameter}"] = spell(value)
        self.used.add(name)
        return given
