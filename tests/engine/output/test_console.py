"""What a user sees: plain lines in a log, a live view on a terminal."""

import contextlib
import os
import pty
import re
import sys
import threading
import time

import pytest

from ctkd.engine.output import console as console_module
from ctkd.engine.output.console import Console
from ctkd.engine.output.live_view import LiveView

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def test_in_a_log_there_is_one_plain_line_an_epoch(train):
    out = train("ctkd").result.out
    lines = [line for line in out.splitlines() if line.startswith("epoch")]
    assert [line.split()[1] for line in lines] == ["1/3", "2/3", "3/3"]
    for line in lines:
        for label in ("loss ", "test ", " % ", "T ", "T* ", "λ ", "lr "):
            assert label in line
    assert not ESCAPES.search(out)
    assert "\r" not in out


def test_at_the_end_there_is_a_table_and_the_paths_of_what_was_written(train):
    run = train("ctkd", "digits.validation = 50")
    out = run.result.out
    for name in ("last_top1", "best_top1", "chosen_top1", "teacher_top1"):
        assert re.search(rf"{name.replace('_', ' ')} +│ +{run.summary[name]:.2f} %", out)
    listed = re.findall(r"^  (\S+\.\w+) +\S", out.partition("files in run:\n")[2], re.MULTILINE)
    assert {"summary.json", "student_last.pt", "config.gin"} <= set(listed)
    assert all((run.path / name).is_file() for name in listed)
    assert out.endswith("open first: run/summary.json\n")  # figures are not drawn in tests


def test_numbers_that_a_run_does_not_have_are_left_out(train):
    out = train("vanilla").result.out
    (line,) = (line for line in out.splitlines() if line.startswith("epoch 1/3"))
    assert "T" not in line
    assert "λ" not in line
    assert "None" not in out


@pytest.mark.parametrize(
    ("offered", "line"),
    [
        ({}, "test_psnr 31.42"),
        ({"labels": {"test_psnr": "PSNR", "ap/person": "person"}}, "PSNR 31.42  person  12.35 %"),
    ],
)
def test_a_tasks_own_metric_is_shown_under_its_own_name_and_unit(capsys, offered, line):
    task = type("Task", (), {"monitor": "test_psnr", "labels": {}, **offered})()
    record = {"epoch": 1, "train_loss": 0.5, "test_psnr": 31.4159, "ap/person": 12.345}
    Console().epoch(record, 20, task)
    assert capsys.readouterr().out == f"epoch  1/20  loss  0.5000  {line}\n"


@pytest.mark.parametrize(
    ("speed", "text"), [(12345.6, "12,346"), (42.4, "42"), (3.14159, "3.14"), (0.04, "0.04")]
)
def test_a_slow_run_has_a_speed(capsys, speed, text):
    task = type("Task", (), {"monitor": "test_top1", "labels": {}})()
    Console().epoch({"epoch": 1, "tokens_per_s": speed}, 1, task)
    assert capsys.readouterr().out == f"epoch 1/1  {text} tokens/s\n"


def test_a_long_path_stays_on_one_line(capsys):
    Console().say("/a" * 300)
    assert capsys.readouterr().out == "/a" * 300 + "\n"


def test_brackets_are_no_markup(capsys):
    Console("  [red] | ").say("SGD.milestones = [0.6, 0.8] [bold]")
    assert capsys.readouterr().out == "  [red] | SGD.milestones = [0.6, 0.8] [bold]\n"


def test_a_warning_is_printed_once_on_standard_error(capsys):
    console = Console()
    for text in ("T was at its bound", "T was at its bound", "another"):
        console.warn(text)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "warning: T was at its bound\nwarning: another\n"


@pytest.fixture
def terminal(train, monkeypatch):
    """Trains with standard output on a pseudo-terminal; what was written there."""

    def call(method, *bindings, columns="220"):
        reader, writer = pty.openpty()
        written = []

        def listen():
            with contextlib.suppress(OSError):  # the other end is closed
                while chunk := os.read(reader, 65536):
                    written.append(chunk)

        listener = threading.Thread(target=listen)
        listener.start()
        monkeypatch.setattr(console_module, "REFRESH", 0.0)
        monkeypatch.setenv("TERM", "xterm-256color")
        monkeypatch.setenv("COLUMNS", columns)
        with open(writer, "w", encoding="utf-8") as screen, monkeypatch.context() as patched:
            patched.setattr(sys, "stdout", screen)
            train(method, *bindings)
        listener.join()
        os.close(reader)
        return b"".join(written).decode()

    return call


def test_on_a_terminal_there_is_a_live_view(terminal):
    written = terminal("ctkd", "epochs = 12")
    assert ESCAPES.search(written)
    text = ESCAPES.sub("", written)
    assert re.search(r"ctkd .*%.*\d:\d\d:\d\d", text)  # a bar, time gone, time left
    for label in ("images/s", "loss ", "kd ", "T ", "λ ", "lr ", "best "):
        assert label in text, label
    # The lines of the log are there as well, and stay.
    assert [int(n) for n in re.findall(r"epoch +(\d+)/12 ", text)] == list(range(1, 13))
    assert "│" in text


def test_a_narrow_terminal_drops_whole_columns(terminal):
    text = ESCAPES.sub("", terminal("ctkd", "Runtime.figures = True", columns="80"))
    lines = [line.rstrip() for line in re.split(r"[\r\n]+", text) if line.startswith("epoch")]
    kept = [line for line in lines if re.match(r"epoch \d/3  loss", line)]
    assert len(kept) == 3
    assert all(
        len(line) <= 80 and " test " in line and " T* " in line for line in lines if "T*" in line
    )
    assert "…" not in "".join(line for line in text.splitlines() if "%" in line)
    for phase in ("evaluating the teacher", "evaluating the student", "drawing the figures"):
        assert phase in text


def test_the_bar_counts_the_batches_of_an_evaluation(terminal, monkeypatch):
    counted, real = [], LiveView.count

    def count(view, done, total):
        real(view, done, total)
        bar = view._bars.tasks[-1]
        counted.append((bar.percentage, bar.fields["numbers"]))

    monkeypatch.setattr(LiveView, "count", count)
    terminal("ctkd", columns="80")
    one = [(50, " 1 of 2 batches"), (100, " 2 of 2 batches")]
    phases = ["teacher", *["student"] * 3]
    assert counted == [(at, f"evaluating the {who} {n}") for who in phases for at, n in one]


def test_a_warning_does_not_break_the_live_view(terminal):
    text = ESCAPES.sub("", terminal("ctkd", "GlobalTemperature.raw_init = -9.0"))
    assert text.count("warning: T was at its lower bound 1 for the whole epoch") == 1


def test_a_look_at_the_device_is_taken_only_now_and_then(monkeypatch):
    """Between two looks nothing is read back, since that would wait for the device."""
    console, looks = Console(), []

    class Meter:
        losses = ()

        def read(self):
            looks.append(time.monotonic())
            return {}

    class Progress:
        steps, train_seconds, timed_images, best = 1, 0.0, 0, {}

    class View:
        def step(self, *_): ...

    console._view = View()
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    for _ in range(100):
        now[0] += 0.02
        console.step(Progress, Meter(), 0.1, None)
    assert len(looks) == 4  # in two seconds
