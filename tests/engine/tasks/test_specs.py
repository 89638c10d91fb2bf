"""Which module makes the task of a data set; kinds from outside (docs/extending.md runs one)."""

import pytest

from ctkd.data.digits import Digits
from ctkd.engine.tasks import images_in_memory as classification
from ctkd.engine.tasks import specs as tasks
from ctkd.errors import ConfigError


@pytest.fixture(autouse=True)
def _modules(monkeypatch):
    monkeypatch.setattr(tasks, "MODULES", dict(tasks.MODULES))


class Other(Digits):
    kind = "residant"


def test_a_kind_has_its_module():
    assert tasks.kind_of(Digits()) is classification
    tasks.register_kind("residant", classification.__name__)
    assert tasks.kind_of(Other()) is classification


def test_a_kind_that_nobody_registered_is_told():
    with pytest.raises(ConfigError, match="'residant'; did you mean resident"):
        tasks.kind_of(Other())


def test_a_kind_has_one_module():
    tasks.register_kind("resident", classification.__name__)  # once more is nothing new
    with pytest.raises(
        ConfigError, match="'resident' are made by ctkd.engine.tasks.images_in_memory"
    ):
        tasks.register_kind("resident", "my_pkg.pairs")
