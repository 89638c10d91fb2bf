"""Normalizations folded into convolutions: the same logits, or the network as it was."""

import contextlib

import pytest
import torch
from torch import nn

import ctkd
from ctkd.engine.teacher import fold_batch_norm as folding
from ctkd.engine.teacher.fold_batch_norm import fold
from ctkd.errors import ConfigError
from ctkd.registry import MODELS


def trained(name):
    """A network in eval mode whose normalizations are not the identity."""
    torch.manual_seed(0)
    network = MODELS.get(name)()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.3)
            module.running_var.uniform_(0.3, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
    return network.eval()


def norms(network):
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


class Shared(nn.Module):
    """A convolution that two normalizations follow."""

    def __init__(self):
        super().__init__()
        self.conv, self.one, self.two = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4)

    def forward(self, x):
        return self.one(self.conv(x)) * self.two(self.conv(x)).sum((1, 2, 3), keepdim=True)


class Undecided(nn.Module):
    """It looks at its input's values, so that its forward cannot be traced."""

    def __init__(self, num_classes=10):
        super().__init__()
        self.body = MODELS.get("digits_teacher")(num_classes)

    def forward(self, x):
        return self.body(x) if x.abs().sum() >= 0 else x


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("resnet8", 0),
        ("resnet8x4", 0),
        ("vgg8", 0),
        ("MobileNetV2", 0),
        ("ShuffleV1", 0),
        ("ShuffleV2", 0),
        ("wrn_16_1", 7),  # those before an activation have no convolution of their own
        ("digits_teacher", 0),
    ],
)
def test_logits_stay_and_normalizations_go(name, left):
    network = trained(name)
    shape = (1, 8, 8) if name == "digits_teacher" else (3, 32, 32)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    folded, _, reason = fold(network, torch.randn(2, *shape))
    assert reason is None
    assert norms(folded) == left < norms(network)
    images = torch.randn(4, *shape)
    with torch.no_grad():
        expected = network(images)
        error = (folded(images) - expected).abs().max() / expected.abs().max()
    assert error < 1e-4
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert next(folded.parameters()).dtype == torch.float32


@pytest.mark.parametrize("name", ["resnet8", "vgg8", "MobileNetV2", "ShuffleV2", "wrn_16_1"])
def test_the_folded_network_gives_the_features_of_the_network(name):
    network, images = trained(name), torch.randn(4, 3, 32, 32)
    plain = ctkd.features(network, ["stem", "stages", "pooled"])
    folded = fold(network, images, plain.paths)
    with torch.no_grad():
        _, wanted = plain(images)
        same, found = folded.with_features(images)
        assert torch.equal(same, folded.network(images))
    assert found.keys() == wanted.keys()
    for feature in wanted:
        error = (found[feature] - wanted[feature]).abs().max() / wanted[feature].abs().max()
        assert error < 1e-4, feature
    assert norms(folded.with_features) == norms(folded.network)


def test_a_convolution_whose_output_is_a_feature_is_not_folded():
    network = trained("resnet8")
    folded = fold(network, torch.randn(2, 3, 32, 32), {"raw": "layer1.0.conv2"})
    assert norms(folded.network) == 1
    assert folded.with_features(torch.randn(2, 3, 32, 32))[1]["raw"].shape == (2, 16, 32, 32)


def test_a_convolution_that_is_used_twice_is_left_alone():
    torch.manual_seed(0)
    network = Shared().eval()
    folded, _, reason = fold(network, torch.randn(2, 3, 8, 8))
    assert (reason, norms(folded)) == (None, 2)


def test_what_cannot_be_traced_stays_as_it_is():
    network = Undecided().eval()
    same, plain, reason = fold(
        network, torch.randn(2, 1, 8, 8), {"pooled": "body.classifier:input"}
    )
    assert same is network
    assert plain(torch.randn(2, 1, 8, 8))[1].keys() == {"pooled"}
    assert reason.startswith("it cannot be traced")


def test_a_network_that_insists_on_float32_stays_as_it_is():
    """Folding is done in float64, which a network may undo in its midst."""

    class Halfway(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.last = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2)

        def forward(self, x):
            return self.last(self.norm(self.conv(x)).mean((2, 3)).float())

    network = Halfway().eval()
    same, _, reason = fold(network, torch.randn(2, 3, 8, 8))
    assert same is network
    assert "must have the same dtype" in reason


def test_a_folding_that_changes_the_logits_is_not_taken(monkeypatch):
    wrong = folding.fuse_conv_bn_eval

    def off(conv, norm):
        fused = wrong(conv, norm)
        fused.bias.data += 1e-6
        return fused

    monkeypatch.setattr(folding, "fuse_conv_bn_eval", off)
    network = trained("resnet8")
    same, _, reason = fold(network, torch.randn(2, 3, 32, 32))
    assert same is network
    assert "differ by" in reason


def test_a_run_with_an_untraceable_teacher_says_so_and_trains(train, tmp_path):
    with contextlib.suppress(ConfigError):  # registered once a session
        MODELS.register("undecided_teacher")(Undecided)
    torch.save(Undecided().state_dict(), tmp_path / "teacher.pt")
    run = train(
        "kd",
        "teacher = @undecided_teacher",
        f"teacher_weights = {str(tmp_path / 'teacher.pt')!r}",
        "Teacher.min_accuracy = None",
    )
    assert "normalizations are not folded: it cannot be traced" in run.result.out
    assert run.summary["finished"]
