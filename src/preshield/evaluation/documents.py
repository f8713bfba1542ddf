"""Records as documents: text that is written, and JSON that is read back."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

from .._core.errors import ArgumentError
from .._core.limits import Limit
from .._core.text import MOST, printable
from .._core.writing import write_atomically

__all__ = ["aligned", "document", "plain", "report_in", "report_text", "revived", "saved"]

Report = TypeVar("Report")


def aligned(cells: Sequence[Sequence[str]]) -> str:
    """A table as text, headings first; all columns but the first are flush right."""
    cells = [[printable(cell, MOST) for cell in line] for line in cells]
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
    try:
        text = str(source) if inline else Path(source).read_text(encoding="utf-8")
        Limit.given().check_nodes(sum(map(text.count, "[{,")))
        found: dict[str, Any] = json.loads(text)
        given = found["format"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ArgumentError(f"`source` must be the JSON of a {record}: {error!r}.") from error
    if given != version:
        raise ArgumentError(
            f"`source` has format {printable(repr(given), MOST)}; this version of preshield reads format "
            f"{version}."
        )
    return found


def report_text(report: Any, version: int, *, indent: int | None = None) -> str:
    """A report, which is a record, as the JSON of a version."""
    return json.dumps({"format": version, "report": plain(report)}, indent=indent, allow_nan=False)


def report_in(source: str | Path, kind: type[Report], version: int, parts: Sequence[type] = ()) -> Report:
    """Read what `report_text` wrote; `parts` are the classes of records within the report.

    Raises
    ------
    ArgumentError
        If it is no report of this kind and version, or a damaged one.
    """
    report = revived(document(source, kind.__name__, version).get("report"), (*parts, kind))
    if not isinstance(report, kind):
        raise ArgumentError(f"`source` must be the JSON of a {kind.__name__}, got {type(report).__name__}.")
    return report


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
    """The value that `plain` was given, its records of these classes.

    Raises
    ------
    ArgumentError
        If it is damaged: what a field holds is not what its class says.
    """
    known = {record.__name__: record for record in records}
    try:
        return _revived(value, known)
    except ArgumentError:
        raise
    except Exception as error:  # among them RecursionError; whatever a file may hold
        raise ArgumentError(f"`source` holds a damaged record: {error!r}.") from error


def _revived(value: Any, known: Mapping[str, type]) -> Any:
    if not isinstance(value, dict):
        if isinstance(value, list):
            raise TypeError("a list that is no tuple")
        return value
    if "record" in value:
        name = value["record"]
        if name not in known:
            raise ArgumentError(f"`source` holds the unknown record {name!r}; records: {', '.join(known)}.")
        record = known[name](**{key: _revived(item, known) for key, item in value.items() if key != "record"})
        for key, hint in get_type_hints(known[name], localns=dict(known)).items():
            if not _fits(getattr(record, key), hint):
                raise TypeError(f"{name}.{key} must be {hint}, got {type(getattr(record, key)).__name__}")
        return record
    if "array" in value:
        dtype = np.dtype(value["array"])
        if dtype.kind not in "biuf":
            raise TypeError(f"an array of {dtype}")
        return np.frombuffer(base64.b64decode(value["base64"]), dtype).reshape(value["shape"]).copy()
    if "tuple" in value:
        return tuple(_revived(item, known) for item in value["tuple"])
    if "float" in value:
        return float(value["float"])
    return {key: _revived(item, known) for key, item in value["mapping"].items()}


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is what an annotation says, as far down as it says."""
    kind, inner = get_origin(hint) or hint, get_args(hint)
    if hint is Any:
        return True
    if kind in (Union, UnionType):
        return any(_fits(value, one) for one in inner)
    if kind is float:  # as JSON has no integers
        return isinstance(value, float | int) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if not isinstance(value, kind):
        return False
    if kind is dict:
        return all(_fits(key, inner[0]) and _fits(item, inner[1]) for key, item in value.items())
    if kind is tuple:
        hints = inner[:1] * len(value) if Ellipsis in inner else inner
        return len(value) == len(hints) and all(map(_fits, value, hints))
    return True
