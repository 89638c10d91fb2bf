"""The game in trl's trainers, on data and on the student's own completions."""

import functools
import os

import pytest
import torch

from ctkd.errors import ConfigError

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("adapters")]
ROUNDING = 1e-6
ENDS = list(range(30))  # half of the tokens end a completion: their lengths differ


@pytest.fixture(scope="module")
def trl():
    """The package; the classes under test and their settings are imported where they are used."""
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    pytest.importorskip("datasets")
    return pytest.importorskip("trl")


@pytest.fixture(scope="module")
def tokenizer(trl):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {f"w{k}": k for k in range(60)} | {"<pad>": 60, "<eos>": 61, "<unk>": 62}
    inner = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"pad_token": "<pad>", "eos_token": "<eos>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=inner, **special)


@pytest.fixture(scope="module")
def data(trl, samples):
    from datasets import Dataset

    rows = []
    for k, each in enumerate(samples[:16]):
        ids, length = each["input_ids"].tolist(), 2 + k % 4
        prompt = " ".join(f"w{token}" for token in ids[:length])
        mask = [0] * length + [1] * (12 - length)
        rows.append({"input_ids": ids, "completion_mask": mask, "prompt": prompt})
    return Dataset.from_list(rows)


@pytest.fixture
def trainer(game, llama, data, tokenizer, tmp_path):
    """A function that makes a trainer of a kind with its configuration."""

    def make(kind, configuration, batch=8, parts=1, steps=2, save=None, given=None, **settings):
        args = configuration(
            str(tmp_path / "run"),
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=parts,
            max_steps=steps,
            optim="sgd",
            learning_rate=0.05,
            lr_scheduler_type="constant",
            logging_steps=1,
            save_strategy="steps" if save else "no",
            save_steps=save or 1,
            report_to=[],
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            disable_tqdm=True,
            **settings,
        )
        student = llama(1, 1)
        student.generation_config.eos_token_id = ENDS
        networks = {"teacher_model": llama(2, 2), "processing_class": tokenizer}
        given = {"distiller": game(ce=0.0), **networks, **(given or {})}
        return kind(model=student, args=args, train_dataset=data, **given)

    return make


@pytest.fixture
def gkd(trainer):
    from trl.experimental.gkd import GKDConfig

    from ctkd.adapters.trl import CTKDGKDTrainer

    def make(sampled=False, lmbda=1.0, **given):
        made = trainer(CTKDGKDTrainer, GKDConfig, lmbda=lmbda, max_new_tokens=5, **given)
        made.generation_config.do_sample = sampled
        return made

    return make


def learned(trainer):
    """The student's weights and the policy's."""
    policy = trainer.policy_steps.distiller.state_dict().values()
    return [each.detach().clone() for each in (*trainer.model.parameters(), *policy)]


def logged(trainer, name):
    return [line[name] for line in trainer.state.log_history if name in line]


def check_resumed(make):
    """A run with sampled completions that is resumed after step 3 of 5 ends with the same bits."""
    make = functools.partial(make, sampled=True, batch=4, parts=2)  # an epoch has two steps
    whole = make(steps=5)
    whole.train()  # before the next one sets the seeds again
    make(steps=3, save=3).train()
    resumed = make(steps=5)
    resumed.train(resume_from_checkpoint=True)
    ends = zip(learned(whole), learned(resumed), strict=True)
    assert all(torch.equal(ours, theirs) for ours, theirs in ends)


def test_gkd_on_policy_has_one_step_for_parts_and_processes(gkd, two_processes, distance):
    def as_rank():
        from accelerate.state import AcceleratorState

        AcceleratorState._reset_state(reset_partial_state=True)
        shared = gkd(batch=2, parts=2)
        shared.train()
        return learned(shared)

    first, second = two_processes(as_rank)
    whole, parts = gkd(), gkd(batch=2, parts=4)
    whole.train()
    parts.train()
    assert distance(learned(whole), learned(parts)) < ROUNDING
    assert distance(learned(whole), first) < ROUNDING
    assert distance(first, second) == 0
    assert logged(whole, "loss") == pytest.approx(logged(parts, "loss"), rel=1e-5)
    # A mean over the completions' tokens; with another divisor it would not be 2.
    assert logged(whole, "temperature")[0] == pytest.approx(2.0, abs=1e-5)
    assert abs(logged(whole, "temperature")[-1] - 2.0) > 1e-2


def test_gkd_with_sampled_completions_resumes_as_if_uninterrupted(gkd):
    check_resumed(functools.partial(gkd, lmbda=0.5))


def test_the_mixin_before_an_sft_trainer_plays_on_the_same_tokens_as_gkd(trl, gkd, trainer):
    from ctkd.adapters.transformers import CTKDMixin

    class Mine(CTKDMixin, trl.SFTTrainer):
        pass

    settings = {"completion_only_loss": True, "packing": False, "max_length": None}
    sft, off_policy = trainer(Mine, trl.SFTConfig, **settings), gkd(lmbda=0.0)
    sft.train()
    off_policy.train()
    assert logged(sft, "kd") == pytest.approx(logged(off_policy, "kd"), rel=1e-5)


@pytest.fixture
def distillation(trl, trainer):
    from ctkd.adapters.trl import CTKDDistillationTrainer

    def make(batch=8, parts=1, sampled=False, block=3, **given):
        kind, more = CTKDDistillationTrainer, {"max_completion_length": 5, **given}
        more["given"] = {"block": block, **more.get("given", {})}
        made = trainer(kind, trl.DistillationConfig, batch, parts, **more)
        made.generation_config.do_sample = sampled
        return made

    return make


def test_distillation_trainer_has_one_step_for_blocks_parts_and_processes(
    distillation, two_processes, data, distance
):
    def as_rank():
        from accelerate.state import AcceleratorState

        AcceleratorState._reset_state(reset_partial_state=True)
        shared = distillation(batch=2, parts=2)
        shared.train()
        return learned(shared), shared.state.log_history[0]

    (first, line), (second, _) = two_processes(as_rank)
    evaluated = {"eval_dataset": data.select(range(4))}
    whole, parts = distillation(block=1000, given=evaluated), distillation(batch=2, parts=4)
    whole.train()
    parts.train()
    assert distance(learned(whole), learned(parts)) < ROUNDING
    assert distance(learned(whole), first) < ROUNDING
    assert distance(first, second) == 0
    for name in ("loss", "kd", "temperature"):
        values = logged(parts, name)[0], line[name]
        assert values == pytest.approx([logged(whole, name)[0]] * 2, rel=1e-5)
    assert abs(logged(whole, "temperature")[-1] - 2.0) > 1e-2
    assert not logged(whole, "entropy")  # it is not measured
    lengths = whole.state.log_history[0]
    assert lengths["completions/min_length"] < lengths["completions/max_length"]
    assert whole.evaluate()["eval_loss"] > 0


def test_distillation_trainer_with_sampled_completions_resumes_as_if_uninterrupted(distillation):
    check_resumed(distillation)


def test_cross_entropy_to_own_completions_and_changed_logits_are_refused(gkd, game, llama):
    from ctkd.adapters.trl import check_linear_head

    with pytest.raises(ConfigError, match=r"ce_weight = 0\.5\) teaches what the student already"):
        gkd(given={"distiller": game(ce=0.5)})
    capped = llama(1, 1)
    capped.config.final_logit_softcapping = 30.0
    with pytest.raises(ConfigError, match=r"\(final_logit_softcapping\): use CTKDGKDTrainer"):
        check_linear_head(capped, "student")


def test_the_examples_of_the_page(from_the_page, llama, data, tokenizer):
    given = {"teacher": llama(2, 2), "tokenizer": tokenizer, "prompts": data.select(range(8))}
    given["conversations"] = given["prompts"]
    for kind in ("CTKDGKDTrainer(", "CTKDDistillationTrainer("):
        found = from_the_page(kind, student=llama(1, 1), **given)
        assert found["temperature"].raw.item() != pytest.approx(-1.386294, abs=1e-4)
    mine = from_the_page("CTKDMixin, SFTTrainer")["CTKDSFTTrainer"]
    assert [each.__name__ for each in mine.__bases__] == ["CTKDMixin", "SFTTrainer"]
