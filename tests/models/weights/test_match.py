"""Every published container of weights loads; weights that do not fit get an error each."""

import argparse
import hashlib

import numpy as np
import pytest
import torch
from torch import nn

from ctkd.models.weights.match import fingerprint, load_weights
from ctkd.registry import MODELS


def prefixed(state, prefix):
    return {prefix + key: tensor for key, tensor in state.items()}


def loads(payload, path, expected, name="resnet8"):
    """Saves `payload`, loads it into another network, and compares that with `expected`."""
    torch.save(payload, path)
    other = MODELS.get(name)(10)
    info = load_weights(other, path)
    state = other.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[key], expected[key]) for key in expected)
    assert info.source == str(path)
    assert info.fingerprint == fingerprint(expected)
    return info.container


# Containers


def test_a_bare_state_dict(state, path):
    assert loads(state, path, state) == "plain state dict"


@pytest.mark.parametrize("name", ["model", "state_dict", "student", "net", "anything"])
def test_under_a_name_beside_other_things(name, state, path, network):
    optimizer = torch.optim.SGD(network().parameters(), lr=0.1, momentum=0.9).state_dict()
    payload = {"epoch": 240, "accuracy": torch.tensor(69.1), name: state, "optimizer": optimizer}
    assert loads(payload, path, state) == name


def test_the_options_that_repdistiller_stores(state, path):
    options = argparse.Namespace(model="resnet8", lr_decay_epochs=[150, 180, 210], cosine=False)
    assert loads({"opt": options, "model": state}, path, state) == "model"


@pytest.mark.parametrize(
    "prefix", ["module.", "module.student.", "module.teacher.", "student.", "module._orig_mod."]
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_keys_that_name_the_modules_around(prefix, wrapped, state, path):
    inner = prefixed(state, prefix)
    container = loads({"model": inner} if wrapped else inner, path, state)
    assert container == f"{'model' if wrapped else 'plain state dict'}: {prefix}"


def test_other_parts_of_a_distiller_are_left_alone(state, path, network):
    teacher = network("resnet14", seed=3).state_dict()
    payload = {
        **prefixed(teacher, "module.teacher."),
        **prefixed(state, "module.student."),
        "module.policy.raw": torch.ones(1),
    }
    assert loads({"model": payload}, path, state) == "model: module.student."
    assert loads({"model": payload}, path, teacher, "resnet14") == "model: module.teacher."


def test_a_network_whose_own_keys_begin_like_a_wrapper(path, network):
    outer = nn.Sequential()
    outer.add_module("model", network())
    torch.save(outer.state_dict(), path)
    assert load_weights(outer, path).container == "plain state dict"


def test_files_from_before_batches_were_counted(state, path):
    old = {key: value for key, value in state.items() if "num_batches" not in key}
    assert loads({"model": prefixed(old, "module.")}, path, state) == "model: module."


def test_the_format_from_before_archives(state, path, network):
    torch.save({"model": state}, path, _use_new_zipfile_serialization=False)
    other = network(seed=2)
    assert load_weights(other, path).fingerprint == fingerprint(state)


def test_half_precision_files_leave_the_network_its_dtype(path, network):
    model = network()
    torch.save(
        {key: v.half() if v.is_floating_point() else v for key, v in model.state_dict().items()},
        path,
    )
    load_weights(model, path)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


# Fingerprints


def test_a_fingerprint_is_that_of_the_tensors_alone(state, tmp_path, network):
    torch.save(state, tmp_path / "a.pt")
    repacked = dict(reversed(prefixed(state, "module.").items()))
    torch.save({"epoch": 3, "model": repacked}, tmp_path / "b.pt")
    infos = [load_weights(network(seed=2), tmp_path / name) for name in ("a.pt", "b.pt")]
    assert infos[0].fingerprint == infos[1].fingerprint == fingerprint(state)
    assert len(infos[0].fingerprint) == 16


def test_a_fingerprint_changes_with_every_part():
    plain = {"a": torch.zeros(2, 3), "b": torch.zeros(())}
    variants = [
        plain,
        {**plain, "b": torch.tensor(-0.0)},
        {**plain, "b": torch.zeros((), dtype=torch.int32)},
        {**plain, "a": torch.zeros(3, 2)},
        {"a": plain["a"], "c": plain["b"]},
        {"a": plain["a"]},
        {**plain, "a": torch.zeros(2, 3, dtype=torch.bfloat16)},
    ]
    assert len({fingerprint(variant) for variant in variants}) == len(variants)
    assert fingerprint({"a": torch.arange(6.0).view(2, 3)}) == fingerprint(
        {"a": torch.arange(6.0).view(2, 3).T.contiguous().T}
    )


def test_a_fingerprint_is_the_documented_sha256():
    tensor = torch.tensor([1.0, 2.0])
    text = b"w (2,) torch.float32\n" + np.array([1, 2], "<f4").tobytes()
    assert fingerprint({"w": tensor}) == hashlib.sha256(text).hexdigest()[:16]


# Weights of another network


def test_another_depth_names_the_keys_and_the_network_that_fits(path, network, refusal):
    torch.save({"model": network("resnet20", 100).state_dict()}, path)
    message = refusal(path, network("resnet32", 100))
    assert f"{path}: the weights (model) do not fit the network" in message
    assert "60 missing (layer1.3.conv1.weight, " in message
    assert "unexpected" not in message
    assert "They fit resnet20 with 100 classes" in message


def test_the_suggestion_sees_through_prefixes_and_numbers_of_classes(path, network, refusal):
    torch.save({"model": prefixed(network("wrn_16_2", 17).state_dict(), "module.")}, path)
    message = refusal(path, network("vgg8"))
    assert "They fit wrn_16_2 with 17 classes" in message
    assert "missing (block0.0.weight, block0.0.bias, block0.1.weight, …)" in message
    assert "unexpected (conv1.weight, " in message


def test_other_widths_are_shapes_that_differ(path, network, refusal):
    torch.save(network("resnet8x4", 10).state_dict(), path)
    message = refusal(path)
    assert "of another shape (conv1.weight (32, 3, 3, 3), here (16, 3, 3, 3), " in message
    assert "They fit resnet8x4 with 10 classes" in message


def test_a_network_nearly_like_a_registered_one(state, path, refusal):
    torch.save({key: value for key, value in state.items() if key != "bn1.bias"}, path)
    message = refusal(path)
    assert "1 missing (bn1.bias)" in message
    assert "Nearest is resnet8 with 10 classes, 98% of whose keys agree" in message


def test_a_network_like_none(path, refusal):
    torch.save({"a.weight": torch.ones(3, 3), "a.bias": torch.ones(3)}, path)
    assert "None of the registered networks" in refusal(path)
    torch.save({"a": torch.ones(3)}, path)
    assert "None of the registered networks" in refusal(path)


@pytest.mark.parametrize("name", ["resnet8", "MobileNetV2"])
def test_another_number_of_classes_in_plain_words(name, path, network, refusal):
    torch.save(network(name, 100).state_dict(), path)
    message = refusal(path, network(name, 10))
    assert "are for 100 classes, the network has 10" in message
    assert "num_classes = 100" in message


# The trained networks


@pytest.mark.parametrize("depth", [20, 32, 56])
def test_the_trained_networks_load_unchanged(depth, teachers):
    path = teachers / f"resnet{depth}_cifar100.pt"
    model = MODELS.get(f"resnet{depth}")()
    info = load_weights(model, path)
    held = torch.load(path, weights_only=True)
    assert info.container == "plain state dict"
    assert all(torch.equal(tensor, held[key]) for key, tensor in model.state_dict().items())


def test_a_trained_network_in_another_depth(teachers, refusal):
    message = refusal(teachers / "resnet20_cifar100.pt", MODELS.get("resnet32")())
    assert "They fit resnet20 with 100 classes" in message


@pytest.mark.slow
@pytest.mark.parametrize(("depth", "top1"), [(20, 68.83), (32, 70.16), (56, 72.63)])
def test_the_trained_networks_score_what_is_claimed(depth, top1, teachers, cifar100_test):
    model = MODELS.get(f"resnet{depth}")().eval()
    load_weights(model, teachers / f"resnet{depth}_cifar100.pt")
    images, labels = cifar100_test
    with torch.inference_mode():
        predicted = torch.cat([model(batch).argmax(1) for batch in images.split(250)])
    measured = 100 * (predicted == labels).double().mean().item()
    print(f"resnet{depth}: {measured:.2f}")
    assert measured == pytest.approx(top1, abs=0.011)  # one image, for another order of sums
