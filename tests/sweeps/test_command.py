"""The command line: dry runs, and mistakes that end with status 2 and nothing sent."""

import json
import pathlib

import pytest

from ctkd.main import main as train

KD, CTKD = "gin/digits/kd.gin", "gin/digits/ctkd.gin"
SWEEPS = sorted((pathlib.Path(__file__).parents[2] / "gin" / "sweeps").glob("*.gin"))


def test_a_dry_run_prints_a_command_for_each_cell_and_sends_nothing(
    launch, sweep_file, tmp_path, commands
):
    path = sweep_file(grid={"method": [KD, CTKD]}, params=["epochs = 2"], seeds=[3, 4])
    result = launch("--sweep", path, "--dry_run")
    assert result.status == 0
    assert len(commands(result.out)) == 4
    assert "4 runs, 8 epochs in all" in result.err
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["study.gin"]


@pytest.mark.slow
@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_every_sweep_of_the_repository_has_cells_that_build(launch, path, commands, capsys):
    result = launch("--sweep", path, "--dry_run")
    assert result.status == 0, result.err
    words = commands(result.out)[-1]
    assert train([*words, "--dry_run"]) == 0
    card = path.read_text().partition("\n\n")[0]
    assert f"python launchers/slurm.py --sweep gin/sweeps/{path.name}" in card


def test_the_command_of_a_run_of_two_processes_starts_both(launch, sweep_file):
    result = launch("--sweep", sweep_file(grid={"method": [KD]}), "--dry_run", "--tasks=2")
    assert result.out.startswith("torchrun --standalone --nproc_per_node=2 -m ctkd.main ")


@pytest.mark.slow
def test_a_printed_command_works_by_hand(launch, sweep_file, small, commands, tmp_path):
    path = sweep_file(base=[CTKD], grid={"CosineLambda.end": [2.0]}, params=[*small, "epochs = 1"])
    (words,) = commands(launch("--sweep", path, "--dry_run").out)
    assert train(words) == 0
    folder = tmp_path / "runs" / "sweeps" / "study" / "runs" / "end=2-seed0"
    settings = json.loads((folder / "settings.json").read_text())
    assert settings["method"]["CosineLambda.end"] == 2.0
    assert settings["name"] == "end=2"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to do"),
        (["gin/sweeps/digits.gin"], "--sweep=gin/sweeps/digits.gin"),
        (["--swep=x"], "no flag --swep; did you mean --sweep or"),
        (["--sweep=gin/sweeps/digit.gin"], "did you mean gin/sweeps/digits.gin"),
        (["--sweep=gin/sweeps/digits.gin", "--cluster=cloud"], "cluster"),
        (["--sweep=gin/sweeps/digits.gin", "--wait", "--status"], "do not go together"),
        (["--sweep=gin/sweeps/digits.gin", "--minutes=2"], "Resources.minutes = 2"),
        (["--sweep=gin/sweeps/digits.gin", "--gin_file=none.gin"], "no Gin file 'none.gin'"),
        (["--sweep=gin/sweeps/digits.gin", "--gin_param=epohcs = 2"], "did you mean epochs"),
        (["--sweep=gin/sweeps/digits.gin", "--sweep_param=Sweep.sed = [0]"], "did you mean seeds"),
        (["--sweep=gin/sweeps/digits.gin", "--gin_param=seed = 7"], "seeds are Sweep.seeds"),
        (["--sweep=gin/sweeps/digits.gin", "--gin_param=Seed.seed = 7"], "seeds are Sweep.seeds"),
        (["--sweep=gin/digits/kd.gin"], "no run has a Gin file: set Sweep.base"),
        (["--sweep_dir=nowhere", "--status"], "not a sweep's directory"),
        (["--sweep_dir=nowhere", "--cancel"], "not a sweep's directory"),
    ],
)
def test_mistakes_end_with_2_and_one_message(launch, arguments, message, tmp_path):
    here = [] if "--cluster" in str(arguments) else ["--cluster=local"]
    result = launch(*arguments, *here)
    assert result.status == 2
    assert result.err.startswith("ctkd: ")
    assert message in result.err
    assert list(tmp_path.glob("runs/**/sent.jsonl")) == []


def test_a_folder_of_something_else_is_refused(launch, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").touch()
    result = launch("--sweep=gin/sweeps/digits.gin", "--sweep_dir=thesis", "--cluster=local")
    assert result.status == 2
    assert "contains chapter.tex" in result.err
    assert [entry.name for entry in (tmp_path / "thesis").iterdir() if entry.suffix] == [
        "chapter.tex"
    ]


def test_a_file_in_place_of_the_folder_is_refused(launch, tmp_path):
    (tmp_path / "thesis").touch()
    result = launch("--sweep=gin/sweeps/digits.gin", "--sweep_dir=thesis", "--cluster=local")
    assert result.status == 2
    assert "cannot use" in result.err


def test_a_machine_without_gpus_says_so(launch, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    result = launch("--sweep=gin/sweeps/digits.gin", "--gpus=1", "--cluster=local")
    assert result.status == 2
    assert "this machine has 0" in result.err


def test_two_nodes_are_refused_by_one_machine(launch):
    result = launch("--sweep=gin/sweeps/digits.gin", "--nodes=2", "--cluster=local")
    assert result.status == 2
    assert "this machine is one node" in result.err


def test_slurm_is_refused_where_there_is_none(launch, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    result = launch("--sweep=gin/sweeps/digits.gin", "--cluster=slurm")
    assert result.status == 2
    assert "no sbatch here" in result.err


def test_help_lists_every_flag(launch):
    result = launch("--help")
    assert result.status == 0
    assert all(f"--{name}" in result.out for name in ("sweep", "dry_run", "partition", "retries"))
