"""Every container of weights that is in the wild loads; every fault is named, with its remedy."""

import argparse
import hashlib
import http.server
import pickle
import threading
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from ctkd.errors import DataError
from ctkd.models import weight_files
from ctkd.models.weights import fingerprint, load_weights
from ctkd.registry import MODELS


class Run:
    """Something that a restricted reader must not rebuild."""


def network(name="resnet8", num_classes=10, seed=1):
    torch.manual_seed(seed)
    return MODELS.get(name)(num_classes)


def prefixed(state, prefix):
    return {prefix + key: tensor for key, tensor in state.items()}


def loads(payload, path, expected, name="resnet8"):
    """Saves `payload`, loads it into another network, and compares that with `expected`."""
    torch.save(payload, path)
    other = network(name, seed=2)
    info = load_weights(other, path)
    state = other.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[key], expected[key]) for key in expected)
    assert info.source == str(path)
    assert info.fingerprint == fingerprint(expected)
    return info.container


@pytest.fixture
def state():
    return network().state_dict()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.pth"


# Containers


def test_a_bare_state_dict(state, path):
    assert loads(state, path, state) == "bare"


@pytest.mark.parametrize("name", ["model", "state_dict", "student", "net", "anything"])
def test_under_a_name_beside_other_things(name, state, path):
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
    assert container == f"{'model' if wrapped else 'bare'}: {prefix}"


def test_other_parts_of_a_distiller_are_left_alone(state, path):
    teacher = network("resnet14", seed=3).state_dict()
    payload = {
        **prefixed(teacher, "module.teacher."),
        **prefixed(state, "module.student."),
        "module.policy.raw": torch.ones(1),
    }
    assert loads({"model": payload}, path, state) == "model: module.student."
    assert loads({"model": payload}, path, teacher, "resnet14") == "model: module.teacher."


def test_the_student_is_taken_where_the_teacher_fits_too(state, path):
    teacher = network(seed=3).state_dict()
    payload = prefixed(teacher, "teacher.") | prefixed(state, "student.")
    assert loads(payload, path, state) == "bare: student."
    assert loads({"teacher": teacher, "student": state}, path, state) == "student"


def test_a_network_whose_own_keys_begin_like_a_wrapper(path):
    outer = nn.Sequential()
    outer.add_module("model", network())
    torch.save(outer.state_dict(), path)
    assert load_weights(outer, path).container == "bare"


def test_files_from_before_batches_were_counted(state, path):
    old = {key: value for key, value in state.items() if "num_batches" not in key}
    assert loads({"model": prefixed(old, "module.")}, path, state) == "model: module."


def test_the_format_from_before_archives(state, path):
    torch.save({"model": state}, path, _use_new_zipfile_serialization=False)
    other = network(seed=2)
    assert load_weights(other, path).fingerprint == fingerprint(state)


def test_half_precision_files_leave_the_network_its_dtype(path):
    model = network()
    torch.save(
        {key: v.half() if v.is_floating_point() else v for key, v in model.state_dict().items()},
        path,
    )
    load_weights(model, path)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


# Fingerprints


def test_a_fingerprint_is_that_of_the_tensors_alone(state, tmp_path):
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


# Faults of the file


def refusal(source, model=None, sha256=None):
    """The message of the DataError; the network must be as it was."""
    model = model or network(seed=2)
    before = fingerprint(model.state_dict())
    with pytest.raises(DataError) as caught:
        load_weights(model, source, sha256)
    assert fingerprint(model.state_dict()) == before
    return str(caught.value)


def test_a_missing_file_or_a_folder(tmp_path):
    assert "none.pt does not exist" in refusal(tmp_path / "none.pt")
    assert "is a folder" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is cut short (0 bytes)"),
        (b"not at all a checkpoint", "is not a checkpoint"),
        (b"\x89PNG\r\n\x1a\n" + bytes(256), "is not a checkpoint"),
        (b"<!DOCTYPE html><title>404</title>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "is a Git LFS pointer"),
    ],
)
def test_a_file_that_is_no_checkpoint(content, message, path):
    path.write_bytes(content)
    assert message in refusal(path)
    assert str(path) in refusal(path)


def test_an_archive_of_something_else(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert "is not a checkpoint" in refusal(path)


@pytest.mark.parametrize("archive", [True, False])
@pytest.mark.parametrize("share", [0.3, 0.99])
def test_a_truncated_file(archive, share, state, path):
    torch.save(state, path, _use_new_zipfile_serialization=archive)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert "is cut short" in refusal(path)


def test_a_flipped_byte_is_never_loaded_silently(state, path):
    torch.save(state, path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    assert "damaged" in refusal(path)


@pytest.mark.parametrize("payload", [Run(), nn.Linear(2, 2), {"run": Run()}])
def test_what_needs_unsafe_unpickling(payload, path):
    torch.save(payload, path)
    message = refusal(path)
    assert "could run any code" in message
    assert "Run" in message or "torch.nn.modules.linear.Linear" in message
    assert "torch.save(model.state_dict(), path)" in message


def test_nothing_is_run_from_a_hostile_file(tmp_path, path):
    class Hostile:
        def __reduce__(self):
            return (open, (str(tmp_path / "touched"), "w"))

    path.write_bytes(pickle.dumps(Hostile(), protocol=2))
    assert "could run any code" in refusal(path)
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("payload", [3, [1, 2], {"epoch": 3}, {}])
def test_a_file_without_tensors(payload, path):
    torch.save(payload, path)
    assert "holds no tensors by name" in refusal(path)


# Weights of another network


def test_another_depth_names_the_keys_and_the_network_that_fits(path):
    torch.save({"model": network("resnet20", 100).state_dict()}, path)
    message = refusal(path, network("resnet32", 100))
    assert f"{path}: the weights (model) do not fit the network" in message
    assert "60 missing (layer1.3.conv1.weight, " in message
    assert "unexpected" not in message
    assert "They fit resnet20 with 100 classes" in message


def test_the_suggestion_sees_through_prefixes_and_numbers_of_classes(path):
    torch.save({"model": prefixed(network("wrn_16_2", 17).state_dict(), "module.")}, path)
    message = refusal(path, network("vgg8"))
    assert "They fit wrn_16_2 with 17 classes" in message
    assert "missing (block0.0.weight, block0.0.bias, block0.1.weight, …)" in message
    assert "unexpected (conv1.weight, " in message


def test_other_widths_are_shapes_that_differ(path):
    torch.save(network("resnet8x4", 10).state_dict(), path)
    message = refusal(path)
    assert "of another shape (conv1.weight (32, 3, 3, 3), here (16, 3, 3, 3), " in message
    assert "They fit resnet8x4 with 10 classes" in message


def test_a_network_nearly_like_a_registered_one(state, path):
    torch.save({key: value for key, value in state.items() if key != "bn1.bias"}, path)
    message = refusal(path)
    assert "1 missing (bn1.bias)" in message
    assert "Nearest is resnet8 with 10 classes, 98% of whose keys agree" in message


def test_a_network_like_none(path):
    torch.save({"a.weight": torch.ones(3, 3), "a.bias": torch.ones(3)}, path)
    assert "None of the registered networks" in refusal(path)
    torch.save({"a": torch.ones(3)}, path)
    assert "None of the registered networks" in refusal(path)


@pytest.mark.parametrize("name", ["resnet8", "MobileNetV2"])
def test_another_number_of_classes_in_plain_words(name, path):
    torch.save(network(name, 100).state_dict(), path)
    message = refusal(path, network(name, 10))
    assert "are for 100 classes, the network has 10" in message
    assert "num_classes = 100" in message


# Checksums and URLs


def test_a_checksum_is_compared(state, path):
    torch.save(state, path)
    right = hashlib.sha256(path.read_bytes()).hexdigest()
    load_weights(network(seed=2), path, sha256=right.upper())
    load_weights(network(seed=2), f"{path}#sha256={right}")
    message = refusal(path, sha256="0" * 64)
    assert right in message
    assert "0" * 64 in message
    assert "expected 64 hexadecimal digits" in refusal(path, sha256="bbd30ac9")


def test_a_file_url_is_read_in_place(state, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    path = tmp_path / "with space.pt"
    torch.save(state, path)
    load_weights(network(seed=2), path.as_uri())
    right = hashlib.sha256(path.read_bytes()).hexdigest()
    load_weights(network(seed=2), f"{path.as_uri()}#sha256={right}")
    assert not (tmp_path / "cache").exists()
    assert "does not exist" in refusal((tmp_path / "none.pt").as_uri())


def test_other_addresses_are_refused():
    assert "expected a path, or an http, https or file URL" in refusal("s3://bucket/a.pt")


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A loopback server: `files` maps paths to contents; `requests` lists what was asked for."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):  # noqa: N802
            web.requests.append(self.path)
            content = web.files.get(self.path)
            self.send_response(200 if content is not None else 404)
            self.send_header("Content-Length", str(len(content or b"") + web.promised))
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *_):
            pass

    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    web.files, web.requests, web.promised = {}, [], 0
    web.url = f"http://127.0.0.1:{web.server_port}"
    web.cache = tmp_path / "home" / "hub" / "checkpoints"
    thread = threading.Thread(target=web.serve_forever, daemon=True)
    thread.start()
    yield web
    web.shutdown()
    web.server_close()
    thread.join()


def saved(state, tmp_path):
    torch.save(state, tmp_path / "served.pt")
    return (tmp_path / "served.pt").read_bytes()


def test_a_download_is_kept(server, state, tmp_path):
    server.files["/run/ckpt_epoch_240.pth"] = saved(state, tmp_path)
    source = f"{server.url}/run/ckpt_epoch_240.pth"
    infos = [load_weights(network(seed=2), source) for _ in range(2)]
    assert server.requests == ["/run/ckpt_epoch_240.pth"]
    assert infos[0] == infos[1]
    assert infos[0].fingerprint == fingerprint(state)
    assert infos[0].source == source
    (kept,) = server.cache.iterdir()
    assert kept.name.startswith("ckpt_epoch_240-")
    assert kept.suffix == ".pth"


def test_equal_file_names_of_two_addresses_are_kept_apart(server, state, tmp_path):
    other = network(seed=5).state_dict()
    server.files = {"/a/last.pth": saved(state, tmp_path), "/b/last.pth": saved(other, tmp_path)}
    prints = [
        load_weights(network(seed=2), f"{server.url}/{folder}/last.pth").fingerprint
        for folder in "ab"
    ]
    assert prints == [fingerprint(state), fingerprint(other)]


def test_a_wrong_checksum_leaves_nothing_behind(server, state, tmp_path):
    server.files["/a.pt"] = saved(state, tmp_path)
    right = hashlib.sha256(server.files["/a.pt"]).hexdigest()
    message = refusal(f"{server.url}/a.pt#sha256={'1' * 64}")
    assert right in message
    assert "1" * 64 in message
    assert list(server.cache.iterdir()) == []
    load_weights(network(seed=2), f"{server.url}/a.pt#sha256={right}")


def test_a_cached_file_that_fails_its_checksum_is_fetched_again(server, state, tmp_path):
    source = f"{server.url}/a.pt"
    server.files["/a.pt"] = saved(network(seed=5).state_dict(), tmp_path)
    load_weights(network(seed=2), source)
    server.files["/a.pt"] = saved(state, tmp_path)
    right = hashlib.sha256(server.files["/a.pt"]).hexdigest()
    assert load_weights(network(seed=2), source, right).fingerprint == fingerprint(state)
    assert load_weights(network(seed=2), source).fingerprint == fingerprint(state)
    assert len(server.requests) == 2


def test_a_download_that_breaks_off_leaves_nothing_behind(server, state, tmp_path):
    content = saved(state, tmp_path)
    server.files["/a.pt"], server.promised = content, 7
    message = refusal(f"{server.url}/a.pt")
    assert f"{len(content)} of {len(content) + 7} bytes" in message or "could not be" in message
    assert list(server.cache.iterdir()) == []


def test_addresses_without_a_file_or_a_server(server):
    message = refusal(f"{server.url}/none.pt")
    assert "could not be downloaded" in message
    assert "404" in message
    assert "give its path" in message
    server.server_close()
    assert "could not be downloaded" in refusal("http://127.0.0.1:9/a.pt")


def test_a_page_in_place_of_a_file_can_be_fetched_again(server):
    server.files["/a.pt"] = b"<html>please log in</html>"
    message = refusal(f"{server.url}/a.pt")
    assert "is a web page" in message
    assert f"downloaded from {server.url}/a.pt; delete it to download it again" in message


def test_reading_needs_no_network_to_load_into(state, path):
    torch.save({"model": state, "epoch": 2}, path)
    assert weight_files.fetch(path)["epoch"] == 2


# The trained networks


@pytest.mark.parametrize("depth", [20, 32, 56])
def test_the_trained_networks_load_unchanged(depth, teachers):
    path = teachers / f"resnet{depth}_cifar100.pt"
    model = MODELS.get(f"resnet{depth}")()
    info = load_weights(model, path)
    held = torch.load(path, weights_only=True)
    assert info.container == "bare"
    assert all(torch.equal(tensor, held[key]) for key, tensor in model.state_dict().items())


def test_a_trained_network_in_another_depth(teachers):
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
