"""Every command in README, BUILD.md, docs/ and the cards of gin/: its flags parse, its run builds.

A name in capitals (METHOD, DIR: `STANDS_FOR`) stands for one of the user's, and `…` at a command's
end for flags that came before. A run is built as `--dry_run` builds it, in this process.
"""

import functools
import importlib
import pathlib
import re
import shlex

import pytest
from torch.distributed.run import get_args_parser

from ctkd import main
from ctkd.command_line import read_flags
from ctkd.commands.list_names import page
from ctkd.commands.program import SUBCOMMANDS
from ctkd.engine.config.builder import KnownNetworks
from ctkd.engine.job import Job
from ctkd.errors import ConfigError
from ctkd.macro_flags import MACROS, macro_bindings
from ctkd.sweeps import command as launcher
from ctkd.sweeps.check import check
from ctkd.sweeps.study import read_study

ROOT = pathlib.Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
CARDS = sorted((ROOT / "gin").rglob("*.gin"))
each = functools.partial(pytest.mark.parametrize, "path", ids=lambda p: str(p.relative_to(ROOT)))
pytestmark = pytest.mark.xdist_group("commands")  # one process for all: each run is built once
STANDS_FOR = {
    **{"METHOD": "kd", "NAME": "vgg13_vgg8", "PAIR": "resnet56_resnet20", "DIR": "/data"},
    **{"FILE": "/weights/teacher.pth", "WORKDIR": "runs/digits/kd", "OTHER": "runs/other"},
    "mine.gin": "gin/imagenet/ctkd.gin",  # tests/docs/test_your_images.py runs it
}
SUBCOMMAND = rf"ctkd (?:{'|'.join(SUBCOMMANDS)}) (?=\S)"
PROGRAM = (
    rf"(?:\w+=\S+ )*(?:\S*/)?(?:python3?|pip|torchrun) |(?:tools|launchers)/\w+\.py |{SUBCOMMAND}"
)
KNOWN = KnownNetworks()
# TensorBoard's; and those of other code, which docs/coming_from.md translates.
FLAGS_OF_OTHERS = {"logdir", "kd_", "t_start", "t_end", "cosine_decay", "decay_max", "decay_min"}
FLAGS_OF_OTHERS |= {"decay_loops", "have_mlp", "mlp_name", "trial"}


def text_of(path):
    """A page, or the comments of a Gin file, with lines that a backslash continues joined."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".gin":
        marked = (line for line in text.splitlines() if line.startswith("#"))
        text = "\n".join(line.removeprefix("#").removeprefix(" ") for line in marked)
    return re.sub(r"\\\n\s*", " ", text)


def spans_of(path):
    """What stands between single backticks, on one line."""
    outside = re.sub(r"^```.*?^```", "", text_of(path), flags=re.DOTALL | re.MULTILINE)
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", outside)]


def commands_of(path):
    """The commands of a page or card."""
    lines = re.findall(rf"^\s*((?:{PROGRAM}).*)$", text_of(path), re.MULTILINE)
    spans = [span for span in spans_of(path) if re.match(PROGRAM, span)]
    for line in [*lines, *spans]:
        yield from map(replaced, line.split(" && "))


def replaced(command):
    command, cut, _ = command.strip().replace("=…", "=runs/x").partition(" …")
    if cut and command.endswith(("ctkd.main", "ctkd train")):
        command += " --gin_file=gin/digits/ctkd.gin"
    for name, value in STANDS_FOR.items():
        command = re.sub(rf"\b{name}\b", value, command)
    return command


COMMANDS = [(path, command) for path in (*PAGES, *CARDS) for command in commands_of(path)]


def tool(name):
    """The parser of one of the tools: that of the subcommand that the tool hands over to."""
    text = (ROOT / "tools" / f"{name}.py").read_text(encoding="utf-8")
    (module,) = re.findall(r"^from (ctkd\.\S+) import main$", text, re.MULTILINE)
    return importlib.import_module(module).make_parser()


def check_subcommand(name, words):
    """The words behind `ctkd NAME`."""
    module = SUBCOMMANDS[name].module
    words = [*SUBCOMMANDS[name].first, *words]
    if module == "ctkd.main":
        check_main(words)
    elif module == "ctkd.sweeps.command":
        check_launcher(words)
    else:
        check_options(importlib.import_module(module).make_parser().parse_args(words))


def check_options(options):
    """The run of a tool that takes Gin files; the name that is to be listed."""
    if "rows" in options:
        build(tuple(options.gin_file), (*options.gin_param, *macros_of(options)))
    elif "name" in options:
        assert page(" ".join(options.name) or None)


def macros_of(options):
    """The bindings of the flags that set macros: an object with an attribute for each."""
    return tuple(macro_bindings({name: getattr(options, name) for name in MACROS}))


@functools.cache
def build(files, params):  # without memory, data and weights
    return Job(files, params).build(meta=True, known=KNOWN)


def check_main(words):
    read_flags(main.FLAGS, "ctkd.main", words, stray="?")
    flags = main.FLAGS
    for method in [[file] for file in flags.methods] or [[]] * bool(flags.gin_file):
        build((*method, *flags.gin_file), (*flags.gin_param, *macros_of(flags)))
    assert any((flags.gin_file, flags.methods, flags.mode == "evaluate", flags.workdir, flags.help))


def check_launcher(words):
    launcher.parse_flags(words)
    flags = launcher.FLAGS
    if flags.sweep:
        files, params = tuple(flags.gin_file), (*flags.gin_param, *macros_of(flags))
        check_sweep(flags.sweep, files, params, tuple(launcher._own_bindings()))


@functools.cache
def check_sweep(sweep, files, params, own):
    """A sweep as it stands is left to tests/sweeps/test_command.py, which builds each of gin/."""
    study = read_study(sweep, files, params, own)
    own_cells = files or params or any(not o.startswith("Resources.") for o in own)
    assert check(study, supplies=False) if own_cells or ROOT / sweep not in CARDS else study.cells


def check_python(words):
    """The words behind `python`."""
    if words[0] != "-m":
        path = pathlib.Path(words[0])
        assert (ROOT / path).is_file()
        if path == pathlib.Path("tools/check.py"):
            assert set(words[1:]) <= {"--fast"}
        elif path.parent.name == "tools":
            check_options(tool(path.stem).parse_args(words[1:]))
        else:
            assert path == pathlib.Path("launchers/slurm.py")
            check_launcher(words[1:])
    elif words[1] == "ctkd.main":
        check_main(words[2:])
    elif words[1] == "ctkd.sweeps":
        check_launcher(words[2:])
    else:
        assert words[1] in ("venv", "pytest", "sphinx", "build", "mypy", "ruff")
        assert all((ROOT / w).exists() for w in words[2:] if w.startswith(("tests/", "docs/")))


def check_pip(words):
    assert words[0] in ("install", "wheel")
    metadata = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    extras = re.search(r"\[project.optional-dependencies\]\n(.*?)\n\[", metadata, re.DOTALL)[1]
    (what,) = (word for word in words[1:] if not word.startswith("-"))
    wanted = re.fullmatch(r"(?:\.|ctkd)(?:\[(\w+)\])?", what)
    assert wanted, f"{what}: not this project"
    assert wanted[1] is None or re.search(rf"^{wanted[1]} = \[", extras, re.MULTILINE)


def check_command(command):
    words = shlex.split(command)
    while re.match(r"[A-Z_]+=", words[0]):
        words.pop(0)
    program = pathlib.Path(words[0]).name
    if program == "torchrun":
        options = get_args_parser().parse_args(words[1:])
        assert options.module
        check_python(["-m", options.training_script, *options.training_script_args])
    elif program == "pip":
        check_pip(words[1:])
    elif program == "ctkd":
        check_subcommand(words[1], words[2:])
    else:
        check_python(words[1:] if program.startswith("python") else words)


@each([*PAGES, *(pytest.param(path, marks=pytest.mark.slow) for path in CARDS)])
def test_every_command_parses_and_its_run_builds(path):
    for command in commands_of(path):
        try:
            check_command(command)
        except (AssertionError, ConfigError, SystemExit, ValueError) as error:
            assert "/models/big" in str(error), f"{command}\n{error!r}"  # a model of the user


def test_the_commands_are_found():
    """What the test above is given to check."""
    found = [command for _, command in COMMANDS]
    assert len(found) >= 60
    for expected in (
        "python -m ctkd.main --gin_file=gin/digits/ctkd.gin",
        ".venv/bin/python -m ctkd.main --gin_file=gin/digits/ctkd.gin",
        ".venv/bin/pip install -q -e .[dev]",
        "torchrun --nproc_per_node=4 -m ctkd.main --gin_file=gin/digits/ctkd.gin",
        "python launchers/slurm.py --sweep gin/sweeps/digits.gin --wait",
        "ctkd report runs/sweeps/digits",
    ):
        assert expected in [" ".join(shlex.split(command)) for command in found]
    for path in CARDS:
        assert path.name == "base.gin" or path in [source for source, _ in COMMANDS]


def test_a_command_that_is_wrong_is_noticed():
    for command in (
        "python -m ctkd.main --gin_fiel=gin/digits/ctkd.gin",
        "python -m ctkd.main --gin_file=gin/digits/ctkd.gin --gin_param 'epohcs = 2'",
        "python launchers/slurm.py --sweep gin/sweeps/digits.gin --wiat",
        "python tools/compare.py runs/digits --baselnie kd",
        "python tools/no_such_tool.py",
        "torchrun --processes=4 -m ctkd.main --gin_file=gin/digits/ctkd.gin",
        "pip install .[devel]",
        "ctkd train --gin_file=gin/digits/ctkd.gin --epochs=many",
        "ctkd list resnet8x5",
    ):
        with pytest.raises((AssertionError, ConfigError, SystemExit)):
            check_command(command)


def flags_known():
    known = set(main.FLAGS) | set(launcher.FLAGS)
    for path in (ROOT / "tools").glob("*.py"):
        if path.stem not in ("__init__", "check"):
            known |= {option[2:] for option in tool(path.stem)._option_string_actions}
    return known | {"fast", "version"}


@each([*PAGES, *CARDS])
def test_flags_that_are_named_alone_exist_and_their_bindings_have_an_effect(path):
    """As in "`--gin_param 'epochs = 24'` shortens it", or a card's "commonly overridden"."""
    text = text_of(path) if path.suffix == ".gin" else "\n".join(spans_of(path))
    text = re.sub(rf"`(?:{PROGRAM})[^`]+`", "", text)
    lines = (line for line in text.splitlines() if not re.match(rf"\s*(?:{PROGRAM})", line))
    commands = "\n".join(map(replaced, lines))
    named = set(re.findall(r"(?<![\w-])--([a-z_]+)", commands))
    assert sorted(named - flags_known() - FLAGS_OF_OTHERS) == []
    bindings = [binding for _, binding in re.findall(r"--gin_param[= ]('|\")(.+?)\1", commands)]
    flags = dict(re.findall(r"--(\w+)=([^\s,;)]*[^\s,;).])", commands))
    bindings += macro_bindings({name: flags[name] for name in MACROS if name in flags})
    for binding in bindings:
        files = [*files_of(path), *USUAL]
        assert any(builds(f, (binding,)) or builds(f, tuple(bindings)) for f in files), binding
    for _, binding in re.findall(r"--sweep_param[= ]('|\")(.+?)\1", commands):
        sweep = path if path.parent.name == "sweeps" else ROOT / "gin/sweeps/digits.gin"
        assert read_study(str(sweep), own=(binding,)).cells


USUAL = [(f"gin/{name}.gin",) for name in ("digits/ctkd", "cifar100/ctkd", "cifar100/kd")]
USUAL += [("gin/imagenet/ctkd.gin",), ("gin/coco/ctkd.gin",)]


def files_of(path):
    """The Gin files of each command that trains."""
    for command in commands_of(path):
        found = re.search(r"(?:-m ctkd\.main|\bctkd train) (?=--gin_file)", command)
        if found:
            words = shlex.split(command[found.end() :])
            read_flags(main.FLAGS, "ctkd.main", words, stray="?")
            yield tuple(main.FLAGS.gin_file)


def builds(files, bindings):
    try:
        return bool(build(files, bindings))
    except ConfigError:
        return False
