"""What a loop can hand to the Distiller by mistake: one sentence each, never a wrong loss."""

import pytest
import torch

from ctkd import (
    DIST,
    DKD,
    KD,
    ConstantTemperature,
    CosineLambda,
    Distiller,
    GlobalTemperature,
    InstanceTemperature,
    LogitStandardization,
    dkd_loss,
)
from ctkd.errors import ConfigError
from ctkd.losses.features.crd import CRD
from ctkd.losses.features.pkt import PKT
from ctkd.losses.features.srrl import SRRL
from ctkd.losses.mlkd import MLKD
from ctkd.losses.sampled import SampledKD
from ctkd.temperature.token import TokenTemperature

N, C = 6, 5
STUDENT, TEACHER = 2 * torch.randn(2, N, C, generator=torch.Generator().manual_seed(0))
TARGETS = torch.arange(N) % C


def game(objective=None, policy=None):
    policy = policy or ConstantTemperature(4.0)
    return Distiller(policy, CosineLambda() if policy.learned else None, objective or KD())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"targets": torch.tensor([0, 1, -100, 3, 4, 0])}, r"targets\[2\] is -100: expected a cla"),
        ({"targets": TARGETS + 1}, r"targets\[4\] is 5: expected a class from 0 to 4"),
        ({"targets": TARGETS[:3]}, "has 6 rows and targets 3"),
        ({"targets": TARGETS.tolist()}, "targets is a list: expected a tensor of classes"),
        ({"student": STUDENT.view(2, 3, C)}, "bring further dimensions into N with flatten"),
        ({"student": {"logits": STUDENT}, "rows": 1}, "student_logits is a dict"),
        ({"student": torch.cat([STUDENT, STUDENT], 1)}, "expected the same rows and classes"),
        ({"teacher": TEACHER[:1]}, r"shape \[6, 5\], teacher_logits \[1, 5\]: expected the same"),
        ({"rows": 0}, "the step has no row"),
        ({"total_rows": 3}, "total_rows = 3 for a part of 6 rows"),
        ({"row_weights": torch.ones(N, 1)}, r"row_weights has shape \[6, 1\]: expected one"),
        ({"groups": TARGETS[:, None], "group_names": ["a"]}, r"groups has shape \[6, 1\]"),
        ({"other_losses": {"box": torch.ones(N)}}, r"other_losses\['box'\] is \[6\]: expected a 0"),
        ({"other_losses": {"ce": torch.ones(())}}, "the name of a term, 'ce'"),
    ],
)
@pytest.mark.parametrize("objective", [KD(), DKD()], ids=["KD", "DKD"])
def test_rows_that_do_not_fit_are_refused(given, message, objective):
    given = {"student": STUDENT, "teacher": TEACHER, "targets": TARGETS, **given}
    rows = given.pop("rows", N)
    main = [given.pop(name) for name in ("student", "teacher", "targets")]
    main = [each[:rows] if isinstance(each, torch.Tensor) and not rows else each for each in main]
    for policy in (TokenTemperature(), InstanceTemperature(C)):  # they read the logits first
        with pytest.raises(ValueError, match=message):
            game(objective, policy)(*main, position=0.0, **given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"position": -1.0}, "position = -1.0: expected the recipe's epochs done, 0 or more"),
        ({"position": float("nan")}, "position = nan"),
        ({"position": 0.0, "progress": 3}, "progress = 3: expected a share of the run, 0 to 1"),
    ],
)
def test_a_position_or_progress_out_of_range_is_refused(given, message):
    with pytest.raises(ConfigError, match=message):
        game()(STUDENT, TEACHER, TARGETS, **given)


def test_one_class_is_refused_as_a_run_refuses_it():
    with pytest.raises(ConfigError, match="KD needs 2 or more: with one class every softmax is 1"):
        game()(STUDENT[:, :1], TEACHER[:, :1], TARGETS * 0, position=0.0)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ((GlobalTemperature, CosineLambda(), KD()), "GlobalTemperature is a class: pass an inst"),
        ((GlobalTemperature(), CosineLambda, KD()), "CosineLambda is a class"),
        ((ConstantTemperature(), None, KD(), LogitStandardization), "Standardization is a class"),
        ((4.0, None, KD()), "policy = 4.0: expected a module, such as ConstantTemperature"),
        ((GlobalTemperature(), 1.0, KD()), "schedule = 1.0: expected one, such as ConstantLambda"),
        ((GlobalTemperature(), KD(), CosineLambda()), "objective = .*: expected one, such as KD"),
        ((ConstantTemperature(), None, KD(), None, PKT()), r"features = PKT\(…\): expected a list"),
    ],
)
def test_parts_of_another_kind_are_refused(parts, message):
    with pytest.raises(ConfigError, match=message):
        Distiller(*parts)


def test_a_strong_view_of_other_images_and_rows_that_are_no_draws_are_refused():
    twice = torch.cat([STUDENT, STUDENT]), torch.cat([TEACHER, TEACHER])
    with pytest.raises(ValueError, match="strong has 12 and 12 rows, the plain view 6"):
        game(MLKD())(STUDENT, TEACHER, TARGETS, position=0.0, strong=twice)
    with pytest.raises(ValueError, match="teacher_logits has 7 columns, neither those of the stu"):
        game(SampledKD())(STUDENT, torch.ones(N, 7), TARGETS, position=0.0)


def test_a_wrong_class_is_named_by_the_functions_too():
    with pytest.raises(ValueError, match=r"targets\[0\] is -100"):
        dkd_loss(STUDENT, TEACHER, TARGETS - 100, 2.0)


def test_a_part_without_rows_adds_nothing():
    empty = STUDENT[:0].clone().requires_grad_()
    for policy in (GlobalTemperature(), InstanceTemperature(C)):
        made = game(KD(), policy)
        loss = made(empty, TEACHER[:0], TARGETS[:0], position=0.0, total_rows=N).loss
        loss.backward()
        assert loss.item() == 0.0
        assert not any(each.grad.any() for each in made.parameters())


def test_a_policy_of_rows_takes_logits_of_two_precisions():
    mixed = game(KD(), TokenTemperature())(STUDENT.double(), TEACHER, TARGETS, position=0.0)
    plain = game(KD(), TokenTemperature())(STUDENT, TEACHER, TARGETS, position=0.0)
    torch.testing.assert_close(mixed.loss.float(), plain.loss)


def test_under_autocast_the_game_is_in_full_precision():
    made = game(MLKD())  # its terms have matrix products
    given = {"position": 0.0, "strong": (STUDENT, TEACHER)}
    plain = made(STUDENT, TEACHER, TARGETS, **given)
    with torch.autocast("cpu", torch.bfloat16):
        half = made(STUDENT, TEACHER, TARGETS, **given)
    assert torch.equal(half.loss, plain.loss)


def test_a_row_that_is_nan_makes_the_loss_nan():
    broken = TEACHER.clone()
    broken[1, 2] = torch.nan
    assert game(DIST())(STUDENT, broken, TARGETS, position=0.0).loss.isnan()


def with_features(loss, rows=N, targets=TARGETS, **given):
    made = Distiller(ConstantTemperature(4.0), None, KD(), features=[loss])
    features = {"pooled": torch.ones(rows, 3)}
    return made(STUDENT, TEACHER, targets, position=0.0, features=(features, features), **given)


def test_features_that_a_loss_cannot_use_are_refused():
    with pytest.raises(ValueError, match="PKT got the feature pooled of 4 rows in a step of 6"):
        with_features(PKT(), rows=4)
    for loss in (CRD(), SRRL()):
        with pytest.raises(ValueError, match="has no modules yet: call build"):
            with_features(loss)
    built = CRD()
    built.build({"pooled": torch.ones(2, 3)}, {"pooled": torch.ones(2, 3)})
    with pytest.raises(ValueError, match="CRD needs indices=…, those of the samples"):
        with_features(built)
    with pytest.raises(ValueError, match="CRD needs one class for each row, and targets has sev"):
        with_features(built, targets=torch.eye(C)[TARGETS])


def test_a_teacher_in_inference_mode_gives_the_same_loss():
    with torch.inference_mode():
        teacher, feature = TEACHER + 0, torch.eye(N)
    student = torch.ones(N, N, requires_grad=True)
    for objective in (KD(), DKD(), DIST()):
        made = Distiller(ConstantTemperature(4.0), None, objective, features=[PKT()])
        losses = []
        for theirs, f in ((teacher, feature), (TEACHER, torch.eye(N))):
            features = ({"pooled": student}, {"pooled": f})
            given = {"position": 0.0, "features": features}
            losses.append(made(student[:, :C], theirs, TARGETS, **given).loss)
            losses[-1].backward()
        assert torch.equal(*losses)
