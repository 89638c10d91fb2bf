"""Output that cannot be written, or not in its encoding: messages suffer, runs do not."""

import io
import os
import subprocess
import sys

import pytest

from ctkd.errors import OutputError
from ctkd.standard_output import SafeStream, check_output, output_fault, safe_output

needs_full = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")


class Full(io.StringIO):
    """A stream on a full disk."""

    def write(self, text):
        raise OSError(28, "No space left on device")


def stream(encoding):
    return io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="\n")


def written(wrapper):
    wrapper.flush()
    return wrapper.buffer.getvalue().decode(wrapper.encoding)


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("utf-8", "λ 1 ± 0.5 → ≥ é 中"),
        ("latin-1", "lambda 1 ± 0.5 -> >= é \\u4e2d"),
        ("ascii", "lambda 1 +- 0.5 -> >= \\xe9 \\u4e2d"),
    ],
)
def test_characters_that_an_encoding_lacks_are_spelled(encoding, expected):
    inner = stream(encoding)
    SafeStream(inner).write("λ 1 ± 0.5 → ≥ é 中")
    assert written(inner) == expected


def test_a_file_name_that_is_not_utf8_can_be_printed():
    inner = stream("utf-8")
    SafeStream(inner).write(os.fsdecode(b"/data/\xff"))
    assert written(inner) == "/data/\\udcff"


def test_what_a_stream_was_before_it_is_afterwards(capsys):
    before = sys.stdout, sys.stderr
    with safe_output():
        inside = sys.stdout
        with safe_output():
            assert sys.stdout is inside
        print("one")
    assert (sys.stdout, sys.stderr) == before
    assert capsys.readouterr().out == "one\n"


def test_a_command_whose_product_is_lost_fails(monkeypatch):
    monkeypatch.setattr(sys, "stdout", Full())
    with safe_output():
        print("a table")
        assert output_fault().strerror == "No space left on device"
        with pytest.raises(OutputError, match=r"cannot be written \(No space left on device\)"):
            check_output()


def test_a_closed_stream_loses_lines_only(monkeypatch):
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    with safe_output():
        print("a message", file=sys.stderr)


@pytest.fixture
def shell(tmp_path, environment):
    """Runs a shell command, `PYTHON` in it being this interpreter; the completed process."""

    def call(text, **more):
        done = subprocess.run(
            ["bash", "-c", text.replace("PYTHON", sys.executable)],
            cwd=tmp_path,
            env={**environment, **more},
            capture_output=True,
            timeout=300,
        )
        assert b"Traceback" not in done.stderr + done.stdout, done.stderr
        assert b"Exception ignored" not in done.stderr
        return done

    return call


@pytest.mark.parametrize(
    ("redirection", "status"),
    [
        pytest.param(">/dev/full", 2, marks=needs_full),
        (">&-", 0),
        (">&- 2>&-", 0),
        ("| head -1; exit ${PIPESTATUS[0]}", 0),
    ],
)
@pytest.mark.parametrize("program", ["-m ctkd.main --help", "-m ctkd.sweeps --help"])
def test_help_on_any_output(shell, program, redirection, status):
    done = shell(f"PYTHON {program} {redirection}")
    assert done.returncode == status
    assert (b"standard output cannot be written" in done.stderr) == (status == 2)


@pytest.mark.parametrize("redirection", [pytest.param("2>/dev/full", marks=needs_full), "2>&-"])
def test_a_mistake_has_its_status_without_a_reader_of_the_message(shell, redirection):
    done = shell(f"PYTHON -m ctkd.main --no_such_flag {redirection}")
    assert (done.returncode, done.stdout) == (2, b"")


def test_a_message_in_ascii(shell):
    command = (
        "PYTHON -m ctkd.main --gin_file=gin/digits/ctkd.gin --gin_param Method.schedule=None"
        " --dry_run"
    )
    done = shell(command, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert done.returncode == 2
    assert b"a learned temperature needs a schedule of lambda, such as" in done.stderr


TINY = (
    "PYTHON -m ctkd.main --gin_file=gin/digits/ctkd.gin --gin_param epochs=1 --gin_param "
    "steps_per_epoch=1 --gin_param Runtime.tensorboard=False --gin_param Runtime.figures=False "
    "--workdir=run "
)


@pytest.fixture
def tiny(shell, teacher_file, tmp_path):
    """Trains one step in a process of its own; the completed process, and whether it finished."""

    def call(redirection="", **more):
        weights = f'--gin_param "teacher_weights = {str(teacher_file)!r}" '
        done = shell(TINY + weights + redirection, **more)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "run" / "summary.json").is_file()
        return done

    return call


def test_a_run_prints_lambda_in_words_where_it_must(tiny):
    done = tiny(LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    out = done.stdout.decode("ascii")
    assert " lambda 0.024 " in out
    assert "| last top1 " in out


@pytest.mark.slow(traced=True)
@needs_full
def test_a_run_survives_a_full_output_and_says_so(tiny):
    done = tiny(">/dev/full")
    text = (
        b"warning: standard output cannot be written (No space left on device); the run continues"
    )
    assert done.stderr.count(text) == 1


@pytest.mark.slow(traced=True)
def test_a_run_survives_a_closed_output(tiny, tmp_path):
    """No file of the run may get the number of standard output, into which libraries print.

    Standard error is a pipe without a reader.
    """
    tiny(">&- 2> >(true)")
    assert (tmp_path / "run" / "config.gin").read_text(encoding="utf-8").startswith("# ")
