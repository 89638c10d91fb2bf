"""Samples of a student: beginnings of test windows, and how the student continues them."""

from typing import TYPE_CHECKING

import torch
from torch import nn

from ctkd.models.language_model import TokenInputs
from ctkd.seeds import generator

if TYPE_CHECKING:
    from ctkd.engine.tasks.language import LanguageTask

FILE = "continuations.txt"


@torch.inference_mode()
def continuations(model: nn.Module, task: "LanguageTask") -> str:
    """A few beginnings, half a window each, with sampled continuations at T = 1.

    The beginnings and the random numbers are the same at every evaluation and for every student of
    a seed. A token costs a whole forward, since no keys are remembered.
    """
    windows, count = task.evaluated["test"], task.settings.continuations
    chosen = torch.linspace(0, len(windows) - 1, count).long()
    ids = windows.ids(chosen)[:, : max(1, windows.context // 2)]
    drawn = generator(task.seed, "continuations")
    beginning = ids.shape[1]
    for _ in range(task.settings.continued):
        seen = task.on_device(ids[:, -windows.context :])
        last = torch.arange(1, count + 1) * seen.shape[1] - 1
        logits = model(TokenInputs(seen, kept=task.on_device(last)))[:, : task.vocabulary]
        p = logits.float().softmax(1).cpu()
        ids = torch.cat([ids, torch.multinomial(p, 1, generator=drawn)], dim=1)
    decode = task.dataset.tokenizer.decode
    parts = [
        f"--- {number}\n{decode(row[:beginning].tolist())}\n>>> {decode(row[beginning:].tolist())}"
        for number, row in enumerate(ids, 1)
    ]
    return "\n".join(parts) + "\n"
