"""A detector that compares what a model predicts for a sample and for squeezed versions of it."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ._core.checks import check_number
from ._core.errors import ArgumentError
from ._core.tensors import to_numpy
from ._core.typing import Array
from .evaluation.classifiers import are_probabilities, check_outputs, has_gradients, predictor, unchanged
from .evaluation.several_views import SeveralViews, as_views, names_of
from .evaluation.subjects import as_labels
from .preprocessor import Preprocessor

if TYPE_CHECKING:
    from .evaluation.detection import Detection
    from .evaluation.detection_report import DetectionReport

__all__ = ["SqueezeDetector"]


class SqueezeDetector(SeveralViews):
    """Report a sample if a model changes its mind about it behind a defence.

    Feature squeezing [1]_ for images, and WaveGuard [2]_ for sound: an adversarial perturbation that is made
    without the defence often does not survive it, while a clean sample keeps its prediction. The score of a
    sample is the largest L1 distance between the probabilities that the model gives for it as it is and
    behind each defence, in [0, 2]. Samples above a threshold, taken from clean ones, are reported.

    Parameters
    ----------
    model : object
        A torch module, a Keras model, a JAX function, an ART classifier, or something with `predict_proba` or
        `predict`, or a callable: what `evaluate` accepts as a classifier, with one column of scores for each
        of two classes or more. Logits, or probabilities: if all rows that `fit` sees are distributions, they
        are taken for probabilities.
    defences : list of Preprocessor
        Each makes a squeezed version of a batch; a `Chain` is one, and so is a defence of ART.
    fpr : float, default 0.05
        False positive rate, within (0, 1): the largest share of clean samples to be reported.

    Attributes
    ----------
    threshold_ : float
        The score above which a sample is reported. Set by `fit`.

    Raises
    ------
    TypeError
        If `model` is no classifier, or a defence is none.
    ValueError
        If there are no defences, one is about labels, or `fpr` is not within (0, 1).

    Notes
    -----
    The threshold is the ``ceil((1 - fpr) (N + 1))``-th smallest of the N scores of `fit`. At most
    ``fpr (N + 1) - 1`` of them lie above; a fresh clean sample does with a probability of at most `fpr`, if
    it is exchangeable with those of `fit` (split conformal prediction). That takes ``1 / fpr - 1`` samples:
    19 for 0.05. Over the choice of N samples the rate varies by about ``sqrt(fpr (1 - fpr) / N)``. It says
    nothing about clean samples of another kind.

    Whoever knows the detector can attack it together with the model. `evaluate` does so: pass the fitted
    detector as the `classifier`, or among the `defences`. An example succeeds if its label is wrong and it is
    not reported. Through a callable, whose gradients are unknown, a detector looks stronger than it is.

    References
    ----------
    .. [1] Xu, Evans, Qi. Feature Squeezing: Detecting Adversarial Examples in Deep Neural Networks. NDSS
       2018. arXiv:1704.01155
    .. [2] Hussain et al. WaveGuard: Understanding and Mitigating Audio Adversarial Examples. USENIX Security
       2021. arXiv:2103.03344

    Examples
    --------
    >>> import numpy as np
    >>> from preshield import FeatureSqueezing, SqueezeDetector
    >>> def model(x):  # class 1 if the first value is large
    ...     return np.stack([0 * x[:, 0], 20 * (x[:, 0] - 0.5)], axis=1)
    >>> clean = np.repeat([[0.1], [0.9]], 20, axis=0)
    >>> detector = SqueezeDetector(model, [FeatureSqueezing((0, 1), 1)]).fit(clean)
    >>> x = np.array([[0.1], [0.9], [0.45]])  # the last one is rounded to 0, where the model is sure
    >>> detector.scores(x).round(2)
    array([0.  , 0.  , 0.54])
    >>> detector.predict(x)
    array([False, False,  True])
    """

    paper: str = "arXiv:1704.01155"
    known_attacks: tuple[str, ...] = (
        (
            "He et al. 2017 (arXiv:1706.04701): an attack on model and detector together evades feature "
            "squeezing with low distortion"
        ),
        (
            "Sharma and Chen 2018 (arXiv:1803.09868): examples of high confidence, made without knowledge of "
            "the detector, pass it too"
        ),
        (
            "Tramer et al. 2020 (arXiv:2002.08347): the detectors among thirteen defences are evaded by "
            "attacks that match what they compare"
        ),
    )
    _takes, _sees, _labels_by = "model", "defences", "classify"

    def __init__(self, model: Any, defences: Sequence[Preprocessor], fpr: float = 0.05) -> None:
        found = as_views(defences, "defences", as_it_is=False)
        check_number("fpr", fpr)
        if not 0 < fpr < 1:
            raise ArgumentError(
                f"`fpr` must be a share of the clean samples within (0, 1), got {fpr!r}; 0.05 reports one "
                "clean sample in 20."
            )
        super().__init__(model, [None, *found])
        self.fpr = float(fpr)
        self._of_probabilities: bool | None = None

    @property
    def is_fitted(self) -> bool:
        """Whether there is a threshold."""
        return hasattr(self, "threshold_")

    def fit(self, x: Any) -> Self:
        """Take the threshold from clean samples.

        Parameters
        ----------
        x : array_like or tensor, shape (N, ...)
            Clean samples of the kind that will come, at least ``1 / fpr - 1``; others than those that the
            model was trained on, of which it is surer.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If there are too few samples for `fpr`, or as `scores`.
        """
        from .evaluation.detection import samples_needed, threshold_of

        x = self._batch(x)
        if len(x) < samples_needed(self.fpr):
            threshold_of(np.zeros(len(x)), self.fpr)  # which says how many it takes, before any work
        outputs = self._outputs(x, 0)
        self._of_probabilities = (
            bool(self.classifier.of_probabilities)
            if has_gradients(self.classifier)
            else all(map(are_probabilities, outputs))
        )
        self.threshold_ = threshold_of(self._apart(outputs).max(axis=1), self.fpr)
        return self

    def distances(self, x: Any, *, index: Any = None) -> Array:
        """L1 distance of the probabilities behind each defence from those of the sample as it is.

        Parameters
        ----------
        x : array_like or tensor, shape (N, ...)
            Batch.
        index : int or array_like of int, optional
            Where in the data set the batch lies, for stochastic defences: see `Preprocessor.transform`.

        Returns
        -------
        ndarray of float64, shape (N, V)
            In [0, 2], a column for each of the V defences.

        Raises
        ------
        ValueError
            If `fit` was not called; if `x` is not finite, a defence cannot take it, or changes the number of
            samples or their shape to one that the model cannot take; or if the model does not return one row
            of scores for each sample, with two columns or more.
        """
        self._check_fitted()
        return self._apart(self._outputs(self._batch(x), index))

    def scores(self, x: Any, *, index: Any = None) -> Array:
        """The largest of the distances of each sample.

        Parameters
        ----------
        x : array_like or tensor, shape (N, ...)
            Batch.
        index : int or array_like of int, optional
            As in `distances`.

        Returns
        -------
        ndarray of float64, shape (N,)
            In [0, 2]; large if the sample looks attacked.

        Raises
        ------
        ValueError
            As `distances`.
        """
        return self.distances(x, index=index).max(axis=1)  # type: ignore[no-any-return]

    def predict(self, x: Any, *, index: Any = None) -> Array:
        """Whether each sample is reported as attacked: its score exceeds the threshold.

        Parameters
        ----------
        x : array_like or tensor, shape (N, ...)
            Batch.
        index : int or array_like of int, optional
            As in `distances`.

        Returns
        -------
        ndarray of bool, shape (N,)

        Raises
        ------
        ValueError
            As `distances`.
        """
        return self.scores(x, index=index) > self.threshold_

    def classify(self, x: Any, *, index: Any = None) -> Array:
        """Label that the model gives each sample, or -1 if the sample is reported.

        Parameters
        ----------
        x : array_like or tensor, shape (N, ...)
            Batch.
        index : int or array_like of int, optional
            As in `distances`.

        Returns
        -------
        ndarray of int, shape (N,)

        Raises
        ------
        ValueError
            As `distances`.
        """
        self._check_fitted()
        return self._rule().decide(self._seen_as(self._outputs(self._batch(x), index)))

    def report(self, x: Any, y: Any, *, attacked: Any) -> "DetectionReport":
        """Compare clean samples with attacked ones.

        Parameters
        ----------
        x : array_like or tensor, shape (N, ...)
            Clean samples, others than those of `fit`.
        y : array_like or tensor, shape (N,) or (N, K)
            Their labels: indices, one-hot rows, or probabilities with one largest entry in each row.
        attacked : array_like or tensor, shape (N, ...), or mapping of str to those
            The same samples after an attack, or after several by name.

        Returns
        -------
        DetectionReport
            Prints as a table; its `roc` is what `preshield.plots.roc` draws. What was made without knowledge
            of the detector says nothing about an attacker who knows it: that is what `evaluate` measures.

        Raises
        ------
        ValueError
            As `distances`; or if `y` or a set of attacked samples does not hold one entry for each sample.
        """
        from .evaluation.detection_report import DetectionReport, Scored

        self._check_fitted()
        x, y = to_numpy(x), as_labels(y)
        if len(x) != len(y):
            raise ArgumentError(
                f"`y` must hold one label for each of the {len(x)} samples of `x`, got {len(y)}."
            )
        given = dict(attacked) if isinstance(attacked, Mapping) else {"attacked": attacked}
        sets = {str(name): to_numpy(samples) for name, samples in given.items()}
        for name, samples in sets.items():
            if samples.shape != x.shape:
                raise ArgumentError(
                    f"`attacked` must hold each of the samples of `x` after an attack, shape {x.shape}, got "
                    f"{samples.shape} for {name!r}."
                )

        def scored(samples: Array) -> Scored:
            outputs = self._outputs(self._batch(samples), 0)
            return Scored(self._apart(outputs), outputs[0].argmax(axis=1).astype(np.int64))

        return DetectionReport(
            defences=names_of(self.views[1:]),
            fpr=self.fpr,
            threshold=self.threshold_,
            y=y,
            clean=scored(x),
            attacked={name: scored(samples) for name, samples in sets.items()},
        )

    def get_params(self) -> dict[str, Any]:
        """Parameters by name, for the records of an evaluation."""
        return {"model": self.classifier, "defences": self.views[1:], "fpr": self.fpr}

    def __repr__(self) -> str:
        """Constructor call, with the name of the model."""
        name = getattr(self.classifier, "__name__", type(self.classifier).__name__)
        return f"{type(self).__name__}({name}, defences={list(self.views[1:])!r}, fpr={self.fpr:g})"

    _decide = classify

    def _rule(self) -> "Detection":
        from .evaluation.detection import Detection

        self._check_fitted()
        return Detection(self.threshold_)

    def _adapted(self, classifier: Any) -> Any:
        if has_gradients(classifier) and classifier.of_probabilities != self._of_probabilities:
            classifier.of_probabilities = self._of_probabilities
        return classifier

    def _check_fitted(self) -> None:
        if not self.is_fitted:
            raise ArgumentError(
                f"`{type(self).__name__}` must have a threshold before it is used, got one without: call "
                "fit(x) with clean samples first."
            )

    def _outputs(self, x: Any, index: Any) -> list[Array]:
        """What the model returns for the batch as it is and behind each defence."""
        predict = predictor(self.classifier, self._takes)
        outputs: list[Array] = []
        with unchanged(self.classifier):
            for view, seen in zip(self.views, self._seen(x, index), strict=True):
                try:
                    found = predict(seen)
                except Exception as error:
                    if seen.shape[1:] == x.shape[1:] or view is None:
                        raise
                    raise ArgumentError(
                        f"`{self._named(view)}` must keep a shape that `model` can take, got {view!r}, which "
                        f"turns samples of shape {tuple(x.shape[1:])} into {tuple(seen.shape[1:])}: "
                        f"{error!r}."
                    ) from error
                outputs.append(self._checked(found, len(x)))
        if len({found.shape for found in outputs}) > 1:
            raise ArgumentError(
                f"`model` must have the same classes behind every defence, got scores of shape "
                f"{', '.join(str(found.shape) for found in outputs)}."
            )
        return outputs

    def _checked(self, outputs: Array, count: int) -> Array:
        from .evaluation.defended import usable

        if outputs.shape == (count,):
            raise ArgumentError(
                "`model` must return scores for each of two classes or more, because probabilities are "
                f"compared, got shape {outputs.shape}; pass `predict_proba` instead of labels, and a model "
                "with one output as two columns, such as 0 and its logit."
            )
        return usable(check_outputs(outputs, count, self._takes, labels=False), self._takes)

    def _apart(self, outputs: Sequence[Array]) -> Array:
        from .evaluation.detection import distances

        return distances(self._seen_as(outputs)).T

    def _seen_as(self, outputs: Sequence[Array]) -> Array:
        """Log-probabilities in each view, shape (V + 1, N, K)."""
        from .evaluation.views_classifier import log_probabilities

        of_probabilities = bool(self._of_probabilities)
        if of_probabilities and not all(map(are_probabilities, outputs)):
            raise ArgumentError(
                "`model` must return rows of probabilities, as it did for the samples of `fit`, got rows "
                "that are none; call fit(x) again if it now returns logits."
            )
        return np.stack([log_probabilities(found, of_probabilities=of_probabilities)[0] for found in outputs])
