"""The command `ctkd`: it passes its arguments to one of its subcommands.

A subcommand's module is imported only when the subcommand runs, so that `ctkd --help` and
`ctkd list` import neither torch nor matplotlib.
"""

import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ctkd.checks import suggest
from ctkd.command_line import ROOT, show
from ctkd.standard_output import safe_output


@dataclass(frozen=True)
class Subcommand:
    """A subcommand of `ctkd`.

    Attributes:
        module: its function `main(arguments)` returns the exit status.
        text: one line for the help.
        first: arguments that come before those of the command line.
    """

    module: str
    text: str
    first: tuple[str, ...] = ()


SUBCOMMANDS = {
    "train": Subcommand("ctkd.main", "Train the run that Gin files describe, or resume it."),
    "evaluate": Subcommand("ctkd.main", "Evaluate a trained student.", ("--mode=evaluate",)),
    "list": Subcommand("ctkd.commands.list_names", "List methods, networks, data sets, losses …"),
    "sweep": Subcommand("ctkd.sweeps.command", "Run a study on SLURM or on this machine."),
    "compare": Subcommand("ctkd.commands.compare_runs", "Compare finished runs over their seeds."),
    "report": Subcommand("ctkd.commands.report_sweep", "Write the page and the CSV of a sweep."),
    "check": Subcommand("ctkd.commands.check_step", "Check the CTKD of any code base."),
    "landscape": Subcommand(
        "ctkd.commands.landscape_of_run", "Draw L(T) of a run's networks, or of checkpoints."
    ),
    "detect": Subcommand("ctkd.commands.detect_boxes", "Draw the boxes that a run detects."),
    "fill-cache": Subcommand("ctkd.commands.fill_cache", "Compute a teacher's logits in advance."),
    "overhead": Subcommand("ctkd.commands.count_overhead", "Count and time what T costs."),
    "benchmark": Subcommand("ctkd.commands.run_benchmark", "Measure the speed of this machine."),
    "gpu-check": Subcommand("ctkd.commands.check_gpu", "Check this machine's GPU and its speed."),
    "gpu-pack": Subcommand("ctkd.commands.pack_for_gpu", "Pack what a check elsewhere needs."),
}
EXAMPLES = """\
ctkd: knowledge distillation with a learned temperature.

  ctkd list                                   # what there is
  ctkd train --gin_file=gin/digits/ctkd.gin   # about a minute on two CPU cores
  ctkd compare runs/digits                    # tables of finished runs
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a subcommand; returns its exit status, 2 if there is no such subcommand."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    name = given[0] if given else "--help"
    if name in ("-h", "--help", "help"):
        show(help_page())
        return 0
    if name == "--version":
        from ctkd import __version__

        show(f"ctkd {__version__}")
        return 0
    if name not in SUBCOMMANDS:
        hint = suggest(name, SUBCOMMANDS) or "; `ctkd --help` lists the subcommands"
        with safe_output():
            print(f"ctkd: no subcommand {name!r}{hint}", file=sys.stderr)
        return 2
    subcommand = SUBCOMMANDS[name]
    run: Callable[[Sequence[str]], int] = importlib.import_module(subcommand.module).main
    return run([*subcommand.first, *given[1:]])


def help_page() -> str:
    """The text of `ctkd --help`."""
    lines = [f"  ctkd {name:<11}  {entry.text}" for name, entry in SUBCOMMANDS.items()]
    rest = f"`ctkd SUBCOMMAND --help` shows its flags. The Gin files are in\n{ROOT / 'gin'}"
    return "\n".join([EXAMPLES, "Subcommands:", *lines, "", rest])


def run_process() -> None:
    """The entry point of the installed command `ctkd`: runs it, then ends the process."""
    from ctkd.engine.exit_status import leave

    leave(main())
