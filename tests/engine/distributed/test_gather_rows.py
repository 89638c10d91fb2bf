"""Objectives that compare a step's rows: several ranks give the loss and gradients of one."""

import contextlib
import copy
import threading
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

from ctkd.adversary.schedules import ConstantLambda
from ctkd.data.coco import COCO
from ctkd.data.digits import Digits
from ctkd.distiller import Distiller
from ctkd.engine.distributed.gather_rows import check_whole_step
from ctkd.engine.distributed.reduce import sum_over_ranks
from ctkd.engine.distributed.world import World
from ctkd.engine.game import Game
from ctkd.engine.task import Batch, Rows
from ctkd.errors import ConfigError
from ctkd.losses.crld import CRLD
from ctkd.losses.dist import DIST
from ctkd.losses.mlkd import MLKD
from ctkd.temperature import GlobalTemperature, InstanceTemperature

N, C, FEATURES = 7, 5, 3  # rows of a step: ranks have uneven shares


@dataclass(frozen=True)
class Threads(World):
    """Ranks that are threads of this process: `sum` adds what each of them brings."""

    shared: Any = None

    def sum(self, tensor):
        barrier, given = self.shared
        given[self.rank] = tensor.clone()
        barrier.wait(20)
        tensor.copy_(torch.stack([given[rank] for rank in range(self.size)]).sum(0))
        barrier.wait(20)
        return tensor


class Linear:
    """A task whose rows are linear functions of both views' inputs."""

    def rows(self, student, teacher, batch):
        strong = (student(batch.strong), teacher(batch.strong))
        return Rows(student(batch.inputs), teacher(batch.inputs), batch.targets, strong=strong)


def step(objective, networks, world, outcomes):
    """One step on a rank: the outcome of the whole step and this rank's gradients."""
    student, teacher, policy = copy.deepcopy(networks)
    drawn = torch.Generator().manual_seed(0)
    inputs, strong = torch.randn(2, N, FEATURES, generator=drawn)
    targets, indices = torch.randint(C, (N,), generator=drawn), torch.arange(N)
    shares = (world.shard(whole) for whole in (inputs, targets, indices, indices, strong))
    x, y, index, view, other = shares
    distiller = Distiller(policy, ConstantLambda(0.5), objective)
    distiller.at(3.0)
    game = Game(student, distiller, Linear(), student, contextlib.nullcontext(), world)
    outcome = game(Batch(x, y, index, view, N, strong=other), teacher)
    outcome.loss.backward()
    gradients = [parameter.grad for parameter in game.parameters()]
    if world.size > 1:
        outcome = sum_over_ranks(world, outcome, N)
    outcomes[world.rank] = outcome, gradients


def networks(policy):
    """Student, teacher and policy, of random weights: none gives rows that are all alike."""
    torch.manual_seed(0)
    policy = policy(C, hidden=4) if policy is InstanceTemperature else policy()
    made = nn.ModuleList([nn.Linear(FEATURES, C), nn.Linear(FEATURES, C), policy])
    for parameter in made.parameters():
        nn.init.normal_(parameter)
    return made


@pytest.mark.parametrize("policy", [GlobalTemperature, InstanceTemperature])
@pytest.mark.parametrize("make", [DIST, MLKD, lambda: MLKD(as_published=True), CRLD])
def test_ranks_give_the_step_of_one_process(make, policy):
    size, alone, together = 3, {}, {}
    step(make(), networks(policy), World(), alone)
    shared = threading.Barrier(size), {}
    ranks = [
        threading.Thread(
            target=step,
            args=(make(), networks(policy), Threads(rank, size, shared=shared), together),
        )
        for rank in range(size)
    ]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
    (whole, gradients), ours = alone[0], [together[rank] for rank in range(size)]
    for outcome, _ in ours:
        torch.testing.assert_close(outcome.loss, whole.loss.detach())
        torch.testing.assert_close(outcome.terms, whole.terms)
        torch.testing.assert_close(outcome.temperature, whole.temperature)
    for single, *shares in zip(gradients, *(found for _, found in ours), strict=True):
        if single is None:  # the teacher's
            assert shares == [None] * size
            continue
        torch.testing.assert_close(sum(shares), single, rtol=1e-3, atol=1e-5)
        assert single.any()


def test_what_cannot_be_divided_is_refused_with_the_reason():
    images = Digits()
    check_whole_step(CRLD(), images, 4, 2)  # row by row
    check_whole_step(MLKD(), images, 1, 2)
    with pytest.raises(ConfigError, match=r"accumulate = 2 with the objective MLKD: .* Set Runti"):
        check_whole_step(MLKD(), images, 2, 1)
    with pytest.raises(ConfigError, match="DIST with 2 processes: .* Use one process"):
        check_whole_step(DIST(), COCO(), 1, 2)
