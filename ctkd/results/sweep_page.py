"""A sweep as one HTML page that needs nothing else: table, charts, temperatures, links."""

import base64
import json
import os
import time
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from ctkd.results.compare.statistics import MeanStd
from ctkd.results.compare.sweep_table import SweepCell, SweepRun, notes
from ctkd.results.figures.draw_landscape import bounds_of, normalised_losses
from ctkd.results.read.runs import RunRecord, pick

SCRIPTS = ("sweep_charts.js", "sweep_page.js")
POINTS = 120  # of a curve: more are not seen at a card's size
COLUMNS = 90  # of a landscape


def sweep_page(
    name: str, axes: Sequence[str], cells: Sequence[SweepCell], folder: Path, made: float
) -> str:
    """The page's text; links are relative to `folder`, in which the page is meant to lie.

    `made` is the time that the page tells it was made at, in seconds since 1970.
    """
    data = {
        "name": name,
        "made": time.strftime("%Y-%m-%d %H:%M", time.localtime(made)),
        "axes": list(axes),
        "notes": notes(cells),
        "cells": [_cell(cell, folder) for cell in cells],
    }
    text = json.dumps(data, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    here = files("ctkd.results")
    page = (here / "sweep_page.html").read_text(encoding="utf-8")
    scripts = [(here / name).read_text(encoding="utf-8") for name in SCRIPTS]
    parts = {
        "/*STYLE*/": (here / "sweep_page.css").read_text(encoding="utf-8"),
        "/*SCRIPT*/": "\n".join(scripts),
        # "</script>" in an error message must not end the element that holds the data.
        "/*DATA*/": text.replace("<", "\\u003c"),
        "<!--NAME-->": _escaped(name),
    }
    for mark, part in parts.items():
        page = page.replace(mark, part, 1)
    return page


def _cell(cell: SweepCell, folder: Path) -> dict[str, Any]:
    against, published = cell.against, cell.published
    told = next((r for _, r in sorted(cell.records.items()) if r.landscape), None)
    return {
        "name": cell.name,
        "labels": dict(cell.labels),
        "state": cell.state,
        "n": len(cell.values("last")),
        "last": _spread(cell.summary("last")),
        "chosen": _spread(cell.summary("chosen")),
        "best": _spread(cell.summary("best")),
        "T": _spread(cell.temperature),
        "baseline": cell.baseline,
        "difference": against.difference if against else None,
        "interval": list(against.interval) if against and against.interval else None,
        "p": against.p_value if against else None,
        "shared": against.n if against else None,
        "published": [published.value, published.source, published.reports] if published else None,
        "landscape": _landscape(told) if told else None,
        "runs": [_run(run, cell.records.get(run.seed), folder) for run in cell.runs],
    }


def _spread(value: MeanStd | None) -> list[float | None] | None:
    return None if value is None else [value.mean, value.std]


def _run(run: SweepRun, record: RunRecord | None, folder: Path) -> dict[str, Any]:
    links = {
        "configuration": run.path / "config.gin",
        "log": run.log,
        "curves": run.path / "curves.png",
        "landscape": run.path / "landscape.png",
        "metrics": run.path / "metrics.jsonl",
    }
    told: dict[str, Any] = {
        "seed": run.seed,
        "state": run.state,
        "epochs": run.epochs,
        "epoch": record.metrics[-1]["epoch"] if record and record.metrics else 0,
        "error": run.error,
        "command": run.command,
        "links": {
            kind: os.path.relpath(path, folder)
            for kind, path in links.items()
            if path is not None and path.exists()
        },
    }
    if record is not None:
        told["accuracy"] = _curve(record.metrics, record.primary)
        told["temperature"] = _curve(record.landscape, "temperature")
        told["star"] = _curve(record.landscape, "t_star")
        told["last"] = record.told(f"last_{record.measure}")
    return told


def _curve(rows: list[dict[str, Any]], key: str) -> list[list[float]]:
    """Points (epoch, value), thinned out, the last one kept."""
    epochs, values = pick(rows, key)
    return [[float(epochs[i]), round(float(values[i]), 4)] for i in _thinned(len(epochs), POINTS)]


def _thinned(count: int, most: int) -> list[int]:
    """At most `most` places of `count`, evenly, the first and last among them."""
    if count <= most:
        return list(range(count))
    return sorted({round(i * (count - 1) / (most - 1)) for i in range(most)})


def _landscape(record: RunRecord) -> dict[str, Any]:
    """L(T) / max L of a run: a byte for each epoch and temperature, from `floor` to 1."""
    import numpy as np

    rows = [record.landscape[i] for i in _thinned(len(record.landscape), COLUMNS)]
    epochs, grid, table = normalised_losses(rows)
    finite = np.isfinite(table)
    floor = float(table[finite].min()) if finite.any() else 0.0
    scaled = np.where(finite, (table - floor) / max(1e-9, 1.0 - floor), 0.0)
    return {
        "seed": record.seed,
        "epochs": [float(epoch) for epoch in epochs],
        "temperatures": [float(value) for value in grid],
        "floor": round(floor, 4),
        "bounds": list(bounds_of(rows)),
        "bytes": base64.b64encode(np.round(255 * scaled).astype(np.uint8).tobytes()).decode(),
    }


def _escaped(text: str) -> str:
    table: Mapping[str, str] = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"}
    return "".join(table.get(character, character) for character in text)
