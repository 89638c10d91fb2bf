"""A torchvision network distilled on your own folder of images, with the engine, from Python.

python examples/image_folder.py FOLDER     # FOLDER/train/CLASS/*.jpg and FOLDER/val/CLASS/*.jpg

The teacher is trained first, on the same images. The same from the command line:

    ctkd train --gin_file=gin/imagenet/ctkd.gin --gin_file=gin/imagenet/sample.gin \
        --data_dir FOLDER --gin_param 'num_classes = 3'
"""

import pathlib
import sys

import torch

from ctkd.engine.job import Job, execute
from ctkd.engine.output.console import Console
from ctkd.registry import MODELS


def main(folder: str, workdir: str = "runs/my_images", *settings: str) -> torch.nn.Module:
    """Trains teacher and student; returns the student, ready to be used."""
    classes = len([path for path in (pathlib.Path(folder) / "train").iterdir() if path.is_dir()])
    params = [
        f"data_dir = {folder!r}",
        f"num_classes = {classes}",
        "student = @resnet18",
        "teacher = @resnet34",
        *settings,  # such as "epochs = 30", or "trial = True" to try it out in a minute
    ]
    files = ["gin/imagenet/ctkd.gin", "gin/imagenet/sample.gin"]
    summary = execute(Job(files, params, workdir), Console())
    print(f"test accuracy {summary['last_top1']:.2f} %, teacher {summary['teacher_top1']:.2f} %")

    student = MODELS.get("resnet18")(num_classes=classes)
    student.load_state_dict(torch.load(f"{workdir}/student_last.pt", weights_only=True))
    return student.eval()  # takes images [N, 3, H, W], normalized as in config.gin


if __name__ == "__main__":
    main(*sys.argv[1:])
