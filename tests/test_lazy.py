"""Public names are imported when they are first used."""

import sys

import pytest

import ctkd
from ctkd.lazy import lazy_names


def test_a_name_is_looked_up_in_its_module():
    get = lazy_names("package", {"OrderedDict": "collections"})
    assert get("OrderedDict") is sys.modules["collections"].OrderedDict


def test_another_name_is_refused_as_python_would():
    get = lazy_names("package", {"a": "b"})
    with pytest.raises(AttributeError, match="module 'package' has no attribute 'c'"):
        get("c")


def test_the_package_offers_its_public_names():
    from ctkd.distiller import Distiller

    assert ctkd.Distiller is Distiller
    assert {"Distiller", "kd_loss", "GlobalTemperature", "CosineLambda"} <= set(ctkd.__all__)
    for name in ctkd.__all__:  # under the name that its module gives it
        assert name == "__version__" or getattr(ctkd, name).__name__ == name
    assert not hasattr(ctkd, "Distillery")


def test_importing_the_package_imports_no_torch(python):
    result = python("import ctkd, sys; print('torch' in sys.modules, ctkd.__version__)")
    assert result.out.split()[0] == "False"
