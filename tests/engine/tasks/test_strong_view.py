"""The strong view: a function of (seed, epoch, index), for images in memory and in files."""

import numpy as np
import pytest
import torch
from PIL import Image

from ctkd.data.coco import COCO
from ctkd.data.digits import Digits
from ctkd.data.imagenet import ImageNet
from ctkd.data.rand_augment import RandAugment
from ctkd.engine.distributed.world import World
from ctkd.engine.job import Job
from ctkd.engine.task import Batch
from ctkd.engine.tasks.images_from_files import StreamedTask
from ctkd.engine.tasks.images_in_memory import ClassificationTask
from ctkd.engine.tasks.strong_view import StrongViewSettings, augmentation_of, check_strong_view
from ctkd.errors import ConfigError
from ctkd.losses.crld import CRLD

CPU = torch.device("cpu")
OBJECTIVE = "Method.objective = @CRLD"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two classes of five images of 20 × 24 pixels, as ImageNet's folders."""
    root, drawn = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("n01", "n02"):
            (root / split / name).mkdir(parents=True)
            for number in range(5):
                pixels = drawn.integers(0, 256, (20, 24, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{number}.png")
    return root


def make(kind, folder, seed=0, batch_size=8, world=World(), augment=True, **more):
    """A small task of the kind."""
    if kind == "resident":
        dataset, task, colors = Digits(train_images=20), ClassificationTask, 1
    else:
        dataset, task, colors = ImageNet(str(folder), num_classes=2, size=8), StreamedTask, 3
    made = RandAugment(2, 0.5, torch.full((colors,), 99).byte()) if augment else None
    split = dataset.load()
    return task(dataset, split, batch_size, seed, CPU, world, augment=made, **more)


def views(task, epoch=1):
    """Each image's (plain, strong) view, by its index."""
    found = {}
    for batch in task.batches(epoch, 0):
        for index, *both in zip(batch.indices.tolist(), batch.inputs, batch.strong, strict=True):
            found[index] = torch.stack(both)
    return torch.stack([found[index] for index in sorted(found)])


KINDS = pytest.mark.parametrize("kind", ["resident", "streamed"])


@KINDS
def test_a_view_depends_on_seed_epoch_and_index_alone(kind, folder):
    alone = views(make(kind, folder))
    assert torch.equal(views(make(kind, folder, batch_size=3)), alone)
    for seed, epoch in ((1, 1), (0, 2)):
        other = views(
            make(kind, folder, seed=seed, epochs=2)
            if kind == "streamed"
            else make(kind, folder, seed=seed),
            epoch,
        )
        assert not torch.equal(other[:, 1], alone[:, 1])
    ranks = [list(make(kind, folder, world=World(rank, 2)).batches(1, 0)) for rank in range(2)]
    for batch in ranks[0] + ranks[1]:
        assert torch.equal(batch.strong, alone[batch.indices, 1])
    # The plain view is that of a run without a second view, and the second view differs from it.
    plain = torch.cat([batch.inputs for batch in make(kind, folder, augment=False).batches(1, 0)])
    indices = torch.cat([b.indices for b in make(kind, folder, augment=False).batches(1, 0)])
    assert torch.equal(plain, alone[indices, 0])
    assert (alone[:, 0] != alone[:, 1]).flatten(1).any(1).float().mean() > 0.8


@pytest.mark.slow
def test_workers_make_the_same_views(folder):
    alone = views(make("streamed", folder))
    assert torch.equal(views(make("streamed", folder, workers=2)), alone)


@KINDS
def test_inputs_are_normalized_and_laid_out_as_the_plain_ones(kind, folder):
    batch = next(make(kind, folder).batches(1, 0))
    assert batch.strong.shape == batch.inputs.shape
    assert batch.strong.dtype == torch.float32
    assert batch.strong.is_contiguous(memory_format=torch.channels_last)
    probes = [make(kind, folder, batch_size=size).probe(6).strong for size in (8, 3)]
    assert torch.equal(*probes)


@KINDS
def test_parts_carry_their_share_and_rows_both_networks_logits(kind, folder):
    task = make(kind, folder)
    batch = next(task.batches(1, 0))
    parts = list(batch.parts(3))
    assert torch.equal(torch.cat([part.strong for part in parts]), batch.strong)
    asked = []

    def teacher(given):
        asked.append(given)
        return 2 * given.inputs.flatten(1)

    rows = task.rows(lambda images: images.flatten(1), teacher, parts[1])
    student, of_teacher = rows.strong
    assert torch.equal(student, parts[1].strong.flatten(1))
    assert torch.equal(of_teacher, 2 * student)
    assert [given.has_views for given in asked] == [True, False]  # no cache has a strong view
    assert task.rows(lambda images: images, None, parts[1]).strong is None
    without = next(make(kind, folder, augment=False).batches(1, 0))
    assert without.strong is None
    assert [part.strong for part in without.parts(2)] == [None, None]
    assert isinstance(without, Batch)


def run_of(*bindings):
    return Job(["gin/digits/ctkd.gin"], bindings).build(meta=True)


def test_only_an_objective_that_needs_a_strong_view_gets_one():
    run = run_of()
    assert augmentation_of(run.strong_view, run.dataset) is None
    run = run_of(OBJECTIVE, "StrongView.operations = 3", "StrongView.cutout = 0.25")
    made = augmentation_of(run.strong_view, run.dataset)
    assert (made.operations, made.cutout) == (3, 0.25)
    assert made.color.tolist() == [round(255 * 0.3052)]  # the digits' mean gray
    assert run.settings["method"]["StrongView.operations"] == 3
    with pytest.raises(ConfigError, match="changes nothing"):
        run_of("StrongView.cutout = 0.25")


def test_what_has_no_strong_view_is_refused():
    with pytest.raises(ConfigError, match="CRLD compares two views .* coco has no such view"):
        check_strong_view(CRLD(), COCO())
    for wrong in ({"operations": -1}, {"cutout": 1.5}):
        with pytest.raises(ConfigError, match=f"StrongView.{next(iter(wrong))}"):
            StrongViewSettings(**wrong)
