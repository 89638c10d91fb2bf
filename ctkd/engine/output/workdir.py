"""The work directory of a run: which run it belongs to, which process holds it, its files."""

import contextlib
import hashlib
import json
import os
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import IO, Any

from ctkd.engine.output.checkpoint import write_text
from ctkd.errors import WorkdirError
from ctkd.files import LEFTOVER, NOT_PERMITTED, owner_of
from ctkd.locks import try_lock

IDENTITY = ("method", "recipe", "seed")  # the sets of settings that resuming needs equal
TEACHER, DATA = "Teacher.fingerprint", "Dataset.fingerprint"
# What a run is made of besides its settings, known only once it has been read: setting -> words.
SOURCES = {TEACHER: "another teacher: its weights'", DATA: "other data: their"}
Settings = dict[str, dict[str, Any]]


def identity_of(settings: Settings) -> str:
    """A hash of the three sets of settings that make a run this run and no other.

    The fingerprints of data and teacher are left out: they are known only once both are read.
    """
    parts = {key: settings[key] for key in IDENTITY}
    parts["recipe"] = {k: v for k, v in parts["recipe"].items() if k not in SOURCES}
    text = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def differences(one: Settings, other: Settings, sets: tuple[str, ...] = IDENTITY) -> list[str]:
    """The settings in which two runs differ, one line each."""
    lines = []
    for key in sets:
        ours, theirs = one.get(key, {}), other.get(key, {})
        for name in sorted(ours.keys() | theirs.keys()):
            here, there = ours.get(name, "not set"), theirs.get(name, "not set")
            if here != there:
                lines.append(f"{name} = {there!r} there, {here!r} here")
    return lines


class Workdir:
    """The folder of one run."""

    def __init__(self, path: pathlib.Path, setting: str = "--workdir") -> None:
        """Only names the folder; `owned` creates and locks it.

        Args:
            setting: the setting or flag that the folder follows from, for messages.
        """
        self.path, self.setting = path, setting

    @contextlib.contextmanager
    def owned(self, wait: Callable[[str], None] | None = None) -> Iterator[bool]:
        """Locks the folder for this process, after creating it if it is missing.

        Yields whether it is locked: the folder of a finished run may be read-only, or belong to
        another user. It is only read then, and reading needs no lock.

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
        """Takes the fingerprints of what was begun there into the settings, and compares the rest.

        Raises:
            WorkdirError: the folder belongs to another method, recipe or seed.
        """
        saved = self.read_settings()
        if saved is None:
            return
        begun = self._has_begun()
        for key in SOURCES.keys() & saved["recipe"].keys():
            fingerprint = saved["recipe"].pop(key)
            if begun:  # not known again before data and teacher are read
                settings["recipe"][key] = saved["recipe"][key] = fingerprint
        different = differences(settings, saved)
        if different:
            lines = "\n  ".join(different)
            raise WorkdirError(
                f"{self.path} belongs to another run:\n  {lines}\n"
                f"give another {self.setting}, or begin again there with --fresh"
            )

    def claim(self, settings: Settings, config: str) -> None:
        """Writes the settings and `config.gin`, if the folder is new or this run's own.

        Raises:
            WorkdirError: see `compare`.
        """
        self.compare(settings)
        for folder in (self.path, self.path / "checkpoints"):
            for leftover in folder.glob(".*"):
                if LEFTOVER.fullmatch(leftover.name):
                    leftover.unlink(missing_ok=True)
        self.write_settings(settings)
        write_text(self.path / "config.gin", config)

    def _refuse_strangers(self) -> None:
        if (self.path / "settings.json").exists():
            return
        names = {entry.name for entry in self.path.iterdir()} - {".lock"}
        strangers = sorted(name for name in names if not LEFTOVER.fullmatch(name))
        if strangers:
            listed = ", ".join(strangers[:5])
            raise WorkdirError(
                f"{self.path} is no work directory of ctkd: it holds {listed}; give another "
                f"{self.setting}"
            )

    def _has_begun(self) -> bool:
        """Whether anything was trained there."""
        checkpoints = (self.path / "checkpoints").glob("*.pt")
        return (self.path / "summary.json").exists() or any(checkpoints)

    def claim_source(self, settings: Settings, key: str, fingerprint: str) -> None:
        """Adds a fingerprint, `TEACHER` or `DATA`, to the recipe, or compares it.

        Raises:
            WorkdirError: see `compare_source`.
        """
        self.compare_source(settings, key, fingerprint)
        settings["recipe"][key] = fingerprint
        self.write_settings(settings)

    def compare_source(self, settings: Settings, key: str, fingerprint: str) -> None:
        """Compares a fingerprint with what the run was begun with, as far as that is known.

        Raises:
            WorkdirError: the run was begun with another teacher, or with other data.
        """
        begun_with = settings["recipe"].get(key, fingerprint)
        if begun_with != fingerprint:
            raise WorkdirError(
                f"{self.path} was begun with {SOURCES[key]} fingerprint is {begun_with} there, "
                f"{fingerprint} here; give the same, another {self.setting}, or begin again with "
                "--fresh"
            )

    def write_settings(self, settings: Settings) -> None:
        """Writes `settings.json`: the four sets, and the run's name for whoever lists runs."""
        named = {"name": settings["runtime"]["Runtime.name"], **settings}
        write_text(self.path / "settings.json", json.dumps(named, indent=1, sort_keys=True) + "\n")

    def read_settings(self) -> Settings | None:
        """The settings of the run that the folder belongs to, or None.

        Raises:
            WorkdirError: the file is damaged.
        """
        settings: Settings | None = self._read_json("settings.json")
        if settings is not None and not all(isinstance(settings.get(k), dict) for k in IDENTITY):
            raise WorkdirError(
                f"{self.path / 'settings.json'} is not of ctkd: give another {self.setting}"
            )
        return settings

    def read_summary(self) -> dict[str, Any] | None:
        """The summary of a finished run, or None."""
        return self._read_json("summary.json")

    def _read_json(self, name: str) -> dict[str, Any] | None:
        path = self.path / name
        try:
            value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(value, dict):
                raise ValueError("it holds no object")
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
        """Removes the summary: the run counts as unfinished, and goes on from its checkpoint.

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
        """Writes a file of one JSON object a line."""
        write_text(self.path / name, "".join(json.dumps(row) + "\n" for row in rows))

    def move_aside(self) -> pathlib.Path | None:
        """Renames an existing folder, for a fresh beginning; the new name, or None.

        Raises:
            WorkdirError: another process owns it, it is no work directory, it holds this process's
                working directory, or it cannot be renamed.
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
    """Says nothing: the wait has been told of."""
