"""torchvision's networks by name, timm's where it is installed, MobileNetV1."""

import importlib.util
import sys
import types

import pytest
import torch
import torchvision
from torch import nn

from ctkd.builtin import SMALL_NETWORKS, TORCHVISION_NETWORKS
from ctkd.errors import ConfigError, DataError
from ctkd.models import imagenet_networks as imagenet
from ctkd.models.weights.match import load_weights
from ctkd.registry import COMPONENTS, MODELS, import_mentioned

TAKEN = {"vgg11", "vgg13", "vgg16", "vgg19"}


def test_the_table_is_torchvisions_list_of_classifiers():
    offered = set(torchvision.models.list_models(module=torchvision.models))
    # of another version of torchvision, which may have more
    assert set(TORCHVISION_NETWORKS) <= offered
    assert not set(TORCHVISION_NETWORKS) & set(SMALL_NETWORKS)
    assert offered & set(SMALL_NETWORKS) >= TAKEN


@pytest.mark.parametrize(
    "name",
    "resnet18 mobilenet_v2 shufflenet_v2_x0_5 densenet121 googlenet squeezenet1_1 regnet_x_400mf "
    "efficientnet_b0 swin_t vit_b_32 torchvision_vgg11 mnasnet0_5 inception_v3 MobileNetV1".split(),
)
def test_networks_build_without_memory_for_any_number_of_classes(name):
    with torch.device("meta"):
        network = MODELS.get(name)(num_classes=7)
    assert all(tensor.is_meta for tensor in network.parameters())


def test_a_network_is_torchvisions_own():
    ours = MODELS.get("resnet18")(num_classes=10)
    theirs = torchvision.models.resnet18(num_classes=10)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, 64, 64)
    assert torch.equal(ours.eval()(images), theirs.eval()(images))
    assert MODELS.get("vgg11")(100).__class__.__module__ == "ctkd.models.vgg"
    assert "torchvision" in MODELS.get("torchvision_vgg11")(2).__class__.__module__


def test_googlenet_gives_logits_alone_in_training_too():
    network = MODELS.get("googlenet")(num_classes=4).train()
    assert network(torch.randn(2, 3, 64, 64)).shape == (2, 4)


def test_mobilenet_v1_is_the_published_one():
    """4,231,976 parameters and 568.7 million MACs (the paper's table: 4.2 and 569 million)."""
    network = MODELS.get("MobileNetV1")(num_classes=1000)
    assert sum(p.numel() for p in network.parameters()) == 4_231_976
    macs = []

    def count(module, inputs, output):
        weight = module.weight
        places = output.shape[-1] * output.shape[-2] if isinstance(module, nn.Conv2d) else 1
        macs.append(weight.numel() * places)

    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    network.eval()(torch.randn(1, 3, 224, 224))
    assert sum(macs) == 568_740_352
    keys = list(network.state_dict())
    assert {"model.0.0.weight", "model.1.0.weight", "model.13.4.running_var", "fc.bias"} <= set(
        keys
    )
    assert len([k for k in keys if k.endswith("running_mean")]) == 27
    assert network(torch.randn(2, 3, 64, 64)).shape == (2, 1000)


def test_names_that_no_network_has():
    with pytest.raises(
        ConfigError, match="torchvision has no network named 'resnet19'; did you mean"
    ):
        MODELS.get("torchvision_resnet19")(10)
    with pytest.raises(ConfigError, match="no network is named 'resnet51'; did you mean"):
        MODELS.get("resnet51")
    assert "torchvision_" not in MODELS


def test_a_family_is_asked_only_for_what_is_referred_to():
    import_mentioned("data_dir = '/data/timm_files'  student = @timm_some_network")
    assert "timm_files" not in COMPONENTS
    assert "timm_some_network" in COMPONENTS


def test_timm_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ConfigError, match="timm_resnet10t needs timm: pip install timm"):
        MODELS.get("timm_resnet10t")(num_classes=10)


def test_timm_is_asked_for_the_network_without_weights(monkeypatch):
    asked = []

    def create(name, **options):
        asked.append((name, options))
        return nn.Linear(1, options["num_classes"])

    stand_in = types.SimpleNamespace(
        is_model=lambda name: name == "tiny", list_models=lambda: ["tiny"], create_model=create
    )
    monkeypatch.setitem(sys.modules, "timm", stand_in)
    assert MODELS.get("timm_tiny")(num_classes=6).out_features == 6
    assert asked == [("tiny", {"pretrained": False, "num_classes": 6})]
    with pytest.raises(ConfigError, match="timm has no network named 'tony'; did you mean tiny"):
        MODELS.get("timm_tony")(10)


@pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm is not installed")
def test_a_network_of_timms():
    assert MODELS.get("timm_resnet10t")(num_classes=5).eval()(torch.randn(1, 3, 64, 64)).shape == (
        1,
        5,
    )


def test_published_weights_by_name(monkeypatch, tmp_path):
    """With the file where torch.hub keeps it, nothing is downloaded."""
    network = torchvision.models.resnet18()
    monkeypatch.setattr(
        torchvision.models.ResNet18_Weights,
        "get_state_dict",
        lambda self, **options: network.state_dict(),
    )
    ours = MODELS.get("resnet18")(num_classes=1000)
    info = load_weights(ours, "IMAGENET1K_V1", network="resnet18")
    assert info.source == "IMAGENET1K_V1"
    assert torch.equal(ours.fc.weight, network.fc.weight)
    few = MODELS.get("resnet18")(num_classes=10)
    with pytest.raises(DataError, match="are for 1000 classes, the network has 10"):
        load_weights(few, "DEFAULT", network="resnet18")


def test_weights_that_cannot_be_had(monkeypatch):
    network = MODELS.get("resnet18")(num_classes=1000)
    with pytest.raises(
        DataError, match=r"resnet18 has no weights 'IMAGENET1K_V9': expected IMAGENET1K_V1"
    ):
        load_weights(network, "IMAGENET1K_V9", network="resnet18")
    with pytest.raises(DataError, match="MobileNetV1 is not one of them"):
        load_weights(network, "IMAGENET1K_V1", network="MobileNetV1")

    def refuse(*arguments, **options):
        raise OSError("no way")

    monkeypatch.setattr(imagenet.torch.hub, "load_state_dict_from_url", refuse)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
    with pytest.raises(
        DataError, match=r"download.pytorch.org/.*resnet18.*checkpoints.*put it there"
    ):
        load_weights(network, "IMAGENET1K_V1", network="resnet18")


def test_the_further_classifiers_in_a_file_are_left_aside(tmp_path):
    whole = torchvision.models.googlenet(num_classes=4, aux_logits=True, init_weights=False)
    torch.save(whole.state_dict(), tmp_path / "g.pt")
    ours = MODELS.get("googlenet")(num_classes=4)
    load_weights(ours, tmp_path / "g.pt")
    assert torch.equal(ours.fc.weight, whole.fc.weight)
