"""Packs what `tools/gpu_check.py` needs on a bare machine into parts of a limited size.

    python tools/gpu_pack.py --out DIR --data_dir DIR --teacher_weights FILE [--wheels A,B]
    python tools/gpu_pack.py --unpack DIR --out DIR

The first command writes DIR/part1.zip, DIR/part2.zip, …: CIFAR-100 as lossless WebP, the teacher's
weights, and wheels for Python 3.12. Each part is at most --megabytes, for machines that take files
in limited portions. The second command, on the bare machine, turns the parts into cifar100.npz,
teacher.pt and wheels/; the first one prints it, with the commands that follow it.
"""

import argparse
import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctkd.command_line import path_argument, run_tool
from ctkd.errors import UserError

if TYPE_CHECKING:
    from ctkd.data.in_memory import Splits

IMAGES_IN_STRIP = 500  # one WebP file; it has 16,000 rows of pixels, of at most 16,383
WHEELS = "gin-config,fvcore,iopath,yacs,portalocker,tabulate,termcolor,submitit,pycocotools"
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
ITSELF = "python tools/gpu_pack.py"
File = tuple[str, bytes]


def main(arguments: Sequence[str] | None = None) -> int:
    """Packs or unpacks; returns the exit status: 0, or 2 for a user's error."""
    return run_tool(make_parser(), arguments, _run)


def _run(options: argparse.Namespace) -> None:
    if options.unpack is not None:
        unpack(options.unpack, options.out)
    elif options.data_dir is None or options.teacher_weights is None:
        raise UserError("packing needs --data_dir and --teacher_weights")
    else:
        files = [*_images(options.data_dir), *_wheels(options.wheels, options.out)]
        files.append(("teacher.pt", options.teacher_weights.read_bytes()))
        _show(pack(files, options.out, options.megabytes * 2**20))


def pack(files: Sequence[File], out: Path, limit: int) -> list[Path]:
    """Writes the files into as few parts as fit the limit; each file is in one part.

    Raises:
        UserError: a file is larger than the limit.
    """
    parts: list[list[File]] = []
    sizes: list[int] = []
    for name, content in sorted(files, key=lambda file: -len(file[1])):
        size = len(content) + 2 * len(name) + 256  # with the archive's own entry
        if size > limit:
            raise UserError(f"{name} has {size:,} bytes: more than a part's {limit:,}")
        fits = next((k for k, used in enumerate(sizes) if used + size <= limit), len(parts))
        if fits == len(parts):
            parts.append([])
            sizes.append(0)
        parts[fits].append((name, content))
        sizes[fits] += size
    out.mkdir(parents=True, exist_ok=True)
    paths = [out / f"part{number}.zip" for number in range(1, len(parts) + 1)]
    for path, part in zip(paths, parts, strict=True):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            for name, content in part:
                archive.writestr(name, content)
    return paths


def unpack(folder: Path, out: Path) -> None:
    """Makes cifar100.npz, teacher.pt and wheels/ of the parts in a folder."""
    import numpy as np
    from PIL import Image

    found: dict[str, bytes] = {}
    for path in sorted(folder.glob("part*.zip")):
        with zipfile.ZipFile(path) as archive:
            found |= {name: archive.read(name) for name in archive.namelist()}
    if "labels.json" not in found:
        raise UserError(f"{folder} lacks a part: labels.json is in none of its part*.zip")
    labels = json.loads(found.pop("labels.json"))
    arrays: dict[str, Any] = {}
    for split, values in labels.items():
        names = [f"{split}/{k}.webp" for k in range(-(-len(values) // IMAGES_IN_STRIP))]
        if missing := [name for name in names if name not in found]:
            raise UserError(f"{folder} lacks a part: {missing[0]} is in none of its part*.zip")
        strips = [Image.open(io.BytesIO(found.pop(name))).convert("RGB") for name in names]
        arrays[f"{split}_images"] = np.concatenate(
            [np.asarray(strip).reshape(-1, 32, 32, 3) for strip in strips]
        )
        arrays[f"{split}_labels"] = np.array(values)
    out.mkdir(parents=True, exist_ok=True)
    np.savez(out / "cifar100.npz", **arrays)
    for name, content in found.items():
        path = out / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)


def _images(data_dir: str) -> Iterator[File]:
    from ctkd.data.cifar import CIFAR100

    return strips_of(CIFAR100(data_dir).load())


def strips_of(splits: "Splits") -> Iterator[File]:
    """The images [N, 32, 32, 3] in strips of one image's width, and their labels."""
    import torch
    from PIL import Image

    labels = {}
    for name, split in (("train", splits.train), ("test", splits.test)):
        labels[name] = split.targets.tolist()
        for number, strip in enumerate(torch.split(split.images, IMAGES_IN_STRIP)):
            buffer = io.BytesIO()
            pixels = strip.reshape(-1, 32, 3).numpy()
            Image.fromarray(pixels).save(buffer, "WEBP", lossless=True, quality=100)
            yield f"{name}/{number}.webp", buffer.getvalue()
    yield "labels.json", json.dumps(labels).encode()


def _wheels(names: str, out: Path) -> Iterator[File]:
    """Wheels of the packages for Python 3.12 on Linux, without their dependencies."""
    if not names:
        return
    folder = out / "wheels"
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder)]
    command += ["--python-version=3.12", "--only-binary=:all:"]
    command += [f"--platform={platform}" for platform in PLATFORMS]
    for name in names.split(","):
        if subprocess.run([*command, name]).returncode:  # a source distribution is built here
            wheel = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder)]
            if subprocess.run([*wheel, name]).returncode:
                raise UserError(f"{name}: pip finds no wheel, and cannot build one")
    for path in sorted(folder.glob("*.whl")):
        yield f"wheels/{path.name}", path.read_bytes()


def _show(parts: Sequence[Path]) -> None:
    for path in parts:
        print(f"{path}  {path.stat().st_size / 2**20:.1f} MiB")
    print("\nOn the bare machine, in the clone, with all parts in one folder FOLDER:")
    print(f"  {ITSELF} --unpack FOLDER --out data")
    print("  python -m pip install --no-index --no-deps data/wheels/*.whl")
    check = "python tools/gpu_check.py --out results"
    print(f"  {check} --data_dir data --teacher_weights data/teacher.pt")


def make_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        prog="ctkd gpu-pack",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--out", type=path_argument, required=True, help="the folder to write to")
    add("--unpack", type=path_argument, help="the folder of the parts")
    add("--data_dir", help="CIFAR-100")
    add("--teacher_weights", type=path_argument, help="of ResNet-56")
    add("--wheels", default=WHEELS, help="packages that the bare machine lacks; '' for none")
    add("--megabytes", type=int, default=60, help="of a part at most (default 60)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
