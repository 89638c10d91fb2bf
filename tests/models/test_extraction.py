"""Features of networks by module path: the built-in names, mistakes, and compiled networks."""

import pytest
import torch
from torch import nn

import ctkd
from ctkd.builtin import SMALL_NETWORKS
from ctkd.errors import ConfigError
from ctkd.models.extraction import Extractor
from ctkd.registry import MODELS

# Of each network: channels and size of stem and stages, and the number of pooled features.
RESNET = [(16, 32), (16, 32), (32, 16), (64, 8), 64]
TIMES_4 = [(32, 32), (64, 32), (128, 16), (256, 8), 256]
VGG = [(64, 32), (128, 16), (256, 8), (512, 4), (512, 4), 512]
SHAPES = {
    **{f"resnet{depth}": RESNET for depth in (8, 14, 20, 32, 44, 56, 110)},
    **dict.fromkeys(("resnet8x4", "resnet32x4"), TIMES_4),
    **{f"vgg{depth}": VGG for depth in (8, 11, 13, 16, 19)},
    **{f"wrn_{depth}_1": [(16, 32), (16, 32), (32, 16), (64, 8), 64] for depth in (16, 40)},
    **{f"wrn_{depth}_2": [(16, 32), (32, 32), (64, 16), (128, 8), 128] for depth in (16, 40)},
    "MobileNetV2": [(16, 16), (12, 16), (16, 8), (48, 4), (160, 2), 1280],
    "ShuffleV1": [(24, 32), (240, 16), (480, 8), (960, 4), 960],
    "ShuffleV2": [(24, 32), (116, 16), (232, 8), (464, 4), 1024],
    "ResNet50": [(64, 32), (256, 32), (512, 16), (1024, 8), (2048, 4), 2048],
}


def on_meta(name, size, channels=3):
    with torch.device("meta"):
        return MODELS.get(name)(), torch.zeros(2, channels, size, size)


@pytest.mark.parametrize("name", [n for n in SMALL_NETWORKS if not n.startswith("digits")])
def test_the_names_of_the_cifar_networks(name):
    network, images = on_meta(name, 32)
    shapes = ctkd.features(network, ["stem", "stages", "pooled", "last"]).shapes(images)
    *maps, pooled = SHAPES[name]
    names = ["stem", *(f"stage{k}" for k in range(1, len(maps)))]
    wanted = {n: (2, c, size, size) for n, (c, size) in zip(names, maps, strict=True)}
    wanted |= {"pooled": (2, pooled), "last": wanted[names[-1]]}
    assert {n: tuple(shape) for n, shape in shapes.items()} == wanted


@pytest.mark.parametrize(
    ("name", "paths"),
    [
        ("resnet18", ["layer1", "layer2", "layer3", "layer4", "fc:input"]),
        ("MobileNetV1", ["model.3", "model.5", "model.11", "model.13", "fc:input"]),
        ("shufflenet_v2_x0_5", ["maxpool", "stage2", "stage3", "conv5", "fc:input"]),
        ("densenet121", [*(f"features.denseblock{k}" for k in (1, 2, 3, 4)), "classifier:input"]),
    ],
)
def test_the_names_of_other_networks_follow_the_size_of_their_maps(name, paths):
    network, images = on_meta(name, 224)
    assert list(ctkd.features(network, ["stages", "pooled"], images).paths.values()) == paths
    sizes = [s[-1] for n, s in ctkd.features(network, ["stages"], images).shapes(images).items()]
    assert sizes == [56, 28, 14, 7]


def test_features_are_what_the_modules_return_and_receive():
    torch.manual_seed(0)
    network, images = MODELS.get("resnet8")(), torch.randn(4, 3, 32, 32)
    network = network.to(memory_format=torch.channels_last)
    extract = ctkd.features(network, {"map": "layer3", "pooled": "fc:input", "logits": "fc"})
    logits, found = extract(images)
    assert torch.equal(found["map"].mean((2, 3)), found["pooled"])
    assert torch.equal(found["logits"], logits)
    found["pooled"].sum().backward()
    assert network.conv1.weight.grad.any()
    extract.close()
    with pytest.raises(KeyError):
        extract(images)


def test_a_network_with_features_compiles_to_one_graph():
    torch.manual_seed(0)
    network, images = MODELS.get("resnet8")(), torch.randn(4, 3, 32, 32)
    plain = Extractor(network, {"map": "layer2", "pooled": "fc:input"})
    compiled = torch.compile(plain, backend="aot_eager", fullgraph=True, dynamic=False)
    logits, found = compiled(images)
    wanted, features = plain(images)
    torch.testing.assert_close((logits, found), (wanted, features))
    assert all(feature.requires_grad for feature in found.values())


class InPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.relu, self.unused = nn.Conv2d(3, 4, 1), nn.ReLU(inplace=True), nn.Identity()
        self.pair = nn.AdaptiveMaxPool2d(1, return_indices=True)
        self.head = nn.Linear(4, 2)

    def forward(self, images):
        return self.head(self.pair(self.relu(self.conv(images)))[0].flatten(1))


def test_what_is_received_in_place_is_kept_as_it_was():
    network, images = InPlace(), torch.randn(2, 3, 4, 4)
    _, found = ctkd.features(network, {"before": "relu:input", "after": "relu"}, images)(images)
    assert (found["before"] < 0).any()
    assert torch.equal(found["before"].relu(), found["after"])


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        ("conv", "overwrites in place"),
        ("unused", "is not called"),
        ("pair", "gives a tuple, not a tensor"),
        ("heed", "no module 'heed'; did you mean head?"),
        ("x.y", "no module 'x.y'"),
    ],
)
def test_paths_that_give_no_feature(path, fault):
    with pytest.raises(ConfigError, match=fault.replace("?", r"\?")):
        ctkd.features(InPlace(), {"map": path}, torch.zeros(2, 3, 4, 4))


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(
        ConfigError, match="no feature named 'stage4'.*stem, stage1, stage2, stage3"
    ):
        ctkd.features(MODELS.get("resnet8")(), ["stage4"])
