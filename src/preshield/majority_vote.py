"""A classifier that asks for several opinions, and may refuse to answer."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ._core.checks import check_bool, check_integer
from ._core.errors import ArgumentError
from ._core.tensors import to_numpy
from ._core.typing import Array
from .chain import Chain
from .evaluation.classifiers import labels_of, predictor, unchanged
from .evaluation.several_views import SeveralViews, as_views, names_of
from .evaluation.subjects import as_labels
from .evaluation.vote_report import VoteReport, elect
from .preprocessor import Preprocessor

if TYPE_CHECKING:
    from .evaluation.voting import Election

__all__ = ["MajorityVote"]


class MajorityVote(SeveralViews):
    """Predict several views of a sample, and return the label on which enough of them agree.

    By default a classifier sees each image as it is, blurred, and blurred twice. A label needs `min_votes`
    votes and more than any other label; otherwise the sample is rejected. Comparing the predictions of
    several views goes back to feature squeezing [1]_.

    Parameters
    ----------
    predict : object
        The classifier: a callable or an object with `predict_proba` or `predict`, an ART classifier, a Keras
        model or a torch module; of scores `(N, K)` or labels `(N,)`. A label of -1 is no vote. What
        `evaluate` accepts as a classifier.
    views : list of Preprocessor or None, optional
        What the classifier sees: a batch through each of these defences, a `Chain` among them, or as it is
        (None). By default ``[None, blur, Chain([blur, blur])]`` with ``blur = GaussianBlur(5, 1.0)``.
    min_votes : int, default 2
        Votes that a label needs.
    channels_first : bool, default False
        Layout of the images for the default views, (N, C, H, W) or (N, H, W, C).
    layout : {"NHWC", "NCHW", "NFHWC", "NCFHW", "NFCHW"}, optional
        The same for images and videos, in place of `channels_first`, and taken at its word.

    Raises
    ------
    TypeError
        If `predict` is no classifier, or a view is no defence.
    ValueError
        If there are no views, a view is about labels, `min_votes` is not between 1 and the number of views,
        `channels_first` or `layout` is given with views of one's own, or the classes of `predict` are not
        0, ..., K - 1.

    Notes
    -----
    Where two labels have the most votes, and equally many, there is no majority and the sample is rejected,
    whatever `min_votes`: of three views, one vote is enough only where two are.

    As the `classifier` of `evaluate`, and among its `defences`, it is attacked through all of its views where
    `predict` has gradients, and through its labels alone where not: a callable looks stronger than it is.

    References
    ----------
    .. [1] Xu, Evans, Qi. Feature Squeezing. NDSS 2018. arXiv:1704.01155

    Examples
    --------
    >>> import numpy as np
    >>> from preshield import FeatureSqueezing, MajorityVote
    >>> def predict(x):
    ...     return (x.mean(axis=1) > 0.5).astype(int)
    >>> views = [None, FeatureSqueezing((0, 1), 1), FeatureSqueezing((0, 1), 2)]
    >>> vote = MajorityVote(predict, views, min_votes=3)
    >>> vote.predict(np.array([[0.9, 0.8, 0.7], [0.9, 0.4, 0.4]]))
    array([ 1, -1])
    """

    paper: str = "arXiv:1704.01155"
    known_attacks: tuple[str, ...] = (
        (
            "He et al. 2017 (arXiv:1706.04701): adaptive attacks on views that are compared and on a vote of "
            "several classifiers succeed with low distortion"
        ),
        "Carlini and Wagner 2017 (arXiv:1705.07263): attacks optimised through a 3x3 mean filter defeat it",
    )
    _takes, _sees, _labels_by = "predict", "views", "predict"

    def __init__(
        self,
        predict: Any,
        views: Sequence[Preprocessor | None] | None = None,
        *,
        min_votes: int = 2,
        channels_first: bool = False,
        layout: str | None = None,
    ) -> None:
        check_bool(channels_first=channels_first)
        if views is None:
            views = _blurred(channels_first, layout)
        elif channels_first or layout is not None:
            name = "channels_first" if channels_first else "layout"
            raise ArgumentError(
                f"`{name}` must be left out with `views`, which have layouts of their own, got "
                f"{channels_first or layout!r}."
            )
        views = as_views(views, "views")
        check_integer("min_votes", min_votes)
        if not 1 <= min_votes <= len(views):
            raise ArgumentError(
                f"`min_votes` must be between 1 and the number of views, which is {len(views)}, "
                f"got {min_votes!r}."
            )
        super().__init__(predict, views)
        self.min_votes = int(min_votes)

    def votes(self, x: Any) -> Array:
        """Label of each sample in each view.

        Parameters
        ----------
        x : array_like or tensor, shape (N, ...)
            Batch.

        Returns
        -------
        ndarray of int, shape (N, V)

        Raises
        ------
        ValueError
            If `x` is not finite, a view cannot take it or changes the number of samples, `predict` does not
            return one label or one row of scores for each sample, or its classes are not 0, ..., K - 1.
        """
        predict = predictor(self.classifier, "predict")  # checked again: it may have been trained since
        x = self._batch(x)
        with unchanged(self.classifier):
            return np.stack([labels_of(predict(seen), len(x), "predict") for seen in self._seen(x)], axis=1)

    def predict(self, x: Any) -> Array:
        """Label of each sample.

        Parameters
        ----------
        x : array_like or tensor, shape (N, ...)
            Batch.

        Returns
        -------
        ndarray of int, shape (N,)
            -1 for a rejected sample.

        Raises
        ------
        ValueError
            As `votes`.
        """
        return elect(self.votes(x), self.min_votes)

    def report(self, x: Any, y: Any) -> VoteReport:
        """Compare the vote and each view with the truth.

        Parameters
        ----------
        x : array_like or tensor, shape (N, ...)
            Batch.
        y : array_like or tensor, shape (N,) or (N, K)
            Labels: indices, one-hot rows, or probabilities with one largest entry in each row.

        Returns
        -------
        VoteReport
            Prints as a table; `preshield.plots.votes` draws it.

        Raises
        ------
        ValueError
            As `votes`; or if `y` does not hold one label for each sample.
        """
        x, y = to_numpy(x), as_labels(y)
        if len(x) != len(y):
            raise ArgumentError(
                f"`y` must hold one label for each of the {len(x)} samples of `x`, got {len(y)}."
            )
        return VoteReport(names_of(self.views), self.votes(x), y, self.min_votes)

    def get_params(self) -> dict[str, Any]:
        """Parameters by name, for the records of an evaluation."""
        return {"predict": self.classifier, "views": self.views, "min_votes": self.min_votes}

    def __repr__(self) -> str:
        """Constructor call, with the name of the classifier."""
        name = getattr(self.classifier, "__name__", type(self.classifier).__name__)
        return f"{type(self).__name__}({name}, views={list(self.views)!r}, min_votes={self.min_votes})"

    _decide = predict

    def _rule(self) -> "Election":
        from .evaluation.voting import Election

        return Election(self.min_votes)


def _blurred(channels_first: bool, layout: str | None) -> list[Preprocessor | None]:
    from .defences.gaussian_blur import GaussianBlur

    blur = GaussianBlur(5, 1.0, channels_first=channels_first, layout=layout)
    return [None, blur, Chain([blur, blur])]
