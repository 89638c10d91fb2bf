"""The command: `python -m ctkd.main --gin_file=gin/digits/ctkd.gin`.

Trains (or evaluates) the run that Gin files describe. Exit status: 0 finished, 2 a user's error,
3 a non-finite loss, 130 interrupted.
"""

import os
import sys
from collections.abc import Sequence

from absl import flags

from ctkd.command_line import ROOT, help_text, read_flags, show
from ctkd.engine.interrupt import EarlyInterrupts
from ctkd.errors import ConfigError, Interrupted, NonFiniteError, UserError
from ctkd.files import user_path
from ctkd.macro_flags import MACROS, SWITCHES, macro_bindings
from ctkd.memory import keep_freed_memory
from ctkd.standard_output import safe_output

FLAGS = flags.FlagValues()  # type: ignore[no-untyped-call]
HELP = {
    "gin_file": "A Gin file; may be repeated, later ones win.",
    "workdir": "The folder of the run; alone, it resumes the run that is in it.",
    **{name: text for name, (_, text) in MACROS.items()},
    **SWITCHES,
    "seeds": "Such as 0,1,2: a run for each, in one process that reads data and teacher once.",
    "gin_param": "Any other setting: 'KD.kd_weight = 2.0', \"device = 'cuda'\"; may be repeated.",
    "mode": "train (the default), or evaluate: judge a trained student.",
    "checkpoint": "With --mode=evaluate: the student's weights.",
    "fresh": "Begin again; the old work directory is moved aside.",
    "dry_run": "Build and print everything, train nothing; needs no data and no weights.",
    "help": "Print this.",
}
for _name in ("gin_file", "gin_param"):
    flags.DEFINE_multi_string(_name, [], HELP[_name], flag_values=FLAGS)
for _name in ("workdir", "checkpoint", *MACROS):
    flags.DEFINE_string(_name, None, HELP[_name], flag_values=FLAGS)
flags.DEFINE_list("seeds", [], HELP["seeds"], flag_values=FLAGS)
for _name in (*SWITCHES, "fresh", "dry_run", "help"):
    flags.DEFINE_bool(_name, False, HELP[_name], flag_values=FLAGS)
flags.DEFINE_enum("mode", "train", ["train", "evaluate"], HELP["mode"], flag_values=FLAGS)


def run(arguments: Sequence[str], early: EarlyInterrupts) -> None:
    """Does what the flags say. Raises UserError, NonFiniteError or Interrupted."""
    read_flags(FLAGS, "ctkd.main", arguments, stray="Gin files are given as --gin_file")
    if FLAGS.help:
        where = f"The Gin files that come along lie in {ROOT / 'gin'}"
        show(f"{help_text(__doc__, HELP)}\n\n{where}")
        return
    files = list(FLAGS.gin_file)
    if not files and (FLAGS.mode == "evaluate" or FLAGS.workdir):
        files = [_config_of_run(FLAGS.workdir, FLAGS.checkpoint)]
    if not files:
        raise ConfigError(
            "nothing to do: give --gin_file=gin/digits/ctkd.gin, say; `ctkd list` shows all, "
            "--help the flags"
        )
    if FLAGS.checkpoint and FLAGS.mode != "evaluate":
        raise ConfigError("--checkpoint goes with --mode=evaluate; a run resumes by itself")

    if FLAGS.fresh and (FLAGS.dry_run or FLAGS.mode == "evaluate"):
        raise ConfigError("--fresh begins a run again: it goes with neither --dry_run nor evaluate")

    keep_freed_memory()  # before torch allocates anything
    from ctkd.engine.dry_run import describe
    from ctkd.engine.group import execute_group
    from ctkd.engine.job import Job, evaluate, execute
    from ctkd.engine.output.console import Console  # torch takes seconds to import, --help none

    early.raise_if_signalled()
    flagged = macro_bindings(
        {name: FLAGS[name].value for name in (*MACROS, *SWITCHES)}, FLAGS.gin_param
    )
    job = Job(files, [*FLAGS.gin_param, *flagged], FLAGS.workdir, FLAGS.fresh)
    if FLAGS.dry_run:
        show(describe(job, Console()))
    elif FLAGS.mode == "evaluate":
        evaluate(job, FLAGS.checkpoint, Console())
    elif FLAGS.seeds:
        execute_group([job.for_seed(seed) for seed in _numbers(FLAGS.seeds)])
    else:
        execute(job, Console())


def _numbers(seeds: Sequence[str]) -> list[int]:
    if not all(seed.strip().isdigit() for seed in seeds):
        raise ConfigError(f"--seeds={','.join(seeds)}: expected whole numbers, such as 0,1,2")
    return [int(seed) for seed in seeds]


def _config_of_run(workdir: str | None, checkpoint: str | None) -> str:
    """`config.gin` of the given work directory, or of the one that holds the checkpoint.

    Raises:
        ConfigError: there is no such file.
    """
    given = [user_path(workdir, "--workdir")] if workdir else []
    if checkpoint:  # it may be in the folder checkpoints/ of the work directory
        given += list(user_path(checkpoint.partition("::")[0], "--checkpoint").parents)[:2]
    for folder in given:
        path = folder / "config.gin"
        if path.is_file():
            return str(path)
    if workdir:
        state = "holds no config.gin" if given[0].is_dir() else "does not exist"
        raise ConfigError(
            f"--workdir={workdir} {state}, so no run was begun there: give the folder of a run "
            "(runs/…/METHOD-seed0-HASH), or a --gin_file"
        )
    raise ConfigError(
        "--mode=evaluate needs --workdir or --checkpoint of a run, or a --gin_file "
        "that says which network and which data"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status, with one clear message on standard error if it is not 0."""
    with safe_output():
        try:
            with EarlyInterrupts() as early:
                run(sys.argv[1:] if arguments is None else arguments, early)
        except UserError as error:
            print(f"ctkd: {error}", file=sys.stderr)
            return 2
        except NonFiniteError as error:
            print(f"ctkd: stopped: {error}", file=sys.stderr)
            return 3
        except (Interrupted, KeyboardInterrupt) as error:
            saved = "the state is saved"
            state = f"{error}; {saved}" if str(error) else "interrupted; what was saved stays"
            print(f"ctkd: {state}; the same command goes on from there", file=sys.stderr)
            return 130
        return 0


def leave(status: int) -> None:
    """Ends the process; after an interrupt at once.

    At a normal exit Python would tear down libraries whose import was interrupted. That can abort
    the process, or report the interrupt as an exception that nobody caught.
    """
    if status == 130:
        with safe_output():  # flushes both streams
            pass
        os._exit(status)
    sys.exit(status)


if __name__ == "__main__":
    leave(main())
