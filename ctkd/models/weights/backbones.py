"""ImageNet weights of classifiers, for the backbones of other networks."""

from collections.abc import Callable

import torch
from torch import nn
from torchvision.models import get_model_weights

from ctkd.checks import suggest
from ctkd.errors import ConfigError
from ctkd.files import expand_user
from ctkd.models.imagenet_networks import WEIGHTS_NAME
from ctkd.models.weights.match import load_weights


def load_backbone(classifier: nn.Module, build: Callable[..., nn.Module], weights: str) -> None:
    """Loads pretrained weights into torchvision's `build(…)`; on the meta device nothing is read.

    Args:
        weights: a file, a URL, or a name of torchvision's weights, such as IMAGENET1K_V1.

    Raises:
        ConfigError: torchvision knows no weights of that name.
        DataError: the weights cannot be read or downloaded, or do not fit.
    """
    known = get_model_weights(build).__members__
    if WEIGHTS_NAME.fullmatch(weights) and weights not in known:
        raise ConfigError(
            f"torchvision has no weights {weights!r} of {build.__name__}"
            f"{suggest(weights, known)} ({', '.join(known)})"
        )
    if torch.get_default_device().type != "meta":
        source = expand_user(weights, f"the weights of the backbone {build.__name__}")
        load_weights(classifier, source, build.__name__, setting="backbone_weights")
