"""The cost of a temperature by count and by clock: counts against known values, not the clock's."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from ctkd.benchmarks.counts import count, count_pair
from ctkd.benchmarks.overhead import median_interval
from ctkd.commands.count_overhead import main, paper_pairs, verdict

ROOT = Path(__file__).resolve().parents[2]


def overhead(environment, *arguments):
    return subprocess.run(
        [sys.executable, str(ROOT / "tools/count_overhead.py"), *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_a_layers_products_are_counted_by_both():
    """8 × 8 outputs of 4 channels, each a sum of 3 · 3 · 2 products; then a matrix of 256 × 10."""
    network = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.Flatten(), nn.Linear(256, 10))
    found = count(network, (torch.zeros(1, 2, 8, 8),))
    assert found.macs == found.checked == 8 * 8 * 4 * 18 + 256 * 10
    assert found.parameters == 4 * 18 + 4 + 256 * 10 + 10


def test_a_pair_of_the_paper_and_the_policies():
    """Networks as in RepDistiller; the instance-wise MLP has 256 · (2 · 100 + 2) + 1 parameters."""
    pair = count_pair("resnet56_resnet20", "resnet56", "resnet20")
    assert (pair.teacher.parameters, pair.teacher.macs) == (861_620, 125_753_600)
    assert (pair.student.parameters, pair.student.macs) == (278_324, 40_818_944)
    assert pair.policies["GlobalTemperature"].parameters == 1
    assert pair.policies["GlobalTemperature"].macs == 0
    assert pair.policies["InstanceTemperature"].parameters == 256 * 202 + 1
    assert pair.policies["InstanceTemperature"].macs == 256 * 200 + 256
    assert pair.share("GlobalTemperature") == 0
    own = 3 * (256 * 200 + 256)
    expected = 100 * own / (125_753_600 + 3 * 40_818_944 + own)
    assert pair.share("InstanceTemperature") == pytest.approx(expected)
    assert all(counted.agrees for counted in pair.policies.values())


def test_the_verdict_depends_on_the_counts():
    small = count_pair("resnet56_resnet20", "resnet56", "resnet20")
    assert "holds" in verdict([small])[1]
    assert "does not" not in verdict([small])[1]
    tiny = count_pair("resnet8_MobileNetV2", "resnet8", "MobileNetV2")  # a step of 32 M MACs
    assert tiny.share("InstanceTemperature") > 0.1
    assert "does not hold" in verdict([small, tiny])[1]
    assert "resnet8_MobileNetV2" in verdict([small, tiny])[0]


def test_a_medians_interval_holds_it_and_shrinks():
    few, many = ([float(k % 10) for k in range(n)] for n in (10, 1000))
    for values in (few, many):
        low, middle, high = median_interval(values)
        assert low <= middle <= high
    assert median_interval(many)[2] - median_interval(many)[0] < 2
    assert median_interval([3.0] * 5) == (3.0, 3.0, 3.0)


def test_the_papers_pairs_are_all_there():
    assert len(paper_pairs()) == 17  # a file for each of 16, and the default


def test_json_is_all_that_is_printed(environment):
    done = overhead(environment, "--json", "--no_timing", "--pairs", "resnet20_resnet20")
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout)
    assert measured["counts"][0]["student_macs"] == 40_818_944
    assert measured["costs"] == []


def test_mistakes_are_reported_before_anything_is_counted(environment):
    done = overhead(environment, "--pairs", "resnet56_resnet2")
    assert done.returncode == 2
    assert "resnet56_resnet2" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_the_clock_is_asked_too(capsys):
    few = ("--rounds", "2", "--threads", "1", "--pairs", "resnet8_MobileNetV2")
    assert main(["--markdown", *few, "--timing_pairs", "resnet8_resnet8"]) == 0
    printed = capsys.readouterr().out
    assert "| resnet8 → MobileNetV2" in printed
    assert "By clock, resnet8_resnet8" in printed
    assert printed.count("| InstanceTemperature") == 2
