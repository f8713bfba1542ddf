"""Total variance minimisation of planes, in coordinates of the gradients.

A method of descent whose directions are sums of gradients and of earlier steps never leaves the span of the
gradients that it has seen. The machine of `descent` therefore works on coordinates with respect to an
orthonormal basis of that span, a handful of numbers, and memory holds one vector for each step: the gradient
from which it started. An evaluation reads each of them twice, once to make the point and once for the
products that place its gradient in the basis.
"""

from typing import Any

import numpy as np

from ..typing import Array
from . import kernel, reduction
from .descent import BEST_GRAD, DIRECTION, STARTING, X, _advance, _set_sum, vectors_needed
from .total_variation import TINY, _norms_and_weights

__all__ = ["MOST_STEPS", "smooth"]

MOST_STEPS = 20  # with more, the pairs of vectors that the machine remembers are fewer than the gradients
CHUNK = 1 << 11  # pixels that stay in the first-level cache while all gradients pass
SMALLEST = 1e-13  # square of what is new in a gradient, as a fraction, below which it is rounding


@kernel
def _combine(delta: Array, grads: Array, places: Array, factors: Array, count: int) -> None:
    """Set `delta` to the sum of the first gradients, each times its factor."""
    for start in range(0, delta.shape[0], CHUNK):
        stop = min(start + CHUNK, delta.shape[0])
        for j in range(start, stop):
            delta[j] = 0
        for i in range(count):
            place, factor = places[i], delta.dtype.type(factors[i])
            for j in range(start, stop):
                delta[j] += factor * grads[place, j]


@reduction
def _multiply(products: Array, grads: Array, places: Array, count: int) -> None:
    """Inner products of the gradient with number `count` with those before it and with itself."""
    products[: count + 1] = 0.0
    last, size = places[count], grads.shape[1]
    for start in range(0, size, CHUNK):
        stop = min(start + CHUNK, size)
        for i in range(count + 1):
            place, total = places[i], 0.0
            for j in range(start, stop):
                total += np.float64(grads[place, j]) * np.float64(grads[last, j])
            products[i] += total


@kernel
def _power(d: Any, norm: int, like: Array) -> Any:
    t = like.dtype.type
    return d * d if norm == 2 else abs(d) if norm == 1 else t(abs(d) ** norm)


@kernel
def _slope(d: Any, norm: int, like: Array) -> Any:
    """Derivative of `|d|**norm / norm`."""
    t = like.dtype.type
    return d if norm == 2 else np.sign(d) if norm == 1 else t(np.sign(d) * abs(d) ** (norm - 1))


@reduction
def _sums(rows: Array, columns: Array, delta: Array, x: Array, mask: Array, norm: int) -> float:
    """Sum powers of the differences along each row and column, and squares of displacements on the mask.

    Differences of `x` and of its displacement are taken apart: their sum is as exact as it can be.
    """
    height, width = x.shape
    square = 0.0
    columns[:] = 0.0
    rows[0] = rows[height] = 0.0
    for r in range(height):
        total = zero = x.dtype.type(0)
        for j in range(width):
            total += delta[r, j] * delta[r, j] * mask[r, j]
        square += total
        if r:
            total = zero
            for j in range(width):
                total += _power((x[r, j] - x[r - 1, j]) + (delta[r, j] - delta[r - 1, j]), norm, x)
            rows[r] = total
        for j in range(1, width):
            columns[j] += _power((x[r, j] - x[r, j - 1]) + (delta[r, j] - delta[r, j - 1]), norm, x)
    return square


@kernel
def _set_gradient(
    grad: Array,
    delta: Array,
    x: Array,
    mask: Array,
    pull: Any,
    rows: Array,
    columns: Array,
    below: Array,
    beside: Array,
    norm: int,
) -> None:
    """Put the gradient together from differences and the weights of their rows and columns."""
    height, width = x.shape
    below[:] = 0
    beside[:] = 0
    for r in range(height):
        upper, lower = r % 2, 1 - r % 2
        weight = rows[r + 1]
        if r + 1 < height:
            for j in range(width):
                d = (x[r + 1, j] - x[r, j]) + (delta[r + 1, j] - delta[r, j])
                below[lower, j] = weight * _slope(d, norm, x)
        else:
            for j in range(width):
                below[lower, j] = 0
        for j in range(1, width):
            d = (x[r, j] - x[r, j - 1]) + (delta[r, j] - delta[r, j - 1])
            beside[j] = columns[j] * _slope(d, norm, x)
        for j in range(width):
            total = (below[upper, j] - below[lower, j]) + (beside[j] - beside[j + 1])
            grad[r, j] = total + pull * delta[r, j] * mask[r, j]


@reduction
def _shrink(grad: Array, mask: Array) -> None:
    """Add the subgradient of the distance at its kink that makes the sum least: shorten it by 1."""
    square, zero = 0.0, grad.dtype.type(0)
    for r in range(grad.shape[0]):
        for j in range(grad.shape[1]):
            square += np.float64(grad[r, j]) ** 2 if mask[r, j] else 0.0
    kept = grad.dtype.type(max(0.0, 1.0 - 1.0 / np.sqrt(square)) if square > 0.0 else zero)
    for r in range(grad.shape[0]):
        for j in range(grad.shape[1]):
            if mask[r, j]:
                grad[r, j] *= kept


@kernel
def _largest(grad: Array) -> Any:
    largest = abs(grad[0])
    for j in range(grad.shape[0]):
        largest = max(largest, abs(grad[j]))
    return largest


@kernel
def _factors(factors: Array, point: Array, basis: Array, count: int) -> None:
    """From coordinates to factors of the gradients, whose coordinates are the rows of a triangle."""
    for i in range(count - 1, -1, -1):
        left = point[i]
        for k in range(i + 1, count):
            left -= basis[k, i] * factors[k]
        factors[i] = left / basis[i, i] if basis[i, i] > 0 else 0.0


@kernel
def _coordinates(row: Array, products: Array, basis: Array, count: int) -> None:
    """Coordinates of a gradient, the last of which is what no other gradient has."""
    row[:] = 0.0
    left = products[count]
    for i in range(count):
        part = products[i]
        for k in range(i):
            part -= basis[i, k] * row[k]
        row[i] = part / basis[i, i] if basis[i, i] > 0 else 0.0
        left -= row[i] * row[i]
    row[count] = np.sqrt(left) if left > SMALLEST * products[count] else 0.0


@kernel
def smooth(
    out: Array,
    x: Array,
    mask: Array,
    states: Array,
    norm: int,
    scale: float,
    method: int,
    max_iter: int,
    tolerance: float,
) -> None:
    """Minimise the objective of `total_variation` from `x` on, for each plane.

    Parameters
    ----------
    out : ndarray, shape (P, H, W)
        Written: where the minimiser ends. It computes in this dtype, `float32` or `float64`.
    x : ndarray, like `out`
    mask : ndarray of bool, shape (P, H, W)
    states : ndarray of descent.STATE, shape (P,)
        Zeros. Written: the machine of each plane, at its end.
    norm : int
    scale : float
    method : int
        Place in `preshield._core.optimise.METHODS` of one whose steps are sums of gradients.
    max_iter : int
        Largest number of steps.
    tolerance : float
        A plane is finished when the largest entry of its gradient is at most this.
    """
    t, (planes, height, width) = x.dtype.type, x.shape
    size, axes = height * width, max_iter + 1
    grads, delta = np.empty((axes + 1, size), x.dtype), np.empty((height, width), x.dtype)
    below, beside = np.empty((2, width), x.dtype), np.empty(width + 1, x.dtype)
    rows, columns = np.empty(height + 1), np.zeros(width + 1)
    row_weights, column_weights = np.empty(height + 1, x.dtype), np.empty(width + 1, x.dtype)
    vectors, basis = np.zeros((vectors_needed(method), axes)), np.zeros((axes, axes))
    point, row, products, factors = np.zeros(axes), np.zeros(axes), np.zeros(axes), np.zeros(axes)
    for p in range(planes):
        state, places = states[p], np.arange(axes + 1)
        point[:] = 0.0
        vectors[:] = 0.0
        count, at_rest, going = 0, False, True
        while going:
            _factors(factors, point, basis, count)
            _combine(delta.reshape(size), grads, places, factors, count)
            square = _sums(rows, columns, delta, x[p], mask[p], norm)
            value = _norms_and_weights(rows, norm, scale) + _norms_and_weights(columns, norm, scale)
            distance = np.sqrt(square)
            value = distance + scale * value
            row_weights[:], column_weights[:] = rows, columns
            pull = t(1.0 / distance if distance > TINY else 0.0)
            spare = places[axes]
            grad = grads[spare].reshape(height, width)
            _set_gradient(
                grad, delta, x[p], mask[p], pull, row_weights, column_weights, below, beside, norm
            )
            if distance <= TINY:
                _shrink(grad, mask[p])
            places[count], places[axes] = spare, places[count]
            _multiply(products, grads, places, count)
            _coordinates(row, products, basis, count)
            started, done = state.phase == STARTING, state.iterations
            going = _advance(state, vectors, point, value, row, method, max_iter, -1.0, 0.0)
            if started or np.all(vectors[BEST_GRAD] == row):  # it may be where the next line begins
                basis[count] = row
                small = products[count] <= size * tolerance**2
                at_rest = small and _largest(grads[spare]) <= tolerance
            else:
                places[count], places[axes] = places[axes], spare
            if started or state.iterations > done:
                count += 1
                going = going and not at_rest
            if going:
                _set_sum(point, vectors[X], state.step, vectors[DIRECTION])
        _factors(factors, vectors[X], basis, state.iterations)
        _combine(delta.reshape(size), grads, places, factors, state.iterations)
        out[p] = x[p] + delta
