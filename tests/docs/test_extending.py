"""docs/extending.md: every example's code and Gin file, trained for two epochs as they stand."""

import json
import pathlib
import re
import subprocess
import sys
from collections import Counter

import pytest

from ctkd.sweeps.check import check
from ctkd.sweeps.study import read_study

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "extending.md"
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
CODE = [text for language, text in BLOCKS if language == "python"]
GIN = [text for language, text in BLOCKS if not language]
pytestmark = pytest.mark.xdist_group("extending")  # one process for all: they share a teacher
TEACHER, SWEEP = "# pairs_teacher.gin\n", "# my_sweep.gin\n"
EXAMPLES = [text for text in GIN if not text.startswith((TEACHER, SWEEP))]
RUNS = {re.search(r"import my_pkg\.(\w+)", text)[1]: text for text in EXAMPLES}
PARTS = ["losses", "policies", "schedules", "transforms", "networks", "arrays", "pairs"]
# Runs one after the other in one process: torch takes its seconds to import once.
SCRIPT = """
import json, os, sys
from ctkd.main import main

os.chdir({folder!r})
for name, arguments in json.loads({runs!r}):
    status = main([f"--gin_file={{name}}.gin", f"--workdir=run/{{name}}", *arguments])
    print(f"{{name}}: {{status}}", file=sys.stderr, flush=True)
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A folder with the examples' package and Gin files."""
    folder = tmp_path_factory.mktemp("outside")
    (folder / "my_pkg").mkdir()
    for code in CODE:
        name = re.match(r"# my_pkg/(\w+\.py)\n", code)[1]
        (folder / "my_pkg" / name).write_text(code, encoding="utf-8")
    for name, text in RUNS.items():
        (folder / f"{name}.gin").write_text(text, encoding="utf-8")
    (teacher,) = (text for text in GIN if text.startswith(TEACHER))
    (folder / "pairs_teacher.gin").write_text(teacher, encoding="utf-8")
    return folder


def save_digits(path):
    """What the data set's example reads."""
    import numpy as np

    from ctkd.data.digits import Digits

    splits, arrays = Digits().load(), {}
    for name in ("train", "test"):
        split = getattr(splits, name)
        arrays |= {f"{name}_images": split.images.numpy(), f"{name}_targets": split.targets.numpy()}
    np.savez(path, **arrays)


def run_all(runs, package, python, environment):
    """Runs examples with further arguments; what it says, and each one's exit status."""
    environment["PYTHONPATH"] = f"{environment['PYTHONPATH']}:{package}"
    result = python(SCRIPT.format(folder=str(package), runs=json.dumps(runs)))
    return result.err, re.findall(r"^(\w+): (\d+)$", result.err, re.MULTILINE)


def test_the_page_holds_an_example_of_each_part():
    named = [re.match(r"# my_pkg/(\w+)\.py\n", code)[1] for code in CODE]
    assert named == list(RUNS) == PARTS


def test_the_sweep_has_the_cells_that_it_speaks_of(tmp_path):
    (text,) = (text for text in GIN if text.startswith(SWEEP))
    path = tmp_path / "my_sweep.gin"
    path.write_text(text, encoding="utf-8")
    plans = check(read_study(str(path)), supplies=False)
    counts = Counter(plan.cell.key.rpartition("-seed")[0] for plan in plans)
    assert counts == {"end=0.5_kd": 3, "end=1_kd": 3, "end=1_dkd": 5}
    assert {plan.epochs for plan in plans} == {20}


@pytest.mark.slow
def test_every_example_trains_as_it_stands(package, python, environment, teacher_file):
    save_digits(package / "digits.npz")
    weights = f"--gin_param=teacher_weights = {str(teacher_file)!r}"
    quick = ["--gin_param=epochs = 2", "--gin_param=Runtime.tensorboard = False"]
    quick.append("--gin_param=Runtime.figures = False")
    shared = f"--gin_param=Runtime.teachers_dir = {str(package / 'teachers')!r}"
    own = {"arrays": [], "pairs": [shared]}  # without a teacher, and with one that it trains
    runs = [(name, [*quick, *own.get(name, [weights])]) for name in PARTS]
    output, statuses = run_all(runs, package, python, environment)
    assert statuses == [(name, "0") for name in PARTS], output

    def read(name, file="metrics.jsonl"):
        text = (package / "run" / name / file).read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()] if file[-1] == "l" else text

    assert read("losses")[-1]["train_kd"] > 0
    assert read("policies")[-1]["temperature"] < 11  # raw = 0 is 11, and the adversary goes down
    assert [record["lambda"] for record in read("schedules")] == [0.0, 1.0]
    settings = {name: json.loads(read(name, "settings.json")) for name in PARTS}
    assert settings["losses"]["method"]["Halved.share"] == 0.7
    assert settings["transforms"]["method"]["Method.transform"] == "@Centered"
    assert settings["networks"]["recipe"]["two_layers.hidden"] == 24
    assert settings["arrays"]["runtime"]["arrays.path"] == "digits.npz"
    assert read("arrays")[-1]["test_top1"] > 25  # ten classes
    summary = json.loads(read("pairs", "summary.json"))
    assert summary["dataset"] == "digit_pairs"
    assert summary["teacher_top1"] > 90
    assert summary["steps"] == 2 * 12  # 718 pictures, 64 in a step
    assert summary["last_top1"] > 25


@pytest.mark.slow
def test_the_tasks_example_runs_in_two_processes_with_a_temperature_per_row(
    package, environment, tmp_path
):
    """Twice as many rows as samples, and a policy that tells each row's T.

    Its teacher is that of the test above, where it ran.
    """
    environment["PYTHONPATH"] = f"{environment['PYTHONPATH']}:{package}"
    quick = [
        "epochs = 1",
        "steps_per_epoch = 3",
        "batch_size = 33",
        "Runtime.tensorboard = False",
        "Runtime.figures = False",
    ]
    quick += ["Method.policy = @InstanceTemperature", "Teacher.min_accuracy = 0.0"]
    quick += ["Runtime.figures = False", f"Runtime.teachers_dir = {str(package / 'teachers')!r}"]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "-m"]
    ended = subprocess.run(
        [*launcher, "ctkd.main", "--gin_file=pairs.gin", f"--workdir={tmp_path / 'shared'}"]
        + [f"--gin_param={binding}" for binding in quick],
        cwd=package, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    record = json.loads((tmp_path / "shared" / "metrics.jsonl").read_text())
    assert record["step"] == 3
    assert record["temperature_low"] < record["temperature"] < record["temperature_high"]


@pytest.mark.slow
def test_every_example_is_checked_by_a_dry_run(package, python, environment):
    """Without data, weights or training; a mistake gives a message of one sentence."""
    wrong = {
        "schedules": "StepLambda.value = -1.0",
        "networks": "two_layers.hidden = 'many'",
        "pairs": "student = @digits_student",
    }
    runs = [(name, ["--dry_run"]) for name in PARTS]
    runs += [(name, ["--dry_run", f"--gin_param={binding}"]) for name, binding in wrong.items()]
    output, statuses = run_all(runs, package, python, environment)
    assert statuses == [(name, "0") for name in PARTS] + [(name, "2") for name in wrong], output
    assert "ctkd: StepLambda.value = -1.0: expected a number of 0 or more" in output
    assert "ctkd: two_layers.hidden = 'many': expected" in output
    assert "ctkd: the student reads no pairs of digits" in output
    assert "Traceback" not in output
