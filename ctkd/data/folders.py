"""Images in class folders, PART/CLASS/**/*: lists the files, and reads small images."""

import os
import pathlib
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from ctkd.data.in_memory import Split
from ctkd.data.pictures import rgb_bytes
from ctkd.errors import DataError

# The file name endings of torchvision's ImageFolder.
ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class ClassFiles:
    """The image files of a part, class by class.

    Attributes:
        names: paths relative to `root`, with "/" between folders.
        targets: the class of each.
        left_out: files that are not images, relative to `root`.
    """

    root: pathlib.Path
    names: Sequence[str]
    targets: Sequence[int]
    left_out: Sequence[str]

    @property
    def notes(self) -> tuple[str, ...]:
        """A note for the user on the files left out."""
        if not self.left_out:
            return ()
        endings = Counter(
            os.path.splitext(name)[1].lower() or "no ending" for name in self.left_out
        )
        counts = ", ".join(f"{count} with {ending}" for ending, count in endings.most_common(5))
        return (
            f"{self.root}: left out {len(self.left_out)} files that are not images ({counts}; "
            f"{self.left_out[0]}, for example)",
        )


def class_folders(folder: pathlib.Path) -> list[str]:
    """The names of the class folders in the order of their classes.

    The order is numeric if all names are whole numbers (2 before 10), otherwise alphabetical.
    """
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir())
    return sorted(names, key=int) if all(name.isdecimal() for name in names) else names


def order_note(names: Sequence[str]) -> str:
    """The order of the classes in words, for the user."""
    by_number = names != sorted(names)
    order = "the numbers" if by_number else "the names"
    return f"classes are numbered by {order} of their folders, from {names[0]} = 0 to {names[-1]}"


def list_files(root: pathlib.Path, classes: Sequence[str]) -> ClassFiles:
    """The images of each class below `root`, in its folder and the folders inside, sorted.

    Links to folders are followed, as in torchvision's ImageFolder. Hidden files are ignored.

    Raises:
        DataError: a class has no image.
    """
    names: list[str] = []
    targets: list[int] = []
    left_out: list[str] = []
    for target, name in enumerate(classes):
        before = len(names)
        for folder, subfolders, files in sorted(os.walk(root / name, followlinks=True)):
            subfolders.sort()
            inside = pathlib.PurePosixPath(os.path.relpath(folder, root))
            for file in sorted(files):
                if file.lower().endswith(ENDINGS):
                    names.append(str(inside / file))
                elif not file.startswith("."):
                    left_out.append(str(inside / file))
        if len(names) == before:
            raise DataError(f"{root / name} contains no images ({', '.join(ENDINGS)})")
        targets += [target] * (len(names) - before)
    return ClassFiles(root, names, targets, left_out)


def read_folders(
    path: pathlib.Path, num_classes: int, shape: tuple[int, int, int]
) -> tuple[dict[str, Split], tuple[str, ...]]:
    """The parts `train` and `test` below `path`, and notes for the user; see `class_folders`.

    Raises:
        DataError: a class is missing, a folder has no images, a file is not an image of `shape`.
    """
    folders = {
        name: class_folders(path / name) if (path / name).is_dir() else []
        for name in ("train", "test")
    }
    if len(folders["train"]) != num_classes or folders["train"] != folders["test"]:
        train, test = (set(names) for names in folders.values())
        only = ", ".join(sorted(train ^ test)[:10])
        raise DataError(
            f"{path}: {len(train)} class folders in train/ and {len(test)} in test/, expected the "
            f"same {num_classes} in both" + (f"; only in one of them: {only}" if only else "")
        )
    listed = {name: list_files(path / name, classes) for name, classes in folders.items()}
    parts = {name: _read_part(files, shape) for name, files in listed.items()}
    notes = [note for files in listed.values() for note in files.notes]
    return parts, (order_note(folders["train"]), *notes)


def _read_part(files: ClassFiles, shape: tuple[int, int, int]) -> Split:
    paths = [files.root / name for name in files.names]
    with ThreadPoolExecutor() as pool:  # decoding releases the interpreter's lock
        images = np.stack(list(pool.map(lambda path: _read_image(path, shape), paths)))
    return Split(torch.from_numpy(images), torch.tensor(files.targets))


def _read_image(path: pathlib.Path, shape: tuple[int, int, int]) -> np.ndarray:
    try:
        with Image.open(path) as image:
            width, height = image.size
            if (height, width) != shape[1:]:
                came = f"{width} × {height}"
                raise DataError(f"{path} is {came} pixels: expected {shape[2]} × {shape[1]}")
            return rgb_bytes(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} is not a readable image: {error}") from error
