"""Runs with other optimizers and schedules than SGD with milestones."""

import pytest

MODERN = ("optimizer = @AdamW", "lr_schedule = @CosineLR", "CosineLR.warmup_epochs = 1.0")


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


def test_a_run_with_adamw_and_warm_up_resumes_with_the_same_bits(train, interrupted_at, same):
    whole = train("ctkd", *MODERN, workdir="whole")
    assert whole.column("lr") == pytest.approx([5e-4, 8.5355e-4, 1.4645e-4], rel=1e-3)
    with interrupted_at(3):
        train("ctkd", *MODERN, workdir="stopped", status=130)
    stopped = train("ctkd", *MODERN, workdir="stopped")
    assert same(stopped.tensors(), whole.tensors())
    assert stopped.column("temperature") == whole.column("temperature")


@pytest.mark.parametrize("kind", [("optimizer = @AdamW",), ("lr_schedule = @LinearLR",)])
def test_sgds_milestones_are_refused_where_another_schedule_is_used(train, kind):
    run = train("ctkd", *kind, "SGD.milestones = (0.5,)", status=2)
    assert (
        "'SGD.milestones = (0.5,)' changes nothing: the learning rate follows @" in run.result.err
    )
