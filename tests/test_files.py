"""Files that are replaced whole."""

import threading

import pytest

from ctkd.files import LEFTOVER, replacing


def test_a_file_is_the_old_one_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "summary.json"
    for text in ("first", "second"):
        with replacing(path) as part:
            part.write_text(text)
            assert path.exists() == (text == "second")
        assert path.read_text() == text
    assert list(tmp_path.iterdir()) == [path]


def test_after_an_error_nothing_has_changed(tmp_path):
    path = tmp_path / "summary.json"
    path.write_text("first")

    def fail(part):
        part.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), replacing(path) as part:
        fail(part)
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_kill_would_leave_is_known_for_that(tmp_path):
    with replacing(tmp_path / "curves.png") as part:
        part.touch()
        assert LEFTOVER.fullmatch(part.name)
    for whole in ("summary.json", ".keep", ".lock", ".curves.png", ".notes.2.tmp"):
        assert not LEFTOVER.fullmatch(whole)


def test_two_threads_write_one_file(tmp_path):
    path, met = tmp_path / "table.csv", threading.Barrier(2)

    def write(text):
        with replacing(path) as part:
            part.write_text(text)
            met.wait(30)  # both are half through

    threads = [threading.Thread(target=write, args=(text,)) for text in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text() in ("one", "two")
    assert list(tmp_path.iterdir()) == [path]
