"""Every Gin file: a card at its top whose command builds, here on the meta device, without data."""

import functools
import inspect
import pathlib
import re
import shlex

import gin
import pytest

from ctkd.engine.config import parse as config
from ctkd.engine.config.builder import KnownNetworks
from ctkd.engine.job import Job
from ctkd.errors import ConfigError
from ctkd.registry import REGISTRIES

KNOWN = KnownNetworks()  # each network is built once, and tried
ROOT = pathlib.Path(__file__).parents[2]
FILES = sorted(path.relative_to(ROOT) for path in (ROOT / "gin").rglob("*.gin"))
pytestmark = pytest.mark.xdist_group("gin files")  # one process for all: each run is built once
BASES = [path for path in FILES if path.name == "base.gin"]
SWEEPS = [path for path in FILES if "sweeps" in path.parts]
RUNS = [path for path in FILES if path not in (*BASES, *SWEEPS)]
SHARED = (  # the macros that every run's configuration has, so that one habit serves all
    "epochs recipe_epochs seed batch_size student teacher teacher_weights device precision compile "
    "threads workers steps_per_epoch"
).split()
NAMES = {str(path): path for path in FILES}


def card(path):
    """The comment that a file opens with."""
    lines = (ROOT / path).read_text(encoding="utf-8").splitlines()
    end = next((n for n, line in enumerate(lines) if not line.startswith("#")), len(lines))
    return "\n".join(line.removeprefix("#").removeprefix(" ") for line in lines[:end])


def commands(path, program):
    """The arguments of each command of `program` in the card."""
    joined = re.sub(r"\\\n\s*", " ", card(path))
    found = re.findall(rf"^\s*python {re.escape(program)} (.*)$", joined, re.MULTILINE)
    return [shlex.split(command) for command in found]


def named(arguments, flag):
    """The values of a repeated flag, in either spelling."""
    pairs = zip(arguments, [*arguments[1:], ""], strict=True)
    return [
        word.partition("=")[2] if "=" in word else following
        for word, following in pairs
        if word == flag or word.startswith(f"{flag}=")
    ]


def job_of(path):
    (arguments, *_) = commands(path, "-m ctkd.main")
    return Job(named(arguments, "--gin_file"), named(arguments, "--gin_param"))


@functools.cache
def built(path):
    """The run of a card's command, and the shared macros that its configuration has."""
    return job_of(path).build(meta=True, known=KNOWN), set(config.macros(SHARED))


def test_there_are_only_gin_files_in_gin():
    strangers = [p for p in (ROOT / "gin").rglob("*") if p.is_file() and p.suffix != ".gin"]
    assert strangers == []  # a .py there would shadow the package gin


def test_no_folder_of_tests_shadows_the_package_gin():
    assert not (ROOT / "tests/gin").exists()
    assert pathlib.Path(gin.__file__).parent != ROOT / "gin"


@pytest.mark.parametrize("path", FILES, ids=str)
def test_every_file_opens_with_a_card(path):
    first, *rest = card(path).splitlines()
    assert len(first) > 20
    assert rest, "a line or two more: what it trains, what to expect"


@pytest.mark.parametrize("path", BASES, ids=str)
def test_a_base_file_is_no_run_by_itself(path):
    assert commands(path, "-m ctkd.main") == []
    with pytest.raises(ConfigError):
        Job([str(ROOT / path)]).build(meta=True, known=KNOWN)


@pytest.mark.parametrize("path", RUNS, ids=str)
def test_every_runs_card_names_the_command_that_runs_it_and_it_builds(path):
    made = job_of(path)
    assert str(path) in made.gin_files
    assert set(made.gin_files) <= NAMES.keys()
    run, _ = built(path)
    assert all(tensor.is_meta for tensor in run.student.parameters())
    stems = [pathlib.Path(name).stem for name in made.gin_files]
    alone = path.stem if "lab" in path.parts else stems[0]
    assert run.name == ("+".join(stems) if path.stem == "learned" else alone)


@pytest.mark.parametrize("path", SWEEPS, ids=str)
def test_every_sweeps_card_names_the_command_that_sends_it(path):
    (arguments, *_) = commands(path, "launchers/slurm.py")
    assert named(arguments, "--sweep") == [str(path)]


@pytest.mark.parametrize("path", RUNS, ids=str)
def test_the_shared_macros_have_an_effect_in_every_run(path):
    """One habit serves all: `--gin_param 'epochs = 2'` and its kind."""
    made = job_of(path)
    assert built(path)[1] == set(SHARED)
    again = [*made.gin_params, "epochs = 2", "seed = 9", "steps_per_epoch = 1", "workers = 1"]
    run = Job(made.gin_files, again).build(meta=True, known=KNOWN)
    assert (run.recipe.epochs, run.seed, run.recipe.steps_per_epoch) == (2, 9, 1)
    assert run.runtime.workers == 1


@pytest.mark.parametrize("method", "vanilla kd annealed ctkd ctkd_instance dkd dkd_ctkd".split())
@pytest.mark.parametrize("folder", ["digits", "cifar100", "imagenet"])
def test_the_methods_of_the_frame_are_there(folder, method):
    assert pathlib.Path("gin", folder, f"{method}.gin") in RUNS


def test_methods_of_one_folder_differ_in_method_alone():
    """So that they can be compared: one recipe, one seed, one set of networks."""
    for folder in ("digits", "cifar100"):
        recipes = []
        for path in RUNS:
            if path.parent.name == folder and path.stem not in ("vanilla", "teacher"):
                recipes.append(built(path)[0].settings["recipe"])
        assert len(recipes) > 5
        assert all(recipe == recipes[0] for recipe in recipes)


@pytest.mark.parametrize("folder", ["digits", "cifar100", "imagenet"])
def test_a_teacher_has_a_seed_that_is_no_students(folder):
    run, _ = built(pathlib.Path("gin", folder, "teacher.gin"))
    assert run.seed > 1000


def test_what_cards_call_commonly_overridden_exists():
    """Names like SGD.lr or CosineLambda.{start,end} in a card are components' parameters."""
    for path in RUNS:
        built(path)
        for name, single, several in re.findall(
            r"\b([A-Z]\w+)\.(?:([a-z_]+)\b|\{([a-z_,]+)\})", card(path)
        ):
            known = [r for r in REGISTRIES if name in r and single != "pth"]
            if not known:
                continue  # a word of a sentence
            parameters = inspect.signature(known[0].get(name)).parameters
            assert set((single or several).split(",")) <= parameters.keys(), f"{path}: {name}"
