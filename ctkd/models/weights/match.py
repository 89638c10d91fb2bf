"""Loads weights from files into a network: all of them, or none if they do not fit."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ctkd.builtin import SMALL_NETWORKS
from ctkd.errors import DataError
from ctkd.models.weights.archives import ChoiceError
from ctkd.models.weights.containers import Container, State, choices, containers_in, in_part
from ctkd.models.weights.load_file import fetch
from ctkd.models.weights.source import parse_source
from ctkd.registry import MODELS

# Extra classifiers of GoogLeNet and Inception v3, used in training only.
AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")
COUNTER = ".num_batches_tracked"  # new in PyTorch 0.4.1; nothing is computed from it
NAMED_KEYS = 3  # of each kind of difference, in a message

Shape = tuple[int, ...]


@dataclass(frozen=True)
class WeightsInfo:
    """Where loaded weights came from.

    Attributes:
        source: the path or URL as it was given.
        fingerprint: `fingerprint` of the loaded tensors.
        container: their location in the file: "plain state dict" or a name, and the prefix of
            the keys if there is one, as in "model: module.student.".
        dtypes: of the floating-point tensors in the file, such as "float16".
    """

    source: str
    fingerprint: str
    container: str
    dtypes: str = "float32"

    def __str__(self) -> str:
        """Such as "/w/resnet56.pth (model, stored as float16)"."""
        stored = "" if self.dtypes == "float32" else f", stored as {self.dtypes}"
        return f"{self.source} ({self.container}{stored})"


def load_weights(
    model: nn.Module,
    source: str | os.PathLike[str],
    network: str | None = None,
    setting: str = "",
) -> WeightsInfo:
    """Loads a file's weights into `model`, all of them or none.

    Args:
        model: the network; it keeps its device and its dtype.
        source: see `source` for its syntax and `load_file.locate` for the folder of
            downloads. With `network` also torchvision's name of published weights, such as
            IMAGENET1K_V1.
        network: the network's registered name.
        setting: the name of the user's setting, such as "teacher_weights", for errors.

    Raises:
        DataError: the file is missing, damaged, unsafe to read, or has another checksum; or no
            set of weights in it fits the network, or more than one.
    """
    own = model.state_dict()
    container = _found(own, source, network, setting)
    whole = _fitted(container.state, own) or {}
    model.load_state_dict(whole)
    kinds = {str(t.dtype).removeprefix("torch.") for t in whole.values() if t.is_floating_point()}
    dtypes = ", ".join(sorted(kinds))
    return WeightsInfo(os.fspath(source), fingerprint(whole), str(container), dtypes)


def _found(
    own: State, source: str | os.PathLike[str], network: str | None, setting: str
) -> Container:
    """The one container in the source that fits the network's tensors. Raises DataError."""
    from ctkd.models.imagenet_networks import WEIGHTS_NAME, published_state

    name = os.fspath(source)
    if network is not None and WEIGHTS_NAME.fullmatch(name) and not os.path.exists(name):
        return _only(containers_in(published_state(network, name)), own, name)
    parsed = parse_source(source, setting)
    payload, parts = fetch(parsed)
    found = in_part(containers_in(payload), parts, parsed)
    fitting = _different([c for c in found if _fitted(c.state, own) is not None])
    if len(fitting) > 1:
        listed = " and ".join(f"({container})" for container in fitting)
        raise ChoiceError(
            f"{parsed} contains {len(fitting)} different sets of weights that fit the network: "
            f"{listed}. Set the part that you want:\n  " + "\n  ".join(choices(fitting, parsed))
        )
    return _only(fitting or found, own, name)


def fingerprint(state: Mapping[str, Tensor]) -> str:
    """16 hexadecimal digits that depend only on every key, shape, dtype and byte.

    They are a sha256 of the tensors, sorted by key: moving or renaming a file does not change them.
    """
    digest = hashlib.sha256()
    for key in sorted(state):
        tensor = state[key].detach().cpu().contiguous()
        digest.update(f"{key} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def _different(fitting: Sequence[Container]) -> list[Container]:
    """One container of each content: a file may contain the same tensors under two names."""
    if len(fitting) < 2:
        return list(fitting)
    unlike: dict[str, Container] = {}
    for container in fitting:
        unlike.setdefault(fingerprint(container.state), container)
    return list(unlike.values())


def _only(found: Sequence[Container], own: State, shown: str) -> Container:
    """The first container. Raises DataError, with the reason, if it does not fit the network."""
    fitting = next((c for c in found if _fitted(c.state, own) is not None), None)
    if fitting is None:
        raise DataError(f"{shown}: {_misfit(found, own)}")
    for key, tensor in fitting.state.items():
        if key in own and own[key].is_floating_point() and not tensor.is_floating_point():
            kind = str(tensor.dtype).removeprefix("torch.")
            raise DataError(
                f"{shown}: {key} is {kind}, the network computes with floating-point numbers: the "
                "file is of a quantized network; give the weights from before the quantization"
            )
    return fitting


def _fitted(state: State, own: State) -> State | None:
    """The tensors for all of the network's keys, or None; absent counters become 0."""
    counters = {key: torch.tensor(0) for key in own if key.endswith(COUNTER)}
    # Auxiliary heads are for training only, and a frozen normalization counts no batches: the
    # extra keys of both kinds are ignored.
    spare = (key for key in state if key.startswith(AUXILIARY) or key.endswith(COUNTER))
    left_out = {key for key in spare if key not in own}
    whole = counters | {k: v for k, v in state.items() if k not in left_out}
    return whole if whole.keys() == own.keys() and _shapes(whole) == _shapes(own) else None


def _shapes(state: Mapping[str, Tensor]) -> dict[str, Shape]:
    return {key: tuple(tensor.shape) for key, tensor in state.items() if not key.endswith(COUNTER)}


def _misfit(found: Sequence[Container], own: State) -> str:
    """How the most similar container differs from the network, and which network it would fit."""
    if not found:
        return "has no named tensors: expected a state dict, bare or under a name such as model"
    ours = _shapes(own)

    def likeness(container: Container) -> tuple[int, int, int]:
        state = container.state
        return len(_shapes(state).items() & ours.items()), len(state), len(str(container))

    container = max(found, key=likeness)
    theirs = _shapes(container.state)
    reshaped = [key for key in ours if ours[key] != theirs.get(key, ours[key])]
    if theirs.keys() == ours.keys() and len(reshaped) <= 2:
        # If only the number of rows differs in one weight and bias, these are the last layer's.
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
    """A hint: the registered network for small images that is most similar to the file."""
    theirs, classes = shapes.items(), _classes(shapes)
    likeness: dict[str, float] = {}
    for name in SMALL_NETWORKS if classes else ():
        with torch.device("meta"):  # shapes without memory or random numbers
            candidate = _shapes(MODELS.get(name)(num_classes=classes).state_dict()).items()
        likeness[name] = len(theirs & candidate) / len(theirs | candidate)
    best = max(likeness, key=likeness.__getitem__, default="")
    if not best or likeness[best] < 0.5:
        return "None of the registered networks for small images is similar"
    if likeness[best] == 1:
        return f"They fit {best} with {classes} classes: build that, or give other weights"
    return f"Nearest is {best} with {classes} classes, {likeness[best]:.0%} of whose keys agree"
