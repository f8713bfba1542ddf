"""Figures of merit of a classifier under attack.

Labels are class indices; `REJECTED` is what a classifier answers that refuses to classify a sample. A mean
over no samples is nan, so that a report can show that there was nothing to count.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike

from .._core.checks import check_number, check_option, check_values
from .._core.errors import ArgumentError
from .._core.fourier import log_spectrum
from .._core.typing import Array

__all__ = [
    "REJECTED",
    "accepted_accuracy",
    "accuracy",
    "attack_success_rate",
    "coverage",
    "dissimilarity",
    "interval",
    "perturbation_norms",
    "rejection_rate",
    "spectrum",
    "worst_case",
]

Z = 1.959963984540054  # 97.5% quantile of the normal distribution
REJECTED = -1  # the label of a sample that a classifier refuses to classify


def accuracy(predicted: ArrayLike, y: ArrayLike) -> float:
    """Share of predictions that are right; a rejected sample is not.

    ``#{i : predicted_i = y_i} / N``, averaged over the draws.

    Parameters
    ----------
    predicted : array_like of int, shape (N,) or (draws, N)
        Predicted classes, or `REJECTED`.
    y : array_like of int, shape (N,)
        True classes.

    Returns
    -------
    float
        Between 0 and 1; nan without samples.

    Raises
    ------
    TypeError
        If the labels are not integers.
    ValueError
        If the shapes do not fit, or a label is negative and not `REJECTED`.

    Examples
    --------
    >>> accuracy([0, 1, 2, REJECTED], [0, 1, 1, 1])
    0.5
    """
    predicted, y = _predictions("predicted", predicted, y)
    return _mean(predicted == y)


def accepted_accuracy(predicted: ArrayLike, y: ArrayLike) -> float:
    """Share of right predictions among those that were not rejected.

    ``#{i : predicted_i = y_i} / #{i : predicted_i != REJECTED}``, the draws counted together.

    Parameters
    ----------
    predicted : array_like of int, shape (N,) or (draws, N)
        Predicted classes, or `REJECTED`.
    y : array_like of int, shape (N,)
        True classes.

    Returns
    -------
    float
        Between 0 and 1; nan if every sample was rejected.

    Raises
    ------
    TypeError, ValueError
        As `accuracy`.

    Examples
    --------
    >>> accepted_accuracy([0, 1, 2, REJECTED], [0, 1, 1, 1])
    0.6666666666666666
    """
    predicted, y = _predictions("predicted", predicted, y)
    return _mean((predicted == y)[predicted != REJECTED])


def coverage(predicted: ArrayLike) -> float:
    """Share of samples that were classified and not rejected.

    ``#{i : predicted_i != REJECTED} / N``, averaged over the draws.

    Parameters
    ----------
    predicted : array_like of int, shape (N,) or (draws, N)
        Predicted classes, or `REJECTED`.

    Returns
    -------
    float
        Between 0 and 1; nan without samples.

    Raises
    ------
    TypeError
        If the labels are not integers.
    ValueError
        If `predicted` has neither 1 nor 2 axes, or a label is negative and not `REJECTED`.

    Examples
    --------
    >>> coverage([0, 1, 2, REJECTED])
    0.75
    """
    return _mean(_predicted("predicted", predicted) != REJECTED)


def rejection_rate(predicted: ArrayLike) -> float:
    """Share of samples that the classifier refused to classify.

    ``#{i : predicted_i = REJECTED} / N = 1 - coverage``, averaged over the draws.

    Parameters
    ----------
    predicted : array_like of int, shape (N,) or (draws, N)
        Predicted classes, or `REJECTED`.

    Returns
    -------
    float
        Between 0 and 1; nan without samples.

    Raises
    ------
    TypeError, ValueError
        As `coverage`.

    Examples
    --------
    >>> rejection_rate([0, 1, 2, REJECTED])
    0.25
    """
    return _mean(_predicted("predicted", predicted) == REJECTED)


def attack_success_rate(
    predicted: ArrayLike,
    y: ArrayLike,
    *,
    target: ArrayLike | None = None,
    clean: ArrayLike | None = None,
    rejected: str = "defended",
) -> float:
    """Share of perturbed samples on which an attack reached its aim.

    ``#{i in S : predicted_i != y_i} / #S`` untargeted, ``#{i in S : predicted_i = target_i} / #S`` targeted,
    averaged over the draws. S holds all samples; with `clean` those that were right before the attack, which
    is the usual definition; with `target` those whose true class is another, since the others need no attack.

    Parameters
    ----------
    predicted : array_like of int, shape (N,) or (draws, N)
        Classes predicted for the perturbed samples, or `REJECTED`.
    y : array_like of int, shape (N,)
        True classes.
    target : int or array_like of int, shape (N,), optional
        The class, or the class for each sample, that the attack wanted. Untargeted if omitted.
    clean : array_like of int, shape (N,) or (draws, N), optional
        Classes predicted for the samples before the attack. A sample was right if every draw was.
    rejected : {"defended", "attacked"}
        Whose success a rejection is.

    Returns
    -------
    float
        Between 0 and 1; nan if S is empty.

    Raises
    ------
    TypeError
        If the labels are not integers.
    ValueError
        If the shapes do not fit, a label is negative and not `REJECTED`, or `rejected` is unknown.

    Examples
    --------
    >>> y, clean = [0, 1, 2, 2], [0, 1, 2, 0]  # the last sample was wrong from the start
    >>> attack_success_rate([1, 1, REJECTED, 0], y, clean=clean)
    0.3333333333333333
    >>> attack_success_rate([1, 1, REJECTED, 0], y, clean=clean, rejected="attacked")
    0.6666666666666666
    """
    predicted, y = _predictions("predicted", predicted, y)
    check_option("rejected", rejected, ("defended", "attacked"))
    counted = np.ones(y.shape, dtype=bool)
    if clean is not None:
        clean, y = _predictions("clean", clean, y)
        counted &= np.atleast_2d(clean == y).all(axis=0)
    if target is None:
        reached = predicted != y
    else:
        target = _labels("target", target, 0)
        if target.shape not in ((), y.shape):
            raise ArgumentError(
                f"`target` must be one class or hold one for each of the {len(y)} samples, shape {y.shape}, "
                f"got shape {target.shape}."
            )
        reached = predicted == target
        counted &= y != target
    reached = np.where(predicted == REJECTED, rejected == "attacked", reached)
    return _mean(reached[..., counted])


def worst_case(correct: Sequence[ArrayLike]) -> float:
    """Accuracy if each sample meets the attack that is worst for it.

    ``sum_i min_a correct[a]_i / N``: never above the mean of any column.

    Parameters
    ----------
    correct : sequence of array_like, each of shape (N,)
        One column for each attack: whether each sample was classified correctly, or the share of draws in
        which it was.

    Returns
    -------
    float
        Between 0 and 1; nan without samples.

    Raises
    ------
    TypeError
        If a column does not hold numbers.
    ValueError
        If there is no column, the columns differ in shape, or a share is outside [0, 1].

    Examples
    --------
    >>> noise, pgd, square = [True, True, True, False], [True, False, True, False], [0.5, 0.5, 0.75, 0]
    >>> worst_case([noise, pgd, square])
    0.3125
    """
    columns = [np.asarray(column) for column in correct]
    if not columns:
        raise ArgumentError("`correct` must hold at least one column, got none.")
    for index, column in enumerate(columns):
        name = f"correct[{index}]"
        if column.ndim != 1 or column.shape != columns[0].shape:
            raise ArgumentError(
                f"`{name}` must have the shape (N,) of one entry for each sample, as the first column, "
                f"got {column.shape} beside {columns[0].shape}; average over draws first."
            )
        check_values(name, column)
        if column.size and not (column.min() >= 0 and column.max() <= 1):
            raise ArgumentError(
                f"`{name}` must hold booleans or shares between 0 and 1, got values from {column.min()} to "
                f"{column.max()}; compare predictions with labels first."
            )
    return _mean(np.min(np.asarray(columns, dtype=np.float64), axis=0))


def interval(share: float, samples: int) -> tuple[float, float]:
    """95% confidence interval of a share, after Wilson 1927 (doi:10.1080/01621459.1927.10502953).

    Parameters
    ----------
    share : float
        Between 0 and 1; where draws are averaged it need not be a multiple of 1 / `samples`.
    samples : int
        Samples that were counted.

    Returns
    -------
    low, high : float
        Between 0 and 1; nan without samples.

    Examples
    --------
    >>> low, high = interval(0.9, 10)
    >>> round(low, 3), round(high, 3)
    (0.596, 0.982)
    """
    if not samples or np.isnan(share):
        return float("nan"), float("nan")
    spread = Z * Z / samples
    middle = (share + spread / 2) / (1 + spread)
    half = Z * np.sqrt(share * (1 - share) / samples + spread / (4 * samples)) / (1 + spread)
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))


def dissimilarity(x: Sequence[Array] | Array, x_adv: Sequence[Array] | Array, p: float = 2) -> float:
    """Mean relative size of the perturbations.

    ``sum_i ||x_i - x_adv_i||_p / ||x_adv_i||_p / N``. Where ``||x_adv_i||_p`` is 0 the quotient is 0 if the
    samples are equal and infinite if not.

    Parameters
    ----------
    x, x_adv : ndarray, shape (N, ...), or sequence of N arrays
        Samples before and after the attack; each pair has one shape, and pairs may differ (waveforms).
    p : float, default 2
        Order of the norm, at least 1; ``numpy.inf`` for the largest magnitude.

    Returns
    -------
    float
        From 0 up; nan without samples.

    Raises
    ------
    TypeError
        If `p` is not a number, or the samples do not hold real numbers.
    ValueError
        If `p` is below 1, the shapes differ, or a value is not finite.

    Examples
    --------
    >>> dissimilarity(np.array([[3.0, 0.0], [1.0, 1.0]]), np.array([[3.0, 4.0], [1.0, 1.0]]))
    0.4
    """
    if p != np.inf:
        check_number("p", p, 1)
    quotients = []
    for clean, adversarial in _pairs(x, x_adv):
        size, scale = _norm(clean - adversarial, p), _norm(adversarial, p)
        quotients.append(size / scale if scale else np.inf if size else 0.0)
    return _mean(np.array(quotients))


def perturbation_norms(x: Sequence[Array] | Array, x_adv: Sequence[Array] | Array, norm: str) -> Array:
    """Size of each perturbation.

    ``||x_adv_i - x_i||_2``, ``max |x_adv_i - x_i|`` or ``||x_adv_i - x_i||_1``, in float64.

    Parameters
    ----------
    x, x_adv : ndarray, shape (N, ...), or sequence of N arrays
        Samples before and after the attack; each pair has one shape, and pairs may differ (waveforms).
    norm : {"l2", "linf", "l1"}
        Which norm.

    Returns
    -------
    ndarray of float64, shape (N,)

    Raises
    ------
    TypeError
        If the samples do not hold real numbers.
    ValueError
        If `norm` is unknown, the shapes differ, or a value is not finite.

    Examples
    --------
    >>> perturbation_norms(np.zeros((2, 2)), np.array([[3.0, 4.0], [0.0, -1.0]]), "l2")
    array([5., 1.])
    """
    check_option("norm", norm, ("l2", "linf", "l1"))
    p = {"l2": 2, "linf": np.inf, "l1": 1}[norm]
    return np.array(
        [_norm(adversarial - clean, p) for clean, adversarial in _pairs(x, x_adv)], dtype=np.float64
    )


def spectrum(x: ArrayLike, *, channels_first: bool = False) -> Array:
    """Two-dimensional Fourier spectrum of images or feature maps: where in frequency their differences lie.

    ``log10(A / max A)`` with ``A`` the mean over samples and channels of ``|F(x_nc)|``, the frequency zero in
    the middle. `preshield.plots.spectrum` and `spectra` draw it.

    Parameters
    ----------
    x : array_like or tensor, shape (N, H, W, C)
        Images, feature maps, or differences of them, with any number of channels.
    channels_first : bool, default False
        Whether `x` is `(N, C, H, W)`.

    Returns
    -------
    ndarray of float64, shape (H, W)
        0 at the largest amplitude, -1 at a tenth of it; never below -20. The frequency zero, which is the
        mean of `x`, stands at ``(H // 2, W // 2)``.

    Raises
    ------
    TypeError, ValueError
        If `x` does not hold finite real numbers, has another number of axes, or is empty.

    Examples
    --------
    >>> stripes = np.tile([0.0, 1.0], (1, 4, 2))[..., None]  # as much of the highest frequency as mean
    >>> spectrum(stripes)[2].round()
    array([  0., -20.,   0., -20.])
    """
    return log_spectrum("x", x, channels_first)


def _mean(values: Array) -> float:
    return float(values.mean()) if values.size else float("nan")


def _norm(values: Array, p: float) -> float:
    """The p-norm, scaled by the largest magnitude so that no power of it overflows."""
    magnitudes = np.abs(values)
    largest = float(magnitudes.max(initial=0.0))
    if p == np.inf or not largest:
        return largest
    return float(largest * ((magnitudes / largest) ** p).sum() ** (1 / p))


def _labels(name: str, labels: ArrayLike, least: int) -> Array:
    array = np.asarray(labels)
    if array.size and array.dtype.kind not in "iu":
        raise ArgumentError(
            f"`{name}` must hold integer class labels, got dtype {array.dtype}; take the argmax of "
            "one-hot labels, logits or probabilities."
        )
    if array.size and array.min() < least:
        rule = "class indices from 0 up" + (f", or {REJECTED} for a rejected sample" if least < 0 else "")
        raise ArgumentError(f"`{name}` must hold {rule}, got {array.min()}.")
    return array


def _predicted(name: str, predicted: ArrayLike) -> Array:
    array = _labels(name, predicted, REJECTED)
    if array.ndim not in (1, 2):
        raise ArgumentError(f"`{name}` must have the shape (N,) or (draws, N), got {array.shape}.")
    return array


def _predictions(name: str, predicted: ArrayLike, y: ArrayLike) -> tuple[Array, Array]:
    """Return predictions and true labels as arrays that fit each other."""
    predicted, y = _predicted(name, predicted), _labels("y", y, 0)
    if y.ndim != 1:
        raise ArgumentError(
            f"`y` must have the shape (N,), got {y.shape}; take the argmax(axis=1) of one-hot labels."
        )
    if predicted.shape[-1] != len(y):
        raise ArgumentError(
            f"`{name}` must hold one label for each of the {len(y)} samples, shape (N,) or (draws, N), "
            f"got shape {predicted.shape}."
        )
    return predicted, y


def _pairs(x: Sequence[Array] | Array, x_adv: Sequence[Array] | Array) -> Iterator[tuple[Array, Array]]:
    """Each sample before and after the attack, in float64: one pair in memory at a time."""
    if len(x) != len(x_adv):
        raise ArgumentError(
            f"`x_adv` must hold one sample for each of the {len(x)} samples of `x`, got {len(x_adv)}."
        )
    for index, (clean, adversarial) in enumerate(
        zip(map(np.asarray, x), map(np.asarray, x_adv), strict=True)
    ):
        if clean.shape != adversarial.shape:
            raise ArgumentError(
                f"`x_adv[{index}]` must have the shape {clean.shape} of `x[{index}]`, "
                f"got {adversarial.shape}."
            )
        check_values(f"x[{index}]", clean)
        check_values(f"x_adv[{index}]", adversarial)
        yield clean.astype(np.float64), adversarial.astype(np.float64)
