"""Files that are replaced as a whole, and texts that a user's editor saved in its own way."""

import threading

import pytest

from ctkd.files import LEFTOVER, NotUTF8Error, read_text, replacing


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


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"\xef\xbb\xbfone\r\ntwo\r\n", "one\ntwo\n"),
        (b"one\rtwo", "one\ntwo"),
        (b"\xef\xbb\xbfone\n\xef\xbb\xbftwo\n", "one\ntwo\n"),  # two files joined
        ("größe \ufeff\n".encode(), "größe \ufeff\n"),
        (b"", ""),
    ],
)
def test_a_text_is_read_without_marks_and_with_plain_line_ends(tmp_path, content, text):
    (tmp_path / "list.txt").write_bytes(content)
    assert read_text(tmp_path / "list.txt") == text


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("a\nb".encode("utf-16"), "it is UTF-16 text, expected UTF-8"),
        ("a\nb".encode("utf-32"), "it is UTF-32 text, expected UTF-8"),
        (
            "a\nb".encode("utf-16-le"),
            "line 1: the byte 0x00 is not UTF-8 (UTF-16 text, or no text)",
        ),
        (b"a\nb\ncaf\xe9", "line 3: the byte 0xE9 is not UTF-8 (perhaps Latin-1"),
    ],
)
def test_other_encodings_are_named(tmp_path, content, expected):
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(NotUTF8Error) as caught:
        read_text(tmp_path / "list.txt")
    assert str(caught.value).startswith(expected)
    assert str(caught.value).endswith("as UTF-8")
