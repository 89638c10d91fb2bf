"""A notebook as a part of a page: `{notebook} ../examples/ctkd.ipynb` shows its cells and outputs.

The notebook is shown as it was saved; nothing is executed. The directive replaces a package such as
nbsphinx, which needs pandoc.
"""

import json
import pathlib
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective


class Notebook(SphinxDirective):
    """The cells of a notebook behind the first, its title: text, code, printed lines, figures.

    The second cell must open with a heading: MyST puts text without one behind all sections.
    """

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """See docutils."""
        path = pathlib.Path(self.env.doc2path(self.env.docname)).parent / self.arguments[0]
        self.env.note_dependency(str(path.resolve()))
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        lines = [line for cell in cells[1:] for line in _markdown(cell)]
        text = StringList(lines, str(path))
        return self.parse_text_to_nodes(text, allow_section_headings=True)


def _markdown(cell: dict[str, Any]) -> list[str]:
    """A cell and its outputs as lines of Markdown."""
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        return [*source.splitlines(), ""]
    lines = ["```python", *source.splitlines(), "```", ""]
    for output in cell["outputs"]:
        if "text" in output:
            lines += ["```text", *"".join(output["text"]).splitlines(), "```", ""]
        if png := "".join(output.get("data", {}).get("image/png", "")):
            lines += [f"![a figure](data:image/png;base64,{''.join(png.split())})", ""]
    return lines
