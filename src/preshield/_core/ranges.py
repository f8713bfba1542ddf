"""Whether data lie in the range that they are said to have, and the guess where nothing is said.

Only magnitudes are compared, and with a margin: an attack, noise or a filter may leave any range by a little,
and a mistake of units is off by the 255 steps of 8 bits or the 32768 of 16.
"""

import inspect
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from .checks import is_pair
from .layout import FEW_CHANNELS
from .typing import Array

__all__ = [
    "UNDO",
    "are_images",
    "fits",
    "in_unit_range",
    "largest",
    "looks_normalised",
    "misfit",
    "most_of",
    "noise_misfit",
    "warn_caller",
]

MARGIN = 8.0  # data in [-1, 1] and noise of standard deviation 1 stay below: that would be seven of them
NORMAL = 3.0  # images normalised for a model stay below, by their bounds; noise that reaches -1 does not
STEPS = 127  # a range with such a limit is one of integer steps, of 8 bits or more
FULL_SCALES = (1 << 15, 1 << 23, 1 << 31)  # of audio of 16, 24 and 32 bits
IMAGE_TOPS = (255, 1023, 4095, 65535)  # of 8, 10, 12 and 16 bits
OVERSHOOT = 1.25  # how far beyond them an attack or a filter may go
UNDO = "defend the pixels and let the model normalise them, such as `torch.nn.Sequential(normalise, model)`"
LOOK = 1 << 12  # values to begin with, in search of a large one
PACKAGE = str(Path(__file__).parents[1])


def largest(x: Array) -> float:
    """The largest magnitude in an array; 0 if it is empty."""
    return max(float(x.max()), -float(x.min())) if x.size else 0.0


def in_unit_range(x: Array, peak: float) -> bool:
    """Whether data of this largest magnitude are those of [-1, 1], a little beyond included.

    Integers do not go a little beyond; whole numbers in floats are steps of quiet sounds or dark images.
    """
    return peak <= 1 or (x.dtype.kind == "f" and peak <= MARGIN and not (x == np.rint(x)).all())


def most_of(limits: object) -> float | None:
    """The larger magnitude of a pair of numbers, or of arrays with one number for all channels."""
    if not is_pair(limits):
        return None
    if all(isinstance(value, int | float) for value in limits):
        return float(max(map(abs, limits)))
    try:
        ends = [np.asarray(value) for value in limits]
    except ValueError:  # lists that make no array
        return None
    if not all(end.size and end.dtype.kind in "buif" and (end == end.flat[0]).all() for end in ends):
        return None  # limits that differ between channels
    return max(abs(float(end.flat[0])) for end in ends)


def fits(x: Array, peaks: list[float], most: float) -> bool:
    """Whether a batch may lie in a range that ends at this magnitude.

    Parameters
    ----------
    x : ndarray
        Batch, or an object array of samples.
    peaks : list of float
        Largest magnitudes among its floats; other types are looked at here, as far as it takes.
    most : float
        The larger magnitude of the two ends of the range.

    Returns
    -------
    bool
        False for values that lie far outside, and for values of [-1, 1] in a range of integer steps. A batch
        of zeros lies in every range.
    """
    parts = x if x.dtype == object else [x]
    integers = [part for part in parts if part.dtype.kind != "f"]
    peak = max(peaks, default=0.0)
    if peak > MARGIN * most or any(_beyond(part, MARGIN * most) for part in integers):
        return False
    if most < STEPS or peak > MARGIN or any(_beyond(part, 1) for part in integers):
        return True
    if peak > 1:
        return not any(in_unit_range(part, peak) for part in parts if part.dtype.kind == "f")
    return peak == 0 and not any(part.any() for part in integers)


def are_images(x: Array) -> bool:
    """Whether a batch of floating numbers has the shape of images, with few channels."""
    return x.dtype.kind == "f" and x.ndim == 4 and bool({x.shape[1], x.shape[-1]} & set(FEW_CHANNELS))


def looks_normalised(x: Array) -> bool:
    """Whether images have the values of those that were normalised for a model, and not of noisy pixels."""
    return (
        are_images(x) and x.size > 0 and float(x.min()) < -1 and float(x.max()) > 1 and largest(x) <= NORMAL
    )


def _beyond(x: Array, limit: float) -> bool:
    """Whether integers hold a magnitude above `limit`; ends where one is found."""
    if x.dtype.kind == "b":
        return limit < 1 and bool(x.any())
    kind = np.iinfo(x.dtype)
    if max(kind.max, -kind.min) <= limit or not x.size:
        return False
    rows = x.reshape(-1) if x.flags.c_contiguous else x
    start, length = 0, max(1, LOOK * len(rows) // x.size)
    while start < len(rows):
        if largest(rows[start : start + length]) > limit:
            return True
        start, length = start + length, 2 * length
    return False


def misfit(x: Array, parameter: str, value: Any, most: float) -> str:
    """What to say of a batch that does not fit: the parameter, what was seen, and the remedies."""
    parts = [part for part in (x if x.dtype == object else [x]) if part.size]
    low, high = min(float(part.min()) for part in parts), max(float(part.max()) for part in parts)
    rule = "the range of the data" if parameter == "clip_values" else "the largest value of a signal"
    text = f"`{parameter}` should be {rule}, got {value!r} for values from {low:.6g} to {high:.6g}"
    small = max(-low, high) <= MARGIN
    if parameter == "full_scale":
        full = 1 if small else next((n for n in FULL_SCALES if OVERSHOOT * n >= max(-low, high)), None)
        return f"{text}; pass full_scale={full}." if full else f"{text}."
    if looks_normalised(x):
        return f"{text}, as if they were normalised for a model; {UNDO}."
    top = 1 if small else next((n for n in IMAGE_TOPS if OVERSHOOT * n >= high), None)
    if low < 0 or top is None or (value is not None and np.any(np.asarray(value[0]) != 0)):
        return text + "; pass the range of the data as `clip_values`, or bring `x` into this one first."
    scaled = f"x * {most / top:g}" if most > top else f"x / {top / most:g}"
    remedy = f"pass clip_values=(0, {top}), or scale" if top in (1, 255) else "scale"
    return f"{text}; {remedy} the data, for example with {scaled}."


def noise_misfit(x: Array, sigma: float) -> str:
    """What to say of images that have 256 levels or more, and noise in units of [0, 1], or the reverse."""
    if x.ndim < 4 and x.dtype != np.uint8:  # measurements may have any unit
        return ""
    peak = largest(x)
    top = next((n for n in IMAGE_TOPS if OVERSHOOT * n >= peak), None)
    text = f"`sigma` should be in units of the data, got {sigma:g} for values up to {peak:.6g}"
    if peak > MARGIN and sigma <= 1 and top is not None:
        return f"{text}; pass sigma={sigma * top:g}, or scale the data, for example with x / {top}."
    if 0 < peak <= MARGIN and sigma > MARGIN:
        return f"{text}; pass sigma={sigma / IMAGE_TOPS[0]:.3g}, or the data in the units of sigma."
    return ""


def warn_caller(message: str) -> None:
    """Warn, and point to the line outside of this package that led here."""
    level, frame = 1, inspect.currentframe()
    while frame is not None and frame.f_code.co_filename.startswith(PACKAGE):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)
