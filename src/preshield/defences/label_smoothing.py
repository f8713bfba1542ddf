"""Label smoothing."""

from typing import Any

import numpy as np

from .._core.checks import check_bool, check_integer, check_number
from .._core.errors import ArgumentError
from .._core.labels import class_rows, class_rows_anywhere
from .._core.layout import kept_dtype, working_dtype
from .._core.planes import map_planes
from .._core.typing import Arithmetic, Array, Dtype, Shape
from ..preprocessor import Preprocessor

__all__ = ["LabelSmoothing"]


class LabelSmoothing(Preprocessor):
    """Give the correct class a probability below 1 and share the rest among the others [1]_ [2]_.

    Parameters
    ----------
    max_value : float, default 0.9
        Probability of the correct class, in (0, 1]. The others receive ``(1 - max_value) / (classes - 1)``.
    apply_fit : bool, default True
        Whether a classifier applies it when it is trained.
    apply_predict : bool, default False
        Whether a classifier applies it when it predicts.
    num_classes : int, optional
        Number of classes; with it, labels may also be class indices `(N,)`.

    Raises
    ------
    TypeError, ValueError
        If a parameter breaks its rule; if labels are missing, not numeric, of the wrong shape, or have a
        single class; if class indices are out of range; if `max_value` is smaller than what the other
        classes receive.

    Notes
    -----
    Labels are `(N, classes)`, one-hot, or indices `(N,)`. Ones become `max_value` and zeros the share of
    the others; entries in between, as in soft labels, stay. Floating types are kept, all others become
    `float32`. `x` passes through untouched.

    References
    ----------
    .. [1] Szegedy, Vanhoucke, Ioffe, Shlens, Wojna. Rethinking the Inception Architecture for Computer
       Vision. CVPR 2016. arXiv:1512.00567
    .. [2] Warde-Farley, Goodfellow. Adversarial Perturbations of Deep Neural Networks. 2016.

    Examples
    --------
    >>> import numpy as np
    >>> from preshield import LabelSmoothing
    >>> x = np.zeros((2, 5))
    >>> LabelSmoothing(0.75)(x, np.array([[1, 0], [0, 1]]))[1]
    array([[0.75, 0.25],
           [0.25, 0.75]], dtype=float32)
    """

    domains = ("labels",)
    gradient_kind = "exact"  # the data pass through
    paper = "arXiv:1512.00567"
    known_attacks = (
        (
            "Fu et al. 2020 (arXiv:2009.08233): the robustness is volatile and gone against attacks "
            "transferred from a naturally trained model"
        ),
    )

    def __init__(
        self,
        max_value: float = 0.9,
        apply_fit: bool = True,
        apply_predict: bool = False,
        *,
        num_classes: int | None = None,
    ) -> None:
        check_number("max_value", max_value, 0, 1)
        if max_value == 0:
            raise ArgumentError("`max_value` must be above 0, got 0.")
        check_bool(apply_fit=apply_fit, apply_predict=apply_predict)
        if num_classes is not None:
            check_integer("num_classes", num_classes, 2)
        self.max_value = max_value
        self.apply_fit = apply_fit
        self.apply_predict = apply_predict
        self.num_classes = num_classes

    def _transform_labels(self, y: Array | None, draw: None) -> Array:
        from .._core.kernels.labels import smooth_labels

        if y is None:
            raise ArgumentError("`y` must be given: LabelSmoothing changes labels.")
        y = class_rows(y, self.num_classes)
        dtype = working_dtype(y.dtype)
        values = dtype.type(self.max_value), dtype.type(self._rest(y.shape))

        def smooth(out: Array, block: Array) -> None:
            smooth_labels(out.reshape(-1), block.reshape(-1), *values)

        return map_planes(smooth, np.empty(y.shape, kept_dtype(y.dtype)), y, dtypes=(dtype, dtype))

    def _arithmetic(self, shape: Shape, dtype: Dtype) -> Arithmetic:
        return self._smoothed_anywhere

    def _smoothed_anywhere(self, x: Any, xp: Any, y: Any) -> tuple[Any, Any]:
        if y is None:  # in a chain
            return x, None
        rows, kept = class_rows_anywhere(y, xp, self.num_classes)
        rest = self._rest(tuple(rows.shape))
        out = xp.where(rows == 1, self.max_value, xp.where(rows == 0, rest, rows))
        return x, xp.astype(out, kept, copy=False)

    def _rest(self, shape: Shape) -> float:
        """What each wrong class receives."""
        if shape[1] < 2:
            raise ArgumentError(f"`y` must have at least two classes, got shape {shape}.")
        rest = (1 - self.max_value) / (shape[1] - 1)
        if self.max_value < rest:
            raise ArgumentError(
                f"`max_value` must be at least 1 / classes = {1 / shape[1]:.3g}, got {self.max_value!r}: "
                "the wrong classes would receive more."
            )
        return rest
