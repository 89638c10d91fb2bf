"""The classification task: batches are functions of (seed, epoch), metrics are in percent."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ctkd.data.augment import CropFlip
from ctkd.data.in_memory import ResidentDataset, Split, Splits
from ctkd.engine.distributed.world import World
from ctkd.engine.task import Batch
from ctkd.engine.tasks.images_in_memory import ClassificationTask

TRAIN, TEST, CLASSES = 50, 300, 7


class Numbered(ResidentDataset):
    """Image i shows the number i in all its pixels, so that a batch tells its samples."""

    num_classes = CLASSES
    shape = (1, 3, 3)
    mean, std = (0.0,), (1 / 255,)
    views = CropFlip(1, flip=False)

    def load(self):
        def split(count):
            numbers = torch.arange(count) % 256
            images = numbers.to(torch.uint8).view(-1, 1, 1, 1).expand(count, 3, 3, 1)
            return Split(images.contiguous(), torch.arange(count) % CLASSES)

        return Splits(split(TRAIN), split(TEST), split(20))


def make(seed=0, batch_size=16, world=World(), **more):
    dataset = Numbered()
    return ClassificationTask(
        dataset, dataset.load(), batch_size, seed, torch.device("cpu"), world, **more
    )


def indices(batches):
    return torch.cat([batch.indices for batch in batches])


def test_an_epoch_has_each_image_once_and_the_last_batch_may_be_smaller():
    batches = list(make().batches(1, skip=0))
    assert [batch.samples for batch in batches] == [16, 16, 16, 2]
    assert [len(batch.inputs) for batch in batches] == [16, 16, 16, 2]
    assert indices(batches).sort().values.tolist() == list(range(TRAIN))
    assert make().steps_per_epoch == 4


def test_a_batch_carries_the_images_and_classes_of_its_indices_and_views():
    for batch in make().batches(2, skip=0):
        assert torch.equal(batch.targets, batch.indices % CLASSES)
        center = batch.inputs[:, 0, 1, 1]
        torch.testing.assert_close(center, batch.indices.float())
        top = batch.views // 3 == 0  # the crop whose first row is the border
        assert batch.inputs[top][:, 0, 0].eq(0).all()
        assert batch.views.min() >= 0
        assert batch.views.max() < 9


@pytest.mark.parametrize("skip", [1, 3])
def test_the_middle_of_an_epoch_is_reached_without_its_beginning(skip):
    whole, rest = list(make().batches(3, skip=0)), list(make().batches(3, skip=skip))
    assert len(rest) == len(whole) - skip
    for one, other in zip(whole[skip:], rest, strict=True):
        assert torch.equal(one.inputs, other.inputs)
        assert torch.equal(one.views, other.views)


def test_order_and_views_depend_on_seed_and_epoch_alone():
    order = indices(make().batches(1, 0))
    torch.manual_seed(77)
    assert torch.equal(indices(make().batches(1, 0)), order)
    assert not torch.equal(indices(make().batches(2, 0)), order)
    assert not torch.equal(indices(make(seed=1).batches(1, 0)), order)


def test_a_samples_view_does_not_depend_on_batch_size_or_order():
    def views(**more):
        batches = list(make(**more).batches(1, 0))
        pairs = zip(indices(batches), torch.cat([b.views for b in batches]), strict=True)
        return {int(index): int(view) for index, view in pairs}

    assert views(batch_size=16) == views(batch_size=7)


def test_ranks_share_a_step_and_together_make_it_up():
    alone = list(make().batches(1, 0))
    ranks = [list(make(world=World(rank, 3)).batches(1, 0)) for rank in range(3)]
    for step, whole in enumerate(alone):
        parts = [batches[step] for batches in ranks]
        assert all(part.samples == whole.samples for part in parts)
        together = torch.cat([part.indices for part in parts]).sort().values
        assert torch.equal(together, whole.indices.sort().values)
    assert World().is_main
    assert not World(1, 3).is_main


def test_an_epoch_can_be_cut_short():
    cut = make(steps_per_epoch=2)
    assert cut.steps_per_epoch == 2
    assert torch.equal(indices(cut.batches(1, 0)), indices(make().batches(1, 0))[:32])
    assert make(steps_per_epoch=100).steps_per_epoch == 4


def test_the_probe_is_the_seeds_alone():
    probe = make().probe(20)
    assert len(probe.indices.unique()) == 20
    assert torch.equal(probe.indices, make(batch_size=3).probe(20).indices)
    assert not torch.equal(probe.indices, make(seed=1).probe(20).indices)
    assert len(make().probe(1000).indices) == TRAIN


class Scorer(nn.Module):
    """Logits that put the true class of image i at rank i % 7, and remember their mode."""

    def __init__(self):
        super().__init__()
        self.modes = []

    def forward(self, images):
        self.modes.append((self.training, torch.is_grad_enabled()))
        number = images[:, 0, 1, 1].round().long()
        target, rank = number % CLASSES, (number // CLASSES) % CLASSES
        logits = torch.zeros(len(images), CLASSES)
        for row in range(len(images)):
            others = [c for c in range(CLASSES) if c != target[row]]
            ranking = [*others[: rank[row]], target[row], *others[rank[row] :]]
            logits[row, torch.tensor(ranking)] = torch.arange(CLASSES, 0, -1).float()
        return logits


def test_top1_and_top5_are_percent_and_the_loss_a_mean():
    metrics = make().evaluate(Scorer())
    images = make().evaluated["test"].batch(torch.arange(TEST))
    logits, targets = Scorer()(images), torch.arange(TEST) % CLASSES
    order = logits.argsort(dim=1, descending=True)
    position = order.eq(targets[:, None]).int().argmax(1)
    assert metrics["test_top1"] == 100 * int((position == 0).sum()) / TEST  # no tail: 37.67, say
    assert metrics["test_top5"] == pytest.approx(100 * (position < 5).double().mean().item())
    assert metrics["test_loss"] == pytest.approx(F.cross_entropy(logits, targets).item())
    assert 0 < metrics["test_top1"] < metrics["test_top5"] < 100


def test_validation_is_judged_apart():
    metrics = make().evaluate(Scorer())
    assert {"validation_top1", "validation_top5", "validation_loss"} <= set(metrics)
    assert metrics["validation_top1"] == 100 * 7 / 20  # ranks 0 of the numbers 0..6


@pytest.mark.parametrize("training", [True, False])
def test_evaluating_is_in_eval_mode_without_gradient_and_restores_the_mode(training):
    model = Scorer().train(training)
    make().evaluate(model)
    assert set(model.modes) == {(False, False)}
    assert model.training is training


def test_rows_are_the_networks_logits():
    task, asked = make(), []

    def teacher(batch):
        asked.append(batch)
        return torch.zeros(batch.samples, CLASSES)

    batch = next(task.batches(1, 0))
    rows = task.rows(lambda images: images.flatten(1), teacher, batch)
    assert torch.equal(rows.student, batch.inputs.flatten(1))
    assert asked == [batch]  # with its indices and views, to look its rows up
    assert torch.equal(rows.targets, batch.targets)
    assert task.rows(lambda images: images, None, batch).teacher is None


@pytest.mark.parametrize("count", [1, 2, 3, 16, 40])
def test_parts_of_a_batch_make_it_up_and_keep_the_whole_steps_rows(count):
    batch = next(make().batches(1, 0))
    parts = list(batch.parts(count))
    assert len(parts) <= count
    for name in ("inputs", "targets", "indices", "views"):
        together = torch.cat([getattr(part, name) for part in parts])
        assert torch.equal(together, getattr(batch, name))
    assert {part.samples for part in parts} == {16}
    assert all(isinstance(part, Batch) for part in parts)
