"""The cache of teacher rows per (image, view): exact, on disk, shared by the runs of a machine.

Views are discrete, so a teacher sees the same pixels many times, and computes their logits once.
Cached rows have the same bits as newly computed rows: a cache belongs to one teacher, one set of
images and one way of computing. These are written in its `key.json`, and their hash is its folder's
name. If the disk fails, rows are computed as without a cache.
"""

import hashlib
import json
import os
import pathlib
import platform
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ctkd.engine.output.checkpoint import write_text
from ctkd.engine.task import Batch
from ctkd.engine.teacher.row_store import Array, RowStore
from ctkd.errors import WorkdirError

FORMAT = 1  # of the folder's format and the key's meaning
AHEAD = 64  # later batches whose rows may fill a batch that is partly cached
Key = dict[str, Any]


class Compute(Protocol):
    """A teacher: logits [B, C], float32, computed in batches of one size."""

    batch_size: int | None

    def compute(self, inputs: Tensor) -> Tensor:
        """Logits of inputs."""


class CachedSamples(Protocol):
    """What the cache asks of a `ViewedTask`; see there."""

    @property
    def num_classes(self) -> int:
        """The numbers of a row, without features."""

    @property
    def samples(self) -> int:
        """The number of samples."""

    @property
    def views(self) -> int:
        """The number of views of each."""

    def batch_of(self, indices: Tensor, views: Tensor) -> Batch:
        """Any samples in any views."""

    def data_key(self) -> Key:
        """What determines an input."""


def numerics(device: torch.device) -> Key:
    """The settings, known to torch, that decide the last bits of a float32 computation here."""
    if device.type == "cuda":
        cudnn = torch.backends.cudnn
        flags: list[object] = [
            str(torch.version.cuda),
            cudnn.allow_tf32,
            cudnn.benchmark,
            cudnn.deterministic,
        ]
        processor = torch.cuda.get_device_name(device)
    else:
        flags = [torch.backends.mkldnn.enabled, os.environ.get("ONEDNN_MAX_CPU_ISA")]
        processor = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    return {
        "torch": torch.__version__,
        "device": device.type,
        "processor": processor,
        "threads": None if device.type == "cuda" else torch.get_num_threads(),
        "matmul": torch.get_float32_matmul_precision(),
        "flags": flags,
    }


class TeacherCache:
    """Reads a teacher's rows, computes the missing rows, and keeps them."""

    def __init__(
        self,
        store: RowStore,
        teacher: Compute,
        samples: CachedSamples,
        device: torch.device,
    ) -> None:
        """See `open_cache`."""
        self._device = device
        self.store, self._teacher, self._samples = store, teacher, samples
        self._table: Tensor | None = None  # all rows on a GPU: nothing is read from the disk
        self._ready: dict[int, Array] = {}  # rows computed ahead, not on the disk
        self.hits = self.misses = 0

    def move_to_gpu(self) -> None:
        """Copies all rows to the device, if it is a GPU and they fit into half its free memory."""
        if self._device.type != "cuda":
            return
        size = 4 * self.store.count * self.store.width
        if 2 * size > torch.cuda.mem_get_info(self._device)[0]:
            return
        if (table := self.store.table()) is not None:
            self._table = torch.from_numpy(table).to(self._device)

    def counts(self) -> str:
        """How many rows this process read from the cache, and how many it computed."""
        damaged = f"; {self.store.damaged:,} were damaged on the disk" if self.store.damaged else ""
        counts = f"{self.hits:,} from the cache, {self.misses:,} computed"
        return f"teacher rows of this process: {counts}{damaged}"

    def rows(self, batch: Batch) -> Tensor:
        """Logits [B, C] of a batch, float32, on the device."""
        row_indices = self._row_indices(batch.indices, batch.views)
        if self._table is not None:
            self.hits += len(row_indices)
            on_device = torch.from_numpy(row_indices).to(self._table.device, non_blocking=True)
            return self._table[on_device]
        found, rows = self._read(row_indices)
        self.hits, self.misses = self.hits + int(found.sum()), self.misses + int((~found).sum())
        if not found.all():
            rows[~found] = self._compute(batch, ~found, row_indices)
        return torch.from_numpy(rows).to(self._device, non_blocking=True)

    def _row_indices(self, indices: Tensor, views: Tensor) -> Array:
        row_indices: Array = (indices * self._samples.views + views).cpu().numpy()
        return row_indices

    def _read(self, row_indices: Array) -> tuple[Array, Array]:
        found, rows = self.store.read(row_indices)
        if self._ready:
            for k in np.flatnonzero(~found):
                row = self._ready.pop(int(row_indices[k]), None)
                if row is not None:
                    found[k], rows[k] = True, row
        return found, rows

    def _compute(self, batch: Batch, missing: Array, row_indices: Array) -> Array:
        """The missing rows of a batch.

        The teacher always computes whole batches, since a row's bits could depend on the batch's
        size. Missing rows of later batches of the epoch fill the batch, so that few rows are
        computed twice.
        """
        size = self._teacher.batch_size or len(row_indices)
        here = torch.from_numpy(np.flatnonzero(missing))
        inputs = batch.inputs[here.to(batch.inputs.device)]
        ahead = self._ahead(batch, free=-len(here) % size, known=set(row_indices.tolist()))
        if len(ahead):
            views = self._samples.views
            later = self._samples.batch_of(
                torch.from_numpy(ahead // views), torch.from_numpy(ahead % views)
            )
            inputs = torch.cat([inputs, later.inputs])
        rows: Array = self._teacher.compute(inputs).cpu().numpy()
        self.store.write(np.concatenate([row_indices[missing], ahead]), rows)
        count = len(here)
        if not self.store.writable:
            self._ready.update(zip(ahead.tolist(), rows[count:], strict=True))
        return rows[:count]

    def _ahead(self, batch: Batch, free: int, known: set[int]) -> Array:
        """Up to `free` indices of rows that later batches need and that are not computed yet."""
        if not free or batch.coming is None:
            return np.zeros(0, np.int64)
        horizon = AHEAD * (self._teacher.batch_size or 1)
        coming = self._row_indices(*(tensor[:horizon] for tensor in batch.coming))
        absent = coming[~self.store.present(coming)].tolist()
        fresh = [k for k in dict.fromkeys(absent) if k not in known and k not in self._ready]
        return np.array(fresh[:free], np.int64)

    def agrees(self) -> bool:
        """Whether cached rows equal newly computed rows, bit by bit.

        One batch of them is computed again: a last check against changes that are not in the key,
        such as a change of the network's code.
        """
        size = self._teacher.batch_size or 64
        row_indices = self.store.some(size)
        found, rows = self.store.read(row_indices)
        if not found.any():
            return True
        views = self._samples.views
        images, which = np.divmod(row_indices, views)
        batch = self._samples.batch_of(torch.from_numpy(images), torch.from_numpy(which))
        fresh = self._teacher.compute(batch.inputs)
        same: bool = np.array_equal(fresh.cpu().numpy()[found], rows[found])
        return same


def open_cache(
    root: pathlib.Path,
    key: Key,
    teacher: Compute,
    samples: CachedSamples,
    *,
    dtype: str,
    limit: int,
    features: int = 0,
    device: torch.device,
    say: Callable[[str], None],
    warn: Callable[[str], None],
    only_whole: bool = False,
) -> TeacherCache | None:
    """The cache below `root` that belongs to `key`; None, with a warning, if it cannot be used.

    Args:
        root: the folder of all caches.
        key: of the teacher; the keys of the samples and of the numerics are added.
        dtype: of the rows on the disk.
        limit: the largest size of `root`, in bytes.
        features: the number of features after the logits of a row.
        device: a GPU keeps a complete cache in its memory; from an incomplete one, rows are copied.
        say, warn: print messages and warnings.
        only_whole: whether to ignore a cache that is missing or lacks rows.
    """
    whole = {**key, **samples.data_key(), **numerics(device), "rows": dtype, "format": FORMAT}
    text = json.dumps(whole, indent=1, sort_keys=True) + "\n"
    folder = root / hashlib.sha256(text.encode()).hexdigest()[:16]
    count = samples.samples * samples.views
    if only_whole and not folder.is_dir():
        return None
    try:
        _write_key(folder, text)
        width = samples.num_classes + features
        store = RowStore(folder, count, width, dtype, limit, warn)
    except (OSError, WorkdirError) as error:
        warn(
            f"no teacher cache: {error}; the teacher's rows are computed. Runtime.teacher_cache "
            "names another folder for them"
        )
        return None
    return _checked(TeacherCache(store, teacher, samples, device), only_whole, say, warn)


def _write_key(folder: pathlib.Path, text: str) -> None:
    """Creates the folder of a cache with its key, or compares the key of an existing folder.

    Raises:
        OSError: the folder cannot be created or read.
        WorkdirError: the key differs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = folder / "key.json"
    if not written.exists():
        write_text(written, text)
    if written.read_bytes() != text.encode():
        raise WorkdirError(f"{written} is damaged: delete the folder")


def _checked(
    cache: TeacherCache,
    only_whole: bool,
    say: Callable[[str], None],
    warn: Callable[[str], None],
) -> TeacherCache | None:
    """The cache, if its rows are the teacher's; a GPU copies all rows into its memory."""
    store, folder = cache.store, cache.store.folder
    if not store.writable:
        say(f"{folder} is read-only: its rows are used, and no more are kept")
    share = store.share()
    if only_whole and share < 1.0:
        return None
    if not cache.agrees():
        warn(
            f"{folder} has other rows than this teacher computes: it is not used; delete it if "
            "the network's code has changed"
        )
        return None
    say(f"teacher rows are remembered in {folder} ({share:.1%} of {store.count:,} are there)")
    if share == 1.0:
        cache.move_to_gpu()
    return cache
