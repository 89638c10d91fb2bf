"""docs/tasks/your_images.md: its Gin files train on a folder, its script loads the student."""

import json
import pathlib
import re

import pytest

from ctkd.main import main

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "tasks" / "your_images.md"
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
# Five classes of 128 pixels in 30 epochs are the page's; the test has three of 32 in one.
CUT = ("imagenet.num_classes = 3", "imagenet.size = 32", "imagenet.resize = 36", "epochs = 1")
CUT += ("Runtime.figures = False", "Runtime.tensorboard = False")
pytestmark = pytest.mark.xdist_group("your images")  # one process for all: they share a run


@pytest.fixture(scope="module")
def run(tmp_path_factory, image_folders):
    """The work directory of the page's run, whose teacher is trained on the way."""
    folder = tmp_path_factory.mktemp("mine")
    for text in (text for language, text in BLOCKS if not language and text.startswith("# mine")):
        name, _, rest = text.removeprefix("# ").partition("\n")
        kept = [line for line in rest.splitlines() if line.split(" = ")[0] not in str(CUT)]
        (folder / name).write_text("\n".join([*kept, *CUT]), encoding="utf-8")
    flags = [f"data_dir = '{image_folders}'", "Teacher.min_accuracy = None", "steps_per_epoch = 2"]
    flags += ["batch_size = 8", "workers = 0", "threads = 1"]
    status = main(
        [f"--gin_file={folder / 'mine.gin'}", f"--workdir={folder / 'run'}"]
        + [f"--gin_param={flag}" for flag in flags]
    )
    assert status == 0
    return folder / "run"


def test_the_run_of_the_page_finishes(run):
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    assert 0 <= summary["last_top1"] <= 100
    assert 0 <= summary["teacher_top1"] <= 100


def test_the_script_of_the_page_loads_the_student(run, monkeypatch):
    (script,) = (text for language, text in BLOCKS if language == "python")
    monkeypatch.chdir(run)
    scope = {}
    exec(script.replace("num_classes=5", "num_classes=3"), scope)
    assert scope["student"].fc.out_features == 3
