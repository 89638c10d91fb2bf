"""A run is named by its method; a method that undoes what an earlier file set is reported."""

import pytest

from ctkd.engine.job import Job
from ctkd.errors import ConfigError

DKD, CTKD, KD = (f"gin/cifar100/{name}.gin" for name in ("dkd", "ctkd", "kd"))
PAIR, SAMPLE = "gin/cifar100/pairs/vgg13_vgg8.gin", "gin/imagenet/sample.gin"
PAIR_FOLDER = "runs/cifar100/vgg13_vgg8"


@pytest.fixture
def built():
    return lambda *files, params=(): Job(files, params).build(meta=True)


@pytest.mark.parametrize(
    ("files", "params", "expected"),
    [
        ([CTKD], [], "ctkd"),
        ([CTKD, PAIR], [], "ctkd"),
        ([PAIR, CTKD], [], "ctkd"),
        ([DKD, CTKD], [], "ctkd"),
        ([KD], ["epochs = 3", "KD.kd_weight = 2.0"], "kd"),
        ([CTKD], ["Method.policy = @InstanceTemperature"], "ctkd+InstanceTemperature"),
        ([CTKD], ["Method.policy = @GlobalTemperature"], "ctkd"),
        ([CTKD], ["Runtime.name = 'mine'"], "mine"),
    ],
)
def test_the_name_is_that_of_the_last_method(built, files, params, expected):
    assert built(*files, params=params).name == expected


def test_files_of_two_methods_get_the_file_to_give_instead(built):
    with pytest.raises(
        ConfigError, match=r"ctkd.gin and gin/cifar100/dkd.gin are 2 methods"
    ) as raised:
        built(CTKD, DKD)
    assert "--gin_file=gin/cifar100/dkd_ctkd.gin for both" in str(raised.value)


def test_a_file_that_changes_a_part_of_the_method_is_in_the_name(built, tmp_path):
    own = tmp_path / "mine.gin"
    own.write_text("Method.transform = @LogitStandardization\n")
    assert built(KD, str(own)).name == "kd+mine"
    own.write_text(f"include '{KD}'\nKD.kd_weight = 2.0\n")
    assert built(str(own)).name == "mine"


def test_pairs_have_folders_of_their_own(built):
    job = Job([CTKD, PAIR])
    assert str(job.workdir_of(job.build(meta=True))).startswith(f"{PAIR_FOLDER}/ctkd-seed0-")
    job = Job(["gin/cifar100/vanilla.gin", PAIR])
    assert str(job.workdir_of(job.build(meta=True))).startswith("runs/cifar100/vgg8/vanilla-seed0-")


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ([DKD, CTKD], "ctkd.gin, given after dkd.gin, changes the objective from @DKD to @KD"),
        (
            [PAIR, CTKD],
            "changes the student from @vgg8 to @resnet20: to keep @vgg8, give vgg13_vgg8",
        ),
        ([SAMPLE, "gin/imagenet/kd.gin"], "changes the epochs from 15 to 120"),
    ],
)
def test_a_method_that_undoes_an_earlier_file_gives_a_warning(built, files, expected):
    assert any(expected in fault for fault in built(*files).config_faults)


@pytest.mark.parametrize("files", [[CTKD], [CTKD, PAIR], ["gin/imagenet/kd.gin", SAMPLE]])
def test_files_in_their_usual_order_give_none(built, files):
    assert built(*files).config_faults == ()


def test_the_warning_reaches_the_console(command):
    result = command(f"--gin_file={DKD}", f"--gin_file={CTKD}", "--dry_run")
    assert "warning: ctkd.gin, given after dkd.gin, changes the objective" in result.err
