"""Any model that scores the levels of an image's pixels."""

import sys
from typing import Any

import numpy as np

from .._core.checks import check_integer
from .._core.errors import ArgumentError, noted
from .._core.progress import progress_bar
from .._core.threads import map_blocks
from .._core.typing import Array, Shape
from .outputs import numbers_of
from .pixel_levels import to_images, to_levels
from .torch_module import TorchModule

__all__ = ["PixelScores"]

BLOCK = 1 << 12  # pixels whose scores a thread compares at once
SCORE_BYTES = 1 << 28  # of the scores that a network gives at once


class PixelScores:
    """What `PixelCNN` offers, of a model that is known by its outputs alone.

    Parameters
    ----------
    model : object
        A Keras model, a torch module or a callable, which maps images to 256 logits or probabilities of each
        value, shape `(N, H, W, C, 256)`, or, in the same order, `(N, H * W * C, 256)` or
        `(N, H * W * C * 256)`; or a classifier of ART's, whose last layer gives them. Feature vectors
        `(N, D)` are scored alike.
    channels_first : bool, default False
        Whether the model takes `(N, C, H, W)`; its outputs are then in this order, or in that above.
    batch_size : int, default 128
        Images that the model is given at once, at most.

    Notes
    -----
    Nothing is known about what the model computes for a pixel, so sequential decoding evaluates all of it for
    each pixel and channel.
    """

    def __init__(self, model: Any, *, channels_first: bool = False, batch_size: int = 128) -> None:
        self.model = model
        self.channels_first = channels_first
        self.batch_size = batch_size

    def decode(self, x: Array, eps: int, *, sequential: bool = True, progress: str | None = None) -> Array:
        """Replace each value by the most probable one within `eps`; of equals, by the lowest.

        Parameters
        ----------
        x : ndarray of float, shape (N, H, W, C)
            Images in [0, 1].
        eps : int
            Reach, in levels of 8 bits.
        sequential : bool, default True
            Whether each value is conditioned on those decoded before it, instead of on `x` as it is.
        progress : str, optional
            Shows a progress bar with this caption.

        Returns
        -------
        ndarray of float32, shape (N, H, W, C)
            In [0, 1].

        Raises
        ------
        TypeError, ValueError
            If the outputs of the model have another shape or are no numbers. Its own errors pass as they are.
        """
        check_integer("eps", eps, 0, 255)
        levels = to_levels(x)
        steps = int(np.prod(x.shape[1:])) if sequential else 1
        with progress_bar(total=len(x) * steps, desc=progress, disable=progress is None) as bar:
            for rows in self._batches(x.shape):
                batch = levels[rows]
                if not sequential:
                    _choose(batch, self._scores(x[rows]), int(eps))
                    bar.update(len(batch))
                    continue
                for position in np.ndindex(x.shape[1:]):
                    at = (slice(None), *position)
                    values = batch[at].copy()
                    _choose(values, self._scores(to_images(batch))[at], int(eps))
                    batch[at] = values
                    bar.update(len(batch))
        return to_images(levels)

    def log_likelihood(self, x: Array) -> Array:
        """Binary logarithm of the probability of each image, divided by its H W C dimensions.

        Parameters
        ----------
        x : ndarray of float, shape (N, H, W, C)
            Images in [0, 1], which are rounded to 8 bits.

        Returns
        -------
        ndarray of float64, shape (N,)
            In bits per dimension. Probabilities of zero count as the least positive number of `float32`.

        Raises
        ------
        TypeError, ValueError
            As for `decode`.
        """
        levels = to_levels(x)
        bits = np.empty(len(x))
        for rows in self._batches(x.shape):
            for n, scores in enumerate(self._scores(to_images(levels[rows])), start=rows.start):
                bits[n] = _log2_likelihood(scores.reshape(-1, 256).astype(np.float64), levels[n].reshape(-1))
        return bits

    def _batches(self, shape: Shape) -> list[slice]:
        length = SCORE_BYTES // max(1, 4 * 256 * int(np.prod(shape[1:])))
        length = max(1, min(int(self.batch_size), length))
        return [slice(i, i + length) for i in range(0, shape[0], length)]

    def _scores(self, x: Array) -> Array:
        """Scores `(n, H, W, C, 256)` of a batch `(n, H, W, C)`."""
        images = np.asarray(x, dtype=np.float32)
        if self.channels_first:
            images = np.ascontiguousarray(np.moveaxis(images, -1, 1))
        with noted(f"Raised by `pixel_cnn` for {len(images)} images of shape {images.shape[1:]}."):
            returned = self._evaluate(images)
        scores = numbers_of(returned, "pixel_cnn")
        if scores.dtype.kind not in "buif":
            raise ArgumentError(
                f"`pixel_cnn` must give scores that are real numbers, got dtype {scores.dtype}."
            )
        if scores.dtype not in (np.float32, np.float64):  # what most_probable is compiled for
            scores = scores.astype(np.float32 if scores.dtype == np.float16 else np.float64)
        size = int(np.prod(images.shape[1:]))
        wanted = (*images.shape, 256)
        if scores.shape in (wanted, (len(x), size * 256), (len(x), size, 256)):
            scores = scores.reshape(wanted)
            return np.moveaxis(scores, 1, -2) if self.channels_first else scores
        if scores.shape == (*x.shape, 256):
            return scores
        raise ArgumentError(
            f"`pixel_cnn` must give 256 scores for each value, shape {wanted} or {(len(x), size * 256)}, for "
            f"images of shape {images.shape}, got {scores.shape}."
        )

    def _evaluate(self, images: Array) -> Any:
        model = self.model
        if hasattr(model, "get_activations"):  # a classifier of ART's
            return model.get_activations(images, layer=-1, batch_size=len(images))
        keras, torch = sys.modules.get("keras"), sys.modules.get("torch")
        if keras is not None and isinstance(model, keras.Model):
            return model.predict_on_batch(images)
        if torch is not None and isinstance(model, torch.nn.Module):
            return TorchModule(model).returned(images)
        return model(images)


def _log2_likelihood(scores: Array, levels: Array) -> float:
    """Mean binary logarithm of the probabilities of levels, from probabilities or logits."""
    chosen = scores[np.arange(len(levels)), levels]
    if scores.min(initial=0) >= 0 and np.allclose(scores.sum(axis=1), 1, atol=1e-3):  # after a softmax
        logs = np.log(np.maximum(chosen, np.finfo(np.float32).tiny))
    else:
        most = scores.max(axis=1)
        _check_decided("NaN or infinity", int((~np.isfinite(most)).sum()))
        logs = chosen - most - np.log(np.exp(scores - most[:, None]).sum(axis=1))
    return float(logs.mean() / np.log(2))


def _choose(levels: Array, scores: Array, eps: int) -> None:
    """Put the most probable levels within reach in the place of `levels`."""
    from .._core.kernels.pixel_cnn import most_probable

    values = levels.reshape(-1)
    rows = scores.reshape(-1, 256)
    undecided = []

    def work(block: slice) -> None:
        undecided.append(most_probable(values[block], rows[block], values[block], eps))

    map_blocks(work, len(values), BLOCK)
    _check_decided("NaN", sum(undecided))


def _check_decided(got: str, undecided: int) -> None:
    """Refuse scores that do not tell which level is the most probable one."""
    if undecided:
        raise ArgumentError(
            f"`pixel_cnn` must give scores that are numbers, got {got} for {undecided} values."
        )
