"""How well a network predicts text: nats, bits per byte, accuracy, agreement with a teacher."""

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ctkd.data.text.windows import IGNORED, Windows

if TYPE_CHECKING:
    from ctkd.engine.tasks.language import LanguageTask

EVALUATED = 2**23  # logits of one call: 2,048 rows of 4,096 tokens


def language_metrics(
    model: nn.Module,
    teacher: nn.Module | None,
    task: "LanguageTask",
    windows: Windows,
    vocabulary: int | None = None,
) -> dict[str, float]:
    """The metrics of one split; each token counts once, for any number of ranks.

    Args:
        vocabulary: the number of tokens, where the windows are not in the task's own tokens.

    Returns:
        bits_per_byte; top1, of the next token, in percent; loss (nats per token); perplexity. With
        a teacher also agreement (percent of tokens with the same first choice) and kl, the mean of
        KL(teacher ‖ student) at T = 1 in nats.
    """
    totals = torch.zeros(5, dtype=torch.float64, device=task.device)
    size, world = 0, task.world
    columns = vocabulary or task.vocabulary
    count = max(1, EVALUATED // (columns * windows.context))
    everything = torch.arange(len(windows))[: task.evaluated_samples]
    batches = torch.split(world.shard(everything), count)
    for indices in task.counted(batches, len(batches)):
        if not len(indices):
            continue  # more processes than windows
        inputs, labels = task.inputs(windows, indices)
        targets = task.on_device(labels[labels != IGNORED])
        size += int(windows.of_targets(windows.stream.bytes, indices).sum())
        logits = model(inputs)[:, :columns].float()
        best = logits.argmax(1)
        sums = [F.cross_entropy(logits, targets, reduction="sum"), (best == targets).sum()]
        sums.append(torch.full_like(sums[0], len(targets)))
        if teacher is not None:
            sums += _agreement(logits, teacher(inputs)[:, :columns].float(), best)
        totals[: len(sums)] += torch.stack([value.double() for value in sums])
    bytes_ = world.sum(torch.tensor(float(size), dtype=torch.float64, device=task.device)).item()
    loss, right, rows, agreed, kl = world.sum(totals).tolist()
    found = {
        "bits_per_byte": loss / math.log(2) / bytes_,
        "top1": 100 * right / rows,
        "loss": loss / rows,
        "perplexity": math.exp(min(loss / rows, 700.0)),  # a larger one overflows
    }
    if teacher is not None:
        found |= {"agreement": 100 * agreed / rows, "kl": kl / rows}
    return found


def _agreement(student: Tensor, teacher: Tensor, best: Tensor) -> list[Tensor]:
    """How many rows have the same first choice, and the sum of KL(teacher ‖ student)."""
    p, q = teacher.log_softmax(1), student.log_softmax(1)
    return [(teacher.argmax(1) == best).sum(), (p.exp() * (p - q)).sum()]
