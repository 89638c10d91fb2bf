"""Blocks of rows: the loss and all gradients are those of the dense rows, in bounded memory."""

import contextlib

import pytest
import torch
from torch.nn import functional as F

from ctkd import Distiller
from ctkd.adversary.schedules import ConstantLambda
from ctkd.engine.diagnostics.fixed_game import FixedGame
from ctkd.engine.hidden_rows import Head, HiddenRows, play_in_blocks
from ctkd.engine.task import Rows
from ctkd.losses.objectives import KD
from ctkd.temperature import GlobalTemperature
from ctkd.temperature.token import TokenTemperature


def drawn(rows=10, classes=7, width=4):
    torch.manual_seed(0)
    hidden = torch.randn(rows, width, requires_grad=True)
    weight = torch.randn(classes, width, requires_grad=True)
    bias = torch.randn(classes, requires_grad=True)
    teacher, matrix = torch.randn(rows, width), torch.randn(classes, width)
    return hidden, weight, bias, teacher, matrix, torch.arange(rows) % classes


def distiller(policy):
    for parameter in policy.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(1))
    made = Distiller(policy, ConstantLambda(0.7), KD(0.5, 0.5))
    made.at(0.0)
    return made


@pytest.mark.parametrize("block", [1, 3, 10, 64])
@pytest.mark.parametrize("policy", [GlobalTemperature, TokenTemperature])
def test_loss_and_gradients_are_those_of_the_dense_rows(policy, block):
    hidden, weight, bias, teacher, matrix, targets = drawn()
    game, leaves = distiller(policy()), (hidden, weight, bias)
    leaves = (*leaves, *game.parameters())
    dense = game(F.linear(hidden, weight, bias), F.linear(teacher, matrix), targets, total_rows=25)
    expected = torch.autograd.grad(3 * dense.loss, leaves)
    rows = HiddenRows(hidden, teacher, targets, student_head=Head(weight, bias), block=block)
    rows = HiddenRows(**{**vars(rows), "teacher_head": Head(matrix)})
    played = play_in_blocks(game, rows, 25, contextlib.nullcontext())
    torch.testing.assert_close(played.loss, dense.loss)
    torch.testing.assert_close(played.terms, dense.terms)
    torch.testing.assert_close(played.temperature.mean(), dense.temperature.mean())
    torch.testing.assert_close(torch.autograd.grad(3 * played.loss, leaves), expected)
    whole = Rows(F.linear(hidden, weight, bias).detach(), F.linear(teacher, matrix), targets)
    with torch.no_grad():
        blocks, all_ = FixedGame(game, rows), FixedGame(game, whole)
    assert [blocks.loss(t) for t in (1.0, 4.0)] == pytest.approx([all_.loss(t) for t in (1.0, 4.0)])
    assert torch.allclose(blocks.row_losses([2.0]), all_.row_losses([2.0]))
    assert blocks.faults() == all_.faults() == []


def peak_memory(work):
    """The most bytes of tensors that `work` holds at a time, above what was there before."""
    with torch.profiler.profile(profile_memory=True) as profile:
        work()
    live = top = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            live += event.nbytes()
            top = max(top, live)
    return top


def test_peak_memory_does_not_depend_on_the_number_of_rows():
    """At V = 152,000: 6 · block · V · 4 bytes and one gradient of the head."""
    classes, width, block = 152_000, 8, 8
    game = distiller(GlobalTemperature())
    peaks = []
    for rows in (16, 48):
        hidden, weight, _, teacher, matrix, targets = drawn(rows, classes, width)
        heads = {"student_head": Head(weight), "teacher_head": Head(matrix), "block": block}
        given = HiddenRows(hidden, teacher, targets, **heads)
        peaks.append(
            peak_memory(
                lambda r=rows, g=given: play_in_blocks(
                    game, g, r, contextlib.nullcontext()
                ).loss.backward()
            )
        )
    head = classes * width * 4
    assert max(peaks) <= 6 * block * classes * 4 + head + 1000 * max(rows, width)
    assert max(peaks) < 1.05 * min(peaks)
