"""Images before and after an attack, what was added, and what defences make of it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .._core.checks import check_number, check_option
from .._core.errors import ArgumentError
from .._core.tensors import to_numpy
from .._core.typing import Array, ClipValues
from .images import SheetColumn, contact_sheet, scaled_images

__all__ = ["amplification", "before_after", "difference_column", "mean_of_codes"]

_NORMS = {"l2": (2, "L2"), "linf": (np.inf, "L∞"), "l1": (1, "L1")}


def difference_column(
    clean: Array,
    attacked: Array,
    *,
    amplify: float | None = None,
    norm: str = "l2",
    clip_values: ClipValues = (0.0, 1.0),
) -> SheetColumn:
    """Show what an attack added, amplified, about mid grey.

    Parameters
    ----------
    clean, attacked : ndarray, shape (N, H, W, C)
        Images before and after the attack.
    amplify : float, optional
        Factor. By default the largest difference of the batch reaches black or white.
    norm : {"l2", "linf", "l1"}
        The norm that stands below each image, in the units of the images.
    clip_values : tuple, default (0, 1)
        Smallest and largest value of an image.

    Returns
    -------
    SheetColumn
        Images in [0, 1]; the factor stands in the subtitle.

    Raises
    ------
    ValueError
        If the two differ in shape or are no images.

    Examples
    --------
    >>> clean = np.zeros((1, 2, 2, 1))
    >>> column = difference_column(clean, clean + 0.05)
    >>> column.subtitle, column.labels
    ('×10', ['L2 0.1'])
    """
    check_option("norm", norm, tuple(_NORMS))
    if amplify is not None:
        check_number("amplify", amplify, minimum=0)
    before = scaled_images("clean", clean, clip_values)
    after = scaled_images("attacked", attacked, clip_values)
    if before.shape != after.shape:
        raise ArgumentError(
            f"`clean` and `attacked` must have one shape, got {before.shape} and {after.shape}."
        )
    factor = amplification(after - before) if amplify is None else float(amplify)
    added = np.subtract(to_numpy(attacked), to_numpy(clean), dtype=float).reshape(len(before), -1)
    order, name = _NORMS[norm]
    return SheetColumn(
        title="Difference",
        subtitle=f"×{factor:.3g}",
        images=np.clip(0.5 + factor * (after - before), 0, 1),
        labels=[f"{name} {size:.3g}" for size in np.linalg.norm(added, ord=order, axis=1)],
    )


def before_after(
    clean: Array,
    attacked: Array,
    defended: Array | Mapping[str, Array],
    *,
    labels: Sequence[Any] | None = None,
    predictions: Mapping[str, Sequence[Any]] | None = None,
    amplify: float | None = None,
    norm: str = "l2",
    clip_values: ClipValues = (0.0, 1.0),
    title: str = "",
    axes: Array | None = None,
) -> Array:
    """Draw images before the attack, attacked, what was added, and what defences make of it.

    Parameters
    ----------
    clean, attacked : ndarray, shape (N, H, W, C)
        Images before and after the attack.
    defended : ndarray, shape (N, H', W', C'), or dict of str to ndarray
        The attacked images after a defence, or after several, by name. If C' is a multiple of C, as in a
        thermometer code, each channel is shown by the mean of its codes.
    labels : sequence of length N, optional
        True class of each image.
    predictions : dict of str to sequence of length N, optional
        Predicted classes, by the title of a column: "Before", "Attacked", "Defended" or the name of a
        defence. With `labels` they are marked as right or wrong.
    amplify, norm
        Of the difference; see `difference_column`.
    clip_values : tuple, default (0, 1)
        Smallest and largest value of an image.
    title : str
        Heading of the figure.
    axes : ndarray of Axes, shape (N, columns), optional
        Where to draw.

    Returns
    -------
    ndarray of Axes, shape (N, columns)
        Columns: before, attacked, difference, and one for each defence.

    Raises
    ------
    ValueError
        If the batches do not fit each other, or a key of `predictions` is no title of a column.

    Examples
    --------
    >>> clean = np.full((2, 8, 8, 1), 0.4)
    >>> axes = before_after(clean, clean + 0.02, {"rounding": np.round(clean, 1)})
    >>> [ax.get_title() for ax in axes[0]]
    ['Before', 'Attacked', 'Difference', 'rounding']
    """
    named = defended if isinstance(defended, Mapping) else {"Defended": defended}
    batches = {"Before": clean, "Attacked": attacked}
    channels = scaled_images("clean", clean, clip_values).shape[-1]
    batches |= {name: mean_of_codes(to_numpy(x), channels) for name, x in named.items()}
    predictions = predictions or {}
    if unknown := set(predictions) - set(batches):
        raise ArgumentError(
            f"`predictions` must have titles of columns as keys ({', '.join(batches)}), "
            f"got {', '.join(map(repr, sorted(unknown)))}."
        )
    columns = [_predicted(name, x, predictions.get(name), labels, clip_values) for name, x in batches.items()]
    columns.insert(2, difference_column(clean, attacked, amplify=amplify, norm=norm, clip_values=clip_values))
    return contact_sheet(columns, title=title, axes=axes)


def amplification(difference: Array) -> float:
    """Factor that makes the largest difference one half."""
    largest = float(np.abs(difference).max())
    return 0.5 / largest if largest else 1.0


def mean_of_codes(x: Array, channels: int) -> Array:
    """Average the codes of each channel; images as they are."""
    if x.ndim != 4 or x.shape[-1] == channels or x.shape[-1] % channels:
        return x
    mean: Array = x.reshape(*x.shape[:-1], channels, -1).mean(axis=-1)
    return mean


def _predicted(
    title: str, x: Array, predicted: Sequence[Any] | None, true: Sequence[Any] | None, clip_values: ClipValues
) -> SheetColumn:
    """Make a column of images with their predicted classes; the first shows the true ones if it has none."""
    right = None
    if predicted is not None and true is not None:
        right = [bool(p == t) for p, t in zip(predicted, true, strict=True)]
    below = true if predicted is None and title == "Before" else predicted
    below = None if below is None else list(map(str, below))
    return SheetColumn(title, "", x, below, right, clip_values)
