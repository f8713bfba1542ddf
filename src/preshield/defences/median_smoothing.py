"""Median smoothing of audio."""

from .._core.checks import check_bool, check_integer, check_option
from .._core.medians import median_arithmetic, medians, pull_back_medians
from .._core.recordings import check_time_axis, time_axis
from .._core.threads import each_sample
from .._core.typing import Arithmetic, Array, Dtype, Shape
from ..preprocessor import Preprocessor

__all__ = ["MedianSmoothing"]


class MedianSmoothing(Preprocessor):
    """Replace each value of a recording by the median of its neighbours in time [1]_.

    Clicks vanish, and what is slow compared with the window stays. The higher the sampling rate, the less a
    window of so many values changes.

    Parameters
    ----------
    window_size : int, default 3
        Values along time of which the median is taken. Even windows reach one value further back, and take
        the upper one of the two middle values, as in SciPy.
    channels_first : bool, default False
        Whether audio is `(N, C, length)`.
    apply_fit : bool, default False
        Whether a classifier applies it when it is trained.
    apply_predict : bool, default True
        Whether a classifier applies it when it predicts.
    gradient : {"identity", "exact"}, default "identity"
        Take the filter for the identity, or send the gradient to the value that was the median (of equal
        values, to the earliest).

    Raises
    ------
    TypeError, ValueError
        If a parameter breaks its rule; if the batch is not one of audio, or has time where its channels are
        expected.

    Notes
    -----
    Audio `(N, length, C)` or `(N, length)`, each channel on its own, or an object array of samples
    `(length, C)` or `(length,)` of different lengths; of any scale. Shape and dtype are kept, those of
    integers too. Borders are reflected, the edge repeated, also where a recording is shorter than the window.

    References
    ----------
    .. [1] Yang, Li, Chen, Song. Characterizing Audio Adversarial Examples Using Temporal Dependency.
       ICLR 2019. arXiv:1809.10875

    Examples
    --------
    >>> import numpy as np
    >>> from preshield import MedianSmoothing
    >>> MedianSmoothing(3).transform(np.array([[1, 2, 90, 4, 5]]))  # a click
    array([[1, 2, 4, 5, 5]])
    """

    domains = ("audio",)
    keeps_integers = True
    ragged = True
    gradients = ("identity", "exact")
    paper = "arXiv:1809.10875"
    known_attacks = (
        (
            "Yang et al. 2019 (arXiv:1809.10875), its own paper: little gained, and lost to attacks that "
            "know it"
        ),
        (
            "Chen et al. 2022 (arXiv:2206.03393): adaptive attacks on speaker recognition, through it and 21 "
            "other transformations of the waveform"
        ),
    )

    def __init__(
        self,
        window_size: int = 3,
        channels_first: bool = False,
        apply_fit: bool = False,
        apply_predict: bool = True,
        *,
        gradient: str = "identity",
    ) -> None:
        check_integer("window_size", window_size, 1)
        check_option("gradient", gradient, self.gradients)
        check_bool(channels_first=channels_first, apply_fit=apply_fit, apply_predict=apply_predict)
        self.window_size = window_size
        self.channels_first = channels_first
        self.apply_fit = apply_fit
        self.apply_predict = apply_predict
        self.gradient = gradient

    def _transform(self, x: Array, draw: None) -> Array:
        if x.dtype == object:
            return each_sample(self._smooth, x)
        return self._smooth(x)

    def _gradient(self, x: Array, grad: Array, draw: None) -> Array:
        if self.gradient == "identity":
            return grad
        if x.dtype == object:
            return each_sample(self._pull_back, x, grad)
        return self._pull_back(x, grad)

    def _arithmetic(self, shape: Shape, dtype: Dtype) -> Arithmetic | None:
        check_time_axis(shape, channels_first=self.channels_first)
        axis = time_axis(shape, channels_first=self.channels_first)
        return median_arithmetic(dtype, self._window, (axis, axis), self.gradient)

    @property
    def _window(self) -> tuple[int, int]:
        return 1, int(self.window_size)

    def _smooth(self, x: Array) -> Array:
        """Recordings of one length."""
        check_time_axis(x.shape, channels_first=self.channels_first)
        lines, axis = self._as_lines(x)
        return medians(lines, self._window, axis, dtype=self._output_dtype(x.dtype)).reshape(x.shape)

    def _pull_back(self, x: Array, grad: Array) -> Array:
        """Gradient of recordings of one length."""
        lines, axis = self._as_lines(x)
        found, grads = self._as_lines(self._smooth(x))[0], self._as_lines(grad)[0]
        return pull_back_medians(lines, found, grads, self._window, axis).reshape(x.shape)

    def _as_lines(self, x: Array) -> tuple[Array, int]:
        """View of recordings as images of one row, and the axis of their channels."""
        if x.ndim == 2:
            return x[:, None, :, None], 3
        return (x[:, :, None], 1) if self.channels_first else (x[:, None], 3)
