import csv
from importlib.resources import files

import pytest

from ctkd.results.compare.published import ALONE, PAIRS, lookup, lookup_all

PAIR = ("resnet56", "resnet20")


def test_the_sixteen_pairs_are_complete_for_kd_ctkd_and_dkd():
    assert len(set(PAIRS)) == 16
    for teacher, student in PAIRS:
        assert {teacher, student} <= ALONE.keys()
        for method in ("vanilla", "kd", "ctkd", "dkd"):
            assert 60 < lookup(teacher, student, method).value < 80


@pytest.mark.parametrize(
    ("teacher", "student", "method", "value"),
    [
        (*PAIR, "kd", 70.66),
        (*PAIR, "dkd_ctkd", 71.65),
        (None, "resnet20", "vanilla", 69.06),
        ("vgg13", "MobileNetV2", "standardized", 68.61),
        ("wrn_40_2", "ShuffleV1", "kd", 74.83),
        ("resnet32x4", "ShuffleV2", "ctkd_standardized", 76.18),
        ("resnet32x4", "wrn_40_2", "mlkd_standardized", 79.66),
        ("wrn_40_2", "resnet8x4", "dkd_standardized", 76.75),
        ("resnet110", "resnet20", "kd", 70.67),
        ("vgg13", "MobileNetV2", "at", 59.40),
        ("ResNet50", "MobileNetV2", "crd", 69.11),
        ("resnet32x4", "ShuffleV1", "ttm", 74.18),
        ("resnet32x4", "resnet8x4", "simkd", 78.08),
    ],
)
def test_spot_values(teacher, student, method, value):
    assert lookup(teacher, student, method).value == value


def test_which_accuracy_a_number_reports():
    assert lookup(*PAIR, "kd").reports == "last"
    assert {lookup(*PAIR, m).reports for m in ("ctkd", "dkd", "standardized")} == {"best"}
    assert {lookup(*PAIR, m).reports for m in ("vanilla", "dist", "wttm")} == {None}


def test_dkd_comes_from_its_own_recipe_and_from_ctkds_rerun():
    ours, rerun = lookup_all(*PAIR, "dkd")
    assert (ours.value, rerun.value) == (71.97, 71.43)
    assert "mdistiller" in ours.source
    assert "CTKD" in rerun.source


def test_dist_has_the_number_of_its_own_readme_and_that_of_wttms_table():
    own, table = lookup_all("wrn_40_2", "wrn_40_1", "dist")
    assert (own.value, table.value) == (74.43, 74.73)
    assert "DIST" in own.source
    assert ("WTTM" in table.source, table.runs) == (True, 5)


def test_every_row_of_the_file_has_a_source_and_a_plausible_value():
    text = (files("ctkd.results.compare") / "published.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    assert len(rows) == 346
    keys = [(*list(row.values())[:4], row["source"]) for row in rows]
    assert len(set(keys)) == len(keys)
    for row in rows:
        assert None not in row.values()
        assert row["source"]
        assert 58 < float(row["value"]) < 80
        assert row["reports"] in ("", "best", "last")
        assert int(row["epochs"]) in (100, 120, 240, 480)


def test_nothing_is_invented():
    assert lookup("wrn_40_2", "ShuffleV1", "standardized") is None
    assert lookup("vgg13", "vgg8", "dkd_ctkd") is None
    assert lookup(*PAIR, "ctkd_instance") is None
    assert lookup("resnet20", "resnet56", "kd") is None
    assert lookup(None, "resnet20", "kd") is None
    assert lookup(*PAIR, "kd", dataset="cifar10") is None
    assert lookup(None, "digits_student", "vanilla", dataset="digits") is None


def test_imagenet():
    pair = ("resnet34", "resnet18")
    assert lookup(*pair, "ctkd", "imagenet").value == 71.32
    assert [number.value for number in lookup_all(*pair, "dkd", "imagenet")] == [71.13, 71.70]
    assert lookup(*pair, "kd", "imagenet").epochs == 120
    assert lookup("resnet50", "resnet18", "kd", "imagenet") is None
    assert lookup("resnet50", "MobileNetV1", "dkd", "imagenet").value == 72.05
    assert lookup("resnet50", "MobileNetV1", "ctkd", "imagenet") is None
    assert lookup(None, "MobileNetV1", "vanilla", "imagenet").value == 68.87
    assert lookup(None, "resnet18", "vanilla", "imagenet").value == 70.26
