"""Total variance minimisation."""

from collections.abc import Iterator
from functools import partial
from math import ceil, prod
from typing import Any

import numpy as np

from .._core.arithmetic.descent import EVALUATIONS
from .._core.arithmetic.draws import bounds
from .._core.arithmetic.namespace import numbers
from .._core.arithmetic.total_variation import smooth
from .._core.blurring import blur, filter_taps
from .._core.checks import (
    check_bool,
    check_clip_values,
    check_integer,
    check_layout,
    check_limits,
    check_number,
    check_option,
    check_rng,
)
from .._core.draws import Draws
from .._core.layout import kept_dtype, to_frames, working_dtype
from .._core.optimise import METHODS, minimise
from .._core.threads import map_blocks, thread_count, threads_within
from .._core.typing import Arithmetic, Array, ClipValues, Dtype, Rng, Shape
from ..preprocessor import Preprocessor

__all__ = ["TotalVarMin"]

WIDTHS = tuple(2.0 ** (k / 2) for k in range(-2, 5))  # of the Gaussians that stand in, in pixels
BYTES_OF_PIXEL = 140  # that a machine on planes holds, most of them for five pairs of vectors
MOST_STEPS, LEAST_PIXELS = 20, 16  # of a machine in the span of the gradients; pixels for each step
LARGEST = 1e15  # magnitude whose squares add up in single precision
TOLERANCE = 1e-5  # largest entry of a gradient at the end
VALUES_AT_ONCE = 1 << 15  # planes are minimised in batches of at most about this many pixels


class TotalVarMin(Preprocessor):
    """Redraw each image as smoothly as a random choice of its pixels allows [1]_.

    For each channel, minimises over images `z` the distance to `x` on randomly chosen pixels plus the total
    variation: ``sqrt(sum(mask * (z - x)**2)) + lamb * (row and column differences in the given norm)``, the
    norm taken of each whole row, or column, of differences.

    Parameters
    ----------
    prob : float, default 0.3
        Probability with which a pixel is chosen.
    norm : int, default 2
        Norm of the differences, 1 or more.
    lamb : float, default 0.5
        Weight of the total variation.
    solver : {"L-BFGS-B", "CG", "Newton-CG"}, default "L-BFGS-B"
        Minimiser; all start at `x`.
    max_iter : int, default 10
        Largest number of iterations of the minimiser.
    clip_values : tuple, optional
        `(minimum, maximum)` to which the result is clipped: numbers, or arrays that broadcast against one
        sample.
    apply_fit : bool, default False
        Whether a classifier applies it when it is trained.
    apply_predict : bool, default True
        Whether a classifier applies it when it predicts.
    verbose : bool, default False
        Show a progress bar.
    channels_first : bool, default False
        Whether images are `(N, C, H, W)` and videos `(N, C, F, H, W)`.
    gradient : {"identity", "blur"}, default "identity"
        What stands in for the derivative of the minimiser. "blur": that of a Gaussian blur, of the width with
        which it comes nearest to the result, for each sample on its own.
    rng : None, int or numpy.random.Generator, optional
        Source of the choice of pixels. None takes it from NumPy's global state.
    layout : {"NHWC", "NCHW", "NFHWC", "NCFHW", "NFCHW"}, optional
        Layout of the batch, in place of `channels_first`, and taken at its word.

    Raises
    ------
    TypeError, ValueError
        If a parameter breaks its rule, or the batch is not one of images or videos.

    Notes
    -----
    Images `(N, H, W, C)` or videos `(N, F, H, W, C)`, each channel of each frame on its own; the result is
    `float32`. With `norm=2` and up to 20 iterations, L-BFGS and CG compute in single precision, with sums in
    double; all else is in double precision. Working memory for each pixel of the channels that are minimised
    at once is then ``21 + 4 * max_iter`` bytes, for other norms ``37 + 8 * max_iter``, and 140 with more
    iterations or "Newton-CG". As many channels are minimised at once as 64 MiB hold, but at least one: with
    the defaults, above 1048 x 1048 pixels it is one at a time, whatever the threads.

    On an accelerator, and in compiled programs of torch and JAX, all channels are minimised at once, in the
    precision of the batch (with `norm=1` in double precision, if there is any), with at most 3 evaluations
    for each iteration (20 with "CG") and 8 more; "Newton-CG" goes through NumPy.

    References
    ----------
    .. [1] Guo, Rana, Cisse, van der Maaten. Countering Adversarial Images using Input Transformations.
       ICLR 2018. arXiv:1711.00117

    Examples
    --------
    >>> import numpy as np
    >>> from preshield import TotalVarMin
    >>> x = np.zeros((1, 8, 8, 1))
    >>> x[0, 4, 4] = 1
    >>> bool(TotalVarMin(rng=0).transform(x).max() < 0.5)
    True
    """

    domains = ("image", "video")
    stochastic = True
    optimises_at_test_time = True
    output_dtype = "float32"
    gradients = ("identity", "blur")
    paper = "arXiv:1711.00117"
    known_attacks = (
        (
            "Athalye, Carlini, Wagner 2018 (arXiv:1802.00420): BPDA and expectation over the draws, ImageNet "
            "accuracy 0%"
        ),
    )

    def __init__(
        self,
        prob: float = 0.3,
        norm: int = 2,
        lamb: float = 0.5,
        solver: str = "L-BFGS-B",
        max_iter: int = 10,
        clip_values: ClipValues | None = None,
        apply_fit: bool = False,
        apply_predict: bool = True,
        verbose: bool = False,
        *,
        channels_first: bool = False,
        gradient: str = "identity",
        rng: Rng = None,
        layout: str | None = None,
    ) -> None:
        check_number("prob", prob, 0, 1)
        check_integer("norm", norm, 1)
        check_number("lamb", lamb, 0)
        check_option("solver", solver, METHODS)
        check_integer("max_iter", max_iter, 1)
        check_clip_values(clip_values, optional=True)
        check_option("gradient", gradient, self.gradients)
        check_rng(rng)
        check_bool(apply_fit=apply_fit, apply_predict=apply_predict, verbose=verbose)
        check_bool(channels_first=channels_first)
        check_layout(layout, channels_first, self.domains)
        self.prob = prob
        self.norm = norm
        self.lamb = lamb
        self.solver = solver
        self.max_iter = max_iter
        self.clip_values = clip_values
        self.apply_fit = apply_fit
        self.apply_predict = apply_predict
        self.verbose = verbose
        self.channels_first = channels_first
        self.gradient = gradient
        self.rng = rng
        self.layout = layout

    def _draw(self, x: Array, rng: Draws) -> Draws:
        return rng.reserve(prod(x.shape[1:]))

    def _transform(self, x: Array, draw: Draws) -> Array:
        if self.clip_values is not None:
            check_limits(self.clip_values, x.shape)
        out = np.empty(x.shape, np.float32)
        axis = self._channel_axis(x.ndim)
        source, target = (np.moveaxis(to_frames(a, axis=axis), -1, 2) for a in (x, out))
        grid = source.shape[:3]  # samples, frames, channels: one plane for each
        of_sample = grid[1] * grid[2]

        def work(rows: slice) -> None:
            where = np.unravel_index(np.arange(rows.start, rows.stop), grid)
            planes = np.ascontiguousarray(source[where])
            target[where] = self._smooth(planes, self._masks(planes.shape, rows.start, of_sample, draw))

        if x.size:
            total, pixels = prod(grid), prod(source.shape[3:])
            block = max(1, min(VALUES_AT_ONCE // pixels, -(-total // thread_count())))
            threads = threads_within(block * pixels * self._bytes_of_pixel(pixels))
            progress = "Total variance minimisation" if self.verbose else None
            map_blocks(work, total, block, threads=threads, progress=progress)
        if self.clip_values is not None:
            np.clip(out, *self.clip_values, out=out, casting="unsafe")
        if self.gradient != "identity":
            draw.kept = x, out.copy()  # the caller may write to what it gets
        return out

    def _transform_parts(self, parts: Iterator[Array], ndim: int) -> Iterator[Array]:
        return self._part_by_part(parts, ndim)

    def _gradient(self, x: Array, grad: Array, draw: Draws) -> Array:
        if self.gradient == "identity" or not x.size:
            return grad
        axis, out = self._channel_axis(x.ndim), grad.astype(kept_dtype(grad.dtype))
        if draw.kept is None or draw.kept[0] is not x:
            self._transform(x, draw)
        seen, taps = x.astype(working_dtype(x.dtype), copy=False), _stand_ins()
        result = draw.kept[1].astype(seen.dtype, copy=False)
        errors = [_squares(seen - result)]
        errors += [_squares(blur(seen, each, axis=axis) - result) for each in taps]
        nearest = np.argmin(errors, axis=0)
        for number, each in enumerate(taps, 1):
            rows = nearest == number
            if rows.any():
                out[rows] = blur(grad[rows], each, axis=axis, transpose=True)
        return out

    def _arithmetic(self, shape: Shape, dtype: Dtype) -> Arithmetic | None:
        limits: list[Any] | None = []
        if self.clip_values is not None:
            check_limits(self.clip_values, shape)
            limits = numbers(*self.clip_values, dtype=working_dtype(dtype))
        if limits is None or self.solver not in EVALUATIONS:
            return None
        return partial(
            smooth,
            bound=int(bounds(int(float(self.prob) * 2**32))),
            norm=int(self.norm),
            scale=float(self.lamb),
            method=self.solver,
            max_iter=int(self.max_iter),
            limits=limits,
            axis=self._channel_axis(len(shape)),
            blurs=_halves(_stand_ins()) if self.gradient == "blur" else (),
        )

    def _masks(self, shape: Shape, first: int, of_sample: int, draw: Draws) -> Array:
        """The chosen pixels of planes `(P, H, W)`, the first of which has this number."""
        pixels, words = int(np.prod(shape[1:])), np.empty(shape, np.uint32)
        values = slice(first * pixels, (first + shape[0]) * pixels)
        draw.fill_words(words.reshape(-1), values, of_sample * pixels)
        return words < np.uint64(float(self.prob) * 2**32)

    def _stays_in_span(self, pixels: int) -> bool:
        """Whether the minimiser of planes with so many pixels works in the span of few gradients."""
        return self.solver in EVALUATIONS and self.max_iter <= min(MOST_STEPS, pixels // LEAST_PIXELS)

    def _bytes_of_pixel(self, pixels: int) -> int:
        """How much the minimiser holds for each pixel: gradients, displacement, copy, mask and draws."""
        if not self._stays_in_span(pixels):
            return BYTES_OF_PIXEL
        return (int(self.max_iter) + 4) * (4 if self.norm == 2 else 8) + 5

    def _smooth(self, planes: Array, masks: Array) -> Array:
        """Minimise for planes `(P, H, W)`."""
        numbers = int(self.norm), float(self.lamb)
        if self._stays_in_span(planes[0].size):
            from .._core.kernels.descent import STATE
            from .._core.kernels.gradient_span import minimise_in_span

            # Of other norms, powers vanish in single precision, or rounding chooses the sides of kinks.
            largest = np.abs(planes).max(axis=(1, 2)).astype(np.float64)  # half precision has no LARGEST
            single = (largest < LARGEST) & (self.norm == 2)
            if single.any() and not single.all():  # a plane does not see those beside it
                each = (slice(k, k + 1) for k in range(len(planes)))
                return np.concatenate([self._smooth(planes[one], masks[one]) for one in each])
            planes = planes.astype(np.float32 if single.all() else np.float64, copy=False)
            out, states = np.empty_like(planes), np.zeros(len(planes), STATE)
            method, max_iter = METHODS.index(self.solver), int(self.max_iter)
            minimise_in_span(out, planes, masks, states, *numbers, method, max_iter, TOLERANCE)
            return out
        from .._core.kernels.total_variation import total_variation

        planes = planes.astype(np.float64, copy=False)

        def objective(z: Array, rows: Array) -> tuple[Array, Array]:
            values, grads = np.empty(len(z)), np.empty((len(z), *planes.shape[1:]))
            everything = len(rows) == len(planes)
            chosen = (planes, masks) if everything else (planes[rows], masks[rows])
            total_variation(values, grads, z.reshape(grads.shape), *chosen, *numbers)
            return values, grads.reshape(len(z), -1)

        flat, most = planes.reshape(len(planes), -1), int(self.max_iter)
        found = minimise(objective, flat, method=self.solver, max_iter=most, tolerance=TOLERANCE)
        return found.x.reshape(planes.shape)


def _squares(x: Array) -> list[Any]:
    """Sum of the squares of each sample."""
    return [np.dot(values, values) for values in x.reshape(len(x), -1)]


def _stand_ins() -> list[Array]:
    """The Gaussians that stand in, as filters."""
    return [filter_taps("gaussian", 2 * ceil(3 * width) + 1, width) for width in WIDTHS]


def _halves(filters: list[Array]) -> list[list[float]]:
    """The weights of the identity and of filters at each distance from their middles."""
    reach = max(len(taps) // 2 for taps in filters)
    halves = np.zeros((reach + 1, len(filters) + 1))
    halves[0, 0] = 1
    for number, taps in enumerate(filters, 1):
        halves[: len(taps) // 2 + 1, number] = taps[len(taps) // 2 :]
    return halves.tolist()
