"""Networks and data of the adapters' tests, and two forked processes that share a run."""

import math
import multiprocessing
import os
import pathlib
import re
import socket

import pytest
import torch

from ctkd import KD, ConstantLambda, Distiller, GlobalTemperature

VOCABULARY = 64
PAGE = pathlib.Path(__file__).parents[2] / "docs" / "adapters.md"


@pytest.fixture
def game():
    """A function that makes the game of all these tests: T starts at 2, in (1, 6)."""

    def make(strength=1.0, ce=0.5, **given):
        policy = GlobalTemperature(tau_range=5.0, raw_init=math.log(0.25))
        return Distiller(policy, ConstantLambda(strength), KD(ce, 1 - ce), **given)

    return make


@pytest.fixture(scope="session")
def llama():
    """A function that makes a random causal model."""
    transformers = pytest.importorskip("transformers")

    def make(layers, seed, vocabulary=VOCABULARY):
        torch.manual_seed(seed)
        sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": layers}
        heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
        tokens = {"pad_token_id": 60, "eos_token_id": 61, "bos_token_id": None}
        config = transformers.LlamaConfig(
            vocab_size=vocabulary, initializer_range=0.3, **sizes, **heads, **tokens
        )
        return transformers.LlamaForCausalLM(config)

    return make


@pytest.fixture(scope="session")
def samples():
    """32 samples of 12 tokens; each has another prompt, and padding, that do not count."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for index in range(32):
        ids = torch.randint(0, 60, (12,), generator=generator)
        labels, mask = ids.clone(), torch.ones(12, dtype=torch.long)
        length = 5 + index % 8
        labels[: 1 + index % 4] = -100
        labels[length:], mask[length:] = -100, 0
        found.append({"input_ids": ids, "labels": labels, "attention_mask": mask})
    return found


@pytest.fixture
def two_processes(tmp_path):
    """Calls a function in two forked processes, which need no time to import anything."""

    def call(function):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        context = multiprocessing.get_context("fork")
        processes = []
        for rank in range(2):
            place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_PORT": port}
            given = (function, {k: str(v) for k, v in place.items()}, tmp_path / f"rank{rank}.pt")
            processes.append(context.Process(target=_as_rank, args=given))
        for process in processes:
            process.start()
        for process in processes:
            process.join(60)
            assert process.exitcode == 0
        return [torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2)]

    return call


def _as_rank(function, place, path):
    os.environ.update(place, MASTER_ADDR="127.0.0.1", GLOO_SOCKET_IFNAME="lo")
    torch.save(function(), path)


@pytest.fixture(scope="session")
def distance():
    """The largest difference of two lists of tensors."""
    return lambda ours, theirs: max(
        (a - b).abs().max().item() for a, b in zip(ours, theirs, strict=True)
    )


@pytest.fixture
def from_the_page(tmp_path, monkeypatch):
    """Runs the page's example that has a text in it, with the reader's own names; its names.

    On a CPU, as the page says for trl.
    """

    def run(text, **names):
        blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
        (block,) = (block for block in blocks if text in block)
        assert len(block.splitlines()) < 30
        if "from trl" in block:
            block = block.replace("report_to=[]", "report_to=[], use_cpu=True, bf16=False")
        monkeypatch.chdir(tmp_path)
        exec(compile(block, PAGE.name, "exec"), names)
        return names

    return run
