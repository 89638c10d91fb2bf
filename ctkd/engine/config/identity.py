"""The identity of a run: the settings and sources that resuming and comparing need equal."""

import hashlib
import json
from typing import Any

IDENTITY = ("method", "recipe", "seed")  # the sets of settings that resuming needs equal
TEACHER, DATA = "Teacher.fingerprint", "Dataset.fingerprint"
# Fingerprints of what a run is trained on; known only after teacher and data are read.
SOURCES = {TEACHER: "teacher", DATA: "data set"}
Settings = dict[str, dict[str, Any]]


def identity_of(settings: Settings) -> str:
    """A hash of method, recipe and seed, without the fingerprints of data and teacher."""
    parts = {key: settings[key] for key in IDENTITY}
    parts["recipe"] = {k: v for k, v in parts["recipe"].items() if k not in SOURCES}
    text = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def differences(one: Settings, other: Settings, sets: tuple[str, ...] = IDENTITY) -> list[str]:
    """The settings in which two runs differ, one line each: `other` is there, `one` is here."""
    lines = []
    for key in sets:
        ours, theirs = one.get(key, {}), other.get(key, {})
        for name in sorted(ours.keys() | theirs.keys()):
            here, there = ours.get(name, "not set"), theirs.get(name, "not set")
            if here != there:
                lines.append(f"{name} = {there!r} there, {here!r} here")
    return lines
