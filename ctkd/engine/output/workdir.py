"""A run's work directory: whose it is, who holds it, and what lies in it."""

import contextlib
import hashlib
import json
import os
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from ctkd.engine.output.checkpoint import write_text
from ctkd.errors import WorkdirError
from ctkd.files import LEFTOVER
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

    def __init__(self, path: pathlib.Path) -> None:
        """Only names the folder; `owned` makes it and takes hold of it."""
        self.path = path

    @contextlib.contextmanager
    def owned(self, wait: Callable[[str], None] | None = None) -> Iterator[None]:
        """Holds the folder for this process, making it if need be.

        With `wait` another owner is waited for (and told of, once).

        Raises:
            WorkdirError: another process owns it, it is no work directory, or it cannot be made or
                written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._refuse_strangers()  # before anything is written there
            lock = open(self.path / ".lock", "a+")  # noqa: SIM115
        except OSError as error:
            raise WorkdirError(
                f"cannot use the work directory {self.path}: {error.strerror}"
            ) from error
        with lock:
            while not try_lock(lock):
                lock.seek(0)
                owner = f"{self.path} is in use by process {lock.read().strip() or '(unknown)'}"
                if wait is None:
                    raise WorkdirError(f"{owner}: wait for it, or give another --workdir")
                wait(f"{owner}: waiting")
                wait = _silent
                time.sleep(0.5)
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            yield

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
                "give another --workdir, or begin again there with --fresh"
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
                "--workdir"
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
                f"{fingerprint} here; give the same, another --workdir (where it is a teacher that "
                "runs share: another Runtime.teachers_dir), or begin again with --fresh"
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
                f"{self.path / 'settings.json'} is not of ctkd: give another --workdir"
            )
        return settings

    def read_summary(self) -> dict[str, Any] | None:
        """The summary of a finished run, or None."""
        return self._read_json("summary.json")

    def _read_json(self, name: str) -> dict[str, Any] | None:
        path = self.path / name
        try:
            value: dict[str, Any] = json.loads(path.read_text())
            if not isinstance(value, dict):
                raise ValueError("it holds no object")
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise WorkdirError(
                f"{path} cannot be read: {error}; begin again with --fresh"
            ) from error
        return value

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
        with self.owned():
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
