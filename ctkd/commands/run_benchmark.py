"""Measures ctkd on this machine: the training step and its parts, the losses, loading, start-up.

    ctkd benchmark [--quick] [--only step,losses] [--pair resnet56_resnet20]...
                              [--threads N] [--markdown FILE] [--json FILE]

Everything is measured in turns within one run, and ratios are taken within a turn: on a machine
that is not quiet they still hold, where milliseconds do not. Numbers are medians with quartiles in
brackets. The images are CIFAR-100 from --data_dir or CTKD_DATA, or random bytes where there are
none, and the networks' weights are random: speed depends on neither; the JPEG pipeline is measured
on the photographs of --images DIR (train/CLASS/*.JPEG), or on random pictures. The plain loop is
ctkd/benchmarks/plain_loop.py. Without --quick it takes some ten minutes for each pair.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ctkd.benchmarks.timing import Section, machine, quartiles
from ctkd.command_line import path_argument, run_tool
from ctkd.errors import ConfigError
from ctkd.memory import keep_freed_memory
from ctkd.results.compare.tables import print_table, to_markdown
from ctkd.standard_output import check_output

if TYPE_CHECKING:
    import torch

    from ctkd.benchmarks.measured_images import MeasuredCIFAR

_PARTS = "step policies views features losses loader pipeline startup language"
SECTIONS = tuple(_PARTS.split())
NOT_BY_DEFAULT = "language"  # needs transformers
PAIRS = ("resnet56_resnet20", "resnet110_resnet32", "resnet32x4_resnet8x4")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints; returns the exit status: 0, or 2 for a user's error."""
    return run_tool(make_parser(), arguments, _run)


def _run(options: argparse.Namespace) -> None:
    keep_freed_memory()  # as the command does, before torch allocates anything
    _save(options, list(_measure(options)))
    check_output()


def make_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        prog="ctkd benchmark",
        description="Measures ctkd on this machine, in turns: medians, quartiles, ratios.",
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="few rounds, one pair, smaller losses: some minutes")
    usual = ",".join(name for name in SECTIONS if name != NOT_BY_DEFAULT)
    chosen = f"a list out of {','.join(SECTIONS)}; {NOT_BY_DEFAULT} needs the package transformers"
    add("--only", default=usual, help=chosen)
    add("--pair", action="append", help="TEACHER_STUDENT; may be repeated (default: three pairs)")
    add("--rounds", type=int, help="turns that are counted (default 12; 4 with --quick)")
    add("--block", type=int, help="steps in a row in a turn (default 8; 2 with --quick)")
    add("--threads", type=int, help="torch's threads (default: its own choice)")
    add("--workers", type=int, help="of the DataLoader (default: the cores, at most 8)")
    add("--data_dir", help="CIFAR-100 (default: CTKD_DATA, else random images)")
    add(
        "--images",
        type=path_argument,
        help="ImageNet-like folders for the pipeline (default: made-up pictures)",
    )
    add("--gin_param", action="append", default=[], help="a binding for our step; may be repeated")
    add("--no_plain", action="store_true", help="leave the plain loop out")
    add("--json", type=path_argument, metavar="FILE", help="all numbers; - for the screen")
    add("--markdown", type=path_argument, metavar="FILE", help="the tables; - for the screen")
    return parser


def _measure(options: argparse.Namespace) -> Iterator[Section]:
    """The chosen sections, each printed when it is measured."""
    import torch

    from ctkd.benchmarks.measured_images import MeasuredCIFAR, default_workers

    wanted = options.only.split(",")
    if unknown := set(wanted) - set(SECTIONS):
        raise ConfigError(f"--only {', '.join(unknown)}: expected some of {', '.join(SECTIONS)}")
    if options.threads:
        torch.set_num_threads(options.threads)
    options.machine = machine()
    _show(options, "  ".join(f"{key} {value}" for key, value in options.machine.items()))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rounds = options.rounds or (4 if options.quick else 12)
    workers = default_workers() if options.workers is None else options.workers
    dataset = MeasuredCIFAR(options.data_dir or os.environ.get("CTKD_DATA"))
    for section in _sections(options, wanted, dataset, device, rounds, workers):
        if not _to_screen(options):
            print_table(section.table, sys.stdout, title=section.title)
            print(flush=True)
        yield section
    if not dataset.real:
        _show(options, "(random images: there is no CIFAR-100 in --data_dir or CTKD_DATA)")


def _sections(
    options: argparse.Namespace,
    wanted: Sequence[str],
    dataset: "MeasuredCIFAR",
    device: "torch.device",
    rounds: int,
    workers: int,
) -> Iterator[Section]:
    """Measures one section after another."""
    block = options.block or (2 if options.quick else 8)
    threads = [f"threads = {options.threads}"] if options.threads else []
    settings = [*threads, *options.gin_param]
    if {"step", "policies", "views", "features"} & set(wanted):
        yield from _of_steps(options, wanted, dataset, device, settings, rounds, block, workers)
    if "losses" in wanted:
        from ctkd.benchmarks import loss_forms

        largest = 2**21 if options.quick else loss_forms.LARGEST
        yield loss_forms.measure_losses(device, rounds, largest)
    if "loader" in wanted:
        from ctkd.benchmarks import loading

        yield loading.measure_loading(dataset, device, workers, rounds)
    if "pipeline" in wanted:
        from ctkd.benchmarks import pipeline

        count = 2 * pipeline.BATCH if options.quick else pipeline.COUNT
        images = None if options.images is None else str(options.images)
        yield pipeline.measure_pipeline(images, device, workers, rounds, count)
    if "startup" in wanted:
        from ctkd.benchmarks import startup

        yield startup.measure_startup(rounds)
    if "language" in wanted:
        from ctkd.benchmarks import language_step

        yield language_step.measure_language(settings, rounds, max(1, block // 2))


def _of_steps(
    options: argparse.Namespace,
    wanted: Sequence[str],
    dataset: "MeasuredCIFAR",
    device: "torch.device",
    settings: list[str],
    rounds: int,
    block: int,
    workers: int,
) -> Iterator[Section]:
    """The sections that train a pair of CIFAR-100, or are ratios to its step."""
    from ctkd.benchmarks import feature_cost, policies, second_view, step

    step_seconds, steps = None, 2 * (rounds + 2) * block
    if "step" in wanted or "policies" in wanted:
        pairs = options.pair or (PAIRS[:1] if options.quick or "step" not in wanted else PAIRS)
        for name in pairs:
            pair = step.Pair(name, dataset, settings, steps)
            found = step.measure_pair(pair, rounds, block, workers, not options.no_plain)
            pair.close()
            yield from found if "step" in wanted else ()
            values = next(row["seconds"] for row in found[0].data if row["case"] == step.OFF)
            assert isinstance(values, list)
            step_seconds = step_seconds or quartiles(values)[1]
    if "policies" in wanted and step_seconds is not None:
        yield policies.measure_policies(step.BATCH, step_seconds, device, 3 * rounds)
    if not {"views", "features"} & set(wanted):
        return
    pair = step.Pair((options.pair or PAIRS)[0], dataset, settings, steps)
    if "views" in wanted:
        yield second_view.measure_second_view(pair, rounds, block)
    if "features" in wanted:
        yield feature_cost.measure_feature_losses(pair, rounds, block)
        sizes = (5_000, 50_000) if options.quick else (50_000, 1_281_167)
        yield feature_cost.measure_banks(device, rounds, sizes)
    pair.close()


def _to_screen(options: argparse.Namespace) -> bool:
    """Whether standard output must contain only the JSON or the Markdown."""
    return any(str(path) == "-" for path in (options.json, options.markdown) if path is not None)


def _show(options: argparse.Namespace, line: str) -> None:
    print(line, file=sys.stderr if _to_screen(options) else sys.stdout, flush=True)


def _save(options: argparse.Namespace, sections: Sequence[Section]) -> None:
    """Writes the files of `--json` and `--markdown`."""
    whole = {
        "machine": options.machine,
        "sections": [{"name": s.name, "title": s.title, "rows": list(s.data)} for s in sections],
    }
    about = ", ".join(f"{key} {value}" for key, value in options.machine.items())
    tables = [f"**{s.title}**\n\n{to_markdown(s.table)}" for s in sections]
    texts = {
        options.json: json.dumps(whole, indent=1) + "\n",
        options.markdown: "\n".join([f"Measured on: {about}.\n", *tables]),
    }
    for path, text in texts.items():
        if path is not None and str(path) == "-":
            print(text, end="")
        elif path is not None:
            path.write_text(text, encoding="utf-8")
            print(f"written: {path}")
