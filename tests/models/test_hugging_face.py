"""Models of transformers: the same logits as there, packed documents apart, layers dropped."""

import json

import pytest
import torch

from ctkd.errors import ConfigError
from ctkd.models.language_model import TokenInputs

pytest.importorskip("transformers")
# Importing transformers takes seconds, and happens in one process.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("adapters")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny Llama with a tokenizer of bytes-like BPE, and a vocabulary padded by 8."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM

    path = tmp_path_factory.mktemp("llama")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({c: n for n, c in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(path / "tokenizer.json"))
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2}
    sizes |= {"num_hidden_layers": 3, "vocab_size": 264, "num_key_value_heads": 2}
    LlamaForCausalLM(LlamaConfig(**sizes)).save_pretrained(path)
    return path


@pytest.fixture
def network(folder):
    from ctkd.models.hugging_face import hf_causal_lm

    return hf_causal_lm(str(folder)).eval()


def test_logits_are_those_of_transformers(network):
    ids = torch.randint(256, (2, 9))
    rows = network(TokenInputs(ids, kept=torch.tensor([0, 10])))
    torch.testing.assert_close(rows, network.network(ids).logits.flatten(0, 1)[[0, 10]])


def test_two_documents_in_one_window_are_those_in_windows_of_their_own(network):
    one, two = torch.randint(256, (1, 3)), torch.randint(256, (1, 4))
    packed = TokenInputs(torch.cat([one, two], 1), torch.tensor([[0, 0, 0, 1, 1, 1, 1]]))
    apart = torch.cat([network(TokenInputs(one)), network(TokenInputs(two))])
    torch.testing.assert_close(network(packed), apart, rtol=1e-4, atol=1e-5)


def test_layers_are_dropped(folder, network):
    from ctkd.models.hugging_face import drop_layers

    student = drop_layers(str(folder), dropped=(1,))
    assert [len(m.network.model.layers) for m in (network, student)] == [3, 2]
    kept = student.network.model.layers[1].mlp.up_proj.weight
    assert torch.equal(kept, network.network.model.layers[2].mlp.up_proj.weight)
    student(TokenInputs(torch.zeros(1, 4, dtype=torch.int64)))
    with pytest.raises(ConfigError, match=r"drop_layers.dropped = \[3\]: expected numbers"):
        drop_layers(str(folder), dropped=(3,))


def sliding():
    """A model with two kinds of attention: layers 0 and 1 see all tokens, 2 and 3 see three."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2, "head_dim": 8}
    window = {"use_sliding_window": True, "sliding_window": 3, "max_window_layers": 2}
    config = Qwen3Config(
        num_hidden_layers=4, num_key_value_heads=2, vocab_size=64, **sizes, **window
    )
    return Qwen3ForCausalLM(config)


@pytest.mark.parametrize("kinds", [1, 2])
def test_a_model_without_layers_generates_with_a_cache_and_is_saved(folder, kinds, tmp_path):
    from transformers import AutoModelForCausalLM

    from ctkd.models.dropped_layers import drop
    from ctkd.models.hugging_face import drop_layers

    torch.manual_seed(0)
    if kinds == 1:
        network = drop_layers(str(folder), dropped=(0, 1)).network.eval()
    else:
        network = sliding().eval()
        drop(network, (0, 2), "student")
        assert network.config.layer_types == ["full_attention", "sliding_attention"]
    ids, given = torch.arange(5)[None] + 7, {"max_new_tokens": 6, "do_sample": False}
    given |= {"output_logits": True, "return_dict_in_generate": True}
    cached, whole = (network.generate(ids, use_cache=c, **given).logits for c in (True, False))
    torch.testing.assert_close(torch.stack(cached), torch.stack(whole))
    network.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert torch.equal(again(ids).logits, network(ids).logits)


def test_layers_whose_kind_depends_on_their_number_are_refused():
    from transformers import GPTNeoConfig, GPTNeoForCausalLM

    from ctkd.models.dropped_layers import drop

    kinds = {"num_layers": 2, "attention_types": [[["global", "local"], 1]]}
    config = GPTNeoConfig(hidden_size=16, num_heads=2, vocab_size=64, **kinds)
    with pytest.raises(ConfigError, match=r"dropped = \[0\]: the kind of a layer of GPTNeo"):
        drop(GPTNeoForCausalLM(config), [0], "student")


def test_a_model_teaches_itself_without_a_layer(folder, command, tmp_path):
    texts = tmp_path / "texts"
    texts.mkdir()
    for n in range(4):
        (texts / f"{n}.txt").write_text(f"a row is a token {n} " * 8)
    given = [
        *("student = @drop_layers", "teacher = @hf_teacher", "Recipe.dataset = @text_files"),
        *(f"drop_layers.path = {str(folder)!r}", f"hf_teacher.path = {str(folder)!r}"),
        *(f"text_files.data_dir = {str(texts)!r}", "text_files.context = 16"),
        *(
            "epochs = 1",
            "steps_per_epoch = 2",
            "Runtime.tensorboard = False",
            "Runtime.figures = False",
            "threads = 1",
        ),
        *("Instrument.probe_size = 2", "Instrument.points = 5", "Language.block = 9"),
    ]
    flags = [f"--gin_param={line}" for line in given]
    other = command("--gin_file=gin/language/ctkd.gin", *flags, "--workdir=bytes")
    assert other.status == 2
    assert "Set text_files.tokenizer = " in other.err
    flags.append(f"--gin_param=text_files.tokenizer = {str(folder)!r}")
    result = command("--gin_file=gin/language/ctkd.gin", *flags, "--workdir=run")
    assert result.status == 0, result.err
    assert "built with its weights" in result.out
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["teacher_bits_per_byte"] > 0
    dry = command("--gin_file=gin/language/ctkd.gin", *flags, "--dry_run")
    assert dry.status == 0, dry.err
