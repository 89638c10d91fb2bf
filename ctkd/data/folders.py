"""Small images in class folders, read whole: PART/CLASS/*.png."""

import pathlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image

from ctkd.data.in_memory import Split
from ctkd.errors import DataError

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp")


def read_folders(
    path: pathlib.Path, num_classes: int, shape: tuple[int, int, int]
) -> dict[str, Split]:
    """The parts `train` and `test` below `path`; classes are numbered by their names' order.

    That of the alphabet, or of the numbers where all names are numbers (2 before 10).

    Raises:
        DataError: a class is missing, a folder has no images, a file is no image of `shape`.
    """
    folders = {name: _classes(path / name) for name in ("train", "test")}
    if len(folders["train"]) != num_classes or folders["train"] != folders["test"]:
        train, test = (set(names) for names in folders.values())
        only = ", ".join(sorted(train ^ test)[:10])
        raise DataError(
            f"{path}: {len(train)} class folders in train/ and {len(test)} in test/, expected the "
            f"same {num_classes} in both" + (f"; only in one of them: {only}" if only else "")
        )
    return {name: _read_part(path / name, classes, shape) for name, classes in folders.items()}


def _classes(folder: pathlib.Path) -> list[str]:
    names = sorted(entry.name for entry in folder.glob("*") if entry.is_dir())
    return sorted(names, key=int) if all(name.isdecimal() for name in names) else names


def _read_part(folder: pathlib.Path, classes: list[str], shape: tuple[int, int, int]) -> Split:
    files: list[pathlib.Path] = []
    targets: list[int] = []
    for number, name in enumerate(classes):
        found = sorted(p for p in (folder / name).iterdir() if p.suffix.lower() in ENDINGS)
        if not found:
            raise DataError(f"{folder / name} holds no images")
        files += found
        targets += [number] * len(found)
    with ThreadPoolExecutor() as pool:  # decoding releases the interpreter's lock
        images = np.stack(list(pool.map(lambda file: _read_image(file, shape), files)))
    return Split(torch.from_numpy(images), torch.tensor(targets))


def _read_image(path: pathlib.Path, shape: tuple[int, int, int]) -> np.ndarray:
    try:
        with Image.open(path) as image:
            width, height = image.size
            if (height, width) != shape[1:]:
                came = f"{width} × {height}"
                raise DataError(f"{path} is {came} pixels: expected {shape[2]} × {shape[1]}")
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} is no readable image: {error}") from error
