"""Copy the tables that are stored in the notebooks into the documentation.

python benchmarks/notebook_tables.py

A page says which table it wants, by the notebook and a column that no other table of it has:

    <!-- table: voting, sigma -->
    <!-- /table -->
"""

import json
import re
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
MARKERS = re.compile(r"(<!-- table: (\w+), (.+?) -->\n).*?(<!-- /table -->)", re.DOTALL)

Table = list[list[str]]


def main() -> int:
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        new = with_tables(text)
        if new != text:
            path.write_text(new, encoding="utf-8")
            print(f"{path.relative_to(ROOT)} has new tables; its tests say where its words do not fit them")
    return 0


def with_tables(text: str) -> str:
    """A page with the tables of the notebooks between its markers."""
    return MARKERS.sub(lambda m: f"{m[1]}{to_markdown(table(m[2], m[3]))}{m[4]}", text)


def table(notebook: str, column: str) -> Table:
    """Head and rows of the only table of a notebook that has this column."""
    found = [rows for text in texts(notebook) for rows in tables(text) if column in rows[0]]
    if len(found) != 1:
        raise ValueError(f"{notebook}.ipynb must hold one table with a column {column!r}, got {len(found)}.")
    return found[0]


def texts(notebook: str) -> Iterator[str]:
    """What stands in a notebook between its code: Markdown, and what was printed or returned."""
    for cell in json.loads((ROOT / "examples" / f"{notebook}.ipynb").read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "markdown":
            yield "".join(cell["source"])
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            yield "".join(data.get("text/markdown") or data.get("text/plain") or output.get("text", ""))


def tables(text: str) -> list[Table]:
    """Lines that follow one another and have equally many cells, two or more."""
    runs = groupby(map(cells, text.splitlines()), key=len)
    return [rows for length, run in runs if length > 1 and len(rows := list(run)) > 1]


def cells(line: str) -> list[str]:
    """The cells of a row: of Markdown, or apart by two spaces or more."""
    parts = line.strip("|").split("|") if line.startswith("|") else re.split(r" {2,}", line.rstrip())
    return [part.strip() for part in parts]


def to_markdown(rows: Table) -> str:
    head, *rest = [row for row in rows if not set("".join(row)) <= set(":-")]
    rule = [":--", *["--:"] * (len(head) - 1)]
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, rule, *rest))


if __name__ == "__main__":
    sys.exit(main())
