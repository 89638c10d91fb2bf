"""Runs with feature losses: weights, resuming, several ranks, dry runs and mistakes."""

import pytest
import torch

from ctkd.engine.train import Trainer
from ctkd.registry import FEATURES

# SimKD, which changes what is saved, has a test of its own.
NAMES = [n for n in FEATURES if FEATURES.get(n).__module__[:5] == "ctkd." and n != "SimKD"]
ALL = f"Method.features = [{', '.join(f'@{name}' for name in NAMES)}]"


def untimed(run):
    return [
        {k: v for k, v in row.items() if k not in ("images_per_s", "data_wait")}
        for row in run.metrics
    ]


def test_a_stopped_run_ends_as_the_undisturbed_one(train, same, monkeypatch):
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
    assert all(last[f"train_{n.lower()}"] != first[f"train_{n.lower()}"] for n in NAMES)
    states = [torch.load(r.checkpoints[-1], weights_only=True) for r in (run, reference)]
    state, other = (state["distiller"] for state in states)
    assert same(state, other)
    # 6 steps changed the variances of VID, and the rows of CRD's banks that they saw.
    assert state["features.losses.vid.regressors.0.log_scale"].unique().numel() > 1
    assert state["features.losses.crd.calls"] == 6
    norms = state["features.losses.crd.student_bank"].norm(dim=1)
    assert ((norms - 1).abs() < 1e-5).sum() == 128


def test_the_student_of_simkd_has_the_teachers_classifier(train, command, arguments, teacher_file):
    """It is trained, evaluated and saved with it; `evaluate` reads it again."""
    given = ("Method.features = [@SimKD]", "CrossEntropy.ce_weight = 0.0", "epochs = 8")
    given += ("digits.train_images = 1024",)
    run = train("vanilla", *given)
    saved, teacher = run.tensors(), torch.load(teacher_file, weights_only=True)
    assert torch.equal(saved["classifier.weight"], teacher["classifier.weight"])
    assert any(name.startswith("projector.") for name in saved)
    assert run.summary["last_top1"] > 40  # of ten classes, by a classifier that it never trained
    bindings = arguments("vanilla", *given, workdir=run.path)
    again = command(*bindings, "--mode=evaluate")
    assert f"test_top1 {run.summary['last_top1']:.2f}" in again.out


@pytest.mark.parametrize(
    ("bindings", "message"),
    [
        (["Features.teacher = {'final': 'features.5'}"], "does not receive its mean"),
        (["Recipe.ema_decay = 0.9"], "expected None with SimKD"),
    ],
)
def test_what_simkd_refuses(command, arguments, tmp_path, bindings, message):
    given = ["Method.features = [@SimKD]", *bindings]
    result = command(*arguments("vanilla", *given, workdir=tmp_path / "run"))
    assert result.status == 2
    assert message in result.err


def test_without_a_temperature(train):
    """As RepDistiller's rows of feature losses: cross-entropy, and no KL."""
    run = train("vanilla", "Method.features = [@PKT]")
    assert {"train_ce", "train_pkt"} < run.metrics[-1].keys()
    assert run.metrics[-1]["temperature"] is None
    assert run.summary["teacher_top1"] > 90


def test_a_dry_run_lists_paths_and_shapes(command, arguments):
    result = command(*arguments("ctkd", "Method.features = [@PKT, @SP]"), "--dry_run")
    assert "student's pooled   classifier:input [8]" in result.out
    assert "teacher's last     features.8 [64, 4, 4]" in result.out


@pytest.mark.parametrize(
    ("bindings", "message"),
    [
        (["Features.student = {'last': 'features.80'}"], "no module 'features.80'; did you mean"),
        (["SP.at = ('block',)"], "no feature named 'block'"),
        (["Features.teacher = ['last']"], "a dictionary of names and module paths"),
        (["Method.features = [@PKT, @PKT]"], "feature loss PKT is given twice"),
        (["Method.features = [@KD]"], "expected a feature loss: "),
        (["teacher = None"], "the feature loss PKT needs a teacher"),
        (["Runtime.accumulate = 2"], "2 with the feature loss PKT: it compares the rows of a step"),
        (["Method.features = [@CRD]", "Augmentation.mixup = 0.2"], "CRD needs one class"),
    ],
)
def test_mistakes_are_found_in_a_dry_run(command, arguments, bindings, message):
    given = ["Method.features = [@PKT, @SP]", *bindings]
    result = command(*arguments("vanilla", *given), "--dry_run")
    assert result.status == 2
    assert message in result.err


def test_pooled_features_are_cached_exactly(train, same, tmp_path):
    """A run that computes them, one that fills the cache, and one that reads it are the same."""
    pooled = ["Method.features = [@PKT, @SRRL, @CRD]", "digits.padding = 0"]
    cached = [*pooled, f"teacher_cache = {str(tmp_path / 'cache')!r}"]
    computed = train("ctkd", *pooled, workdir="computed")
    filling = train("ctkd", *cached, workdir="filling")
    reading = train("ctkd", *cached, "seed = 0", workdir="reading")
    assert same(computed.tensors(), filling.tensors())
    assert same(computed.tensors(), reading.tensors())
    assert untimed(computed) == untimed(reading)
    assert "(100.0% of 128 are there)" in reading.result.out
    (folder,) = (tmp_path / "cache").iterdir()
    assert (folder / "rows").stat().st_size == 128 * (10 + 64) * 4
    train("ctkd", "digits.padding = 0", *cached[2:], workdir="logits")  # a cache of its own
    train("ctkd", "Method.features = [@SP]", *cached[1:], workdir="maps")
    assert len(list((tmp_path / "cache").iterdir())) == 2
