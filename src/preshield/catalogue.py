"""The defences as a table."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ._core.variant import Variant

__all__ = ["DefenceFacts", "DefenceTable", "list_defences"]


@dataclass(frozen=True)
class DefenceFacts:
    """What a defence states about itself; see `Preprocessor` for the meaning of each."""

    name: str
    summary: str
    domains: tuple[str, ...]
    stochastic: bool
    gradient_kind: str
    changes_shape: bool
    optimises_at_test_time: bool
    paper: str
    known_attacks: tuple[str, ...]

    @classmethod
    def of(cls, defence: Any) -> "DefenceFacts":
        """Read the facts off a class: a `Preprocessor`, or one that states the same."""
        summary = (defence.__doc__ or "").strip().partition("\n\n")[0]
        summary = re.sub(r"\s*\[\d+\]_", "", summary)  # footnotes
        return cls(
            defence.__name__,
            " ".join(summary.split()),
            defence.domains,
            defence.stochastic,
            defence.gradient_kind,
            defence.changes_shape,
            defence.optimises_at_test_time,
            defence.paper,
            defence.known_attacks,
        )


class DefenceTable(list[DefenceFacts]):
    """Facts of several defences, one row each."""

    def __init__(self, rows: Iterable[DefenceFacts] = ()) -> None:
        super().__init__(rows)

    def _repr_html_(self) -> str:
        """The table, in notebooks."""
        from ._core import html

        head = ("Defence", "Domains", "Stochastic", "Gradient", "Paper", "Known attacks")
        rows = [
            (
                row.name,
                ", ".join(row.domains),
                "yes" if row.stochastic else "no",
                row.gradient_kind,
                html.links(row.paper),
                html.links("; ".join(row.known_attacks)),
            )
            for row in self
        ]
        return html.scoped(html.table(head, rows, label="Defences", words=head))

    def to_markdown(self) -> str:
        """The table in GitHub's Markdown."""
        head = ("defence", "domains", "stochastic", "gradient", "paper", "known attacks")
        rows = [
            (
                f"`{row.name}`",
                ", ".join(row.domains),
                "yes" if row.stochastic else "no",
                row.gradient_kind,
                _link(row.paper),
                "; ".join(row.known_attacks),
            )
            for row in self
        ]
        lines = [head, tuple("---" for _ in head), *rows]
        return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)

    def __str__(self) -> str:
        """The table with aligned columns, without the attacks."""
        rows = [("defence", "domains", "stochastic", "gradient", "paper")]
        rows += [
            (r.name, ", ".join(r.domains), "yes" if r.stochastic else "no", r.gradient_kind, r.paper)
            for r in self
        ]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        )


def _link(paper: str) -> str:
    if paper.startswith("arXiv:"):
        return f"[{paper}](https://arxiv.org/abs/{paper.removeprefix('arXiv:')})"
    return f"[paper]({paper})"


def list_defences() -> DefenceTable:
    """Table of every defence of the library, by name.

    Returns
    -------
    DefenceTable
        A list of `DefenceFacts` that prints as a table and has `to_markdown()`.

    Examples
    --------
    >>> from preshield import list_defences
    >>> [row.name for row in list_defences() if "labels" in row.domains]
    ['LabelSmoothing']
    """
    import preshield

    public = {name: getattr(preshield, name) for name in dir(preshield)}
    # ART's names for a framework are further names of the same classes.
    classes = [
        c
        for name, c in public.items()
        if isinstance(c, type) and c.__name__ == name and not isinstance(c, Variant)
    ]
    # A defence names its paper: the base class has none, and a Chain those of its stages.
    papers = [getattr(c, "paper", None) for c in classes]
    named = [c for c, paper in zip(classes, papers, strict=True) if isinstance(paper, str) and paper]
    return DefenceTable(map(DefenceFacts.of, named))
