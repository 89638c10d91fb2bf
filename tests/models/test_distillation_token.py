"""A student with a distillation token: one row of logits for the targets, one for the teacher."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ctkd import Distiller
from ctkd.adversary.schedules import ConstantLambda
from ctkd.errors import ConfigError
from ctkd.losses.hard_kd import HardKD
from ctkd.losses.objectives import KD
from ctkd.models.distillation_token import heads_of, use_distillation_token
from ctkd.registry import MODELS
from ctkd.temperature import ConstantTemperature, GlobalTemperature

LOGITS = 3 * torch.randn(4, 6, 10, generator=torch.Generator().manual_seed(0))
TARGETS = torch.arange(6)


def test_cross_entropy_meets_the_class_token_and_the_teacher_the_other():
    of_class, of_teacher, teacher, _ = LOGITS
    distiller = Distiller(ConstantTemperature(4.0), None, KD(0.3, 0.7))
    given = (of_teacher, teacher, TARGETS)
    outcome = distiller(*given, position=0.0, class_logits=of_class)
    torch.testing.assert_close(outcome.terms["ce"], F.cross_entropy(of_class, TARGETS))
    alone = distiller(*given, position=0.0)
    assert torch.equal(outcome.terms["kd"], alone.terms["kd"])


def test_hard_distillation_is_cross_entropy_with_the_teachers_decision():
    of_class, of_teacher, teacher, _ = LOGITS
    distiller = Distiller(None, None, HardKD())
    outcome = distiller(of_teacher, teacher, TARGETS, position=0.0, class_logits=of_class)
    decided = F.cross_entropy(of_teacher, teacher.argmax(1))
    torch.testing.assert_close(outcome.terms["hard"], decided)
    expected = 0.5 * F.cross_entropy(of_class, TARGETS) + 0.5 * decided
    torch.testing.assert_close(outcome.loss, expected)
    assert outcome.temperature is None


def test_hard_distillation_refuses_a_temperature():
    with pytest.raises(ConfigError, match="HardKD uses no softened logits and so no temperature"):
        Distiller(GlobalTemperature(), ConstantLambda(1.0), HardKD())


def test_a_network_of_timm_has_both_rows_in_training_where_it_distills():
    sizes = {"img_size": 16, "patch_size": 8, "drop_path_rate": 0.0}
    network = MODELS.get("timm_deit_tiny_distilled_patch16_224")(num_classes=5, **sizes)
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    use_distillation_token(network, True)
    of_teacher, of_class = heads_of(network.train()(images))
    assert of_teacher.shape == of_class.shape == (2, 5)
    assert not torch.equal(of_teacher, of_class)
    mean, none = heads_of(network.eval()(images))
    torch.testing.assert_close(mean, (of_teacher + of_class) / 2, rtol=1e-4, atol=1e-5)
    assert none is None
    use_distillation_token(network, False)
    assert heads_of(network.train()(images))[1] is None
    use_distillation_token(nn.Linear(1, 1), True)  # which has no token


def test_a_size_that_a_network_does_not_take_is_refused():
    with pytest.raises(ConfigError, match="timm_resnet10t does not take img_size = 32"):
        MODELS.get("timm_resnet10t")(num_classes=5, img_size=32)
