"""The game in a Trainer of Lightning: parts, processes and a resumed run give the same step."""

import os
import types

import pytest
import torch
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from ctkd.errors import ConfigError

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("adapters")]
ROUNDING = 1e-6
QUIET = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")


def network(width, seed):
    torch.manual_seed(seed)
    layers = (torch.nn.Linear(5, width), torch.nn.ReLU(), torch.nn.Linear(width, 4))
    return torch.nn.Sequential(*layers)


def images():
    """40 samples: with batches of 16 the last step has 8."""
    generator = torch.Generator().manual_seed(0)
    inputs = 3 * torch.randn(40, 5, generator=generator)
    return TensorDataset(inputs, torch.randint(0, 4, (40,), generator=generator))


class _Networks:
    """A module of this game, and a Trainer on one CPU."""

    def __init__(self, game):
        self.lightning = pytest.importorskip("lightning.pytorch")
        self.game = game

    def module(self, strength=1.0, lr=0.1, student=None, teacher=None, **given):
        def optimizer(parameters):
            return torch.optim.SGD(parameters, lr, momentum=0.9)

        from ctkd.adapters.lightning import CTKDModule

        networks = student or network(8, 1), teacher or network(16, 2)
        return CTKDModule(*networks, self.game(strength), optimizer, **given)

    def fit(self, module, loader, epochs=2, parts=1, path=None, **given):
        settings = dict.fromkeys(QUIET, False) | {"accelerator": "cpu", "devices": 1} | given
        trainer = self.lightning.Trainer(
            max_epochs=epochs, accumulate_grad_batches=parts, gradient_clip_val=0.5, **settings
        )
        trainer.fit(module, loader, ckpt_path=path)
        return trainer


@pytest.fixture
def made(game):
    return _Networks(game)


def learned(module):
    policy = module.policy_steps.distiller.state_dict().values()
    return [each.detach().clone() for each in (*module.student.parameters(), *policy)]


def test_one_batch_and_four_parts_and_two_processes_make_the_same_step(
    made, two_processes, distance
):
    def as_rank():
        module = made.module()
        sampler = DistributedSampler(images(), 2, int(os.environ["RANK"]), shuffle=False)
        loader = DataLoader(images(), batch_size=4, sampler=sampler)
        made.fit(module, loader, parts=2, strategy="ddp", devices=2, use_distributed_sampler=False)
        assert torch.distributed.get_world_size() == 2
        return learned(module)

    first, second = two_processes(as_rank)
    whole, parts = made.module(), made.module()
    before = learned(whole)
    made.fit(whole, DataLoader(images(), batch_size=16))
    trainer = made.fit(parts, DataLoader(images(), batch_size=4), parts=4)
    assert distance(before, learned(whole)) > 1e-2
    assert abs(float(trainer.callback_metrics["temperature"]) - 2.0) > 1e-2
    assert distance(learned(whole), learned(parts)) < ROUNDING
    assert distance(learned(whole), first) < ROUNDING
    assert distance(first, second) == 0


def test_a_resumed_run_equals_an_uninterrupted_one(made, tmp_path):
    whole, first, resumed = made.module(), made.module(), made.module()
    loader = DataLoader(images(), batch_size=4)
    made.fit(whole, loader, epochs=4, parts=2)
    path = tmp_path / "first.ckpt"
    made.fit(first, loader, epochs=2, parts=2).save_checkpoint(path)
    saved = torch.load(path, weights_only=True)
    assert not [name for name in saved["state_dict"] if "student" not in name]
    made.fit(resumed, loader, epochs=4, parts=2, path=path)
    ends = zip(learned(whole), learned(resumed), strict=True)
    assert all(torch.equal(ours, theirs) for ours, theirs in ends)
    with pytest.raises(ConfigError, match="the checkpoint has no ctkd_policy"):
        resumed.on_load_checkpoint({})


def test_the_best_checkpoint_has_its_own_policy(made, tmp_path):
    module, loader = made.module(), DataLoader(images(), batch_size=16)
    best = made.lightning.callbacks.ModelCheckpoint(
        tmp_path, monitor="temperature", mode="min", save_weights_only=True
    )
    given = {"callbacks": [best], "enable_checkpointing": True}
    trainer = made.fit(module, loader, epochs=3, **given)
    last = learned(module)[-1]
    trainer.validate(module, loader, ckpt_path="best", verbose=False)
    saved = torch.load(best.best_model_path, weights_only=True)
    raw = saved["ctkd_policy"]["distiller"]["policy.raw"]
    assert torch.equal(learned(module)[-1], raw)
    assert not torch.equal(last, raw)
    assert torch.equal(learned(module)[0], saved["state_dict"]["student.0.weight"])


def test_t_climbs_at_a_frozen_student_and_stays_without_lambda(made):
    module, kd = made.module(lr=0.0), []
    module.on_train_batch_end = lambda *_: kd.append(float(module.policy_steps.last["kd"]))
    made.fit(module, DataLoader(images(), batch_size=40), epochs=6)
    assert kd == sorted(kd)
    assert kd[-1] > kd[0] + 1e-4
    still = made.module(strength=0.0)
    before = learned(still)[-1]
    made.fit(still, DataLoader(images(), batch_size=16))
    assert torch.equal(before, learned(still)[-1])


def test_tokens_are_counted_over_the_whole_step(made, llama, samples, distance):
    ends = []
    for batch, parts in ((16, 1), (4, 4)):
        module = made.module(student=llama(1, 1), teacher=llama(2, 2))
        trainer = made.fit(module, DataLoader(samples, batch_size=batch), epochs=1, parts=parts)
        ends.append(learned(module))
        trainer.validate(module, DataLoader(samples, batch_size=batch), verbose=False)
        ends.append([trainer.callback_metrics[name] for name in ("val_loss", "val_kl")])
    assert distance(ends[0], ends[2]) < ROUNDING
    assert distance(ends[1], ends[3]) < 1e-5


def test_settings_that_would_be_wrong_are_refused(made):
    from ctkd.adapters.lightning import check_trainer

    one = made.lightning.strategies.SingleDeviceStrategy("cpu")
    with pytest.raises(ConfigError, match="16-mixed"):
        check_trainer(types.SimpleNamespace(precision="16-mixed", strategy=one))
    sharded = types.SimpleNamespace(precision="32-true", strategy=object())
    with pytest.raises(ConfigError, match="object is not supported: use one device"):
        check_trainer(sharded)
    with pytest.raises(ConfigError, match="of 2: an adapter takes one teacher"):
        made.module(teacher=[network(8, 1), network(8, 2)])


def test_the_example_of_the_page(made, from_the_page):
    loader = DataLoader(images(), batch_size=8)
    loaders = {"train_loader": loader, "test_loader": loader}
    found = from_the_page("CTKDModule(", student=network(8, 1), teacher=network(16, 2), **loaders)
    metrics = found["trainer"].callback_metrics
    assert {"train_loss", "train_kd", "temperature", "lambda", "val_top1"} <= set(metrics)
    assert found["distiller"].policy.raw.item() != 1.0
