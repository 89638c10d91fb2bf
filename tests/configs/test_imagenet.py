"""Every ImageNet file: it parses and builds, holds the published numbers, and its card too."""

import pathlib
import re

import pytest

from ctkd.engine.config.builder import KnownNetworks
from ctkd.engine.job import Job
from ctkd.results.compare.published import lookup, lookup_all

KNOWN = KnownNetworks()  # each network is built once, and tried
FOLDER = pathlib.Path(__file__).parents[2] / "gin" / "imagenet"
DISTILLED = [
    "kd",
    "annealed",
    "ctkd",
    "ctkd_instance",
    "dkd",
    "dkd_ctkd",
    "reviewkd",
    "crd",
    "srrl",
]
DISTILLED += ["nkd", "dist", "normkd", "eakd", "crld"]
METHODS = ["vanilla", *DISTILLED, "teacher"]
PAIR = ("resnet34", "resnet18")


def card(path):
    """The comment that a file opens with, as one line of words."""
    text = path.read_text(encoding="utf-8")
    return re.sub(r"\s+", " ", " ".join(re.match(r"(#.*\n)+", text)[0].split("#")))


def build(method, *files, bindings=()):
    names = [f"gin/imagenet/{name}.gin" for name in (method, *files)]
    return Job(names, bindings).build(meta=True, known=KNOWN)


def values(run):
    """All settings, whatever set they belong to."""
    return {name: value for part in run.settings.values() for name, value in part.items()}


def test_the_folder_holds_the_methods_the_other_pair_and_the_sample():
    assert {p.stem for p in FOLDER.glob("*.gin")} == {*METHODS, "base", "sample", "teacher_sample"}
    pairs = sorted(p.stem for p in (FOLDER / "pairs").glob("*.gin"))
    assert pairs == ["resnet50_MobileNetV1", "swin_t_resnet18"]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_holds_the_published_recipe(method):
    run = build(method)
    found = values(run)
    assert (run.recipe.epochs, run.recipe_epochs, run.recipe.batch_size) == (120, 120, 256)
    expected = {"lr": 0.1, "momentum": 0.9, "nesterov": False, "weight_decay": 1e-4, "gamma": 0.1}
    assert {name: found[f"SGD.{name}"] for name in expected} == expected
    assert found["SGD.milestones"] == [30, 60, 90]
    assert found["SGD.policy_weight_decay"] == 0.0
    assert [run.optimizers.lr(e) for e in (0, 29.9, 30, 60, 90)] == pytest.approx(
        [0.1, 0.1, 0.01, 0.001, 0.0001]
    )
    assert (found["imagenet.size"], found["imagenet.resize"]) == (224, 256)
    assert found["imagenet.scale"] == [0.08, 1.0]
    assert found["imagenet.mean"] == [0.485, 0.456, 0.406]
    assert found["Recipe.sync_batch_norm"] is False
    if method != "teacher":
        assert (found["Teacher.network"], found["Recipe.student"]) == ("@resnet34", "@resnet18")


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("kd", {"KD.ce_weight": 1.0, "KD.kd_weight": 1.0, "ConstantTemperature.temperature": 4.0}),
        ("ctkd", {"CosineLambda.epochs": 5, "CosineLambda.end": 1.0, "KD.kd_weight": 1.0}),
        ("ctkd_instance", {"CosineLambda.epochs": 5, "InstanceTemperature.tau_range": 20.0}),
        ("dkd", {"DKD.alpha": 1.0, "DKD.beta": 0.5, "DKD.warmup_epochs": 1}),
        ("dkd", {"ConstantTemperature.temperature": 1.0}),
        ("nkd", {"NKD.gamma": 1.5, "ConstantTemperature.temperature": 1.0}),
        ("dist", {"DIST.inter_weight": 2.0, "ConstantTemperature.temperature": 1.0}),
        ("normkd", {"NormKD.kd_weight": 0.5, "ConstantTemperature.temperature": 1.0}),
        ("eakd", {"EAKD.entropy_temperature": 2.0, "EAKD.max_entropy": None}),
        ("dkd_ctkd", {"DKD.alpha": 1.0, "DKD.beta": 1.0, "DKD.warmup_epochs": 0}),
    ],
)
def test_every_methods_own_numbers(method, expected):
    found = values(build(method))
    assert {name: found[name] for name in expected} == expected


PAIRS = ("pairs/resnet50_MobileNetV1", "pairs/swin_t_resnet18")


@pytest.mark.parametrize("files", [(), ("sample",), *((pair,) for pair in PAIRS)])
def test_methods_differ_in_the_method_alone(files):
    recipe = build("kd", *files).settings["recipe"]
    for method in ("vanilla", "annealed", "ctkd_instance", "dkd", "dkd_ctkd"):
        assert build(method, *files).settings["recipe"] == recipe


def test_the_other_pair_has_mdistillers_recipe():
    run = build("dkd", "pairs/resnet50_MobileNetV1")
    found = values(run)
    assert (found["Teacher.network"], found["Recipe.student"]) == ("@resnet50", "@MobileNetV1")
    assert (run.recipe.epochs, run.recipe_epochs, run.recipe.batch_size) == (100, 100, 512)
    assert run.optimizers.lr(0) == pytest.approx(0.2)
    assert found["DKD.beta"] == 2.0


def test_the_rate_follows_the_batch():
    for size in (64, 256, 1024):
        run = build("ctkd", bindings=(f"batch_size = {size}",))
        assert run.optimizers.lr(0) == pytest.approx(0.1 * size / 256)
    fixed = build("ctkd", bindings=("batch_size = 64", "SGD.lr_batch_size = None"))
    assert fixed.optimizers.lr(0) == 0.1


@pytest.mark.parametrize("method", ["vanilla", *DISTILLED])
def test_the_sample_shrinks_every_method(method):
    run = build(method, "sample")
    assert (run.recipe.epochs, run.recipe_epochs, run.dataset.num_classes) == (15, 120, 10)
    assert run.dataset.shape == (3, 64, 64)
    assert run.student.fc.out_features == 10
    # 32 of 256: the rate in proportion
    assert run.optimizers.lr(0) == pytest.approx(0.0125)
    if run.teacher_network is not None:
        assert (run.teacher.weights, run.teacher.run) == (None, "gin/imagenet/teacher_sample.gin")
        teacher = Job([run.teacher.run]).build(meta=True, known=KNOWN)
        theirs, ours = teacher.student.state_dict(), run.teacher_network.state_dict()
        assert {k: v.shape for k, v in theirs.items()} == {k: v.shape for k, v in ours.items()}
        assert teacher.seed > 1000


def test_the_sample_stands_on_the_other_pair_too():
    run = build("dkd", "pairs/resnet50_MobileNetV1", "sample")
    assert values(run)["Recipe.student"] == "@resnet18"
    assert (run.recipe.epochs, run.recipe_epochs, run.recipe.batch_size) == (15, 120, 32)


@pytest.mark.parametrize("method", METHODS)
def test_method_cards_quote_the_published_numbers(method):
    text = card(FOLDER / f"{method}.gin")
    assert f"python -m ctkd.main --gin_file=gin/imagenet/{method}.gin" in text
    opening = " ".join((FOLDER / f"{method}.gin").read_text().splitlines()[:3])
    assert "data_dir" in opening
    assert ("teacher_weights" in opening) == (method not in ("vanilla", "teacher"))
    numbers = lookup_all(*PAIR, method, "imagenet")
    assert all(f"{number.value:.2f}" in text for number in numbers)
    if numbers and numbers[0].reports == "best":
        assert f"{numbers[0].value:.2f}, the best test epoch" in text


def test_the_pairs_card_quotes_the_published_numbers():
    text = card(FOLDER / "pairs" / "resnet50_MobileNetV1.gin")
    for method in ("vanilla", "kd", "dkd"):
        assert f"{lookup('resnet50', 'MobileNetV1', method, 'imagenet').value:.2f}" in text


@pytest.mark.parametrize("network", ["wide_resnet50_2", "torchvision_vgg16", "mobilenet_v2"])
def test_any_of_torchvisions_networks_is_teacher_or_student(network):
    bindings = (f"student = @{network}", f"teacher = @{network}")
    run = build("ctkd", bindings=bindings)
    assert values(run)["Recipe.student"] == values(run)["Teacher.network"] == f"@{network}"


def test_the_saved_configuration_builds_the_same_run(tmp_path):
    run = build("dkd_ctkd", "sample", bindings=("teacher = @torchvision_resnet34",))
    saved = tmp_path / "config.gin"
    saved.write_text(run.config)
    assert Job([str(saved)]).build(meta=True, known=KNOWN).settings == run.settings
