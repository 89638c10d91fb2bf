"""CTKD in the Trainer of transformers: a byte model teaches a smaller one.

python examples/transformers_trainer.py       # 20 s of one CPU core, no download

The text is the language reference that comes with Python. Needs: pip install 'ctkd[transformers]'
"""

import math
import pydoc_data.topics

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

from ctkd import KD, CosineLambda, Distiller, GlobalTemperature
from ctkd.adapters.transformers import CTKDTrainer

LENGTH = 64


def windows() -> list[dict[str, torch.Tensor]]:
    """Windows of 64 bytes; each byte is a token."""
    text = "\n".join(pydoc_data.topics.topics.values()).encode()
    rows = torch.tensor(list(text))[: len(text) // LENGTH * LENGTH].view(-1, LENGTH)
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]
    return [{"input_ids": row, "labels": row} for row in rows]


def network(width: int, layers: int) -> LlamaForCausalLM:
    """A decoder over bytes."""
    heads = {"num_attention_heads": 4, "num_key_value_heads": 4}
    sizes = {"hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": layers}
    tokens = {"pad_token_id": None, "bos_token_id": None, "eos_token_id": None}
    return LlamaForCausalLM(LlamaConfig(vocab_size=256, **sizes, **heads, **tokens))


def main(steps: int = 200, folder: str = "runs/transformers") -> CTKDTrainer:
    """Trains the teacher, then the student; prints its evaluation."""
    torch.manual_seed(0)
    data, teacher = windows(), network(96, 3)
    settings = {"max_steps": steps, "learning_rate": 3e-3, "logging_steps": max(1, steps // 10)}
    quiet = {"report_to": [], "save_strategy": "no", "disable_tqdm": True}
    args = TrainingArguments(folder, **settings, **quiet)
    Trainer(teacher, args, train_dataset=data[64:]).train()

    temperature = GlobalTemperature(tau_range=5.0, raw_init=math.log(1 / 4))  # in (1, 6), from 2
    distiller = Distiller(temperature, CosineLambda(epochs=10), KD(0.5, 0.5))
    game = {"distiller": distiller, "teacher_model": teacher, "recipe_epochs": 20}
    trainer = CTKDTrainer(network(48, 2), args, train_dataset=data[64:], **game)
    trainer.train()
    print(trainer.evaluate(data[:64]))
    return trainer


if __name__ == "__main__":
    main()
