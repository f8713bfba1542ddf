"""Pixel deflection."""

from collections.abc import Callable, Iterator
from functools import partial
from math import prod

import numpy as np

from .._core.arithmetic.deflection import DRAWS, deflected
from .._core.arithmetic.draws import bounds
from .._core.arithmetic.namespace import MOST
from .._core.checks import (
    check_bool,
    check_clip_values,
    check_integer,
    check_layout,
    check_limits,
    check_number,
    check_option,
    check_rng,
    check_values,
)
from .._core.denoising import (
    DENOISERS,
    denoise,
    pull_back_wavelets,
    shrink_wavelets,
    wavelet_arithmetic,
)
from .._core.draws import Draws
from .._core.errors import ArgumentError
from .._core.layout import spatial_axes, to_frames, working_dtype
from .._core.tensors import to_numpy
from .._core.threads import map_blocks, thread_count, threads_within
from .._core.typing import Arithmetic, Array, ClipValues, Dtype, Rng, Shape
from ..preprocessor import Preprocessor

__all__ = ["PixelDeflection"]

DEFLECTIONS_AT_ONCE = 1 << 12  # whose random numbers are drawn together
COPIES = 8  # of a frame that scikit-image's denoisers make
DEFLECTIONS_WORTH_A_THREAD = 1 << 15  # fewer are done before another thread has woken up


class PixelDeflection(Preprocessor):
    """Overwrite some pixels with others from their neighbourhood, then denoise [1]_.

    Each deflection picks a pixel of one channel and overwrites it with one that is drawn uniformly from the
    square window around it, as far as that lies inside the image. The pixel itself is part of the window and
    may be drawn. Deflections follow one another: a later one may copy what an earlier one wrote.

    Parameters
    ----------
    clip_values : tuple
        `(minimum, maximum)` of the data: numbers, or arrays that broadcast against one sample. Denoisers see
        values scaled from this range to [0, 1], and their result is clipped to it.
    deflections : int or float, default 200
        Deflections of each channel of each image. A float in (0, 1], 1.0 included, is a fraction of the
        pixels, rounded, but at least one deflection.
    window : int, default 10
        How many rows and columns away a source may lie: the window has ``(2 * window + 1)**2`` pixels.
    sigma : float, default 0.04
        Standard deviation of the noise that the denoiser removes, in a range of [0, 1]; 0 removes nothing.
    channels_first : bool, default False
        Whether images are `(N, C, H, W)` and videos `(N, C, F, H, W)`.
    apply_fit : bool, default False
        Whether a classifier applies it when it is trained.
    apply_predict : bool, default True
        Whether a classifier applies it when it predicts.
    activation_map : array_like or callable, optional
        Probability with which a deflection is skipped where it would overwrite a pixel; it counts as done.
        An array `(H, W)` for all images, `(N, H, W)` for the images of a batch, `(N, F, H, W)` for the frames
        of videos, with values in [0, 1]; or a deterministic function that makes one from a NumPy batch in
        the layout of `x`, called once for each pass.
    denoiser : {"wavelet", "tv", "bilateral", "nlm", "wiener", None}, default "wavelet"
        Which denoiser follows: soft wavelet thresholds by BayesShrink (three channels in YCbCr, as in
        `WaveletDenoising`), or scikit-image's total variation, bilateral, non-local means or Wiener filter.
    gradient : {"identity", "exact"}, default "identity"
        Take the defence for the identity, or differentiate it: through the wavelets at the deflected image,
        and to the pixels that were copied in the draw of the forward pass. Values that are clipped have no
        gradient, and the map is taken for a constant. The denoisers of scikit-image, and the clipping around
        them, are taken for the identity: only with ``denoiser="wavelet"`` or None is the gradient exact.
    rng : None, int or numpy.random.Generator, optional
        Source of the draws. None takes them from NumPy's global state.
    verbose : bool, default False
        Show a progress bar.
    layout : {"NHWC", "NCHW", "NFHWC", "NCFHW", "NFCHW"}, optional
        Layout of the batch, in place of `channels_first`, and taken at its word.

    Raises
    ------
    TypeError, ValueError
        If a parameter breaks its rule; if the batch is not one of images or videos, or the map does not fit
        it.

    Notes
    -----
    Images `(N, H, W, C)` or videos `(N, F, H, W, C)`, each channel of each frame with draws of its own; the
    dtype is kept, and integers become `float32`. A window that is larger than the image holds all of it;
    rows and columns 0, from which the authors' code never copies, are like any other. With the same draw, a
    map of zeros and no map give the same. Memory holds the draws of a few thousand deflections at a time.

    On an accelerator, and in compiled programs of torch and JAX, the deflections are the same to the bit.
    Denoisers of scikit-image, maps for each sample and functions as maps go through NumPy there.

    References
    ----------
    .. [1] Prakash, Moran, Garber, DiLillo, Storer. Deflecting Adversarial Attacks with Pixel Deflection.
       CVPR 2018. arXiv:1801.08926

    Examples
    --------
    >>> import numpy as np
    >>> from preshield import PixelDeflection
    >>> x = np.arange(64.0).reshape(1, 8, 8, 1)
    >>> defended = PixelDeflection((0, 63), 20, window=1, denoiser=None, rng=0).transform(x)
    >>> bool(0 < (defended != x).sum() <= 20)
    True
    """

    domains = ("image", "video")
    stochastic = True
    takes = "copy"
    gradients = ("identity", "exact")
    paper = "arXiv:1801.08926"
    known_attacks = (
        "Athalye and Carlini 2018 (arXiv:1804.03286): BPDA, ImageNet accuracy 0% at L-inf 4/255",
    )

    def __init__(
        self,
        clip_values: ClipValues,
        deflections: float = 200,
        window: int = 10,
        sigma: float = 0.04,
        channels_first: bool = False,
        apply_fit: bool = False,
        apply_predict: bool = True,
        *,
        activation_map: Array | Callable[[Array], Array] | None = None,
        denoiser: str | None = "wavelet",
        gradient: str = "identity",
        rng: Rng = None,
        verbose: bool = False,
        layout: str | None = None,
    ) -> None:
        check_clip_values(clip_values)
        _check_deflections(deflections)
        check_integer("window", window, 1)
        check_number("sigma", sigma, 0)
        check_bool(channels_first=channels_first, apply_fit=apply_fit, apply_predict=apply_predict)
        if activation_map is not None and not callable(activation_map):
            _checked_map(activation_map)
        if denoiser is not None:
            check_option("denoiser", denoiser, tuple(DENOISERS))
        check_option("gradient", gradient, self.gradients)
        check_rng(rng)
        check_bool(verbose=verbose)
        check_layout(layout, channels_first, self.domains)
        self.clip_values = clip_values
        self.deflections = deflections
        self.window = window
        self.sigma = sigma
        self.channels_first = channels_first
        self.apply_fit = apply_fit
        self.apply_predict = apply_predict
        self.activation_map = activation_map
        self.denoiser = denoiser
        self.gradient = gradient
        self.rng = rng
        self.verbose = verbose
        self.layout = layout

    def _draw(self, x: Array, rng: Draws) -> Draws:
        height, width = self._sides(x.shape)
        planes = prod(x.shape[1:]) // max(1, height * width)
        return rng.reserve(planes * self._count(height * width) * DRAWS)

    def _transform(self, x: Array, draw: Draws) -> Array:
        from .._core.kernels.deflection import deflect

        if any(map(np.ndim, self.clip_values)):
            check_limits(self.clip_values, x.shape)
        out = self._moved(deflect, x, self._maps(x), draw, "Pixel deflection" if self.verbose else None)
        if self.denoiser is not None and x.size:
            return self._denoise(out, self.denoiser, float(self.sigma))
        return out

    def _transform_parts(self, parts: Iterator[Array], ndim: int) -> Iterator[Array] | None:
        given = self.activation_map  # made of the whole by a function, or with an entry for each frame
        whole = callable(given) or (given is not None and np.ndim(given) > 2)
        return None if whole else self._part_by_part(parts, ndim)

    def _gradient(self, x: Array, grad: Array, draw: Draws) -> Array:
        if self.gradient == "identity":
            return grad
        from .._core.kernels.deflection import deflect, return_gradient

        maps = self._maps(x)
        if self.denoiser == "wavelet":
            seen, axis = self._moved(deflect, x.copy(), maps, draw), self._channel_axis(x.ndim)
            grad = pull_back_wavelets(seen, grad, float(self.sigma), self.clip_values, axis=axis)
        return self._moved(return_gradient, grad, maps, draw, backwards=True)

    def _arithmetic(self, shape: Shape, dtype: Dtype) -> Arithmetic | None:
        axis = self._channel_axis(len(shape))
        if any(map(np.ndim, self.clip_values)):
            check_limits(self.clip_values, shape)
        if self.denoiser not in ("wavelet", None) or callable(self.activation_map):
            return None
        smooth = None
        if self.denoiser == "wavelet":
            sigma, ndim = float(self.sigma), len(shape)
            smooth = wavelet_arithmetic(ndim, dtype, sigma, self.clip_values, axis=axis)
            if smooth is None:
                return None
        sides, chances = self._sides(shape), None
        if self.activation_map is not None:
            maps = _checked_map(self.activation_map)
            if maps.ndim > 2:  # one for each sample, of which the number may not be known
                return None
            if maps.shape != sides:
                _refuse_map(maps, shape, sides)
            chances = bounds(np.ceil(maps.reshape(-1).astype(np.float64) * 2**32))
        return partial(
            deflected,
            count=self._count(prod(sides)),
            window=min(int(self.window), max(sides)),
            axis=axis,
            chances=chances.tolist() if chances is not None and chances.size <= MOST else chances,
            denoise=smooth,
            gradient=self.gradient,
        )

    def _sides(self, shape: Shape) -> tuple[int, int]:
        """Height and width."""
        rows, columns = spatial_axes(len(shape), self._channel_axis(len(shape)))
        return shape[rows], shape[columns]

    def _moved(
        self,
        move: Callable[..., None],
        x: Array,
        maps: Array,
        draw: Draws,
        progress: str | None = None,
        *,
        backwards: bool = False,
    ) -> Array:
        """A copy of a batch, its values moved by a kernel, which takes the last deflections first or last."""
        dtype = working_dtype(x.dtype)
        out = x.astype(dtype, copy=not x.flags.writeable)
        if not x.size:
            return out
        planes = np.moveaxis(to_frames(out, axis=self._channel_axis(x.ndim)), -1, 2)
        height, width = planes.shape[3:]
        count, window = self._count(height * width), min(int(self.window), max(height, width))
        of_sample = planes.shape[1] * planes.shape[2]
        step, most = max(1, DEFLECTIONS_AT_ONCE // max(1, count)), max(1, min(DEFLECTIONS_AT_ONCE, count))
        parts = [(start, min(start + most, count)) for start in range(0, count, most)]
        worth_a_thread = DEFLECTIONS_WORTH_A_THREAD // max(1, of_sample * count)
        of_plane = count * DRAWS

        def work(samples: slice) -> None:
            memory = np.empty(step * most * DRAWS, np.uint32)
            for first in range(samples.start * of_sample, samples.stop * of_sample, step):
                length = min(step, samples.stop * of_sample - first)  # of planes; one if they have parts
                for start, stop in reversed(parts) if backwards else parts:
                    words = memory[: length * (stop - start) * DRAWS]
                    begin = first * of_plane + start * DRAWS
                    draw.fill_words(words, slice(begin, begin + words.size), of_sample * of_plane)
                    move(planes, maps, words.reshape(length, stop - start, DRAWS), first, window)

        map_blocks(work, len(x), max(-(-len(x) // thread_count()), worth_a_thread), progress=progress)
        return out

    def _denoise(self, out: Array, denoiser: str, sigma: float) -> Array:
        """Denoise each frame of a batch, in units of the range, and clip it; in place where that can be."""
        one, axis = (1, *out.shape[1:]), self._channel_axis(out.ndim)
        progress = "Denoising" if self.verbose else None
        if denoiser == "wavelet":
            into = out if out.flags.c_contiguous else None
            return shrink_wavelets(out, sigma, self.clip_values, axis=axis, out=into, progress=progress)
        low, high = (
            to_frames(np.broadcast_to(np.asarray(bound, out.dtype), one), axis=axis)[0]
            for bound in self.clip_values
        )
        span = high - low
        frames = to_frames(out, axis=axis)

        def work(rows: slice) -> None:
            for row in range(rows.start, rows.stop):
                sample, number = divmod(row, frames.shape[1])
                unit = np.clip((frames[sample, number] - low[number]) / span[number], 0, 1)
                frames[sample, number] = denoise(unit, denoiser, sigma) * span[number] + low[number]

        threads = threads_within(COPIES * frames[0, 0].nbytes)
        map_blocks(work, prod(frames.shape[:2]), 1, threads=threads, progress=progress)
        return np.clip(out, *self.clip_values, out=out, casting="unsafe")

    def _count(self, pixels: int) -> int:
        """Deflections of a channel."""
        if _is_fraction(self.deflections):
            return max(1, round(float(self.deflections) * pixels))
        return int(self.deflections)

    def _maps(self, x: Array) -> Array:
        """The activation maps of a batch, shape (N or 1, F or 1, H, W), or without rows and columns."""
        given = self.activation_map
        if given is None or not x.size:
            return np.empty((1, 1, 0, 0))
        if callable(given):  # with a batch of its own, as any framework takes it
            given = given(np.array(x, x.dtype.newbyteorder("="), order="C"))
        maps = _checked_map(given)
        grid = to_frames(x, axis=self._channel_axis(x.ndim)).shape[:4]
        batch = grid if x.ndim == 5 else (grid[0], *grid[2:])
        if maps.shape not in (batch, grid[2:]):
            _refuse_map(maps, x.shape, grid[2:], batch)
        return np.ascontiguousarray(maps.reshape(grid if maps.ndim > 2 else (1, 1, *maps.shape)), np.float64)


def _is_fraction(deflections: object) -> bool:
    """Whether it is no whole number of them; 1.0 is the fraction, and 200.0 a number."""
    return isinstance(deflections, float | np.floating) and not (deflections > 1 and deflections % 1 == 0)


def _check_deflections(deflections: float) -> None:
    """Refuse what is neither a number of deflections nor a fraction of the pixels."""
    if not _is_fraction(deflections):
        check_integer("deflections", deflections, 0)
    elif not 0 < deflections <= 1:
        raise ArgumentError(
            "`deflections` must be a number of pixels, as an integer, or a fraction of them, above 0 and at "
            f"most 1, got {deflections!r}."
        )


def _refuse_map(maps: Array, shape: Shape, *fitting: Shape) -> None:
    raise ArgumentError(
        f"`activation_map` must be of shape {' or '.join(map(str, fitting))} for `x` of shape {shape}, got "
        f"{maps.shape}; pass a function of `x` where batches differ in size."
    )


def _checked_map(given: object) -> Array:
    """An activation map as an array, if it can be one."""
    maps = to_numpy(given)
    if maps.dtype.kind not in "biuf":
        raise ArgumentError(
            "`activation_map` must be an array of numbers, or a function of `x` that returns one, got "
            f"{type(given).__name__} of dtype {maps.dtype}; pass for example RobustActivationMap(model)."
        )
    check_values("activation_map", maps)
    if not 2 <= maps.ndim <= 4:
        raise ArgumentError(
            "`activation_map` must be of shape (H, W), (N, H, W) or (N, F, H, W), got "
            f"{maps.shape}; drop the axis of channels."
        )
    if maps.size and not (maps.min() >= 0 and maps.max() <= 1):
        raise ArgumentError(
            f"`activation_map` must lie in [0, 1], got values from {maps.min()} to {maps.max()}; scale it, "
            "for example with (m - m.min()) / np.ptp(m)."
        )
    return maps
