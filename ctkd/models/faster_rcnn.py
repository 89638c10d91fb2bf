"""Faster R-CNN with a feature pyramid (Ren et al. 2015, Lin et al. 2017), from torchvision's parts.

Keys of the weights are torchvision's. One thing is added: in train mode a detector returns its
sampled proposals, their class logits and their labels. Another detector can then score the same
boxes (`Detector.score`), and a loss can compare the two rows of each box.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models import mobilenet_v2, resnet18, resnet50, resnet101
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import fastrcnn_loss
from torchvision.ops import FrozenBatchNorm2d

from ctkd.checks import expect
from ctkd.models.weights.backbones import load_backbone
from ctkd.registry import MODELS

Norm = Literal["auto", "batch", "frozen"]
Sizes = list[tuple[int, int]]
Targets = list[dict[str, Tensor]]
RATIOS = (0.5, 1.0, 2.0)


@dataclass(frozen=True)
class Proposals:
    """Boxes that several detectors can score.

    Attributes:
        pictures: [B, 3, H, W], normalized, padded with zeros on the right and below.
        sizes: (height, width) of each picture without its padding.
        boxes: for each picture [n, 4], (x1, y1, x2, y2) in its pixels.
    """

    pictures: Tensor
    sizes: Sizes
    boxes: list[Tensor]


class Sampled(NamedTuple):
    """The output of a detector in train mode.

    Attributes:
        proposals: the sampled proposals, ground truth included.
        logits: [N, C] of all their boxes, the background in column 0.
        targets: [N], classes; 0 is the background.
        losses: 0-d tensors, all losses except that of the classes: torchvision's means over the
            sampled anchors (objectness, rpn_box) and the sampled proposals (box).
    """

    proposals: Proposals
    logits: Tensor
    targets: Tensor
    losses: dict[str, Tensor]


class Detector(FasterRCNN):  # type: ignore[misc]
    """In eval mode torchvision's detector: pictures in [0, 1] -> boxes, labels, scores of each.

    In train mode the pictures must already be resized; the output is `Sampled`.
    """

    def forward(self, pictures: list[Tensor], targets: Targets | None = None) -> Any:
        """Detections in eval mode, `Sampled` in train mode."""
        if not self.training:
            return super().forward(pictures)
        if targets is None:
            raise ValueError("a detector in train mode needs targets: boxes and labels")
        return self.sample(pictures, targets)

    def sample(self, pictures: list[Tensor], targets: Targets) -> Sampled:
        """Proposes boxes, draws some by torch's global generator, and scores them."""
        normal = [self.transform.normalize(picture) for picture in pictures]
        sizes = [(picture.shape[-2], picture.shape[-1]) for picture in normal]
        padded = self.transform.batch_images(normal, self.transform.size_divisible)
        padded = padded.contiguous(memory_format=torch.channels_last)
        features = self.backbone(padded)
        # Boxes stay float32 for any precision of the features: float16 is too coarse for pixels.
        with torch.autocast(padded.device.type, enabled=False):
            exact = {name: level.float() for name, level in features.items()}
            proposed, rpn = self.rpn(ImageList(padded, sizes), exact, targets)
        heads = self.roi_heads
        boxes, _, labels, offsets = heads.select_training_samples(proposed, targets)
        logits, moves = self._heads(features, boxes, sizes)
        # The objective computes the loss of the classes: take only that of the boxes here.
        _, box = fastrcnn_loss(logits.detach(), moves, labels, offsets)
        losses = {"objectness": rpn["loss_objectness"], "rpn_box": rpn["loss_rpn_box_reg"]}
        proposals = Proposals(padded, sizes, boxes)
        return Sampled(proposals, logits, torch.cat(labels), {"box": box, **losses})

    def score(self, proposals: Proposals) -> Tensor:
        """The class logits [N, C] of the given boxes, from this detector's features."""
        features = self.backbone(proposals.pictures)
        logits, _ = self._heads(features, proposals.boxes, proposals.sizes)
        return logits

    def _heads(self, features: Any, boxes: list[Tensor], sizes: Sizes) -> tuple[Tensor, Tensor]:
        """Class logits [N, C] and box regressions [N, 4 C]."""
        heads = self.roi_heads
        pooled = heads.box_roi_pool(features, boxes, sizes)
        logits, moves = heads.box_predictor(heads.box_head(pooled))
        return logits, moves


class Stages(NamedTuple):
    """A backbone: the function that builds the classifier, and the names of its parts.

    Attributes:
        build: torchvision's function, called with `norm_layer`.
        levels: the modules with the inputs of the pyramid (strides 4, 8, 16, 32).
        channels: of those outputs.
        stages: the names of the modules of the five stages, in order.
    """

    build: Callable[..., nn.Module]
    levels: Sequence[str]
    channels: Sequence[int]
    stages: Sequence[Sequence[str]]


def _resnet(build: Callable[..., nn.Module], expansion: int) -> Stages:
    layers = [f"layer{k}" for k in (1, 2, 3, 4)]
    channels = [expansion * width for width in (64, 128, 256, 512)]
    return Stages(build, layers, channels, [["conv1", "bn1"], *([layer] for layer in layers)])


MOBILENET = Stages(
    mobilenet_v2,
    ("3", "6", "13", "18"),
    (24, 32, 96, 1280),
    [[str(k) for k in range(a, b)] for a, b in ((0, 2), (2, 4), (4, 7), (7, 14), (14, 19))],
)


def detector(
    stages: Stages,
    num_classes: int,
    weights: str | None,
    trainable_stages: int | None,
    norm: Norm,
    min_size: int,
    max_size: int,
    anchor_sizes: Sequence[int],
    rois_per_image: int,
    anchors_per_image: int,
    pyramid_channels: int,
) -> Detector:
    """A detector on a backbone.

    Args:
        num_classes: columns of a row of class logits, the background included.
        weights: the backbone's ImageNet weights: a file, a URL, or the name of torchvision's
            weights (IMAGENET1K_V1), which are downloaded; None starts with random weights.
        trainable_stages: how many of the last of the backbone's five stages are trained; None
            means 3 with pretrained weights and 5 without.
        norm: "frozen" keeps the normalizations of the pretrained weights, "batch" trains
            normalizations; "auto" chooses by `weights`.
        min_size, max_size: the sides of a picture, in pixels, for the evaluation.
        anchor_sizes: in pixels, one for each of the five levels.
        rois_per_image: proposals sampled for training, at most a quarter of them foreground.
        anchors_per_image: anchors sampled for training the proposals.
        pyramid_channels: of every level; 256 as published, fewer for a fast trial.

    Raises:
        ConfigError: a value out of range, or a name that torchvision does not know.
        DataError: the backbone's weights are missing or do not fit.
    """
    owner = f"fasterrcnn_{stages.build.__name__}_fpn"  # the registered name
    counts = {"rois_per_image": rois_per_image, "anchors_per_image": anchors_per_image}
    counts["pyramid_channels"] = pyramid_channels
    _check_options(owner, num_classes, trainable_stages, anchor_sizes, counts)
    levels = {name: str(level) for level, name in enumerate(stages.levels)}
    body = _body(stages, weights, trainable_stages, norm)
    backbone = BackboneWithFPN(body, levels, list(stages.channels), pyramid_channels)
    anchors = AnchorGenerator(tuple((size,) for size in anchor_sizes), (RATIOS,) * 5)
    return Detector(
        backbone,
        num_classes,
        min_size=min_size,
        max_size=max_size,
        rpn_anchor_generator=anchors,
        box_batch_size_per_image=rois_per_image,
        rpn_batch_size_per_image=anchors_per_image,
    )


def _check_options(
    owner: str,
    num_classes: int,
    trainable_stages: int | None,
    anchor_sizes: Sequence[int],
    counts: Mapping[str, int],
) -> None:
    for name, value in counts.items():
        expect(value >= 1, owner, name, value, "a number of 1 or more")
    expect(num_classes >= 2, owner, "num_classes", num_classes, "2 or more, with the background")
    fine = trainable_stages is None or 0 <= trainable_stages <= 5
    expect(fine, owner, "trainable_stages", trainable_stages, "None or a number from 0 to 5")
    fine = len(anchor_sizes) == 5 and all(size > 0 for size in anchor_sizes)
    expect(fine, owner, "anchor_sizes", anchor_sizes, "five numbers of pixels")


def _body(
    stages: Stages, weights: str | None, trainable_stages: int | None, norm: Norm
) -> nn.Module:
    """The stages of a backbone, the first ones frozen. See `detector` for the arguments."""
    frozen = norm == "frozen" or (norm == "auto" and weights is not None)
    classifier = stages.build(norm_layer=FrozenBatchNorm2d if frozen else nn.BatchNorm2d)
    if weights is not None:
        load_backbone(classifier, stages.build, weights)
    body: nn.Module = getattr(classifier, "features", classifier)
    trained = trainable_stages if trainable_stages is not None else 3 if weights is not None else 5
    for stage in stages.stages[: 5 - trained]:
        for name in stage:
            body.get_submodule(name).requires_grad_(False)
    return body


def _register(name: str, stages: Stages) -> None:
    """Registers a detector under a name, with the options of `detector`."""

    def build(
        num_classes: int = 81,
        weights: str | None = None,
        trainable_stages: int | None = None,
        norm: Norm = "auto",
        min_size: int = 800,
        max_size: int = 1333,
        anchor_sizes: Sequence[int] = (32, 64, 128, 256, 512),
        rois_per_image: int = 512,
        anchors_per_image: int = 256,
        pyramid_channels: int = 256,
    ) -> nn.Module:
        return detector(
            stages,
            num_classes,
            weights,
            trainable_stages,
            norm,
            min_size,
            max_size,
            anchor_sizes,
            rois_per_image,
            anchors_per_image,
            pyramid_channels,
        )

    build.__name__ = build.__qualname__ = name
    build.__doc__ = f"{name}: see `detector` for its options."
    MODELS.register(name)(build)


_register("fasterrcnn_resnet18_fpn", _resnet(resnet18, 1))
_register("fasterrcnn_resnet50_fpn", _resnet(resnet50, 4))
_register("fasterrcnn_resnet101_fpn", _resnet(resnet101, 4))
_register("fasterrcnn_mobilenet_v2_fpn", MOBILENET)
