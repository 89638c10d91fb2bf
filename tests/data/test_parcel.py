"""Parcels: a batch arrives as it was, by way of a file that /dev/shm does not limit."""

import functools
import os
import pickle
from typing import NamedTuple

import pytest
import torch

from ctkd.data.parcel import Parcel


class Pair(NamedTuple):
    pixels: torch.Tensor
    names: list


def passed(batch):
    return pickle.loads(pickle.dumps(Parcel(batch))).open()


@pytest.fixture(params=["memory", "disk"])
def kind(request, monkeypatch):
    """Also where Python has no files in memory."""
    if request.param == "disk":
        monkeypatch.delattr(os, "memfd_create", raising=False)
    elif not hasattr(os, "memfd_create"):
        pytest.skip("this Python has no files in memory")


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(24, dtype=torch.uint8).view(2, 3, 4),
        torch.randn(2, 5, 5, 3).permute(0, 3, 1, 2),  # channels last
        torch.randn(1, 1, 6, 1).permute(0, 3, 1, 2),
        torch.arange(40.0).view(8, 5)[1:7:2, 2:],  # a part of a storage
        torch.tensor([True, False, True]),
        torch.tensor(7),
        torch.zeros(0, 4),
        torch.randn(3).double(),
    ],
)
def test_a_tensor_keeps_values_shape_and_strides(kind, tensor):
    came = passed(tensor)
    assert came.dtype == tensor.dtype
    assert torch.equal(came, tensor)
    expected = tensor.clone() if tensor.untyped_storage().nbytes() > tensor.nbytes else tensor
    assert came.stride() == expected.stride()


def test_a_batch_of_any_build(kind):
    batch = [Pair(torch.randn(3, 4), ["a", None]), {"boxes": torch.ones(2, 4), "error": "no file"}]
    pair, rest = passed(batch)
    assert isinstance(pair, Pair)
    assert torch.equal(pair.pixels, batch[0].pixels)
    assert pair.names == ["a", None]
    assert torch.equal(rest["boxes"], torch.ones(2, 4))
    assert rest["error"] == "no file"


def test_autograd_takes_the_tensors_for_different_ones():
    weights, pixels = passed((torch.ones(3), torch.ones(3)))
    student = torch.ones(3, requires_grad=True)
    loss = (student * weights).sum()  # keeps the weights for backward
    pixels.mul_(2)
    loss.backward()
    assert student.grad.tolist() == [1, 1, 1]
    assert weights.tolist() == [1, 1, 1]


def test_what_is_sent_is_small_and_no_file_is_left_open():
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for _ in range(20):
        sent = pickle.dumps(Parcel(torch.zeros(2**20)))
        assert len(sent) < 2048  # a pipe takes it at once
        del sent
        passed([torch.zeros(1000)] * 50)
    parcels = [Parcel(torch.zeros(10)) for _ in range(3)]
    assert [parcel.open().shape for parcel in parcels] == [(10,)] * 3
    if before:
        # The 20 that were never received are the sender's until it ends.
        assert len(os.listdir("/proc/self/fd")) <= before + 20 + 5


def test_page_locked_memory_holds_the_whole_batch(monkeypatch):
    """Without a GPU there is none, so a plain copy stands for it."""
    copies = []

    def pin(self):
        copies.append(self.clone())
        return copies[-1]

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    pixels, targets = torch.randn(4, 6, 6, 3).permute(0, 3, 1, 2), torch.arange(4)
    came = pickle.loads(pickle.dumps(Parcel((pixels, targets)))).pin_memory()
    assert torch.equal(came[0], pixels)
    assert torch.equal(came[1], targets)
    (copied,) = copies
    for tensor in came:
        assert tensor.untyped_storage().data_ptr() == copied.untyped_storage().data_ptr()


def test_a_full_disk_is_an_error_where_the_batch_is_packed(monkeypatch):
    if not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full")
    full = functools.partial(open, "/dev/full", "wb")
    monkeypatch.setattr("ctkd.data.parcel._nameless_file", full)
    with pytest.raises(OSError, match="No space left"):
        Parcel(torch.zeros(10))
