"""Runs with other optimizers and schedules than SGD with milestones."""

import pytest
import torch

MODERN = ("optimizer = @AdamW", "lr_schedule = @CosineLR", "CosineLR.warmup_epochs = 1.0")
AVERAGED = "Recipe.ema_decay = 0.8"


def test_lambda_moves_t_in_proportion_under_an_adamw_student(train):
    """The policy keeps SGD: under Adam, λ = 0.01 and λ = 1 would move T by the same steps."""
    moved = {}
    for optimizer in ("@SGD", "@AdamW"):
        for strength in (0.01, 1.0):
            run = train(
                *("ctkd", "optimizer = @AdamW", f"Recipe.policy_optimizer = {optimizer}"),
                *("Method.schedule = @ConstantLambda", f"ConstantLambda.value = {strength}"),
                *("epochs = 1", "lr_schedule = @ConstantLR"),
                workdir=f"{optimizer[1:]}{strength}",
            )
            moved[optimizer, strength] = run.column("probe_temperature")[-1] - 15.6211716
            warned = "λ has hardly any effect" in run.result.err
            assert warned == (optimizer == "@AdamW")
    assert moved["@SGD", 1.0] == pytest.approx(100 * moved["@SGD", 0.01], rel=0.2)
    assert moved["@AdamW", 1.0] == pytest.approx(moved["@AdamW", 0.01], rel=0.05)


def test_a_run_with_adamw_warm_up_and_ema_resumes_with_the_same_bits(train, interrupted_at, same):
    whole = train("ctkd", *MODERN, AVERAGED, workdir="whole")
    assert whole.column("lr") == pytest.approx([5e-4, 8.5355e-4, 1.4645e-4], rel=1e-3)
    with interrupted_at(3):
        train("ctkd", *MODERN, AVERAGED, workdir="stopped", status=130)
    stopped = train("ctkd", *MODERN, AVERAGED, workdir="stopped")
    for name in ("student_last.pt", "student_ema_last.pt"):
        assert same(stopped.tensors(name), whole.tensors(name))
    assert stopped.column("temperature") == whole.column("temperature")
    assert whole.summary["ema_top1"] == whole.column("ema_test_top1")[-1]
    assert "ema " in whole.result.out


def test_the_average_is_of_all_steps_and_changes_no_student(train, same, monkeypatch):
    from ctkd.engine.ema import Average

    seen, update = [], Average.update

    def watched(self):
        update(self)
        seen.append([theirs.detach().clone() for _, theirs in self._pairs])

    monkeypatch.setattr(Average, "update", watched)
    run = train("ctkd", AVERAGED, workdir="averaged")
    assert len(seen) == 6
    weights = [0.8 ** (5 - step) for step in range(6)]
    for number, found in enumerate(run.tensors("student_ema_last.pt").values()):
        values = [step[number].double() for step in seen]
        mean = sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)
        expected = mean if found.is_floating_point() else values[-1]
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-6)
    plain = train("ctkd", workdir="plain")
    assert same(plain.tensors(), run.tensors())
    assert not (plain.path / "student_ema_last.pt").exists()


@pytest.mark.parametrize("kind", [("optimizer = @AdamW",), ("lr_schedule = @LinearLR",)])
def test_sgds_milestones_are_refused_where_another_schedule_is_used(train, kind):
    run = train("ctkd", *kind, "SGD.milestones = (0.5,)", status=2)
    assert (
        "'SGD.milestones = (0.5,)' changes nothing: the learning rate follows @" in run.result.err
    )
