"""Draws L(T) of a run's networks, or of checkpoints: where would a temperature go? Trains nothing.

    ctkd landscape --gin_file=gin/digits/kd.gin
    ctkd landscape --workdir runs/cifar100/resnet56_resnet20/ctkd-seed0-…
    ctkd landscape --gin_file=gin/cifar100/kd.gin --data_dir /data/cifar100 \
        --teacher_weights /weights/resnet56.pth --checkpoint student.pt --out pair.png

Without a run and without a checkpoint the student has its first weights. The command writes
FILE.png, FILE.pdf and FILE.json. Exit status: 0, or 2 with a message on standard error.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ctkd.command_line import path_argument, run_tool
from ctkd.errors import ConfigError
from ctkd.macro_flags import MACROS, macro_bindings
from ctkd.memory import keep_freed_memory


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and draws; returns the exit status."""
    return run_tool(make_parser(), arguments, _measure)


def make_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        prog="ctkd landscape", description="Draws the loss L(T) of two networks as they are."
    )
    add = parser.add_argument
    add("--workdir", type=path_argument, help="a run: its networks and its data")
    add("--gin_file", action="append", default=[], help="in place of a run; may be repeated")
    add("--gin_param", action="append", default=[], help="may be repeated")
    which = "the student's weights (default: student_last.pt of the run, or its first weights)"
    add("--checkpoint", help=which)
    add("--samples", type=int, default=256, help="of the training data (default 256)")
    where = "default: landscape_now.png, in WORKDIR if --workdir is given"
    add("--out", type=path_argument, metavar="FILE.png", help=where)
    for name, (_, text) in MACROS.items():
        add(f"--{name}", help=text)
    return parser


def _measure(options: argparse.Namespace) -> None:
    """Builds the run, loads both networks, measures and writes. Raises UserError."""
    keep_freed_memory()  # before torch allocates anything
    import numpy as np
    from scipy.interpolate import CubicSpline

    from ctkd.checks import expect
    from ctkd.engine.diagnostics.landscape import Probe
    from ctkd.engine.job import Job
    from ctkd.engine.output.console import Console
    from ctkd.engine.output.workdir import Workdir
    from ctkd.engine.prepare import prepare
    from ctkd.files import expand_user
    from ctkd.models.weights.match import load_weights
    from ctkd.results.figures.draw_one_landscape import draw_one_landscape
    from ctkd.results.figures.save import save_figure
    from ctkd.results.read.grid_ends import edge_text
    from ctkd.results.read.schema import CONFIG_FILE

    folder = options.workdir
    expect(options.samples >= 2, "landscape", "samples", options.samples, "2 or more")
    if folder and not options.gin_file and not (folder / CONFIG_FILE).is_file():
        raise ConfigError(
            f"--workdir {folder} is not the work directory of a run: it has no {CONFIG_FILE}"
        )
    files = options.gin_file or ([str(folder / "config.gin")] if folder else [])
    if not files:
        raise ConfigError("give --workdir of a run, or --gin_file")
    flagged = macro_bindings({name: getattr(options, name) for name in MACROS}, options.gin_param)
    job = Job(files, [*options.gin_param, *flagged], None if folder is None else str(folder))
    run = job.build()
    if run.teacher_network is None:
        raise ConfigError("this run has no teacher: give the Gin file of a distillation method")
    workdir = Workdir(job.workdir_of(run))
    source = options.checkpoint or (folder and folder / "student_last.pt")
    if source:
        load_weights(run.student, expand_user(source, "--checkpoint"), setting="--checkpoint")
    else:
        print(f"student: first weights, seed {run.seed}")
    prepared = prepare(run, workdir, Console())
    assert prepared.teacher is not None
    instrument = replace(run.instrument, probe_size=options.samples)
    probe = Probe(instrument, prepared.task, prepared.teacher)
    student, distiller = run.student.to(prepared.device), run.distiller.to(prepared.device)
    measured = probe.measure(student, distiller)
    grid, losses = measured["temperatures"], measured["losses"]
    logs = np.log(grid)
    slopes = (CubicSpline(logs, losses)(logs, 1) / grid).tolist()  # dL/dT = (dL/d log T) / T
    # Without --workdir nothing is written to the run's folder, which its training would refuse.
    target = (options.out or (folder or Path()) / "landscape_now.png").with_suffix("")
    figure = draw_one_landscape(grid, losses, slopes, measured["t_star"])
    print(f"T* {edge_text(measured['t_star'], grid)}, on {probe.samples} samples")
    for path in save_figure(figure, target.parent, target.name):
        print(path)
    kept = {name: measured[name] for name in ("temperatures", "losses", "t_star", "loss_star")}
    target.with_suffix(".json").write_text(json.dumps({**kept, "slopes": slopes}) + "\n")
    print(target.with_suffix(".json"))
