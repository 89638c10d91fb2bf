"""Networks for ImageNet: torchvision's by their own names, timm's as timm_NAME, and MobileNetV1.

torchvision is imported when a network is built, not when its name is registered. Every torchvision
network also has the name torchvision_NAME. CIFAR networks have the names vgg11, vgg13, vgg16 and
vgg19, so torchvision's VGG have only the long name.
"""

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ctkd.builtin import TORCHVISION_NETWORKS
from ctkd.checks import suggest
from ctkd.errors import ConfigError, DataError
from ctkd.models.blocks import classifier, conv, conv_bn, pool
from ctkd.models.weights.load_file import downloads
from ctkd.registry import MODELS

TORCHVISION, TIMM = "torchvision_", "timm_"
WEIGHTS_NAME = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*")  # IMAGENET1K_V1, DEFAULT
# Inception's networks have extra classifiers for training, and expect inputs in [-1, 1].
OPTIONS: dict[str, dict[str, bool]] = {
    "googlenet": {"aux_logits": False, "transform_input": True, "init_weights": True},
    "inception_v3": {"aux_logits": False, "transform_input": True, "init_weights": True},
}
# Output channels and stride of the blocks after the stem (Howard et al. 2017, table 1).
MOBILENET_V1 = (
    *((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)),
    *((512, 1),) * 5,
    *((1024, 2), (1024, 1)),
)


class ImageNetMobileNetV1(nn.Module):
    """MobileNetV1 of width 1 (Howard et al. 2017, arXiv 1704.04861), with mdistiller's keys."""

    feature_paths: ClassVar = {
        "stem": "model.0",
        **{f"stage{k}": f"model.{block}" for k, block in enumerate((3, 5, 11, 13), 1)},
        "pooled": "fc:input",
    }

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        blocks = [nn.Sequential(*conv_bn(3, 32, 3, 2), nn.ReLU(inplace=True))]
        inputs = 32
        for outputs, stride in MOBILENET_V1:
            blocks.append(
                nn.Sequential(
                    conv(inputs, inputs, 3, stride, groups=inputs),
                    nn.BatchNorm2d(inputs),
                    nn.ReLU(inplace=True),
                    *conv_bn(inputs, outputs, 1),
                    nn.ReLU(inplace=True),
                )
            )
            inputs = outputs
        self.model = nn.Sequential(*blocks)
        self.fc = classifier(inputs, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [N, K] of images [N, 3, H, W], H and W at least 32."""
        logits: Tensor = self.fc(pool(self.model(images)))
        return logits


@MODELS.register
def MobileNetV1(num_classes: int = 1000) -> nn.Module:  # noqa: N802  (the published tables' spelling)
    """MobileNetV1 for images of 224 pixels, 4.2 million parameters."""
    return ImageNetMobileNetV1(num_classes)


def provide(name: str) -> None:
    """Registers `torchvision_NAME` or `timm_NAME`; the library checks the name at the build."""
    prefix = TIMM if name.startswith(TIMM) else TORCHVISION
    if prefix == TIMM:
        MODELS.register(name)(_timm_factory(name))
    else:
        _register(name, functools.partial(_torchvision, name.removeprefix(prefix)))


def _timm_factory(name: str) -> Callable[..., nn.Module]:
    """The function that builds `timm_NAME`."""

    def build(
        num_classes: int = 1000,
        img_size: int | None = None,
        patch_size: int | None = None,
        drop_path_rate: float | None = None,
    ) -> nn.Module:
        sizes = {"img_size": img_size, "patch_size": patch_size, "drop_path_rate": drop_path_rate}
        given = {key: value for key, value in sizes.items() if value is not None}
        return _timm(name.removeprefix(TIMM), num_classes, given)

    build.__name__ = build.__qualname__ = name
    build.__doc__ = (
        f"{name}, for images of 224 pixels unless img_size or its authors say otherwise. "
        "patch_size is the side of its patches, drop_path_rate its stochastic depth."
    )
    return build


def _register(name: str, make: Callable[[int], nn.Module]) -> None:
    def build(num_classes: int = 1000) -> nn.Module:
        return make(num_classes)

    build.__name__ = build.__qualname__ = name
    build.__doc__ = f"{name}, for images of 224 pixels unless its authors say otherwise."
    MODELS.register(name)(build)


def _torchvision(name: str, num_classes: int) -> nn.Module:
    """A torchvision network with random weights.

    Raises:
        ConfigError: torchvision has no image classifier of that name.
    """
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise ConfigError(f"torchvision has no network named {name!r}{suggest(name, known)}")
    make = functools.partial(models.get_model, name, weights=None, num_classes=num_classes)
    return _built(functools.partial(make, **OPTIONS.get(name, {})))


def _timm(name: str, num_classes: int, sizes: Mapping[str, Any]) -> nn.Module:
    """A timm network with random weights.

    Raises:
        ConfigError: timm is not installed, has no such network, or the sizes do not fit it.
    """
    try:
        import timm
    except ImportError as error:
        raise ConfigError(f"{TIMM}{name} needs timm: pip install timm") from error
    if not timm.is_model(name):
        raise ConfigError(f"timm has no network named {name!r}{suggest(name, timm.list_models())}")
    make = functools.partial(timm.create_model, name, pretrained=False, num_classes=num_classes)
    try:
        return _built(functools.partial(make, **sizes))
    except TypeError as error:
        given = ", ".join(f"{k} = {v}" for k, v in sizes.items())
        raise ConfigError(f"{TIMM}{name} does not take {given}: {error}") from error


def _built(make: Callable[[], nn.Module]) -> nn.Module:
    """The result of `make`, built on the CPU first if its constructor needs values of tensors."""
    try:
        return make()
    except (NotImplementedError, RuntimeError):
        if torch.get_default_device().type != "meta":
            raise
    with torch.device("cpu"):
        return make().to("meta")


def published_state(network: str, weights: str) -> Mapping[str, Any]:
    """The tensors of torchvision's published weights, downloaded if necessary.

    Args:
        network: its registered name.
        weights: such as IMAGENET1K_V1; DEFAULT is the newest.

    Raises:
        DataError: the network has no weights of that name, or the download failed.
    """
    from torchvision import models

    name = network.removeprefix(TORCHVISION)
    if name not in models.list_models(module=models):
        raise DataError(
            f"weights {weights!r}: only torchvision's networks have named weights, and {network} "
            "is not one of them: give a file or a URL"
        )
    offered = models.get_model_weights(name)
    if weights not in offered.__members__:
        listed = ", ".join(offered.__members__)
        raise DataError(f"torchvision's {name} has no weights {weights!r}: expected {listed}")
    chosen = offered[weights]
    folder = downloads()
    try:
        # torchvision's builder also reads older files; it draws random weights first.
        with torch.random.fork_rng(devices=[]):
            state: Mapping[str, Any] = models.get_model(name, weights=chosen).state_dict()
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"{chosen.url} could not be downloaded to {folder} ({error}): fetch the file by other "
            "means and put it there, or give its path in place of the name"
        ) from error
    return state


for _name in TORCHVISION_NETWORKS:
    _register(_name, functools.partial(_torchvision, _name))
