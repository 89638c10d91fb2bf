"""A step with one sample: refused where a network cannot be trained on one, before training."""

import contextlib
import dataclasses

import pytest
import torch

from ctkd.data.coco import COCO
from ctkd.engine.distributed.world import World
from ctkd.engine.job import Job
from ctkd.engine.smallest_step import check_smallest_step
from ctkd.engine.tasks.detection import DetectionTask, Loading
from ctkd.errors import ConfigError
from ctkd.registry import MODELS

REASON = "Expected more than 1 value per channel when training"


@pytest.fixture
def images(image_folders, command):
    """Runs on 24 images of 32 pixels with a network that ends at 1 × 1."""

    def run(*bindings, workdir="run"):
        small = [
            f"data_dir = {str(image_folders)!r}",
            *("imagenet.num_classes = 3", "imagenet.size = 32", "imagenet.resize = 32"),
            *(
                "student = @resnet18",
                "epochs = 1",
                "workers = 0",
                "Runtime.tensorboard = False",
                "Runtime.figures = False",
            ),
        ]
        parameters = [f"--gin_param={binding}" for binding in (*small, *bindings)]
        return command("--gin_file=gin/imagenet/vanilla.gin", *parameters, f"--workdir={workdir}")

    return run


def test_a_last_batch_of_one_image(images, tmp_path):
    refused = images("batch_size = 23")
    assert refused.status == 2
    message = refused.err.splitlines()[-1]
    assert message.startswith(
        "ctkd: the last batch of an epoch has 1 sample. The student cannot be trained on one "
        f"sample: {REASON}"
    )
    assert refused.err.endswith("Choose another batch_size than 23\n")
    assert not list((tmp_path / "run").rglob("*.pt"))


@pytest.mark.parametrize(
    ("bindings", "words"),
    [
        (["batch_size = 1"], "a batch has 1 sample"),
        (["batch_size = 22", "Runtime.accumulate = 2"], "has 2 samples, in 2 parts"),
        (["batch_size = 11", "imagenet.validation = 1"], "has 1 sample"),
    ],
)
def test_other_ways_to_one_image(images, bindings, words):
    refused = images(*bindings)
    assert refused.status == 2
    assert words in refused.err
    assert REASON in refused.err


def test_steps_of_more_images_are_trained(images):
    assert images("batch_size = 22").status == 0  # the last batch has 2
    cut = ("batch_size = 23", "steps_per_epoch = 1")
    assert images(*cut, workdir="cut").status == 0  # there is no last batch


def test_a_network_that_can_takes_one_image_as_before(train, same):
    """The digits' network ends at 4 × 4. The trial leaves no trace in its statistics."""
    small = ("digits.train_images = 65", "epochs = 1")  # batches of 64 and 1
    done = train("vanilla", *small)
    assert done.summary["steps"] == 2
    assert done.tensors()["features.1.num_batches_tracked"] == 2


def test_a_policy_with_a_batch_normalization(train):
    small = ("digits.train_images = 65", "InstanceTemperature.batch_norm = True")
    refused = train("ctkd_instance", *small, status=2).result.err
    assert f"The temperature policy cannot be trained on one sample: {REASON}" in refused
    assert train("ctkd_instance", *small, "digits.train_images = 66", workdir="two").summary


def test_evaluating_needs_no_steps(images, command, tmp_path, image_folders):
    assert images("batch_size = 22").status == 0
    student = tmp_path / "run" / "student_last.pt"
    evaluated = command(
        f"--gin_file={tmp_path}/run/config.gin",
        "--gin_param=batch_size = 23",
        "--mode=evaluate",
        f"--checkpoint={student}",
    )
    assert evaluated.status == 0, evaluated.err


@pytest.fixture
def built(image_folders):
    """A run on images, built, whose normalizations are each rank's own or all ranks'."""

    def make(batch_size, synchronized):
        bindings = [
            f"data_dir = {str(image_folders)!r}",
            *("imagenet.num_classes = 3", "imagenet.size = 32", "imagenet.resize = 32"),
            *("student = @resnet18", f"batch_size = {batch_size}"),
            f"Recipe.sync_batch_norm = {synchronized}",
        ]
        return Job(["gin/imagenet/vanilla.gin"], bindings).build()

    return make


class Steps:
    """A task as far as `check_smallest_step` is concerned."""

    def __init__(self, smallest_batch):
        self.smallest_batch = smallest_batch

    def try_student(self, student):
        student(torch.zeros(1, 3, 32, 32))


def test_a_ranks_share_of_one_image(built):
    run = built(22, synchronized=False)
    with pytest.raises(ConfigError, match=r"2 samples, for 2 processes.*or fewer processes"):
        check_smallest_step(run, Steps(2), World(0, 2))
    check_smallest_step(run, Steps(4), World(0, 2))
    check_smallest_step(built(22, synchronized=True), Steps(2), World(0, 2))


@pytest.mark.parametrize(("side", "fits"), [(32, False), (33, True)])
def test_a_detectors_share_of_one_picture(coco_folder, built, side, fits):
    """A batch is padded to multiples of 32 pixels: a square of 32 gives one value at stride 32."""
    data = COCO(str(coco_folder), categories=3, short_sides=(side,), test_side=side)
    splits = data.load()
    splits.train.sizes[0] = torch.tensor([60, 60])  # the others are 80 × 60
    task = DetectionTask(data, splits, Loading(1, 0), torch.device("cpu"), World())
    student = MODELS.get("fasterrcnn_resnet18_fpn")(num_classes=4, pyramid_channels=8)
    run = dataclasses.replace(built(1, synchronized=True), student=student)
    with contextlib.nullcontext() if fits else pytest.raises(ConfigError, match=REASON):
        check_smallest_step(run, task, World())
