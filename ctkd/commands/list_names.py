"""Lists what there is: methods, pairs, networks, data sets, policies, objectives and the rest.

ctkd list               everything, a line each
ctkd list networks      one kind, all of its names
ctkd list resnet8x4     one name: its parameters, their defaults, the Gin files that use it
"""

import argparse
import inspect
import shutil
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ctkd.checks import spell_type, suggest, type_hints
from ctkd.command_line import run_tool, show
from ctkd.commands.descriptions import describe
from ctkd.commands.gin_cards import (
    GinCard,
    cards_named,
    files_with,
    further_cards,
    gin_cards,
    method_cards,
    method_summary,
)
from ctkd.engine.config import settings
from ctkd.errors import ConfigError, UserError
from ctkd.registry import REGISTRIES, Registry
from ctkd.standard_output import passing_line

NAMES_SHOWN = 12  # of a group in the list of everything
FILES_SHOWN = 12
NAME_WIDTH = 22
# How the names of a kind are used, after the kind's title.
USES = {
    "methods": ": --gin_file=gin/DATA/METHOD.gin, with DATA out of those in brackets",
    "pairs": ": --gin_file=gin/DATA/pairs/PAIR.gin after the method's file",
    "sweeps": ": ctkd sweep --sweep gin/sweeps/NAME.gin",
    "networks": ": --student NAME, --teacher NAME",
}


@dataclass(frozen=True)
class ListEntry:
    """A line of the list.

    Attributes:
        names: one, or those that share their description.
        where: the Gin files, in short.
    """

    names: tuple[str, ...]
    text: str
    where: str = ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the list; returns the exit status."""
    return run_tool(make_parser(), arguments, _list, errors=(UserError,))


def _list(options: argparse.Namespace) -> None:
    show(page(" ".join(options.name) or None))


def make_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        prog="ctkd list",
        description="Lists methods, pairs, networks, data sets, losses and the rest.",
    )
    parser.add_argument(
        "name",
        nargs="*",
        help="a kind (networks, data sets), a name (resnet8x4) or a Gin file: everything about it",
    )
    return parser


def page(name: str | None) -> str:
    """What is printed for a name, for a kind, or for None (everything). Raises ConfigError."""
    width = min(shutil.get_terminal_size((80, 24)).columns, 100)
    kinds = sections()
    if name is None:
        head = "ctkd list NAME shows parameters and defaults; ctkd list KIND shows one kind."
        parts = [_section(title, entries, width) for title, entries in kinds.items()]
        last = textwrap.fill(f"Each KIND of `ctkd list KIND`: {', '.join(kinds)}.", width)
        return "\n\n".join([head, *parts, last])
    if name.lower() in kinds:
        return _section(name.lower(), kinds[name.lower()], width, whole=True)
    found = [*_of_components(name), *_of_cards(name)]
    if not found:
        known = [*kinds, *(n for entries in kinds.values() for e in entries for n in e.names)]
        hint = suggest(name, known) or ";"
        raise ConfigError(f"nothing is named {name!r}{hint} `ctkd list` shows all names")
    return "\n\n".join(found)


def sections() -> dict[str, list[ListEntry]]:
    """The entries of each kind, by the kind's plural."""
    methods = [
        ListEntry((name,), method_summary(cards[0]), ", ".join(card.folder for card in cards))
        for name, cards in method_cards().items()
    ]
    pairs = [
        ListEntry((card.name,), card.summary.partition(", ")[2], card.top)
        for card in gin_cards()
        if card.is_pair
    ]
    found = {"methods": methods, "pairs": pairs}
    for registry in REGISTRIES:
        if registry is not settings.PARTS and list(registry):
            found[plural(registry.kind)] = _entries(registry)
    for folder, cards in further_cards().items():
        found[folder] = [ListEntry((c.name,), c.summary, str(c.path)) for c in cards]
    return {**found, "settings": _entries(settings.PARTS)}


def plural(kind: str) -> str:
    """The plural of a registry's kind."""
    if kind.endswith("y"):
        return f"{kind[:-1]}ies"
    return kind + ("es" if kind.endswith("s") else "s")


def _entries(registry: Registry) -> list[ListEntry]:
    """The names of a registry; those of one module that share a description are one entry."""
    groups: dict[tuple[str, str], list[str]] = {}
    for name in registry:
        text = describe(registry, name)
        shared = registry.module_of(name) if registry.kind == "network" else name
        groups.setdefault((text, shared), []).append(name)
    entries = []
    for (text, _), names in groups.items():
        files = next(filter(None, map(files_with, names)), [])
        entries.append(ListEntry(tuple(names), text, files[0] if files else ""))
    return entries


def _section(title: str, entries: Iterable[ListEntry], width: int, whole: bool = False) -> str:
    """A kind's entries under its title, wrapped to `width` columns."""
    lines = [title[:1].upper() + title[1:] + USES.get(title, "")]
    for entry in entries:
        names = list(entry.names)
        if len(names) > NAMES_SHOWN and not whole:
            rest = f"… ({len(names)} names: ctkd list {title})"
            names = [*names[: NAMES_SHOWN // 3], rest]
        head = ", ".join(names)
        text = entry.text + (f" ({entry.where})" if entry.where else "")
        margin = " " * (NAME_WIDTH + 2)
        if len(names) == 1 and len(head) < NAME_WIDTH:
            first = f"  {head:<{NAME_WIDTH}}"
            lines += _wrap(text, width, first, margin) or [f"  {head}"]
        else:
            lines += _wrap(head, width, "  ", "  ") + _wrap(text, width, margin, margin)
    return "\n".join(lines)


def _wrap(text: str, width: int, first: str, rest: str) -> list[str]:
    return textwrap.wrap(
        text,
        width,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _of_components(name: str) -> list[str]:
    """What is known of the components called `name`: of one kind at most."""
    for registry in REGISTRIES:
        if name in registry:
            return [_component(registry, name)]
    return []


def _component(registry: Registry, name: str) -> str:
    with passing_line("loading PyTorch …"):  # takes seconds
        component = registry.component(name)
    target = component.target
    lines = [f"{name}: {registry.kind}, {registry.module_of(name)}", ""]
    constructor = vars(target).get("__init__") if isinstance(target, type) else None
    texts = [
        inspect.getdoc(target),
        getattr(constructor, "__doc__", None) and inspect.getdoc(constructor),
    ]
    lines += ["\n\n".join(text for text in texts if text)]
    hints = type_hints(target)
    rows = []
    for parameter in inspect.signature(target).parameters.values():
        missing = parameter.default is inspect.Parameter.empty
        default = "(no default)" if missing else _default(parameter.default)
        kind = spell_type(hints[parameter.name]) if parameter.name in hints else ""
        rows.append((f"{name}.{parameter.name}", default, kind))
    lines += ["", "Parameters, with their defaults", *_columns(rows)] if rows else []
    files = files_with(name)
    more = f"  and {len(files) - FILES_SHOWN} more"
    lines += ["", "Gin files", *(f"  {file}" for file in files[:FILES_SHOWN])] if files else []
    return "\n".join(lines + ([more] if len(files) > FILES_SHOWN else []))


def _default(value: object) -> str:
    return f"@{getattr(value, '__name__', value)}" if callable(value) else repr(value)


def _columns(rows: Sequence[tuple[str, str, str]]) -> list[str]:
    """The rows, with the first two columns aligned."""
    left, right = (max(len(row[k]) for row in rows) for k in (0, 1))
    return [f"  {a:<{left}} = {b:<{right}}  {c}".rstrip() for a, b, c in rows]


def _of_cards(name: str) -> list[str]:
    """The cards of the Gin files called `name`, or of that path: all paths, and the first card."""
    path = name.removeprefix("gin/").removesuffix(".gin")
    cards = [card for card in gin_cards() if f"{card.folder}/{card.name}" == path]
    cards = cards or [card for card in cards_named(name, gin_cards()) if card.folder]
    if not cards:
        return []
    return [f"{_listed(cards)}\n\n{textwrap.indent(cards[0].card, '  ')}"]


def _listed(cards: Sequence[GinCard]) -> str:
    rest = "".join(f"\n  also {card.path}" for card in cards[1:])
    return f"{cards[0].name}: {cards[0].path}{rest}"
