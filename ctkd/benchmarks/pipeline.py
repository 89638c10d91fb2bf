"""Images a second out of JPEG files: ours against the ordinary pipeline, and how the pixels differ.

The ordinary one is what every ImageNet training has had: PIL decodes, RandomResizedCrop and flip
work on the PIL image, ToTensor and Normalize on each image as floats, a DataLoader stacks them.
Ours decodes to bytes, cuts and resizes bytes, and normalizes a batch at a time. Both take the same
crops.
"""

import functools
import pathlib
import tempfile
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import functional

from ctkd.benchmarks.timing import Section, Work, in_turns, quartiles, ratios, spelled
from ctkd.data.decoding import RandomCrop
from ctkd.data.from_files import ImageFiles, Normalization, Reader, Samples, collate
from ctkd.data.imagenet import ImageNet
from ctkd.data.workers import stream
from ctkd.results.compare.tables import Column, Table

BATCH = 64
COUNT = 1920  # images in a pass, so that to start workers, which a run does once, is little of it
LARGE = (500, 375)  # ImageNet's typical picture, pixels
ORDINARY, OURS = "PIL, floats", "ctkd, bytes"
CROP = RandomCrop(224, (0.08, 1.0), (3 / 4, 4 / 3), True)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def measure_pipeline(
    folder: str | None, device: torch.device, workers: int, rounds: int, count: int = COUNT
) -> Section:
    """Whole passes in turns, with and without workers, at the sample's size and at 500 × 375."""
    columns = [Column("images"), Column("workers", "number"), Column("pipeline")]
    columns += [Column("images/s [quartiles]", "number"), Column("ratio", "number")]
    columns += [Column("pixels differ by: mean, max (of 255)")]
    rows: list[list[str]] = []
    data: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as directory:
        for name, files in _sets(folder, pathlib.Path(directory)):
            mean, largest = _difference(files)
            for processes in sorted({0, workers}):
                cases: dict[str, Work] = {
                    ORDINARY: functools.partial(_ordinary, files, processes, device, count),
                    OURS: functools.partial(_ours, files, processes, device, count),
                }
                seconds = in_turns(cases, rounds)
                for case, values in seconds.items():
                    speed = tuple(count / v for v in reversed(quartiles(values)))
                    ratio = ratios(seconds[ORDINARY], values)
                    cells = [spelled(speed, 1, 0), spelled(ratio, 1, 2)]  # type: ignore[arg-type]
                    differ = f"{mean:.2f}, {largest}" if case == OURS else ""
                    rows.append([name, str(processes), case, *cells, differ])
                    data.append(
                        {"images": name, "workers": processes, "case": case, "seconds": values}
                        | {"images_per_s": speed[1], "ratio": ratio[1]}
                        | {"difference_mean": mean, "difference_max": largest}
                    )
    return Section("pipeline", "JPEG files to batches of 224 × 224", Table(columns, rows), data)


def _sets(folder: str | None, directory: pathlib.Path) -> Iterator[tuple[str, ImageFiles]]:
    """The images as they are, and the same at 500 × 375; random ones without a folder."""
    if folder is None:
        pictures = [_picture(number) for number in range(16)]
        names = [f"{number}.jpg" for number in range(16)]
        for name, picture in zip(names, pictures, strict=True):
            picture.save(directory / name, quality=90)
        given = ImageFiles.of(str(directory), names, [0] * len(names))
    else:
        classes = sum(entry.is_dir() for entry in (pathlib.Path(folder) / "train").glob("*"))
        given = ImageNet(folder, num_classes=max(classes, 2)).load().train
    yield "as they are" if folder else "made up, 256 × 224", given
    large = directory / "large"
    large.mkdir()
    chosen = range(0, len(given), max(1, len(given) // 200))
    for index in chosen:
        with Image.open(given.path(index)) as image:
            enlarged = image.convert("RGB").resize(LARGE, Image.Resampling.BICUBIC)
        enlarged.save(large / f"{index}.jpg", quality=90)
    names = [f"{index}.jpg" for index in chosen]
    yield "500 × 375", ImageFiles.of(str(large), names, [0] * len(names))


def _picture(number: int) -> Image.Image:
    """Waves and noise, which take about as many bytes as a photograph."""
    random = np.random.default_rng(number)
    rows, columns = np.mgrid[:224, :256]
    waves = sum(
        np.sin((rows * a + columns * b)[..., None] * 0.2 + random.random(3) * 6)
        for a, b in random.normal(size=(6, 2))
    )
    pixels = 128 + 25 * np.asarray(waves) + random.normal(size=(224, 256, 3)) * 6
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _items(files: ImageFiles, count: int) -> list[tuple[int, int]]:
    return [(number % len(files), number) for number in range(count)]


def _cut(files: ImageFiles, index: int, view: int) -> Image.Image:
    """The view of an image, by PIL."""
    with Image.open(files.path(index)) as opened:
        image = opened.convert("RGB")
    crop, mirrored = CROP.box(image.height, image.width, view)
    cut: Image.Image = functional.resized_crop(image, *crop, [CROP.size, CROP.size])
    return functional.hflip(cut) if mirrored else cut


class _Ordinary(Dataset[tuple[Tensor, int]]):
    def __init__(self, files: ImageFiles, items: Sequence[tuple[int, int]]) -> None:
        self._files, self._items = files, items

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        index, view = self._items[number]
        pixels = functional.to_tensor(_cut(self._files, index, view))
        return functional.normalize(pixels, MEAN, STD), int(self._files.targets[index])


def _ordinary(files: ImageFiles, workers: int, device: torch.device, count: int) -> None:
    loader = DataLoader(_Ordinary(files, _items(files, count)), BATCH, num_workers=workers)
    for images, _ in loader:
        images.to(device)


def _ours(files: ImageFiles, workers: int, device: torch.device, count: int) -> None:
    items = _items(files, count)
    batches = [items[start : start + BATCH] for start in range(0, count, BATCH)]
    normalize = Normalization(ImageNet(), device)
    read: Samples
    for read in stream(Reader(files, CROP), batches, workers, collate):
        normalize(read.pixels.to(device))


def _difference(files: ImageFiles, count: int = 100) -> tuple[float, int]:
    """Mean and largest absolute difference of the two pipelines' bytes over some views."""
    reader = Reader(files, CROP)
    total, largest = 0.0, 0
    for index, view in _items(files, count):
        pil = torch.from_numpy(np.array(_cut(files, index, view))).permute(2, 0, 1)
        difference = (reader(index, view).pixels.int() - pil.int()).abs()
        total += difference.double().mean().item()
        largest = max(largest, int(difference.max()))
    return total / count, largest
