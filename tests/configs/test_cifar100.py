"""Every CIFAR-100 file: it parses and builds, holds the published numbers, and its card too."""

import pathlib

import gin
import pytest

from ctkd.engine.config import parse as config
from ctkd.engine.config.builder import KnownNetworks
from ctkd.engine.job import Job
from ctkd.errors import ConfigError
from ctkd.results.compare.published import ALONE, PAIRS

KNOWN = KnownNetworks()  # each network is built once, and tried
FOLDER = pathlib.Path(__file__).parents[2] / "gin" / "cifar100"
DISTILLED = ["kd", "annealed", "ctkd", "ctkd_instance", "dkd", "dkd_ctkd"]
DISTILLED += ["standardized", "ctkd_standardized", "dtkd", "wttm", "dist"]
DISTILLED += ["nkd", "rld", "swap", "rc", "ttm", "normkd", "abkd", "reverse_kl", "jsd", "eakd"]
DISTILLED += ["dkd_standardized", "inverse_difficulty"]
LEARNED = ["nkd", "rld", "swap", "rc", "ttm", "wttm", "normkd", "abkd", "reverse_kl", "jsd"]
LEARNED += ["eakd", "dtkd", "dist", "dkd_standardized"]
DISTILLED += [f"ctkd_{method}" for method in LEARNED]
TWO_VIEWS = ["mlkd", "mlkd_standardized", "crld", "ctkd_mlkd", "ctkd_crld"]
DISTILLED += TWO_VIEWS
PAPER = ["pkt", "sp", "vid", "crd", "srrl"]  # the feature losses of CTKD's table
FEATURES = [*PAPER, "fitnet", "at", "rkd", "reviewkd", "simkd"]
DISTILLED += [*FEATURES, *(f"{kind}_{name}" for kind in ("kd", "ctkd") for name in PAPER)]
METHODS = ["vanilla", *DISTILLED, "teacher"]
NAMES = ["_".join(pair) for pair in PAIRS]
DEFAULT = ("resnet56", "resnet20")

GLOBAL = {"tau_init": 1.0, "tau_range": 20.0, "raw_init": 1.0}
COSINE = {"start": 0.0, "end": 1.0, "epochs": 10}
DECOUPLED = {"ce_weight": 1.0, "dkd_weight": 1.0, "alpha": 1.0, "beta": 2.0, "kd_weight": 0.0}
LS_RECIPE = {"Method.transform": "@LogitStandardization", "KD.ce_weight": 0.1}
LS_RECIPE |= {"KD.kd_weight": 9.0}

# DKD's β (mdistiller's), DTKD's α and β (its authors' files), WTTM's γ and β (its appendix A.4);
# for resnet110_resnet20 only WTTM's are published, for the last four only DKD's β (RLD's files).
BY_PAIR = {
    "resnet56_resnet20": (2, (1, 0.5), (0.3, 1.5)),
    "resnet110_resnet32": (2, (1, 0.5), (0.1, 1.5)),
    "resnet110_resnet20": (2, (1, 0.5), (0.2, 2)),
    "wrn_40_2_wrn_16_2": (6, (3, 1), (0.1, 4)),
    "wrn_40_2_wrn_40_1": (6, (1, 0.5), (0.1, 3)),
    "vgg13_vgg8": (6, (3, 1), (0.1, 2.25)),
    "resnet32x4_resnet8x4": (8, (3, 1), (0.1, 3)),
    "wrn_40_2_ShuffleV1": (8, (2, 0.5), (0.3, 3)),
    "vgg13_MobileNetV2": (6, (3, 1), (0.2, 3)),
    "ResNet50_MobileNetV2": (8, (3, 2), (0.2, 5)),
    "resnet32x4_ShuffleV1": (8, (3, 1), (0.2, 1.4)),
    "resnet32x4_ShuffleV2": (8, (3, 1), (0.4, 16)),
    "resnet32x4_wrn_16_2": (8, (3, 1), (0.1, 3)),
    "resnet32x4_wrn_40_2": (8, (3, 1), (0.1, 3)),
    "wrn_40_2_resnet8x4": (6, (3, 1), (0.1, 4)),
    "wrn_40_2_MobileNetV2": (6, (3, 1), (0.2, 3)),
}


# Base temperature and weight of KD + LS (the names of LS's logs); 2 and 9 for the other pairs.
STANDARDIZED = {
    "resnet110_resnet20": (4, 12),
    "ResNet50_MobileNetV2": (3, 1),
    **dict.fromkeys(("vgg13_vgg8", "vgg13_MobileNetV2", "wrn_40_2_MobileNetV2"), (3, 9)),
    **dict.fromkeys(("resnet32x4_wrn_16_2", "resnet32x4_wrn_40_2"), (3, 9)),
}


def build(method, pair=None, *bindings):
    files = [f"gin/cifar100/{method}.gin"]
    return Job(files + ([f"gin/cifar100/pairs/{pair}.gin"] if pair else []), bindings).build(
        meta=True, known=KNOWN
    )


def values(run):
    """All settings, whatever set they belong to."""
    return {name: value for part in run.settings.values() for name, value in part.items()}


def test_the_folder_holds_the_methods_and_the_sixteen_pairs():
    assert len(NAMES) == 16
    assert sorted(path.stem for path in FOLDER.glob("*.gin")) == sorted([*METHODS, "base"])
    assert sorted(path.stem for path in (FOLDER / "pairs").glob("*.gin")) == sorted(NAMES)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_holds_the_published_recipe(method):
    run = build(method)
    found = values(run)
    assert run.name == method
    assert run.dataset.num_classes == 100
    assert (run.recipe.epochs, run.recipe_epochs, run.recipe.batch_size) == (240, 240, 64)
    expected = {"lr": 0.05, "momentum": 0.9, "nesterov": False, "weight_decay": 5e-4, "gamma": 0.1}
    assert {name: found[f"SGD.{name}"] for name in expected} == expected
    assert found["SGD.milestones"] == [150, 180, 210]
    assert found["SGD.policy_weight_decay"] == 0.0
    assert found["cifar100.padding"] == 4
    assert found["cifar100.mean"] == [0.5071, 0.4867, 0.4408]
    assert found["cifar100.std"] == [0.2675, 0.2565, 0.2761]
    if method == "teacher":
        assert (found["Recipe.student"], found["Teacher.network"]) == ("@resnet56", None)
    else:
        assert (found["Teacher.network"], found["Recipe.student"]) == ("@resnet56", "@resnet20")


def test_methods_differ_in_the_method_alone():
    """So that their runs may stand in one table."""
    recipe = build("kd").settings["recipe"]
    for method in ("vanilla", "dkd_ctkd", "ctkd_instance", "ctkd_dist", "wttm", "rld"):
        assert build(method).settings["recipe"] == recipe


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("vanilla", {"CrossEntropy.ce_weight": 1.0}),
        ("kd", {"KD.ce_weight": 0.1, "KD.kd_weight": 0.9, "ConstantTemperature.temperature": 4.0}),
        ("annealed", {"AnnealedTemperature.start": 10.0, "AnnealedTemperature.end": 1.0}),
        ("ctkd", {"KD.ce_weight": 0.1, "KD.kd_weight": 0.9}),
        ("ctkd", {f"GlobalTemperature.{k}": v for k, v in GLOBAL.items()}),
        ("ctkd", {f"CosineLambda.{k}": v for k, v in COSINE.items()}),
        ("ctkd_instance", {"KD.kd_weight": 0.9, "InstanceTemperature.hidden": 256}),
        ("ctkd_instance", {"CosineLambda.epochs": 10}),
        ("dkd", {f"DKD.{k}": v for k, v in (DECOUPLED | {"warmup_epochs": 20}).items()}),
        ("dkd", {"ConstantTemperature.temperature": 4.0}),
        ("dkd_ctkd", {f"DKD.{k}": v for k, v in (DECOUPLED | {"warmup_epochs": 0}).items()}),
        ("dkd_ctkd", {"CosineLambda.epochs": 10}),
        ("standardized", LS_RECIPE | {"ConstantTemperature.temperature": 2.0}),
        ("ctkd_standardized", LS_RECIPE | {"GlobalTemperature.tau_init": 2.0}),
        ("ctkd_standardized", {"GlobalTemperature.tau_range": 40.0}),
        ("dtkd", {"DTKD.ce_weight": 1.0, "DTKD.dtkd_weight": 1.0, "DTKD.kd_weight": 0.5}),
        ("dtkd", {"DTKD.warmup_epochs": 20, "ConstantTemperature.temperature": 4.0}),
        ("wttm", {"WTTM.ce_weight": 1.0, "WTTM.wttm_weight": 1.5}),
        ("dist", {"DIST.ce_weight": 1.0, "DIST.inter_weight": 2.0, "DIST.intra_weight": 2.0}),
        ("dist", {"ConstantTemperature.temperature": 4.0}),
        ("nkd", {"NKD.ce_weight": 1.0, "NKD.gamma": 3.5, "ConstantTemperature.temperature": 3.0}),
        ("rld", {"RLD.ce_weight": 1.0, "RLD.alpha": 1.0, "RLD.alpha_temperature": 1.0}),
        ("rld", {"RLD.beta": 8.0, "RLD.warmup_epochs": 20, "ConstantTemperature.temperature": 4.0}),
        ("swap", {"SWAP.ce_weight": 0.0, "SWAP.kd_weight": 1.0}),
        ("rc", {"RC.ce_weight": 1.0, "RC.kd_weight": 1.0, "RC.rc_weight": 0.1}),
        ("ttm", {"TTM.ttm_weight": 45.0, "InverseTemperature.gamma": 0.1}),
        ("normkd", {"ConstantTemperature.temperature": 2.0, "NormKD.kd_weight": 0.9}),
        ("abkd", {"ABKD.alpha": 0.8, "ABKD.beta": 0.3, "ABKD.kd_weight": 32.0}),
        ("eakd", {"EAKD.max_entropy": 100.0, "EAKD.entropy_temperature": 3.0}),
        ("dkd_standardized", {"DKD.dkd_weight": 9.0, "DKD.alpha": 1.0, "DKD.beta": 2.0}),
        ("dkd_standardized", {"ConstantTemperature.temperature": 2.0, "DKD.warmup_epochs": 20}),
        ("ctkd_dkd_standardized", {"GlobalTemperature.tau_init": 2.0, "DKD.warmup_epochs": 0}),
        ("ctkd_rld", {"RLD.beta": 8.0, "RLD.warmup_epochs": 0, "CosineLambda.epochs": 10}),
        ("mlkd", {"MLKD.ce_weight": 0.1, "MLKD.kd_weight": 0.9, "MLKD.as_published": False}),
        ("mlkd", {"MLKD.class_weight": 0.9, "MLKD.batch_weight": 0.9}),
        ("mlkd_standardized", {"MLKD.kd_weight": 9.0, "MLKD.class_weight": 9.0}),
        ("mlkd_standardized", {"MLKD.batch_weight": 9.0, "MLKD.ce_weight": 0.1}),
        ("crld", {"CRLD.ce_weight": 1.0, "CRLD.within_weight": 2.0, "CRLD.across_weight": 0.5}),
        ("crld", {"CRLD.within_confidence": 0.9, "CRLD.across_confidence": 0.2}),
        *((m, {"StrongView.operations": 2, "StrongView.cutout": 0.5}) for m in TWO_VIEWS),
        *((f"ctkd_{m}", {"CosineLambda.epochs": 10}) for m in ("mlkd", "crld")),
    ],
)
def test_every_methods_own_numbers(method, expected):
    found = values(build(method))
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize("method", LEARNED)
def test_a_learned_variant_is_its_method_with_ctkds_policy(method):
    fixed, learned = (build(name).settings for name in (method, f"ctkd_{method}"))
    assert learned["method"]["Method.policy"] == "@GlobalTemperature"
    assert learned["method"]["CosineLambda.epochs"] == 10
    assert learned["recipe"] == fixed["recipe"]
    own = ("Method.policy", "Method.schedule")
    for name, value in fixed["method"].items():
        if name not in own and "Temperature." not in name and not name.endswith("warmup_epochs"):
            assert learned["method"][name] == value


@pytest.mark.parametrize(
    ("method", "heats"), [("mlkd", [4, 3, 5, 2, 6]), ("mlkd_standardized", [2, 3, 5, 2, 6])]
)
def test_the_five_temperatures_of_mlkd_are_the_published_ones(method, heats):
    found = values(build(method))
    assert [found["ConstantTemperature.temperature"] * r for r in found["MLKD.ratios"]] == heats


@pytest.mark.parametrize(("name", "pair"), list(zip(NAMES, PAIRS, strict=True)))
def test_every_pair_with_the_methods_that_depend_on_it(name, pair):
    teacher, student = pair
    light = student in ("MobileNetV2", "ShuffleV1", "ShuffleV2")
    beta, dtkd, (gamma, wttm) = BY_PAIR[name]
    expected = {
        "Teacher.network": f"@{teacher}",
        "Recipe.student": f"@{student}",
        "Teacher.published_accuracy": ALONE[teacher],
        "SGD.lr": 0.01 if light else 0.05,
    }
    own = {
        "dkd": {"DKD.beta": beta, "ConstantTemperature.temperature": 4.0},
        "dtkd": {"DTKD.dtkd_weight": dtkd[0], "DTKD.kd_weight": dtkd[1]},
        "wttm": {
            "WTTM.wttm_weight": wttm,
            "InverseTemperature.gamma": gamma,
        },
        "standardized": dict(
            zip(
                ("ConstantTemperature.temperature", "KD.kd_weight"),
                STANDARDIZED.get(name, (2, 9)),
                strict=True,
            )
        ),
    }
    for method, more in own.items():
        found, wanted = values(build(method, name)), expected | more
        assert {setting: found[setting] for setting in wanted} == wanted


@pytest.mark.parametrize("method", ["vanilla", *DISTILLED])
def test_every_method_with_every_pair_parses(method):
    """Building all of them takes a minute; one pair of other families than the default's is."""
    for name in NAMES:
        config.parse([f"gin/cifar100/{method}.gin", f"gin/cifar100/pairs/{name}.gin"], ())
        assert gin.query_parameter("DKD.beta") == BY_PAIR[name][0]
    run = build(method, "ResNet50_MobileNetV2")
    assert run.settings["recipe"]["Recipe.student"] == "@MobileNetV2"
    assert values(run)["SGD.lr"] == 0.01
    if method in ("kd", "dist"):  # a pair's WTTM touches no other method's T
        assert values(run)["ConstantTemperature.temperature"] == 4.0


def test_the_default_pairs_file_changes_nothing():
    for method in ("dkd_ctkd", "dtkd", "wttm", "standardized"):
        assert build(method, "_".join(DEFAULT)).settings == build(method).settings


def test_what_the_documented_overrides_do():
    run = build("teacher", None, "student = @wrn_40_2", "SGD.lr = 0.01")
    assert run.settings["recipe"]["Recipe.student"] == "@wrn_40_2"
    assert run.teacher_network is None
    run = build("ctkd", None, "cifar100.validation = 5000", "epochs = 24", "seed = 3")
    assert (run.recipe.epochs, run.recipe_epochs, run.seed) == (24, 240, 3)
    assert values(build("wttm", None, "wttm_gamma = 0.2"))["InverseTemperature.gamma"] == 0.2
    with pytest.raises(ConfigError, match="did you mean resnet56"):
        build("teacher", None, "student = @resnet65")


@pytest.mark.parametrize("method", ["kd", "ctkd_instance", "wttm"])
def test_cifar10_builds_with_ten_classes_and_the_same_macros(method):
    bindings = (
        "Recipe.dataset = @cifar10",
        "Teacher.published_accuracy = None",
        "data_dir = '/data/cifar10'",
        "download = True",
    )
    run = build(method, "wrn_40_2_ShuffleV1", *bindings)
    assert run.dataset.num_classes == 10
    assert run.student.linear.out_features == run.teacher_network.fc.out_features == 10
    assert values(run)["cifar10.data_dir"] == "/data/cifar10"
    assert values(run)["cifar10.download"] is True
    if method == "ctkd_instance":
        assert run.distiller.policy.num_classes == 10


@pytest.mark.parametrize("files", [("ctkd",), ("wttm", "pairs/wrn_40_2_ShuffleV1")])
def test_the_saved_configuration_builds_the_same_run(files, tmp_path):
    run = Job([f"gin/cifar100/{name}.gin" for name in files]).build(meta=True, known=KNOWN)
    saved = tmp_path / "config.gin"
    saved.write_text(run.config)
    gin.clear_config()
    assert Job([str(saved)]).build(meta=True, known=KNOWN).settings == run.settings
