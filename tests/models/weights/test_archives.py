"""Archives of weights: the members are listed, and one is read in memory."""

import hashlib
import io
import os
import pathlib
import tarfile
import zipfile

import pytest
import torch

from ctkd.models.weights import archives as weight_archives
from ctkd.models.weights.match import fingerprint, load_weights

FOLDERS = ("resnet56_vanilla", "resnet8_vanilla")
CHECKPOINT = "ckpt_epoch_240.pth"
KINDS = (".tar", ".tar.gz", ".tar.bz2", ".tar.xz", ".zip")


def dumped(payload):
    made = io.BytesIO()
    torch.save(payload, made)
    return made.getvalue()


def pack(path, files):
    """Writes an archive of the format that the file's name says."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return path
    compression = path.suffix.removeprefix(".")
    with tarfile.open(path, "w:" + ("" if compression == "tar" else compression)) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def states(network):
    return {folder: network(seed=n).state_dict() for n, folder in enumerate(FOLDERS, 5)}


@pytest.fixture
def files(states):
    """As mdistiller's release has them, with files of other kinds."""
    found = {
        f"cifar_teachers/{name}/{CHECKPOINT}": dumped({"model": state, "epoch": 240})
        for name, state in states.items()
    }
    return {"cifar_teachers/README.md": b"teachers", **found, "cifar_teachers/log.zip": b"PK"}


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_member_the_error_shows_each_setting(kind, files, tmp_path, refusal):
    path = pack(tmp_path / f"cifar_teachers{kind}", files)
    assert refusal(path, setting="teacher_weights").splitlines() == [
        f"{path} is an archive. Set the member that you want:",
        *(
            f"  teacher_weights = '{path}::cifar_teachers/{folder}/{CHECKPOINT}'"
            for folder in FOLDERS
        ),
    ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("start", ["cifar_teachers/", "", "/"])
def test_a_member_is_read_by_its_path_or_the_end_of_it(
    kind, start, files, states, tmp_path, network
):
    path = pack(tmp_path / f"cifar_teachers{kind}", files)
    before = {entry: entry.stat().st_mtime_ns for entry in tmp_path.iterdir()}
    for folder, state in states.items():
        source = f"{path}::{start}{folder}/{CHECKPOINT}"
        info = load_weights(network(seed=2), source)
        assert (info.fingerprint, info.container) == (fingerprint(state), "model")
        assert info.source == source
    assert {entry: entry.stat().st_mtime_ns for entry in tmp_path.iterdir()} == before


def test_an_end_that_fits_several_members_or_none(files, tmp_path, refusal):
    path = pack(tmp_path / "t.tar", files)
    several = refusal(f"{path}::{CHECKPOINT}")
    assert several.startswith(f"{path} has 2 members whose path ends in '{CHECKPOINT}'. Set ")
    assert several.count("\n") == 2
    none = refusal(f"{path}::6_vanilla/{CHECKPOINT}")  # not a whole name of a folder
    assert none.startswith(
        f"{path} has no member whose path ends in '6_vanilla/{CHECKPOINT}'. Set "
    )
    assert f"\n  '{path}::cifar_teachers/resnet56_vanilla/{CHECKPOINT}'" in none


def test_members_without_a_suffix_and_a_part_of_one(states, tmp_path, network, refusal):
    first, second = states.values()
    content = dumped({"student": first, "teacher": second})
    path = pack(tmp_path / "runs.tar.gz", {"./run/latest": content})
    assert f"'{path}::run/latest'" in refusal(path)
    lines = refusal(f"{path}::latest").splitlines()
    assert lines[1:] == [f"  '{path}::latest::student'", f"  '{path}::latest::teacher'"]
    info = load_weights(network(seed=2), f"{path}::latest::teacher")
    assert info.fingerprint == fingerprint(second)


def test_an_archive_inside_a_checkpoints_clothes(files, states, path, network):
    """Contents count, not names: a tar file that is called weights.pth."""
    pack(path.with_suffix(".tar"), files).rename(path)
    info = load_weights(network(seed=2), f"{path}::resnet8_vanilla/{CHECKPOINT}")
    assert info.fingerprint == fingerprint(states["resnet8_vanilla"])


def test_a_member_that_is_no_weights(files, tmp_path, refusal):
    path = pack(tmp_path / "t.zip", files | {"inner.tar": b"\0" * 257 + b"ustar" + bytes(512)})
    assert f"{path}::README.md is not a checkpoint" in refusal(f"{path}::README.md")
    assert f"{path}::inner.tar is an archive: unpack it" in refusal(f"{path}::inner.tar")
    pack(path, {"a.txt": b"a", "b.txt": b"b"})
    assert refusal(path) == (
        f"{path} is an archive. None of its members looks like weights: it holds a.txt, b.txt"
    )


def test_many_members_are_cut_to_a_list(states, tmp_path, refusal, monkeypatch):
    content = dumped(states["resnet8_vanilla"])
    path = pack(tmp_path / "t.tar", {f"{n:02}.pth": content for n in range(25)})
    lines = refusal(path).splitlines()
    assert len(lines) == 22
    assert lines[-1] == "  and 5 more"


# Safety


def test_members_are_unpickled_safely(tmp_path, refusal):
    class Hostile:
        def __reduce__(self):
            return (open, (str(tmp_path / "touched"), "w"))

    path = pack(tmp_path / "t.tar", {"a.pth": dumped(Hostile())})
    assert "could run any code" in refusal(f"{path}::a.pth")
    assert not (tmp_path / "touched").exists()


def test_paths_links_and_devices_of_an_archive_are_not_followed(states, tmp_path, refusal, network):
    secret = tmp_path / "secret.pth"
    torch.save(states["resnet8_vanilla"], secret)
    path = tmp_path / "t.tar"
    with tarfile.open(path, "w") as archive:
        for name, kind in (("link.pth", tarfile.SYMTYPE), ("hard.pth", tarfile.LNKTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, str(secret)
            archive.addfile(info)
        fifo = tarfile.TarInfo("fifo.pth")
        fifo.type = tarfile.FIFOTYPE
        archive.addfile(fifo)
        outside = tarfile.TarInfo("../../outside.pth")
        content = dumped(states["resnet56_vanilla"])
        outside.size = len(content)
        archive.addfile(outside, io.BytesIO(content))
    message = refusal(path)
    assert message.splitlines()[1:] == [f"  '{path}::../../outside.pth'"]
    assert "has no member" in refusal(f"{path}::link.pth")
    info = load_weights(network(seed=2), f"{path}::outside.pth")  # a name, read in memory
    assert info.fingerprint == fingerprint(states["resnet56_vanilla"])
    assert sorted(os.listdir(tmp_path)) == ["secret.pth", "t.tar"]


def test_a_member_larger_than_the_memory_is_refused(files, tmp_path, refusal, monkeypatch):
    path = pack(tmp_path / "t.tar", files)
    monkeypatch.setattr(weight_archives, "LARGEST_MEMBER", 1000)
    assert "unpack the archive, and give the path" in refusal(
        f"{path}::resnet8_vanilla/{CHECKPOINT}"
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.5, 0.95])
def test_an_archive_that_is_cut_short(kind, share, files, tmp_path, refusal):
    path = pack(tmp_path / f"t{kind}", files)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    message = refusal(f"{path}::{FOLDERS[1]}/{CHECKPOINT}")
    assert any(words in message for words in ("is cut short", "a damaged archive"))


def test_the_checkpoints_of_the_first_pytorch(tmp_path, refusal):
    members = dict.fromkeys(("sys_info", "pickle", "tensors", "storages"), b"x")
    assert "is a checkpoint of PyTorch before 0.1.10" in refusal(pack(tmp_path / "t.tar", members))


# Checksums and URLs


def test_the_checksum_is_the_archives(files, states, tmp_path, network, refusal):
    path = pack(tmp_path / "t.tar", files)
    right = hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()
    member = f"resnet8_vanilla/{CHECKPOINT}"
    for source in (f"{path}#sha256={right}::{member}", f"{path}::{member}#sha256={right}"):
        info = load_weights(network(seed=2), source)
        assert info.fingerprint == fingerprint(states["resnet8_vanilla"])
    assert "expected " + "0" * 64 in refusal(f"{path}#sha256={'0' * 64}::{member}")
    assert f"'{path}#sha256={right}::cifar_teachers/{member}'" in refusal(f"{path}#sha256={right}")


def test_a_downloaded_archive_is_kept_once(files, states, tmp_path, network, refusal, server):
    server.files["/t.tar"] = pack(tmp_path / "t.tar", files).read_bytes()
    url = f"{server.url}/t.tar"
    message = refusal(url)
    assert message.startswith(f"{url} is an archive. ")
    assert f"\n  '{url}::cifar_teachers/resnet56_vanilla/{CHECKPOINT}'" in message
    assert "delete it" not in message
    for folder, state in states.items():
        info = load_weights(network(seed=2), f"{url}::{folder}/{CHECKPOINT}")
        assert info.fingerprint == fingerprint(state)
    assert server.requests == ["/t.tar"]


def test_the_colons_of_an_address_are_not_a_name(refusal):
    message = refusal("http://[::1]:9/t.tar::a.pth")
    assert message.startswith("http://[::1]:9/t.tar could not be downloaded")
