"""The files behind the teacher's cache: never a wrong row, whatever happens to the disk."""

import os
import subprocess
import threading

import numpy as np
import pytest

from ctkd.engine.teacher import row_store as cache_store
from ctkd.engine.teacher.row_store import RowStore


def row_store(folder, count=200, width=10, dtype="float32", limit=2**30, messages=None):
    folder.mkdir(parents=True, exist_ok=True)
    messages = [] if messages is None else messages
    return RowStore(folder, count, width, dtype, limit, messages.append)


def some_rows(count=200, width=10, seed=0):
    rows = np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)
    return np.arange(count), rows


def test_rows_come_back_bit_by_bit_and_only_where_written(tmp_path):
    indices, rows = some_rows()
    store = row_store(tmp_path / "a")
    order = np.random.default_rng(1).permutation(150)
    store.write(indices[order], rows[order])
    for again in (store, row_store(tmp_path / "a")):
        found, read = again.read(indices[::-1])
        assert (found == (indices[::-1] < 150)).all()
        np.testing.assert_array_equal(read[found], rows[::-1][found])
        assert again.share() == 0.75


@pytest.mark.parametrize("name", "abc")
def test_written_rows_can_be_listed_while_another_process_writes(tmp_path, name):
    """NumPy's search for numbers that are not 0 ends with an error if their count changes."""
    count = 2**20
    reader, writer = (row_store(tmp_path / name, count=count, width=1) for _ in range(2))
    blocks = np.arange(count).reshape(64, -1)

    def write():
        for block in blocks:
            writer.write(block, np.zeros((len(block), 1), np.float32))

    thread = threading.Thread(target=write)
    thread.start()
    while thread.is_alive():
        assert 0.0 <= reader.share() <= 1.0
        assert len(reader.some(10)) <= 10
    thread.join()
    assert reader.share() == 1.0


def test_sixteen_bits_hold_what_sixteen_bits_can(tmp_path):
    indices, rows = some_rows()
    store = row_store(tmp_path / "a", dtype="float16")
    store.write(indices, rows)
    found, read = store.read(indices)
    assert found.all()
    np.testing.assert_array_equal(read, rows.astype(np.float16).astype(np.float32))
    assert (tmp_path / "a/rows").stat().st_size == 200 * 10 * 2


def test_a_row_of_zeros_is_a_row(tmp_path):
    store = row_store(tmp_path / "a")
    store.write(np.array([7]), np.zeros((1, 10), np.float32))
    found, read = store.read(np.array([6, 7]))
    assert found.tolist() == [False, True]
    assert not read[1].any()


@pytest.mark.parametrize("file", ["rows", "sums"])
@pytest.mark.parametrize("bit", [0, 7])
def test_a_flipped_bit_anywhere_makes_a_row_absent(tmp_path, file, bit):
    indices, rows = some_rows()
    messages = []
    store = row_store(tmp_path / "a", messages=messages)
    store.write(indices, rows)
    item = 40 if file == "rows" else 8
    with open(tmp_path / "a" / file, "r+b") as damaged:
        for index in range(0, 200, 2):
            damaged.seek(index * item + index % item)
            byte = damaged.read(1)[0]
            damaged.seek(index * item + index % item)
            damaged.write(bytes([byte ^ 1 << bit]))
    found, read = store.read(indices)
    assert (found == (indices % 2 == 1)).all()
    np.testing.assert_array_equal(read[found], rows[found])
    assert store.damaged == 100
    assert "damaged" in messages[0]


def test_a_row_at_another_index_is_not_taken(tmp_path):
    indices, rows = some_rows()
    store = row_store(tmp_path / "a")
    store.write(indices, rows)
    for file, item in (("rows", 40), ("sums", 8)):
        path = tmp_path / "a" / file
        content = path.read_bytes()
        with path.open("r+b") as moved:  # in index: the store has it open
            moved.write(content[item:] + content[:item])
    assert not store.read(indices)[0].any()


def test_a_file_cut_short_is_noticed_before_it_is_touched(tmp_path):
    indices, rows = some_rows(count=5000)
    messages = []
    store = row_store(tmp_path / "a", count=5000, messages=messages)
    store.write(indices, rows)
    os.truncate(tmp_path / "a/rows", 100)
    found, _ = store.read(indices)
    assert not found.any()
    store.write(indices, rows)
    assert not store.present(indices).any()
    assert len(messages) == 1
    assert "cut short" in messages[0]


def test_a_file_cut_short_before_is_made_whole_and_its_rows_are_gone(tmp_path):
    indices, rows = some_rows(count=5000)
    row_store(tmp_path / "a", count=5000).write(indices, rows)
    os.truncate(tmp_path / "a/rows", 4000)
    found, read = row_store(tmp_path / "a", count=5000).read(indices)
    assert found[:100].all()
    assert not found[100:].any()
    np.testing.assert_array_equal(read[:100], rows[:100])


def test_a_full_disk_ends_the_writing_not_the_run(tmp_path, monkeypatch):
    indices, rows = some_rows()
    messages = []
    store = row_store(tmp_path / "a", messages=messages)
    store.write(indices[:50], rows[:50])
    real, left = os.pwrite, [1000]

    def full(file, data, offset):
        if left[0] <= 0:
            raise OSError(28, "No space left on device")
        taken = min(len(data), left[0])
        left[0] -= taken
        return real(file, data[:taken], offset)

    monkeypatch.setattr(os, "pwrite", full)
    store.write(indices[50:], rows[50:])
    assert "No space left on device" in messages[0]
    store.write(indices[50:], rows[50:])
    assert len(messages) == 1
    found, read = store.read(indices)
    assert found[:50].all()
    np.testing.assert_array_equal(read[found], rows[found])


def test_a_system_that_cannot_reserve_room_on_the_disk(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    indices, rows = some_rows()
    store = row_store(tmp_path / "a")
    store.write(indices, rows)
    assert store.read(indices)[0].all()


def test_the_limit_is_kept_and_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(cache_store, "CHECK_EVERY", 2)
    indices, rows = some_rows(count=40_000)
    messages = []
    store = row_store(tmp_path / "caches/a", count=40_000, limit=2**20, messages=messages)
    for start in range(0, 40_000, 1000):
        store.write(indices[start : start + 1000], rows[start : start + 1000])
    used = sum(p.stat().st_blocks * 512 for p in (tmp_path / "caches").glob("*/*"))
    assert 2**20 <= used < 1.5 * 2**20
    assert "Runtime.teacher_cache_gb" in messages[0]
    assert len(messages) == 1
    found, read = store.read(indices)
    np.testing.assert_array_equal(read[found], rows[found])


def test_the_disks_last_gigabyte_is_left_to_others(tmp_path, monkeypatch):
    monkeypatch.setattr(cache_store, "RESERVE", 2**62)
    messages = []
    store = row_store(tmp_path / "a", messages=messages)
    store.write(*some_rows())
    assert store.share() == 0
    assert "are free on the disk" in messages[0]


def test_a_real_full_disk(tmp_path, monkeypatch):
    """A tiny file system in memory, where a careless read or write would kill the process."""
    monkeypatch.setattr(cache_store, "RESERVE", 0)
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(small)]
    try:
        mounted = subprocess.run(mount, capture_output=True).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("this user cannot mount a tmpfs")
    try:
        messages = []
        indices, rows = some_rows(count=10_000)
        store = row_store(small / "a", count=10_000, messages=messages)
        for start in range(0, 10_000, 100):
            store.write(indices[start : start + 100], rows[start : start + 100])
        assert "No space left on device" in messages[0]
        found, read = store.read(indices)
        assert 1000 < found.sum() < 6000
        np.testing.assert_array_equal(read[found], rows[found])
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)
