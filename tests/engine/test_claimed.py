"""A teacher that misses its published accuracy: a warning that names the likely cause."""

import pytest

from ctkd.engine.diagnostics.warnings import CLAIM_MISSED, faults_of_teacher
from ctkd.engine.job import Job


class Whole:
    """A task whose data are not cut."""

    monitor = "test_top1"
    is_cut = False


class Cut(Whole):
    is_cut = True


@pytest.fixture
def faults():
    """The warnings for a CIFAR-100 teacher that scores `measured`, claimed: 72.34."""

    def call(measured, *bindings, task=Whole, file="gin/cifar100/kd.gin"):
        given = ["teacher_weights = '/weights/resnet56.pth'", *bindings]
        run = Job([file], given).build(meta=True)
        return faults_of_teacher(run, {"teacher_top1": measured}, task())

    return call


def test_ten_points_are_reported_with_the_normalization_as_the_likely_cause(faults):
    (fault,) = faults(62.31)
    assert fault.startswith(
        "the teacher scores 62.31 %, 10.03 points below its published accuracy, "
        "Teacher.published_accuracy = 72.34. The likely cause is the normalization: "
        "cifar100.mean = (0.5071, 0.4867, 0.4408) "
        "and cifar100.std = (0.2675, 0.2565, 0.2761) must be the mean"
    )
    for pair in (
        "(0.507, 0.4865, 0.4409) and (0.2673, 0.2564, 0.2761) (chenyaofo's models, CIFAR-100)",
        "(0.4914, 0.4822, 0.4465) and (0.247, 0.2435, 0.2616) (CIFAR-10)",
        "(0.5, 0.5, 0.5) and (0.5, 0.5, 0.5)",
        "(0.485, 0.456, 0.406) and (0.229, 0.224, 0.225) (ImageNet)",
    ):
        assert pair in fault
    assert "the distillation literature" not in fault  # they are in use
    assert "\n" not in fault


def test_with_other_values_in_use_those_of_the_literature_are_named(faults):
    other = ["cifar100.mean = (0.5, 0.5, 0.5)", "cifar100.std = (0.25, 0.25, 0.25)"]
    (fault,) = faults(62.31, *other)
    assert "cifar100.mean = (0.5, 0.5, 0.5) and cifar100.std = (0.25, 0.25, 0.25) must" in fault
    assert "(0.5071, 0.4867, 0.4408) and (0.2675, 0.2565, 0.2761) (the distillation" in fault


@pytest.mark.parametrize(("below", "count"), [(0.99, 0), (1.01, 1), (-3.0, 0)])
def test_from_one_point_on(faults, below, count):
    assert CLAIM_MISSED == 1.0
    assert len(faults(72.34 - below)) == count


def test_nothing_is_claimed_nothing_is_missed(faults):
    assert faults(10.0, "Teacher.published_accuracy = None") == []


def test_a_teacher_trained_here_has_another_cause(faults):
    here = ["teacher_weights = None", "Teacher.published_accuracy = 99.9"]
    digits = {"file": "gin/digits/kd.gin"}
    (fault,) = faults(90.0, *here, **digits)
    assert "It was trained here, by Teacher.run = 'gin/digits/teacher.gin'" in fault
    assert "normalization" not in fault
    assert faults(90.0, *here, task=Cut, **digits) == []


def test_a_run_warns_before_it_trains_and_goes_on(train):
    run = train("kd", "Teacher.published_accuracy = 99.9")
    assert run.result.err.startswith("warning: the teacher scores ")
    assert (
        "below its published accuracy, Teacher.published_accuracy = 99.9. Likely causes: other "
        in (run.result.err)
    )
    assert run.result.err.count("\n") == 1
    assert run.summary["finished"]


def test_the_floor_names_the_cause_too(train):
    run = train("kd", "Teacher.min_accuracy = 99.9", status=2)
    assert "below Teacher.min_accuracy = 99.9: too low to teach. Likely causes: other weig" in (
        run.result.err
    )
