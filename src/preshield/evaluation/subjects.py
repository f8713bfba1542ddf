"""Arguments of an evaluation: checked, and in the form in which the work is done."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._core.checks import check_clip_values, check_option, check_values
from .._core.errors import ArgumentError, noted
from .._core.layout import as_numbers
from .._core.optional import require
from .._core.ranges import are_images
from .._core.remedies import how_to_resize
from .._core.samples import leaves
from .._core.tensors import to_numpy
from .._core.typing import Array
from ..interop.foreign import as_defence
from ..neural.pretrained import PretrainedModel
from ..preprocessor import Preprocessor
from .classifiers import PredictOnly, as_classifier, distributions, fits
from .defended import drawing, held, usable
from .report import COLUMNS

AUTOATTACK = "autoattack"

__all__ = [
    "AUTOATTACK",
    "Subject",
    "as_class_names",
    "as_factories",
    "as_labels",
    "as_samples",
    "as_subjects",
    "check_classes",
    "check_columns",
    "head_of",
    "named_classifier",
    "nb_classes",
    "range_of",
]


@dataclass(frozen=True)
class Subject:
    """A row to be: a defence, and the classifier behind it; or a vote, which is both."""

    name: str
    defence: Preprocessor | None
    classifier: Any
    vote: Any = None


def check_columns(columns: Sequence[str] | None, surrogate: Any) -> tuple[str, ...]:
    """Names of the columns to evaluate, in the order of the table."""
    if columns is None:
        return tuple(name for name in COLUMNS if name != "transfer" or surrogate is not None)
    # A generator would be empty when it is read again.
    if isinstance(columns, str) or not isinstance(columns, Collection):
        raise ArgumentError(
            f'`columns` must be a list of names, such as ["oblivious", "adaptive"], got {columns!r}.'
        )
    for name in columns:
        check_option("columns", name, tuple(COLUMNS))
    if "transfer" in columns and surrogate is None:
        raise ArgumentError('`surrogate` must be given for the column "transfer": a classifier, got None.')
    if "shared" in columns and "adaptive" not in columns:
        raise ArgumentError(
            '`columns` must hold "adaptive" with "shared", which tries its examples on all rows, got '
            f"{list(columns)!r}."
        )
    return tuple(name for name in COLUMNS if name == "clean" or name in columns)


def as_class_names(names: Sequence[str] | None, classes: int) -> tuple[str, ...]:
    """Names of so many classes; empty if there are none."""
    if names is None:
        return ()
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise ArgumentError(f"`class_names` must be a sequence of strings, got {names!r}.")
    if len(names) < classes:
        raise ArgumentError(
            f"`class_names` must hold a name for each of the {classes} classes, in the order of the scores, "
            f"got {len(names)}."
        )
    return tuple(names)


def as_samples(samples: Any) -> Array:
    """Samples as an array, which stays on disk if it is memory-mapped."""
    x = _array(samples)
    if x.dtype == object:
        raise ArgumentError(
            "`x` must be a numeric array, got an object array; bring the samples to one shape first."
        )
    if x.ndim < 2 or not x.size:
        raise ArgumentError(f"`x` must hold at least one sample and have a batch axis, got shape {x.shape}.")
    check_values("x", x)
    return x


def as_labels(labels: Any) -> Array:
    """Labels as class indices, shape (N,)."""
    y = _array(labels)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    elif y.ndim == 2 and y.size:
        y = _likeliest(y)
    numeric = y.ndim == 1 and y.dtype.kind in "biuf" and bool(np.isfinite(y).all())
    if not numeric or (y != np.floor(y)).any() or (y < 0).any():
        raise ArgumentError(
            "`y` must hold class indices from 0 on, shape (N,), or one-hot rows or probabilities, shape "
            f"(N, K); got shape {y.shape} of {y.dtype}."
        )
    return y.astype(np.int64)


def _likeliest(y: Array) -> Array:
    """The class that each row (N, K) names: one-hot, or probabilities of which one is the largest."""
    check_values("y", y)
    ties = (y == y.max(axis=1, keepdims=True)).sum(axis=1) > 1
    bad = np.flatnonzero(ties | ~distributions(y))
    if len(bad):
        row = y[bad[0]].astype(np.float64)
        what = "has no single largest entry" if ties[bad[0]] else f"sums to {row.sum():.4g}"
        if not row.any():
            what = "names no class"
        elif set(np.unique(row)) <= {0, 1}:
            what = f"names {int(row.sum())} classes"
        raise ArgumentError(
            "`y` of shape (N, K) must hold one-hot rows, or probabilities that sum to 1 with one largest, "
            f"because each sample has one true class. {len(bad)} of {len(y)} rows do not fit; row {bad[0]}, "
            f"{np.array2string(row, threshold=8)}, {what}. Pass the index of one class for each sample, "
            "shape (N,)."
        )
    indices: Array = y.argmax(axis=1)
    return indices


def _array(values: Any) -> Array:
    return as_numbers(values if isinstance(values, np.ndarray) else np.asarray(to_numpy(values)))


def range_of(clip_values: Any, classifier: Any, x: Array) -> tuple[float, float]:
    """Smallest and largest value that a sample may have."""
    low, high = float(x.min()), float(x.max())
    check_clip_values(clip_values, optional=True)
    given = clip_values if clip_values is not None else getattr(classifier, "clip_values", None)
    if given is None:
        if low < -1 and are_images(x):
            raise ArgumentError(
                f"`x` must hold pixels, got images with values from {low:.4g} to {high:.4g}, as if they were "
                "normalised for the model. A defence comes before that: pass the pixels, and what "
                "normalises them as `preprocess`. If this is their own range, pass "
                f"clip_values=({low:.6g}, {high:.6g})."
            )
        ranges = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0), (low, high))
        return next(r for r in ranges if r[0] <= low and high <= r[1])
    given = (float(np.min(given[0])), float(np.max(given[1])))
    bounds = np.asarray(given, x.dtype if x.dtype.kind == "f" else None)  # as exact as the samples
    if low < bounds[0] or high > bounds[1]:
        raise ArgumentError(
            f"`x` must lie within the clip values {given}, got values from {low:g} to {high:g}; "
            "scale the samples, or pass `clip_values`."
        )
    return given


def as_factories(attacks: Any, threat: str) -> dict[str, Any] | None:
    """Attacks by name; None for the default one."""
    if attacks is None:
        return None
    if isinstance(attacks, str) and attacks == AUTOATTACK:
        if threat.endswith("-minimum"):
            raise ArgumentError(
                f'`attacks="{AUTOATTACK}"` looks for perturbations within a bound; pass threat="linf" or '
                f'threat="l2" and eps, got threat={threat!r}.'
            )
        return {"AutoAttack": AUTOATTACK}
    require("art", extra="art")
    if not isinstance(attacks, Mapping):
        attacks = attacks if isinstance(attacks, list | tuple) else [attacks]
        attacks = _numbered([(getattr(attack, "__name__", repr(attack)), attack) for attack in attacks])
    for name, attack in attacks.items():
        if not callable(attack) or (hasattr(attack, "generate") and not isinstance(attack, type)):
            raise ArgumentError(
                f'`attacks` must be "{AUTOATTACK}" or make an attack for a classifier: pass the class or a '
                f"function, such as lambda classifier: DeepFool(classifier), got {attack!r} as {name!r}."
            )
    if not attacks:
        raise ArgumentError(
            "`attacks` must name at least one attack, got none; leave it out for the default one."
        )
    return dict(attacks)


def head_of(x: Array) -> Array:
    """Two samples, to try a classifier with."""
    return np.array(x[:2], dtype=np.float32)


def named_classifier(model: Any, x: Array, y: Array, name: str) -> Any:
    """A classifier for attacks that takes `x` and knows the classes of `y`; messages call it `name`."""
    if isinstance(model, PretrainedModel):
        _check_shape(x, model.input_shape, name)
    classifier = as_classifier(model, x, name)
    _check_shape(x, _input_shape(classifier, x), name)
    with held(drawing(classifier), np.arange(len(x)), (0,)):  # whose own streams stay where they are
        usable(np.asarray(classifier.predict(classifier.array(x))), name)
    classes = nb_classes(classifier, x)
    if classes is not None and y.max() >= classes:
        raise ArgumentError(f"`y` must hold classes below {classes}, the outputs of `{name}`, got {y.max()}.")
    return classifier


def _check_shape(x: Array, takes: tuple[int | None, ...], name: str) -> None:
    if not fits(x.shape[1:], takes):
        remedy = how_to_resize(x.shape[1:], takes)
        raise ArgumentError(f"`{name}` takes samples of shape {takes}, got {x.shape[1:]}{remedy}.")


def _input_shape(classifier: Any, x: Array) -> tuple[int | None, ...]:
    return tuple(getattr(classifier, "input_shape", None) or x.shape[1:])


def as_subjects(model: Any, defences: Any, x: Array, y: Array) -> list[Subject]:
    """Rows to evaluate, once each defence has shown on two samples that its classifier takes its results."""
    head = head_of(x)
    classifier = named_classifier(model, head, y, "classifier")
    subjects = [Subject("none", None, classifier)]
    for name, value in _named(defences).items():
        defence, own = value if isinstance(value, tuple) and len(value) == 2 else (value, None)
        if name == "none":
            raise ArgumentError(
                '`defences` must not use the name "none": it is the undefended classifier\'s.'
            )
        if own is None and hasattr(defence, "for_attacks"):
            behind = named_classifier(defence, head, y, f"defences[{name!r}]")
            subjects.append(Subject(name, None, behind, defence))
            continue
        defence = as_defence(defence)
        if not isinstance(defence, Preprocessor):
            raise ArgumentError(
                f"`defences[{name!r}]` must be a defence of preshield or ART, or a pair of one and a "
                f"classifier, got {defence!r} of type {type(defence).__module__}.{type(defence).__name__}."
            )
        if isinstance(as_defence(own), Preprocessor):
            raise ArgumentError(
                f"`defences[{name!r}]` must be a defence or a pair of a defence and a classifier, got two "
                "defences; put them into a Chain."
            )
        if defence.domains == ("labels",):
            raise ArgumentError(
                f"`defences[{name!r}]` is about labels, and changes nothing that can be attacked."
            )
        _check_range(defence, x, name)
        note = f"Raised by `defences[{name!r}]` for samples of shape {x.shape[1:]}."
        with noted(note), defence.frozen(0):
            seen = np.asarray(defence(head)[0], dtype=np.float32)
        count = defence._output_shape(x.shape)[0]
        if count == len(x) and len(seen) != len(head):  # nothing states the shape
            count = len(seen) * len(x) // len(head)
        if count != len(x):
            raise ArgumentError(
                f"`defences[{name!r}]` must keep the number of samples, got {defence!r}, which turns "
                f"{len(x)} into {count}; pass augmentation=False to add noise to each sample."
            )
        takes = _input_shape(classifier, x)
        if own is None and not fits(seen.shape[1:], takes):
            raise ArgumentError(
                f"`defences[{name!r}]` turns samples of shape {x.shape[1:]} into {seen.shape[1:]}, and the "
                f"classifier takes {takes}; pass one of its own: {{{name!r}: (defence, classifier)}}."
            )
        behind = classifier
        if own is not None:
            behind = named_classifier(own, seen, y, f"defences[{name!r}][1]")
        subjects.append(Subject(name, defence, behind))
    return subjects


def _check_range(defence: Preprocessor, x: Array, name: str) -> None:
    """Refuse images of which a defence would clip away what lies below zero."""
    stated = getattr(next(leaves(defence)), "clip_values", None)
    if stated is None or not are_images(x):
        return
    low, high = float(np.min(stated[0])), float(np.max(stated[1]))
    least = float(x.min())
    if low == 0 and least < -high / 10:
        raise ArgumentError(
            f"`defences[{name!r}]` has clip_values={stated!r}, and `x` holds images with values from "
            f"{least:.4g} on, of which it would leave nothing below 0; pass pixels in ({low:g}, {high:g}) "
            "and what normalises them as `preprocess`, or the defence with the range of `x`."
        )


def nb_classes(classifier: Any, x: Array | None = None) -> int | None:
    """Number of outputs of a classifier; None if that is not known."""
    if not isinstance(classifier, PredictOnly):
        return int(classifier.nb_classes)
    outputs = None if x is None else classifier.predict(x)
    return None if outputs is None or outputs.ndim == 1 else int(outputs.shape[1])


def check_classes(subjects: Collection[Subject]) -> None:
    """Refuse AutoAttack on a classifier with too few classes for its losses."""
    from .autoattack import FEWEST_CLASSES

    for subject in subjects:
        parts = (subject.defence, subject.classifier)
        version = "rand" if any(getattr(part, "stochastic", False) for part in parts) else "standard"
        classes, least = nb_classes(subject.classifier), FEWEST_CLASSES[version]
        if classes is not None and classes < least:
            raise ArgumentError(
                f'`attacks="{AUTOATTACK}"` needs {least} classes or more, because its difference of logits '
                f"ratio is undefined for fewer, got {classes}, the outputs of the classifier of "
                f"{subject.name!r}; leave `attacks` out for the default attacks, which need two."
            )


def _named(defences: Any) -> dict[str, Any]:
    """Defences by the name of their row: the class, or the constructor call where two have one class."""
    if isinstance(defences, Mapping):
        return {str(name): value for name, value in defences.items()}
    listed = list(defences) if isinstance(defences, list | tuple) else [defences]
    firsts = [value[0] if isinstance(value, tuple) else value for value in listed]
    classes = [type(defence).__name__ for defence in firsts]
    labels = [
        name if classes.count(name) == 1 else repr(as_defence(first))
        for name, first in zip(classes, firsts, strict=True)
    ]
    return _numbered(list(zip(labels, listed, strict=True)))


def _numbered(values: list[tuple[str, Any]]) -> dict[str, Any]:
    """Values by name; a name that was used before has the place of the value added."""
    names: dict[str, Any] = {}
    for place, (name, value) in enumerate(values, 1):
        names[name if name not in names else f"{name} ({place})"] = value
    return names
