"""The CIFAR networks have the published sizes and keys, and start as published."""

import collections
import copy
import inspect
import re

import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from torch import fx, nn
from torch.fx.experimental.optimization import fuse
from torch.utils.flop_counter import FlopCounterMode

from ctkd.errors import ConfigError
from ctkd.registry import COMPONENTS, MODELS

# Counted in RepDistiller, mdistiller, CTKD and the logit-standardization code, which agree:
# parameters, multiply-adds of one image (convolutions and linear layer), state-dict keys, and
# parameters for 10 classes instead of 100.
PUBLISHED = {
    "resnet8": (83_892, 12_507_392, 56, 78_042),
    "resnet14": (181_108, 26_663_168, 92, 175_258),
    "resnet20": (278_324, 40_818_944, 128, 272_474),
    "resnet32": (472_756, 69_130_496, 200, 466_906),
    "resnet44": (667_188, 97_442_048, 272, 661_338),
    "resnet56": (861_620, 125_753_600, 344, 855_770),
    "resnet110": (1_736_564, 253_155_584, 668, 1_730_714),
    "resnet8x4": (1_233_540, 177_071_104, 62, 1_210_410),
    "resnet32x4": (7_433_860, 1_083_040_768, 206, 7_410_730),
    "wrn_16_1": (180_916, 26_663_168, 82, 175_066),
    "wrn_16_2": (703_284, 101_118_464, 83, 691_674),
    "wrn_40_1": (569_780, 83_286_272, 226, 563_930),
    "wrn_40_2": (2_255_156, 327_610_880, 227, 2_243_546),
    "vgg8": (3_965_028, 96_192_512, 37, 3_918_858),
    "vgg11": (9_277_284, 209_438_720, 58, 9_231_114),
    "vgg13": (9_462_180, 284_936_192, 72, 9_416_010),
    "vgg16": (14_774_436, 398_182_400, 93, 14_728_266),
    "vgg19": (20_086_692, 511_428_608, 114, 20_040_522),
    "MobileNetV2": (812_836, 6_523_648, 320, 697_546),
    "ShuffleV1": (949_258, 38_691_456, 296, 862_768),
    "ShuffleV2": (1_355_528, 44_504_448, 338, 1_263_278),
    "ResNet50": (23_705_252, 1_298_014_208, 320, 23_520_842),
}
# The smallest of each architecture.
SMALL = ["resnet8", "resnet8x4", "wrn_16_1", "wrn_16_2", "vgg8", "vgg11"]
FAMILIES = [*SMALL, "MobileNetV2", "ShuffleV1", "ShuffleV2"]

NORM = r"(weight|bias|running_mean|running_var|num_batches_tracked)"
BASIC = rf"(conv[12]\.weight|bn[12]\.{NORM}|downsample\.(0\.weight|1\.{NORM}))"
DEEP = rf"(conv[123]\.weight|bn[123]\.{NORM}|shortcut\.(0\.weight|1\.{NORM}))"
WIDE = rf"(bn[12]\.{NORM}|conv[12]\.weight|convShortcut\.weight)"
UNIT = rf"(conv[1-5]\.weight|bn[1-5]\.{NORM})"
INVERTED = rf"([036]\.weight|[147]\.{NORM})"
KEYS = {
    "resnet": rf"conv1\.weight|bn1\.{NORM}|layer[123]\.\d+\.{BASIC}|fc\.(weight|bias)",
    "ResNet50": rf"conv1\.weight|bn1\.{NORM}|layer[1-4]\.\d\.{DEEP}|linear\.(weight|bias)",
    "wrn": rf"conv1\.weight|block[123]\.layer\.\d\.{WIDE}|bn1\.{NORM}|fc\.(weight|bias)",
    "vgg": rf"block[0-4]\.(0|3|6|9)\.(weight|bias)|block[0-4]\.(1|4|7|10)\.{NORM}"
    r"|classifier\.(weight|bias)",
    "MobileNetV2": rf"conv[12]\.(0\.weight|1\.{NORM})|blocks\.[0-6]\.\d\.conv\.{INVERTED}"
    r"|classifier\.0\.(weight|bias)",
    "Shuffle": rf"conv[12]\.weight|bn[12]\.{NORM}|layer[123]\.\d\.{UNIT}|linear\.(weight|bias)",
}


def on_meta(name, num_classes=100):
    """A network of shapes alone: nothing is allocated or computed."""
    with torch.device("meta"):
        return MODELS.get(name)(num_classes).eval()


def settled(name, seed=0):
    """A network in eval mode whose normalization layers hold arbitrary statistics."""
    torch.manual_seed(seed)
    network = MODELS.get(name)(7)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.2, 0.2)
    return network.eval()


def parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_size_is_the_published_one(name):
    network = on_meta(name)
    with FlopCounterMode(display=False) as counter:
        logits = network(torch.empty(1, 3, 32, 32, device="meta"))
    multiply_adds = counter.get_total_flops() // 2
    assert logits.shape == (1, 100)
    assert (
        parameters(network),
        multiply_adds,
        len(network.state_dict()),
        parameters(on_meta(name, 10)),
    ) == PUBLISHED[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_fvcore_counts_the_same_multiply_adds(name):
    analysis = FlopCountAnalysis(MODELS.get(name)().eval(), torch.zeros(1, 3, 32, 32))
    by_operator = analysis.unsupported_ops_warnings(False).by_operator()
    assert by_operator["conv"] + by_operator["linear"] == PUBLISHED[name][1]


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_keys_are_those_of_published_files(name):
    pattern = next(KEYS[family] for family in KEYS if name.startswith(family))
    keys = on_meta(name).state_dict()
    assert [key for key in keys if not re.fullmatch(pattern, key)] == []


def test_some_keys_and_shapes_of_published_files():
    shapes = {
        ("resnet8x4", "layer1.0.downsample.0.weight"): (64, 32, 1, 1),
        ("resnet110", "layer3.17.conv2.weight"): (64, 64, 3, 3),
        ("wrn_40_2", "block2.layer.0.convShortcut.weight"): (64, 32, 1, 1),
        ("wrn_40_2", "bn1.running_mean"): (128,),
        ("vgg13", "block4.3.weight"): (512, 512, 3, 3),
        ("vgg19", "block2.9.bias"): (256,),
        ("MobileNetV2", "blocks.0.0.conv.3.weight"): (16, 1, 3, 3),
        ("MobileNetV2", "blocks.6.0.conv.6.weight"): (160, 480, 1, 1),
        ("MobileNetV2", "classifier.0.weight"): (100, 1280),
        ("ShuffleV1", "layer1.0.conv3.weight"): (216, 18, 1, 1),
        ("ShuffleV1", "layer2.7.conv1.weight"): (120, 160, 1, 1),
        ("ShuffleV2", "layer1.0.conv5.weight"): (58, 58, 1, 1),
        ("ShuffleV2", "layer2.7.conv2.weight"): (116, 1, 3, 3),
        ("ShuffleV2", "conv2.weight"): (1024, 464, 1, 1),
        ("ResNet50", "layer4.0.shortcut.0.weight"): (2048, 1024, 1, 1),
        ("ResNet50", "layer2.0.conv2.weight"): (128, 128, 3, 3),
    }
    for (name, key), shape in shapes.items():
        assert tuple(on_meta(name).state_dict()[key].shape) == shape, (name, key)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_name_is_a_function_with_100_classes_by_default(name):
    target = MODELS.get(name)
    assert target.__name__ == name == COMPONENTS[name].bound.__name__
    assert [(p.name, p.default) for p in inspect.signature(target).parameters.values()] == [
        ("num_classes", 100)
    ]


@pytest.mark.parametrize("name", ["resnet20", "wrn_16_2", "vgg8", "MobileNetV2", "ShuffleV1"])
def test_no_classes_are_refused(name):
    with pytest.raises(ConfigError, match=r"num_classes = 0: expected at least 1"):
        MODELS.get(name)(num_classes=0)


@pytest.mark.parametrize("name", FAMILIES)
def test_normalization_folds_into_the_traced_convolutions(name):
    network = settled(name)
    images = torch.randn(2, 3, 32, 32)
    folded = fuse(fx.symbolic_trace(network))
    counts = collections.Counter(type(module) for module in folded.modules())
    # Pre-activation keeps the norms that follow a sum. In wrn_16_1 the stem's also stays, since the
    # first block adds the raw stem; in wrn_16_2 it projects the activated one, and the norm folds.
    assert counts[nn.BatchNorm2d] == {"wrn_16_1": 7, "wrn_16_2": 6}.get(name, 0)
    torch.testing.assert_close(folded(images), network(images), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", FAMILIES)
def test_channels_last_gives_the_same_logits_and_gradients(name):
    network = settled(name)
    images = torch.randn(2, 3, 32, 32)
    other = copy.deepcopy(network).to(memory_format=torch.channels_last)
    logits, others = network(images), other(images.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(others, logits, rtol=1e-3, atol=1e-4)
    logits.square().sum().backward()
    others.square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    first, first_other = next(network.parameters()), next(other.parameters())
    torch.testing.assert_close(first_other.grad, first.grad, rtol=1e-2, atol=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_one_graph_is_compiled_without_breaks(name):
    network = settled(name)
    images = torch.randn(2, 3, 32, 32)
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(images), network(images))
    torch.compiler.reset()


@pytest.mark.parametrize("name", ["resnet8", "wrn_16_2", "vgg8", "MobileNetV2"])
def test_convolutions_start_at_he_normal(name):
    torch.manual_seed(1)
    for module in MODELS.get(name)().modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 10_000:
            fan_out = module.out_channels * module.kernel_size[0] * module.kernel_size[1]
            assert module.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.05)
            assert module.bias is None or not module.bias.any()


@pytest.mark.parametrize(
    ("name", "layer", "std", "has_bias"),
    [
        ("resnet8", "fc", (3 * 64) ** -0.5, True),  # uniform in ±1/sqrt(features)
        ("wrn_16_1", "fc", (3 * 64) ** -0.5, False),
        ("vgg8", "classifier", 0.01, False),
        ("MobileNetV2", "classifier.0", 0.01, False),
        ("ShuffleV2", "linear", (3 * 1024) ** -0.5, True),
    ],
)
def test_the_linear_layer_starts_as_published(name, layer, std, has_bias):
    linear = MODELS.get(name)().get_submodule(layer)
    assert linear.weight.std().item() == pytest.approx(std, rel=0.05)
    assert bool(linear.bias.any()) == has_bias
