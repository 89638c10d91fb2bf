"""Draws the figures of concepts.md, from short runs on the digits: `python docs/draw_concepts.py`.

It takes about half a minute of one CPU core.
"""

import csv
import pathlib
import tempfile

import torch
from torch.utils.data import DataLoader, TensorDataset

import ctkd
from ctkd.engine.job import Job, execute
from ctkd.engine.output.console import Console
from ctkd.registry import DATASETS, MODELS
from ctkd.results.figures import style

FIGURES = pathlib.Path(__file__).parent / "figures"
RUNS: dict[str, list[str]] = {
    "T ascends the loss": [],
    "T descends (sign flipped)": ["Method.cooperative = True"],
}


def main() -> None:
    """Trains a teacher and two students, then draws."""
    digits = DATASETS.get("digits")()
    train = digits.load().train
    images = (train.images.permute(0, 3, 1, 2).float() / 255 - digits.mean[0]) / digits.std[0]
    loader = DataLoader(TensorDataset(images, train.targets), batch_size=512)
    with tempfile.TemporaryDirectory() as folder:
        weights = f"{trained('teacher', folder)}/student_last.pt"
        runs = {
            label: trained("ctkd", folder, f"teacher_weights = '{weights}'", *settings)
            for label, settings in RUNS.items()
        }
        traces = {label: trace_of(run) for label, run in runs.items()}
        teacher = MODELS.get("digits_teacher")()
        teacher.load_state_dict(torch.load(weights, weights_only=True))
    draw_temperature(teacher.eval(), images, loader)
    draw_reversal(traces)


def trained(method: str, folder: str, *settings: str) -> str:
    """The work directory of a finished run on the digits."""
    workdir = tempfile.mkdtemp(dir=folder)
    job = Job([f"gin/digits/{method}.gin"], list(settings), workdir)
    execute(job, Console(quiet=True))
    return workdir


def trace_of(run: str) -> dict[str, list[float]]:
    """Epoch, T and λ of each step."""
    with open(f"{run}/temperature.csv", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    return {key: [float(row[key]) for row in rows] for key in ("epoch", "temperature", "lambda")}


def draw_temperature(
    teacher: torch.nn.Module, images: torch.Tensor, loader: DataLoader[tuple[torch.Tensor, ...]]
) -> None:
    """One image's softened classes at three temperatures; L(T) of an untrained student."""
    with torch.no_grad():
        logits = teacher(images[:64])
    unsure = logits[logits.softmax(1).amax(1).argmin()]  # the image with the least confidence
    figure = style.new_figure(2.4)
    left, right = figure.subplots(1, 2)
    style.dress(left, "Class", "Teacher's softened probability")
    colors = (style.BLUE, style.GREEN, style.VERMILLION)
    for number, (temperature, color) in enumerate(zip((1.0, 4.0, 15.6), colors, strict=True)):
        positions = [k + 0.27 * (number - 1) for k in range(10)]
        heights = (unsure / temperature).softmax(0).tolist()
        left.bar(positions, heights, 0.27, color=color, label=f"T = {temperature:g}")
    left.set_xticks(range(10))
    style.legend(left, rows=1)
    torch.manual_seed(0)
    found = ctkd.landscape(MODELS.get("digits_student")(), teacher, loader)
    style.dress(right, "Temperature T", "Loss L(T) = T² · KL")
    right.plot(found.temperatures, found.losses, color=style.BLUE, linewidth=style.LINE)
    label = f"T* = {found.t_star:.2f}"
    right.axvline(found.t_star, color=style.VERMILLION, linestyle=style.DASHED, label=label)
    right.set_xscale("log")
    style.plain_log_ticks(right.xaxis)
    style.legend(right, rows=1)
    figure.savefig(FIGURES / "concepts_temperature.png", dpi=200)


def draw_reversal(traces: dict[str, dict[str, list[float]]]) -> None:
    """T of each step, with the reversal and with its sign flipped; and λ."""
    figure = style.new_figure(2.4)
    left, right = figure.subplots(1, 2)
    style.dress(left, "Epoch", "Temperature T")
    looks = ((style.VERMILLION, "-"), (style.BLUE, style.DASHED))
    for (label, trace), (color, line) in zip(traces.items(), looks, strict=True):
        look = {"color": color, "linestyle": line, "linewidth": style.LINE}
        left.plot(trace["epoch"], trace["temperature"], label=label, **look)
    style.legend(left, rows=1)
    style.dress(right, "Epoch", "Strength λ")
    right.plot(trace["epoch"], trace["lambda"], color=style.BLACK, linewidth=style.LINE)
    figure.savefig(FIGURES / "concepts_reversal.png", dpi=200)


if __name__ == "__main__":
    main()
