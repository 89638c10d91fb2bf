"""Runs with feature losses: weights, resuming, several ranks, dry runs and mistakes."""

import pytest
import torch

from ctkd.engine.train import Trainer
from ctkd.registry import FEATURES

ALL = "Method.features = [{}]".format(
    ", ".join(f"@{name}" for name in FEATURES if FEATURES.get(name).__module__[:5] == "ctkd.")
)


def untimed(run):
    return [
        {k: v for k, v in row.items() if k not in ("images_per_s", "data_wait")}
        for row in run.metrics
    ]


@pytest.fixture(scope="module")
def terms():
    return [FEATURES.get(name)().term for name in FEATURES if name in ALL]


def test_a_stopped_run_ends_as_the_undisturbed_one(train, same, terms, monkeypatch):
    """Banks, regressors and their momenta are saved; none of them reaches the student's file."""
    often = "Runtime.checkpoint_steps = 1"
    reference = train("ctkd", ALL, often, workdir="reference")
    real = Trainer.train_step

    def stopped(self, batch):
        real(self, batch)
        if self.progress.steps == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "train_step", stopped)
    train("ctkd", ALL, often, status=130)
    monkeypatch.setattr(Trainer, "train_step", real)
    run = train("ctkd", ALL, often)
    assert same(run.tensors(), reference.tensors())
    assert untimed(run) == untimed(reference)
    assert run.tensors().keys() == train("ctkd", workdir="plain").tensors().keys()
    first, last = reference.metrics[0], reference.metrics[-1]
    assert all(last[f"train_{term}"] != first[f"train_{term}"] for term in terms)
    states = [torch.load(r.checkpoints[-1], weights_only=True) for r in (run, reference)]
    assert same(*(state["distiller"] for state in states))


def test_without_a_temperature(train):
    """As RepDistiller's rows of feature losses: cross-entropy, and no KL."""
    run = train("vanilla", "Method.features = [@PKT]")
    assert {"train_ce", "train_pkt"} < run.metrics[-1].keys()
    assert run.metrics[-1]["temperature"] is None
    assert run.summary["teacher_top1"] > 90


def test_a_dry_run_lists_paths_and_shapes(command, arguments):
    result = command(*arguments("ctkd", "Method.features = [@PKT, @SP]"), "--dry_run")
    assert "pooled     student classifier:input [8], teacher classifier:input [64]" in result.out
    assert "last       student features.8 [8, 4, 4], teacher features.8 [64, 4, 4]" in result.out


@pytest.mark.parametrize(
    ("bindings", "message"),
    [
        (["Features.student = {'last': 'features.80'}"], "no module 'features.80'; did you mean"),
        (["SP.at = ('block',)"], "no feature named 'block'"),
        (["Features.teacher = ['last']"], "a dictionary of names and module paths"),
        (["Method.features = [@PKT, @PKT]"], "feature loss PKT is given twice"),
        (["Method.features = [@KD]"], "expected a feature loss: "),
        (["teacher = None"], "the feature loss PKT needs a teacher"),
    ],
)
def test_mistakes_are_found_in_a_dry_run(command, arguments, bindings, message):
    given = ["Method.features = [@PKT, @SP]", *bindings]
    result = command(*arguments("vanilla", *given), "--dry_run")
    assert result.status == 2
    assert message in result.err
