"""Total variance minimisation of planes, in the span of their gradients.

A method whose directions are sums of gradients and of earlier steps never leaves the span of the gradients
that it has seen. So the machine of `descent` works on coordinates in an orthonormal basis of that span, a
number for each step, and memory holds the gradients from which lines began. An evaluation reads each of them
twice: to make the point, and for the products that place its own gradient in the basis. The arithmetic of a
machine on whole planes moved five times as many bytes.
"""

from typing import Any

import numpy as np

from ..typing import Array
from . import kernel, reduction
from .descent import BEST_GRAD, DIRECTION, STARTING, X, _advance, _set_sum, vectors_needed
from .total_variation import TINY, _norms_and_weights

__all__ = ["minimise_in_span"]

BAND = 1 << 11  # pixels that stay in the first-level cache while all gradients pass
SMALLEST = 1e-13  # square of what is new in a gradient, as a fraction, below which it is rounding


# Bands of rows, which stay in the second-level cache while all gradients pass


@kernel
def _add(out: Array, first: Any, a: Array, second: Any, b: Array) -> None:
    for j in range(out.shape[0]):
        out[j] += first * a[j] + second * b[j]


@kernel
def _combine(delta: Array, grads: Array, places: Array, factors: Array, count: int, span: Any) -> None:
    """Set a span of `delta` to the sum of the first gradients, each times its factor."""
    t, (start, stop) = delta.dtype.type, span
    part = delta[start:stop]
    part[:] = 0
    for i in range(0, count, 2):
        k = min(i + 1, count - 1)
        first, second = t(factors[i]), t(factors[k] if k > i else 0.0)
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
def _multiply(products: Array, grads: Array, places: Array, count: int, span: Any) -> None:
    """Add the inner products of the gradient with number `count` with those before it and with itself."""
    start, stop = span
    last = grads[places[count], start:stop]
    for i in range(0, count + 1, 2):
        k = min(i + 1, count)
        first, second = _products(grads[places[i], start:stop], grads[places[k], start:stop], last)
        products[i] += first
        products[k] += second if k > i else 0.0


# Differences of pixels and of their displacements are taken apart, so that they are as exact as can be


@kernel
def _subtract(out: Array, after: Array, before: Array, moved: Array, stayed: Array) -> None:
    for j in range(out.shape[0]):
        out[j] = (after[j] - before[j]) + (moved[j] - stayed[j])


@kernel
def _differences(down: Array, right: Array, x: Array, delta: Array, width: int, span: Any) -> None:
    """Differences with the next row and with the next column, 0 if there is none, of the rows in a span."""
    (start, stop), size = span, x.shape[0]
    below, last = min(stop + width, size), min(stop + 1, size)
    down[below - start - width :] = 0
    part = down[: below - start - width]
    _subtract(
        part, x[start + width : below], x[start : below - width], delta[start + width : below], delta[start:]
    )
    part = right[: last - start - 1]
    _subtract(part, x[start + 1 : last], x[start : last - 1], delta[start + 1 : last], delta[start:])
    right[width - 1 :: width] = 0


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
def _weigh(down: Array, right: Array, of_rows: Array, of_columns: Array) -> None:
    for r in range(right.shape[0]):
        weight = of_rows[r]
        for j in range(right.shape[1]):
            down[r, j] *= weight
        for j in range(right.shape[1]):
            right[r, j] *= of_columns[j]


@kernel
def _gather(grad: Array, down: Array, right: Array, delta: Array, mask: Array, pull: Any) -> None:
    """Put rows of a gradient together; slopes begin with those of the row above and of a pixel before."""
    zero, width = grad.dtype.type(0), down.shape[0] - grad.shape[0]
    below, beside = down[width:], right[1:]
    for j in range(grad.shape[0]):
        pulled = pull * delta[j]
        total = (down[j] - below[j]) + (right[j] - beside[j])
        grad[j] = total + (pulled if mask[j] else zero)


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
def _evaluate(
    rows: Array,
    columns: Array,
    delta: Array,
    x: Array,
    mask: Array,
    grads: Array,
    places: Array,
    factors: Array,
    count: int,
    norm: int,
) -> float:
    """Go to a sum of gradients, and sum powers of the differences to each next row and column there.

    Returns the square of the distance.
    """
    height, width, square = len(rows), len(columns), 0.0
    band = min(height, max(1, BAND // width))
    below, beside = np.empty((band, width), x.dtype), np.empty((band, width), x.dtype)
    sums, ready = np.empty(width, x.dtype), 0
    columns[:] = 0.0
    for first in range(0, height, band):
        last = min(first + band, height)
        count_of_rows, needed = last - first, min(last + 1, height)
        _combine(delta, grads, places, factors, count, (ready * width, needed * width))
        ready = needed
        a, b = first * width, last * width
        square += _masked_square(delta[a:b], mask[a:b])
        down, right = below[:count_of_rows], beside[:count_of_rows]
        _differences(down.reshape(b - a), right.reshape(b - a), x, delta, width, (a, b))
        sums[:] = 0
        _add_powers(rows[first:last], sums, down, right, norm)
        for j in range(width):
            columns[j] += sums[j]
    return square


@kernel
def _differentiate(
    products: Array,
    delta: Array,
    x: Array,
    mask: Array,
    pull: Any,
    rows: Array,
    columns: Array,
    grads: Array,
    places: Array,
    count: int,
    norm: int,
) -> None:
    """Gradient with the number `count`, from weights of rows and columns; its products with the others."""
    height, width = len(rows), len(columns)
    band, grad = min(height, max(1, BAND // width)), grads[places[count]]
    slopes, beside = np.zeros((band + 1) * width, x.dtype), np.zeros(band * width + 1, x.dtype)
    of_rows, of_columns = rows.astype(x.dtype), columns.astype(x.dtype)
    products[: count + 1] = 0.0
    for first in range(0, height, band):
        last = min(first + band, height)
        a, b = first * width, last * width
        for j in range(width):
            slopes[j] = slopes[band * width + j]  # of the row above, which was the last one
        down, right, grid = slopes[width : width + b - a], beside[1 : 1 + b - a], (last - first, width)
        _differences(down, right, x, delta, width, (a, b))
        _set_slopes(down, norm)
        _set_slopes(right, norm)
        _weigh(down.reshape(grid), right.reshape(grid), of_rows[first:last], of_columns)
        _gather(grad[a:b], slopes[: width + b - a], beside[: 1 + b - a], delta[a:b], mask[a:b], pull)
        _multiply(products, grads, places, count, (a, b))


@kernel
def minimise_in_span(
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
            square = _evaluate(rows, columns, delta, source, chosen, grads, places, factors, count, norm)
            distance = np.sqrt(square)
            total = _norms_and_weights(rows, norm, scale) + _norms_and_weights(columns, norm, scale)
            pull = t(1.0 / distance if distance > TINY else 0.0)
            places[count], places[axes] = places[axes], places[count]
            _differentiate(products, delta, source, chosen, pull, rows, columns, grads, places, count, norm)
            if distance <= TINY:
                _shrink(grads[places[count]], chosen)
                products[: count + 1] = 0.0
                _multiply(products, grads, places, count, (0, size))
            _coordinates(row, products, basis, count)
            started, done = state.phase == STARTING, state.iterations
            going = _advance(
                state, vectors, point, distance + scale * total, row, method, max_iter, -1.0, 0.0
            )
            if started or np.all(vectors[BEST_GRAD] == row):  # it may be where the next line begins
                basis[count] = row
                small = products[count] <= size * tolerance**2
                at_rest = small and _largest(grads[places[count]]) <= tolerance
            else:
                places[count], places[axes] = places[axes], places[count]
            if started or state.iterations > done:
                count += 1
                going = going and not at_rest
            if going:
                _set_sum(point, vectors[X], state.step, vectors[DIRECTION])
        _factors(factors, vectors[X], basis, state.iterations)
        _combine(delta, grads, places, factors, state.iterations, (0, size))
        out[p] = x[p] + delta.reshape(height, width)
