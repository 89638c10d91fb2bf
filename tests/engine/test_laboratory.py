"""Counterfactual runs: replays of a finished run, the flipped sign, the exact adversary."""

from types import SimpleNamespace

import pytest
import torch

from ctkd.engine.tasks.images import ImageTask


def lab(name, finished=None):
    """The flags that put a file of the laboratory on top of a method."""
    given = () if finished is None else (f"--gin_param=finished = '{finished}'",)
    return (f"--gin_file=gin/lab/{name}.gin", *given)


def recorded(run):
    return run.tensors("temperatures.pt")["temperatures"]


QUICK = "ConstantLambda.value = 1"  # T moves at once
AT_ONCE = ("Method.schedule = @ConstantLambda", QUICK)


def test_a_replay_trains_the_same_student_bit_by_bit(train, interrupted_at, same):
    with interrupted_at(3):
        train("ctkd", *AT_ONCE, workdir="ctkd-seed0", status=130)
    source = train("ctkd", *AT_ONCE, workdir="ctkd-seed0")
    record = recorded(source)
    assert record.shape == (6, 1)
    assert len(set(record.flatten().tolist())) == 6
    replayed = train("ctkd", workdir="replay", flags=lab("replay", "ctkd-seed{seed}"))
    assert torch.equal(recorded(replayed), record)
    assert same(replayed.tensors(), source.tensors())
    assert replayed.summary["name"] == "replay"
    reversed_ = train("ctkd", workdir="reversed", flags=lab("reversed", "ctkd-seed0"))
    assert torch.equal(recorded(reversed_), record.flip(0))
    assert not same(reversed_.tensors(), source.tensors())
    assert "another recipe" not in reversed_.result.err
    short = train("ctkd", "epochs = 1", workdir="short", flags=lab("replay", "ctkd-seed0"))
    assert torch.equal(recorded(short), record[:6:3])
    assert (
        "ctkd-seed0, whose T is replayed, had another recipe: Recipe.epochs = " in short.result.err
    )


def test_a_replay_of_rows_trains_the_same_student_too(train, same):
    rows = "Instrument.record_rows = True"
    source = train("ctkd_instance", *AT_ONCE, rows, "batch_size = 48", workdir="source")
    record = recorded(source)
    assert record.shape == (9, 48)  # 128 images: the third step of an epoch has 32
    assert record.isnan().sum() == 3 * 16
    runs = {}
    for name in ("replay", "by_loss"):
        flags = lab(name, "source")
        runs[name] = train("ctkd_instance", rows, "batch_size = 48", workdir=name, flags=flags)
        sorted_ = recorded(runs[name]).nan_to_num().sort().values
        assert torch.equal(sorted_, record.nan_to_num().sort().values)
    assert same(runs["replay"].tensors(), source.tensors())
    assert not same(runs["by_loss"].tensors(), source.tensors())
    for wrong, line in (
        ("batch_size = 32", "Recipe.batch_size = 48 there, 32 here"),
        ("seed = 1", "Seed.seed = 0 there, 1 here"),
    ):
        flags = lab("permuted", "source")
        other = train(
            "ctkd_instance", "batch_size = 48", wrong, workdir=wrong, flags=flags, status=2
        )
        assert f"source had other batches: {line}. Give this run the same" in other.result.err


def test_the_flipped_sign_moves_t_the_other_way(train):
    adversary = recorded(train("ctkd", *AT_ONCE, workdir="ctkd"))
    flipped = train("ctkd", *AT_ONCE, workdir="flipped", flags=lab("flipped"))
    assert adversary[-1] < adversary[0] == recorded(flipped)[0] < recorded(flipped)[-1]
    assert "lowers the loss" not in flipped.result.err  # as it should


def test_the_exact_adversary_leaves_no_regret_on_the_probe(train):
    run = train("ctkd", workdir="exact", flags=lab("exact"))
    assert all(row["regret"] < 1e-6 for row in run.landscape)
    assert run.settings["method"]["Method.schedule"] is None


@pytest.mark.parametrize(
    ("bindings", "message"),
    [
        (["Method.objective = @DKD"], "ExactTemperature computes T from the loss of KD"),
        (["Runtime.accumulate = 2"], "needs all rows of a step at once"),
        (["Method.cooperative = True"], "cooperative = True works on a learned temperature only"),
    ],
)
def test_what_the_exact_adversary_cannot_do_is_an_error(train, bindings, message):
    run = train("ctkd", *bindings, workdir="exact", flags=lab("exact"), status=2)
    assert message in run.result.err


def test_a_replay_of_no_run_is_an_error_that_names_the_cure(train):
    run = train("ctkd", workdir="replay", flags=lab("replay", "nowhere"), status=2)
    assert "nowhere/temperatures.pt: expected the work directory" in run.result.err
    dry = train("ctkd", workdir="replay", flags=(*lab("replay", "nowhere"), "--dry_run"))
    assert "replay" in dry.result.out


def test_the_predictions_of_the_last_epoch_are_kept(train):
    run = train("kd", "epochs = 1")
    header, *lines = (run.path / "predictions.csv").read_text().splitlines()
    assert header == "target,prediction"
    right = [target == prediction for target, prediction in (line.split(",") for line in lines)]
    assert 100 * sum(right) / len(right) == pytest.approx(run.summary["last_top1"])


def test_the_predictions_of_several_ranks_come_in_the_order_of_the_images():
    """Rank 0 of two judged the images 0, 2, 4, and rank 1 the images 1 and 3."""
    judged = torch.tensor([[number, 9 - number] for number in range(5)])
    world = SimpleNamespace(gather=lambda own: [own, judged[1::2].tolist()])
    text = ImageTask._predictions(SimpleNamespace(world=world), [judged[0:1], judged[2::2]])
    assert text == "target,prediction\n0,9\n1,8\n2,7\n3,6\n4,5\n"
