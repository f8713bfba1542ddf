"""JPEG compression."""

import numpy as np

from .._core.checks import (
    check_bool,
    check_clip_values,
    check_integer,
    check_layout,
    refuse_negative,
    resolve_channels_first,
)
from .._core.errors import ArgumentError
from .._core.layout import from_frames, to_frames, working_dtype
from .._core.threads import block_length, map_blocks
from .._core.typing import Array, ClipValues
from ..codecs import jpeg
from ..preprocessor import Preprocessor

__all__ = ["JpegCompression"]

LARGEST_SIDE = 65500  # pixels, libjpeg's limit
SMALL_FRAME = 128 * 128  # pixels; Pillow takes the interpreter lock for each, and threads would wait for it


class JpegCompression(Preprocessor):
    """Compress each image as JPEG and decompress it again [1]_ [2]_.

    Parameters
    ----------
    clip_values : tuple
        Range of the data: `(0, 1)` or `(0, 255)`. Larger values saturate.
    quality : int, default 50
        JPEG quality, 1 (worst) to 100; above 95 little is lost and little is defended.
    channels_first : bool, default False
        Whether images are `(N, C, H, W)` and videos `(N, C, F, H, W)`.
    apply_fit : bool, default True
        Whether a classifier applies it when it is trained.
    apply_predict : bool, default True
        Whether a classifier applies it when it predicts.
    verbose : bool, default False
        Show a progress bar.
    layout : {"NHWC", "NCHW", "NFHWC", "NCFHW", "NFCHW"}, optional
        Layout of the batch, in place of `channels_first`, and taken at its word.
    channel_index : int, optional
        Older name: 1 sets `channels_first`.

    Raises
    ------
    TypeError, ValueError
        If a parameter breaks its rule; if the batch is not one of images or videos, or holds negative
        values.

    Notes
    -----
    Images `(N, H, W, C)` or videos `(N, F, H, W, C)`, each frame on its own. Three channels are compressed
    as RGB, with colour at half resolution; any other number channel by channel as greyscale. Values are
    rounded to 8 bits; the result is `float32`. Gradients pass as through the identity.

    References
    ----------
    .. [1] Dziugaite, Ghahramani, Roy. A Study of the Effect of JPG Compression on Adversarial Images. 2016.
       arXiv:1608.00853
    .. [2] Das et al. Keeping the Bad Guys Out: Protecting and Vaccinating Deep Learning with JPEG
       Compression. 2017. arXiv:1705.02900

    Examples
    --------
    >>> import numpy as np
    >>> from preshield import JpegCompression
    >>> grey = np.full((1, 8, 8, 3), 0.5, dtype=np.float32)
    >>> float(JpegCompression((0, 1), quality=75).transform(grey).max())
    0.502
    """

    domains = ("image", "video")
    output_dtype = "float32"
    paper = "arXiv:1608.00853"
    known_attacks = (
        "Shin and Song 2017: JPEG-resistant adversarial images, by a differentiable JPEG",
        "Athalye, Carlini, Wagner 2018 (arXiv:1802.00420): BPDA, ImageNet accuracy 0%",
    )

    def __init__(
        self,
        clip_values: ClipValues,
        quality: int = 50,
        channels_first: bool = False,
        apply_fit: bool = True,
        apply_predict: bool = True,
        verbose: bool = False,
        *,
        layout: str | None = None,
        channel_index: int | None = None,
    ) -> None:
        check_clip_values(clip_values)
        low, high = (np.asarray(value) for value in clip_values)
        if np.any(low != 0) or high.size != 1 or high.item() not in (1, 255):
            raise ArgumentError(f"`clip_values` must be (0, 1) or (0, 255), got {clip_values!r}.")
        check_integer("quality", quality, 1, 100)
        check_bool(apply_fit=apply_fit, apply_predict=apply_predict, verbose=verbose)
        self.clip_values = clip_values
        self.quality = quality
        self.channels_first = resolve_channels_first(channels_first, channel_index)
        check_layout(layout, self.channels_first, self.domains)
        self.layout = layout
        self.apply_fit = apply_fit
        self.apply_predict = apply_predict
        self.verbose = verbose

    def _transform(self, x: Array, draw: None) -> Array:
        from .._core.kernels.levels import to_bytes

        axis = self._channel_axis(x.ndim)
        frames = to_frames(x, axis=axis)
        self._check_frames(frames)
        scale = 255 / float(np.max(self.clip_values[1]))
        out = np.empty(frames.shape, np.float32)

        flat = out.reshape(int(np.prod(frames.shape[:2])), *frames.shape[2:])

        dtype = working_dtype(x.dtype)

        def work(numbers: slice) -> None:
            pixels = np.empty(flat.shape[1:], np.uint8)
            for number in range(numbers.start, numbers.stop):
                frame = np.ascontiguousarray(frames[divmod(number, frames.shape[1])], dtype=dtype)
                to_bytes(pixels.reshape(-1), frame.reshape(-1), dtype.type(scale))
                flat[number] = self._compress(pixels)
                if scale != 1:
                    flat[number] /= scale

        progress = "JPEG compression" if self.verbose else None
        threads = 1 if flat.shape[1] * flat.shape[2] <= SMALL_FRAME else None
        map_blocks(work, len(flat), block_length(flat), threads=threads, progress=progress)
        return from_frames(out, x.ndim, axis=axis)

    def _compress(self, pixels: Array) -> Array:
        """One frame `(H, W, C)` there and back."""
        quality = int(self.quality)
        if pixels.shape[-1] == 3:
            return jpeg.decode(jpeg.encode(pixels, quality))
        channels = np.ascontiguousarray(np.moveaxis(pixels, -1, 0))
        grey = [jpeg.decode(jpeg.encode(channel, quality), grey=True) for channel in channels]
        return np.stack(grey, axis=-1) if grey else pixels

    def _check_frames(self, frames: Array) -> None:
        height, width = frames.shape[2:4]
        if not (1 <= height <= LARGEST_SIDE and 1 <= width <= LARGEST_SIDE):
            raise ArgumentError(
                f"`x` must have frames of 1 to {LARGEST_SIDE} pixels a side, got {height} x {width}."
            )
        if frames.size and frames.min() < 0:
            refuse_negative("x", frames.min(), self.clip_values)
