"""What a learned temperature costs: by count for every pair of the paper, and by clock for one.

    ctkd overhead [--pairs vgg13_vgg8,...] [--timing_pairs all] [--no_timing]
                                   [--markdown] [--json]

Parameters and multiply–accumulates (MACs) of students, teachers and temperature policies, and the
policies' share of a training step (the teacher forward, the student forward and backward); then,
on this machine's device, each policy's own forward, backward and update over the step, and the step
with it over the step with a constant temperature, measured in turns. It ends with a verdict on the
paper's claim (CTKD, arXiv 2211.16231) that the module costs next to nothing. Exit status: 0
with either verdict, 2 for a user's error.
"""

import argparse
import json
import sys
from collections.abc import Sequence

from ctkd.benchmarks.counts import PairCount, count_pair, split_name
from ctkd.command_line import ROOT, run_tool
from ctkd.errors import ConfigError, UserError
from ctkd.memory import keep_freed_memory
from ctkd.results.compare.tables import Cell, Column, Table, print_table, to_markdown
from ctkd.standard_output import check_output

IMAGENET = "resnet34_resnet18"
TIMED = "resnet56_resnet20"
GLOBAL, INSTANCE = "GlobalTemperature", "InstanceTemperature"
# What "next to nothing" means here, in percent of a training step's MACs.
CLAIM = 0.1


def main(arguments: Sequence[str] | None = None) -> int:
    """Counts, measures, prints; returns the exit status."""
    return run_tool(make_parser(), arguments, _run, errors=(UserError,))


def _run(options: argparse.Namespace) -> None:
    keep_freed_memory()
    _report(options)
    check_output()


def make_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        prog="ctkd overhead", description="Counts and times what a temperature costs."
    )
    add = parser.add_argument
    add("--pairs", metavar="A,B", help="TEACHER_STUDENT pairs (default: all of the paper)")
    add("--timing_pairs", metavar="A,B", help=f"pairs to time, or all (default: {TIMED})")
    add("--no_timing", action="store_true", help="count only")
    add("--rounds", type=int, default=12, help="turns of the timing (default 12)")
    add("--threads", type=int, help="torch's threads (default: its own choice)")
    add("--markdown", action="store_true", help="print the tables as Markdown")
    add("--json", action="store_true", help="print one JSON object and nothing else")
    return parser


def paper_pairs() -> list[str]:
    """The pairs of CIFAR-100, and ImageNet's."""
    return [*sorted(path.stem for path in (ROOT / "gin/cifar100/pairs").glob("*.gin")), IMAGENET]


def _report(options: argparse.Namespace) -> None:
    if options.threads:
        import torch

        torch.set_num_threads(options.threads)
    if options.rounds < 1:
        raise ConfigError(f"--rounds {options.rounds}: expected a number of 1 or more")
    names = options.pairs.split(",") if options.pairs else paper_pairs()
    timed = [] if options.no_timing else _timed(options.timing_pairs, names)
    for name in (*names, *timed):
        split_name(name)  # a misspelled name is an error before anything is counted
    counts = [count_pair(name, *split_name(name)) for name in names]
    tables = [
        ("A training step of a sample, by count", _pair_table(counts)),
        ("Temperature policies, by count", _policy_table(counts)),
    ]
    costs = []
    for name in timed:
        from ctkd.benchmarks.overhead import cost_table, measure_costs

        print(f"timing {name} …", file=sys.stderr)
        found = measure_costs(name, options.rounds)
        costs.append(found)
        tables.append((f"By clock, {name}, batch 64", cost_table(found)))
    lines = verdict(counts)
    if options.json:
        print(json.dumps({"counts": [_flat(c) for c in counts], "costs": costs, "verdict": lines}))
        return
    for title, table in tables:
        if options.markdown:
            print(f"**{title}**\n\n{to_markdown(table)}")
        else:
            print_table(table, sys.stdout, title=title)
            print("".join(f"  {note}\n" for note in table.notes))
    print("\n".join(lines))


def _timed(wish: str | None, names: Sequence[str]) -> list[str]:
    """The pairs to time: those of CIFAR-100, since the timed images have 32 × 32 pixels."""
    if wish == "all":
        return [name for name in names if name != IMAGENET]
    return wish.split(",") if wish else [TIMED]


def _pair_table(counts: Sequence[PairCount]) -> Table:
    columns = [Column("teacher → student")]
    for role in ("teacher", "student"):
        columns += [Column(f"{role} params, M", "number"), Column("MACs, M", "number", 1)]
    columns += [Column("global, %", "number", 3), Column("instance, %", "number", 3)]
    rows: list[list[Cell]] = []
    for pair in counts:
        row: list[Cell] = [" → ".join(split_name(pair.name))]
        for count in (pair.teacher, pair.student):
            row += [count.parameters / 1e6, count.macs / 1e6]
        rows.append([*row, pair.share(GLOBAL), pair.share(INSTANCE)])
    note = (
        "MACs of one forward; the shares are of the teacher's forward and the student's forward "
        "and backward together"
    )
    return Table(columns, rows, [note])


def _policy_table(counts: Sequence[PairCount]) -> Table:
    columns = [Column("policy"), Column("classes", "count")]
    columns += [Column("parameters", "count"), Column("MACs of a forward", "count")]
    seen = {(name, pair.classes): c for pair in counts for name, c in pair.policies.items()}
    rows: list[list[Cell]] = [
        [name, classes, f"{count.parameters:,}", f"{count.macs:,}"]
        for (name, classes), count in seen.items()
    ]
    return Table(columns, rows)


def verdict(counts: Sequence[PairCount]) -> list[str]:
    """The verdict on the claim, and whether the two counters agree."""
    most = max(counts, key=lambda pair: pair.share(INSTANCE))
    learned = {pair.policies[GLOBAL].parameters for pair in counts}
    share = most.share(INSTANCE)
    apart = [pair.name for pair in counts if not _agrees(pair)]
    holds = "holds" if learned == {1} and share <= CLAIM else "does not hold"
    return [
        f"global: {', '.join(map(str, sorted(learned)))} parameter, no multiplication; instance: "
        f"{most.policies[INSTANCE].parameters:,} parameters, at most {share:.3f} % of a training "
        f"step's MACs ({most.name})",
        f"the claim that the temperature costs next to nothing (here: one parameter for the global "
        f"one, at most {CLAIM} % of a step for the other) {holds}",
        "fvcore and PyTorch's own counter agree on every network and policy"
        if not apart
        else f"fvcore and PyTorch's own counter differ for {', '.join(apart)}",
    ]


def _agrees(pair: PairCount) -> bool:
    return all(c.agrees for c in (pair.teacher, pair.student, *pair.policies.values()))


def _flat(pair: PairCount) -> dict[str, object]:
    flat: dict[str, object] = {"pair": pair.name, "step_macs": pair.step}
    for role, count in (("teacher", pair.teacher), ("student", pair.student)):
        flat |= {f"{role}_parameters": count.parameters, f"{role}_macs": count.macs}
        flat |= {f"{role}_macs_by_torch": count.checked}
    for name, count in pair.policies.items():
        flat |= {f"{name}_parameters": count.parameters, f"{name}_macs": count.macs}
        flat[f"{name}_percent_of_step"] = pair.share(name)
    return flat
