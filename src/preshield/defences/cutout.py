"""Cutout."""

from functools import partial

from .._core.arithmetic.mixing import cut_out
from .._core.checks import check_bool, check_integer, check_layout, check_rng, ignore_device_type
from .._core.cutting import Boxes, draw_boxes
from .._core.draws import Draws
from .._core.layout import frames_shape, to_frames
from .._core.threads import map_blocks
from .._core.typing import Arithmetic, Array, Dtype, Rng, Shape
from ..preprocessor import Preprocessor

__all__ = ["Cutout"]

BLOCK = 64  # images


class Cutout(Preprocessor):
    """Set a square at a random place of each image to zero [1]_.

    An augmentation for training: a model that never sees all of an object learns to use all of its parts.

    Parameters
    ----------
    length : int
        Side of the square, in pixels. Its middle is uniform over the image; the part outside is cut off.
    channels_first : bool, default False
        Whether images are `(N, C, H, W)` and videos `(N, C, F, H, W)`.
    apply_fit : bool, default True
        Whether a classifier applies it when it is trained.
    apply_predict : bool, default False
        Whether a classifier applies it when it predicts.
    verbose : bool, default False
        Show a progress bar.
    rng : None, int or numpy.random.Generator, optional
        Source of the draws. None takes them from NumPy's global state.
    layout : {"NHWC", "NCHW", "NFHWC", "NCFHW", "NFCHW"}, optional
        Layout of the batch, in place of `channels_first`, and taken at its word.
    device_type : str, optional
        Ignored, with a warning: results lie on the device of the tensors.

    Raises
    ------
    TypeError, ValueError
        If a parameter breaks its rule, or the batch is not one of images or videos.

    Notes
    -----
    Images `(N, H, W, C)` or videos `(N, F, H, W, C)`, each frame with a square of its own. Shape and dtype
    are kept, and labels are left alone. The gradient is exact. Zero is the mean of standardised images: put
    the standardisation first.

    References
    ----------
    .. [1] DeVries, Taylor. Improved Regularization of Convolutional Neural Networks with Cutout. 2017.
       arXiv:1708.04552

    Examples
    --------
    >>> import numpy as np
    >>> from preshield import Cutout
    >>> white = np.ones((1, 4, 4, 1), dtype=np.uint8)
    >>> Cutout(2, rng=1).transform(white)[0, :, :, 0]
    array([[1, 1, 0, 0],
           [1, 1, 0, 0],
           [1, 1, 1, 1],
           [1, 1, 1, 1]], dtype=uint8)
    """

    domains = ("image", "video")
    stochastic = True
    gradient_kind = "exact"
    keeps_integers = True
    takes = "copy"
    paper = "arXiv:1708.04552"
    known_attacks = (
        (
            "Yun et al. 2019 (arXiv:1905.04899): of a model trained with it, most of the ImageNet accuracy "
            "falls to a single step of FGSM"
        ),
    )

    def __init__(
        self,
        length: int,
        channels_first: bool = False,
        apply_fit: bool = True,
        apply_predict: bool = False,
        verbose: bool = False,
        *,
        rng: Rng = None,
        layout: str | None = None,
        device_type: str | None = None,
    ) -> None:
        check_integer("length", length, 1)
        check_bool(channels_first=channels_first, verbose=verbose)
        check_bool(apply_fit=apply_fit, apply_predict=apply_predict)
        check_rng(rng)
        check_layout(layout, channels_first, self.domains)
        ignore_device_type(device_type)
        self.length = length
        self.channels_first = channels_first
        self.apply_fit = apply_fit
        self.apply_predict = apply_predict
        self.verbose = verbose
        self.rng = rng
        self.layout = layout

    def _draw(self, x: Array, rng: Draws) -> Boxes:
        axis, side = self._channel_axis(len(x.shape)), int(self.length)
        samples, frames, height, width, _ = frames_shape(tuple(x.shape), axis=axis)
        return draw_boxes(rng, (samples, frames), (height, width), (side, side))

    def _transform(self, x: Array, draw: Boxes) -> Array:
        out = x if x.flags.writeable else x.copy()
        self._erase(out, draw, "Cutout" if self.verbose else None)
        return out

    def _gradient(self, x: Array, grad: Array, draw: Boxes) -> Array:
        out = grad.copy()
        self._erase(out, draw)
        return out

    def _arithmetic(self, shape: Shape, dtype: Dtype) -> Arithmetic:
        return partial(cut_out, axis=self._channel_axis(len(shape)))

    def _erase(self, x: Array, boxes: Boxes, progress: str | None = None) -> None:
        """Write zeros."""
        frames = self._frames(x)
        count = frames.shape[1]

        def work(numbers: slice) -> None:
            for number in range(numbers.start, numbers.stop):
                frames[number // count, number % count][boxes.slices(number)] = 0

        map_blocks(work, len(boxes), BLOCK, progress=progress)

    def _frames(self, x: Array) -> Array:
        """View as `(N, F, H, W, C)`."""
        return to_frames(x, axis=self._channel_axis(x.ndim))
