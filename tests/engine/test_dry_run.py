"""A dry run parses and builds everything, and needs no data, no weights, and no time."""

import gin
import pytest

from ctkd.engine.job import Job

HEAVY = ("sklearn", "matplotlib", "tensorboard", "torch.utils.tensorboard", "torchvision")
WATCHED = """
import sys
from ctkd.main import main
status = main(sys.argv[1:])
print(status, [name for name in {heavy!r} if name in sys.modules], file=sys.stderr)
"""


def sizes(out):
    lines = [line for line in out.splitlines() if line.startswith("# ")]
    return {line[2:21].strip(): line[21:] for line in lines}


def test_it_prints_the_resolved_configuration_and_the_sizes(command, tmp_path):
    result = command("--gin_file=gin/digits/ctkd.gin", "--dry_run", "--gin_param=seed = 5")
    assert (result.status, result.err) == (0, "")
    printed = sizes(result.out)
    assert printed["student"] == "1,030 parameters"
    assert printed["teacher"] == "56,554 parameters"
    assert printed["temperature policy"] == "GlobalTemperature, 1 parameter"
    assert printed["work directory"].startswith(
        "runs/digits/digits_teacher_digits_student/ctkd-seed5-"
    )
    assert "seed 5" in printed["run"]
    assert list(tmp_path.iterdir()) == []


def test_what_it_prints_is_a_configuration_of_the_same_run(command, tmp_path):
    result = command("--gin_file=gin/digits/dkd_ctkd.gin", "--dry_run", "--gin_param=SGD.lr = 0.3")
    (tmp_path / "printed.gin").write_text(result.out)
    printed = Job([str(tmp_path / "printed.gin")]).build(meta=True)
    gin.clear_config()
    direct = Job(["gin/digits/dkd_ctkd.gin"], ["SGD.lr = 0.3"]).build(meta=True)
    assert printed.settings == direct.settings


def test_without_a_teacher_it_says_so(command):
    printed = sizes(command("--gin_file=gin/digits/vanilla.gin", "--dry_run").out)
    assert printed["teacher"] == "not used"
    assert "temperature policy" not in printed


@pytest.mark.parametrize(
    ("policy", "count"),
    [("InstanceTemperature", "5,633"), ("ConstantTemperature", "0")],
)
def test_the_policys_size(command, policy, count):
    """hidden · (2C + 2) + 1 with hidden = 256 and C = 10 (two linear layers, by hand)."""
    method = "ctkd_instance" if policy == "InstanceTemperature" else "kd"
    printed = sizes(command(f"--gin_file=gin/digits/{method}.gin", "--dry_run").out)
    assert printed["temperature policy"] == f"{policy}, {count} parameters"


def test_it_needs_neither_data_nor_weights(command):
    bad = ["--gin_param=teacher_weights = '/nowhere/teacher.pt'", "--workdir=/proc/none"]
    assert command("--gin_file=gin/digits/ctkd.gin", "--dry_run", *bad).status == 0


def test_a_mistake_is_reported_as_in_a_run(command):
    result = command("--gin_file=gin/digits/ctkd.gin", "--dry_run", "--gin_param=epohcs = 2")
    assert result.status == 2
    assert "did you mean epochs?" in result.err


def test_nothing_heavy_is_imported(python, tmp_path):
    code = "import sys; sys.argv[1:] = ['--gin_file=gin/digits/ctkd.gin', '--dry_run']"
    result = python(code + WATCHED.format(heavy=HEAVY))
    assert result.err.strip() == "0 []"
