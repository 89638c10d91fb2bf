"""A step of KD on tokens: ours, dense and in blocks of rows, against Hugging Face's Trainer."""

import copy
import itertools
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ctkd.benchmarks.timing import Section, Work, in_turns, quartiles, ratios, spelled
from ctkd.engine.config.run import Run
from ctkd.engine.job import Job
from ctkd.engine.output.console import Console
from ctkd.engine.output.workdir import Workdir
from ctkd.engine.prepare import Prepared, prepare
from ctkd.engine.train import Trainer
from ctkd.models.language_model import TokenInputs
from ctkd.results.compare.tables import Column, Table

BATCH, CONTEXT, VOCABULARY, T = 16, 128, 4096, 2.0
SETTINGS = [
    *("python_topics.tokenizer = 'bpe'", f"python_topics.vocabulary = {VOCABULARY}"),
    *(f"python_topics.context = {CONTEXT}", f"batch_size = {BATCH}", "decoder.width = 128"),
    *("decoder_teacher.depth = 4", "decoder_teacher.width = 256", "Language.continuations = 0"),
    f"ConstantTemperature.temperature = {T}",
]
HUGGING_FACE, DENSE, BLOCKS = "Hugging Face's Trainer", "ours, dense", "ours, blocks of {} rows"


class OurTokens:
    """The engine's Trainer, and an endless stream of batches."""

    def __init__(self, folder: Path, settings: list[str]) -> None:
        """Random weights: speed does not depend on them."""
        job = Job(["gin/language/kd.gin"], [*SETTINGS, *settings], str(folder))
        run: Run = job.build()
        weights = folder / "teacher.pt"
        assert run.teacher_network is not None
        torch.save(run.teacher_network.state_dict(), weights)
        job = Job(
            job.gin_files, [*job.gin_params, f"teacher_weights = {str(weights)!r}"], job.workdir
        )
        console = Console(quiet=True)
        self.prepared: Prepared = prepare(job.build(), Workdir(folder), console)
        self.trainer = Trainer(self.prepared, Workdir(folder), console)
        self.trainer.set_position()
        self.trainer.student.train()
        task = self.prepared.task
        self._batches = (b for k in itertools.count(1) for b in task.batches(k, 0))

    def __call__(self) -> None:
        """One step."""
        self.trainer.train_step(next(self._batches))


class _Plain(nn.Module):
    """A network as Trainer calls it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, input_ids: torch.Tensor, labels: torch.Tensor | None = None) -> Any:
        return {"logits": self.network(TokenInputs(input_ids)).unflatten(0, input_ids.shape)}


def hugging_face(prepared: Prepared, folder: Path) -> Work:
    """A step of `transformers.Trainer` with the KD loss of its documentation.

    Only `training_step`, clipping and AdamW are timed, on batches that are on the device: Trainer's
    own loop and data loader come on top.
    """
    from transformers import Trainer as HFTrainer
    from transformers import TrainingArguments

    student = _Plain(copy.deepcopy(prepared.run.student))
    assert prepared.run.teacher_network is not None
    teacher = _Plain(prepared.run.teacher_network)

    class Distiller(HFTrainer):  # type: ignore[misc]
        def compute_loss(self, model: Any, inputs: Any, *rest: Any, **more: Any) -> Any:
            student_logits = model(**inputs)["logits"][:, :-1].flatten(0, 1)
            with torch.no_grad():
                teacher_logits = teacher(**inputs)["logits"][:, :-1].flatten(0, 1)
            soft_teacher = F.softmax(teacher_logits / T, dim=-1)
            soft_student = F.log_softmax(student_logits / T, dim=-1)
            kd = F.kl_div(soft_student, soft_teacher, reduction="batchmean") * T**2
            ce = F.cross_entropy(student_logits, inputs["labels"][:, 1:].flatten())
            return 0.5 * ce + 0.5 * kd

    on_cpu = prepared.device.type == "cpu"
    arguments = TrainingArguments(str(folder), use_cpu=on_cpu, report_to=[], disable_tqdm=True)
    trainer: Any = Distiller(student, arguments)
    trainer.create_optimizer_and_scheduler(1000)
    trainer.current_gradient_accumulation_steps = 1  # which its own loop would set
    task = prepared.task
    inputs = [b.inputs.ids for b in itertools.islice(task.batches(1, 0), 8)]
    stream = itertools.cycle([{"input_ids": ids, "labels": ids} for ids in inputs])

    def step() -> None:
        trainer.training_step(student, next(stream))
        nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        trainer.optimizer.step()
        trainer.lr_scheduler.step()
        student.zero_grad()

    return step


def measure_language(settings: list[str], rounds: int, repeat: int, block: int = 256) -> Section:
    """Tokens per second of each, with ratios taken within a round."""
    folder = Path(tempfile.mkdtemp(prefix="ctkd-benchmark-"))
    try:
        dense, blocks = (folder / name for name in ("dense", "blocks"))
        for each in (dense, blocks):
            each.mkdir()
        ours = OurTokens(dense, settings)
        cases: dict[str, Work] = {
            HUGGING_FACE: hugging_face(ours.prepared, folder / "trainer"),
            DENSE: ours,
            BLOCKS.format(block): OurTokens(blocks, [*settings, f"Language.block = {block}"]),
        }
        seconds = in_turns(cases, rounds, warm_up=1, repeat=repeat)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    rows, data = [], []
    for name, values in seconds.items():
        speed, ratio = BATCH * CONTEXT / quartiles(values)[1], ratios(seconds[HUGGING_FACE], values)
        rows.append([name, spelled(quartiles(values), 1e3), f"{speed:.0f}", spelled(ratio, 1, 2)])
        data.append({"case": name, "seconds": values, "tokens_per_s": speed, "ratio": ratio[1]})
    columns = [Column("step"), Column("ms [quartiles]", "number"), Column("tokens/s", "number")]
    columns.append(Column("times as fast as Trainer", "number"))
    title = f"A step of KD on {BATCH} × {CONTEXT} tokens, vocabulary {VOCABULARY:,}"
    return Section("language", title, Table(columns, rows), data)
