"""What each feature loss adds to a training step with logits only."""

from ctkd.benchmarks.counts import split_name
from ctkd.benchmarks.step import Pair
from ctkd.benchmarks.timing import Section, Work, in_turns, quartiles, ratios, spelled
from ctkd.registry import FEATURES
from ctkd.results.compare.tables import Column, Table

PLAIN = "logits only"


def measure_feature_losses(pair: Pair, rounds: int, block: int) -> Section:
    """A step of KD with each feature loss, over the step without it; no teacher row is cached."""
    cases: dict[str, Work] = {PLAIN: pair.ours("compile = False", method="kd")}
    for name in FEATURES:
        added = f"Method.features = [@{name}]"
        cases[name] = pair.ours("compile = False", added, method="kd")
    seconds = in_turns(cases, rounds, warm_up=1, repeat=block)
    rows, data = [], []
    for name, values in seconds.items():
        ratio = ratios(values, seconds[PLAIN])
        rows.append([name, spelled(quartiles(values), 1e3), spelled(ratio, 1, 3)])
        data.append({"pair": pair.name, "case": name, "seconds": values, "ratio": ratio[1]})
    columns = [Column("feature loss"), Column("ms [quartiles]", "number")]
    columns.append(Column("times the step with logits only", "number"))
    title = f"Feature losses, {' → '.join(split_name(pair.name))}"
    return Section("features", title, Table(columns, rows), data)
