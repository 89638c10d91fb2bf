"""A disk that becomes full during a run: a clear error, and the old files are unchanged."""

import shutil
import subprocess

import pytest
import torch


@pytest.fixture
def disk(tmp_path):
    """A small disk of its own: disk(kilobytes) sets its size; its path."""
    path = tmp_path / "disk"
    path.mkdir()
    mount = shutil.which("mount")
    options = ["-t", "tmpfs", "-o", "size=64k", "tmpfs", str(path)]
    if mount is None or subprocess.run([mount, *options], capture_output=True).returncode:
        pytest.skip("needs the right to mount a tmpfs")

    def resize(kilobytes):
        resized = [mount, "-o", f"remount,size={kilobytes}k", str(path)]
        subprocess.run(resized, check=True, capture_output=True)
        return path

    yield resize
    subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("board", [False, True])
def test_each_time_the_disk_is_full_it_is_reported_and_with_room_the_run_continues(
    disk, train, command, arguments, folder, same, board
):
    settings = ["epochs = 2", f"Runtime.tensorboard = {board}"]
    reference = train("ctkd", *settings, workdir="reference")
    errors, kilobytes = [], 4
    while True:
        run = folder(disk(kilobytes) / "run")
        result = command(*arguments("ctkd", *settings, workdir=run.path))
        if result.status == 0:
            break
        assert result.status == 2
        assert result.err.startswith("ctkd: cannot ")
        assert "No space left on device" in result.err
        assert result.err.count("\n") == 1
        for weights in run.path.rglob("*.pt"):
            torch.load(weights, weights_only=True)  # whole, every one that is there
        assert not list(run.path.rglob(".*.tmp"))
        errors.append(result.err)
        kilobytes += kilobytes // 3 + 4
    assert len(errors) > 3
    assert any("step-" in line for line in errors)  # a checkpoint's among them
    assert same(run.tensors(), reference.tensors())
    assert run.column("epoch") == [1, 2]
