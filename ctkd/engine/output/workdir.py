"""The work directory of a run: its run, its lock, and its files."""

import contextlib
import json
import os
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import IO, Any, TypeVar

from ctkd.engine.config.identity import (
    DATA,
    IDENTITY,
    SOURCES,
    TEACHER,
    Settings,
    differences,
)
from ctkd.engine.distributed.world import World
from ctkd.engine.output.checkpoint import write_text
from ctkd.errors import WorkdirError
from ctkd.files import LEFTOVER, NOT_PERMITTED, owner_of
from ctkd.locks import try_lock
from ctkd.renamed import keys_with_new_names
from ctkd.results.read.schema import SETTINGS_FILE, RunSettings

R = TypeVar("R")


class Workdir:
    """The folder of one run. All ranks share it, and only rank 0 writes.

    Attributes:
        setting: the setting or flag that decides the folder, for messages.
        writes: whether this process writes the files; on the other ranks the methods that write
            do nothing.
        sources: fingerprints of data set and teacher of the run in the folder.
    """

    def __init__(
        self, path: pathlib.Path, world: World | None = None, setting: str = "--workdir"
    ) -> None:
        """Only names the folder; `owned` creates and locks it."""
        self.path, self.world, self.setting = path, world or World(), setting
        self.writes = self.world.is_main
        self.sources: dict[str, str] = {}
        self._settings: Settings = {}

    def on_rank_0(self, ask: Callable[[], R]) -> R:
        """The result of `ask`, which only rank 0 calls; the other ranks wait.

        Raises:
            UserError: `ask` raised it on rank 0; every rank raises it.
        """
        return self.world.agree(ask)

    @contextlib.contextmanager
    def owned(self, wait: Callable[[str], None] | None = None) -> Iterator[bool]:
        """Locks the folder for this process, after creating it if it is missing.

        Yields whether it is locked: the folder of a finished run may be read-only, or belong to
        another user. Then it is only read, which needs no lock.

        Args:
            wait: receives one message if another process holds the lock; without it that is an
                error.

        Raises:
            WorkdirError: another process holds the lock, the folder is not a work directory, or it
                cannot be created or written.
        """
        lock = self._open_lock()
        if lock is None:
            yield False
            return
        with lock:
            while not try_lock(lock):
                lock.seek(0)
                owner = f"{self.path} is in use by process {lock.read().strip() or '(unknown)'}"
                if wait is None:
                    raise WorkdirError(f"{owner}: wait for it, or give another {self.setting}")
                wait(f"{owner}: waiting")
                wait = _silent
                time.sleep(0.5)
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            yield True

    def _open_lock(self) -> IO[str] | None:
        """The lock file, open for writing; None if it is read-only and the run is finished."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._refuse_strangers()  # before anything is written there
            return open(self.path / ".lock", "a+", encoding="utf-8", errors="replace")
        except OSError as error:
            if error.errno in NOT_PERMITTED and self.read_summary() is not None:
                return None
            raise WorkdirError(
                f"cannot use the work directory {self.path}: {error.strerror}"
                f"{owner_of(self.path)}; give another {self.setting}"
            ) from error

    def compare(self, settings: Settings) -> None:
        """Compares the run of the folder, if there is one, with a run of these settings.

        Raises:
            WorkdirError: the folder belongs to another method, recipe or seed.
        """
        self.sources = {}
        saved = self.read_settings()
        if saved is None:
            return
        begun = self._has_begun()
        for key in SOURCES.keys() & saved["recipe"].keys():
            fingerprint = saved["recipe"].pop(key)
            if begun:  # otherwise the run may still use other data or another teacher
                self.sources[key] = fingerprint
        different = differences(settings, saved)
        if different:
            lines = "\n  ".join(different)
            raise WorkdirError(
                f"{self.path} belongs to another run:\n  {lines}\n"
                f"give another {self.setting}, or begin again there with --fresh"
            )

    def claim(self, settings: Settings, config: str) -> None:
        """Writes the settings and `config.gin`. The folder must be new or belong to this run.

        Raises:
            WorkdirError: see `compare`.
        """
        self.compare(settings)
        for folder in (self.path, self.path / "checkpoints"):
            for leftover in folder.glob(".*"):
                if LEFTOVER.fullmatch(leftover.name):
                    leftover.unlink(missing_ok=True)
        self._settings = settings
        self._write_settings()
        write_text(self.path / "config.gin", config)

    def _refuse_strangers(self) -> None:
        if (self.path / "settings.json").exists():
            return
        names = {entry.name for entry in self.path.iterdir()} - {".lock"}
        strangers = sorted(name for name in names if not LEFTOVER.fullmatch(name))
        if strangers:
            listed = ", ".join(strangers[:5])
            raise WorkdirError(
                f"{self.path} is not a work directory of ctkd: it contains {listed}; give another "
                f"{self.setting}"
            )

    def _has_begun(self) -> bool:
        """Whether the folder contains any training."""
        checkpoints = (self.path / "checkpoints").glob("*.pt")
        return (self.path / "summary.json").exists() or any(checkpoints)

    def claim_sources(self, data: str | None, teacher: str | None) -> None:
        """Keeps the fingerprints of data set and teacher in `settings.json`.

        Raises:
            WorkdirError: see `compare_source`.
        """

        def claim() -> None:
            for key, fingerprint in ((DATA, data), (TEACHER, teacher)):
                if fingerprint is not None:
                    self.compare_source(key, fingerprint)
                    self.sources[key] = fingerprint
            self._write_settings()

        self.on_rank_0(claim)

    def compare_source(self, key: str, fingerprint: str) -> None:
        """Compares a fingerprint, `TEACHER` or `DATA`, with that of the run in the folder.

        Raises:
            WorkdirError: the run in the folder has another teacher, or other data.
        """
        begun_with = self.sources.get(key, fingerprint)
        if begun_with != fingerprint:
            raise WorkdirError(
                f"{self.path} was begun with another {SOURCES[key]}: its fingerprint is "
                f"{begun_with} there, {fingerprint} here; give the same, another {self.setting}, "
                "or begin again with --fresh"
            )

    def _write_settings(self) -> None:
        """Writes `settings.json`: the four sets of settings, and the name of the run."""
        recipe = {**self._settings["recipe"], **self.sources}
        name = self._settings["runtime"]["Runtime.name"]
        written = RunSettings(name, **{**self._settings, "recipe": recipe}).to_json()
        text = json.dumps(written, indent=1, sort_keys=True)
        write_text(self.path / SETTINGS_FILE, text + "\n")

    def read_settings(self) -> Settings | None:
        """The settings of the folder's run, or None. Raises WorkdirError for a damaged file."""
        settings: Settings | None = self._read_json("settings.json")
        if settings is None:
            return None
        if not all(isinstance(settings.get(k), dict) for k in IDENTITY):
            raise WorkdirError(
                f"{self.path / 'settings.json'} is not of ctkd: give another {self.setting}"
            )
        sets = {k: keys_with_new_names(v) for k, v in settings.items() if isinstance(v, dict)}
        return {**settings, **sets}

    def read_summary(self) -> dict[str, Any] | None:
        """The summary of a finished run, or None."""
        return self._read_json("summary.json")

    def _read_json(self, name: str) -> dict[str, Any] | None:
        path = self.path / name
        try:
            value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(value, dict):
                raise ValueError("it contains no object")
        except FileNotFoundError:
            return None
        except PermissionError as error:
            raise WorkdirError(
                f"{path} cannot be read: {error.strerror}{owner_of(path)}; give another "
                f"{self.setting}, or ask the owner for the permission to read"
            ) from error
        except (OSError, ValueError) as error:
            fault = f"{path} cannot be read: {error}; begin again with --fresh"
            raise WorkdirError(fault) from error
        return value

    def reopen(self) -> None:
        """Removes the summary: the run is then unfinished, and continues from its checkpoint.

        Raises:
            WorkdirError: the file cannot be removed.
        """
        path = self.path / "summary.json"
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise WorkdirError(
                f"cannot remove {path}: {error.strerror}; give another {self.setting}"
            ) from error

    def write_rows(self, name: str, rows: list[dict[str, Any]]) -> None:
        """Writes a file with one JSON object per line."""
        write_text(self.path / name, "".join(json.dumps(row) + "\n" for row in rows))

    def move_aside(self) -> pathlib.Path | None:
        """Renames an existing folder, for a fresh start, and returns the new name or None.

        Raises:
            WorkdirError: another process owns it, it is not a work directory, it contains this
                process's working directory, or it cannot be renamed.
        """
        if not self.path.exists():
            return None
        if pathlib.Path.cwd().is_relative_to(self.path.resolve()):
            raise WorkdirError(f"cannot move {self.path} aside from inside it: start elsewhere")
        with self.owned() as locked:
            if not locked:
                raise WorkdirError(
                    f"cannot move {self.path} aside: it is not writable{owner_of(self.path)}; give "
                    f"another {self.setting}"
                )
            stem, number = self.path.name, 1
            while (target := self.path.with_name(f"{stem}.old-{number}")).exists():
                number += 1
            try:
                self.path.rename(target)
            except OSError as error:
                raise WorkdirError(f"cannot move {self.path} aside: {error.strerror}") from error
        return target


def _silent(message: str) -> None:
    """Prints nothing: one message about the wait is enough."""
