"""Every COCO file: the published recipe, and that the methods differ in method alone."""

import pathlib

import pytest

from ctkd.engine.config.builder import KnownNetworks
from ctkd.engine.job import Job

KNOWN = KnownNetworks()  # each network is built once, and tried
ROOT = pathlib.Path(__file__).parents[2]
METHODS = ["vanilla", "kd", "ctkd", "ctkd_instance", "dkd", "dkd_ctkd"]
PAIRS = {
    "R101_R18": ("resnet101", "resnet18"),
    "R101_R50": ("resnet101", "resnet50"),
    "R50_MobileNetV2": ("resnet50", "mobilenet_v2"),
}


def build(*files, params=()):
    return Job([f"gin/coco/{name}.gin" for name in files], params).build(meta=True, known=KNOWN)


@pytest.mark.parametrize("method", METHODS)
def test_the_recipe_is_the_published_one(method):
    run = build(method)
    steps = run.recipe.epochs * run.recipe.steps_per_epoch
    assert (steps, run.recipe.batch_size) == (180_000, 8)
    assert (
        run.optimizers.student.lr,
        run.optimizers.student.momentum,
        run.optimizers.student.weight_decay,
    ) == (
        0.01,
        0.9,
        1e-4,
    )
    rates = {
        step: run.optimizers.lr(run.recipe.position(step, 1000))
        for step in (1000, 119_999, 120_000, 160_000)
    }
    assert rates == {1000: 0.01, 119_999: 0.01, 120_000: 0.001, 160_000: pytest.approx(1e-4)}
    dataset = run.dataset
    assert (min(dataset.short_sides), max(dataset.short_sides)) == (640, 800)
    assert dataset.num_classes == 81
    assert run.student.roi_heads.fg_bg_sampler.batch_size_per_image == 512


def test_dkd_has_the_published_weights():
    objective = build("dkd").distiller.objective
    assert objective.weights(0.0) == {"ce": 1.0, "tckd": 1.0, "nckd": 0.25}
    assert build("dkd_ctkd").distiller.objective.weights(0.0) == objective.weights(0.0)
    assert build("kd").distiller.objective.weights(0.0) == {"ce": 1.0, "kd": 1.0}


def test_a_shorter_run_passes_the_milestones_in_proportion():
    run = build("kd", params=["epochs = 18"])
    at = [run.recipe.position(step, 1000) for step in (12_000, 16_000, 18_000)]
    assert at == [120, 160, 180]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("pair", PAIRS)
def test_pairs_change_the_networks_under_any_method(method, pair):
    run = build(method, f"pairs/{pair}", params=["backbone_weights = 'IMAGENET1K_V1'"])
    teacher, student = (f"fasterrcnn_{name}_fpn" for name in PAIRS[pair])
    recipe = run.settings["recipe"]
    assert recipe["Recipe.student"] == f"@{student}"
    assert recipe["Teacher.network"] == f"@{teacher}"
    assert recipe[f"{student}.weights"] == "IMAGENET1K_V1"
    if run.teacher_network is not None:  # all its weights come from teacher_weights
        assert recipe[f"{teacher}.weights"] is None


def test_methods_differ_in_method_alone():
    recipes = [build(method).settings["recipe"] for method in METHODS if method != "vanilla"]
    assert all(recipe == recipes[0] for recipe in recipes)


@pytest.mark.parametrize("method", METHODS)
def test_the_sample_shrinks_any_method(method):
    run = build(method, "sample")
    assert run.recipe.epochs * run.dataset._counts[0] < 2000
    assert run.dataset.test_side <= 160
    assert run.student.roi_heads.fg_bg_sampler.batch_size_per_image <= 64
    assert run.student.transform.min_size == (run.dataset.test_side,)
    settings = run.settings["recipe"]
    assert settings["fasterrcnn_resnet18_fpn.weights"] is None  # nothing is downloaded
    assert all(parameter.requires_grad for parameter in run.student.parameters())


def test_the_samples_teacher_is_found_and_fits():
    run = build("ctkd", "sample")
    teacher = Job([run.teacher.run]).build(meta=True, known=KNOWN)
    ours = {k: v.shape for k, v in run.teacher_network.state_dict().items()}
    assert {k: v.shape for k, v in teacher.student.state_dict().items()} == ours


def test_a_classifier_is_refused():
    from ctkd.errors import ConfigError

    with pytest.raises(ConfigError, match="the student is a .*, no detector"):
        build("vanilla", params=["student = @resnet20"])
    with pytest.raises(ConfigError, match="the student tells 21 classes apart"):
        build("vanilla", params=["fasterrcnn_resnet18_fpn.num_classes = 21"])
