import io

import pytest

from ctkd.results.compare.statistics import MeanStd
from ctkd.results.compare.tables import (
    Column,
    Table,
    print_table,
    to_csv,
    to_latex,
    to_markdown,
)

TABLE = Table(
    columns=[
        Column("method"),
        Column("n", "count"),
        Column("last", "spread"),
        Column("Δ kd", "change"),
        Column("95 % interval", "interval"),
        Column("p", "p"),
        Column("variance", "number", data_only=True),
    ],
    rows=[
        ["dkd_ctkd", 3, MeanStd(3, 71.2345, 0.078), 0.5, (-0.25, 1.25), 0.0004, 0.125],
        ["a|b & _c_", 1, MeanStd(1, 70.0, None), None, None, None, None],
    ],
    notes=["50 % of *all*"],
)


def test_markdown():
    lines = to_markdown(TABLE).splitlines()
    heads = [head.strip() for head in lines[0].strip("|").split("|")]
    assert heads == ["method", "n", "last", "Δ kd", "95 % interval", "p"]
    assert len({len(line) for line in lines[:4]}) == 1
    assert lines[1].replace("-", "") == "|  | : | : | : | : | : |"
    cells = [cell.strip() for cell in lines[2].split(" | ")]
    assert cells == ["| dkd_ctkd", "3", "71.23 ± 0.08", "+0.50", "[-0.25, +1.25]", "<0.001 |"]
    assert lines[3].startswith(r"| a\|b & \_c\_ |")
    assert lines[3].count("–") == 3
    assert lines[-1] == r"- 50 % of \*all\*"


def test_markdown_leaves_no_link_and_no_tag():
    table = Table([Column("x")], [["[a](b) <i> a<1 `c` \\"]])
    assert to_markdown(table).splitlines()[2].strip("| ") == r"[a\](b) \<i> a<1 \`c\` \\"


def test_csv_holds_every_number_unrounded_in_its_own_column():
    assert to_csv(TABLE).splitlines() == [
        "method,n,last mean,last std,Δ kd,95 % interval low,95 % interval high,p,variance",
        "dkd_ctkd,3,71.2345,0.078,0.5,-0.25,1.25,0.0004,0.125",
        "a|b & _c_,1,70.0,,,,,,",
    ]


def test_latex_escapes_and_needs_only_booktabs():
    text = to_latex(TABLE)
    assert r"\begin{tabular}{lrrrrr}" in text
    assert r"dkd\_ctkd & 3 & 71.23 $\pm$ 0.08 & ${+}$0.50 &" in text
    assert r"{[}${-}$0.25, ${+}$1.25{]} & $<$0.001 \\" in text
    assert r"$\Delta$ kd & 95 \% interval" in text
    assert "50 \\% of *all*\\par" in text
    special = Table([Column("x")], [["\\ ~ ^ { } # $ & % _ → λ – resnet-18"]])
    assert (
        r"\textbackslash{} \textasciitilde{} \textasciicircum{} \{ \} \# \$ \& \% \_ "
        r"$\rightarrow$ $\lambda$ -- resnet-18" in to_latex(special)
    )


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("width", [30, 80, 200])
def test_a_narrow_terminal_loses_no_number(width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    for stream in (Terminal(), io.StringIO()):
        print_table(TABLE, stream, title="resnet56 → resnet20")
        text = stream.getvalue()
        assert "…" not in text
        for number in ("71.23", "0.08", "+0.50", "-0.25", "+1.25", "<0.001", "dkd_ctkd"):
            assert number in text
    assert "71.23 ± 0.08" in text  # in a file nothing is broken


def test_rows_must_fit_their_columns():
    with pytest.raises(ValueError, match="a row of 2 cells under 1 columns"):
        Table([Column("x")], [["a", "b"]])
