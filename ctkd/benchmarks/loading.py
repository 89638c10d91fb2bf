"""Images a second: the resident data set against a DataLoader over PIL images."""

import functools
import itertools
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ctkd.benchmarks.measured_images import MeasuredCIFAR
from ctkd.benchmarks.plain_loop import PILImages, endless
from ctkd.benchmarks.timing import Section, Work, in_turns, quartiles, ratios, spelled
from ctkd.engine.distributed.world import World
from ctkd.engine.tasks.images_in_memory import ClassificationTask
from ctkd.results.compare.tables import Column, Table

BATCH = 64


def measure_loading(
    dataset: MeasuredCIFAR, device: torch.device, workers: int, rounds: int
) -> Section:
    """Batches of 64 with crop, flip and normalization, one after another and nothing else."""
    splits = dataset.load()
    task = ClassificationTask(dataset, splits, BATCH, 0, device, World())
    resident = (b for epoch in itertools.count(1) for b in task.batches(epoch, 0))
    images = PILImages(splits.train.images.numpy(), splits.train.targets.tolist())
    cases: dict[str, Work] = {"resident, on the device": lambda: next(resident).inputs}
    for count in sorted({0, workers}):
        loader = DataLoader(
            images, BATCH, shuffle=True, num_workers=count, persistent_workers=count > 0
        )
        batches = endless(loader)
        cases[f"DataLoader, {count} workers"] = functools.partial(_images, batches, device)
    # Long blocks: batches that workers made during the turns of other cases must not count.
    seconds = in_turns(cases, rounds, warm_up=1, repeat=50)
    base = seconds["DataLoader, 0 workers"]
    rows, data = [], []
    for name, values in seconds.items():
        speed = tuple(BATCH / value for value in reversed(quartiles(values)))
        ratio = ratios(base, values)
        rows.append([name, spelled(speed, 1, 0), spelled(ratio, 1, 1)])  # type: ignore[arg-type]
        data.append({"loader": name, "seconds": values, "images_per_s": speed[1]})
    columns = [Column("loader"), Column("images/s [quartiles]", "number")]
    columns.append(Column("times as fast as without workers", "number"))
    return Section("loader", "Loading, crop, flip, normalize", Table(columns, rows), data)


def _images(batches: Iterator[list[Tensor]], device: torch.device) -> Tensor:
    """The next batch's images on the device."""
    return next(batches)[0].to(device)
