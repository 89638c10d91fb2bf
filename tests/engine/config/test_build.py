"""One Run from Gin's configuration: each configurable called once, on shared first weights."""

import gin
import pytest
import torch
from torch import nn

from ctkd.engine.config.builder import KnownNetworks
from ctkd.engine.job import Job
from ctkd.errors import ConfigError
from ctkd.losses.objectives import KD
from ctkd.registry import COMPONENTS, MODELS, OBJECTIVES, TEMPERATURES

DIGITS = "gin/digits/{}.gin"
CALLS = []


@MODELS.register("counted_network_of_test_build")
def counted_network(num_classes: int, width: int = 3) -> nn.Module:
    CALLS.append((num_classes, width))
    return nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))


@MODELS.register("particular_network_of_test_build")
def particular_network(num_classes: int) -> nn.Module:
    """As torchvision's vision transformers look at their images."""

    class Particular(nn.Linear):
        def forward(self, images):
            torch._assert(images.shape[2] == 224, "Wrong image height!")

    return Particular(64, num_classes)


@MODELS.register("listing_network_of_test_build")
def listing_network(num_classes: int) -> nn.Module:
    """As detectors answer."""

    class Listing(nn.Linear):
        def forward(self, images):
            return list(super().forward(images.flatten(1)))

    return Listing(64, num_classes)


@MODELS.register("wide_network_of_test_build")
def wide_network() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 7))


@MODELS.register("convolutional_network_of_test_build")
def convolutional_network(num_classes: int, classes: int = 10) -> nn.Module:
    """A network without a linear layer, which would give the number of classes."""
    return nn.Sequential(nn.Conv2d(1, classes, 8), nn.Flatten())


@OBJECTIVES.register("counted_kd_of_test_build")
class CountedKD(KD):
    def __init__(self, label: str) -> None:
        super().__init__()
        CALLS.append(label)


@pytest.fixture(autouse=True)
def _fresh():
    CALLS.clear()


def build(method, *bindings, meta=False):
    return Job([DIGITS.format(method)], bindings).build(meta=meta)


def weights(module):
    return module.state_dict()


def refused(method, *bindings):
    with pytest.raises(ConfigError) as caught:
        build(method, *bindings)
    return str(caught.value)


def test_each_configurable_is_called_exactly_once():
    run = build(
        "ctkd",
        "student = @counted_network_of_test_build",
        "counted_network_of_test_build.width = 5",
        "Method.objective = @counted_kd_of_test_build",
        "counted_kd_of_test_build.label = 'mine'",
    )
    assert sorted(CALLS, key=str) == [(10, 5), "mine"]
    assert isinstance(run.distiller.objective, CountedKD)
    assert run.settings["recipe"]["counted_network_of_test_build.width"] == 5
    assert run.settings["method"]["counted_kd_of_test_build.label"] == "mine"


def test_a_required_value_that_is_missing_is_named():
    message = refused("kd", "Method.objective = @counted_kd_of_test_build")
    assert message == "counted_kd_of_test_build.label must be set: it has no default"
    message = refused("kd", "SGD.lr = %gin.REQUIRED")
    assert message == "SGD.lr must be set: it has no default"


def test_parts_are_built_as_the_files_say():
    run = build("ctkd", "GlobalTemperature.raw_init = 0.0", "epochs = 7", "seed = 3")
    assert run.name == "ctkd"
    assert (run.recipe.epochs, run.recipe_epochs, run.seed) == (7, 7, 3)
    assert run.distiller.policy(None, None, 0.0).item() == pytest.approx(11.0)
    assert (run.distiller.objective.ce_weight, run.distiller.objective.kd_weight) == (0.1, 0.9)
    assert build("ctkd", "recipe_epochs = 240").recipe_epochs == 240
    assert build("ctkd", "Runtime.name = 'mine'").name == "mine"


def test_the_four_sets_hold_every_value_that_was_used_and_no_other():
    run = build("dkd_ctkd", "digits.padding = 2")
    assert set(run.settings) == {"method", "recipe", "seed", "runtime"}
    method, recipe = run.settings["method"], run.settings["recipe"]
    assert method["Method.objective"] == "@DKD"
    assert method["DKD.beta"] == 2.0
    assert method["CosineLambda.epochs"] == 10.0  # a default counts too
    assert not any(name.startswith(("KD.", "ConstantTemperature.")) for name in method)
    assert recipe["Recipe.student"] == "@digits_student"
    assert recipe["digits.padding"] == 2
    assert run.settings["seed"] == {"Seed.seed": 0}
    assert {"Runtime.device", "Teacher.weights", "Runtime.workers"} <= set(run.settings["runtime"])
    assert not any("num_classes" in name for values in run.settings.values() for name in values)


@pytest.mark.parametrize("method", ["vanilla", "ctkd_instance", "dkd"])
def test_the_saved_configuration_builds_the_same_run_again(method, tmp_path):
    run = build(method, "SGD.lr = 0.0625", "epochs = 3", "Instrument.points = 9")
    (tmp_path / "config.gin").write_text(run.config)
    again = Job([str(tmp_path / "config.gin")]).build()
    assert again.settings == run.settings
    assert again.name == method
    first, second = weights(run.student), weights(again.student)
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_methods_of_one_seed_share_first_weights(same):
    students = [build(m).student for m in ("vanilla", "kd", "ctkd_instance", "dkd_ctkd")]
    for other in students[1:]:
        assert same(weights(students[0]), weights(other))
    policies = [build("ctkd_instance", f"SGD.lr = {lr}").distiller.policy for lr in (0.1, 0.2)]
    assert same(weights(policies[0]), weights(policies[1]))


def test_another_seed_gives_other_first_weights_and_the_global_generator_has_no_say(same):
    torch.manual_seed(1)
    first = build("kd").student
    torch.manual_seed(2)
    assert same(weights(first), weights(build("kd").student))
    other = weights(build("kd", "seed = 1").student)
    assert not torch.equal(first.classifier.weight, other["classifier.weight"])


def test_student_and_teacher_of_one_kind_begin_differently_and_use_no_global_generator():
    before = torch.get_rng_state()
    run = build("ctkd_instance", "teacher = @digits_student")
    student, teacher = weights(run.student), weights(run.teacher_network)
    assert not torch.equal(student["classifier.weight"], teacher["classifier.weight"])
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("method", ["vanilla", "ctkd", "ctkd_instance"])
def test_on_the_meta_device_no_network_has_memory(method):
    run = build(method, meta=True)
    modules = [run.student, *filter(None, [run.teacher_network])]
    tensors = [t for m in modules for t in (*m.parameters(), *m.buffers())]
    assert tensors
    assert all(tensor.is_meta for tensor in tensors)


def test_on_the_meta_device_classes_are_compared_with_and_without_a_linear_layer():
    for network in ("wide_network_of_test_build", "convolutional_network_of_test_build"):
        bindings = [f"student = @{network}"]
        if network.startswith("conv"):
            build("kd", *bindings, meta=True)
            bindings.append(f"{network}.classes = 7")
        with pytest.raises(ConfigError, match="the student tells 7 classes apart"):
            build("kd", *bindings, meta=True)


def test_networks_that_are_known_are_built_once_and_the_settings_are_the_same():
    known, counted = KnownNetworks(), "student = @counted_network_of_test_build"
    first = Job([DIGITS.format("ctkd")], [counted]).build(meta=True, known=known)
    second = Job([DIGITS.format("ctkd")], [counted, "seed = 1"]).build(meta=True, known=known)
    assert CALLS == [(10, 3)]
    assert second.student is first.student
    assert second.settings["recipe"] == first.settings["recipe"]
    wider = [counted, "counted_network_of_test_build.width = 4"]
    third = Job([DIGITS.format("ctkd")], wider).build(meta=True, known=known)
    assert CALLS == [(10, 3), (10, 4)]
    assert third.student is not first.student


def test_a_known_network_that_does_not_fit_is_refused_each_time():
    known = KnownNetworks()
    for _ in range(2):
        with pytest.raises(ConfigError, match="the student tells 7 classes apart"):
            Job([DIGITS.format("kd")], ["student = @wide_network_of_test_build"]).build(
                meta=True, known=known
            )


def test_networks_follow_the_data_set_in_their_number_of_classes():
    run = build("ctkd_instance", meta=True)
    assert run.distiller.policy.num_classes == 10
    assert run.student.classifier.out_features == 10


def test_a_run_without_distillation_has_no_teacher():
    run = build("vanilla")
    assert run.teacher_network is None
    assert run.distiller.policy is None
    assert build("kd").teacher_network is not None


@pytest.mark.parametrize(
    ("bindings", "expected"),
    [
        (
            ["student = @KD"],
            "Recipe.student = '@KD': expected a network: MobileNetV1, ",
        ),
        (["Method.objective = @digits"], "Method.objective = '@digits': expected a objective|an"),
        (["Method.policy = 'GlobalTemperature'"], "Method.policy = 'GlobalTemperature': expected"),
        (["Method.objective = None"], "Method.objective = None: expected an objective"),
        (["Method.policy = None"], "KD compares logits: it needs a temperature policy"),
        (["Method.policy = @GlobalTemperature"], "a learned temperature needs a schedule of λ"),
        (["Method.schedule = @CosineLambda"], "a schedule of λ works on a learned temperature"),
        (["teacher = None"], "the objective KD needs a teacher: set Teacher.network"),
        (["digits_student.num_classes = 7"], "the student tells 7 classes apart, the data set has"),
        (["digits_teacher.num_classes = 9"], "the teacher tells 9 classes apart"),
        (["student = @wide_network_of_test_build"], "the student tells 7 classes apart"),
        (["student = @resnet8"], "the student cannot take images of 1 × 8 × 8"),
        (["student = @particular_network_of_test_build"], "the student cannot take images of"),
        (["student = @listing_network_of_test_build"], "makes <class 'list'> of 2 images: exp"),
        (["student = @digits_student()"], "Recipe.student is a DigitsCNN that was made already"),
        (["DKD.beta = 2.0"], "'DKD.beta = 2.0' changes nothing: this run uses only "),
        (["Recipe.batch_size = '64'"], "Recipe.batch_size = '64': expected a whole number"),
        (["KD.kd_weight = -1.0"], "KD.kd_weight = -1.0: expected"),
        (["SGD.milestones = 0.6"], "SGD.milestones = 0.6: expected a list of a number"),
        (["Runtime.precision = 'float8'"], "Runtime.precision = 'float8': expected one of"),
    ],
)
def test_what_does_not_fit_is_refused(bindings, expected):
    assert any(part in refused("kd", *bindings) for part in expected.split("|"))


def test_a_policy_for_another_number_of_classes_is_refused():
    message = refused("ctkd_instance", "InstanceTemperature.num_classes = 7")
    assert "num_classes" in message
    assert "7" in message


def test_the_teacher_of_a_run_that_needs_none_may_be_anything():
    assert build("vanilla", "digits_teacher.num_classes = 10").teacher_network is None


def test_a_binding_of_a_macro_or_of_a_used_component_has_an_effect():
    build("kd", "seed = 1", "ctkd.objective.KD.ce_weight = 0.2", "epochs=3")
    assert gin.query_parameter("KD.ce_weight") == 0.2


def test_checking_the_classes_leaves_mode_and_statistics():
    run = build("kd")
    assert run.student.training
    assert all(
        torch.equal(buffer, torch.zeros_like(buffer))
        for name, buffer in run.student.named_buffers()
        if name.endswith(("running_mean", "num_batches_tracked"))
    )


def test_every_component_of_the_frame_can_be_bound():
    for registry in (TEMPERATURES, OBJECTIVES, MODELS):
        for name in registry:
            registry.component(name)
            assert name in COMPONENTS
