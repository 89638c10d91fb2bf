import csv
import io

import pytest

from ctkd.errors import ConfigError, DataError
from ctkd.results.compare.methods import compare
from ctkd.results.compare.standings import notes, standings_table
from ctkd.results.compare.tables import to_csv, to_markdown
from ctkd.results.read.runs import read_run
from ctkd.results.read.select import select


@pytest.fixture
def runs(workdir):
    """Builds and reads runs: `runs(("kd", seed, last), …, **choices of build)`."""
    count = iter(range(1000))

    def make(*given, **choices):
        return [
            read_run(workdir(f"run{next(count)}", name=name, seed=seed, last=last, **choices))
            for name, seed, last in given
        ]

    return make


def row(result, method, pair="resnet56 → resnet20"):
    found = [each for each in result.standings if (each.pair, each.method) == (pair, method)]
    assert len(found) == 1
    return found[0]


KD = [("kd", 0, 70.0), ("kd", 1, 71.0), ("kd", 2, 72.0)]
CTKD = [("ctkd", 0, 71.0), ("ctkd", 1, 73.0), ("ctkd", 2, 75.0)]


def test_mean_std_difference_and_published_number(runs):
    result = compare(runs(*KD, *CTKD), baseline="kd")
    kd, ctkd = result.standings  # the baseline first
    assert (kd.method, ctkd.method) == ("kd", "ctkd")
    assert (kd.accuracy("last").mean, kd.accuracy("last").std) == (71.0, 1.0)
    assert kd.accuracy("best").mean == pytest.approx(71.3)
    assert kd.accuracy("chosen") is None
    assert kd.against is None
    assert (ctkd.against.difference, ctkd.against.n) == (2.0, 3)  # 1, 2, 3
    assert ctkd.against.p_value == pytest.approx(0.0742, abs=1e-4)
    assert (kd.published.value, ctkd.published.value) == (70.66, 71.19)
    assert (result.selection, result.runs) == (pytest.approx(0.3), 6)


def test_the_accuracy_shown_is_the_one_compared(runs):
    records = runs(*KD) + runs(*CTKD, gap=1.3)
    assert row(compare(records, "best", "kd"), "ctkd").against.difference == pytest.approx(3.0)
    assert row(compare(records, "last", "kd"), "ctkd").against.difference == pytest.approx(2.0)


def test_the_chosen_epoch_needs_a_validation_split(runs):
    split = runs(*KD, *CTKD, validation=True)
    chosen = row(compare(split, "chosen", "kd"), "kd").accuracy("chosen")
    assert chosen.mean == pytest.approx(71.2)
    with pytest.raises(ConfigError, match="has no validation split"):
        compare(runs(*KD), "chosen")
    with pytest.raises(ConfigError, match="expected one of last, best, chosen"):
        compare(split, "final")


def test_only_shared_seeds_are_paired_and_a_note_says_so(runs):
    result = compare(runs(*KD, ("ctkd", 1, 72.0), ("ctkd", 9, 60.0)), baseline="kd")
    ctkd = row(result, "ctkd")
    assert (ctkd.seeds, ctkd.against.seeds, ctkd.against.difference) == ((1, 9), (1,), 1.0)
    assert any("shares 1 of its 2 seeds with kd" in note for note in notes(result))


def test_a_note_says_why_there_is_no_paired_interval(runs):
    text = "".join(notes(compare(runs(*KD, ("ctkd", 7, 71.0), ("ctkd", 8, 73.0)), baseline="kd")))
    assert "No paired interval: no method shares two seeds with kd. Train all methods" in text
    assert "ctkd (resnet56 → resnet20) shares no seed with kd." in text
    assert "No paired interval" not in "".join(notes(compare(runs(*KD, *CTKD), baseline="kd")))
    assert "no baseline was given: --baseline ctkd" in "".join(notes(compare(runs(*CTKD, *KD))))


def test_each_recipe_of_a_pair_is_compared_by_itself(runs):
    other = {"recipe": {"Sgd.lr": 0.1, "Sgd.nesterov": True}}
    result = compare(
        runs(*KD, *CTKD) + runs(("kd", 0, 60.0), ("ctkd", 0, 61.0), **other), "last", "kd"
    )
    titles = list(dict.fromkeys(row.pair for row in result.standings))
    assert titles == [
        "resnet56 → resnet20, lr = 0.05, nesterov = (absent)",
        "resnet56 → resnet20, lr = 0.1, nesterov = true",
    ]
    found = [row(result, "ctkd", title).against for title in titles]
    assert [(each.difference, each.n) for each in found] == [(2.0, 3), (1.0, 1)]
    assert any("each recipe has its own comparison" in note for note in notes(result))
    assert not any("different recipes" in note for note in notes(compare(runs(*KD))))


def test_runs_are_chosen_by_a_setting_or_a_field(runs):
    records = runs(*KD) + runs(*CTKD, recipe={"Sgd.lr": 0.1})
    assert {run.name for run in select(records, ["lr=0.10"])} == {"ctkd"}
    assert len(select(records, ["Sgd.lr=0.05", "seed=1"])) == 1
    assert len(select(records, ["student=resnet20", "method=kd"])) == 3
    for condition, message in (
        ("epoch=10", "no setting is named 'epoch'; did you mean .*epochs"),
        ("lr=3", "no run has this value; lr is 0.05, 0.1"),
        ("lr", "expected NAME=VALUE, such as epochs=10"),
    ):
        with pytest.raises(ConfigError, match=message):
            select(records, [condition])


def test_equal_numbers_are_one_value_however_they_are_written(runs):
    records = runs(*KD, recipe={"Recipe.clip": 1}) + runs(*CTKD, recipe={"Recipe.clip": 1.0})
    assert len(compare(records).standings) == 2


def test_another_teacher_checkpoint_is_another_recipe_but_an_unknown_one_is_not(runs):
    other = runs(*CTKD, recipe={"Teacher.fingerprint": "ffff"})
    unknown = runs(("dkd", 0, 71.0), recipe={"Teacher.fingerprint": "absent"})
    assert len(compare(runs(*KD) + unknown).standings) == 2
    titles = {row.pair for row in compare(unknown + runs(*KD) + other).standings}
    assert titles == {f'resnet56 → resnet20, fingerprint = "{name}"' for name in ("a1b2", "ffff")}


def test_moved_data_and_other_devices_do_not_matter(runs):
    records = runs(*KD, *CTKD)
    records[3].settings.runtime["Runtime.device"] = "cuda"
    assert len(compare(records).standings) == 2


def test_runs_without_a_teacher_stand_in_every_group_of_their_student(runs):
    vanilla = runs(("vanilla", 0, 69.0), ("vanilla", 1, 69.2), policy=None)
    taught = runs(*KD) + runs(*CTKD, teacher="resnet110")
    result = compare(vanilla + taught, baseline="vanilla")
    for pair, method in (("resnet56 → resnet20", "kd"), ("resnet110 → resnet20", "ctkd")):
        assert row(result, "vanilla", pair).seeds == (0, 1)
        assert row(result, "vanilla", pair).published.value == 69.06
        assert row(result, method, pair).against.seeds == (0, 1)
    assert result.runs == 8  # each run once
    assert compare(vanilla).standings[0].pair == "resnet20 alone"


def test_pairs_may_differ_in_their_recipes(runs):
    other = {"student": "wrn_16_2", "teacher": "wrn_40_2", "recipe": {"Sgd.lr": 0.01}}
    result = compare(runs(*KD) + runs(*KD, **other), baseline="kd")
    assert row(result, "kd", "wrn_40_2 → wrn_16_2").published.value == 74.92


def test_two_runs_of_one_seed_are_refused_naming_both_folders(runs):
    records = runs(*KD, ("kd", 1, 70.9))
    with pytest.raises(ConfigError, match="have seed 1") as caught:
        compare(records)
    assert str(records[1].path) in str(caught.value)
    assert str(records[3].path) in str(caught.value)


def test_a_sweep_under_one_name_becomes_methods_of_their_own(runs):
    ends = ({"CosineLambda.high": 1.0}, {"CosineLambda.high": 2.0})
    sweep = [run for end in ends for run in runs(*CTKD, method=end)]
    result = compare(sweep + runs(*KD), baseline="kd")
    assert [each.method for each in result.standings] == [
        "kd",
        "ctkd (CosineLambda.high = 1)",
        "ctkd (CosineLambda.high = 2)",
    ]
    assert result.standings[1].published is None  # nobody knows which of them was published
    with pytest.raises(ConfigError, match=r"several methods; name one of: ctkd \(Cosine"):
        compare(sweep, baseline="ctkd")
    named = compare(sweep, baseline="ctkd (CosineLambda.high = 1)")
    assert named.standings[1].against.n == 3


def test_a_different_component_is_shown_by_its_name_and_not_by_its_settings(runs):
    """As after --gin_param 'Method.policy = @InstanceTemperature' under the same run's name."""
    one = {"Method.policy": "@One", "One.size": 1, "One.depth": 1}
    two = {"Method.policy": "@Two", "Two.width": 3}
    again = {"Method.policy": "@One", "One.size": 2, "One.depth": 1}
    result = compare([run for method in (one, two, again) for run in runs(*CTKD, method=method)])
    assert [each.method for each in result.standings] == [
        'ctkd (Method.policy = "@One", One.size = 1)',
        'ctkd (Method.policy = "@One", One.size = 2)',
        'ctkd (Method.policy = "@Two")',
    ]


def test_unfinished_runs_are_left_out_with_a_note(runs):
    result = compare(runs(*KD) + runs(("kd", 7, 10.0), finished=False))
    assert row(result, "kd").seeds == (0, 1, 2)
    assert any("Left out, not finished:" in n and "12 epochs done" in n for n in notes(result))
    with pytest.raises(ConfigError, match=r"no finished run to compare \(.*run4\)"):
        compare(runs(("kd", 0, 70.0), finished=False))
    with pytest.raises(ConfigError, match="no run given"):
        compare([])


def test_a_baseline_that_was_not_run_is_refused_with_the_nearest_name(runs):
    with pytest.raises(ConfigError, match=r"'ctk'; did you mean ctkd.*\(methods: ctkd, kd\)"):
        compare(runs(*KD, *CTKD), baseline="ctk")


def test_a_summary_without_an_accuracy_is_named(runs):
    with pytest.raises(DataError, match=r"summary\.json: expected a number under 'best_top1'"):
        compare(runs(("kd", 0, 70.0), summary={"best_top1": None}))


def test_detection_is_compared_by_its_own_metric(runs):
    ap = {"primary": "ap", "last_ap": 33.0, "best_ap": 33.4}
    assert row(compare(runs(("kd", 0, 0.0), summary=ap)), "kd").accuracy("last").mean == 33.0


def test_a_run_without_a_seed_cannot_be_paired(runs):
    (run,) = runs(("kd", None, 70.0), summary={"seed": None})
    with pytest.raises(ConfigError, match="its settings have no seed"):
        compare([run])


def test_the_table_for_readers_and_for_programs(runs):
    result = compare(runs(*KD, *CTKD), baseline="kd")
    table = standings_table(result)
    text = to_markdown(table)
    assert "| resnet56 → resnet20 | ctkd   |   3 | 73.00 ± 2.00 | 73.30 ± 2.00 | +2.00 |" in text
    assert "Shown: last, the last epoch's test accuracy." in text
    assert "over 6 runs the best test epoch is 0.30 points above the last epoch" in text
    assert "ctkd 5 (resnet56 → resnet20)" in text  # seeds needed for an effect of 2
    assert "The published runs have 240 epochs, these have 12." in text
    assert "CTKD (Li et al., AAAI 2023), best epoch" in text
    ours = list(csv.DictReader(io.StringIO(to_csv(table))))[1]
    assert float(ours["Δ kd"]) == 2.0
    assert float(ours["paired variance"]) == pytest.approx(1.0)
    assert float(ours["unpaired variance"]) == pytest.approx(5.0)
    assert ours["published"] == "71.19"
    assert standings_table(result, "resnet56 → resnet20").columns[0].title == "method"


def test_without_a_baseline_there_are_no_differences(runs):
    result = compare(runs(*KD, *CTKD))
    titles = [column.title for column in standings_table(result).columns]
    assert titles == ["pair", "method", "n", "last", "best", "published", "reports", "source"]
    assert not any("Seeds needed" in note for note in notes(result))


def test_one_seed_makes_no_claims(runs):
    result = compare(runs(KD[0], CTKD[0]), baseline="kd")
    assert "Seeds needed" in "".join(notes(result))
    assert "unknown, too few seeds" in "".join(notes(result))
    assert "| 71.00 |" in to_markdown(standings_table(result))
