"""Augmented batches: stateless, the same for any number of ranks, refused where they must be."""

import pytest
import torch

from ctkd.data.digits import Digits
from ctkd.data.imagenet import ImageNet
from ctkd.engine.distributed.world import World
from ctkd.engine.tasks.augmentation import Augmentation
from ctkd.engine.tasks.images_from_files import StreamedTask
from ctkd.engine.tasks.images_in_memory import ClassificationTask
from ctkd.errors import ConfigError

CPU = torch.device("cpu")
MIXED = Augmentation(policy="randaugment", erasing=0.5, mixup=0.8, cutmix=1.0, label_smoothing=0.1)
BINDINGS = ("Augmentation.mixup = 0.8", "Augmentation.cutmix = 1.0", "Augmentation.erasing = 0.3")


def task(world=World(), settings=MIXED, images=100):
    dataset = Digits(train_images=images)
    return ClassificationTask(dataset, dataset.load(), 32, 0, CPU, world, augmentation=settings)


def steps(made, epoch, skip=0):
    return [(b.inputs, b.targets) for b in made.batches(epoch, skip)]


@pytest.mark.parametrize("ranks", [2, 3])
def test_the_ranks_together_have_the_batch_of_one_rank(ranks):
    """100 images in steps of 32: the last step, of 4, has other partners on other ranks."""
    alone = steps(task(), 1)
    shared = [steps(task(World(rank, ranks)), 1) for rank in range(ranks)]
    for step, whole in enumerate(alone):
        for kind in (0, 1):
            for rank in range(ranks):
                mine = shared[rank][step][kind]
                torch.testing.assert_close(mine, whole[kind][rank::ranks])


def test_a_resumed_epoch_has_the_same_batches_and_another_epoch_others():
    whole, rest = steps(task(), 1), steps(task(), 1, skip=2)
    for one, two in zip(whole[2:], rest, strict=True):
        assert all(map(torch.equal, one, two))
    assert not torch.equal(whole[0][1], steps(task(), 2)[0][1])


def test_parts_of_a_step_are_the_parts_of_its_mixed_batch():
    batch = next(task().batches(1, 0))
    parts = list(batch.parts(3))
    assert torch.equal(torch.cat([part.inputs for part in parts]), batch.inputs)
    assert torch.equal(torch.cat([part.targets for part in parts]), batch.targets)


def test_without_augmentation_nothing_changes_and_smoothing_touches_targets_alone():
    plain, off = next(task(settings=Augmentation()).batches(1, 0)), Augmentation(mixup=0.8, mixed=0)
    same = next(task(settings=off).batches(1, 0))
    assert torch.equal(plain.inputs, same.inputs)
    assert torch.equal(plain.targets, same.targets)
    smooth = next(task(settings=Augmentation(label_smoothing=0.1)).batches(1, 0))
    assert torch.equal(plain.inputs, smooth.inputs)
    assert torch.equal(smooth.targets.argmax(1), plain.targets)
    assert torch.equal(plain.views, smooth.views)  # whose teacher rows are remembered


def test_a_run_with_mixing_learns_t_and_resumes_with_the_same_bits(train, interrupted_at, same):
    whole = train("ctkd_instance", *BINDINGS, workdir="whole")
    losses = whole.column("train_ce")
    assert losses[-1] < losses[0]
    assert whole.summary["t_star"] > 0
    with interrupted_at(3):
        train("ctkd_instance", *BINDINGS, workdir="stopped", status=130)
    assert same(train("ctkd_instance", *BINDINGS, workdir="stopped").tensors(), whole.tensors())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("dkd", *BINDINGS[:2]), "DKD needs one class for each image, and Augmentation (mixup = 0"),
        (("ctkd", "Method.objective = @MLKD", BINDINGS[0]), "MLKD compares two views of one image"),
    ],
)
def test_what_does_not_fit_an_augmentation_is_refused(train, given, message):
    assert message in train(*given, status=2).result.err


def test_teacher_rows_of_augmented_images_are_not_remembered(train, tmp_path):
    cache = f"teacher_cache = {str(tmp_path / 'cache')!r}"
    train("kd", cache, BINDINGS[2], "epochs = 1", workdir="augmented")
    assert not (tmp_path / "cache").exists()
    train("kd", cache, "Augmentation.label_smoothing = 0.1", "epochs = 1", workdir="smooth")
    assert (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        ({"mixup": -0.1}, "mixup"),
        ({"cutmix": float("nan")}, "cutmix"),
        ({"erasing": 1.1}, "erasing"),
        ({"label_smoothing": -1.0}, "label_smoothing"),
        ({"magnitude": 31}, "magnitude"),
    ],
)
def test_settings_out_of_range_are_refused(wrong, name):
    with pytest.raises(ConfigError, match=rf"^Augmentation\.{name} = .*: expected "):
        Augmentation(**wrong)


def test_files_are_augmented_the_same_for_any_number_of_ranks_and_workers(image_folders):
    dataset = ImageNet(str(image_folders), num_classes=3, size=16, resize=18)
    settings = Augmentation(policy="trivialaugment", mixup=0.8, cutmix=1.0, erasing=0.5)

    def batches(world=World(), workers=0):
        options = {"workers": workers, "augmentation": settings}
        task = StreamedTask(dataset, dataset.load(), 7, 0, CPU, world, **options)
        return [(b.inputs, b.targets, b.indices) for b in task.batches(1, 0)]

    alone = batches()
    assert [len(targets) for _, targets, _ in alone] == [7, 7, 7, 3]
    for one, other in zip(alone, batches(workers=2), strict=True):
        assert all(map(torch.equal, one, other))
    for rank in (0, 1):
        for mine, whole in zip(batches(World(rank, 2)), alone, strict=True):
            for part, everything in zip(mine, whole, strict=True):
                torch.testing.assert_close(part, everything[rank::2])
