"""`ctkd detect`: boxes of the student and the teacher, drawn side by side."""

import pathlib
import shutil

import pytest
import torch
from PIL import Image

from ctkd.commands.detect_boxes import GAP, draw, in_a_row, main

ROOT = pathlib.Path(__file__).parents[2]


def found(boxes, labels, scores):
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor(labels),
        "scores": torch.tensor(scores),
    }


def test_a_box_is_drawn_where_it_is():
    picture = torch.zeros(3, 480, 640, dtype=torch.uint8)
    drawn = draw(picture, found([[100, 150, 300, 250]], [1], [0.9]), "student", {1: "cat"})
    plain = draw(picture, found([], [], []), "student", {})
    assert drawn.size == plain.size
    assert drawn.width == 640
    top = drawn.height - 480  # the title's height
    assert drawn.getpixel((200, top + 250)) != (0, 0, 0)  # the lower edge
    assert drawn.getpixel((200, top + 200)) == (0, 0, 0)  # inside
    assert drawn.getpixel((400, top + 250)) == (0, 0, 0)
    assert plain.getpixel((200, top + 250)) == (0, 0, 0)


def test_small_pictures_are_enlarged_and_their_boxes_too():
    picture = torch.zeros(3, 60, 80, dtype=torch.uint8)
    drawn = draw(picture, found([[10, 10, 60, 50]], [1], [0.9]), "", {})
    assert drawn.width == 480
    assert drawn.getpixel((360, 18 + 200)) != (0, 0, 0)  # 60 × 6


def test_panels_stand_in_a_row():
    row = in_a_row([Image.new("RGB", (30, 20)), Image.new("RGB", (40, 50))])
    assert row.size == (70 + GAP, 50)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workdir=nowhere"], "nowhere is not a work directory"),
        (["--workdir=nowhere", "--threshold=2"], "expected a score from 0 to 1"),
    ],
)
def test_mistakes_are_reported_in_one_line(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(["picture.png", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_trained_run_is_drawn(command, coco_folder, tmp_path, capsys):
    tiny = ["pyramid_channels = 16", "rois_per_image = 16", "anchor_sizes = (8, 16, 24, 32, 48)"]
    given = [
        f"data_dir = {str(coco_folder)!r}",
        "coco.categories = 3",
        "coco.short_sides = (64,)",
        "coco.long_side = 96",
        "coco.test_side = 64",
        "batch_size = 2",
        "epochs = 1",
        "steps_per_epoch = 1",
        "workers = 0",
        "Runtime.tensorboard = False",
        "Runtime.figures = False",
        *(f"fasterrcnn_resnet18_fpn.{binding}" for binding in tiny),
    ]
    result = command(
        "--gin_file=gin/coco/vanilla.gin", *(f"--gin_param={b}" for b in given), "--workdir=run"
    )
    assert result.status == 0, result.err
    picture = next((coco_folder / "val2017").iterdir())
    assert main([str(picture), "--workdir=run", "--threshold=0"]) == 0
    target = tmp_path / "run" / "detected" / f"{picture.stem}.png"
    assert str(pathlib.Path("run/detected") / target.name) in capsys.readouterr().out
    assert max(Image.open(target).size) >= 480
    (tmp_path / "other").mkdir()
    twin = tmp_path / "other" / picture.name
    shutil.copy(picture, twin)
    assert main([str(picture), str(twin), "--workdir=run"]) == 0
    assert (target.with_name(f"{picture.stem}-2.png")).is_file()
    assert main([str(tmp_path / "missing.png"), "--workdir=run"]) == 2
    assert "missing.png is not a readable picture" in capsys.readouterr().err
