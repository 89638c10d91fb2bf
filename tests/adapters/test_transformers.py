"""The game in a Trainer of transformers: parts, processes and a resumed run give the same step."""

import pathlib
import runpy
import types

import pytest
import torch

from ctkd import KD, ConstantTemperature, Distiller
from ctkd.errors import ConfigError
from ctkd.losses.alm import ALM
from ctkd.losses.columns import SharedColumns
from ctkd.losses.dist import DIST
from ctkd.losses.kd import kd_loss

# One process for all adapters: it takes seconds to import their packages.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("adapters")]
ROUNDING = 1e-6


@pytest.fixture(scope="module")
def transformers():
    pytest.importorskip("accelerate")
    return pytest.importorskip("transformers")


@pytest.fixture
def trainer(transformers, game, llama, samples, tmp_path):
    """A function that makes a Trainer of a random student and a random teacher."""
    from ctkd.adapters.transformers import CTKDTrainer

    def make(batch=16, parts=1, steps=4, strength=1.0, lr=0.05, save=None, **given):
        args = transformers.TrainingArguments(
            str(tmp_path / "run"),
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=parts,
            max_steps=steps,
            optim="sgd",
            learning_rate=lr,
            lr_scheduler_type="constant",
            logging_steps=1,
            save_strategy="steps" if save else "no",
            save_steps=save or 1,
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
        )
        given = {"distiller": game(strength), "teacher_model": llama(2, 2), **given}
        data = {"train_dataset": samples, "eval_dataset": samples[:9], "model": llama(1, 1)}
        return CTKDTrainer(args=args, **{**data, **given})

    return make


def learned(trainer):
    """The student's weights and the policy's."""
    policy = trainer.policy_steps.distiller.state_dict().values()
    return [each.detach().clone() for each in (*trainer.model.parameters(), *policy)]


def temperatures(trainer):
    return [line["temperature"] for line in trainer.state.log_history if "temperature" in line]


def test_one_batch_and_four_parts_and_two_processes_make_the_same_step(
    trainer, two_processes, distance
):
    def as_rank():
        from accelerate.state import AcceleratorState

        AcceleratorState._reset_state(reset_partial_state=True)
        shared = trainer(batch=4, parts=2)
        shared.train()
        assert torch.distributed.get_world_size() == 2
        return learned(shared), shared.state.log_history[0]

    # The processes are forked before anything here starts a thread.
    (first, line), (second, _) = two_processes(as_rank)
    whole, parts = trainer(), trainer(batch=4, parts=4)
    before = learned(whole)
    whole.train()
    parts.train()
    assert distance(before, learned(whole)) > 1e-2
    assert abs(temperatures(whole)[-1] - 2.0) > 1e-2
    assert distance(learned(whole), learned(parts)) < ROUNDING
    assert distance(learned(whole), first) < ROUNDING
    assert distance(first, second) == 0
    for name in ("loss", "ce", "kd", "temperature"):
        values = [each.state.log_history[0][name] for each in (whole, parts)]
        assert values == pytest.approx([line[name]] * 2, abs=1e-5)


def test_the_logged_loss_is_the_mean_over_the_tokens_that_count(trainer, llama, samples):
    one = trainer(batch=32, steps=1)
    student = llama(1, 1).double()
    one.train()
    batch = {name: torch.stack([each[name] for each in samples]) for name in samples[0]}
    targets = batch.pop("labels")[:, 1:]
    kept = targets != -100
    with torch.no_grad():
        ours, theirs = (
            network(**batch).logits[:, :-1][kept] for network in (student, llama(2, 2).double())
        )
    ce = torch.nn.functional.cross_entropy(ours, targets[kept])
    loss = 0.5 * ce + 0.5 * kd_loss(ours, theirs, 2.0)
    assert one.state.log_history[0]["loss"] == pytest.approx(loss.item(), rel=1e-5)


def test_a_resumed_run_equals_an_uninterrupted_one(trainer):
    whole, first = trainer(parts=2, batch=4, steps=4), trainer(parts=2, batch=4, steps=2, save=2)
    whole.train()
    first.train()
    resumed = trainer(parts=2, batch=4, steps=4)
    resumed.train(resume_from_checkpoint=True)
    ends = zip(learned(whole), learned(resumed), strict=True)
    assert all(torch.equal(ours, theirs) for ours, theirs in ends)
    folder = pathlib.Path(resumed.args.output_dir)
    with pytest.raises(ConfigError, match=r"has no ctkd_policy\.pt"):
        resumed.train(resume_from_checkpoint=str(folder))
    with pytest.raises(ConfigError, match="no such folder"):
        resumed.train(resume_from_checkpoint=str(folder / "checkpoint-9"))
    other = trainer(distiller=Distiller(ConstantTemperature(2.0), None, KD(0.5, 0.5)))
    with pytest.raises(ConfigError, match="the state of another policy"):
        other.train(resume_from_checkpoint=True)
    (folder / "checkpoint-2" / "ctkd_policy.pt").write_bytes(b"cut")
    with pytest.raises(ConfigError, match=r"ctkd_policy\.pt is damaged"):
        resumed.train(resume_from_checkpoint=True)


@pytest.mark.parametrize("only_model", [False, True])
def test_the_best_student_comes_with_its_policy(trainer, only_model, monkeypatch):
    one = trainer(steps=3, save=1, lr=0.0)
    vars(one.args).update(
        load_best_model_at_end=True,
        metric_for_best_model="eval_ce",
        save_only_model=only_model,
        eval_strategy=one.args.save_strategy,
        eval_steps=1,
    )
    monkeypatch.setattr(
        one, "evaluate", lambda *_, **__: {"eval_ce": abs(one.state.global_step - 2.0)}
    )
    seen, step = [], one.policy_steps.step
    policy = one.policy_steps.distiller.policy.raw
    monkeypatch.setattr(one.policy_steps, "step", lambda: (step(), seen.append(policy.item())))
    one.train()
    assert one.state.best_model_checkpoint.endswith("checkpoint-2")
    assert len(set(seen)) == 3
    assert policy.item() == seen[1]
    if only_model:
        with pytest.raises(ConfigError, match="has no optimizer: it was saved with save_only_mod"):
            one.train(resume_from_checkpoint=True)
        pathlib.Path(one.state.best_model_checkpoint, "ctkd_policy.pt").unlink()
        with pytest.warns(UserWarning, match="the policy stays that of the last step"):
            one._load_best_model()


def test_tokens_that_do_not_count_change_neither_step_nor_log(trainer, samples, distance):
    hidden = [{**each, "labels": torch.full_like(each["labels"], -100)} for each in samples]
    padding = [{**each, "attention_mask": torch.zeros_like(each["labels"])} for each in hidden]
    part = [*hidden[:4], *padding[:4], *samples[8:16]]  # of four parts some may have no row
    whole, parts = trainer(train_dataset=part), trainer(batch=2, parts=8, train_dataset=part)
    whole.train()
    parts.train()
    assert distance(learned(whole), learned(parts)) < ROUNDING
    none = trainer(steps=2, train_dataset=hidden)
    before = learned(none)
    none.train()
    assert all(torch.equal(*pair) for pair in zip(before, learned(none), strict=True))
    assert not temperatures(none)  # not 0


def test_t_climbs_at_a_frozen_student_and_stays_without_lambda(trainer):
    climbing = trainer(batch=32, lr=0.0, steps=6)
    climbing.train()
    kd = [line["kd"] for line in climbing.state.log_history if "kd" in line]
    assert kd == sorted(kd)
    assert kd[-1] > kd[0] + 1e-3
    still = trainer(strength=0.0, t_star_rows=8)
    still.train()
    assert set(temperatures(still)) == {temperatures(still)[0]}
    stars = [line["t_star"] for line in still.state.log_history if "t_star" in line]
    assert len(stars) == 4
    assert all(0.5 <= each <= 40 for each in stars)


def test_evaluation_reports_means_over_tokens_and_leaves_the_policy_alone(trainer):
    one = trainer()
    before = learned(one)
    one.args.per_device_eval_batch_size = 4  # batches with different numbers of tokens
    found = one.evaluate()
    one.args.per_device_eval_batch_size = 9
    assert one.evaluate()["eval_ce"] == pytest.approx(found["eval_ce"], rel=1e-6)
    assert one.evaluate()["eval_loss"] == pytest.approx(found["eval_ce"], rel=1e-6)
    assert 0 <= found["eval_agreement"] <= 100
    assert found["eval_kl"] > 0
    assert all(torch.equal(*pair) for pair in zip(before, learned(one), strict=True))


def test_a_classifier_has_a_row_for_each_sample(transformers, game, llama, samples, tmp_path):
    from ctkd.adapters.transformers import CTKDTrainer

    def classifier(seed):
        torch.manual_seed(seed)
        return transformers.LlamaForSequenceClassification(llama(1, seed).config)

    data = [{**each, "labels": torch.tensor(k % 2)} for k, each in enumerate(samples)]
    args = transformers.TrainingArguments(
        str(tmp_path), max_steps=1, report_to=[], use_cpu=True, disable_tqdm=True
    )
    given = {"distiller": game(), "teacher_model": classifier(2)}
    one = CTKDTrainer(classifier(1), args, train_dataset=data[:8], **given)
    expected = one.evaluate(data[:8])["eval_ce"]
    one.train()
    assert one.policy_steps.last["ce"].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"_n_gpu": 2}, "n_gpu = 2: DataParallel"),
        ({"fp16": True}, "fp16 = True"),
        ({"torch_compile": True}, "torch_compile"),
        ({"label_smoothing_factor": 0.1}, "label_smoothing_factor"),
    ],
)
def test_settings_that_would_be_wrong_are_refused(trainer, settings, message):
    from ctkd.adapters.trainer_policy import check_trainer

    one = trainer()
    vars(one.args).update(settings)
    with pytest.raises(ConfigError, match=message):
        check_trainer(one)


def test_games_and_networks_that_would_be_wrong_are_refused(trainer, game, llama, samples):
    with pytest.raises(ConfigError, match="of 2: an adapter takes one teacher"):
        trainer(teacher_model=[llama(1, 1), llama(1, 2)])
    with pytest.raises(ConfigError, match="pass teacher_model"):
        trainer(teacher_model=None)
    with pytest.raises(ConfigError, match="teacher_model = 'gpt2': expected a module"):
        trainer(teacher_model="gpt2")
    student = llama(1, 1)
    with pytest.raises(ConfigError, match="student and teacher share parameters"):
        trainer(model=student, teacher_model=student)
    with pytest.raises(ConfigError, match="distiller is a KD: expected a Distiller"):
        trainer(distiller=KD(0.5, 0.5))
    for changed in ({"objective": ALM(0.5, 0.5)}, {"transform": SharedColumns()}):
        two = game()
        vars(two).update(changed)
        with pytest.raises(ConfigError, match="is for two tokenizers"):
            trainer(distiller=two)
    whole_step = game()
    whole_step.objective = DIST()
    with pytest.raises(ConfigError, match="DIST compares the rows of a step"):
        trainer(distiller=whole_step)
    with pytest.raises(ConfigError, match="64 columns and the teacher's 72"):
        trainer(teacher_model=llama(2, 2, vocabulary=72)).train()
    trainer(teacher_model=llama(2, 2, vocabulary=72), vocabulary=64, steps=1).train()
    with pytest.raises(ConfigError, match="each trial with the last one's T"):
        trainer().train(trial={"lr": 1.0})
    headless = trainer()
    headless.model.forward = lambda **inputs: types.SimpleNamespace(logits=None)
    with pytest.raises(ConfigError, match="returned no logits: switch off its fused head"):
        headless.train()


def test_the_examples_of_the_page_and_the_folder(from_the_page, llama, samples, tmp_path):
    found = from_the_page(
        "CTKDTrainer(", student=llama(1, 1), teacher=llama(2, 2), train_set=samples,
        test_set=samples[:8],
    )  # fmt: skip
    (line,) = (line for line in found["trainer"].state.log_history if "eval_ce" in line)
    assert line["eval_kl"] > 0
    assert found["temperature"].raw.item() != pytest.approx(-1.386294, abs=1e-4)
    path = pathlib.Path(__file__).parents[2] / "examples" / "transformers_trainer.py"
    trainer = runpy.run_path(str(path))["main"](steps=5, folder=str(tmp_path))
    assert abs(temperatures(trainer)[-1] - 2.0) > 1e-3
