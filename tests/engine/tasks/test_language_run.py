"""A run on text, as a user starts one: its files, its identity, and its resumption."""

import json

import pytest
import torch

WORDS = "a token is a row of logits and the next token is its class ".split()


@pytest.fixture
def language(command, tmp_path):
    """Trains a tiny student on text files: language("ctkd", …) -> the folder and the result."""
    folder = tmp_path / "texts"
    folder.mkdir()
    for n in range(6):
        (folder / f"{n}.txt").write_text(" ".join(WORDS[n % 5 :] + WORDS) * 4)
    small = [
        *("epochs = 2", "steps_per_epoch = 4", "Recipe.dataset = @text_files", "threads = 1"),
        *("text_files.context = 16", "decoder.width = 8", "decoder_teacher.width = 8"),
        *(
            "decoder.depth = 1",
            "decoder_teacher.depth = 1",
            "decoder.heads = 2",
            "decoder_teacher.heads = 2",
            "Runtime.tensorboard = False",
            "Runtime.figures = False",
        ),
        *(
            "Instrument.points = 9",
            "Instrument.probe_size = 2",
            f"text_files.data_dir = '{folder}'",
        ),
    ]
    teacher = tmp_path / "teacher.gin"
    lines = [line for line in small if not line.startswith("Instrument")]
    teacher.write_text("include 'gin/language/teacher.gin'\n" + "\n".join(lines) + "\n")

    def call(method, *bindings, workdir="run", status=0):
        given = [*small, f"Teacher.run = '{teacher}'", *bindings]
        if method in ("vanilla", "teacher"):
            given = [line for line in given if "eacher" not in line and "Instrument" not in line]
        flags = [f"--gin_param={line}" for line in given]
        result = command(f"--gin_file=gin/language/{method}.gin", *flags, f"--workdir={workdir}")
        assert result.status == status, result.err
        return tmp_path / workdir, result

    return call


def test_a_run_reports_bits_per_byte_and_resumes_to_the_same_bits(language, monkeypatch):
    from ctkd.engine.train import Trainer

    real = Trainer.train_step

    def stop(self, batch):
        real(self, batch)
        if self.progress.steps == 6 and self.distiller.learned:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "train_step", stop)
        language("ctkd", "Runtime.checkpoint_steps = 3", workdir="cut", status=130)
    cut, _ = language("ctkd", "Runtime.checkpoint_steps = 3", workdir="cut")
    whole, result = language("ctkd", workdir="whole")
    one, two = (torch.load(f / "student_last.pt", weights_only=True) for f in (cut, whole))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert "bits per byte" in result.out
    assert "tokens/s" in result.out
    samples = (whole / "continuations.txt").read_text()
    assert samples.count(">>> ") == 3
    *_, landscape = map(json.loads, (whole / "landscape.jsonl").read_text().splitlines())
    assert {*landscape["kinds"]} == {"frequency", "piece of a word", "teacher entropy"}
    assert sum(g["rows"] for g in landscape["kinds"]["teacher entropy"].values()) == 32
    summary = json.loads((whole / "summary.json").read_text())
    last = json.loads((whole / "metrics.jsonl").read_text().splitlines()[-1])
    assert summary["primary"] == "test_bits_per_byte"
    assert summary["lower_is_better"] is True
    assert summary["last_bits_per_byte"] == last["test_bits_per_byte"]
    assert summary["best_bits_per_byte"] <= summary["last_bits_per_byte"]
    assert {"test_loss", "test_perplexity", "test_agreement", "test_kl", "tokens_per_s"} <= {*last}
    assert "images_per_s" not in {*summary, *last}
    assert summary["teacher_bits_per_byte"] > 0


def test_a_network_that_is_no_language_model_is_refused(language):
    _, result = language("vanilla", "student = @resnet8", status=2)
    assert "no language model: choose a network such as @decoder" in result.err


def test_a_teacher_above_its_limit_is_refused(language):
    _, result = language("kd", "Teacher.min_accuracy = 0.5", "steps_per_epoch = None", status=2)
    assert "above Teacher.min_accuracy = 0.5" in result.err


def test_a_teacher_of_bpe_teaches_a_student_of_bytes(language, tmp_path, monkeypatch):
    pytest.importorskip("tokenizers")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    two = ("Alignment.tokenizer = 'bpe'", "Alignment.vocabulary = 300")
    _, result = language("prefix_bytes", *two, status=2)
    assert "the tokenizer is bytes in Teacher.run, and byte-level BPE of 300 tokens" in result.err
    with (tmp_path / "teacher.gin").open("a") as file:
        file.write("text_files.tokenizer = 'bpe'\ntext_files.vocabulary = 300\n")
    _, result = language("kd", workdir="one", status=2)
    assert "For a teacher with another vocabulary set Alignment.tokenizer" in result.err
    folder, result = language("prefix_bytes", *two, workdir="two")
    assert "of the student's rows have a partner among its rows" in result.out
    last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    assert {"train_kd", "train_ce", "train_ce_unpaired", "t_star"} <= {*last}
    assert "test_agreement" not in last
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["teacher_bits_per_byte"] > 0
    assert 0 <= summary["teacher_prefix_ends"] <= 100
