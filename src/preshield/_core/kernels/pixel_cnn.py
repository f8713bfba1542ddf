"""A gated PixelCNN, one pixel after the other, and the most probable level within reach."""

from typing import Any, NamedTuple

import numpy as np

from ..typing import Array
from . import fused, kernel, ordered
from .prefetch import fetch

__all__ = ["Weights", "most_probable", "scan"]

AHEAD = 32  # rows of scores between the one that is asked for and the one that is looked at
_HALF, _ONE, _TWO = np.float32(0.5), np.float32(1), np.float32(2)


class Weights(NamedTuple):
    """Weights of a PixelCNN of F filters and B blocks whose first kernel reaches r pixels, in `float32`.

    Rows of a matrix stand in the order of a patch: height, width, channel.
    """

    values: Array  # (256,): what the network sees of each level
    first_above: Array  # (r (2r + 1) C, 2F)
    first_left: Array  # (r C, 2F)
    first_bias: Array  # (2F,)
    above: Array  # (B, 6F, 2F)
    above_bias: Array  # (B, 2F)
    left: Array  # (B, 2F, 2F)
    link: Array  # (B + 1, 2F, 2F): from the vertical to the horizontal stack
    link_bias: Array  # (B + 1, 2F), with the biases of the horizontal stack
    residual: Array  # (B, F, F)
    residual_bias: Array  # (B, F)
    hidden: Array  # (C, F + C, 2F): of the features, and of the channels decoded already
    hidden_bias: Array  # (C, 2F)
    logits: Array  # (C, 2F, 256)
    logits_bias: Array  # (C, 256)


@kernel
def most_probable(out: Array, scores: Array, levels: Array, eps: int) -> int:
    """Take the level with the highest score among those at most `eps` from each level; of equals, the lowest.

    Parameters
    ----------
    out : ndarray of uint8, shape (n,)
        Written.
    scores : ndarray, shape (n, 256)
        Probabilities, or anything that grows with them.
    levels : ndarray of uint8, shape (n,)
        Levels of the input.
    eps : int
        Reach, from 0 to 255.

    Returns
    -------
    int
        For how many entries there is no highest score, because of NaN within reach.
    """
    undecided = 0
    last = levels.shape[0] - 1
    for i in range(levels.shape[0]):
        ahead = min(i + AHEAD, last)
        fetch(_within(scores[ahead], levels[ahead], eps))
        place = _first_highest(_within(scores[i], levels[i], eps))
        out[i] = max(int(levels[i]) - eps, 0) + place
        undecided += place < 0
    return undecided


@fused
def scan(out: Array, bits: Array, levels: Array, draws: Array, eps: int, feedback: bool, w: Weights) -> None:
    """Visit every pixel and channel in raster order and choose a level.

    What lies behind is never computed again: of the rows above, two of each layer are kept, and of the pixels
    to the left, one.

    Parameters
    ----------
    out : ndarray of uint8, shape (n, H, W, C)
        The levels chosen: the most probable within `eps` of `levels`; where there are `draws`, random ones.
    bits : ndarray of float64, shape (n,) or (0,)
        Unless empty, the binary logarithms of the probabilities of the levels chosen are added.
    levels : ndarray of uint8, shape (n, H, W, C)
        Levels of the input.
    draws : ndarray of float64, shape (n, H, W, C) or (0, H, W, C)
        Uniform in [0, 1).
    eps : int
        Reach, from 0 to 255.
    feedback : bool
        Whether the network goes on from the levels chosen; from those of the input otherwise.
    w : Weights
        The model.
    """
    n, height, width, channels = levels.shape
    blocks, filters = w.residual.shape[0], w.residual.shape[1]
    reach = w.first_left.shape[0] // channels
    image = np.zeros((n, height + reach, width + 2 * reach, channels), np.float32)
    rows = np.zeros(
        (blocks, 2, n, width + 2, filters), np.float32
    )  # input of each layer: row above, this one
    linked = np.empty((blocks + 1, width, n, 2 * filters), np.float32)
    pairs = np.zeros((blocks, n, 2 * filters), np.float32)  # input of each layer: pixel to the left, this one
    first = np.empty((n * width, w.first_above.shape[0]), np.float32)
    patches = np.empty((n * width, 6 * filters), np.float32)
    above = np.empty((n * width, 2 * filters), np.float32)
    link = np.empty((n * width, 2 * filters), np.float32)
    gated_above = np.empty((n * width, filters), np.float32)
    left = np.empty((n, reach * channels), np.float32)
    pre = np.empty((n, 2 * filters), np.float32)
    gated = np.empty((n, filters), np.float32)
    features = np.empty((n, filters), np.float32)
    head = np.empty((n, filters + channels), np.float32)
    hidden = np.empty((n, 2 * filters), np.float32)
    scores = np.empty((n, 256), np.float32)
    for i in range(height):
        for layer in range(blocks + 1):
            if layer == 0:
                _patches(first, image, i, reach, 2 * reach + 1)
                _dense(above, first, w.first_above, w.first_bias)
            else:
                _shift(rows[layer - 1], gated_above)
                for s in range(n):
                    _patch_rows(patches, rows[layer - 1], s, width, filters)
                _dense(above, patches, w.above[layer - 1], w.above_bias[layer - 1])
            _dense(link, above, w.link[layer], w.link_bias[layer])
            _by_column(linked[layer], link)
            _gate(gated_above, above)
        pairs[:] = 0
        for j in range(width):
            for s in range(n):
                for k in range(reach * channels):
                    left[s, k] = image[s, i + reach, j + k // channels, k % channels]
            _add(pre, linked[0, j], left, w.first_left)
            _gate(features, pre)
            for block in range(blocks):
                _push(pairs[block], features)
                _add(pre, linked[block + 1, j], pairs[block], w.left[block])
                _gate(gated, pre)
                for s in range(n):
                    for f in range(filters):
                        features[s, f] += w.residual_bias[block, f]
                _add(features, features, gated, w.residual[block])
            head[:] = 0
            for s in range(n):
                for f in range(filters):
                    head[s, f] = max(features[s, f], np.float32(0))
            for c in range(channels):
                _dense(hidden, head, w.hidden[c], w.hidden_bias[c])
                for s in range(n):
                    for f in range(2 * filters):
                        hidden[s, f] = max(hidden[s, f], np.float32(0))
                _dense(scores, hidden, w.logits[c], w.logits_bias[c])
                for s in range(n):
                    given = int(levels[s, i, j, c])
                    if draws.shape[0]:
                        chosen = _drawn(scores[s], draws[s, i, j, c])
                    else:
                        chosen = _best(scores[s], max(given - eps, 0), min(given + eps, 255))
                    if bits.shape[0]:
                        bits[s] += _log2_probability(scores[s], chosen)
                    out[s, i, j, c] = chosen
                    value = w.values[chosen if feedback else given]
                    image[s, i + reach, j + reach, c] = value
                    head[s, filters + c] = value


@kernel
def _within(scores: Array, level: int, eps: int) -> Array:
    """Scores of the levels at most `eps` from a level."""
    return scores[max(int(level) - eps, 0) : min(int(level) + eps, 255) + 1]


@kernel
def _first_highest(values: Array) -> Any:
    """Return the first place of the maximum; -1 if there is NaN.

    Twice through the values, in vector instructions, is faster than a search for maximum and place together.
    """
    highest = _highest(values)
    first = np.int32(values.size)
    for k in range(values.size):
        elsewhere = np.int32(values.size) if values[k] == values[k] else np.int32(-1)
        place = np.int32(k) if values[k] == highest else elsewhere
        first = place if place < first else first
    return first


@ordered
def _highest(values: Array) -> Any:
    """Return the maximum of values without NaN."""
    highest = values[0]
    for k in range(values.size):
        highest = values[k] if values[k] > highest else highest
    return highest


@fused
def _dense(out: Array, x: Array, weights: Array, bias: Array) -> None:
    for i in range(out.shape[0]):
        for o in range(out.shape[1]):
            out[i, o] = bias[o]
    _add(out, out, x, weights)


@fused
def _add(out: Array, start: Array, x: Array, weights: Array) -> None:
    """Write `start + x @ weights`; each row in the same order of sums, whatever stands in the others."""
    n, inputs = x.shape
    outputs = weights.shape[1]
    for i in range(n):
        for o in range(outputs):
            out[i, o] = start[i, o]
    fours = inputs - inputs % 4
    for k in range(0, fours, 4):  # four at a time, so that sums are stored less often
        w0, w1, w2, w3 = weights[k], weights[k + 1], weights[k + 2], weights[k + 3]
        for i in range(n):
            row = out[i]
            a, b, c, d = x[i, k], x[i, k + 1], x[i, k + 2], x[i, k + 3]
            for o in range(outputs):
                row[o] += a * w0[o] + b * w1[o] + c * w2[o] + d * w3[o]
    for k in range(fours, inputs):
        for i in range(n):
            for o in range(outputs):
                out[i, o] += x[i, k] * weights[k, o]


@fused
def _gate(out: Array, pre: Array) -> None:
    """Write the hyperbolic tangent of the first half times the sigmoid of the second."""
    filters = out.shape[1]
    for i in range(out.shape[0]):
        for f in range(filters):
            sigmoid = _HALF + _HALF * _tanh(_HALF * pre[i, filters + f])
            out[i, f] = _tanh(pre[i, f]) * sigmoid


@fused
def _tanh(x: Any) -> Any:
    """Within 2e-7, in operations that come as vector instructions, which those of libm do not.

    Lambert's continued fraction at an eighth of `x`, then the formula for twice the argument, three times.
    """
    y = min(max(x, np.float32(-9)), np.float32(9)) * np.float32(0.125)
    s = y * y
    t = y * (np.float32(945) + s * (np.float32(105) + s))
    t /= np.float32(945) + s * (np.float32(420) + np.float32(15) * s)
    t = _TWO * t / (_ONE + t * t)
    t = _TWO * t / (_ONE + t * t)
    return _TWO * t / (_ONE + t * t)


@fused
def _patches(out: Array, image: Array, row: int, height: int, width: int) -> None:
    """Write the patch above each pixel of a row, of all samples."""
    n, columns, channels = image.shape[0], image.shape[2] - width + 1, image.shape[3]
    for s in range(n):
        for j in range(columns):
            at = 0
            for a in range(height):
                for b in range(width):
                    for c in range(channels):
                        out[s * columns + j, at] = image[s, row + a, j + b, c]
                        at += 1


@fused
def _shift(rows: Array, values: Array) -> None:
    """Let the newer of two padded rows be the older one, and take the values for the newer."""
    n, width, filters = rows.shape[1], rows.shape[2] - 2, rows.shape[3]
    for s in range(n):
        for j in range(width):
            for f in range(filters):
                rows[0, s, j + 1, f] = rows[1, s, j + 1, f]
                rows[1, s, j + 1, f] = values[s * width + j, f]


@fused
def _patch_rows(out: Array, rows: Array, s: int, width: int, filters: int) -> None:
    """Write the 2 x 3 patch at each pixel of a sample."""
    for j in range(width):
        for a in range(2):
            for b in range(3):
                for f in range(filters):
                    out[s * width + j, (3 * a + b) * filters + f] = rows[a, s, j + b, f]


@fused
def _by_column(out: Array, values: Array) -> None:
    """Bring `(n * width, m)` to `(width, n, m)`."""
    width, n, m = out.shape
    for s in range(n):
        for j in range(width):
            for f in range(m):
                out[j, s, f] = values[s * width + j, f]


@fused
def _push(pair: Array, values: Array) -> None:
    """Let the newer of two pixels be the older one, and take the values for the newer."""
    n, filters = values.shape
    for s in range(n):
        for f in range(filters):
            pair[s, f] = pair[s, filters + f]
            pair[s, filters + f] = values[s, f]


@kernel
def _best(scores: Array, low: int, high: int) -> int:
    best = low
    for k in range(low + 1, high + 1):
        if scores[k] > scores[best]:
            best = k
    return best


@kernel
def _drawn(scores: Array, draw: float) -> int:
    """Draw a level from the softmax of its scores."""
    most = scores.max()
    total = 0.0
    for k in range(256):
        total += np.exp(scores[k] - most)
    rest = draw * total
    for k in range(255):
        rest -= np.exp(scores[k] - most)
        if rest < 0:
            return k
    return 255


@kernel
def _log2_probability(scores: Array, level: int) -> float:
    """Binary logarithm of the softmax at a level."""
    most = scores.max()
    total = 0.0
    for k in range(256):
        total += np.exp(scores[k] - most)
    bits: float = (scores[level] - most - np.log(total)) / np.log(2.0)
    return bits
