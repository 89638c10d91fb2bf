"""Files of weights are fetched and read safely; every fault is named, with its remedy."""

import hashlib
import pickle

import pytest
import torch
from torch import nn

from ctkd.models.weights import load_file as weight_files
from ctkd.models.weights.match import fingerprint, load_weights


class Run:
    """Something that a restricted reader must not rebuild."""


def test_a_missing_file_or_a_folder(tmp_path, refusal):
    assert "none.pt does not exist" in refusal(tmp_path / "none.pt")
    assert "is a folder" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty (0 bytes)"),
        (b"not at all a checkpoint", "is not a checkpoint"),
        (b"\x89PNG\r\n\x1a\n" + bytes(256), "is not a checkpoint"),
        (b"<!DOCTYPE html><title>404</title>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "is a Git LFS pointer"),
    ],
)
def test_a_file_that_is_no_checkpoint(content, message, path, refusal):
    path.write_bytes(content)
    assert message in refusal(path)
    assert str(path) in refusal(path)


@pytest.mark.parametrize("archive", [True, False])
@pytest.mark.parametrize("share", [0.3, 0.99])
def test_a_truncated_file(archive, share, state, path, refusal):
    torch.save(state, path, _use_new_zipfile_serialization=archive)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert "is cut short" in refusal(path)


@pytest.mark.parametrize("payload", [Run(), nn.Linear(2, 2), {"run": Run()}])
def test_what_needs_unsafe_unpickling(payload, path, refusal):
    torch.save(payload, path)
    message = refusal(path)
    assert "could run any code" in message
    assert "Run" in message or "torch.nn.modules.linear.Linear" in message
    assert "torch.save(model.state_dict(), path)" in message


def test_nothing_is_run_from_a_hostile_file(tmp_path, path, refusal):
    class Hostile:
        def __reduce__(self):
            return (open, (str(tmp_path / "touched"), "w"))

    path.write_bytes(pickle.dumps(Hostile(), protocol=2))
    assert "could run any code" in refusal(path)
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("payload", [3, [1, 2], {"epoch": 3}, {}])
def test_a_file_without_tensors(payload, path, refusal):
    torch.save(payload, path)
    assert "has no named tensors" in refusal(path)


# Checksums and URLs


def test_a_checksum_is_compared(state, path, network, refusal):
    torch.save(state, path)
    right = hashlib.sha256(path.read_bytes()).hexdigest()
    load_weights(network(seed=2), f"{path}#sha256={right.upper()}")
    message = refusal(f"{path}#sha256={'0' * 64}")
    assert right in message
    assert "0" * 64 in message
    assert "expected 64 hexadecimal digits" in refusal(f"{path}#sha256=bbd30ac9")


def test_a_file_url_is_read_in_place(state, tmp_path, monkeypatch, network, refusal):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    path = tmp_path / "with space.pt"
    torch.save(state, path)
    load_weights(network(seed=2), path.as_uri())
    right = hashlib.sha256(path.read_bytes()).hexdigest()
    load_weights(network(seed=2), f"{path.as_uri()}#sha256={right}")
    assert not (tmp_path / "cache").exists()
    assert "does not exist" in refusal((tmp_path / "none.pt").as_uri())


def test_other_addresses_are_refused(refusal):
    assert "expected a path, or an http, https or file URL" in refusal("s3://bucket/a.pt")
    assert "could not be downloaded" in refusal("http://[half/a.pt")


def saved(state, tmp_path):
    torch.save(state, tmp_path / "served.pt")
    return (tmp_path / "served.pt").read_bytes()


def test_a_download_is_kept(server, state, tmp_path, network):
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


def test_equal_file_names_of_two_addresses_are_kept_apart(server, state, tmp_path, network):
    other = network(seed=5).state_dict()
    server.files = {"/a/last.pth": saved(state, tmp_path), "/b/last.pth": saved(other, tmp_path)}
    prints = [
        load_weights(network(seed=2), f"{server.url}/{folder}/last.pth").fingerprint
        for folder in "ab"
    ]
    assert prints == [fingerprint(state), fingerprint(other)]


def test_a_wrong_checksum_leaves_nothing_behind(server, state, tmp_path, network, refusal):
    server.files["/a.pt"] = saved(state, tmp_path)
    right = hashlib.sha256(server.files["/a.pt"]).hexdigest()
    message = refusal(f"{server.url}/a.pt#sha256={'1' * 64}")
    assert right in message
    assert "1" * 64 in message
    assert list(server.cache.iterdir()) == []
    load_weights(network(seed=2), f"{server.url}/a.pt#sha256={right}")


def test_a_cached_file_that_fails_its_checksum_is_fetched_again(server, state, tmp_path, network):
    source = f"{server.url}/a.pt"
    server.files["/a.pt"] = saved(network(seed=5).state_dict(), tmp_path)
    load_weights(network(seed=2), source)
    server.files["/a.pt"] = saved(state, tmp_path)
    right = hashlib.sha256(server.files["/a.pt"]).hexdigest()
    checked = load_weights(network(seed=2), f"{source}#sha256={right}")
    assert checked.fingerprint == fingerprint(state)
    assert load_weights(network(seed=2), source).fingerprint == fingerprint(state)
    assert len(server.requests) == 2


def test_a_download_that_breaks_off_leaves_nothing_behind(server, state, tmp_path, refusal):
    content = saved(state, tmp_path)
    server.files["/a.pt"], server.promised = content, 7
    message = refusal(f"{server.url}/a.pt")
    assert f"{len(content)} of {len(content) + 7} bytes" in message or "could not be" in message
    assert list(server.cache.iterdir()) == []


def test_addresses_without_a_file_or_a_server(server, refusal):
    message = refusal(f"{server.url}/none.pt")
    assert "could not be downloaded" in message
    assert "404" in message
    assert "give its path" in message
    server.server_close()
    assert "could not be downloaded" in refusal("http://127.0.0.1:9/a.pt")


def test_a_page_in_place_of_a_file_can_be_fetched_again(server, refusal):
    server.files["/a.pt"] = b"<html>please log in</html>"
    message = refusal(f"{server.url}/a.pt")
    assert "is a web page" in message
    assert f"downloaded from {server.url}/a.pt; delete it to download it again" in message


def test_reading_needs_no_network_to_load_into(state, path):
    torch.save({"model": state, "epoch": 2}, path)
    assert weight_files.fetch(path).payload["epoch"] == 2
