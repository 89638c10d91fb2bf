"""The report of a sweep: the table as CSV, and the page in a real headless browser."""

import contextlib
import csv
import html
import io
import json
import pathlib
import re
import shutil
import subprocess
import sys
from urllib.parse import unquote
from xml.etree import ElementTree

import pytest

from ctkd.commands import compare_runs as compare
from ctkd.commands import report_sweep as report

ROOT = pathlib.Path(__file__).parents[2]
BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = pytest.mark.xdist_group("report")  # one process for all: one report is drawn
AXES = ["method", "CosineLambda.end"]


def losses(peak):
    return [1.0 - 0.02 * abs(n - peak) for n in range(13)]


def write_run(folder, name, seed, last, learned, epochs=4):
    folder.mkdir(parents=True)
    settings = {
        "name": name,
        "method": {"Method.policy": "@GlobalTemperature" if learned else "@ConstantTemperature"},
        "recipe": {"Recipe.student": "@resnet20", "Teacher.network": "@resnet56",
                   "Recipe.dataset": "@cifar100", "Recipe.epochs": epochs},
        "seed": {"Seed.seed": seed},
        "runtime": {},
    }  # fmt: skip
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "config.gin").write_text("Seed.seed = 0\n")
    rows, fields = [], []
    for epoch in range(epochs + 1):
        t = 3.0 + 12.0 / (epoch + 1) if learned else 4.0
        fields.append({
            "epoch": epoch, "temperature": t, "t_star": 3.2, "loss_star": 1.0, "quantiles": None,
            "temperatures": [2.0 ** (n / 3) for n in range(13)], "losses": losses(5),
            "bounds": [1.0, 21.0] if learned else None, "regret": 0.0,
        })  # fmt: skip
        if epoch:
            rows.append({"epoch": epoch, "test_top1": last - (epochs - epoch), "temperature": t})
    for file, lines in (("metrics.jsonl", rows), ("landscape.jsonl", fields)):
        (folder / file).write_text("".join(json.dumps(line) + "\n" for line in lines))
    summary = {"finished": True, "primary": "test_top1", "last_top1": last, "best_top1": last + 0.3,
               "temperature": t, "epochs": epochs, "seed": seed, "name": name,
               "student": "resnet20", "dataset": "cifar100", "teacher": "resnet56"}  # fmt: skip
    (folder / "summary.json").write_text(json.dumps(summary))


def write_sweep(folder):
    """A sweep of KD and CTKD at three strengths, three seeds each; one run failed, one not sent."""
    cells = [("kd", {"method": "kd"}, 70.0)]
    cells += [
        (f"ctkd end={end}", {"method": "ctkd", AXES[1]: end}, 70.0 + gain)
        for end, gain in (("0.5", 0.5), ("1", 1.0), ("10", -0.5))
    ]
    saved, sent = [], []
    for name, labels, last in cells:
        for seed in range(3):
            key = f"{name.replace(' ', '_')}-seed{seed}"
            command = f"python -m ctkd.main --workdir={folder}/runs/{key}"
            saved.append({"key": key, "name": name, "label": name, "seed": seed, "labels": labels,
                          "files": [], "params": [], "command": command, "epochs": 4})  # fmt: skip
            if key == "ctkd_end=10-seed2":
                continue
            sent.append({"event": "sent", "cell": key, "cluster": "local", "job": None,
                         "again": False, "host": "h"})  # fmt: skip
            if key == "ctkd_end=10-seed1":
                failed = {"job": None, "state": "failed", "node": "n1",
                          "error": "loss was NaN </script><b>& more</b>"}  # fmt: skip
                (folder / "notes").mkdir()
                (folder / "notes" / f"{key}.json").write_text(json.dumps(failed))
                (folder / "jobs").mkdir()
                (folder / "jobs" / f"{key}.log").write_text("traceback\n")
                continue
            # The seeds have a common part, which pairing takes out, and a small one of their own.
            own = 0.01 * ((seed * 7 + len(name)) % 3)
            write_run(folder / "runs" / key, name, seed, last + 0.2 * seed + own, name != "kd")
    (folder / "sent.jsonl").write_text("".join(json.dumps(line) + "\n" for line in sent))
    sweep = {"name": "study", "axes": AXES, "baseline": {"method": "kd"}, "resources": {},
             "cells": saved}  # fmt: skip
    (folder / "sweep.json").write_text(json.dumps(sweep))
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Such a sweep with its report, which takes a second to draw; not to be changed."""
    folder = write_sweep(tmp_path_factory.mktemp("sweeps") / "study")
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert report.main([str(folder)]) == 0
    files = [str(folder / name) for name in ("report.html", "report.csv", "runs.csv")]
    assert out.getvalue().split() == files
    return folder


def test_the_csv_has_mean_std_and_the_paired_difference(made):
    rows = list(csv.DictReader((made / "report.csv").open()))
    assert [(row["method"], row[AXES[1]], row["n"]) for row in rows] == [
        ("kd", "", "3"), ("ctkd", "0.5", "3"), ("ctkd", "1", "3"), ("ctkd", "10", "1"),
    ]  # fmt: skip
    best = rows[2]
    assert float(best["last mean"]) == pytest.approx(71.2, abs=0.03)
    assert float(best["last std"]) == pytest.approx(0.2, abs=0.02)
    assert float(best["difference"]) == pytest.approx(1.0, abs=0.02)
    assert float(best["95 % interval low"]) > 0.9  # the seeds' common part is gone
    assert best["baseline"] == "kd"
    assert rows[0]["baseline"] == rows[0]["difference"] == ""
    assert rows[3]["state"] == "1 finished, 1 failed, 1 not sent"


def test_each_runs_summary_is_a_row_and_a_run_without_one_too(made):
    rows = list(csv.DictReader((made / "runs.csv").open()))
    assert len(rows) == 12
    finished = [row for row in rows if row["state"] == "finished"]
    assert len(finished) == 10
    assert all(float(row["last_top1"]) > 60 for row in finished)
    assert {row["seed"] for row in rows if row["cell"] == "kd"} == {"0", "1", "2"}
    assert {row["last_top1"] for row in rows if row["state"] != "finished"} == {""}


def test_the_page_needs_no_network_and_escapes_what_runs_wrote(made):
    page = (made / "report.html").read_text()
    urls = set(re.findall(r"https?://[^\"' )]+", page))
    assert urls == {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}  # namespaces
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=\"(?!data:)", page)
    assert "</script><b>" not in page


def test_the_page_opens_with_networks_and_a_verdict(made):
    page = (made / "report.html").read_text()
    about = re.search(r'<p class="about">(.*?)</p>', page)[1]
    assert about == "resnet56 → resnet20 · cifar100 · 4 epochs · 3 seeds"
    verdict = re.search(r'<p class="verdict">(.*?)</p>', page)[1]
    assert verdict.startswith("2 of 2 cells have a 95 % interval that excludes 0: ctkd end=1: +1.0")
    assert "Chance alone gives 0.1 of 2 on average." in verdict


def test_a_sweep_half_done_has_a_report_and_a_folder_of_something_else_has_none(tmp_path, capsys):
    sweep_dir = write_sweep(tmp_path / "sweeps" / "study")
    shutil.rmtree(sweep_dir / "runs")
    assert report.main([str(sweep_dir)]) == 0
    rows = list(csv.DictReader((sweep_dir / "report.csv").open()))
    assert [row["n"] for row in rows] == ["0"] * 4
    capsys.readouterr()
    assert report.main([str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        f"ctkd report: {tmp_path} is not a sweep's directory: it contains no sweep.json\n"
    )


def test_the_summaries_compare_as_the_work_directories_do(made, capsys):
    def compared(path):
        assert compare.main([str(path), "--baseline=kd", "--format=csv"]) == 0
        return list(csv.DictReader(capsys.readouterr().out.splitlines()))

    assert compared(made / "runs.csv") == compared(made / "runs")
    assert compare.main([str(made / "runs.csv"), str(made / "runs")]) == 2
    assert "compare work directories, or tables" in capsys.readouterr().err


def test_it_runs_from_a_clone(made):
    command = [sys.executable, str(ROOT / "tools" / "report.py"), str(made)]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def browse(tmp_path):
    """Opens a page; gives the document after its scripts have run, or writes a screenshot."""
    if BROWSER is None:
        pytest.skip("left out: no chromium is installed")

    def call(url, *flags, width=1280, height=900):
        command = [
            BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
            "--no-first-run", "--disable-background-networking", "--disable-component-update",
            "--disable-sync", "--hide-scrollbars", "--allow-file-access-from-files",
            "--enable-logging=stderr", f"--user-data-dir={tmp_path / 'browser'}",
            f"--window-size={width},{height}", "--virtual-time-budget=5000", *flags, url,
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        complaints = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
        assert complaints == []
        return done.stdout

    return call


def rows_of(document):
    """The texts of the table's rows, cell by cell."""
    bodies = re.findall(r"<tbody (?:(?!hidden).)*?>.*?</tbody>", document, re.DOTALL)
    rows = [re.search(r'<tr class="cell.*?</tr>', body, re.DOTALL)[0] for body in bodies]
    return [
        [html.unescape(re.sub(r"<.*?>", "", cell)) for cell in re.findall(r"<td.*?</td>", row)]
        for row in rows
    ]


@pytest.mark.slow
def test_the_browser_shows_table_charts_and_temperatures(made, browse):
    document = browse(f"file://{made}/report.html", "--dump-dom")
    rows = rows_of(document)
    assert [row[0] for row in rows] == ["kd", "ctkd end=0.5", "ctkd end=1", "ctkd end=10"]
    assert "baseline" in rows[0]
    assert any(cell.startswith("+1.0") for cell in rows[2])
    assert document.count("<figure") == 1 + 2 + 4  # learning curves, two parameters, four cells
    assert document.count('download="') == 1 + 2 + 4  # each with a link to save it
    assert document.count("data:image/png") == 4  # the landscapes
    assert "8 finished" not in document
    assert "10 finished" in document
    assert "1 failed" in document


@pytest.mark.slow
def test_it_sorts_and_filters(made, browse):
    def shown(hash):
        return [
            row[0] for row in rows_of(browse(f"file://{made}/report.html#{hash}", "--dump-dom"))
        ]

    assert shown("sort=-last") == ["ctkd end=1", "ctkd end=0.5", "kd", "ctkd end=10"]
    assert shown("sort=last")[0] == "ctkd end=10"
    ends = ["ctkd end=10", "ctkd end=1", "ctkd end=0.5", "kd"]  # as numbers
    assert shown("sort=-CosineLambda.end") == ends
    assert shown("search=0.5") == ["ctkd end=0.5"]
    assert shown("method=kd") == ["kd"]
    assert shown("state=failed") == ["ctkd end=10"]


@pytest.mark.slow
def test_a_row_opens_to_errors_logs_and_configuration(made, browse, tmp_path):
    page = made / "report.html"
    opened = made / "opened.html"
    click = "<script>document.querySelectorAll('tr.cell')[3].click();"
    click += "document.querySelector('a.save').onclick()</script></body>"
    opened.write_text(page.read_text().replace("</body>", click))
    document = browse(f"file://{opened}", "--dump-dom")
    detail = re.findall(r'<tr class="detail">.*?</tr>', document, re.DOTALL)
    assert len(detail) == 1
    links = re.findall(r'<a href="([^"]+)"', detail[0])
    assert "runs/ctkd_end=10-seed0/config.gin" in links
    assert "jobs/ctkd_end=10-seed1.log" in links
    assert all((made / link).is_file() for link in links)
    assert "loss was NaN &lt;/script&gt;&lt;b&gt;&amp; more&lt;/b&gt;" in document
    assert "python -m ctkd.main --workdir=" in detail[0]
    saved = re.search(
        r'download="learning_curves.svg" href="data:image/svg[^,]+,([^"]+)"', document
    )[1]
    assert ElementTree.fromstring(unquote(saved)).tag.endswith("svg")


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_overflows_on_a_desk_or_a_phone(made, browse, width, tmp_path):
    frame = tmp_path / "frame.html"
    frame.write_text(
        f'<body><iframe src="file://{made}/report.html" style="border:0;width:{width}px;'
        'height:2400px"></iframe><script>document.querySelector("iframe").onload = (event) => {'
        "const page = event.target.contentDocument.documentElement;"
        'document.body.append("width " + page.scrollWidth + " of " + page.clientWidth);};</script>'
    )
    document = browse(f"file://{frame}", "--dump-dom", width=1400, height=2500)
    assert f"width {width} of {width}" in document
    picture = tmp_path / "page.png"
    browse(f"file://{made}/report.html", f"--screenshot={picture}", width=width, height=1600)
    assert picture.stat().st_size > 20_000
