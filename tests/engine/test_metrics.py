"""Measuring on the device: means, the extremes of T, and the first quantity that is not finite."""

import math

import pytest
import torch

from ctkd.distiller import Outcome
from ctkd.engine.metrics import Meter, Trace
from ctkd.errors import NonFiniteError

CPU = torch.device("cpu")


def outcome(loss=1.0, temperature=4.0, **terms):
    t = None if temperature is None else torch.tensor(temperature)
    named = {name: torch.tensor(value) for name, value in ({"ce": 1.0, "kd": 2.0} | terms).items()}
    return Outcome(torch.tensor(loss), named, t)


def norms(student=0.5, policy=0.25):
    return torch.tensor(student), torch.tensor(policy)


def test_means_over_the_steps():
    meter = Meter(CPU)
    for step, loss in enumerate((1.0, 2.0, 6.0)):
        meter.update(step, outcome(loss, kd=2 * loss), norms(student=loss))
    read = meter.read()
    assert (read["loss"], read["kd"], read["ce"], read["gradient"]) == (3.0, 6.0, 1.0, 3.0)
    assert read["policy_gradient"] == 0.25


def test_t_is_the_mean_over_rows_and_its_extremes_are_over_rows_and_steps():
    meter = Meter(CPU)
    meter.update(0, outcome(temperature=[[2.0], [4.0]]), norms())
    meter.update(1, outcome(temperature=[[3.0], [9.0]]), norms())
    read = meter.read()
    assert read["temperature"] == 4.5
    assert (read["temperature_low"], read["temperature_high"]) == (2.0, 9.0)


def test_an_epoch_begins_anew():
    meter = Meter(CPU)
    meter.update(0, outcome(5.0, temperature=20.0), norms())
    meter.reset()
    assert meter.read() == {}
    meter.update(1, outcome(1.0, temperature=3.0), norms())
    assert meter.read()["loss"] == 1.0
    assert meter.read()["temperature_high"] == 3.0


def test_without_a_teacher_there_is_no_temperature():
    meter = Meter(CPU)
    meter.update(0, outcome(temperature=None), norms())
    assert not any(name.startswith("temperature") for name in meter.read())


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("kd", lambda bad: (outcome(loss=bad, kd=bad), norms())),
        ("loss", lambda bad: (outcome(loss=bad), norms())),
        ("temperature", lambda bad: (outcome(bad, temperature=bad, kd=bad), norms(bad, bad))),
        ("temperature", lambda bad: (outcome(temperature=[[1.0], [bad]]), norms())),
        ("gradient", lambda bad: (outcome(), norms(student=bad))),
        ("policy_gradient", lambda bad: (outcome(), norms(policy=bad))),
    ],
)
def test_the_first_step_and_the_quantity_it_began_with_are_named(bad, name, step):
    """The cause comes first: a term that is NaN makes the loss NaN as well."""
    meter = Meter(CPU)
    for number in range(7):
        meter.update(number, outcome(), norms())
    meter.check(4)
    meter.update(7, *step(bad))
    meter.update(8, outcome(loss=bad), norms())
    meter.reset()  # a new epoch does not forget it
    with pytest.raises(NonFiniteError) as caught:
        meter.check(4)
    assert str(caught.value).startswith(f"{name} was NaN or infinite first at step 8 (epoch 2)")


def test_state_is_taken_up_where_it_was_left():
    meter, other = Meter(CPU), Meter(CPU)
    for step in range(5):
        meter.update(step, outcome(step + 1.0, temperature=step + 1.0), norms())
        if step == 2:
            other.load(meter.state())
            meter = other
    assert meter.read()["loss"] == 3.0
    assert (meter.read()["temperature_low"], meter.read()["temperature_high"]) == (1.0, 5.0)


def test_a_saved_state_does_not_move_with_the_meter():
    meter = Meter(CPU)
    meter.update(0, outcome(), norms())
    kept = {key: torch.as_tensor(v).clone() for key, v in meter.state().items() if key != "names"}
    state = meter.state()
    meter.reset()
    meter.update(1, outcome(7.0), norms())
    assert torch.equal(state["sums"], kept["sums"])
    assert torch.equal(state["extremes"], kept["extremes"])


def test_updates_read_nothing_back_from_the_device():
    """On the meta device any look at a value raises."""
    meta = torch.device("meta")
    meter, trace = Meter(meta), Trace(3, meta)
    there = Outcome(
        torch.ones((), device=meta), {"ce": torch.ones((), device=meta)}, torch.ones(2, device=meta)
    )
    for step in range(2):
        meter.update(step, there, (torch.ones((), device=meta), torch.ones((), device=meta)))
        trace.update(step, there.temperature, torch.ones((), device=meta))
    assert meter.sums.is_meta


def test_the_trace_holds_the_first_steps_and_no_more():
    trace = Trace(3, CPU)
    for step in range(5):
        trace.update(step, torch.tensor([[step + 1.0], [step + 3.0]]), torch.tensor(0.5))
    assert trace.rows(5, steps_per_epoch=2) == [
        (1, 0.5, 2.0, 1.0, 3.0, 0.5),
        (2, 1.0, 3.0, 2.0, 4.0, 0.5),
        (3, 1.5, 4.0, 3.0, 5.0, 0.5),
    ]
    assert len(trace.rows(2, steps_per_epoch=2)) == 2


def test_without_a_temperature_the_trace_stays_empty():
    trace = Trace(3, CPU)
    trace.update(0, None, torch.tensor(0.0))
    assert trace.rows(3, 1) == []
