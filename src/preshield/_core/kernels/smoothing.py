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
BAND = 1 << 12  # pixels of which the differences are held at once
SMALLEST = 1e-13  # square of what is new in a gradient, as a fraction, below which it is rounding


@kernel
def _add(out: Array, first: Any, a: Array, second: Any, b: Array) -> None:
    for j in range(out.shape[0]):
        out[j] += first * a[j] + second * b[j]


@kernel
def _combine(delta: Array, grads: Array, places: Array, factors: Array, count: int) -> None:
    """Set `delta` to the sum of the first gradients, each times its factor."""
    t = delta.dtype.type
    for start in range(0, delta.shape[0], CHUNK):
        part = delta[start : start + CHUNK]
        part[:] = 0
        for i in range(0, count, 2):
            k = min(i + 1, count - 1)
            first, second = t(factors[i]), t(factors[k] if k > i else 0.0)
            stop = start + len(part)
            _add(part, first, grads[places[i], start:stop], second, grads[places[k], start:stop])


@reduction
def _products(a: Array, b: Array, with_both: Array) -> tuple[float, float]:
    first = second = 0.0
    for j in range(with_both.shape[0]):
        value = np.float64(with_both[j])
        first += np.float64(a[j]) * value
        second += np.float64(b[j]) * value
    return first, second


@kernel
def _multiply(products: Array, grads: Array, places: Array, count: int) -> None:
    """Inner products of the gradient with number `count` with those before it and with itself."""
    products[: count + 1] = 0.0
    size = grads.shape[1]
    for start in range(0, size, CHUNK):
        stop = min(start + CHUNK, size)
        last = grads[places[count], start:stop]
        for i in range(0, count + 1, 2):
            k = min(i + 1, count)
            first, second = _products(grads[places[i], start:stop], grads[places[k], start:stop], last)
            products[i] += first
            products[k] += second if k > i else 0.0


@kernel
def _subtract(out: Array, after: Array, before: Array, moved: Array, stayed: Array) -> None:
    """Differences of pixels and of their displacements, taken apart: they are as exact as can be."""
    for j in range(out.shape[0]):
        out[j] = (after[j] - before[j]) + (moved[j] - stayed[j])


@kernel
def _differences(down: Array, right: Array, x: Array, delta: Array, first: int) -> None:
    """Differences of rows, from `first` on, with the next row and with the next column; 0 if there is none."""
    count, width = down.shape
    a, b, size = first * width, (first + count) * width, x.shape[0]
    below, last = min(b + width, size), min(b + 1, size)
    flat = down.reshape(count * width)
    flat[below - a - width :] = 0
    part = flat[: below - a - width]
    _subtract(part, x[a + width : below], x[a : below - width], delta[a + width : below], delta[a : below - width])
    part = right.reshape(count * width)[: last - a - 1]
    _subtract(part, x[a + 1 : last], x[a : last - 1], delta[a + 1 : last], delta[a : last - 1])
    right[:, width - 1] = 0


@reduction
def _add_powers(rows: Array, columns: Array, down: Array, right: Array, norm: int) -> None:
    """Sum `|difference|**norm` over each row of `down`, and add it up over each column of `right`."""
    for r in range(down.shape[0]):
        total = down.dtype.type(0)
        if norm == 2:
            for j in range(down.shape[1]):
                total += down[r, j] * down[r, j]
            for j in range(down.shape[1]):
                columns[j] += right[r, j] * right[r, j]
        elif norm == 1:
            for j in range(down.shape[1]):
                total += abs(down[r, j])
            for j in range(down.shape[1]):
                columns[j] += abs(right[r, j])
        else:
            for j in range(down.shape[1]):
                total += abs(down[r, j]) ** norm
            for j in range(down.shape[1]):
                columns[j] += abs(right[r, j]) ** norm
        rows[r] = total


@kernel
def _set_slopes(d: Array, norm: int) -> None:
    """Replace differences by the derivative of `|d|**norm / norm`."""
    if norm == 1:
        for j in range(d.shape[0]):
            d[j] = np.sign(d[j])
    elif norm > 2:
        for j in range(d.shape[0]):
            d[j] = np.sign(d[j]) * abs(d[j]) ** (norm - 1)


@reduction
def _masked_square(delta: Array, mask: Array) -> Any:
    """Sum of squares over the chosen pixels."""
    total = zero = delta.dtype.type(0)
    for j in range(delta.shape[0]):
        total += delta[j] * delta[j] if mask[j] else zero
    return total


@kernel
def _sums(
    rows: Array, columns: Array, delta: Array, x: Array, mask: Array, down: Array, right: Array, norm: int
) -> float:
    """Sum powers of the differences to each next row and column, and squares of the distance."""
    width, square = len(columns), 0.0
    run = len(down) // width - 1
    sums = np.empty(width, x.dtype)
    columns[:] = 0.0
    for first in range(0, len(rows), run):
        last = min(first + run, len(rows))
        a, b = first * width, last * width
        square += _masked_square(delta[a:b], mask[a:b])
        below, beside = down[: b - a].reshape(last - first, width), right[: b - a].reshape(last - first, width)
        _differences(below, beside, x, delta, first)
        sums[:] = 0
        _add_powers(rows[first:last], sums, below, beside, norm)
        for j in range(width):
            columns[j] += sums[j]
    return square


@kernel
def _weigh(down: Array, right: Array, of_rows: Array, of_columns: Array) -> None:
    for r in range(right.shape[0]):
        weight = of_rows[r]
        for j in range(right.shape[1]):
            down[r, j] *= weight
        for j in range(right.shape[1]):
            right[r, j] *= of_columns[j]


@kernel
def _gather(grad: Array, down: Array, right: Array, delta: Array, mask: Array, pull: Any) -> None:
    """Put some rows of a gradient together; slopes begin with those of the row above and of a pixel before."""
    zero, width = grad.dtype.type(0), down.shape[0] - grad.shape[0]
    below, beside = down[width:], right[1:]
    for j in range(grad.shape[0]):
        pulled = pull * delta[j]
        total = (down[j] - below[j]) + (right[j] - beside[j])
        grad[j] = total + (pulled if mask[j] else zero)


@kernel
def _set_gradient(
    grad: Array,
    delta: Array,
    x: Array,
    mask: Array,
    pull: Any,
    rows: Array,
    columns: Array,
    down: Array,
    right: Array,
    norm: int,
) -> None:
    """Put the gradient together from differences and the weights of their rows and columns."""
    width = len(columns)
    run = len(down) // width - 1
    of_rows, of_columns = rows.astype(x.dtype), columns.astype(x.dtype)
    down[:] = 0
    right[0] = 0
    for first in range(0, len(rows), run):
        last = min(first + run, len(rows))
        a, b = first * width, last * width
        for j in range(width):
            down[j] = down[run * width + j]  # of the row above, which was the last one
        slopes, beside = down[width : width + b - a], right[1 : 1 + b - a]
        grid = last - first, width
        _differences(slopes.reshape(grid), beside.reshape(grid), x, delta, first)
        _set_slopes(slopes, norm)
        _set_slopes(beside, norm)
        _weigh(slopes.reshape(grid), beside.reshape(grid), of_rows[first:last], of_columns)
        _gather(grad[a:b], down[: width + b - a], right[: 1 + b - a], delta[a:b], mask[a:b], pull)


@reduction
def _shrink(grad: Array, mask: Array) -> None:
    """Add the subgradient of the distance at its kink that makes the sum least: shorten it by 1."""
    square = 0.0
    for j in range(grad.shape[0]):
        square += np.float64(grad[j]) ** 2 if mask[j] else 0.0
    kept = grad.dtype.type(max(0.0, 1.0 - 1.0 / np.sqrt(square)) if square > 0.0 else 0.0)
    for j in range(grad.shape[0]):
        if mask[j]:
            grad[j] *= kept


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
    grads, delta = np.empty((axes + 1, size), x.dtype), np.empty(size, x.dtype)
    run = min(height, max(1, BAND // width))
    down, right = np.empty((run + 1) * width, x.dtype), np.empty(run * width + 1, x.dtype)
    rows, columns = np.empty(height), np.empty(width)
    vectors, basis = np.empty((vectors_needed(method), axes)), np.empty((axes, axes))
    point, row, products, factors = np.empty(axes), np.empty(axes), np.empty(axes), np.empty(axes)
    for p in range(planes):
        state, places = states[p], np.arange(axes + 1)
        source, chosen = x[p].reshape(size), mask[p].reshape(size)
        point[:], vectors[:] = 0.0, 0.0
        count, at_rest, going = 0, False, True
        while going:
            _factors(factors, point, basis, count)
            _combine(delta, grads, places, factors, count)
            distance = np.sqrt(_sums(rows, columns, delta, source, chosen, down, right, norm))
            value = _norms_and_weights(rows, norm, scale) + _norms_and_weights(columns, norm, scale)
            value = distance + scale * value
            pull = t(1.0 / distance if distance > TINY else 0.0)
            spare = places[axes]
            _set_gradient(grads[spare], delta, source, chosen, pull, rows, columns, down, right, norm)
            if distance <= TINY:
                _shrink(grads[spare], chosen)
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
        _combine(delta, grads, places, factors, state.iterations)
        out[p] = x[p] + delta.reshape(height, width)
