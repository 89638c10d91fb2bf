"""Registries: one decorator, the object left alone, modules imported when they are asked for."""

import pathlib

import gin
import pytest

from ctkd.errors import ConfigError
from ctkd.registry import (
    COMPONENTS,
    DATASETS,
    MODELS,
    OBJECTIVES,
    REGISTRIES,
    SCHEDULES,
    TEMPERATURES,
    TRANSFORMS,
    Registry,
    import_mentioned,
)

ROOT = pathlib.Path(__file__).parents[1]
FACTS = (  # the networks of facts.md's table, spelled as there
    "resnet8 resnet14 resnet20 resnet32 resnet44 resnet56 resnet110 resnet8x4 resnet32x4 "
    "wrn_16_1 wrn_16_2 wrn_40_1 wrn_40_2 vgg8 vgg11 vgg13 vgg16 vgg19 "
    "MobileNetV2 ShuffleV1 ShuffleV2 ResNet50"
).split()
# The namespace folder gin/ in the working directory answers `import gin`, as an empty module.
NO_GIN = """
import importlib.machinery, sys
class Folder:
    def find_spec(name, path=None, target=None):
        if name == "gin":
            return importlib.machinery.ModuleSpec("gin", None, is_package=True)
sys.meta_path.insert(0, Folder)
"""


@pytest.fixture
def registry():
    """A kind of its own, forgotten afterwards as far as Gin allows it."""
    made = Registry("gadget", "method", {"there": "ctkd.adversary.schedules"})
    yield made
    REGISTRIES.remove(made)
    for name in [n for n, component in COMPONENTS.items() if component.kind == "gadget"]:
        selector = next(s for s in gin.config._REGISTRY._selector_map if s.endswith(f".{name}"))
        gin.config._REGISTRY.pop(selector)
        del COMPONENTS[name]


def test_registering_leaves_the_object_as_it_was(registry):
    class Gadget:
        """Its own words."""

        def __init__(self, size: int = 1) -> None:
            self.size = size

    constructor, words = Gadget.__init__, Gadget.__doc__
    assert registry.register(Gadget) is Gadget
    assert (Gadget.__init__, Gadget.__doc__, Gadget.__name__) == (constructor, words, "Gadget")
    assert registry.get("Gadget") is Gadget
    gin.parse_config("Gadget.size = 5")
    assert Gadget().size == 1  # bindings reach the bound one only
    assert registry.component("Gadget").bound().size == 5


def test_a_name_of_its_own(registry):
    @registry.register("gizmo")
    def make(size: int = 2):
        return size

    assert registry.get("gizmo") is make
    assert make.__name__ == "make"
    assert "gizmo" in registry
    assert "make" not in registry
    gin.parse_config("gizmo.size = 7")
    assert registry.component("gizmo").bound() == 7


def test_what_is_bound_has_its_type_checked_and_keeps_its_signature(registry):
    @registry.register
    def sized_gadget(size: int = 2, label: str = "x"):
        """What it makes."""
        return size

    bound = registry.component("sized_gadget").bound
    assert bound.__doc__.startswith("What it makes.")
    gin.parse_config("sized_gadget.size = 'large'")
    with pytest.raises(ConfigError, match=r"sized_gadget\.size = 'large': expected a whole number"):
        bound()
    gin.clear_config()
    gin.parse_config("sized_gadget.size = 3")
    bound()
    assert "sized_gadget.label = 'x'" in gin.operative_config_str()  # the defaults are listed too


def test_a_name_that_is_taken_is_refused_whatever_the_kind(registry):
    @registry.register("taken_gadget")
    def first(): ...

    for name in ("taken_gadget", "CosineLambda"):
        SCHEDULES.component("CosineLambda")
        with pytest.raises(ConfigError, match=f"the name '{name}' is taken by the"):
            registry.register(name)(lambda: None)
    assert registry.get("taken_gadget") is first


def test_a_parameter_belongs_to_its_kinds_settings_unless_stated_otherwise(registry):
    @registry.register("gadget_a", runtime=("path",))
    def a(path: str = "", size: int = 1): ...

    @registry.register("gadget_b", settings="seed")
    def b(size: int = 1): ...

    assert registry.component("gadget_a").settings_of("path") == "runtime"
    assert registry.component("gadget_a").settings_of("size") == "method"
    assert registry.component("gadget_b").settings_of("size") == "seed"


def test_an_unknown_name_is_answered_with_the_nearest_and_all():
    with pytest.raises(ConfigError) as caught:
        OBJECTIVES.get("CrossEntropi")
    message = str(caught.value)
    assert message.startswith("no objective is named 'CrossEntropi'; did you mean CrossEntropy?")
    assert "DKD" in message
    assert "KD" in message


def test_a_listed_name_whose_module_does_not_define_it_is_refused(registry):
    with pytest.raises(ConfigError, match="no gadget is named 'there'"):
        registry.get("there")


def test_iteration_is_sorted_and_lists_built_in_and_added_names(registry):
    @registry.register("another_gadget")
    def make(): ...

    assert list(registry) == ["another_gadget", "there"]


@pytest.mark.parametrize(
    ("registry_", "names"),
    [
        (DATASETS, ["digits", "cifar100"]),
        (MODELS, [*FACTS, "digits_student", "digits_teacher"]),
        (TRANSFORMS, ["LogitStandardization"]),
        (
            TEMPERATURES,
            [
                "ConstantTemperature",
                "AnnealedTemperature",
                "GlobalTemperature",
                "InstanceTemperature",
            ],
        ),
        (SCHEDULES, ["ConstantLambda", "LinearLambda", "CosineLambda"]),
        (OBJECTIVES, ["CrossEntropy", "KD", "DKD"]),
    ],
)
def test_the_built_in_names_are_there_and_each_leads_to_its_object(registry_, names):
    assert set(names) <= set(registry_)
    for name in names:
        assert callable(registry_.get(name))
        assert registry_.component(name).name == name


def test_listing_names_imports_none_of_their_modules(python):
    result = python(
        "import sys; from ctkd.registry import REGISTRIES\n"
        "names = [name for registry in REGISTRIES for name in registry]\n"
        "print(len(names) > 30, [m for m in ('torch', 'torchvision', 'ctkd.models.wrn') "
        "if m in sys.modules])"
    )
    assert result.out.strip() == "True []"


def test_only_what_a_text_mentions_is_imported(python):
    result = python(
        "import sys; from ctkd.registry import import_mentioned\n"
        "import_mentioned('student = @wrn_16_2  Method.schedule = @CosineLambda')\n"
        "print(sorted(m for m in sys.modules if m.startswith(('ctkd.models.', 'ctkd.adversary.s', "
        "'ctkd.temperature.'))))"
    )
    loaded = eval(result.out)
    assert "ctkd.models.wrn" in loaded
    assert "ctkd.adversary.schedules" in loaded
    assert "ctkd.models.vgg" not in loaded
    assert not any(name.startswith("ctkd.temperature.") for name in loaded)


def test_mentioning_nothing_known_is_fine():
    import_mentioned("nothing = @of_the_kind")


def test_components_work_where_gin_config_is_not_installed(python):
    result = python(
        NO_GIN + "import gin\n"
        "from ctkd.registry import GIN_INSTALLED, MODELS, SCHEDULES, TEMPERATURES\n"
        "print(hasattr(gin, 'external_configurable'), GIN_INSTALLED)\n"
        "print(MODELS.get('resnet8x4')(num_classes=100).fc.out_features)\n"
        "print(SCHEDULES.component('CosineLambda').bound()(9.0), "
        "float(TEMPERATURES.get('ConstantTemperature')(temperature=4.0)(None, None, 0.0)))"
    )
    assert result.out.split() == ["False", "False", "100", "1.0", "4.0"], result.err


def test_adding_a_component_without_gin(python):
    result = python(
        "import sys; sys.modules['gin'] = None\n"
        "from ctkd.registry import OBJECTIVES\n"
        "@OBJECTIVES.register\nclass Mine: pass\n"
        "print(OBJECTIVES.get('Mine') is Mine, OBJECTIVES.component('Mine').bound is Mine)"
    )
    assert result.out.split() == ["True", "True"], result.err
