"""Mixup."""

from typing import Any, NamedTuple

import numpy as np

from .._core.arithmetic.mixing import mixed
from .._core.checks import check_bool, check_integer, check_number, check_rng, ignore_device_type
from .._core.draws import Draws
from .._core.errors import ArgumentError
from .._core.labels import class_rows, class_rows_anywhere
from .._core.layout import kept_dtype, working_dtype
from .._core.threads import map_parts
from .._core.typing import Arithmetic, Array, Dtype, Rng, Shape
from ..preprocessor import Preprocessor

__all__ = ["Mixup"]


class Draw(NamedTuple):
    """Shares of the samples that are mixed, and the orders of the batch from which all but the first come."""

    shares: Any
    orders: Any


class Mixup(Preprocessor):
    """Replace samples and labels by weighted means over several samples of the batch [1]_.

    An augmentation for training: the model learns to change its answer linearly between samples.

    Parameters
    ----------
    num_classes : int
        Number of classes.
    alpha : float, default 1.0
        Concentration of the Dirichlet distribution of the shares: 1 draws them uniformly, less leaves one
        sample nearly alone.
    num_mix : int, default 2
        How many samples are mixed into one.
    apply_fit : bool, default True
        Whether a classifier applies it when it is trained.
    apply_predict : bool, default False
        Whether a classifier applies it when it predicts: it cannot, for lack of labels.
    rng : None, int or numpy.random.Generator, optional
        Source of the draws. None takes them from NumPy's global state.
    device_type : str, optional
        Ignored, with a warning: results lie on the device of the tensors.

    Raises
    ------
    TypeError, ValueError
        If a parameter breaks its rule; if labels are missing or are neither one-hot nor class indices.

    Notes
    -----
    Any shape with a batch axis. Labels are `(N, num_classes)`, one-hot, multi-hot or soft, or class indices
    `(N,)`; they become rows `(N, num_classes)` with the same shares as the samples. All samples of a batch
    have the same shares, and each other sample of a mixture comes from a permutation of the batch. Floating
    types are kept, others become `float32`, of samples and labels alike. The gradient is exact: each sample
    receives its share of the gradient of every mixture that it is part of.

    References
    ----------
    .. [1] Zhang, Cisse, Dauphin, Lopez-Paz. mixup: Beyond Empirical Risk Minimization. ICLR 2018.
       arXiv:1710.09412

    Examples
    --------
    >>> import numpy as np
    >>> from preshield import Mixup
    >>> x, y = Mixup(num_classes=2, rng=5)(np.array([[0.0], [1.0]]), np.eye(2))
    >>> bool((x[:, 0] == y[:, 1]).all())
    True
    """

    domains = ("image", "video", "audio", "features")
    stochastic = True
    mixes_samples = True
    gradient_kind = "exact"
    paper = "arXiv:1710.09412"
    known_attacks = (
        (
            "Zhang et al. 2018 (arXiv:1710.09412), its own paper: iterated white-box attacks leave next to "
            "no ImageNet accuracy"
        ),
    )

    def __init__(
        self,
        num_classes: int,
        alpha: float = 1.0,
        num_mix: int = 2,
        apply_fit: bool = True,
        apply_predict: bool = False,
        *,
        rng: Rng = None,
        device_type: str | None = None,
    ) -> None:
        check_integer("num_classes", num_classes, 1)
        check_number("alpha", alpha)
        if not alpha > 0:
            raise ArgumentError(f"`alpha` must be above 0, got {alpha!r}.")
        check_integer("num_mix", num_mix, 2)
        check_bool(apply_fit=apply_fit, apply_predict=apply_predict)
        check_rng(rng)
        ignore_device_type(device_type)
        self.num_classes = num_classes
        self.alpha = alpha
        self.num_mix = num_mix
        self.apply_fit = apply_fit
        self.apply_predict = apply_predict
        self.rng = rng

    def _draw(self, x: Array, rng: Draws) -> Draw:
        shares = rng.shares(float(self.alpha), int(self.num_mix), x)
        return Draw(shares, rng.xp.stack([rng.order() for _ in range(int(self.num_mix) - 1)]))

    def _transform(self, x: Array, draw: Draw) -> Array:
        return _mix(x, draw)

    def _transform_labels(self, y: Array | None, draw: Draw) -> Array | None:
        return None if y is None else _mix(class_rows(y, self.num_classes), draw)

    def _arithmetic(self, shape: Shape, dtype: Dtype) -> Arithmetic:
        return self._mixed_anywhere

    def _mixed_anywhere(self, x: Any, xp: Any, draw: Draw, y: Any) -> tuple[Any, Any]:
        if y is not None:
            rows, kept = class_rows_anywhere(y, xp, self.num_classes)
            y = xp.astype(mixed(rows, xp, *draw), kept, copy=False)
        return mixed(x, xp, *draw), y

    def _gradient(self, x: Array, grad: Array, draw: Draw) -> Array:
        return _mix(grad, Draw(draw.shares, np.argsort(draw.orders, axis=1)))  # the inverse permutations


def _mix(x: Array, draw: Draw) -> Array:
    """Sum of the batch and of itself in other orders, each times its share."""
    out = np.empty(x.shape, kept_dtype(x.dtype))
    dtype = working_dtype(x.dtype)
    first, *others = draw.shares.astype(dtype)

    def work(where: tuple[slice, ...]) -> None:
        total = first * x[where].astype(dtype)
        for share, order in zip(others, draw.orders, strict=True):
            total += share * x[(order[where[0]], *where[1:])].astype(dtype)
        out[where] = total

    map_parts(work, x)
    return out
