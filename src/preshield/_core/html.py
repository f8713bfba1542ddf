"""HTML that escapes what it is given: a tag, a table, a card of a defence, one style sheet."""

import re
import reprlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from html import escape
from typing import Protocol

import numpy as np

from .text import printable
from .typing import Array

__all__ = [
    "Facts",
    "Html",
    "card",
    "links",
    "marked",
    "scoped",
    "scrolling",
    "short",
    "style",
    "table",
    "tag",
    "text",
]

_VOID = ("img", "meta")  # elements without an end tag
_REFERENCE = re.compile(r"arXiv:(?:\d{4}\.\d{4,5}|[a-z-]+/\d{7})|doi:10\.\S+|https?://\S+")
_AFTER_REFERENCE = ".,;:)]"  # punctuation of the sentence, not of the address

# Colours come from where it is shown: text inherits, lines and tints are transparent.
_STYLE = """
.preshield { line-height: 1.45; text-align: left; }
.preshield .ps-code { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace;
  font-size: .92em; background: none; color: inherit; padding: 0; overflow-wrap: anywhere; }
.preshield .ps-scroll { overflow-x: auto; margin: .6em 0; }
.preshield table { border-collapse: collapse; border: 0; margin: 0; font-size: .92em;
  font-variant-numeric: tabular-nums; }
.preshield caption { text-align: left; white-space: nowrap; padding: 0 0 .5em; opacity: .75; }
.preshield th, .preshield td { padding: .35em .6em; border: 0; background: none;
  border-bottom: 1px solid rgba(128, 128, 128, .3); text-align: right; vertical-align: baseline; }
.preshield thead th { border-bottom: 1.5px solid rgba(128, 128, 128, .8); vertical-align: bottom; }
.preshield th:first-child, .preshield td:first-child { text-align: left; }
.preshield td { white-space: nowrap; }
.preshield th.ps-words, .preshield td.ps-words { text-align: left; white-space: normal; min-width: 5em; }
.preshield abbr { text-decoration: none; }
.preshield .ps-paper { display: inline-block; overflow-wrap: anywhere; }
.preshield tbody th { font-weight: 500; }
.preshield th.ps-strong, .preshield td.ps-strong { background: rgba(128, 128, 128, .14); }
.preshield p { margin: .5em 0; }
.preshield .ps-note { border-left: 4px solid #8a8f98; background: rgba(128, 128, 128, .1);
  border-radius: 0 4px 4px 0; padding: .5em .9em; margin: .6em 0; max-width: 60em; }
.preshield .ps-doubt { border-left-color: #d9622b; background: rgba(217, 98, 43, .12); }
.preshield .ps-source { opacity: .75; font-size: .9em; }
.preshield .ps-card { border: 1px solid rgba(128, 128, 128, .4); border-radius: 6px; padding: .7em .9em;
  margin: .6em 0; max-width: 60em; box-sizing: border-box; }
.preshield .ps-name { font-weight: 600; font-size: 1.05em; margin-right: .6em; }
.preshield .ps-fact { display: inline-block; font-size: .82em; padding: .05em .6em; margin: .1em .3em .1em 0;
  border: 1px solid rgba(128, 128, 128, .45); border-radius: 1em; white-space: nowrap; }
.preshield ul.ps-parameters { margin: .45em 0; padding: 0; list-style: none; display: flex; flex-wrap: wrap;
  gap: .1em 1.4em; }
.preshield .ps-parameters li { margin: 0; opacity: .72; }
.preshield .ps-parameters li.ps-changed { opacity: 1; font-weight: 700; }
.preshield ol.ps-stages { margin: .6em 0 0; padding: 0; list-style: none; display: flex; flex-wrap: wrap;
  gap: .6em 0; align-items: stretch; }
.preshield .ps-stages > li { margin: 0; display: flex; align-items: center; flex: 1 1 17em; }
.preshield .ps-stages > li + li::before { content: "\\2192"; padding: 0 .5em; font-size: 1.3em; }
.preshield .ps-stages .ps-card { margin: 0; align-self: stretch; flex: 1; min-width: 0; max-width: none; }
.preshield details { margin: .4em 0 0; }
.preshield summary { cursor: pointer; }
.preshield details ul { margin: .3em 0 0; padding-left: 1.3em; }
"""


class Html(str):
    """Text that is HTML already, so that `text` does not escape it."""

    __slots__ = ()


def text(content: object) -> Html:
    """Escape what is not `Html` yet."""
    return content if isinstance(content, Html) else Html(_escaped(content))


def _escaped(content: object) -> str:
    return escape(printable(str(content), keep="\n\t"))


def tag(name: str, /, *content: object, **attributes: object) -> Html:
    """Make an element.

    Parameters
    ----------
    name : str
        Name of the element.
    *content
        What stands inside; escaped unless it is `Html`.
    **attributes
        By name, where `class_` is `class` and `aria_label` is `aria-label`. None and False leave an
        attribute out, True writes its name alone.

    Returns
    -------
    Html
    """
    opening = name
    for key, value in attributes.items():
        if value is not None and value is not False:
            opening += f" {key.rstrip('_').replace('_', '-')}"
            opening += "" if value is True else f'="{_escaped(value)}"'
    if name in _VOID:
        return Html(f"<{opening}>")
    return Html(f"<{opening}>{''.join(map(text, content))}</{name}>")


def links(sentence: str) -> Html:
    """Make links of the papers that a text names: arXiv and DOI numbers, and addresses of the web.

    Parameters
    ----------
    sentence : str
        Any text.

    Returns
    -------
    Html
        With everything else escaped. A link leads to the web and nowhere else.
    """
    parts: list[object] = []
    end = 0
    for match in _REFERENCE.finditer(sentence):
        reference = match.group().rstrip(_AFTER_REFERENCE)
        parts += [sentence[end : match.start()], tag("a", reference, href=_address(reference))]
        end = match.start() + len(reference)
    return Html("".join(map(text, [*parts, sentence[end:]])))


def _address(reference: str) -> str:
    for prefix, site in (("arXiv:", "https://arxiv.org/abs/"), ("doi:", "https://doi.org/")):
        if reference.startswith(prefix):
            return site + reference.removeprefix(prefix)
    return reference


def marked(sentence: str) -> Html:
    """Set what stands between backticks as code; everything else is escaped."""
    parts = re.split("`(.+?)`", sentence)
    parts[1::2] = [tag("code", name, class_="ps-code") for name in parts[1::2]]
    return Html("".join(map(text, parts)))


class _Short(reprlib.Repr):
    """A repr that fits into a line or two, whatever the object."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = 120
        self.maxlong = 40

    def repr_ndarray(self, array: Array, level: int) -> str:
        return np.array_repr(array) if array.size <= 6 else f"<array {array.shape} of {array.dtype}>"


def short(value: object) -> str:
    """Abbreviated repr: large arrays as their shape and dtype, and no addresses in memory."""
    return re.sub(r" at 0x[0-9A-Fa-f]+", "", " ".join(_Short().repr(value).split()))


def table(
    head: Sequence[object],
    body: Iterable[Sequence[object]],
    *,
    caption: str = "",
    label: str = "Table",
    strong: Collection[str] = (),
    words: Collection[str] = (),
) -> Html:
    """Make a table, the first cell of each row its heading.

    Parameters
    ----------
    head : sequence
        Headings of the columns.
    body : iterable of sequences
        Cells of each row; escaped unless they are `Html`.
    caption : str
        What the table shows, above it.
    label : str
        The same for those who do not see the table, where it has no caption.
    strong : collection of str
        Columns, by heading, in bold.
    words : collection of str
        Columns, by heading, that hold words and are set to the left; others hold numbers.

    Returns
    -------
    Html
        It scrolls by itself where the page is too narrow.
    """
    kinds = ["ps-strong" if name in strong else "ps-words" if name in words else None for name in head]
    headings = [tag("th", name, scope="col", class_=kind) for name, kind in zip(head, kinds, strict=True)]
    rows = [
        tag(
            "tr",
            tag("th", first, scope="row"),
            *(
                tag("td", tag("strong", cell) if kind == "ps-strong" else cell, class_=kind)
                for cell, kind in zip(cells, kinds[1:], strict=True)
            ),
        )
        for first, *cells in body
    ]
    return tag(
        "div",
        tag(
            "table",
            tag("caption", caption) if caption else "",
            tag("thead", tag("tr", *headings)),
            "\n",
            tag("tbody", *(Html(f"{row}\n") for row in rows)),
        ),
        **scrolling(caption or label),
    )


def scrolling(label: str) -> dict[str, object]:
    """Attributes of an element that may be wider than the page: in reach of the keyboard, and with a name."""
    return {"class": "ps-scroll", "role": "region", "tabindex": 0, "aria-label": label}


class Facts(Protocol):
    """What a card tells of a defence: the class attributes of a `Preprocessor`."""

    @property
    def gradient_kind(self) -> str: ...
    @property
    def stochastic(self) -> bool: ...
    @property
    def changes_shape(self) -> bool: ...
    @property
    def optimises_at_test_time(self) -> bool: ...
    @property
    def paper(self) -> str: ...
    @property
    def known_attacks(self) -> tuple[str, ...]: ...


def card(
    facts: Facts,
    name: str,
    parameters: Mapping[str, str],
    *,
    changed: Collection[str] = (),
    stages: Sequence[Html] = (),
    domains: Sequence[str] = (),
    call: str = "",
    unfolded: bool = False,
) -> Html:
    """Tell what a defence is, on a card.

    Parameters
    ----------
    facts : Facts
        A defence, or a record of one.
    name : str
        Its name.
    parameters : mapping of str to str
        Its parameters, written out.
    changed : collection of str
        Names of the parameters to emphasise.
    stages : sequence of Html
        Cards of the stages, if it has any. They tell of papers and attacks themselves.
    domains : sequence of str
        What it protects.
    call : str
        The constructor call.
    unfolded : bool
        Whether the known attacks are open.

    Returns
    -------
    Html
    """
    noticed = {
        ", ".join(domains): bool(domains),
        f"gradient: {facts.gradient_kind}": True,
        "stochastic" if facts.stochastic else "deterministic": True,
        "changes the shape": facts.changes_shape,
        "optimises at test time": facts.optimises_at_test_time,
    }
    written = [
        tag(
            "li",
            tag("code", f"{key}={value}", class_="ps-code"),
            class_="ps-changed" if key in changed else None,
        )
        for key, value in parameters.items()
    ]
    parts = [
        tag("span", name, class_="ps-name", role="heading", aria_level=3),
        *(tag("span", fact, class_="ps-fact") for fact, holds in noticed.items() if holds),
    ]
    if facts.paper and not stages:
        parts.append(tag("span", "Paper: ", links(facts.paper), class_="ps-paper"))
    if call:
        parts.append(tag("p", tag("code", call, class_="ps-code")))
    if written:
        parts.append(tag("ul", *written, class_="ps-parameters"))
    if facts.known_attacks and not stages:
        count = len(facts.known_attacks)
        title = "1 known attack" if count == 1 else f"{count} known attacks"
        attacks = tag("ul", *(tag("li", links(attack)) for attack in facts.known_attacks))
        parts.append(tag("details", tag("summary", title), attacks, open=unfolded))
    if stages:
        parts.append(tag("ol", *(tag("li", stage) for stage in stages), class_="ps-stages"))
    return tag("div", *parts, class_="ps-card")


def style(more: str = "") -> Html:
    """Make the style sheet for what stands inside an element of class `preshield`; `more` rules come last."""
    return tag("style", Html(_STYLE + more))


def scoped(*content: object) -> Html:
    """Put content and style sheet together, as a notebook shows them."""
    return tag("div", style(), *content, class_="preshield")
