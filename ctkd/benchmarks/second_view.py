"""What a second, strongly augmented view costs: steps with and without it, and making it alone."""

from ctkd.benchmarks.counts import split_name
from ctkd.benchmarks.step import BATCH, Pair
from ctkd.benchmarks.timing import Section, Work, in_turns, quartiles, ratios, spelled
from ctkd.results.compare.tables import Column, Table

ONE_VIEW = "KD, one view"


def measure_second_view(pair: Pair, rounds: int, block: int) -> Section:
    """Steps of KD, CRLD and MLKD in turns; with a warm cache the teacher's plain rows are read."""
    warm = ", plain rows in the cache"
    cases: dict[str, Work] = {
        ONE_VIEW: pair.ours(method="kd"),
        "CRLD": pair.ours(method="crld"),
        "MLKD": pair.ours(method="mlkd"),
        ONE_VIEW + warm: pair.ours(cache="warm", method="kd"),
        "CRLD" + warm: pair.ours(cache="warm", method="crld"),
    }
    batches = pair.ours(method="crld").batches
    cases["the plain views of a batch alone"] = lambda: next(batches).inputs
    cases["the strong views of a batch alone"] = lambda: next(batches).strong
    seconds = in_turns(cases, rounds, warm_up=1, repeat=block)
    rows, data = [], []
    for name, values in seconds.items():
        ratio = ratios(values, seconds[ONE_VIEW])
        speed = BATCH / quartiles(values)[1]
        rows.append([name, spelled(quartiles(values), 1e3), f"{speed:.0f}", spelled(ratio, 1, 2)])
        data.append(
            {"pair": pair.name, "case": name, "seconds": values, "images_per_s": speed}
            | {"ratio": ratio[1], "ratio_low": ratio[0], "ratio_high": ratio[2]}
        )
    columns = [Column("step"), Column("ms [quartiles]", "number"), Column("images/s", "number")]
    columns.append(Column(f"times as long as {ONE_VIEW}", "number"))
    title = f"A second view, {' → '.join(split_name(pair.name))}, batch {BATCH}"
    return Section("views", title, Table(columns, rows), data)
