"""Runs on data of one, two or few classes: a run says what is lost before it trains."""

import pytest

from ctkd.data.digits import Digits
from ctkd.data.in_memory import Split, Splits
from ctkd.registry import DATASETS, OBJECTIVES


@DATASETS.register("few_digits_of_test")
class FewDigits(Digits):
    """The digits, separated by their remainder."""

    def __init__(self, classes: int = 2) -> None:
        super().__init__(train_images=64)
        self.num_classes = classes

    def load(self):
        splits = super().load()
        parts = (Split(s.images, s.targets % self.num_classes) for s in (splits.train, splits.test))
        return Splits(*parts)


@OBJECTIVES.register("plain_of_test_few_classes")
class Plain:
    """Declares nothing."""

    needs_teacher = False

    def __call__(self, student, teacher, targets, temperature, raw=None):
        return {"square": student.pow(2).mean(1)}

    def weights(self, position):
        return {"square": 1.0}


@pytest.fixture
def dry(command):
    """The warnings of a dry run on so many classes."""

    def call(method, classes, *bindings, status=0):
        given = ["Recipe.dataset = @few_digits_of_test", f"few_digits_of_test.classes = {classes}"]
        given = [f"--gin_param={binding}" for binding in (*given, *bindings)]
        result = command(f"--gin_file=gin/digits/{method}.gin", "--dry_run", *given)
        assert result.status == status, result.err
        return result.err

    return call


LOST = {
    "DKD": ["warning: DKD with 2 classes: NCKD is exactly 0", "Method.objective = @KD with "],
    "DIST": ["warning: DIST with 2 classes: the correlation", "Use Method.objective = @KD"],
    "DTKD": ["warning: DTKD with 2 classes: the two temperatures", "DTKD.dtkd_weight = 0"],
}


@pytest.mark.parametrize("objective", LOST)
def test_a_dry_run_says_what_two_classes_lose(objective, dry):
    chosen = f"Method.objective = @{objective}"
    lines = dry("kd", 2, chosen).splitlines()
    assert all(text in lines[0] for text in LOST[objective])
    assert len(lines) == 2  # and top-5
    assert dry("kd", 6, chosen) == ""


def test_a_dry_run_says_that_a_learned_t_has_no_maximum(dry):
    shown = dry("ctkd", 2)
    assert shown.startswith("warning: KD with 2 classes: T² · KL of every row grows with T")
    assert "Method.policy = @ConstantTemperature" in shown
    assert dry("ctkd", 6) == ""


def test_a_dry_run_says_what_standardized_rows_of_two_lose(dry):
    chosen = "Method.transform = @LogitStandardization"
    shown = dry("kd", 2, chosen)
    assert shown.startswith("warning: LogitStandardization with 2 classes: ")
    assert "always ±0.7071" in shown
    assert "Use Method.transform = None" in shown
    assert dry("kd", 6, chosen) == ""


@pytest.mark.parametrize("objective", ["KD", "WTTM"])
def test_what_works_with_two_classes_warns_of_top_5_alone(objective, dry):
    assert dry("kd", 2, f"Method.objective = @{objective}").splitlines() == [
        "warning: test_top5 is always 100 % with 2 classes, because five guesses name every class: "
        "read test_top1"
    ]


@pytest.mark.parametrize("classes", [5, 6])
def test_top_5_means_something_from_six_classes_on(classes, dry):
    assert ("test_top5 is always 100 %" in dry("kd", classes)) == (classes == 5)


def test_one_class_is_refused(dry):
    for method, name in (("vanilla", "CrossEntropy"), ("kd", "KD"), ("dkd", "DKD")):
        shown = dry(method, 1, status=2)
        assert shown == (
            f"ctkd: the data set has num_classes = 1, {name} needs 2 or more: with one class every "
            "softmax is 1 and every loss is 0. Add a class to the data\n"
        )


def test_an_objective_of_ones_own_may_take_one_class(dry):
    shown = dry("vanilla", 1, "Method.objective = @plain_of_test_few_classes")
    assert shown.startswith("warning: test_top5 is always 100 % with 1 classes")


def test_a_run_warns_before_it_trains_its_teacher(command, tmp_path, monkeypatch):
    """A teacher's training may take hours: the warning comes first."""
    from ctkd.engine import prepare
    from ctkd.errors import DataError

    def stop(run, workdir, console):
        raise DataError("this is where the teacher would be trained")

    monkeypatch.setattr(prepare, "trained_teacher", stop)
    result = command(
        "--gin_file=gin/digits/dkd.gin", "--gin_param=Recipe.dataset = @few_digits_of_test"
    )
    first, *_, last = result.err.splitlines()
    assert first.startswith("warning: DKD with 2 classes: NCKD is exactly 0")
    assert last == "ctkd: this is where the teacher would be trained"


def test_a_detector_of_one_category_learns_that_the_background_is_a_class(command):
    given = ["coco.categories = 1", "data_dir = '/nowhere'"]
    result = command(
        "--gin_file=gin/coco/dkd.gin", "--dry_run", *(f"--gin_param={one}" for one in given)
    )
    assert result.status == 0, result.err
    assert "DKD with 2 classes: NCKD is exactly 0" in result.err
    assert "(a detector counts the background as one class)" in result.err
    assert "top5" not in result.err
