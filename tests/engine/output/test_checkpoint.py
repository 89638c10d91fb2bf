"""Checkpoints survive anything: atomic, checksummed, and never unpickled unsafely."""

import errno
import hashlib
import io
import os
import pickle

import pytest
import torch

from ctkd.engine.output import checkpoint
from ctkd.engine.output.checkpoint import Checkpoints, write_atomically, write_tensors, write_text
from ctkd.errors import WorkdirError

MINE = "0123456789abcdef"


@pytest.fixture
def messages():
    return []


@pytest.fixture
def checkpoints(tmp_path, messages):
    return Checkpoints(tmp_path / "checkpoints", keep=2, say=messages.append)


def state(step, identity=MINE):
    return {"identity": identity, "step": step, "weights": torch.full((50,), float(step))}


def steps(checkpoints):
    """Those that can be loaded, in order of their names."""
    files = sorted(checkpoints.folder.glob("step-*.pt"))
    return [torch.load(path, weights_only=True)["step"] for path in files]


def newest(checkpoints):
    return max(checkpoints.folder.glob("step-*.pt"))


def test_the_newest_is_taken_up_and_only_the_newest_few_are_kept(checkpoints, messages):
    assert checkpoints.latest(MINE) is None
    for step in (5, 10, 100):
        checkpoints.save(step, state(step))
    assert steps(checkpoints) == [10, 100]
    found = checkpoints.latest(MINE)
    assert found["step"] == 100
    assert torch.equal(found["weights"], torch.full((50,), 100.0))
    assert messages == []


def test_the_name_holds_step_and_checksum(checkpoints):
    checkpoints.save(7, state(7))
    (path,) = checkpoints.folder.iterdir()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    assert path.name == f"step-0000000007-{digest}.pt"


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def empty(path):
    path.write_bytes(b"")


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def grow(path):
    path.write_bytes(path.read_bytes() + b"\0")


@pytest.mark.parametrize("damage", [truncate, empty, flip, grow])
def test_a_damaged_one_is_named_and_passed_over_for_the_one_before(checkpoints, messages, damage):
    for step in (1, 2):
        checkpoints.save(step, state(step))
    bad = newest(checkpoints)
    damage(bad)
    assert checkpoints.latest(MINE)["step"] == 1
    assert messages == [f"{bad} is truncated or damaged (its checksum differs): skipped"]


def write_as_checkpoint(folder, step, data):
    """A file whose name and checksum are right, whatever is in it."""
    folder.mkdir(exist_ok=True)
    digest = hashlib.sha256(data).hexdigest()[:16]
    path = folder / f"step-{step:010d}-{digest}.pt"
    path.write_bytes(data)
    return path


def saved(value):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (saved({"format": 99, **state(3)}), "is of another version of ctkd"),
        (saved(state(3)), "is of another version of ctkd"),
        (saved(torch.ones(3)), "is of another version of ctkd"),
        (saved({"format": 1, **state(3, "f" * 16)}), "belongs to another run"),
        (saved({"format": 1, "weights": torch.ones(1)}), "is not a checkpoint of ctkd|belongs to"),
        (b"not torch's", "cannot be loaded safely"),
        (b"", "cannot be loaded safely"),
        (saved({"format": 1})[:-30], "cannot be loaded safely"),
        (b"PK\x03\x04" + bytes(100), "cannot be loaded safely"),
        (pickle.dumps({"format": 1, "x": {1, 2}}, protocol=2), "cannot be loaded safely"),
    ],
    ids=range(10),
)
def test_one_of_another_kind_is_named_and_passed_over(checkpoints, messages, content, reason):
    checkpoints.save(1, state(1))
    bad = write_as_checkpoint(checkpoints.folder, 3, content)
    assert checkpoints.latest(MINE)["step"] == 1
    (message,) = messages
    assert message.startswith(f"{bad} ")
    assert message.endswith(": skipped")
    assert any(part in message for part in reason.split("|"))


def test_a_stranger_among_them_is_passed_over_and_never_removed(checkpoints, messages):
    checkpoints.folder.mkdir()
    stranger = checkpoints.folder / "resnet56.pt"
    stranger.write_bytes(saved({"model": torch.ones(1)}))
    with pytest.raises(WorkdirError, match="no usable checkpoint in"):
        checkpoints.latest(MINE)
    assert "resnet56.pt is not a checkpoint of ctkd" in messages[0]
    for step in range(1, 6):
        checkpoints.save(step, state(step))
    assert stranger.exists()
    assert steps(checkpoints) == [4, 5]
    assert checkpoints.latest(MINE)["step"] == 5


@pytest.mark.parametrize("keep", [1, 2, 3])
@pytest.mark.parametrize("bad", [1, 2, 3])
def test_damaged_ones_never_push_out_the_good(tmp_path, messages, keep, bad):
    """A run falls back to step 1, and saves step 2 next to damaged later ones."""
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep, messages.append)
    checkpoints.save(1, state(1))
    for step in range(10, 10 + bad):
        flip(write_as_checkpoint(checkpoints.folder, step, saved({"format": 1, **state(step)})))
    assert checkpoints.latest(MINE)["step"] == 1
    checkpoints.save(2, state(2))
    again = Checkpoints(checkpoints.folder, keep, messages.append)
    assert again.latest(MINE)["step"] == 2


def test_where_none_is_usable_it_is_refused_with_the_way_out(checkpoints, messages):
    for step in (1, 2):
        checkpoints.save(step, state(step))
    for path in checkpoints.folder.iterdir():
        truncate(path)
    with pytest.raises(WorkdirError, match="no usable checkpoint in .*begin again with --fresh"):
        checkpoints.latest(MINE)
    assert len(messages) == 2


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_a_malicious_pickle_is_not_run(checkpoints, messages, tmp_path):
    trap = tmp_path / "sprung"
    harmful = {"format": 1, "identity": MINE, "x": Bomb(trap)}
    write_as_checkpoint(checkpoints.folder, 9, saved(harmful))
    write_as_checkpoint(checkpoints.folder, 8, pickle.dumps(harmful, protocol=2))
    with pytest.raises(WorkdirError, match="no usable checkpoint"):
        checkpoints.latest(MINE)
    assert not trap.exists()
    assert len(messages) == 2
    assert "cannot be loaded safely" in messages[0]


def test_a_file_that_cannot_be_read_is_passed_over(checkpoints, messages):
    checkpoints.save(1, state(1))
    (checkpoints.folder / f"step-0000000002-{'0' * 16}.pt").mkdir()
    assert checkpoints.latest(MINE)["step"] == 1
    assert "cannot be read (Is a directory)" in messages[0]


def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_is_a_clear_error_and_the_previous_one_is_intact(
    checkpoints, monkeypatch, call
):
    checkpoints.save(1, state(1))
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint.os, call, full)
        with pytest.raises(WorkdirError) as caught:
            checkpoints.save(2, state(2))
    assert "No space left on device" in str(caught.value)
    assert str(caught.value).endswith("the old file is unchanged")
    assert [path.name[:15] for path in checkpoints.folder.iterdir()] == ["step-0000000001"]
    assert checkpoints.latest(MINE)["step"] == 1


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkdirError, match="cannot make .*file/checkpoints: Not a directory"):
        Checkpoints(tmp_path / "file/checkpoints", 2, print).save(1, state(1))


def test_a_file_is_replaced_wholly_or_not_at_all(tmp_path):
    path = tmp_path / "summary.json"
    write_text(path, "first")

    def broken(file):
        file.write(b"half")
        full()

    with pytest.raises(WorkdirError, match=r"cannot write .*summary\.json"):
        write_atomically(path, broken)
    assert path.read_text() == "first"
    write_text(path, "λ")
    assert path.read_text(encoding="utf-8") == "λ"
    assert list(tmp_path.iterdir()) == [path]  # and nothing temporary is left


def test_an_existing_file_is_whole_at_every_moment_of_its_replacement(tmp_path, monkeypatch):
    path = tmp_path / "weights.pt"
    write_tensors(path, {"w": torch.zeros(3)})
    seen = []

    def look(*arguments):
        seen.append(torch.load(path, weights_only=True)["w"].sum().item())
        return real(*arguments)

    real = os.fsync
    monkeypatch.setattr(checkpoint.os, "fsync", look)
    write_tensors(path, {"w": torch.ones(3)})
    assert seen == [0.0, 3.0]  # before the rename, and after it


def test_the_rename_itself_is_made_to_reach_the_disk(tmp_path, monkeypatch):
    synced = []
    real = os.fsync

    def record(descriptor):
        synced.append(os.path.isdir(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    monkeypatch.setattr(checkpoint.os, "fsync", record)
    write_text(tmp_path / "a", "a")
    assert synced == [False, True]  # the file, then the folder
