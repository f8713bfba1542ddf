"""What is finished of an evaluation, in a folder: a file for each batch."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from .._core.errors import ArgumentError
from .._core.limits import check_arrays
from .._core.typing import Array
from .._core.writing import is_temporary, write_atomically, written
from .batch import BatchEvaluation, Part
from .documents import plain, revived
from .report import Column, DefenceNote, RobustnessRow

__all__ = ["Checkpoint", "check_checkpoint"]

SETTINGS = "settings.json"
BLOCK = 1 << 24  # bytes of the samples that are read at once


def check_checkpoint(checkpoint: Any) -> Path | None:
    """The folder, if it is one or can become one."""
    if checkpoint is None:
        return None
    if not isinstance(checkpoint, str | Path):
        raise ArgumentError(f"`checkpoint` must be the path of a folder, got {checkpoint!r}.")
    folder = Path(checkpoint)
    if folder.exists() and not folder.is_dir():
        raise ArgumentError(f"`checkpoint` must be a folder, got the file {str(folder)!r}.")
    return folder


class Checkpoint:
    """Writes each batch when it is finished, at once or not at all, and reads it when the work goes on.

    Parameters
    ----------
    folder : Path
        Is made if it does not exist.
    settings : dict
        What the figures depend on.
    plan : BatchEvaluation
        What is done with a batch.
    x, y : ndarray
        All samples and labels.

    Raises
    ------
    ValueError
        If the folder belongs to other settings, or a file in it is damaged.
    """

    def __init__(
        self, folder: Path, settings: dict[str, Any], plan: BatchEvaluation, x: Array, y: Array
    ) -> None:
        self.folder = folder
        self._begin({**settings, **_identity(plan, x, y)})

    def read(self, start: int) -> Part | None:
        """The batch that begins at a sample, if it is finished."""
        path = self._path(start)
        if not path.exists():
            return None
        try:
            check_arrays(path)
            with path.open("rb") as stream, np.load(stream) as file:
                record = json.loads(bytes(file["record"]).decode())
                rows = [revived(row, (RobustnessRow, Column, DefenceNote)) for row in record["rows"]]
                pictures = {name: file[f"picture/{name}"] for name in record["pictures"]}
                names = [tuple(name) for name in record["examples"]]
                examples = {name: file[f"example/{place}"] for place, name in enumerate(names)}
        except Exception as error:
            raise ArgumentError(
                f"`checkpoint` holds a damaged file, {str(path)!r}: {error!r}; delete it, and its batch is "
                "evaluated again."
            ) from error
        return Part(start, rows, pictures, examples)

    def write(self, part: Part) -> None:
        """Keep a finished batch."""
        record = {
            "rows": [plain(row) for row in part.rows],
            "pictures": list(part.pictures),
            "examples": [list(name) for name in part.examples],
        }
        arrays = {f"picture/{name}": values for name, values in part.pictures.items()}
        arrays |= {f"example/{place}": x for place, x in enumerate(part.examples.values())}
        text = np.frombuffer(json.dumps(record).encode(), np.uint8)
        with written(self._path(part.start)) as file:
            np.savez(file, record=text, **arrays)  # type: ignore[arg-type]

    def _path(self, start: int) -> Path:
        return self.folder / f"batch-{start:09d}.npz"

    def _begin(self, settings: dict[str, Any]) -> None:
        """Write down the settings, or compare them with those of the folder."""
        path = self.folder / SETTINGS
        text = {name: json.loads(json.dumps(plain(value))) for name, value in settings.items()}
        if not path.exists():
            found = self.folder.iterdir() if self.folder.exists() else []
            others = [p.name for p in found if not is_temporary(p)]
            if others:
                raise ArgumentError(
                    "`checkpoint` must be a folder of this evaluation or a new one, got "
                    f"{str(self.folder)!r}, which holds {others[0]!r}."
                )
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(path, json.dumps(text, indent=1))
            return
        try:
            before = dict(json.loads(path.read_text(encoding="utf-8")))
            names = sorted({*before, *text})
        except (ValueError, TypeError, RecursionError) as error:
            raise ArgumentError(
                f"`checkpoint` holds a damaged file, {str(path)!r}: {error!r}; use a new folder."
            ) from error
        for name in names:
            if before.get(name) != text.get(name):
                raise ArgumentError(
                    f"`checkpoint` belongs to an evaluation with another {name!r}: {before.get(name)!r} and "
                    f"now {text.get(name)!r}; use a new folder, or the old settings."
                )


def _identity(plan: BatchEvaluation, x: Array, y: Array) -> dict[str, Any]:
    """What tells an evaluation from another, beside its settings."""
    digest = hashlib.sha256(np.ascontiguousarray(y).tobytes())
    rows = max(1, BLOCK // max(1, x[:1].nbytes))
    for place in range(0, len(x), rows):
        digest.update(np.ascontiguousarray(x[place : place + rows]).tobytes())
    heads = [np.asarray(s.classifier.predict(np.array(x[:2], np.float32))) for s in plan.subjects[:1]]
    return {
        "threat": str(plan.attacker.threat),
        "columns": list(plan.columns),
        "rows": [[s.name, repr(s.vote if s.defence is None else s.defence)] for s in plan.subjects],
        "samples and labels (SHA-256)": digest.hexdigest(),
        "scores of two samples": [f"{value:.3g}" for head in heads for value in head.ravel()[:20]],
        "examples": plan.keeps,
        "diagnostics": plan.diagnosed,
    }
