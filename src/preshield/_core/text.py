"""Text of unknown origin, fit to be shown."""

import re

__all__ = ["MOST", "in_markdown", "printable"]

MOST = 300  # characters of a name
# What moves a cursor, ends a line, turns the direction of writing, or is half of a character
_UNPRINTABLE = re.compile("[\0-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_MARKS = re.compile(r"[\\<\[\]|]")


def printable(text: str, most: int | None = None, *, keep: str = "") -> str:
    r"""Write as an escape what a terminal or a page would act on.

    Parameters
    ----------
    text : str
        Any text.
    most : int, optional
        Characters, of which the middle is left out if there are more.
    keep : str
        Characters that stay, such as the end of a line.

    Returns
    -------
    str
        It can be encoded, and is one line unless `keep` has the end of a line.

    Examples
    --------
    >>> print(printable("red: \x1b[31m\n"))
    red: \x1b[31m\n
    """
    if most is not None and len(text) > most:
        text = f"{text[: most // 2]} ... {text[-(most // 2) :]}"
    return _UNPRINTABLE.sub(lambda found: found[0] if found[0] in keep else _escape(found[0]), text)


def in_markdown(text: str) -> str:
    """Make a text a part of one line of Markdown: no element of HTML, no link, no cell of a table."""
    return _MARKS.sub(r"\\\g<0>", printable(text))


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()
