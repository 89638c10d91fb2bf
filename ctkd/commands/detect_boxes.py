"""Draws what a run's student, and its teacher, detect in pictures, side by side.

    ctkd detect PICTURE... --workdir runs/coco/ctkd-seed0-… [--out OUT] [--threshold 0.5]

Each picture gives OUT/NAME.png. The teacher is drawn where the run has one whose weights are there.
Exit status: 0, or 2 with a message on standard error.
"""

import argparse
import itertools
import pathlib
import sys
from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ctkd.command_line import path_argument, run_tool
from ctkd.data.coco import COCO
from ctkd.data.pictures import read_picture
from ctkd.engine.config.run import Run
from ctkd.engine.device import prepare_device
from ctkd.engine.job import Job
from ctkd.engine.teacher.own_training import teacher_home
from ctkd.errors import ConfigError, DataError
from ctkd.files import expand_user
from ctkd.models.faster_rcnn import Detector
from ctkd.models.weights.match import load_weights

# Okabe and Ito's palette; a class has the color of its number.
COLORS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")
GAP, TITLE = 8, 18  # pixels between the pictures and above them
SMALLEST = 480  # pixels of the longer side of a drawn picture: smaller ones are enlarged

Detections = dict[str, Tensor]


def detectors(folder: pathlib.Path, weights: str | None) -> tuple[Run, dict[str, Detector]]:
    """A run, and its networks by role, their weights loaded.

    Args:
        folder: its work directory.
        weights: the student's; None for the last of the run.

    Raises:
        UserError: the folder is not a work directory of a detector, or its weights are not there.
    """
    config = folder / "config.gin"
    if not config.is_file():
        raise DataError(f"{folder} is not a work directory: it has no config.gin")
    run = Job([str(config)]).build()
    if not isinstance(run.dataset, COCO):
        name = type(run.dataset).__name__
        raise DataError(f"{folder} is a run on {name}: nothing in it detects anything")
    device = prepare_device(run)
    source = expand_user(weights or folder / "student_last.pt", "--weights")
    load_weights(run.student, source, setting="--weights")
    networks = {"student": run.student}
    if run.teacher_network is not None:
        try:  # a run on another machine may have had other paths for them
            given, name = _teacher(run, folder), _name(run, "teacher")
            load_weights(run.teacher_network, given, name, setting="teacher_weights")
            networks["teacher"] = run.teacher_network
        except (ConfigError, DataError) as error:
            print(f"detect: the teacher is left out: {error}", file=sys.stderr)
    ready: dict[str, Detector] = {}
    for role, network in networks.items():
        assert isinstance(network, Detector)
        ready[f"{role} {_name(run, role)}"] = network.eval().to(device)
    return run, ready


def _name(run: Run, role: str) -> str:
    setting = {"student": "Recipe.student", "teacher": "Teacher.network"}[role]
    return str(run.settings["recipe"][setting]).removeprefix("@")


def _teacher(run: Run, folder: pathlib.Path) -> str:
    """The weights of the run's teacher: given, or trained next to the run. Raises ConfigError."""
    if run.teacher.weights is not None:
        return expand_user(run.teacher.weights, "Teacher.weights")
    _, home = teacher_home(run, folder)
    return str(home.path / "student_last.pt")


def class_names(dataset: COCO) -> dict[int, str]:
    """The classes' names, from the annotations if they exist."""
    try:
        return dataset.class_names()
    except DataError:
        return {}


def detect(network: Detector, picture: Tensor, threshold: float) -> Detections:
    """Boxes [n, 4], labels [n] and scores [n] of a picture [3, H, W] of bytes, the best first."""
    device = next(network.parameters()).device
    with torch.inference_mode():
        (found,) = network([picture.to(device).float() / 255])
    kept = found["scores"] >= threshold
    return {name: values[kept].cpu() for name, values in found.items()}


def draw(picture: Tensor, found: Detections, title: str, names: dict[int, str]) -> Image.Image:
    """The picture under a title, its boxes labeled with class and score."""
    pixels = Image.fromarray(picture.permute(1, 2, 0).numpy())
    scale = max(1.0, SMALLEST / max(pixels.size))
    pixels = pixels.resize((round(pixels.width * scale), round(pixels.height * scale)))
    canvas = Image.new("RGB", (pixels.width, pixels.height + TITLE), "white")
    canvas.paste(pixels, (0, TITLE))
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(12)
    pen.text((2, 2), title, fill="black", font=font)
    boxes = (found["boxes"] * scale + torch.tensor([0.0, TITLE, 0.0, TITLE])).tolist()
    numbers = zip(boxes, found["labels"].tolist(), found["scores"].tolist(), strict=True)
    for box, label, score in reversed(list(numbers)):  # the best is drawn last, on top
        color = COLORS[label % len(COLORS)]
        pen.rectangle(box, outline=color, width=2)
        text = f"{names.get(label, label)} {score:.2f}"
        corner = (box[0] + 2, max(box[1] - 14, TITLE))
        pen.rectangle(pen.textbbox(corner, text, font=font), fill=color)
        pen.text(corner, text, fill="black", font=font)
    return canvas


def in_a_row(pictures: Sequence[Image.Image]) -> Image.Image:
    """The pictures in a row."""
    width = sum(picture.width for picture in pictures) + GAP * (len(pictures) - 1)
    row = Image.new("RGB", (width, max(picture.height for picture in pictures)), "white")
    left = 0
    for picture in pictures:
        row.paste(picture, (left, 0))
        left += picture.width + GAP
    return row


def run(options: argparse.Namespace) -> None:
    """Detects and draws. Raises UserError."""
    if not 0 <= options.threshold <= 1:
        raise ConfigError(f"--threshold {options.threshold}: expected a score from 0 to 1")
    made, networks = detectors(options.workdir, options.weights)
    assert isinstance(made.dataset, COCO)
    names = class_names(made.dataset)
    out = options.out or options.workdir / "detected"
    try:
        out.mkdir(parents=True, exist_ok=True)
    except PermissionError as error:
        raise ConfigError(f"cannot write {out}: {error.strerror}; --out names a folder") from error
    done: list[pathlib.Path] = []
    for path in options.pictures:
        picture = read_picture(str(path), upright=True)  # as viewers show it
        panels = []
        for title, network in networks.items():
            found = detect(network, picture, options.threshold)
            panels.append(draw(picture, found, f"{title}: {len(found['scores'])} found", names))
        in_a_row(panels).save(target := _unused(out, path.stem, done))
        done.append(target)
        print(target)


def _unused(folder: pathlib.Path, stem: str, done: Sequence[pathlib.Path]) -> pathlib.Path:
    """The path of a drawn picture; two pictures of one name, from two folders, get two paths."""
    names = itertools.chain([stem], (f"{stem}-{number}" for number in itertools.count(2)))
    return next(path for name in names if (path := folder / f"{name}.png") not in done)


def main(arguments: Sequence[str] | None = None) -> int:
    """Draws the boxes; returns the exit status."""
    return run_tool(make_parser(), arguments, run)


def make_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        prog="ctkd detect", description="Draws what a run's networks detect in pictures."
    )
    parser.add_argument("pictures", nargs="+", type=path_argument, metavar="PICTURE")
    parser.add_argument("--workdir", type=path_argument, required=True, help="of the run")
    parser.add_argument("--weights", help="the student's; by default WORKDIR/student_last.pt")
    parser.add_argument("--threshold", type=float, default=0.5, help="lowest score, 0.5 by default")
    parser.add_argument("--out", type=path_argument, help="by default WORKDIR/detected")
    return parser
