"""The check of a GPU, rehearsed on the CPU, and what carries data and wheels to a bare machine."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ctkd.benchmarks.gpu_parts import PARTS
from ctkd.commands import pack_for_gpu as gpu_pack
from ctkd.data.in_memory import Split, Splits
from ctkd.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def splits(monkeypatch):
    monkeypatch.setattr(gpu_pack, "IMAGES_IN_STRIP", 50)
    random = torch.Generator().manual_seed(0)
    images = [torch.randint(256, (n, 32, 32, 3), generator=random).byte() for n in (70, 3)]
    return Splits(*(Split(part, torch.arange(len(part)) % 100) for part in images))


def test_what_is_packed_comes_out_unchanged(splits, tmp_path):
    files = [*gpu_pack.strips_of(splits), ("teacher.pt", b"weights"), ("wheels/a.whl", b"a")]
    parts = gpu_pack.pack(files, tmp_path / "parts", limit=170_000)
    assert len(parts) > 1
    assert all(part.stat().st_size <= 170_000 for part in parts)
    assert gpu_pack.main([f"--unpack={tmp_path / 'parts'}", f"--out={tmp_path / 'out'}"]) == 0
    arrays = np.load(tmp_path / "out" / "cifar100.npz")
    for name, split in (("train", splits.train), ("test", splits.test)):
        assert np.array_equal(arrays[f"{name}_images"], split.images.numpy())
        assert np.array_equal(arrays[f"{name}_labels"], split.targets.numpy())
    assert (tmp_path / "out" / "teacher.pt").read_bytes() == b"weights"
    assert (tmp_path / "out" / "wheels" / "a.whl").read_bytes() == b"a"


def test_a_part_that_is_missing_is_named(splits, tmp_path, capsys):
    parts = gpu_pack.pack([*gpu_pack.strips_of(splits)], tmp_path, limit=170_000)
    parts[0].unlink()
    assert gpu_pack.main([f"--unpack={tmp_path}", f"--out={tmp_path / 'out'}"]) == 2
    assert "lacks a part" in capsys.readouterr().err
    with pytest.raises(UserError, match="more than a part's 1,000"):
        gpu_pack.pack([("large", bytes(2000))], tmp_path, limit=1000)


@pytest.mark.slow(traced=True)
def test_the_whole_check_is_rehearsed_on_a_cpu(environment, tmp_path):
    command = [sys.executable, "tools/gpu_check.py", "--quick", "--minutes=9", f"--out={tmp_path}"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600
    )
    lines = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert [line["part"] for line in lines] == list(PARTS)
    assert done.returncode == 0, lines
    found = {line["part"]: line for line in lines}
    assert found["machine"]["torch"] == torch.__version__
    assert found["tests"]["tests"] > found["tests"]["skipped"]
    assert found["speed"]["cases"]["eager"]["images_per_s"] > 0
    assert {run["run"] for run in found["runs"]["runs"] if run["finished"]} >= {"seed0", "seed1"}


@pytest.mark.slow
def test_a_part_that_takes_too_long_is_cut_and_the_others_run(environment, tmp_path):
    command = [sys.executable, "tools/gpu_check.py", "--minutes=0.02", f"--out={tmp_path}"]
    command.append("--only=machine,runs")
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, timeout=120)
    lines = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert done.returncode == 1
    assert ["cut after" in line["error"] for line in lines] == [True, True]
