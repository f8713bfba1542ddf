"""Records as documents: text that is written, and JSON that is read back."""

import json
from pathlib import Path
from typing import Any

__all__ = ["document", "saved"]


def saved(text: str, path: str | Path | None) -> str:
    """Return the text, and write it to a file if there is a path."""
    if path is not None:
        Path(path).write_text(text, encoding="utf-8")
    return text


def document(source: str | Path, record: str, version: int) -> dict[str, Any]:
    """Read JSON of a version of a record; a string that starts with a brace is a text, others are paths."""
    inline = isinstance(source, str) and source.lstrip().startswith("{")
    text = str(source) if inline else Path(source).read_text(encoding="utf-8")
    try:
        found: dict[str, Any] = json.loads(text)
        given = found["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"`source` must be the JSON of a {record}: {error!r}.") from error
    if given != version:
        raise ValueError(f"`source` has format {given!r}; this version of preshield reads format {version}.")
    return found
