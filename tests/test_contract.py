"""Every registered component keeps the contract of its kind."""

import pytest
import torch

from ctkd import Distiller
from ctkd.adversary.schedules import ConstantLambda
from ctkd.losses.two_views import StrongView
from ctkd.registry import (
    FEATURES,
    LR_SCHEDULES,
    OBJECTIVES,
    OPTIMIZERS,
    SCHEDULES,
    TEMPERATURES,
    TRANSFORMS,
)
from ctkd.temperature import GlobalTemperature, InstanceTemperature
from ctkd.temperature.replay import RECORD_FILE
from ctkd.testing import (
    check_feature_loss,
    check_objective,
    check_policy,
    check_schedule,
    check_settings,
    check_transform,
)

ALL = (FEATURES, OBJECTIVES, TEMPERATURES, SCHEDULES, TRANSFORMS, OPTIMIZERS, LR_SCHEDULES)
# Settings that add terms, curves or layers to what the defaults make.
OTHER_SETTINGS = {
    "DKD": [{"kd_weight": 0.5, "warmup_epochs": 20.0}],
    "DTKD": [{"warmup_epochs": 20.0}],
    "MLKD": [{"as_published": True}],
    "SkewedKL": [{"reverse": True}],
    "RLD": [{"alpha_temperature": None, "warmup_epochs": 20.0}],
    "EAKD": [{"max_entropy": 100.0}],
    "SpreadTemperature": [{"measure": "maximum"}, {"shared": True}],
    "InverseDifficultyTemperature": [{"strength": -1.0}],
    "AnnealedTemperature": [{"shape": "cosine"}, {"shape": "exponential"}],
    "InstanceTemperature": [{"inputs": "probabilities", "order": "teacher"}, {"batch_norm": True}],
    "CosineLR": [{"warmup_epochs": 5.0, "end": 0.1}],
    "ExactTemperature": [{"cooperative": True}, {"rate": 0.5, "tau_init": 2.0}],
    "ReplayedTemperature": [{"rows": "permuted"}, {"rows": "hard_low"}],
    "LinearLambda": [{"start": 2.0, "end": 0.5}, {"smooth": True}],
    "CosineLambda": [{"start": 2.0, "end": 0.5}, {"smooth": True}],
}


def names(registry):
    """The names that ctkd itself registers: other tests register faulty ones."""
    return [name for name in registry if registry.get(name).__module__.startswith("ctkd.")]


def cases(registry):
    return [(name, s) for name in names(registry) for s in ({}, *OTHER_SETTINGS.get(name, ()))]


@pytest.mark.parametrize("num_classes", [2, 10])
@pytest.mark.parametrize(("name", "settings"), cases(OBJECTIVES))
def test_objectives(name, settings, num_classes):
    num_classes = 2 if name == "ALM" else num_classes  # a chunk, or not
    check_objective(OBJECTIVES.get(name)(**settings), num_classes)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A folder with the temperatures of 4 steps of 8 rows."""
    folder = tmp_path_factory.mktemp("recorded")
    torch.save({"temperatures": torch.linspace(1.5, 20, 32).reshape(4, 8)}, folder / RECORD_FILE)
    return str(folder)


@pytest.mark.parametrize("num_classes", [2, 10])
@pytest.mark.parametrize(("name", "settings"), cases(TEMPERATURES))
def test_policies(name, settings, num_classes, recorded):
    torch.manual_seed(0)
    if name == "ReplayedTemperature":
        settings = {**settings, "run": recorded}
    if name == "InstanceTemperature":
        settings = {**settings, "num_classes": num_classes}
    policy = TEMPERATURES.get(name)(**settings).eval()  # batch normalization trains on >= 2 rows
    check_policy(policy, num_classes)
    for parameter in policy.parameters():  # as after some training: no weight is 0
        torch.nn.init.normal_(parameter, std=0.3)
    check_policy(policy, num_classes)


@pytest.mark.parametrize(("name", "settings"), [*cases(SCHEDULES), *cases(LR_SCHEDULES)])
def test_schedules(name, settings):
    registry = SCHEDULES if name in SCHEDULES else LR_SCHEDULES
    check_schedule(registry.get(name)(**settings))


@pytest.mark.parametrize("num_classes", [2, 10])
@pytest.mark.parametrize(("name", "settings"), cases(TRANSFORMS))
def test_transforms(name, settings, num_classes):
    transform = TRANSFORMS.get(name)(**settings)
    if getattr(transform, "needs_tokens", False):
        transform.fit(*[[bytes([97 + n]) for n in range(num_classes)]] * 2)
    check_transform(transform, num_classes)


@pytest.mark.parametrize(("name", "settings"), cases(FEATURES))
def test_feature_losses(name, settings):
    check_feature_loss(FEATURES.get(name)(**settings))


SOFTENING = [
    n
    for n in names(OBJECTIVES)
    if OBJECTIVES.get(n).needs_teacher and OBJECTIVES.get(n).uses_temperature
]
POSITIVE = {
    "AnnealedTemperature": ["start", "end"],
    "ConstantTemperature": ["temperature"],
    "ExactTemperature": ["tau_init", "tau_range", "rate", "start"],
    "GlobalTemperature": ["tau_init", "tau_range"],
    "InstanceTemperature": ["tau_init", "tau_range"],
    "SpreadTemperature": ["factor"],
    "InverseDifficultyTemperature": ["temperature"],
    "JSD": ["beta"],
    "ABKD": ["alpha", "beta"],
    "EAKD": ["entropy_temperature"],
    "SkewedKL": ["alpha"],
    "LinearLambda": ["epochs"],
    "CosineLambda": ["epochs"],
    "LogitStandardization": ["epsilon"],
    "SGD": ["lr", "gamma", "layer_decay"],
    "AdamW": ["lr", "eps", "layer_decay"],
    "Lion": ["lr", "layer_decay"],
    "TorchOptimizer": ["lr", "layer_decay"],
    "MultiStepLR": ["gamma"],
}


@pytest.mark.parametrize(
    ("registry", "name"),
    [(r, name) for r in ALL for name in names(r)],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_settings(registry, name, recorded):
    needed = {"InstanceTemperature": {"num_classes": 5}, "ReplayedTemperature": {"run": recorded}}
    required = needed.get(name, {})
    component, positive = registry.get(name), POSITIVE.get(name, ())
    check_settings(component, signed=["raw_init", "strength"], positive=positive, **required)


@pytest.mark.parametrize("name", SOFTENING)
@pytest.mark.parametrize("policy", [lambda _: GlobalTemperature(), InstanceTemperature])
def test_a_learned_temperature_climbs_every_objective(name, policy):
    """The policy's gradient is −λ times the gradient of the loss, for T 0-d and [N, 1]."""
    drawn = torch.Generator().manual_seed(0)
    classes = 2 if name == "ALM" else 10
    student, teacher = 3 * torch.randn(2, 6, classes, generator=drawn)
    targets = torch.randint(classes, (6,), generator=drawn)
    objective = OBJECTIVES.get(name)()
    policy = policy(classes)
    parameters = list(policy.parameters())
    distiller = Distiller(policy, ConstantLambda(0.25), objective)
    views = {}
    if objective.needs_strong_view:
        views = {"strong": (student.flip(1), teacher.flip(1))}
    outcome = distiller(student, teacher, targets, position=0.0, **views)
    actual = torch.autograd.grad(outcome.loss, parameters)
    if views:
        views["strong"] = StrongView(*views["strong"], *views["strong"], teacher)
    terms = objective(student, teacher, targets, policy(student, teacher, 0.0), **views)
    loss = sum(weight * terms[term].mean() for term, weight in objective.weights(0.0).items())
    for reversed_, plain in zip(actual, torch.autograd.grad(loss, parameters), strict=True):
        torch.testing.assert_close(reversed_, -0.25 * plain)
    assert any(gradient.any() for gradient in actual)
