"""Which task belongs to a data set; tasks from outside (docs/extending.md runs one)."""

import pytest

from ctkd.data.digits import Digits
from ctkd.engine.tasks import images_in_memory, specs
from ctkd.errors import ConfigError

OTHER = specs.TaskSpec(images_in_memory.make_task, lambda *arguments: None)


@pytest.fixture(autouse=True)
def _tasks(monkeypatch):
    monkeypatch.setattr(specs, "TASKS", dict(specs.TASKS))


class Other(Digits):
    kind = "residant"


def test_a_kind_has_its_spec():
    assert specs.spec_of(Digits()) is images_in_memory.SPEC
    specs.register_task("residant", OTHER)
    assert specs.spec_of(Other()) is OTHER
    specs.register_task("residant", OTHER)  # the same again changes nothing


def test_an_unknown_kind_is_an_error():
    with pytest.raises(ConfigError, match="'residant'; did you mean resident"):
        specs.spec_of(Other())


def test_a_kind_has_one_spec():
    with pytest.raises(ConfigError, match="'resident' have a task already"):
        specs.register_task("resident", OTHER)
