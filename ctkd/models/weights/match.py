"""Published and own weights into a network, from any of the containers they are found in.

A file may hold the tensors bare, or under a name (RepDistiller, mdistiller and CTKD: `model`;
others: `state_dict`, `student`, …), and their keys may carry the names of the modules around the
network (`module.`, `module.student.`, …). What fits the network is taken; where a distiller's file
holds a student and a teacher that both fit, the student is.
"""

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ctkd.builtin import SMALL_NETWORKS
from ctkd.errors import DataError
from ctkd.models.weights.formats import fetch
from ctkd.registry import MODELS

WRAPPERS = re.compile(r"(?:module|_orig_mod|model|net|network|student|teacher)\.")
# Further classifiers of GoogLeNet and Inception v3, which serve training only.
AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")
COUNTER = ".num_batches_tracked"  # came with PyTorch 0.4.1; nothing is computed from it
NAMED_KEYS = 3  # of each kind, in a message

Shape = tuple[int, ...]
State = dict[str, Tensor]


@dataclass(frozen=True)
class WeightsInfo:
    """What was loaded.

    Attributes:
        source: the path or URL as it was given.
        fingerprint: `fingerprint` of the loaded tensors.
        container: where the file keeps them: "bare" or a name, and the prefix of the keys if there
            is one, as in "model: module.student.".
    """

    source: str
    fingerprint: str
    container: str


def load_weights(
    model: nn.Module,
    source: str | os.PathLike[str],
    network: str | None = None,
) -> WeightsInfo:
    """Loads a file's weights into `model`, all of them or none.

    Args:
        model: the network; it keeps its device and its dtype.
        source: a path, or a file, http or https URL, with `#sha256=…` after it if wanted. What is
            downloaded is kept; see `weight_files.locate`. With `network` also torchvision's name
            of published weights, such as IMAGENET1K_V1.
        network: the name that the network is registered as.

    Raises:
        DataError: the file is missing, damaged, not the one of the checksum, unsafe to read, or
            holds nothing that fits the network.
    """
    found = _candidates(_payload(source, network))
    own = model.state_dict()
    fitting = _fitting(found, own)
    if fitting is None:
        raise DataError(f"{os.fspath(source)}: {_misfit(found, own)}")
    container, state = fitting
    model.load_state_dict(state)
    return WeightsInfo(os.fspath(source), fingerprint(state), container)


def _payload(source: str | os.PathLike[str], network: str | None) -> object:
    from ctkd.models.imagenet_networks import WEIGHTS_NAME, published_state

    name = os.fspath(source)
    if network is not None and WEIGHTS_NAME.fullmatch(name) and not os.path.exists(name):
        return published_state(network, name)
    return fetch(source)


def fingerprint(state: Mapping[str, Tensor]) -> str:
    """16 hexadecimal digits that depend on every key, shape, dtype and byte, and on nothing else.

    A moved, renamed or re-packed file has the same: the sha256 is over the tensors, sorted by key.
    """
    digest = hashlib.sha256()
    for key in sorted(state):
        tensor = state[key].detach().cpu().contiguous()
        digest.update(f"{key} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def _candidates(payload: object) -> dict[str, State]:
    """Every set of named tensors in a file by its container, the likelier ones first."""
    entries = payload if isinstance(payload, Mapping) else {}
    found: dict[str, State] = {}
    for name, value in {"bare": payload, **entries}.items():
        state = _named_tensors(value)
        for prefix in _prefixes(state):
            inner = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
            found[f"{name}: {prefix}" if prefix else f"{name}"] = inner
    return dict(sorted(found.items(), key=lambda item: _rank(item[0])))


def _rank(container: str) -> int:
    return 0 if "student" in container else 2 if "teacher" in container else 1


def _named_tensors(value: object) -> State:
    entries = value.items() if isinstance(value, Mapping) else ()
    return {k: v for k, v in entries if isinstance(k, str) and isinstance(v, Tensor)}


def _prefixes(state: State) -> Iterator[str]:
    """None at all, then each run of wrapping modules that some key starts with."""
    found: dict[str, None] = {"": None} if state else {}
    for key in state:
        prefix = ""
        while wrapper := WRAPPERS.match(key, len(prefix)):
            prefix += wrapper[0]
            found[prefix] = None
    return iter(found)


def _fitting(found: Mapping[str, State], own: State) -> tuple[str, State] | None:
    """The first container that holds the network's keys and shapes; absent counters become 0."""
    counters = {key: torch.tensor(0) for key in own if key.endswith(COUNTER)}
    for container, state in found.items():
        # Auxiliary heads are for training alone; a frozen normalisation counts no batches: what a
        # file has of either, and the network has not, is nobody's.
        spare = (key for key in state if key.startswith(AUXILIARY) or key.endswith(COUNTER))
        left_out = {key for key in spare if key not in own}
        whole = counters | {k: v for k, v in state.items() if k not in left_out}
        if whole.keys() == own.keys() and _shapes(whole) == _shapes(own):
            return container, whole
    return None


def _shapes(state: Mapping[str, Tensor]) -> dict[str, Shape]:
    return {key: tuple(tensor.shape) for key, tensor in state.items() if not key.endswith(COUNTER)}


def _misfit(found: Mapping[str, State], own: State) -> str:
    """How the likeliest container differs from the network, and what it would fit."""
    if not found:
        return "holds no tensors by name: expected a state dict, bare or under a name such as model"
    ours = _shapes(own)

    def likeness(item: tuple[str, State]) -> tuple[int, int, int]:
        container, state = item
        return len(_shapes(state).items() & ours.items()), len(state), len(container)

    container, state = max(found.items(), key=likeness)
    theirs = _shapes(state)
    reshaped = [key for key in ours if ours[key] != theirs.get(key, ours[key])]
    if theirs.keys() == ours.keys() and len(reshaped) <= 2:
        # Only the last layer's weight and bias can differ alone, in their number of rows.
        given, built = _classes(theirs), _classes(ours)
        if given != built and all(ours[key][1:] == theirs[key][1:] for key in reshaped):
            return (
                f"the weights ({container}) are for {given} classes, the network has {built}: "
                f"build it with num_classes = {given}, or give weights for {built} classes"
            )
    differences = (
        _few("missing", [key for key in ours if key not in theirs]),
        _few("unexpected", [key for key in theirs if key not in ours]),
        _few("of another shape", [f"{k} {theirs[k]}, here {ours[k]}" for k in reshaped]),
    )
    listed = "; ".join(filter(None, differences))
    return (
        f"the weights ({container}) do not fit the network, which has {len(ours)} keys: {listed}. "
        f"{_suggest_network(theirs)}"
    )


def _few(kind: str, keys: list[str]) -> str:
    """Such as "72 missing (layer1.3.conv1.weight, …)", or nothing."""
    more = ", …" if len(keys) > NAMED_KEYS else ""
    return f"{len(keys)} {kind} ({', '.join(keys[:NAMED_KEYS])}{more})" if keys else ""


def _classes(shapes: Mapping[str, Shape]) -> int | None:
    """The outputs of the last linear layer."""
    rows = [shape[0] for shape in shapes.values() if len(shape) == 2]
    return rows[-1] if rows else None


def _suggest_network(shapes: Mapping[str, Shape]) -> str:
    """The registered network for small images whose keys and shapes are nearest to the file's."""
    theirs, classes = shapes.items(), _classes(shapes)
    likeness: dict[str, float] = {}
    for name in SMALL_NETWORKS if classes else ():
        with torch.device("meta"):  # shapes without memory or random numbers
            candidate = _shapes(MODELS.get(name)(num_classes=classes).state_dict()).items()
        likeness[name] = len(theirs & candidate) / len(theirs | candidate)
    best = max(likeness, key=likeness.__getitem__, default="")
    if not best or likeness[best] < 0.5:
        return "None of the registered networks for small images is like it"
    if likeness[best] == 1:
        return f"They fit {best} with {classes} classes: build that, or give other weights"
    return f"Nearest is {best} with {classes} classes, {likeness[best]:.0%} of whose keys agree"
