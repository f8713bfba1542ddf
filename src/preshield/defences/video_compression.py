"""Video compression."""

from collections.abc import Iterator
from itertools import chain
from tempfile import TemporaryFile

import numpy as np

from .._core.checks import (
    check_bool,
    check_clip_values,
    check_integer,
    check_layout,
    check_option,
    ignore_device_type,
    refuse_negative,
)
from .._core.coding_gains import pull_back_gains
from .._core.errors import ArgumentError
from .._core.layout import LAYOUTS, kept_dtype, working_dtype
from .._core.ranges import MARGIN, in_unit_range, largest, misfit
from .._core.remedies import Taken, how_to_change_layout
from .._core.threads import map_blocks
from .._core.typing import Array, ClipValues, Dtype
from ..codecs import h264, h264_ffmpeg
from ..codecs.errors import CodecError
from ..preprocessor import Preprocessor

__all__ = ["VideoCompression"]

ENGINES = {"pyav": h264, "imageio-ffmpeg": h264_ffmpeg}
LARGEST_SIDE = 16384  # pixels, x264's limit


class VideoCompression(Preprocessor):
    """Compress each video as H.264 and decompress it again [1]_ [2]_.

    Parameters
    ----------
    video_format : str
        Container of the compressed video: "mp4", "mkv", "avi" or "mov".
    constant_rate_factor : int, default 28
        0 (best) to 51 (worst); 6 more halve the bit rate, roughly.
    channels_first : bool, default False
        Whether videos are `(N, 3, F, H, W)` rather than `(N, F, H, W, 3)`.
    apply_fit : bool, default False
        Whether a classifier applies it when it is trained.
    apply_predict : bool, default True
        Whether a classifier applies it when it predicts.
    verbose : bool, default False
        Show a progress bar.
    clip_values : tuple, optional
        Range of the data: `(0, 1)` or `(0, 255)`. Larger values saturate. None guesses, for each video on its
        own: `(0, 1)` up to 1, and up to 8 for values that are not whole, as attacks and noise leave [0, 1] by
        a little; `(0, 255)` for any other. A guess that is not certain warns, once for each object.
    preset : str, default "medium"
        How hard x264 tries, from "ultrafast" through "medium" to "veryslow" and "placebo".
    engine : str, default "pyav"
        "pyav" works in memory; "imageio-ffmpeg" goes through files and the program of that package, in the
        extra `ffmpeg`, and gives the same where both have the same release of x264.
    gradient : {"identity", "soft"}, default "identity"
        What stands in for the derivative, which is 0 almost everywhere. "soft": that of the linear map that
        scales each cosine coefficient of the blocks of 8 x 8 pixels of a frame, in luminance and chrominance,
        by the share of it that came through the codec, from 0 to 1. It compresses once more for each
        gradient.
    device_type : str, optional
        Ignored, with a warning: results lie on the device of the tensors.
    layout : {"NFHWC", "NCFHW", "NFCHW"}, optional
        Layout of the batch, in place of `channels_first`, and taken at its word.

    Raises
    ------
    TypeError, ValueError
        If a parameter breaks its rule; if the batch is not one of RGB videos of one frame or more, or holds
        negative values.
    CodecError
        A ValueError: if the codec refuses what it is given, or loses a frame.
    ImportError, TimeoutError
        If the second engine is missing, or does not finish in time.

    Notes
    -----
    RGB videos `(N, F, H, W, 3)`, or an object array of videos of different shapes, each on its own; shape,
    dtype and scale are kept. [2]_ does so with images.
    Values are rounded to 8 bits. Colour is stored at half resolution; an odd row or column is repeated for
    the encoder and cut off again. The result does not depend on the number of threads.

    References
    ----------
    .. [1] Wiegand, Sullivan, Bjøntegaard, Luthra. Overview of the H.264/AVC Video Coding Standard. 2003.
       doi:10.1109/TCSVT.2003.815165
    .. [2] Dziugaite, Ghahramani, Roy. A Study of the Effect of JPG Compression on Adversarial Images. 2016.
       arXiv:1608.00853

    Examples
    --------
    >>> import numpy as np
    >>> from preshield import VideoCompression
    >>> grey = np.full((1, 4, 16, 16, 3), 128, dtype=np.uint8)
    >>> grey[0, 2, 8, 8] = 160
    >>> video = VideoCompression(video_format="mp4", constant_rate_factor=40).transform(grey)
    >>> bool((video == 128).all())
    True
    """

    domains = ("video",)
    ragged = True
    keeps_integers = True
    gradients = ("identity", "soft")
    paper = "https://doi.org/10.1109/TCSVT.2003.815165"
    known_attacks = (
        (
            "Athalye, Carlini, Wagner 2018 (arXiv:1802.00420): BPDA, against compression of images as JPEG, "
            "ImageNet accuracy 0%; it applies here as it stands"
        ),
    )

    def __init__(
        self,
        *,
        video_format: str,
        constant_rate_factor: int = 28,
        channels_first: bool = False,
        apply_fit: bool = False,
        apply_predict: bool = True,
        verbose: bool = False,
        clip_values: ClipValues | None = None,
        preset: str = "medium",
        engine: str = "pyav",
        gradient: str = "identity",
        device_type: str | None = None,
        layout: str | None = None,
    ) -> None:
        check_option("video_format", video_format, tuple(h264.CONTAINERS))
        check_integer("constant_rate_factor", constant_rate_factor, 0, 51)
        check_bool(channels_first=channels_first, verbose=verbose)
        check_bool(apply_fit=apply_fit, apply_predict=apply_predict)
        _check_range(clip_values)
        check_option("preset", preset, h264.PRESETS)
        check_option("engine", engine, tuple(ENGINES))
        check_option("gradient", gradient, self.gradients)
        ignore_device_type(device_type)
        check_layout(layout, channels_first, self.domains)
        self.video_format = video_format
        self.constant_rate_factor = constant_rate_factor
        self.channels_first = channels_first
        self.apply_fit = apply_fit
        self.apply_predict = apply_predict
        self.verbose = verbose
        self.clip_values = clip_values
        self.preset = preset
        self.engine = engine
        self.gradient = gradient
        self.layout = layout

    def _transform(self, x: Array, draw: None) -> Array:
        ragged = x.dtype == object
        for name, videos in [(f"x[{i}]", video) for i, video in enumerate(x)] if ragged else [("x", x)]:
            self._check_videos(name, videos)
        out = np.empty(x.shape, x.dtype.newbyteorder("="))
        if not x.size:
            return out
        scales = [self._scale(video) for video in x]

        def work(numbers: slice) -> None:
            for number in range(numbers.start, numbers.stop):
                out[number] = self._compress(x[number], scales[number])

        map_blocks(work, len(x), 1, progress="Video compression" if self.verbose else None)
        return out

    def _gradient(self, x: Array, grad: Array, draw: None) -> Array:
        if self.gradient == "identity":
            return grad
        out, after = np.empty(x.shape, grad.dtype), self._transform(x, draw)

        def work(numbers: slice) -> None:
            for number in range(numbers.start, numbers.stop):
                out[number] = self._pull_back_one(x[number], after[number], grad[number])

        if x.size:
            map_blocks(work, len(x), 1)
        return out

    def _pull_back_one(self, before: Array, after: Array, grad: Array) -> Array:
        """The product for one video."""
        axis, dtype = self._channel_axis(5) - 1, working_dtype(grad.dtype)
        levels = 255 // self._scale(before)
        frames = (np.moveaxis(video, axis, -1).astype(dtype) for video in (before, after, grad))
        before, after, grad = frames
        pulled = pull_back_gains(np.minimum(before / levels, 1), after / levels, grad)
        return np.moveaxis(pulled, -1, axis).astype(kept_dtype(grad.dtype))

    def _compress(self, video: Array, scale: int) -> Array:
        """One video there and back."""
        codec, crf = ENGINES[self.engine], int(self.constant_rate_factor)
        axis = self._channel_axis(5) - 1
        pixels = _to_pixels(np.moveaxis(video, axis, -1), scale)
        frames, height, width, _ = pixels.shape
        decoded = codec.decode(codec.encode(pixels, self.video_format, crf, self.preset))
        if len(decoded) != frames:
            raise CodecError(f"{self.engine} made {len(decoded)} frames of {frames}.")
        values = _levels(video.dtype, scale)[decoded[:, :height, :width]]
        return np.moveaxis(values, -1, axis)

    def _transform_parts(self, parts: Iterator[Array], ndim: int) -> Iterator[Array] | None:
        if self.engine != "pyav" or self.clip_values is None:  # the range is guessed from the whole
            return None
        return self._compress_parts(parts)

    def _compress_parts(self, parts: Iterator[Array]) -> Iterator[Array]:
        """One video there and back, through a compressed file on the disk."""
        first = next(parts)
        scale, count, made = self._scale(first), 0, 0
        _, height, width, _ = first.shape
        levels, crf = _levels(first.dtype, scale), int(self.constant_rate_factor)

        def pixels() -> Iterator[Array]:
            nonlocal count
            for part in chain([first], parts):
                count += len(part)
                self._check_videos("x", part)
                yield from _to_pixels(part, scale)

        with TemporaryFile(prefix="preshield-") as file:
            h264.encode_into(file, pixels(), self.video_format, crf, self.preset)
            for decoded in h264.decode_from(file):
                made += 1
                yield levels[decoded[None, :height, :width]]
        if made != count:
            raise CodecError(f"{self.engine} made {made} frames of {count}.")

    def _scale(self, video: Array) -> int:
        """Levels of 8 bits in a unit, alike whatever else is in the batch."""
        if self.clip_values is not None:
            return 255 // int(np.max(self.clip_values[1]))
        peak = largest(video)
        if not in_unit_range(video, peak):
            if peak > MARGIN * 255:
                self._doubt_range(misfit(video, "clip_values", None, 255))
            return 1
        if peak > 1:
            self._doubt_range(
                f"`x` reaches {peak:.6g}, beyond 1 but far from 255, and is taken for video in [0, 1], cut "
                "off there; pass clip_values=(0, 1) if it is, or clip_values=(0, 255) for steps of 8 bits."
            )
        return 255

    def _check_videos(self, name: str, x: Array) -> None:
        """`x` is a video, or several of one shape."""
        layout = self.layout or LAYOUTS["video"][bool(self.channels_first)]
        axes = layout if x.ndim == 5 else layout[1:]
        sizes = dict(zip(axes, x.shape, strict=True))
        channels, frames, height, width = (sizes[axis] for axis in "CFHW")
        if channels != 3:
            others = [other for other in LAYOUTS["video"] if x.shape[other.index("C") - 5] == 3]
            remedy = "keep three of them"
            if channels == 1:
                remedy = f"pass np.repeat({name}, 3, axis={axes.index('C')})"
            elif others:
                taken, sample = Taken(self.domains, *self._axes, self.params), None if x.ndim == 5 else name
                remedy = f"pass {how_to_change_layout(taken, layout, others, sample)}"
            raise ArgumentError(
                f"`{name}` must have 3 channels, RGB, got {channels} in shape {x.shape} of layout {axes}; "
                f"{remedy}."
            )
        if frames < 1:
            raise ArgumentError(f"`{name}` must have one frame or more in each video, got shape {x.shape}.")
        if not (1 <= height <= LARGEST_SIDE and 1 <= width <= LARGEST_SIDE):
            raise ArgumentError(
                f"`{name}` must have frames of 1 to {LARGEST_SIDE} pixels a side, got {height} x {width}."
            )
        if x.size and x.min() < 0:
            refuse_negative(name, x.min(), self.clip_values)


def _check_range(clip_values: ClipValues | None) -> None:
    check_clip_values(clip_values, optional=True)
    if clip_values is None:
        return
    low, high = clip_values
    if np.any(np.asarray(low) != 0) or np.size(high) != 1 or high not in (1, 255):
        raise ArgumentError(f"`clip_values` must be None, (0, 1) or (0, 255), got {clip_values!r}.")


def _to_pixels(video: Array, scale: int) -> Array:
    """Values of 8 bits, rounded and saturated."""
    from .._core.kernels.levels import to_bytes

    dtype = working_dtype(video.dtype)
    values = np.ascontiguousarray(video, dtype=dtype)
    pixels = np.empty(video.shape, np.uint8)
    to_bytes(pixels.reshape(-1), values.reshape(-1), dtype.type(scale))
    return pixels


def _levels(dtype: Dtype, scale: int) -> Array:
    """What each value of 8 bits is in the scale and dtype of the input."""
    dtype = dtype.newbyteorder("=")
    levels: Array = np.arange(256, dtype=working_dtype(dtype)) / working_dtype(dtype).type(scale)
    if dtype.kind != "f":
        levels = np.minimum(np.rint(levels), 1 if dtype.kind == "b" else np.iinfo(dtype).max)
    return levels.astype(dtype)
