"""Train or evaluate: ctkd train --gin_file=gin/digits/ctkd.gin, or python -m ctkd.main.

Trains (or evaluates) the run that Gin files describe.
Exit status: 0 finished, 2 a user's error, 3 a non-finite loss, 130 interrupted.
"""

import sys
from collections.abc import Sequence

from absl import flags

from ctkd.command_line import ROOT, help_text, read_flags, show
from ctkd.engine.config.gin_files import find
from ctkd.engine.exit_status import exit_status, leave
from ctkd.engine.interrupt import EarlyInterrupts
from ctkd.errors import ConfigError
from ctkd.files import expand_user, user_path
from ctkd.macro_flags import MACROS, SWITCHES, macro_bindings
from ctkd.memory import keep_freed_memory
from ctkd.standard_output import passing_line

FLAGS = flags.FlagValues()  # type: ignore[no-untyped-call]
HELP = {
    "gin_file": "A Gin file; may be repeated, later ones win.",
    "workdir": "The folder of the run; alone, it resumes the run that is in it.",
    **{name: text for name, (_, text) in MACROS.items()},
    **SWITCHES,
    "seeds": "Such as 0,1,2: a run for each, in one process that reads data and teacher once.",
    "methods": "Gin files, FILE,FILE: a run for each, also in one process.",
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
for _name in ("seeds", "methods"):
    flags.DEFINE_list(_name, [], HELP[_name], flag_values=FLAGS)
for _name in (*SWITCHES, "fresh", "dry_run", "help"):
    flags.DEFINE_bool(_name, False, HELP[_name], flag_values=FLAGS)
flags.DEFINE_enum("mode", "train", ["train", "evaluate"], HELP["mode"], flag_values=FLAGS)


def run(arguments: Sequence[str], early: EarlyInterrupts) -> None:
    """Does what the flags say. Raises UserError, NonFiniteError or Interrupted."""
    read_flags(FLAGS, "ctkd.main", arguments, stray="Gin files are given as --gin_file")
    if FLAGS.help:
        where = f"The Gin files of ctkd are in {ROOT / 'gin'}"
        show(f"{help_text(__doc__, HELP)}\n\n{where}")
        return
    files = _gin_files()
    _check_flags()
    for file in (*files, *FLAGS.methods):
        find(expand_user(file, "the Gin file"))  # a wrong path must not wait for torch
    flagged = macro_bindings(
        {name: FLAGS[name].value for name in (*MACROS, *SWITCHES)}, FLAGS.gin_param
    )
    seeds = _seeds()
    keep_freed_memory()  # before torch allocates anything
    with passing_line("loading PyTorch …"):  # takes seconds
        from ctkd.engine.dry_run import describe
        from ctkd.engine.group import check_group, execute_group
        from ctkd.engine.job import Job, evaluate, execute
        from ctkd.engine.output.console import Console

    early.raise_if_signalled()
    job = Job(files, [*FLAGS.gin_param, *flagged], FLAGS.workdir, FLAGS.fresh)
    jobs = [job.for_method(file) for file in FLAGS.methods] or [job]
    jobs = [each.for_seed(seed) for seed in seeds for each in jobs] or jobs
    if FLAGS.dry_run:
        check_group(jobs)
        show("\n\n".join(describe(each, Console()) for each in jobs))
    elif FLAGS.mode == "evaluate":
        evaluate(job, FLAGS.checkpoint, Console())
    elif FLAGS.seeds or FLAGS.methods:
        execute_group(jobs)
    else:
        execute(job, Console())


def _gin_files() -> list[str]:
    """The Gin files of all runs. Raises ConfigError if there is nothing to do."""
    files = list(FLAGS.gin_file)
    if FLAGS.methods:
        return files
    if not files and (FLAGS.mode == "evaluate" or FLAGS.workdir):
        files = [_config_of_run(FLAGS.workdir, FLAGS.checkpoint)]
    if not files:
        raise ConfigError(
            "nothing to do: give a Gin file, for example --gin_file=gin/digits/ctkd.gin; "
            "`ctkd list` shows all methods, --help all flags"
        )
    return files


def _check_flags() -> None:
    """Raises ConfigError where two flags do not go together."""
    if FLAGS.checkpoint and FLAGS.mode != "evaluate":
        raise ConfigError("--checkpoint goes with --mode=evaluate; a run resumes by itself")
    if FLAGS.fresh and (FLAGS.dry_run or FLAGS.mode == "evaluate"):
        raise ConfigError("--fresh begins a run again: it goes with neither --dry_run nor evaluate")
    if (FLAGS.seeds or FLAGS.methods) and FLAGS.mode == "evaluate":
        raise ConfigError(
            "--seeds and --methods train several runs, and --mode=evaluate takes one: give its "
            "--workdir"
        )


def _seeds() -> list[int]:
    if not all(seed.strip().isdigit() for seed in FLAGS.seeds):
        raise ConfigError(f"--seeds={','.join(FLAGS.seeds)}: expected whole numbers, such as 0,1,2")
    return [int(seed) for seed in FLAGS.seeds]


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
    given = sys.argv[1:] if arguments is None else arguments
    return exit_status(lambda early: run(given, early))


if __name__ == "__main__":
    leave(main())
