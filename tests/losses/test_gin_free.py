"""What works where gin-config is not installed; each case in a fresh interpreter."""

import subprocess
import sys
import textwrap

import pytest

# Hides the installed package, as either of the two ways in which gin can be missing.
HIDE = """
import importlib.machinery, sys

class Hide:
    def __init__(self, namespace):
        self.namespace = namespace
    def find_spec(self, name, path=None, target=None):
        if name == "gin" and self.namespace:
            spec = importlib.machinery.ModuleSpec("gin", None, is_package=True)
            spec.submodule_search_locations = [self.namespace]
            return spec
        if name.partition(".")[0] == "gin":
            raise ModuleNotFoundError("gin is hidden", name=name)

sys.meta_path.insert(0, Hide(sys.argv[1]))
"""


def run(code, *arguments):
    outcome = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert outcome.returncode == 0, outcome.stderr
    return outcome.stdout.split()


def test_the_tensor_functions_import_neither_gin_nor_the_registry():
    printed = run("""
        import sys
        import ctkd.losses.kd, ctkd.losses.dkd, ctkd.adversary.grl
        print("done", *[name for name in ("gin", "ctkd.registry") if name in sys.modules])
        import ctkd.registry
        print("then", *[name for name in ("gin", "ctkd.registry") if name in sys.modules])
    """)
    # The second line proves that the first could have held the names.
    assert printed == ["done", "then", "gin", "ctkd.registry"]


@pytest.mark.parametrize("how", ["missing", "an empty folder"])
def test_components_work_without_gin(how, tmp_path):
    printed = run(
        HIDE
        + textwrap.dedent("""
            import torch
            import ctkd.registry as registry
            from ctkd.adversary.schedules import CosineLambda
            from ctkd.temperature import GlobalTemperature

            assert not registry.GIN_INSTALLED
            assert ("gin" in sys.modules) == bool(sys.argv[1])
            logits = torch.zeros(2, 3)
            print(round(CosineLambda()(4.5), 6))
            print(round(GlobalTemperature()(logits, logits, 0.0).item(), 4))
            for kind in ("TRANSFORMS", "TEMPERATURES", "SCHEDULES", "OBJECTIVES"):
                for name in getattr(registry, kind):
                    print(getattr(registry, kind).get(name).__name__)
            assert registry.TEMPERATURES.get("GlobalTemperature") is GlobalTemperature
            assert registry.TEMPERATURES.component("GlobalTemperature").bound is GlobalTemperature
        """),
        str(tmp_path) if how == "an empty folder" else "",
    )
    assert printed[:2] == ["0.5", "15.6212"]
    built_in = {"LogitStandardization", "InstanceTemperature", "LinearLambda", "CrossEntropy"}
    assert built_in <= set(printed)
