"""Boxes of planes resized into boxes of other planes: the nearest pixel, or two along each axis."""

from typing import Any

import numpy as np

from ..typing import Array
from . import kernel

__all__ = ["blend_boxes", "copy_boxes", "return_boxes"]

index: Any = np.uintp  # an unsigned index need not be compared with 0


@kernel
def _neighbours(first: Array, second: Array, weights: Array, box: Any, length: int, linear: bool) -> None:
    """For each new pixel along an axis the old ones that it is made of, and the weight of the second."""
    start, old = box[0], box[1] - box[0]
    for i in range(length):
        if linear:  # the middles of pixels are aligned; beyond the border the outermost pixel is repeated
            place, whole = (2 * i + 1) * old - length, 2 * length
            low = place // whole
            weights[i] = (place - low * whole) / whole
            first[i] = start + min(max(low, 0), old - 1)
            second[i] = start + min(max(low + 1, 0), old - 1)
        else:  # the pixel that holds the upper left corner
            weights[i] = 0
            first[i] = start + i * old // length
            second[i] = first[i]


@kernel
def _clear(out: Array, top: int, bottom: int, left: int, right: int) -> None:
    """Zeros outside of a box of a plane."""
    for i in range(out.shape[0]):
        row = out[i]
        if i < top or i >= bottom:
            row[:] = 0
        else:
            row[:left] = 0
            row[right:] = 0


@kernel
def copy_boxes(out: Array, x: Array, owners: Array, source: Array, target: Array, step: int) -> None:
    """Fill a box of each plane with the nearest pixels of a box of another one, and the rest with zeros.

    Parameters
    ----------
    out : ndarray, shape (P, h, w * step)
        Written; `step` interleaved channels make a row.
    x : ndarray, shape (P, H, W * step)
        Planes.
    owners : ndarray of int, shape (P,)
        Which boxes belong to each plane.
    source, target : ndarray of int, shape (B, 4)
        Top, bottom, left and right of boxes of `x` and of `out`; ends are excluded.
    step : int
        Distance between horizontal neighbours.
    """
    columns, unused = np.empty((2, out.shape[2] // step), index)
    weights = np.empty(columns.size)
    for p in range(out.shape[0]):
        a, (top, bottom, left, right) = source[owners[p]], target[owners[p]]
        width, height = right - left, bottom - top
        _neighbours(columns, unused, weights, a[2:], width, False)
        _clear(out[p], top, bottom, left * step, right * step)
        before = -1
        for i in range(height):
            row, line = a[0] + i * (a[1] - a[0]) // height, out[p, top + i, left * step : right * step]
            if row == before:
                line[:] = out[p, top + i - 1, left * step : right * step]
                continue
            before, pixels = row, x[p, row]
            if step == 1:
                for j in range(width):
                    line[index(j)] = pixels[columns[index(j)]]
            else:
                for j in range(width):
                    for channel in range(step):
                        place = columns[index(j)] * index(step) + index(channel)
                        line[index(j * step + channel)] = pixels[place]


@kernel
def blend_boxes(out: Array, x: Array, owners: Array, source: Array, target: Array, step: int) -> None:
    """The same by bilinear interpolation within the box."""
    first, second = np.empty((2, 2, max(out.shape[1:])), index)
    weights = np.empty((2, max(out.shape[1:])))
    line = np.empty(x.shape[2], x.dtype)  # a new row with the old columns; it stays in the cache
    for p in range(out.shape[0]):
        a, (top, bottom, left, right) = source[owners[p]], target[owners[p]]
        _neighbours(first[0], second[0], weights[0], a[:2], bottom - top, True)
        _neighbours(first[1], second[1], weights[1], a[2:], right - left, True)
        _clear(out[p], top, bottom, left * step, right * step)
        near, far = first[1], second[1]
        shares, rests = weights[1].astype(x.dtype), (1 - weights[1]).astype(x.dtype)
        for i in range(bottom - top):
            upper, lower = x[p, first[0, i]], x[p, second[0, i]]
            share = x.dtype.type(weights[0, i])
            rest = x.dtype.type(1 - weights[0, i])
            for t in range(a[2] * step, a[3] * step):
                line[t] = upper[t] * rest + lower[t] * share
            made = out[p, top + i, left * step : right * step]
            for j in range(right - left):
                for channel in range(step):
                    one = line[near[index(j)] * index(step) + index(channel)]
                    two = line[far[index(j)] * index(step) + index(channel)]
                    made[index(j * step + channel)] = one * rests[index(j)] + two * shares[index(j)]


@kernel
def return_boxes(
    out: Array, grad: Array, owners: Array, source: Array, target: Array, step: int, linear: bool
) -> None:
    """The transpose of either: gradients `(P, h, w * step)` back to planes `(P, H, W * step)`, from zeros."""
    first, second = np.empty((2, 2, max(grad.shape[1:])), index)
    weights = np.empty((2, max(grad.shape[1:])))
    line = np.empty(out.shape[2], out.dtype)
    for p in range(out.shape[0]):
        a, (top, bottom, left, right) = source[owners[p]], target[owners[p]]
        _neighbours(first[0], second[0], weights[0], a[:2], bottom - top, linear)
        _neighbours(first[1], second[1], weights[1], a[2:], right - left, linear)
        shares, rests = weights[1].astype(out.dtype), (1 - weights[1]).astype(out.dtype)
        for i in range(bottom - top):
            line[:] = 0
            given = grad[p, top + i, left * step : right * step]
            for j in range(right - left):
                for channel in range(step):
                    value = given[j * step + channel]
                    line[first[1, j] * index(step) + index(channel)] += value * rests[j]
                    if linear:
                        line[second[1, j] * index(step) + index(channel)] += value * shares[j]
            upper, lower = out[p, first[0, i]], out[p, second[0, i]]
            share, rest = out.dtype.type(weights[0, i]), out.dtype.type(1 - weights[0, i])
            for t in range(a[2] * step, a[3] * step):
                upper[t] += line[t] * rest
            if linear:
                for t in range(a[2] * step, a[3] * step):
                    lower[t] += line[t] * share
