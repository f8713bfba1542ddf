"""Records as documents: text that is written, and JSON that is read back."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .._core.writing import write_atomically

__all__ = ["aligned", "document", "plain", "revived", "saved"]


def aligned(cells: Sequence[Sequence[str]]) -> str:
    """A table as text, headings first; all columns but the first are flush right."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    )


def saved(text: str, path: str | Path | None) -> str:
    """Return the text, and write it to a file, whole or not at all, if there is a path."""
    if path is not None:
        write_atomically(Path(path), text)
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


def plain(value: Any) -> Any:
    """What JSON can hold: a record as an object with its class, an array as its bytes."""
    if is_dataclass(value):
        own = {f.name: plain(getattr(value, f.name)) for f in fields(value)}
        return {"record": type(value).__name__, **own}
    if isinstance(value, np.ndarray):
        data = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode()
        return {"array": value.dtype.str, "shape": list(value.shape), "base64": data}
    if isinstance(value, Mapping):
        return {"mapping": {str(key): plain(item) for key, item in value.items()}}
    if isinstance(value, list | tuple):
        return {"tuple": [plain(item) for item in value]}
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return {"float": repr(value)}
    # What was swept may be any object; a report of hours must not fail to be written for it.
    return value if value is None or isinstance(value, str | int | float) else repr(value)


def revived(value: Any, records: Sequence[type]) -> Any:
    """The value that `plain` was given, its records of these classes."""
    if not isinstance(value, dict):
        return value
    if "record" in value:
        known = {record.__name__: record for record in records}
        name = value["record"]
        if name not in known:
            raise ValueError(f"`source` holds the unknown record {name!r}; records: {', '.join(known)}.")
        return known[name](**{key: revived(item, records) for key, item in value.items() if key != "record"})
    if "array" in value:
        data = np.frombuffer(base64.b64decode(value["base64"]), dtype=np.dtype(value["array"]))
        return data.reshape(value["shape"]).copy()
    if "tuple" in value:
        return tuple(revived(item, records) for item in value["tuple"])
    if "float" in value:
        return float(value["float"])
    return {key: revived(item, records) for key, item in value["mapping"].items()}
