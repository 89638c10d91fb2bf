"""The command behind `launchers/slurm.py`: checks, sends or runs, follows, and ends a sweep.

    python launchers/slurm.py --sweep gin/sweeps/lambda.gin [--wait]
    python launchers/slurm.py --sweep gin/sweeps/lambda.gin --status
    python launchers/slurm.py --sweep gin/sweeps/lambda.gin --cancel

On SLURM the runs are sent, and the command ends; with --wait it follows them. Elsewhere, or with
--cluster=local, the command itself runs them, --parallel at a time, until all have ended. Ctrl-C,
SIGTERM and a closed terminal then stop the runs with their states saved; the same command continues
the sweep.

Exit status: 0 done (if it followed the runs: all finished), 1 not all of them finished, 2 a user's
error, 130 interrupted.
"""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from absl import flags
from rich.console import Console

from ctkd.command_line import help_text, read_flags, show
from ctkd.errors import ConfigError, Interrupted, UserError
from ctkd.macro_flags import MACROS, SWITCHES, macro_bindings
from ctkd.standard_output import check_output, safe_output

if TYPE_CHECKING:
    from ctkd.sweeps.cell_states import Status
    from ctkd.sweeps.folder import SavedCell, SavedSweep, SweepFolder
    from ctkd.sweeps.local import LocalRuns

FLAGS = flags.FlagValues()  # type: ignore[no-untyped-call]
HELP = {
    "sweep": "The sweep's Gin file.",
    "sweep_dir": "The folder of the sweep; by default runs/sweeps/NAME.",
    "cluster": "auto|slurm|local; auto is SLURM if it is installed, else local: this machine.",
    "dry_run": "Check the cells and print the command of each; send nothing.",
    "wait": "Follow the runs on SLURM until all have ended; send again those that were killed.",
    "status": "Show the states of the runs, live on a terminal; send nothing.",
    "cancel": "End the jobs of this sweep that wait or run on SLURM.",
    "gin_file": "One more Gin file for every run; may be repeated.",
    "gin_param": "One more binding for every run; may be repeated.",
    **{name: f"For every run. {text}" for name, (_, text) in MACROS.items()},
    **SWITCHES,
    "sweep_param": "A binding of the sweep itself, 'Sweep.seeds = [0]'; may be repeated.",
    "help": "Print this.",
}
RESOURCES: dict[str, tuple[type, str]] = {
    "partition": (str, "SLURM's partition."),
    "account": (str, "SLURM's account, which pays for the time."),
    "qos": (str, "SLURM's quality of service."),
    "constraint": (str, "SLURM's constraint, a feature that nodes must have."),
    "gpus": (int, "GPUs of one node; 0 trains on the CPU."),
    "cpus": (int, "Cores of one task."),
    "mem_gb": (float, "Memory of one node."),
    "nodes": (int, "Nodes of one run."),
    "tasks": (int, "Processes of one run on each node."),
    "minutes": (int, "Minutes of a job on SLURM; a run that needs more continues in its next job."),
    "parallel": (int, "How many runs at once; of groups, how many groups."),
    "group": (int, "How many runs with equal data and teacher share a process of this machine."),
    "retries": (int, "How often a run that was killed without an error is sent again."),
}
for _name in ("gin_file", "gin_param", "sweep_param"):
    flags.DEFINE_multi_string(_name, [], HELP[_name], flag_values=FLAGS)
for _name in ("sweep", "sweep_dir", *MACROS):
    flags.DEFINE_string(_name, None, HELP[_name], flag_values=FLAGS)
for _name in (*SWITCHES, "dry_run", "wait", "status", "cancel", "help"):
    flags.DEFINE_bool(_name, False, HELP[_name], flag_values=FLAGS)
flags.DEFINE_enum("cluster", "auto", ["auto", "slurm", "local"], HELP["cluster"], flag_values=FLAGS)
for _name, (_kind, _text) in RESOURCES.items():
    _define: Any = {str: flags.DEFINE_string, int: flags.DEFINE_integer, float: flags.DEFINE_float}
    _define[_kind](_name, None, _text, flag_values=FLAGS)


def parse_flags(arguments: Sequence[str]) -> None:
    """Fills FLAGS. Raises ConfigError for an unknown flag, a bad value or a stray argument."""
    read_flags(FLAGS, "launchers/slurm.py", arguments, stray="a sweep is given as --sweep")
    chosen = [name for name in ("dry_run", "wait", "status", "cancel") if FLAGS[name].value]
    if len(chosen) > 1:
        raise ConfigError(f"--{chosen[0]} and --{chosen[1]} do not go together")
    named = FLAGS.sweep or (FLAGS.sweep_dir and (FLAGS.status or FLAGS.cancel))
    if not named and not FLAGS.help:
        raise ConfigError("nothing to do: give --sweep=FILE, as in gin/sweeps, or --help")


def run(arguments: Sequence[str]) -> int:
    """Does what the flags request; returns the exit status. Raises UserError or Interrupted."""
    parse_flags(arguments)
    if FLAGS.help:
        texts = {name: f"Resources.{name}: {text}" for name, (_, text) in RESOURCES.items()}
        show(help_text(__doc__, HELP | texts))
        return 0
    if FLAGS.status or FLAGS.cancel:
        return _look() if FLAGS.status else _cancel()
    return _send()


def _own_bindings() -> list[str]:
    given = {name: FLAGS[name].value for name in RESOURCES}
    flagged = [f"Resources.{name} = {v!r}" for name, v in given.items() if v is not None]
    return [*FLAGS.sweep_param, *flagged]


def _send() -> int:
    from ctkd.results.compare.tables import print_table
    from ctkd.sweeps import send
    from ctkd.sweeps.check import cells_table, check, estimate, faults_of_plans
    from ctkd.sweeps.folder import saved_sweep
    from ctkd.sweeps.study import read_study

    flagged = macro_bindings(
        {name: FLAGS[name].value for name in (*MACROS, *SWITCHES)}, FLAGS.gin_param
    )
    params = [*FLAGS.gin_param, *flagged]
    study = read_study(FLAGS.sweep, FLAGS.gin_file, params, _own_bindings())
    folder = send.default_folder(study.name, FLAGS.sweep_dir)
    with Console(stderr=True).status(f"checking {len(study.cells):,} runs"):
        plans = check(study, supplies=not FLAGS.dry_run)
    cluster = send.cluster_named(FLAGS.cluster)
    send.check_group(study.resources, cluster)
    saved = saved_sweep(study, folder, plans)
    shown = sys.stderr if FLAGS.dry_run else sys.stdout  # keeps commands alone in a pipe
    print_table(cells_table(plans), shown, title=study.name)
    for fault in faults_of_plans(plans):
        print(f"warning: {fault}", file=sys.stderr)
    # A dry run may be for a larger machine than this one.
    limit = study.resources.parallel if FLAGS.dry_run else send.at_once(saved, cluster)
    timed = FLAGS.dry_run or cluster == "slurm"
    print(estimate(study, plans, limit, timed), file=shown, flush=True)
    if FLAGS.dry_run:
        show("\n".join(cell.command for cell in saved.cells))
        return 0
    with folder.owned():
        folder.claim(saved, study.config)
        if cluster == "local":
            return _run_here(folder, saved)
        _send_to_slurm(folder, saved)
    if not FLAGS.wait:
        print("--status shows their states, --wait follows them, --cancel ends them")
        return 0
    return _follow(folder, saved, partial(_have_ended, folder))


def _due(folder: "SweepFolder", saved: "SavedSweep") -> "tuple[list[SavedCell], str]":
    """The cells to send, and a remark on the others."""
    from ctkd.sweeps.send import due

    cells = due(folder, saved.cells)
    rest = len(saved.cells) - len(cells)
    remark = f"; {rest} are finished, waiting or running" if rest else ""
    earlier = len(folder.read().cells) - len(saved.cells)
    return cells, remark + (
        f"; {earlier} that were sent earlier stay as they are" if earlier else ""
    )


def _run_here(folder: "SweepFolder", saved: "SavedSweep") -> int:
    from ctkd.sweeps.local import LocalRuns

    cells, remark = _due(folder, saved)
    print(f"{len(cells)} runs train on this machine{remark}: {folder.path}", flush=True)
    with LocalRuns(folder, saved.resources, cells) as runs:
        return _follow(folder, saved, partial(_have_ended_here, runs))


def _send_to_slurm(folder: "SweepFolder", saved: "SavedSweep") -> None:
    from ctkd.sweeps import arrays

    cells, remark = _due(folder, saved)
    count = arrays.send(folder, saved, cells) if cells else 0
    split = f" in {count} arrays, since it limits the runs of one" if count > 1 else ""
    print(f"{len(cells)} runs were sent to SLURM{split}{remark}: {folder.path}", flush=True)


def _pause(folder: "SweepFolder") -> float:
    """The longest pause between two requests, in seconds: SLURM serves many users."""
    clusters = {entry.cluster for entry in folder.ledger.read().values()}
    return 30.0 if "slurm" in clusters else 1.0


def _have_ended_here(runs: "LocalRuns", found: "Sequence[Status]") -> bool:
    """Whether all runs have ended, including runs that a user started by hand."""
    return runs.ended() and (runs.stopped or not _any_active(found))


def _any_active(found: "Sequence[Status]") -> bool:
    return any(status.active for status in found)


def _have_ended(folder: "SweepFolder", found: "Sequence[Status]") -> bool:
    """Sends lost runs to SLURM again. Returns whether all runs have ended."""
    from ctkd.sweeps.send import send_again

    again = send_again(folder, found)
    if again:
        print(f"sent again: {', '.join(cell.key for cell in again)}")
    return not again and not _any_active(found)


def _follow(
    folder: "SweepFolder", saved: "SavedSweep", end: "Callable[[Sequence[Status]], bool]"
) -> int:
    """Shows these runs until `end`, writes the directory's report, and returns the exit status."""
    from ctkd.sweeps.cell_states import statuses
    from ctkd.sweeps.report import write_report
    from ctkd.sweeps.status_table import follow, new_console, view

    console, keys = new_console(), {cell.key for cell in saved.cells}

    def look() -> "list[Status]":
        return [status for status in statuses(folder) if status.cell.key in keys]

    found = follow(look, _pause(folder), console, end)
    if not console.is_terminal:
        console.print(view(found))
    page, *tables = write_report(folder, statuses(folder))
    print(f"open first: {page}; its tables: {', '.join(path.name for path in tables)}")
    return 0 if all(status.state == "finished" for status in found) else 1


def _look() -> int:
    from ctkd.sweeps.cell_states import statuses
    from ctkd.sweeps.slurm import ClusterError
    from ctkd.sweeps.status_table import follow, new_console, view

    folder, console = _folder(), new_console()
    try:
        if console.is_terminal:
            follow(lambda: statuses(folder), _pause(folder), console)
        else:
            console.print(view(statuses(folder)))
            check_output()
    except ClusterError:
        console.print(view(statuses(folder, ask=False)))  # what the files show
        raise
    return 0


def _cancel() -> int:
    from ctkd.sweeps.cancel import cancel

    cancelled = cancel(_folder())
    ended = ", ".join(cancelled.keys)
    print(f"cancelled: {ended}" if ended else "nothing waits or runs on SLURM")
    for remark in cancelled.remarks:
        print(remark)
    return 0


def _folder() -> "SweepFolder":
    """The directory from --sweep_dir or --sweep."""
    from ctkd.sweeps.send import default_folder
    from ctkd.sweeps.study import read_study

    name = "" if FLAGS.sweep_dir else read_study(FLAGS.sweep, own=_own_bindings()).name
    return default_folder(name, FLAGS.sweep_dir)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status; a user's mistake gives one message on standard error."""
    with safe_output():
        try:
            return run(sys.argv[1:] if arguments is None else arguments)
        except UserError as error:
            print(f"ctkd: {error}", file=sys.stderr)
            return 2
        except Interrupted as error:
            print(f"ctkd: {error}", file=sys.stderr)
            return 130
        except KeyboardInterrupt:
            note = "interrupted; runs on SLURM continue: --status follows them, --cancel ends them"
            print(f"ctkd: {note}", file=sys.stderr)
            return 130
