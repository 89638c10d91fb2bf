"""The sets of named tensors in a checkpoint, from all common containers.

A file may contain the tensors directly, or under a name (RepDistiller, mdistiller and CTKD:
`model`; others: `state_dict`, `student`, …). The keys may include the names of the modules around
the network (`module.`, `module.student.`, …), or of a wrapper inside it
(`features.module.0.weight`).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from ctkd.checks import suggest
from ctkd.models.weights.archives import ChoiceError
from ctkd.models.weights.source import Source

# The names that PyTorch's wrapper modules give to the wrapped module.
HOLDERS = "module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module"
PREFIX = re.compile(rf"(?:{HOLDERS}|model|net|network|student|teacher)\.")
INSIDE = re.compile(rf"(?<=\.)(?:{HOLDERS})\.")

BARE = "bare"  # the name of tensors that the file contains directly

State = dict[str, Tensor]


@dataclass(frozen=True)
class Container:
    """A set of named tensors, and its location in the file.

    Attributes:
        entry: its name in the file; "" if the file contains the tensors directly.
        prefix: the modules around the network, removed from the keys, such as "module.student.".
        inside: a wrapper in the network, removed from the keys, such as "features.module.", or "".
    """

    entry: str
    prefix: str
    inside: str
    state: State

    def __str__(self) -> str:
        """Such as "plain state dict", "model", or "model: module.student."."""
        removed = ", ".join(filter(None, (self.prefix, self.inside)))
        name = "plain state dict" if self.names[0] == BARE else self.names[0]
        return name + (f": {removed}" if removed else "")

    @property
    def names(self) -> list[str]:
        """The names that `FILE::NAME` may use for it, the most specific one last."""
        return [self.entry or BARE, *self.prefix.split(".")[:-1]]


def containers_in(payload: object) -> list[Container]:
    """Every set of named tensors in a file's contents."""
    entries = payload if isinstance(payload, Mapping) else {}
    named = {"": payload, **{name: value for name, value in entries.items() if name != ""}}
    found = []
    for name, value in named.items():
        state = _named_tensors(value)
        for prefix in _prefixes(state):
            inner = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
            found.append(Container(f"{name}", prefix, "", inner))
            wrapped = [key for key in inner if INSIDE.search(key)]
            plain = {INSIDE.sub("", key): tensor for key, tensor in inner.items()}
            if wrapped and len(plain) == len(inner):
                end = next(INSIDE.finditer(wrapped[0])).end()
                found.append(Container(f"{name}", prefix, wrapped[0][:end], plain))
    return found


def _named_tensors(value: object) -> State:
    entries = value.items() if isinstance(value, Mapping) else ()
    return {k: v for k, v in entries if isinstance(k, str) and isinstance(v, Tensor)}


def _prefixes(state: State) -> Iterator[str]:
    """An empty prefix, then each chain of wrapper modules that some key starts with."""
    found: dict[str, None] = {"": None} if state else {}
    for key in state:
        prefix = ""
        while wrapper := PREFIX.match(key, len(prefix)):
            prefix += wrapper[0]
            found[prefix] = None
    return iter(found)


def in_part(
    found: Sequence[Container], parts: Sequence[str], source: Source
) -> Sequence[Container]:
    """The containers that fit all names of parts.

    A name is that of an entry of the file, or of a module around the network.

    Raises:
        ChoiceError: no container fits.
    """
    for part in parts:
        entries = [container for container in found if container.names[0] == part]
        kept = entries or [container for container in found if part in container.names]
        if not kept:
            known = dict.fromkeys(name for container in found for name in container.names)
            raise ChoiceError(
                f"{source.file} has no part {part!r}{suggest(part, known)}. "
                + ("Its parts: " + ", ".join(known) if known else "It contains no named tensors")
            )
        found = kept
    return found


def choices(fitting: Sequence[Container], source: Source) -> list[str]:
    """For each container, the setting that chooses it: one more name after the source's names."""
    lines = []
    for container in fitting:
        others = {name for other in fitting if other is not container for name in other.names}
        own = [name for name in container.names if name not in others]
        lines.append(source.setting_with(*source.names, *(own[-1:] or container.names)))
    return lines
