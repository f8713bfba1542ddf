"""Stickers: perturbations inside a mask that survive shifts, scales, brightness and noise.

The objective is that of the robust physical perturbations RP2 (Eykholt et al., Robust Physical-World Attacks
on Deep Learning Visual Classification, CVPR 2018, arXiv:1707.08945), without its term for printable colours.
How often a sticker succeeds, and how large it is, say `attack_success_rate` and `dissimilarity` of
`preshield.evaluation.metrics`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from preshield import Preprocessor
from preshield.evaluation.classifiers import as_classifier, has_gradients, unchanged
from preshield.evaluation.defended import DefendedModel
from preshield.evaluation.losses import cross_entropy
from preshield.evaluation.perturbations import host, scaled

__all__ = ["Conditions", "StickerAttack", "View", "rectangle", "two_bars"]

Array: TypeAlias = NDArray[Any]


@dataclass(frozen=True, eq=False)
class View:
    """How the images of a batch are seen once.

    Attributes
    ----------
    rows, columns : ndarray, shapes (H, H) and (W, W)
        Weights of the rows and columns of an image in those that are seen.
    brightness : float
        Factor of all values.
    noise : ndarray, shape (C, H, W)
        Is added to each image.
    """

    rows: Array
    columns: Array
    brightness: float
    noise: Array

    def __call__(self, x: Array, clip_values: tuple[float, float]) -> tuple[Array, Callable[[Array], Array]]:
        """What is seen of `x`, shape (N, C, H, W), and the backward pass, which is exact."""
        seen = self.brightness * (self.rows @ x @ self.columns.T) + self.noise
        inside = (seen >= clip_values[0]) & (seen <= clip_values[1])

        def back(grad: Array) -> Array:
            pulled: Array = self.rows.T @ (self.brightness * inside * grad) @ self.columns
            return pulled

        return np.clip(seen, *clip_values), back


@dataclass(frozen=True)
class Conditions:
    """What a sticker must survive. Borders are repeated where an image would end.

    Attributes
    ----------
    shift : float
        Largest shift along each axis, in pixels.
    scale : float
        Images are enlarged by factors from ``1 - scale`` to ``1 + scale``.
    brightness : float
        Values are multiplied by factors from ``1 - brightness`` to ``1 + brightness``.
    noise : float
        Standard deviation of Gaussian noise, in the unit of the values.
    """

    shift: float = 2.0
    scale: float = 0.1
    brightness: float = 0.2
    noise: float = 0.02

    def draw(self, rng: np.random.Generator, shape: Sequence[int]) -> View:
        """A view of images of `shape` (C, H, W), uniform in all but the noise."""
        scale = 1 + self.scale * rng.uniform(-1, 1)
        rows, columns = (_linear(size, scale, self.shift * rng.uniform(-1, 1)) for size in shape[1:])
        brightness = 1 + self.brightness * rng.uniform(-1, 1)
        return View(rows, columns, brightness, self.noise * rng.standard_normal(shape))


class StickerAttack:
    """Look for a small perturbation inside a mask that fools a model whatever the view.

    For ``M`` the mask and ``d`` the perturbation, Adam minimises

    ``weight * ||M d||_p + mean over views t of J(f(t(clip(x + M d))), target)``

    or, without a target, with ``-J(..., y)``; ``J`` is the cross-entropy. The step shrinks linearly to 0.
    ``-J`` has no floor: without a target, a small `weight` lets the sticker grow to the ends of the range.

    Parameters
    ----------
    model : keras.Model, torch.nn.Module or ART classifier
        Classifier. The loss of an ART classifier must be a mean over the batch, as it is by default.
    mask : array_like, shape (H, W)
        1 where the sticker may be, 0 elsewhere.
    defence : Preprocessor, optional
        What stands in front of the model: the attack goes through it.
    target : int or array_like of int, shape (N,), optional
        Class to be reached, for all images or for each. Any wrong class if omitted.
    weight : float
        Weight of the norm.
    norm : float
        Its order p: at least 1, or ``numpy.inf``.
    conditions : Conditions
        From which views are drawn.
    transformations : int
        Views for each step.
    steps : int
        Steps of Adam.
    learning_rate : float
        Length of its first step, in the unit of the values.
    universal : bool
        Whether one sticker must serve all images, as in RP2; each has its own if not.
    clip_values : tuple of float
        Smallest and largest value of an image.
    channels_first : bool
        Whether images are `(N, C, H, W)`.
    seed : int
        Seed of the views, and of the draws of a stochastic defence.
    """

    def __init__(
        self,
        model: Any,
        mask: ArrayLike,
        *,
        defence: Preprocessor | None = None,
        target: ArrayLike | None = None,
        weight: float = 0.02,
        norm: float = 2,
        conditions: Conditions = Conditions(),
        transformations: int = 8,
        steps: int = 60,
        learning_rate: float = 0.1,
        universal: bool = False,
        clip_values: tuple[float, float] = (0.0, 1.0),
        channels_first: bool = False,
        seed: int = 0,
    ) -> None:
        self.model = model
        self.mask = np.asarray(mask, dtype=np.float64)
        if self.mask.ndim != 2 or set(np.unique(self.mask)) not in ({1.0}, {0.0, 1.0}):
            raise ValueError(
                "`mask` must have the shape (H, W), with 1 where the sticker may be and 0 elsewhere, got "
                f"shape {self.mask.shape} and values {np.unique(self.mask)[:5]}."
            )
        if norm < 1:
            raise ValueError(f"`norm` must be at least 1, got {norm!r}.")
        self.defence = defence
        self.target = target
        self.weight = weight
        self.norm = norm
        self.conditions = conditions
        self.transformations = transformations
        self.steps = steps
        self.learning_rate = learning_rate
        self.universal = universal
        self.clip_values = clip_values
        self.channels_first = channels_first
        self.seed = seed

    def generate(self, x: ArrayLike, y: ArrayLike) -> Array:
        """Attack images.

        Parameters
        ----------
        x : array_like, shape (N, H, W, C) or (N, C, H, W)
            Images within `clip_values`.
        y : array_like of int, shape (N,)
            Their true classes.

        Returns
        -------
        ndarray of float32, of the shape of `x`
        """
        return self.place(x, self.optimise(x, y))

    def optimise(self, x: ArrayLike, y: ArrayLike) -> Array:
        """Find the stickers ``M d``: one for each image, or, in an array of length 1, one for all."""
        x, labels = self._checked(x, y)
        model = self.defended(x)
        images = self._channels_first(x).astype(np.float64)
        rng = np.random.default_rng(self.seed)
        low, high = (bound - images for bound in self.clip_values)
        if self.universal:  # beyond these bounds it is clipped on every image
            low, high = low.min(axis=0, keepdims=True), high.max(axis=0, keepdims=True)
        sticker, first, second = np.zeros((3, *low.shape))
        with unchanged(self.model):
            for step in range(1, self.steps + 1):
                views = [self.conditions.draw(rng, images.shape[1:]) for _ in range(self.transformations)]
                grad = self.gradient(model, images, labels, sticker, views, step)
                first, second = 0.9 * first + 0.1 * grad, 0.999 * second + 0.001 * grad**2
                direction = first / (1 - 0.9**step) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
                length = self.learning_rate * (1 - (step - 1) / self.steps)
                sticker = np.clip(sticker - length * direction, low, high)
        return self._as_given(sticker)

    def place(self, x: ArrayLike, sticker: Array) -> Array:
        """Images with a sticker on them."""
        placed: Array = np.clip(np.asarray(x) + sticker, *self.clip_values)
        return placed.astype(np.float32)

    def defended(self, x: Array) -> DefendedModel:
        """The model behind its defence, which draws anew for each view."""
        seen = x[:2]
        if self.defence is not None:
            with self.defence.frozen():
                seen = self.defence.transform(seen)
        inner = as_classifier(self.model, seen)
        if not has_gradients(inner):
            raise TypeError(f"`model` must have gradients, got {type(self.model).__name__}.")
        return DefendedModel(
            inner,
            self.defence,
            draws=1,
            clip_values=self.clip_values,
            nb_classes=inner.nb_classes,
            input_shape=x.shape[1:],
        )

    def gradient(
        self,
        model: DefendedModel,
        images: Array,
        labels: Array,
        sticker: Array,
        views: Sequence[View],
        step: int = 0,
    ) -> Array:
        """Gradient of the objective, averaged over `views`, with respect to the sticker.

        `images` are `(N, C, H, W)`; `labels` are the classes wanted, or, without a target, not wanted.
        """
        placed = images + self.mask * sticker
        attacked = np.clip(placed, *self.clip_values)
        inside = np.isclose(placed, attacked, rtol=0, atol=1e-9 * np.ptp(self.clip_values))  # bar rounding
        numbers = np.arange(len(images))
        total = np.zeros(images.shape)
        for place, view in enumerate(views, 1):
            seen, back = view(attacked, self.clip_values)
            x = model.array(self._as_given(seen).astype(np.float32))
            look = model.look(x, labels, cross_entropy, None, numbers, (self.seed, step, place))
            total += back(self._channels_first(host(scaled(look.gradient, look.factors))))
        sign = -1 if self.target is None else 1
        loss = inside * total * sign / len(views)
        if self.universal:
            loss = loss.mean(axis=0, keepdims=True)
        return self.mask * (loss + self.weight * _norm_gradient(self.mask * sticker, self.norm))

    def _checked(self, x: ArrayLike, y: ArrayLike) -> tuple[Array, Array]:
        """Images, and the classes that the loss is about."""
        images = np.asarray(x, dtype=np.float32)
        size = images.shape[2:] if self.channels_first else images.shape[1:3]
        if images.ndim != 4 or size != self.mask.shape:
            raise ValueError(
                f"`x` must be images of the size {self.mask.shape} of `mask`, with "
                f"channels_first={self.channels_first}, got shape {images.shape}."
            )
        if (images != np.clip(images, *self.clip_values)).any():
            raise ValueError(
                f"`x` must lie within `clip_values` {self.clip_values}, got values from {images.min()} to "
                f"{images.max()}."
            )
        labels = np.asarray(y if self.target is None else self.target)
        if labels.dtype.kind not in "iu" or labels.shape not in ((), (len(images),)):
            name = "y" if self.target is None else "target"
            raise ValueError(
                f"`{name}` must hold one class index for each of the {len(images)} images, got dtype "
                f"{labels.dtype} and shape {labels.shape}."
            )
        return images, np.broadcast_to(labels, len(images))

    def _channels_first(self, x: Array) -> Array:
        return x if self.channels_first else np.moveaxis(x, 3, 1)

    def _as_given(self, x: Array) -> Array:
        return x if self.channels_first else np.moveaxis(x, 1, 3)


def rectangle(size: tuple[int, int], top: int, left: int, height: int, width: int) -> Array:
    """A mask of shape `size` with one sticker, whose corner at the top left is pixel (top, left)."""
    mask = np.zeros(size)
    mask[top : top + height, left : left + width] = 1
    return mask


def two_bars(size: tuple[int, int]) -> Array:
    """Two horizontal bars, above and below the middle, as on the stop sign of RP2.

    Each covers an eighth of the height and three quarters of the width.
    """
    height, width = size[0] // 8, 3 * size[1] // 4
    left = (size[1] - width) // 2
    upper, lower = (rectangle(size, int(size[0] * at), left, height, width) for at in (0.1875, 0.6875))
    return upper + lower


def _linear(size: int, scale: float, shift: float) -> Array:
    """Weights by which pixels along one axis are interpolated, enlarged about the middle and shifted."""
    middle = (size - 1) / 2
    places = np.clip((np.arange(size) - middle - shift) / scale + middle, 0, size - 1)
    weights: Array = np.maximum(0, 1 - abs(places[:, None] - np.arange(size)))
    return weights


def _norm_gradient(sticker: Array, p: float) -> Array:
    """Gradient of the p-norm of each sticker; 0 where there is none."""
    size, axes = abs(sticker), tuple(range(1, sticker.ndim))
    largest = size.max(axis=axes, keepdims=True)
    relative = size / np.where(largest > 0, largest, 1)  # so that no power overflows
    slope, root = (relative == 1, 1.0) if p == np.inf else (relative ** (p - 1), (p - 1) / p)
    total = (slope * relative).sum(axis=axes, keepdims=True)
    gradient: Array = np.sign(sticker) * slope / np.where(total > 0, total, 1) ** root
    return gradient
