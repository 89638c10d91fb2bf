"""Parts of a checkpoint: wrappers inside the network, and a file of which several parts fit."""

import pytest
import torch

from ctkd.models.weights.match import fingerprint, load_weights


def prefixed(state, prefix):
    return {prefix + key: tensor for key, tensor in state.items()}


@pytest.fixture
def other(network):
    """Weights of the same network from another seed."""
    return network(seed=3).state_dict()


@pytest.fixture
def loaded(network, path):
    """Saves a payload, loads `FILE` + `names`, and gives the fingerprint and the container."""

    def load(payload, names=""):
        torch.save(payload, path)
        info = load_weights(network(seed=2), f"{path}{names}")
        return info.fingerprint, info.container

    return load


def wrapped(state, name, wrapper="module"):
    """As if a part of the network had been wrapped: layer1.0.… -> layer1.module.0.…"""
    return {k.replace(f"{name}.", f"{name}.{wrapper}.", 1): v for k, v in state.items()}


@pytest.mark.parametrize(
    "wrapper", ["module", "_orig_mod", "_fsdp_wrapped_module", "module._checkpoint_wrapped_module"]
)
def test_a_wrapper_inside_the_network_is_taken_out(wrapper, state, loaded):
    inner = wrapped(state, "layer1", wrapper)
    assert inner.keys() != state.keys()
    first = f"layer1.{wrapper.split('.')[0]}."
    assert loaded(inner) == (fingerprint(state), f"plain state dict: {first}")
    outer = {"model": prefixed(inner, "module.")}
    assert loaded(outer) == (fingerprint(state), f"model: module., {first}")


def test_a_vgg_whose_features_were_data_parallel(path, network):
    """torchvision's training script wraps `features` alone."""
    model = network("vgg8")
    torch.save(wrapped(model.state_dict(), "block0"), path)
    info = load_weights(network("vgg8", seed=2), path)
    assert info.fingerprint == fingerprint(model.state_dict())


def test_two_keys_that_become_one_are_left_alone(state, path, refusal):
    both = wrapped(state, "layer1") | state
    torch.save(both, path)
    assert "unexpected (layer1.module." in refusal(path)


PAIRS = (
    (lambda s, t: {"student": s, "teacher": t}, "student", "teacher"),
    (
        lambda s, t: {"model": prefixed(s, "module.student.") | prefixed(t, "module.teacher.")},
        "student",
        "teacher",
    ),
    (lambda s, t: {"model": s, "model_ema": t}, "model", "model_ema"),
    (lambda s, t: {**s, "ema": t}, "bare", "ema"),
    (lambda s, t: prefixed(s, "student.") | {"average": t}, "student", "average"),
)


@pytest.mark.parametrize(("make", "first", "second"), PAIRS)
def test_two_parts_that_fit_are_asked_about(
    make, first, second, state, other, loaded, refusal, path
):
    torch.save(make(state, other), path)
    assert "contains 2 different sets of weights that fit the network" in refusal(path)
    with_setting = refusal(path, setting="teacher_weights").splitlines()[1:]
    assert with_setting == [
        f"  teacher_weights = '{path}::{first}'",
        f"  teacher_weights = '{path}::{second}'",
    ]
    assert loaded(make(state, other), f"::{first}")[0] == fingerprint(state)
    assert loaded(make(state, other), f"::{second}")[0] == fingerprint(other)


def test_the_question_names_a_flag_as_a_flag(state, other, path, refusal):
    torch.save({"student": state, "teacher": other}, path)
    assert f"\n  --checkpoint='{path}::teacher'" in refusal(path, setting="--checkpoint")
    assert f"\n  '{path}::teacher'" in refusal(path)


def test_names_go_from_the_outside_in(state, other, loaded, path, refusal):
    inner = prefixed(state, "student.") | prefixed(other, "teacher.")
    payload = {"model": inner, "old": inner | {"spare": torch.ones(1)}}
    assert loaded(payload, "::model::teacher")[0] == fingerprint(other)
    torch.save({"model": inner}, path)
    assert f"'{path}::model::teacher'" in refusal(f"{path}::model")


def test_the_same_tensors_under_two_names_are_no_question(state, loaded):
    assert loaded({"model": state, "student": dict(state)}) == (fingerprint(state), "model")


def test_only_the_part_that_fits_needs_no_name(state, loaded, network):
    larger = network("resnet14", seed=3).state_dict()
    assert loaded({"student": state, "teacher": larger})[0] == fingerprint(state)


def test_a_part_that_is_not_there_or_does_not_fit(state, network, path, refusal):
    torch.save({"student": state, "teacher": network("resnet14").state_dict()}, path)
    message = refusal(f"{path}::techer")  # codespell:ignore
    assert f"{path} has no part 'techer'; did you mean teacher?" in message
    assert message.endswith("Its parts: student, teacher")
    assert "They fit resnet14 with 10 classes" in refusal(f"{path}::teacher")
    assert "a name is missing after '::'" in refusal(f"{path}::")


def test_a_path_with_two_colons_is_a_path(state, tmp_path, network):
    path = tmp_path / "run::teacher"
    torch.save(state, path)
    assert load_weights(network(seed=2), path).source == str(path)


# Types of numbers


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_message_says_in_which_numbers_a_file_stores(dtype, path, state, network):
    torch.save({k: v.to(dtype) if v.is_floating_point() else v for k, v in state.items()}, path)
    info = load_weights(network(seed=2), path)
    name = str(dtype).removeprefix("torch.")
    assert str(info) == f"{path} (plain state dict, stored as {name})"
    torch.save(state, path)
    assert str(load_weights(network(seed=2), path)) == f"{path} (plain state dict)"


def test_a_quantized_file_is_refused(path, state, refusal):
    """Copied as they are, the integers would be weights up to 127."""
    torch.save(state | {"fc.weight": (100 * state["fc.weight"]).to(torch.int8)}, path)
    message = refusal(path)
    assert "fc.weight is int8" in message
    assert "give the weights from before the quantization" in message
