"""A run's work directory: whose it is, who holds it, and what lies in it."""

import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from ctkd.engine.checkpoint import write_text
from ctkd.errors import WorkdirError

IDENTITY = ("method", "recipe", "seed")  # the sets of settings that resuming needs equal
FINGERPRINT = "Teacher.fingerprint"
Settings = dict[str, dict[str, Any]]


def identity_of(settings: Settings) -> str:
    """A hash of the three sets of settings that make a run this run and no other.

    The fingerprint of the teacher's weights is left out: it is known only once they are loaded.
    """
    parts = {key: settings[key] for key in IDENTITY}
    parts["recipe"] = {k: v for k, v in parts["recipe"].items() if k != FINGERPRINT}
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

        The lock is the kernel's record lock: it goes with this process however it ends, and forked
        children do not inherit it. With `wait` another owner is waited for (and told of, once).

        Raises:
            WorkdirError: another process owns it, or it cannot be made or written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = open(self.path / ".lock", "a+")  # noqa: SIM115
        except OSError as error:
            raise WorkdirError(
                f"cannot use the work directory {self.path}: {error.strerror}"
            ) from error
        with lock:
            while not self._try(lock.fileno()):
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

    @staticmethod
    def _try(descriptor: int) -> bool:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def claim(self, settings: Settings, config: str) -> None:
        """Writes the settings and `config.gin` if the folder is new; else compares.

        Raises:
            WorkdirError: it belongs to another method, recipe or seed.
        """
        for leftover in self.path.rglob(".*.tmp"):  # of a process killed while it wrote
            leftover.unlink(missing_ok=True)
        saved = self.read_settings()
        if saved is None:
            strangers = [entry.name for entry in self.path.iterdir() if entry.name != ".lock"]
            if strangers:
                names = ", ".join(sorted(strangers)[:5])
                raise WorkdirError(f"{self.path} is no work directory of ctkd: it holds {names}")
        else:
            if FINGERPRINT in saved["recipe"]:  # not known again before the teacher is loaded
                settings["recipe"][FINGERPRINT] = saved["recipe"][FINGERPRINT]
            different = differences(settings, saved)
            if different:
                lines = "\n  ".join(different)
                raise WorkdirError(
                    f"{self.path} belongs to another run:\n  {lines}\n"
                    "give another --workdir, or begin again there with --fresh"
                )
        self.write_settings(settings)
        write_text(self.path / "config.gin", config)

    def claim_teacher(self, settings: Settings, fingerprint: str) -> None:
        """Adds the fingerprint of the teacher's weights to the recipe, or compares it.

        Raises:
            WorkdirError: the run was begun with another teacher.
        """
        begun_with = settings["recipe"].setdefault(FINGERPRINT, fingerprint)
        if begun_with != fingerprint:
            raise WorkdirError(
                f"{self.path} was begun with another teacher: its weights' fingerprint is "
                f"{begun_with} there, {fingerprint} here; give the same weights, another "
                "--workdir, or begin again with --fresh"
            )
        self.write_settings(settings)

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
        return settings

    def read_summary(self) -> dict[str, Any] | None:
        """The summary of a finished run, or None."""
        return self._read_json("summary.json")

    def _read_json(self, name: str) -> dict[str, Any] | None:
        path = self.path / name
        try:
            value: dict[str, Any] = json.loads(path.read_text())
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
            WorkdirError: another process owns it, or it cannot be renamed.
        """
        if not self.path.exists():
            return None
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
