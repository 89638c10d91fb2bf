"""A set that lives whole on the device gives the batches that torchvision's transforms would."""

import pytest
import torch
from torchvision.transforms import v2

from ctkd.data.augment import CropFlip
from ctkd.data.dataset import take_validation
from ctkd.data.in_memory import ResidentDataset, ResidentImages, Split, Splits
from ctkd.seeds import generator

MEAN, STD = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)


class Pictures(ResidentDataset):
    num_classes = 4
    shape = (3, 6, 5)
    mean, std = MEAN, STD

    def __init__(self, count=9, padding=2, flip=True):
        self.views = CropFlip(padding, flip)
        self.count = count

    def load(self):
        drawn = generator("pictures")
        size = (self.count, 6, 5, 3)
        images = torch.randint(0, 256, size, generator=drawn, dtype=torch.uint8)
        split = Split(images, torch.arange(self.count) % 4)
        return Splits(split, split)


@pytest.fixture
def dataset():
    return Pictures()


@pytest.fixture
def resident(dataset):
    return ResidentImages(dataset.load().train, dataset, torch.device("cpu"))


def test_without_views_a_batch_is_to_tensor_and_normalize(dataset, resident):
    theirs = v2.Compose(
        [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    )
    pictures = dataset.load().train.images
    indices = torch.tensor([3, 3, 8, 0])
    expected = torch.stack([theirs(pictures[index].numpy()) for index in indices])
    torch.testing.assert_close(resident.batch(indices), expected, rtol=1e-5, atol=1e-6)


def test_a_view_is_cropped_before_it_is_normalized_so_the_border_is_black(dataset, resident):
    corner = torch.tensor([0])  # the crop at the top left: two rows and columns of border
    (picture,) = resident.batch(torch.tensor([1]), corner)
    black = torch.tensor([-mean / std for mean, std in zip(MEAN, STD, strict=True)])
    torch.testing.assert_close(picture[:, 0, 0], black)
    whole = resident.batch(torch.tensor([1]))[0]
    torch.testing.assert_close(picture[:, 2:, 2:], whole[:, :-2, :-2])


def test_batches_are_float32_channels_last(resident):
    batch = resident.batch(torch.arange(9), torch.arange(9))
    assert batch.dtype == torch.float32
    assert batch.shape == (9, 3, 6, 5)
    assert batch.is_contiguous(memory_format=torch.channels_last)


def test_batches_may_be_changed_without_changing_the_set(resident):
    before = resident.batch(torch.arange(9)).clone()
    resident.batch(torch.arange(9)).zero_()
    assert torch.equal(resident.batch(torch.arange(9)), before)


def test_lengths_and_targets(dataset, resident):
    assert len(resident) == len(dataset.load().train) == 9
    assert torch.equal(resident.targets, torch.arange(9) % 4)


@pytest.mark.parametrize("count", [1, 3, 8])
def test_validation_is_a_fixed_part_of_the_training_images(count):
    train = Pictures(count=20).load().train
    kept, aside = take_validation(train, count)
    assert (len(kept), len(aside)) == (20 - count, count)
    together = torch.cat([kept.images, aside.images]).flatten(1)
    assert torch.equal(together.unique(dim=0), train.images.flatten(1).unique(dim=0))
    torch.manual_seed(1)
    assert torch.equal(take_validation(train, count)[1].images, aside.images)


def test_each_image_keeps_its_class():
    train = Pictures(count=20).load().train
    pairs = zip(train.images, train.targets, strict=True)
    classes = {tuple(image.flatten().tolist()): int(target) for image, target in pairs}
    for split in take_validation(train, 6):
        for image, target in zip(split.images, split.targets, strict=True):
            assert classes[tuple(image.flatten().tolist())] == target


def test_no_validation_leaves_the_training_images_as_they_are():
    train = Pictures().load().train
    assert take_validation(train, 0) == (train, None)


def test_a_data_set_must_say_how_it_loads():
    class Half(ResidentDataset):
        pass

    with pytest.raises(TypeError, match="load"):
        Half()
