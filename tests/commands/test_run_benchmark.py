"""The benchmark: it measures and prints each section. The numbers are not compared."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ctkd.benchmarks.counts import split_name
from ctkd.benchmarks.timing import in_turns, ratios, spelled
from ctkd.commands.run_benchmark import main, make_parser
from ctkd.errors import ConfigError
from ctkd.models.cifar_resnet import resnet8

ROOT = Path(__file__).resolve().parents[2]


def benchmark(environment, folder, *arguments):
    return subprocess.run(
        [sys.executable, str(ROOT / "tools/benchmark.py"), *map(str, arguments)],
        cwd=folder,
        env={key: value for key, value in environment.items() if key != "CTKD_DATA"},
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_cases_are_measured_in_turns_that_change():
    order = []
    cases = {name: lambda name=name: order.append(name) for name in "abc"}
    seconds = in_turns(cases, rounds=3, warm_up=1, repeat=2)
    assert {name: len(values) for name, values in seconds.items()} == dict.fromkeys("abc", 3)
    assert len(order) == 3 * 4 * 2
    turns = ["".join(order[k : k + 6 : 2]) for k in range(0, 24, 6)]
    assert turns[1:] == ["abc", "bca", "cab"]


def test_ratios_are_taken_within_a_round():
    """A disturbance that doubles one round leaves them alone."""
    assert ratios([2.0, 4.0, 2.0], [1.0, 2.0, 1.0]) == (2.0, 2.0, 2.0)
    assert spelled((0.001, 0.002, 0.003), 1e3) == "2.0 [1.0, 3.0]"


def test_pairs_by_name():
    assert split_name("resnet56_resnet20") == ("resnet56", "resnet20")
    assert split_name("wrn_40_2_wrn_16_2") == ("wrn_40_2", "wrn_16_2")
    with pytest.raises(ConfigError, match="expected TEACHER_STUDENT"):
        split_name("resnet56")


def test_the_plain_loop_learns():
    """It does what it is compared for: the loss falls, and T moves."""
    from ctkd.benchmarks.plain_loop import PlainLoop

    torch.manual_seed(0)
    images, targets = torch.randn(16, 3, 32, 32), torch.arange(16)
    loop = PlainLoop(resnet8(), resnet8(), [(images, targets)], torch.device("cpu"))
    for _ in range(6):
        loop()
    assert loop.losses[-1] < loop.losses[0]
    assert loop.raw.item() != 1.0
    assert len(loop.accuracies) == 12


def test_mistakes_are_reported(environment, tmp_path):
    done = benchmark(environment, tmp_path, "--only=speed")
    assert done.returncode == 2
    assert "expected some of step, policies" in done.stderr


@pytest.mark.slow(traced=True)
def test_a_quick_run_measures_everything(environment, tmp_path):
    """All sections but the start-up, which the next test measures."""
    chosen = make_parser().parse_args([]).only.removesuffix(",startup")
    done = benchmark(
        environment,
        tmp_path,
        *(
            f"--only={chosen}",
            "--quick",
            "--rounds=2",
            "--block=1",
            "--pair=resnet8_resnet8",
            "--workers=0",
        ),
        *("--threads=1", "--gin_param=compile = False"),
        *("--json", tmp_path / "all.json", "--markdown", tmp_path / "all.md"),
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "all.json").read_text())
    assert found["machine"]["threads"] == 1
    assert found["machine"]["torch"] == torch.__version__
    sections = {section["name"]: section["rows"] for section in found["sections"]}
    assert list(sections) == [
        "step",
        "stages",
        "policies",
        "views",
        "features",
        "banks",
        "losses",
        "loader",
        "pipeline",
    ]
    assert all(row["difference_mean"] < 1.0 for row in sections["pipeline"])
    assert {row["images"] for row in sections["pipeline"]} == {"made up, 256 × 224", "500 × 375"}
    assert {row["case"] for row in sections["step"]} >= {"plain loop", "ours, warm cache"}
    assert all(len(row["seconds"]) == 2 for row in sections["step"] + sections["views"])
    assert {"CRLD", "the strong views of a batch alone"} <= {r["case"] for r in sections["views"]}
    for row in sections["losses"]:
        large = row["rows"] * row["classes"] >= 2**17 and row["classes"] >= 10
        if large and "autograd" not in row["loss"]:  # with 2 classes the numbers per row weigh more
            assert row["memory"] < 3.1
    markdown = (tmp_path / "all.md").read_text()
    assert markdown.startswith("Measured on: processor ")
    assert markdown.count("\n**") >= 5
    assert "random images" in done.stdout


@pytest.mark.slow
def test_json_alone_can_be_piped(capsys):
    assert main(["--only=startup", "--rounds=1", "--json=-"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["sections"][0]["name"] == "startup"
