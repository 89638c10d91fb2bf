"""Classification on image files: samples are the same for any number of workers; bad files."""

import pytest
import torch
from torch import nn

from ctkd.data.decoding import CenterCrop, decode
from ctkd.data.imagenet import ImageNet
from ctkd.engine.distributed.world import World
from ctkd.engine.task import ViewedTask
from ctkd.engine.tasks.images_from_files import StreamedTask
from ctkd.errors import DataError

CPU = torch.device("cpu")


def make(root, batch_size=7, world=None, seed=0, classes=3, max_bad=10, validation=0, **options):
    dataset = ImageNet(
        str(root),
        num_classes=classes,
        size=16,
        resize=18,
        max_bad=max_bad,
        validation=validation,
    )
    world = world or World()
    return StreamedTask(dataset, dataset.load(), batch_size, seed, CPU, world, **options)


def epoch_of(task, epoch, skip=0):
    return [(b.indices, b.inputs, b.targets, b.samples) for b in task.batches(epoch, skip)]


def equal(some, others):
    return len(some) == len(others) and all(
        torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
        for one, other in zip(some, others, strict=True)
        for a, b in zip(one, other, strict=True)
    )


class Table(nn.Module):
    """A network whose logits are the means of the colors."""

    def forward(self, images):
        return images.mean((2, 3))


def test_an_epoch_is_every_image_once_and_normalized(image_folders):
    task = make(image_folders)
    batches = epoch_of(task, 1)
    assert [len(targets) for _, _, targets, _ in batches] == [7, 7, 7, 3]  # the rest counts
    assert torch.cat([indices for indices, *_ in batches]).sort().values.tolist() == list(range(24))
    indices, inputs, targets, samples = batches[0]
    assert (inputs.shape, inputs.dtype, samples) == ((7, 3, 16, 16), torch.float32, 7)
    assert inputs.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(targets, indices // 8)
    mean, std = (
        torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    pixels = (inputs[0] * std + mean) * 255
    torch.testing.assert_close(pixels, pixels.round(), rtol=0, atol=1e-3)
    assert 0 <= pixels.round().min() < pixels.round().max() <= 255
    assert task.bad_samples() == []
    assert not isinstance(task, ViewedTask)  # its teacher rows cannot be cached


def test_epochs_and_seeds_differ_and_repeat_exactly(image_folders):
    task = make(image_folders, epochs=2)
    first, second = epoch_of(task, 1), epoch_of(task, 2)
    assert not torch.equal(first[0][0], second[0][0])
    assert equal(epoch_of(make(image_folders, epochs=2), 2), second)
    assert not torch.equal(epoch_of(make(image_folders, seed=1), 1)[0][0], first[0][0])
    views = {int(i): x for batch in first for i, x in zip(batch[0], batch[1], strict=True)}
    again = {int(i): x for batch in second for i, x in zip(batch[0], batch[1], strict=True)}
    assert sum(torch.equal(views[i], again[i]) for i in views) < 3  # another crop of each


def test_a_views_pixels_depend_on_no_neighbor(image_folders):
    """(seed, epoch, index) alone: another batch size shuffles nothing."""
    batches = [epoch_of(make(image_folders, size), 1) for size in (7, 24)]
    of = [{int(i): x for b in some for i, x in zip(b[0], b[1], strict=True)} for some in batches]
    assert all(torch.equal(of[0][i], of[1][i]) for i in range(24))


def test_workers_change_nothing(image_folders):
    alone = make(image_folders, epochs=2)
    shared = make(image_folders, epochs=2, workers=2)
    for epoch in (1, 2):
        assert equal(epoch_of(shared, epoch), epoch_of(alone, epoch))
    assert shared.evaluate(Table()) == alone.evaluate(Table())
    one, other = shared.probe(9), alone.probe(9)
    assert torch.equal(one.inputs, other.inputs)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_is_taken_up_anywhere(image_folders, workers):
    whole = epoch_of(make(image_folders, epochs=3), 2)
    for skip in (1, 3):
        assert equal(
            epoch_of(make(image_folders, epochs=3, workers=workers), 2, skip), whole[skip:]
        )


def test_an_epoch_that_was_left_is_begun_again_where_it_is_asked_for(image_folders):
    task = make(image_folders, epochs=2)
    whole = epoch_of(make(image_folders, epochs=2), 1)
    started = task.batches(1, 0)
    next(started)
    next(started)
    assert equal(epoch_of(task, 1, 1), whole[1:])
    assert equal(epoch_of(task, 1), whole)


def test_ranks_share_each_step(image_folders):
    whole = epoch_of(make(image_folders), 1)
    shares = [epoch_of(make(image_folders, world=World(rank, 2)), 1) for rank in range(2)]
    for step, (indices, inputs, _, samples) in enumerate(whole):
        for rank in range(2):
            mine = shares[rank][step]
            assert torch.equal(mine[0], indices[rank::2])
            assert torch.equal(mine[1], inputs[rank::2])
            assert mine[3] == samples == len(indices)


def test_a_cut_epoch(image_folders):
    task = make(image_folders, steps_per_epoch=2, epochs=2)
    assert task.steps_per_epoch == 2
    whole = epoch_of(make(image_folders), 1)
    assert equal(epoch_of(task, 1), whole[:2])
    assert len(epoch_of(task, 2)) == 2


def test_the_metrics_of_a_network_known_by_hand(image_folders):
    """Three classes, so top-5 is everything; top-1 is the color that the class is drawn in."""
    task = make(image_folders, validation=6)
    model = Table().train()
    metrics = task.evaluate(model)
    assert model.training
    assert metrics["test_top5"] == metrics["validation_top5"] == 100
    files, read = task.evaluated["test"], []
    for index in range(len(files)):
        pixels = CenterCrop(16, 18)(decode(files.path(index))).double() / 255
        mean, std = (torch.tensor(v) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        read.append((pixels.mean((1, 2)) - mean) / std)
    logits, targets = torch.stack(read), torch.from_numpy(files.targets)
    assert metrics["test_top1"] == (logits.argmax(1) == targets).double().mean() * 100
    loss = nn.functional.cross_entropy(logits, targets)
    assert metrics["test_loss"] == pytest.approx(loss.item(), abs=1e-5)


def test_bad_files_are_counted_once_and_replaced_or_left_out(own_images, damage):
    root = own_images()
    before = make(root).evaluate(Table())
    damage(root, "train/n00000000/train_3.JPEG", "val/n00000001/val_0.JPEG")
    task = make(root, epochs=2)
    for epoch in (1, 2):
        batches = epoch_of(task, epoch)
        assert [len(targets) for _, _, targets, _ in batches] == [7, 7, 7, 3]
    after = task.evaluate(Table())
    assert after["test_top1"] * 11 == pytest.approx(round(after["test_top1"] * 11 / 100) * 100)
    assert after["test_loss"] != before["test_loss"]
    found = task.bad_samples()
    assert ["train_3" in found[0], "val_0" in found[1], len(found)] == [True, True, 2]


@pytest.mark.parametrize("workers", [0, 2])
def test_too_many_bad_files_stop_the_run_and_are_named(own_images, workers, damage):
    root = own_images()
    damage(root, *(f"train/n00000000/train_{k}.JPEG" for k in range(3)))
    list(make(root, max_bad=3, workers=workers).batches(1, 0))
    with pytest.raises(DataError, match=r"more than imagenet.max_bad = 2:\n.*train_\d.JPEG"):
        list(make(root, max_bad=2, workers=workers).batches(1, 0))


def test_a_test_set_that_cannot_be_read_at_all(own_images, damage):
    root = own_images(classes=2, val=1)
    damage(root, "val/n00000000/val_0.JPEG", "val/n00000001/val_0.JPEG")
    with pytest.raises(DataError, match="none of the 2 test images"):
        make(root, classes=2).evaluate(Table())
