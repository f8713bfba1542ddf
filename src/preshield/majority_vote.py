"""A classifier that asks for several opinions, and may refuse to answer."""

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ._core.checks import check_bool, check_integer, check_values
from ._core.errors import ArgumentError
from ._core.optional import require
from ._core.tensors import on_device, to_numpy
from ._core.typing import Array, Shape
from .chain import Chain
from .evaluation.classifiers import (
    PredictOnly,
    as_classifier,
    has_gradients,
    is_a,
    labels_of,
    predictor,
    unchanged,
)
from .evaluation.subjects import as_labels
from .evaluation.vote_report import VoteReport, elect
from .interop.foreign import as_defence
from .preprocessor import Preprocessor

__all__ = ["MajorityVote"]


class MajorityVote:
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

    domains: tuple[str, ...] = ("image", "video", "audio", "features")
    stochastic: bool = False
    gradient_kind: str = "exact"
    changes_shape: bool = False
    optimises_at_test_time: bool = False
    paper: str = "arXiv:1704.01155"
    known_attacks: tuple[str, ...] = (
        (
            "He et al. 2017 (arXiv:1706.04701): adaptive attacks on views that are compared and on a vote of "
            "several classifiers succeed with low distortion"
        ),
        "Carlini and Wagner 2017 (arXiv:1705.07263): attacks optimised through a 3x3 mean filter defeat it",
    )

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
        if isinstance(views, list | tuple):
            views = [as_defence(view) for view in views]
        _check_views(views)
        check_integer("min_votes", min_votes)
        if not 1 <= min_votes <= len(views):
            raise ArgumentError(
                f"`min_votes` must be between 1 and the number of views, which is {len(views)}, "
                f"got {min_votes!r}."
            )
        predictor(predict, "predict")
        self.classifier = predict
        self.views = tuple(views)
        self.min_votes = int(min_votes)
        defences = [view for view in views if view is not None]
        kinds = {defence.gradient_kind for defence in defences}
        self.gradient_kind = next((k for k in ("identity", "surrogate") if k in kinds), "exact")
        self.stochastic = any(defence.stochastic for defence in defences)
        self.optimises_at_test_time = any(defence.optimises_at_test_time for defence in defences)
        self.domains = tuple(
            domain for domain in type(self).domains if all(domain in d.domains for d in defences)
        )

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
        stays = on_device(x) and is_a(self.classifier, "torch.nn", "Module")  # there are all views, then
        x = x if stays else to_numpy(x)
        if stays or x.dtype != object:
            if not stays:
                check_values("x", x)
            self._check_sizes(tuple(x.shape))
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
        return VoteReport(tuple(self._names()), self.votes(x), y, self.min_votes)

    def for_attacks(self, x: Any) -> Any:
        """The vote as a classifier that `evaluate` attacks, with gradients if `predict` has them.

        Parameters
        ----------
        x : array_like, shape (N, ...)
            A few samples.

        Returns
        -------
        VotingClassifier or PredictOnly
            Its `predict` returns what an attacker can differentiate: how far each class is from being
            elected. Whether an attack succeeded says `MajorityVote.predict`.

        Raises
        ------
        ValueError
            If the samples do not fit the classifier.
        """
        x = to_numpy(x).astype(np.float32, copy=False)
        seen = next(self._seen(x)).astype(np.float32, copy=False)
        classifier = as_classifier(self.classifier, seen, "predict")
        if not has_gradients(classifier):
            # An evaluation tells stochastic views apart by what they are.
            vote = MajorityVote(self.classifier, list(map(_apart, self.views)), min_votes=self.min_votes)
            return PredictOnly(vote.predict, x.shape[1:], vote.views)
        from .evaluation.voting import VotingClassifier

        return VotingClassifier(classifier, self.views, self.min_votes, input_shape=x.shape[1:])

    def for_art(self, x: Any, clip_values: tuple[float, float]) -> Any:
        """The vote as a classifier of ART, for its attacks.

        Parameters
        ----------
        x : array_like, shape (N, ...)
            A few samples.
        clip_values : tuple of float
            Smallest and largest value of a sample.

        Returns
        -------
        PyTorchClassifier or DefendedClassifier

        Raises
        ------
        ValueError
            As `for_attacks`; or if `predict` has no gradients.
        ImportError
            If ART is missing.
        """
        require("art", extra="art")
        from .evaluation.art_bridge import bridge
        from .evaluation.defended import DefendedModel

        vote = self.for_attacks(x)
        if not has_gradients(vote):
            raise ArgumentError(
                f"`predict` must be a model with gradients, such as a torch module, got {self.classifier!r}; "
                "for attacks on labels, wrap `MajorityVote.predict` in a BlackBoxClassifier of ART."
            )
        model = DefendedModel(
            vote, clip_values=clip_values, nb_classes=vote.nb_classes, input_shape=vote.input_shape
        )
        return bridge(model)

    def get_params(self) -> dict[str, Any]:
        """Parameters by name, for the records of an evaluation."""
        return {"predict": self.classifier, "views": self.views, "min_votes": self.min_votes}

    def __repr__(self) -> str:
        """Constructor call, with the name of the classifier."""
        name = getattr(self.classifier, "__name__", type(self.classifier).__name__)
        return f"{type(self).__name__}({name}, views={list(self.views)!r}, min_votes={self.min_votes})"

    def _repr_html_(self) -> str:
        """What a notebook shows: a card with parameters, facts, paper and known attacks."""
        from ._core import html

        parameters = {name: html.short(value) for name, value in self.get_params().items()}
        return html.scoped(html.card(self, type(self).__name__, parameters, domains=self.domains))

    def _seen(self, x: Any) -> Iterator[Any]:
        """The batch in each view; one that goes on after the last, as the second blur, starts there."""
        seen = x
        done: tuple[Preprocessor, ...] = ()
        for view in self.views:
            stages = (view,) if view is not None and view.stochastic else _stages(view)
            if stages[: len(done)] != done or any(stage.stochastic for stage in done):
                seen, done = x, ()
            for stage in stages[len(done) :]:
                seen = stage(seen)[0]
            done = stages
            yield seen

    def _check_sizes(self, shape: Shape) -> None:
        for i, view in enumerate(self.views):
            if view is not None and view._output_shape(shape)[:1] != shape[:1]:
                raise ArgumentError(
                    f"`views[{i}]` must keep the number of samples, got {view!r}, which turns "
                    f"{shape[0]} into {view._output_shape(shape)[0]}; pass augmentation=False to add noise "
                    "to a view."
                )

    def _names(self) -> list[str]:
        """What each view is, in a few words; equal ones are numbered."""
        names: list[str] = []
        for view in self.views:
            name = " + ".join(stage._name for stage in _stages(view)) or "input"
            names.append(name if name not in names else f"{name} ({len(names) + 1})")
        return names


def _blurred(channels_first: bool, layout: str | None) -> list[Preprocessor | None]:
    from .defences.gaussian_blur import GaussianBlur

    blur = GaussianBlur(5, 1.0, channels_first=channels_first, layout=layout)
    return [None, blur, Chain([blur, blur])]


def _apart(view: Preprocessor | None) -> Preprocessor | None:
    """The same view, with stochastic stages that no other view has."""
    if view is None or not view.stochastic:
        return view
    changes = {"defences": list(map(_apart, view._stages))} if isinstance(view, Chain) else {}
    return copy.copy(view).set_params(**changes)


def _check_views(views: Any) -> None:
    if not isinstance(views, list | tuple):
        raise ArgumentError(f"`views` must be a list of defences and None, got {type(views).__name__}.")
    if not views:
        raise ArgumentError("`views` must hold at least one view, got none.")
    for i, view in enumerate(views):
        if view is None:
            continue
        if not isinstance(view, Preprocessor):
            raise ArgumentError(
                f"`views[{i}]` must be a defence of preshield or ART, or None for the input itself, got "
                f"{view!r} of type {type(view).__module__}.{type(view).__name__}."
            )
        if view.domains == ("labels",):
            raise ArgumentError(
                f"`views[{i}]` must change samples, got {view!r}, which is about labels; leave it out."
            )


def _stages(view: Preprocessor | None) -> tuple[Preprocessor, ...]:
    if view is None:
        return ()
    return tuple(view._stages) if isinstance(view, Chain) else (view,)
