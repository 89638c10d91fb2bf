"""Fills a teacher's cache ahead of the runs: every view of every training image, once.

    ctkd fill-cache --gin_file=gin/cifar100/ctkd.gin \
        --data_dir=/data/cifar100 --teacher_weights=/weights/resnet56.pth

Give the Gin files and flags of the runs that follow: what decides a row's bits (teacher,
images, views, batch size, precision, threads, compilation) decides which cache is filled. Rows
that exist are kept. You may interrupt it, run it twice in parallel, or run it during training.

Exit status: 0 filled, 2 with a message on standard error where it cannot be, 130 interrupted.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ctkd.errors import ConfigError, Interrupted, NonFiniteError, UserError
from ctkd.macro_flags import MACROS, macro_bindings
from ctkd.memory import keep_freed_memory
from ctkd.standard_output import safe_output

if TYPE_CHECKING:
    from ctkd.engine.task import ViewedTask
    from ctkd.engine.teacher.frozen import FrozenTeacher
    from ctkd.engine.teacher.row_store import Array, RowStore

PLAIN_LINE = 30.0  # seconds between two lines where no bar can be drawn
BLOCK = 2**16  # row indices searched together for missing rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Fills the cache; returns the exit status."""
    with safe_output():
        options = make_parser().parse_args(arguments)
        keep_freed_memory()  # before torch allocates anything
        try:
            _fill(options)
        except (UserError, NonFiniteError) as error:  # the latter where the teacher is trained
            print(f"ctkd fill-cache: {error}", file=sys.stderr)
            return 2
        except (Interrupted, KeyboardInterrupt):
            note = "interrupted; the same command goes on from there"
            print(f"ctkd fill-cache: {note}", file=sys.stderr)
            return 130
        return 0


def make_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        prog="ctkd fill-cache",
        description="Computes a teacher's logits for every view of every training image, once.",
    )
    parser.add_argument("--gin_file", action="append", required=True, help="may be repeated")
    parser.add_argument("--gin_param", action="append", default=[], help="may be repeated")
    parser.add_argument(
        "--workdir", help="of the runs to follow, if teachers and caches are next to it"
    )
    parser.add_argument("--rows", type=_count, metavar="N", help="stop after N rows, to try it out")
    for name, (_, text) in MACROS.items():
        parser.add_argument(f"--{name}", help=text)
    return parser


def _count(text: str) -> int:
    """A number of 1 or more; argparse says what else a ValueError is about."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{number} is not 1 or more")
    return number


def _fill(options: argparse.Namespace) -> None:
    from ctkd.engine.job import Job
    from ctkd.engine.output.console import Console
    from ctkd.engine.output.workdir import Workdir
    from ctkd.engine.prepare import prepare
    from ctkd.engine.task import ViewedTask
    from ctkd.engine.teacher.load import cache_root

    flagged = macro_bindings({name: getattr(options, name) for name in MACROS}, options.gin_param)
    job = Job(options.gin_file, [*options.gin_param, *flagged], options.workdir)
    run = job.build()
    if run.teacher_network is None:
        raise ConfigError("this run has no teacher: give the Gin file of a distillation method")
    folder = Workdir(job.workdir_of(run))
    if cache_root(run, folder.path) is None:
        raise ConfigError(
            "these settings keep no cache: give --gin_param \"teacher_cache = '/a/folder'\" "
            "('auto' needs a writable folder of images, and a run without steps_per_epoch)"
        )
    prepared = prepare(run, folder, Console(), fill_cache=True)
    teacher, task = prepared.teacher, prepared.task
    assert teacher is not None
    if teacher.cache is None or not isinstance(task, ViewedTask):
        raise ConfigError("there is no cache to fill: see the warning above")
    _compute(teacher, task, options.rows)


def _compute(teacher: "FrozenTeacher", task: "ViewedTask", most: int | None) -> None:
    """Computes what is missing, batch by batch, under a bar or with a line now and then."""
    import torch
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    assert teacher.cache is not None
    store, size, views = teacher.cache.store, teacher.batch_size or 64, task.views
    missing = store.count - round(store.share() * store.count)
    total = missing if most is None else min(missing, most)
    if total == 0:
        print(f"{store.folder} holds all {store.count:,} rows")
        return
    columns = (
        TextColumn("rows"),
        BarColumn(bar_width=40),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f}  {task.fields[speed]}"),
        TimeRemainingColumn(),
    )
    started = printed = time.monotonic()
    done = 0
    with Progress(*columns) as progress:
        bar = progress.add_task("rows", total=total, speed="")
        for row_indices in _missing(store, size):
            if done >= total or not store.writable:
                break
            where = torch.from_numpy(row_indices)
            batch = task.batch_of(where // views, where % views)
            store.write(row_indices, teacher.compute(batch.inputs).cpu().numpy())
            done += len(row_indices)
            now = time.monotonic()
            rate = done / (now - started)
            progress.update(bar, completed=done, speed=f"{rate:,.0f} rows/s")
            if not progress.console.is_terminal and now - printed > PLAIN_LINE:
                printed = now
                left = (total - done) / rate / 60
                print(f"{done:,} of {total:,} rows, {left:.0f} minutes left", flush=True)
    if not store.writable:
        raise ConfigError(f"{store.folder} takes no more rows: see the warning above")
    print(f"{store.folder} holds {store.share():.1%} of {store.count:,} rows")


def _missing(store: "RowStore", size: int) -> "Iterator[Array]":
    """The indices of the missing rows, `size` at a time, in ascending order."""
    import numpy as np

    kept = np.zeros(0, np.int64)
    for start in range(0, store.count, BLOCK):
        block = np.arange(start, min(start + BLOCK, store.count))
        kept = np.concatenate([kept, block[~store.present(block)]])
        whole = len(kept) // size * size
        yield from kept[:whole].reshape(-1, size)
        kept = kept[whole:]
    if len(kept):
        yield kept
