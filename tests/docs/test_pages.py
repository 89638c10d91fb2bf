"""What the pages say of the repository: its layers, its files, its environment variables."""

import itertools
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
NAMES = pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
# Files that examples make, and those that a run leaves.
MADE = r"my_pkg/.*|mine\.gin|pairs_teacher\.gin|config\.gin|[\w{},.]+\.(png|pdf|jsonl?|csv|pt)"


def layers():
    """The levels of the layers from import-linter's settings, the top one first."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    listed = re.search(r'type = "layers"\nlayers = \[\n(.*?)\n\]', text, re.DOTALL)[1]
    return [re.findall(r"ctkd\.(\w+)", line) for line in listed.splitlines()]


def imports():
    """What each part of the package imports directly, out of the other parts."""
    import grimp

    graph = grimp.build_graph("ctkd", cache_dir=None)
    found: dict[str, set[str]] = {}
    for module in graph.modules:
        for other in graph.find_modules_directly_imported_by(module):
            ends = [name.split(".")[1] for name in (module, other) if "." in name]
            if len(ends) == 2 and ends[0] != ends[1]:
                found.setdefault(ends[0], set()).add(ends[1])
    return found


def diagram():
    """A line to the parts of a level that import the same; a rule between two levels."""
    levels, found = layers(), imports()
    names = list(itertools.chain(*levels))
    ground = set(itertools.chain(*levels[-3:]))  # the registry and below: nearly all import them
    lines: list[str] = []
    for level in levels:
        rows: dict[str, list[str]] = {}
        for name in level:
            shown = [
                n for n in names if n in found.get(name, ()) and (name in ground or n not in ground)
            ]
            rows.setdefault(", ".join(shown), []).append(name)
        lines += ["─" * 72] if lines else []
        lines += [
            f"{', '.join(row):<23} {'→  ' + below if below else ''}".rstrip()
            for below, row in rows.items()
        ]
    return "\n".join(lines)


def test_the_diagram_of_the_layers_is_the_code():
    page = (ROOT / "BUILD.md").read_text(encoding="utf-8")
    shown = re.search(r"```\n(commands .*?)\n```", page, re.DOTALL)[1]
    assert shown == diagram(), f"the diagram that BUILD.md should show:\n{diagram()}"


def test_every_part_of_the_package_has_its_layer():
    parts = {
        path.stem
        for path in (ROOT / "ctkd").iterdir()
        if path.name[0] != "_" and path.name != "py.typed"
    }
    assert parts == set(itertools.chain(*layers()))


@NAMES
def test_links_and_figures_lead_somewhere(path):
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if not target.startswith(("http://", "https://", "#")):
            assert (path.parent / target.partition("#")[0]).exists(), target


@NAMES
def test_files_that_are_named_exist(path):
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    below = {file.name for part in ("ctkd", "gin") for file in (ROOT / part).rglob("*.*")}
    for span in re.findall(r"`([^`\s]+)`", text):
        top = re.match(r"(ctkd|gin|launchers|tools|tests|docs|typings|\.ci)/", span)
        if top:
            assert (ROOT / span).exists(), span
        elif re.fullmatch(r"[\w/]+\.(py|gin|md|toml|cff|in)", span):
            known = (ROOT / span).exists() or span in below
            assert known or re.fullmatch(MADE, span), span


@NAMES
def test_environment_variables_that_are_named_are_read(path):
    named = set(re.findall(r"\bCTKD_[A-Z_]+\b", path.read_text(encoding="utf-8")))
    files = [*(ROOT / "ctkd").rglob("*.py"), *(ROOT / "tests").rglob("*.py")]
    code = "\n".join(f.read_text(encoding="utf-8") for f in files if f.parent.name != "docs")
    assert [name for name in named if f'"{name}"' not in code] == []


@NAMES
def test_every_block_is_closed(path):
    text = path.read_text(encoding="utf-8")
    assert len(re.findall(r"^```", text, re.MULTILINE)) % 2 == 0


@NAMES
def test_every_table_is_whole(path):
    """A blank line would end a table in its midst; its rows have the columns of its head."""
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    for block in re.split(r"\n\s*\n", text):
        rows = [line for line in block.splitlines() if line.startswith("|")]
        if rows:
            assert re.fullmatch(r"[|:\- ]+", rows[1]), rows[0]
            assert {row.count("|") for row in rows} == {rows[0].count("|")}, rows[0]


def test_the_readmes_table_has_every_method():
    """Each method's file of gin/cifar100/; the variants with a learned T go by their method."""
    table = (ROOT / "README.md").read_text(encoding="utf-8")
    table = table[table.index("## Methods") : table.index("## Tasks")]
    named = set(re.findall(r"`(\w+)`", table))
    files = {path.stem for path in (ROOT / "gin" / "cifar100").glob("*.gin")}
    methods = {name for name in files if not name.startswith(("ctkd_", "kd_"))}
    assert methods - {"base", "teacher", "vanilla"} <= named
    assert {name for name in named if not name.endswith("_")} <= files
