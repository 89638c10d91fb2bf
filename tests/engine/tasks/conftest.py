"""The detection task on drawn pictures, and damaged image files."""

import pytest
import torch

from ctkd.data.coco import COCO
from ctkd.engine.distributed.world import World
from ctkd.engine.tasks.detection import DetectionTask, Loading

SIZES = {"categories": 3, "short_sides": (48, 64), "long_side": 96, "test_side": 64}


@pytest.fixture
def make(coco_folder):
    """Makes a detection task of 8 pictures: make(World(1, 2), workers=2, per_class=True)."""

    def call(world=World(), per_class=False, background_weight=1.0, **loading):
        dataset = COCO(str(coco_folder), per_class=per_class, **SIZES)
        wanted = Loading(**{"batch_size": 2, "seed": 0, **loading})
        device = torch.device("cpu")
        return DetectionTask(dataset, dataset.load(), wanted, device, world, background_weight)

    return call


@pytest.fixture
def task(make):
    return make()


@pytest.fixture
def damage():
    """Cuts files below a folder short."""

    def cut(root, *names):
        for name in names:
            path = root / name
            path.write_bytes(path.read_bytes()[:100])

    return cut
