"""A classifier that predicts under noise, and proves within which distance its label stays."""

import copy
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from ._core.checks import check_bool, check_index, check_integer, check_number, check_option, check_values
from ._core.errors import ArgumentError
from ._core.layout import as_numbers
from ._core.progress import progress_bar
from ._core.ranges import noise_misfit, warn_caller
from ._core.tensors import to_numpy
from ._core.typing import Array, Rng
from .chain import Chain
from .defences.gaussian_augmentation import GaussianAugmentation
from .evaluation.classifiers import (
    PredictOnly,
    as_classifier,
    has_gradients,
    is_a,
    labels_of,
    predictor,
    unchanged,
)
from .evaluation.defended import through
from .evaluation.smoothing import SmoothedClassifier, as_denoiser
from .evaluation.smoothing_report import SmoothingReport, certified, significant
from .evaluation.subjects import as_labels
from .neural.pretrained import PretrainedModel
from .neural.torch_module import own_type
from .preprocessor import Preprocessor

__all__ = ["Certificates", "RandomizedSmoothing"]

REPEATED = 50  # one row in so many is predicted twice, up to a batch, to see whether the model draws
TOLERANCE = 1e-3  # of the largest score, by which a repeated one may differ


class Certificates(NamedTuple):
    """What `RandomizedSmoothing.certify` proves.

    Attributes
    ----------
    labels : ndarray of int, shape (N,)
        Label of each sample; -1 where the smoothed classifier abstains.
    radii : ndarray of float, shape (N,)
        L2 norm up to which no perturbation changes that label, in units of the data; 0 where it abstains.
    """

    labels: Array
    radii: Array


class RandomizedSmoothing:
    """Predict what a classifier says most often under Gaussian noise, with a certified radius [1]_.

    The label of the smoothed classifier is the most likely one of the model at ``x + noise``. If it has at
    least the probability p > 1/2 there, no perturbation with an L2 norm below ``sigma * ppf(p)`` changes it,
    where ppf is the quantile function of the normal distribution. `certify` bounds p from below by draws. A
    model that was trained without noise gets a denoiser before it [2]_.

    Parameters
    ----------
    model : object
        The classifier: what `evaluate` accepts. A network predicts in evaluation mode.
    sigma : float
        Standard deviation of the noise, in units of the data.
    n0 : int, default 100
        Draws that choose the label of a sample in `certify`.
    n : int, default 1000
        Draws that measure its probability, and draws of `predict`; at least `n0`.
    alpha : float, default 0.001
        Probability of a label or certificate that is wrong, for each sample.
    denoiser : object, optional
        What stands between the noise and the model: a defence, a `Denoiser`, a torch module, a Keras model,
        or a function of arrays. It keeps the shape of a batch.
    batch_size : int, default 128
        Noisy samples that the model sees at once.
    rng : None, int or numpy.random.Generator, optional
        Source of the draws. With an integer every call draws the same for the same sample number; None takes
        a seed for each call from NumPy's global state.

    Raises
    ------
    TypeError, ValueError
        If a parameter breaks its rule; before anything is predicted.

    See Also
    --------
    Denoiser : A denoiser that trains in minutes.
    MajorityVote : A vote over several views, without a proof.

    Notes
    -----
    The certificate is about the model with unclipped noise: noisy samples leave the range of the data, and
    nothing clips them. Nor does it ask for samples within a range. It holds for the L2 norm alone; within an
    L-inf ball of radius ``r / sqrt(d)``, d the number of values of a sample, it follows.

    The noise has a distribution function that differs from that of the normal distribution by 7.6e-6 at most,
    and the arithmetic is that of single precision: the proof is about real numbers [3]_. A model that draws
    itself is refused.

    What is drawn for a sample depends on the seed and on the number of the sample and of the draw: not on the
    batches or the device.

    References
    ----------
    .. [1] Cohen, Rosenfeld, Kolter. Certified Adversarial Robustness via Randomized Smoothing. ICML 2019.
       arXiv:1902.02918
    .. [2] Salman, Sun, Yang, Kapoor, Kolter. Denoised Smoothing: A Provable Defense for Pretrained
       Classifiers. NeurIPS 2020. arXiv:2003.01908
    .. [3] Voráček, Hein. Sound Randomized Smoothing in Floating-Point Arithmetics. ICLR 2023.
       arXiv:2207.07209

    Examples
    --------
    The boundary of this classifier is 0.5 away from the first sample and 0.1 from the second.

    >>> import numpy as np
    >>> from preshield import RandomizedSmoothing
    >>> def model(x):
    ...     return (x[:, 0] > 0.5).astype(int)
    >>> smoothed = RandomizedSmoothing(model, sigma=0.25, rng=0)
    >>> labels, radii = smoothed.certify(np.array([[1.0, 0.3], [0.4, 0.9]]))
    >>> labels
    array([1, 0])
    >>> radii.round(1)
    array([0.4, 0.1])
    """

    domains: tuple[str, ...] = ("image", "video", "audio", "features")
    stochastic: bool = True
    gradient_kind: str = "exact"
    changes_shape: bool = False
    optimises_at_test_time: bool = False
    paper: str = "arXiv:1902.02918"
    known_attacks: tuple[str, ...] = (
        (
            "Salman et al. 2019 (arXiv:1906.04584): gradients of the averaged softmax find perturbations "
            "beyond the certified radius"
        ),
        (
            "Ghiasi, Shafahi, Goldstein 2020 (arXiv:2003.08937): large, smooth perturbations are "
            "misclassified with large certificates"
        ),
        (
            "Jin, Ohrimenko, Rubinstein 2022 (arXiv:2205.10159): rounding in floating point "
            "invalidates certificates of linear classifiers and of networks"
        ),
    )

    def __init__(
        self,
        model: Any,
        sigma: float,
        *,
        n0: int = 100,
        n: int = 1000,
        alpha: float = 0.001,
        denoiser: Any = None,
        batch_size: int = 128,
        rng: Rng = None,
    ) -> None:
        check_number("sigma", sigma, 0)
        if not sigma:
            raise ArgumentError(
                "`sigma` must be above 0, because a radius is a multiple of it, got 0; 0.25 is usual for "
                "data in [0, 1]."
            )
        check_integer("n0", n0, 1)
        check_integer("n", n, 1)
        if n < n0:
            raise ArgumentError(f"`n` must be at least `n0`, which is {n0!r}, got {n!r}; pass n0={n!r}.")
        check_number("alpha", alpha)
        if not 0 < alpha < 1:
            raise ArgumentError(
                f"`alpha` must lie between 0 and 1, both excluded, got {alpha!r}; 0.001 is usual."
            )
        check_integer("batch_size", batch_size, 1)
        predictor(model, "model")
        self.model = model
        self.sigma = float(sigma)
        self.n0 = int(n0)
        self.n = int(n)
        self.alpha = float(alpha)
        self.denoiser = denoiser
        self.batch_size = int(batch_size)
        self.rng = rng
        # It checks `rng`, too. Clipping would void the proof.
        self._noise = GaussianAugmentation(
            self.sigma, augmentation=False, apply_fit=False, apply_predict=True, rng=rng
        )
        self._denoiser = as_denoiser(denoiser)
        self._front: Preprocessor = self._noise
        self._doubted = False
        if self._denoiser is not None:
            self._front = Chain([self._noise, _undoubting(self._denoiser)])
            self.gradient_kind = self._denoiser.gradient_kind
            self.optimises_at_test_time = self._denoiser.optimises_at_test_time
            self.domains = self._front.domains

    def predict(self, x: Any, *, index: Any = 0) -> Array:
        """Label of each sample, or none if chance explains the lead of the most frequent one.

        Parameters
        ----------
        x : array_like or tensor, shape (N, ...)
            Batch.
        index : int or array_like of int, default 0
            Number of the first sample in the data set, or of each sample.

        Returns
        -------
        ndarray of int, shape (N,)
            -1 where it abstains. Another label is that of the smoothed classifier with probability
            ``1 - alpha``, by the exact binomial test of the most frequent label against the second [1]_.

        Raises
        ------
        ValueError
            If `x` is not finite, the denoiser changes its shape, or the model draws itself or does not return
            one label or one row of scores for each sample.

        References
        ----------
        .. [1] Hung, Fithian. Rank Verification for Exponential Families. Annals of Statistics 2019.
           arXiv:1610.03944
        """
        x, numbers = self._given(x, index)
        return significant(self._counts(x, numbers, (self.n,))[0], self.alpha)

    def certify(self, x: Any, *, norm: str = "l2", index: Any = 0, verbose: bool = False) -> Certificates:
        """Label of each sample, and the L2 radius within which it cannot be changed.

        Parameters
        ----------
        x : array_like or tensor, shape (N, ...)
            Batch.
        norm : {"l2"}
            Norm of the perturbations.
        index : int or array_like of int, default 0
            Number of the first sample in the data set, or of each sample.
        verbose : bool, default False
            Whether to show a progress bar.

        Returns
        -------
        Certificates
            ``labels, radii``, each of shape (N,). The probability of the label is bounded from below by `n`
            draws, at the level `alpha`, by the method of Clopper and Pearson; where the bound is at most 1/2,
            the label is -1 and the radius 0.

        Raises
        ------
        ValueError
            As `predict`; or if another norm is asked for.
        """
        if norm == "linf":
            raise ArgumentError(
                "`norm` must be 'l2': Gaussian noise certifies no other norm, got 'linf'. What L2 implies "
                "for L-inf is `radii / np.sqrt(x[0].size)`."
            )
        check_option("norm", norm, ("l2",))
        check_bool(verbose=verbose)
        x, numbers = self._given(x, index)
        selection, estimation = self._counts(x, numbers, (self.n0, self.n), verbose=verbose)
        return Certificates(*certified(selection, estimation, self.n, self.sigma, self.alpha))

    def report(self, x: Any, y: Any, *, index: Any = 0, verbose: bool = False) -> SmoothingReport:
        """Certify samples, and compare labels with the truth.

        Parameters
        ----------
        x : array_like or tensor, shape (N, ...)
            Batch.
        y : array_like or tensor, shape (N,) or (N, K)
            Labels: indices, one-hot rows, or probabilities with one largest entry in each row.
        index : int or array_like of int, default 0
            Number of the first sample in the data set, or of each sample.
        verbose : bool, default False
            Whether to show a progress bar.

        Returns
        -------
        SmoothingReport
            Prints as a table; `preshield.plots.certified_accuracy` draws it.

        Raises
        ------
        ValueError
            As `certify`; or if `y` does not hold one label for each sample.
        """
        x, y = to_numpy(x), as_labels(y)
        if len(x) != len(y):
            raise ArgumentError(
                f"`y` must hold one label for each of the {len(x)} samples of `x`, got {len(y)}."
            )
        labels, radii = self.certify(x, index=index, verbose=verbose)
        with unchanged(self.model):
            found = predictor(self.model, "model", self.batch_size)(x.astype(np.float32)) if len(x) else y
        return SmoothingReport(
            labels,
            radii,
            y,
            labels_of(found, len(x), "model"),
            self.sigma,
            self.n0,
            self.n,
            self.alpha,
            _name(self.model),
            "" if self.denoiser is None else _name(self.denoiser),
        )

    def for_attacks(self, x: Any) -> Any:
        """The smoothed classifier as one that `evaluate` attacks, with gradients if the model has them.

        Parameters
        ----------
        x : array_like, shape (N, ...)
            A few samples.

        Returns
        -------
        SmoothedClassifier or PredictOnly
            Averages the probabilities of the model over `n0` draws, which are others at each step. Whether an
            attack succeeded is decided by the test of `predict`: abstaining is no success.

        Raises
        ------
        ValueError
            If the samples do not fit the model.
        """
        x, _ = self._given(x, 0)
        seen = self._noisy(lambda rows: rows, x[:1], 0, (0, 0), range(min(2, self.n0)))
        classifier = as_classifier(self.model, seen, "model")
        if not has_gradients(classifier):
            return PredictOnly(self.predict, x.shape[1:], name="model")
        return SmoothedClassifier(
            classifier,
            self._front,
            sigma=self.sigma,
            n0=self.n0,
            n=self.n,
            alpha=self.alpha,
            input_shape=x.shape[1:],
        )

    def get_params(self) -> dict[str, Any]:
        """Parameters by name, for the records of an evaluation."""
        names = ("model", "sigma", "n0", "n", "alpha", "denoiser", "batch_size", "rng")
        return {name: getattr(self, name) for name in names}

    def __repr__(self) -> str:
        """Constructor call, with the names of the model and of the denoiser."""
        shown = [
            _name(self.model),
            f"{self.sigma:g}",
            f"n0={self.n0}",
            f"n={self.n}",
            f"alpha={self.alpha:g}",
        ]
        shown += [] if self.denoiser is None else [f"denoiser={_name(self.denoiser)}"]
        return f"{type(self).__name__}({', '.join(shown)})"

    def _repr_html_(self) -> str:
        """What a notebook shows: a card with parameters, facts, paper and known attacks."""
        from ._core import html

        parameters = {name: html.short(value) for name, value in self.get_params().items()}
        return html.scoped(html.card(self, type(self).__name__, parameters, domains=self.domains))

    def _given(self, x: Any, index: Any) -> tuple[Array, Array]:
        """Samples as floats, checked, and their numbers."""
        x = as_numbers(np.asarray(to_numpy(x)))
        if x.dtype == object or x.ndim < 2:
            raise ArgumentError(
                f"`x` must be a numeric batch with samples along its first axis, got shape {x.shape} of "
                f"{x.dtype}; pass x[None] for one sample."
            )
        check_values("x", x)
        if self._denoiser is not None:
            self._denoiser._checked(x)
        if not self._doubted and (message := noise_misfit(x, self.sigma)):
            self._doubted = True
            warn_caller(f"{type(self).__name__}: {message}")
        return x.astype(np.float32, copy=False), check_index(np.asarray(to_numpy(index)), len(x))

    def _counts(
        self, x: Array, numbers: Array, parts: tuple[int, ...], *, verbose: bool = False
    ) -> list[Array]:
        """How often each class was predicted under so many draws, and under so many more: each (N, K)."""
        predict, like = predictor(self.model, "model", self.batch_size), _placed(self.model)
        words = tuple(self._noise._next_seed(addressed=True).tolist())
        draws, ends = sum(parts), np.cumsum(parts)
        counts = np.zeros((len(parts), len(x), 2), np.int64)
        rows = len(x) * draws
        bar = progress_bar(total=rows, desc="certify", unit="draw", disable=not verbose)
        with unchanged(self.model), bar:
            for start in range(0, rows, self.batch_size):
                stop = min(start + self.batch_size, rows)
                seen = _joined(
                    self._noisy(like, x[sample : sample + 1], int(numbers[sample]), words, some)
                    for sample, some in _pieces(start, stop, draws)
                )
                outputs = np.asarray(predict(seen))
                labels = labels_of(outputs, stop - start, "model")
                if not start:
                    again = seen[: max(1, rows // REPEATED)]
                    _check_repeats(outputs[: len(again)], np.asarray(predict(again)))
                some = np.flatnonzero(labels >= 0)  # -1 is no label
                if (more := int(labels.max(initial=0)) + 1 - counts.shape[2]) > 0:
                    counts = np.pad(counts, ((0, 0), (0, 0), (0, more)))
                sample, draw = np.divmod(start + some, draws)
                np.add.at(counts, (np.searchsorted(ends, draw, side="right"), sample, labels[some]), 1)
                bar.update(stop - start)
        return list(counts)

    def _noisy(
        self, like: Callable[[Array], Any], sample: Array, number: int, words: tuple[int, ...], draws: range
    ) -> Any:
        """A sample under some draws, as the model receives it: the seed is that of the sample."""
        placed, shape = like(sample), (len(draws), *sample.shape[1:])
        repeated = np.broadcast_to(sample, shape) if placed is sample else placed.expand(shape)
        numbers = np.arange(draws.start, draws.stop, dtype=np.uint32)
        seen, _ = through(self._front, repeated, numbers, [(*words, number)], like)
        if tuple(seen.shape) != shape:
            raise ArgumentError(
                f"`denoiser` must keep the shape of a batch, got {tuple(seen.shape)} for {shape}; "
                "pass what changes it as part of `model`."
            )
        return seen


def _undoubting(defence: Preprocessor) -> Preprocessor:
    """The same, without a warning of the range of its data, which noise leaves."""
    changes = {"defences": list(map(_undoubting, defence._stages))} if isinstance(defence, Chain) else {}
    defence = copy.copy(defence).set_params(**changes)
    defence._range_doubted = True
    return defence


def _pieces(start: int, stop: int, draws: int) -> Iterator[tuple[int, range]]:
    """The samples that have draws among these rows, and which."""
    for sample in range(start // draws, (stop - 1) // draws + 1):
        first = sample * draws
        yield sample, range(max(start - first, 0), min(stop - first, draws))


def _joined(parts: Iterator[Any]) -> Any:
    from array_api_compat import array_namespace

    found = list(parts)
    return found[0] if len(found) == 1 else array_namespace(found[0]).concat(found)


def _placed(model: Any) -> Callable[[Array], Any]:
    """What takes noisy samples to where the model computes: tensors, if a torch module has an accelerator."""
    model = model.model if isinstance(model, PretrainedModel) else model
    if is_a(model, "torch.nn", "Module") and not is_a(model, "keras", "Model"):
        device = own_type(model)[1]
        if device.type != "cpu":
            import torch

            return lambda x: torch.from_numpy(np.require(x, requirements=("C", "W"))).to(device)
    return lambda x: x


def _check_repeats(first: Array, second: Array) -> None:
    """Refuse a model that returned something else for the same batch."""
    largest = float(np.abs(first).max(initial=0.0))
    if first.shape == second.shape and np.allclose(first, second, rtol=0, atol=TOLERANCE * largest):
        return
    raise ArgumentError(
        "`model` must give the same output for the same batch, got two different ones: it draws itself, and "
        "its labels would not be those that were certified. Turn off what draws, such as dropout "
        "(`model.eval()`) or a stochastic defence within it."
    )


def _name(model: Any) -> str:
    if isinstance(model, PretrainedModel):
        return model.name
    return str(getattr(model, "__name__", type(model).__name__))
