"""The temperatures of a finished run, replayed and rearranged."""

import pytest
import torch

from ctkd.errors import ConfigError
from ctkd.temperature.replay import RECORD_FILE, ReplayedTemperature

NAN = float("nan")
ONE = torch.tensor([[8.0], [4.0], [2.0], [1.5]])
ROWS = torch.tensor([[2.0, 9.0, 4.0], [3.0, 5.0, NAN]])  # the last batch is smaller


@pytest.fixture
def replay(tmp_path):
    """Makes a policy over a record in the work directory of seed 7."""

    def make(record, **settings):
        folder = tmp_path / "ctkd-seed7"
        folder.mkdir(exist_ok=True)
        torch.save({"temperatures": record}, folder / RECORD_FILE)
        return ReplayedTemperature(str(tmp_path / "ctkd-seed{seed}"), seed=7, **settings)

    return make


def path(policy, steps, rows=3, targets=None):
    """T of every step of a run."""
    logits = torch.eye(rows)
    return [
        policy(logits, logits, step / steps, targets).flatten().tolist() for step in range(steps)
    ]


def test_a_run_of_any_number_of_steps_gets_each_recorded_value_in_its_step(replay):
    record = 1 + torch.rand(2821, 1, generator=torch.Generator().manual_seed(0))
    policy = replay(record)
    logits = torch.zeros(2, 3)
    progress = torch.tensor([step / 2821 for step in range(2821)])  # float32, as the engine's
    found = torch.stack([policy(logits, logits, each) for each in progress])
    assert torch.equal(found, record[:, 0])


def test_the_order_in_time(replay):
    assert path(replay(ONE), 4) == [[8.0], [4.0], [2.0], [1.5]]
    assert path(replay(ONE, order="reversed"), 4) == [[1.5], [2.0], [4.0], [8.0]]
    assert path(replay(ONE, order="mean"), 2) == [[3.875]] * 2
    many = torch.arange(1.0, 41.0)[:, None]
    shuffled = [t for (t,) in path(replay(many, order="shuffled"), 40)]
    assert sorted(shuffled) == many.flatten().tolist() != shuffled
    assert path(replay(ONE), 2) == [[8.0], [2.0]]  # half as long: the same share of the run


def test_the_rows_of_a_step(replay):
    assert path(replay(ROWS), 2)[0] == [2.0, 9.0, 4.0]
    assert path(replay(ROWS), 2, rows=2)[1] == [3.0, 5.0]
    assert path(replay(ROWS, rows="mean"), 2) == [[5.0], [4.0]]
    assert path(replay(ROWS), 2, rows=5) == [[5.0], [4.0]]  # the probe's rows were not recorded
    assert path(replay(ROWS, rows="mean", order="reversed"), 2) == [[4.0], [5.0]]


def test_permuted_rows_keep_the_values_of_their_step(replay):
    record = torch.arange(1.0, 65.0).reshape(2, 32)
    record[1, 20:] = NAN
    policy = replay(record, rows="permuted")
    first, second = path(policy, 2, rows=32)[0], path(policy, 2, rows=20)[1]
    assert sorted(first) == record[0].tolist() != first
    assert sorted(second) == record[1, :20].tolist() != second


def test_a_file_in_place_of_a_work_directory_is_an_error(replay, tmp_path):
    replay(ONE)
    with pytest.raises(ConfigError, match="expected the work directory of a finished run"):
        ReplayedTemperature(str(tmp_path / "ctkd-seed7" / RECORD_FILE))


@pytest.mark.parametrize("wrong", [torch.inf, 0.0, -2.0])
def test_a_t_that_is_no_temperature_is_an_error(replay, wrong):
    record = torch.tensor([[2.0, 3.0], [2.0, wrong]])
    with pytest.raises(ConfigError, match="T of step 2 is not a finite number > 0"):
        replay(record)


@pytest.mark.parametrize(
    ("rows", "expected"), [("hard_low", [9.0, 2.0, 4.0]), ("hard_high", [2.0, 9.0, 4.0])]
)
def test_rows_by_the_loss_of_the_student(replay, rows, expected):
    """The student is right about row 0, wrong about row 1, and undecided about row 2."""
    policy = replay(ROWS, rows=rows)
    student = torch.tensor([[5.0, 0.0], [5.0, 0.0], [0.0, 0.0]])
    temperature = policy(student, student, 0.0, torch.tensor([0, 1, 0]))
    assert temperature.flatten().tolist() == expected
    with pytest.raises(ValueError, match="needs the targets"):
        policy(student, student, 0.0)


def test_what_cannot_be_replayed_is_an_error(replay, tmp_path):
    with pytest.raises(ConfigError, match=r"run = None: expected the work directory"):
        ReplayedTemperature()
    with pytest.raises(ConfigError, match=r"Train that run first"):
        ReplayedTemperature(str(tmp_path / "nowhere"))
    assert ReplayedTemperature(str(tmp_path / "nowhere"), dry=True).values.shape == (1, 1)
    with pytest.raises(ConfigError, match=r"step 3 is missing"):
        replay(torch.tensor([[2.0], [2.0], [NAN]]))
    with pytest.raises(ConfigError, match=r"rows = 'permuted'.*record_rows = True"):
        replay(ONE, rows="permuted")
    with pytest.raises(ConfigError, match=r"order = 'shuffled'.*rows = 'mean'"):
        replay(ROWS, order="shuffled")
    (tmp_path / "ctkd-seed7" / RECORD_FILE).write_bytes(b"no tensor")
    with pytest.raises(ConfigError, match=r"cannot be read.*Train that run again"):
        ReplayedTemperature(str(tmp_path / "ctkd-seed7"))
