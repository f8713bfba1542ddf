"""A smoothed classifier, as an attacker sees it, and what may stand between the noise and the model."""

from collections.abc import Callable, Iterator
from typing import Any, Self

import numpy as np

from .._core.errors import ArgumentError
from .._core.tensors import framework, on_device
from .._core.typing import Arithmetic, Array, Dtype, Shape
from ..interop.foreign import as_defence
from ..neural.denoiser import Denoiser
from ..neural.torch_module import TorchModule
from ..preprocessor import Preprocessor
from .classifiers import is_a, labels_of, predictor
from .defended import TOGETHER, VALUES, Addressed, drawing, held, logits_of, pulled, through
from .gradients import gradient_variants
from .losses import best_other, climbed_class
from .metrics import REJECTED
from .perturbations import host, scaled, take
from .smoothing_report import certified, significant
from .views_classifier import STEP

__all__ = ["NetworkDenoiser", "SmoothedClassifier", "as_denoiser"]

Pull = Callable[[Array], Any]


class SmoothedClassifier(Addressed):
    """A smoothed classifier with gradients, for attacks.

    Its scores are the probabilities of the model, averaged over draws of the noise, and its gradient is that
    of this average: the attack of Salman et al. [1]_. Whether an attack has succeeded is decided by counting
    labels, with the test by which the smoothed classifier abstains; abstaining is no success.

    Parameters
    ----------
    classifier : object
        What `as_classifier` returns, with gradients.
    front : Preprocessor
        Noise, and the denoiser behind it.
    sigma : float
        Standard deviation of the noise.
    n0, n : int
        Draws for a gradient and a first decision; for a decision that these leave open.
    alpha : float
        Level of both tests together, and of a certificate.
    input_shape : tuple of int
        Shape of one sample.

    References
    ----------
    .. [1] Salman et al. Provably Robust Deep Learning via Adversarially Trained Smoothed Classifiers. NeurIPS
       2019. arXiv:1906.04584
    """

    of_probabilities = True

    def __init__(
        self,
        classifier: Any,
        front: Preprocessor,
        *,
        sigma: float,
        n0: int,
        n: int,
        alpha: float,
        input_shape: Shape,
    ) -> None:
        super().__init__()
        self.classifier, self.front = classifier, front
        self.sigma, self.n0, self.n, self.alpha = sigma, n0, n, alpha
        self.model = classifier.model
        self.nb_classes = int(classifier.nb_classes)
        self.input_shape = input_shape
        self.channels_first = bool(getattr(classifier, "channels_first", False))
        self._held = drawing(classifier)

    def variants(self) -> list[Self]:
        """The same with each gradient that the denoiser offers, the strongest first."""
        facts = {name: getattr(self, name) for name in ("sigma", "n0", "n", "alpha", "input_shape")}
        return [
            self if front is self.front else type(self)(self.classifier, front, **facts)
            for front in gradient_variants(self.front)
            if front is not None
        ]

    # What every adapter has

    def array(self, x: Any) -> Any:
        """Samples in the framework, in the floating type and on the device in which they are attacked."""
        return self.classifier.array(x)

    def predict(self, x: Any) -> Array:
        """Probabilities `(N, K)`, averaged over the draws."""
        return self._averaged(x)[0]

    def forward(self, x: Any) -> tuple[Array, Pull]:
        """Probabilities `(N, K)`, and what takes a derivative with respect to them back to the samples."""
        return self.predict(x), self._pull(x)

    # What a classifier has that decides otherwise than by its largest score

    def look(self, x: Any, y: Array) -> tuple[Array, Pull, Array]:
        """What `forward` and `margin` return, from the same draws."""
        probabilities, counts = self._averaged(x)
        return probabilities, self._pull(x), self._margin(probabilities, counts, y)

    def margin(self, x: Any, y: Array) -> Array:
        """Difference of the logarithms of two averages, shape (N,); negative where a wrong label wins."""
        return self._margin(*self._averaged(x), y)

    def climbed(self, scores: Array, y: Array, targets: Array | None, margin: Array) -> tuple[Array, Array]:
        """What an attack climbs, whatever its loss, and its derivative with respect to the scores."""
        return climbed_class(scores, y, targets, margin)

    def decide(self, x: Any) -> Array:
        """Label of each sample, shape (N,); -1 where the smoothed classifier abstains.

        Half of the level is spent on the first draws, the other half on more of them where these leave it
        open.
        """
        rows = np.arange(len(x))
        counts = self._counts(x, range(self.n0), rows)
        labels = significant(counts, self.alpha / 2)
        left = np.flatnonzero(labels == REJECTED)
        if len(left):
            counts = counts[left] + self._counts(take(x, left), range(self.n0, self.n), left)
            labels[left] = significant(counts, self.alpha / 2)
        return labels

    def certificates(self, x: Any) -> tuple[Array, Array]:
        """Label and certified radius of each sample."""
        rows = np.arange(len(x))
        selection = self._counts(x, range(self.n0), rows)
        estimation = self._counts(x, range(self.n0, self.n0 + self.n), rows)
        return certified(selection, estimation, self.n, self.sigma, self.alpha)

    def _margin(self, probabilities: Array, counts: Array, y: Array) -> Array:
        rows, labels = np.arange(len(y)), significant(counts, self.alpha / 2)
        logs = np.log(np.maximum(probabilities, np.finfo(float).tiny))
        soft = logs[rows, y] - logs[rows, best_other(logs, y)]
        wrong = (labels != y) & (labels != REJECTED)
        margin: Array = np.where(wrong, np.minimum(soft, -STEP), np.maximum(soft, STEP))
        return margin

    def _averaged(self, x: Any) -> tuple[Array, Array]:
        """Probabilities averaged over the first draws, and how often each class was the likeliest."""
        total, counts = np.zeros((2, len(x), self.nb_classes))
        for seen, _, draws, address in self._groups(x, range(self.n0), np.arange(len(x))):
            with held(self._held, *address):
                outputs = self.classifier.predict(seen)
            shares = self._probabilities(outputs)[0].reshape(len(draws), len(x), -1)
            total += shares.sum(axis=0)
            counts += _one_hot(outputs.argmax(axis=1).reshape(len(draws), -1), self.nb_classes)
        return total / self.n0, counts.astype(np.int64)

    def _counts(self, x: Any, draws: range, rows: Array) -> Array:
        """How often each class was predicted for samples, in these rows, under these draws; shape (N, K)."""
        counts = np.zeros((len(x), self.nb_classes), np.int64)
        for seen, _, some, address in self._groups(x, draws, rows):
            with held(self._held, *address):
                labels = labels_of(np.asarray(self.classifier.predict(seen)), len(seen), "classifier")
            counts += _one_hot(labels.reshape(len(some), -1), self.nb_classes)
        return counts

    def _pull(self, x: Any) -> Pull:
        """The way back; the passes are made once more, because all of them at once would fill the memory."""
        place = self._address

        def pull(upstream: Array) -> Any:
            total: Any = 0
            with self.at(*place):
                for seen, back, draws, address in self._groups(x, range(self.n0), np.arange(len(x))):
                    with held(self._held, *address):
                        outputs, pull_model = self.classifier.forward(seen)
                        shares, derivative = self._probabilities(outputs)
                        slope = np.tile(upstream / self.n0, (len(draws), 1))
                        slope = shares * (slope - (slope * shares).sum(axis=1, keepdims=True))
                        gradient, factors = pulled(pull_model, slope * derivative)
                    for part in back(scaled(gradient, factors)):
                        total = total + part
            return total

        return pull

    def _groups(self, x: Any, draws: range, rows: Array) -> Iterator[tuple[Any, Any, range, Any]]:
        """What the model receives under some draws at a time, the way back, these draws, their address."""
        numbers, seed = self._address
        numbers = rows if numbers is None else numbers[rows]
        together = TOGETHER if on_device(x) else min(TOGETHER, VALUES // max(1, int(np.prod(x.shape[1:]))))
        size = max(1, together // max(1, len(x)))
        for start in range(draws.start, draws.stop, size):
            some = draws[start - draws.start :][:size]
            seeds = [(*seed, draw) for draw in some]
            seen, back = through(self.front, x, numbers, seeds, self.classifier.array)
            yield seen, back, some, (np.tile(numbers, len(some)), seeds[0])

    def _probabilities(self, outputs: Array) -> tuple[Array, Array]:
        """Probabilities of the model, and the derivative of its logits."""
        from scipy.special import softmax  # which takes as long to load as the rest of the package

        logits, derivative = logits_of(outputs, of_probabilities=self.classifier.of_probabilities)
        return softmax(logits, axis=1), derivative


class NetworkDenoiser(Preprocessor):
    """A network or a function as a defence that keeps the shape of what it gets.

    Parameters
    ----------
    model : object
        A torch module or a Keras model, which is differentiated; or a function of arrays, which an attacker
        takes for the identity.
    """

    domains = ("image", "video", "audio", "features")
    output_dtype = "float32"

    def __init__(self, model: Any) -> None:
        self.model = model
        self._engine: Any = None
        if self._is_of("torch") or self._is_of("tensorflow") or self._is_of("jax"):
            self.gradient_kind = "exact"  # type: ignore[misc]

    def _transform(self, x: Array, draw: Any) -> Array:
        out = predictor(self.model, "denoiser")(np.asarray(x, np.float32))
        if out.shape != x.shape:
            raise ArgumentError(
                f"`denoiser` must keep the shape of a batch, got {out.shape} for {x.shape}; pass what "
                "changes it as part of `model`."
            )
        return out

    def _gradient(self, x: Array, grad: Array, draw: Any) -> Array:
        if self.gradient_kind != "exact":
            return grad
        if self._engine is None or self._engine.input_shape != x.shape[1:]:
            self._engine = self._differentiable(x.shape[1:])
        return host(self._engine.forward(np.asarray(x, np.float32))[1](np.array(grad)))

    def _arithmetic(self, shape: Shape, dtype: Dtype) -> Arithmetic | None:
        if not self._is_of("torch"):
            return None
        network = TorchModule(self.model)

        def denoised(x: Any, xp: Any) -> Any:
            if framework(x) != "torch":
                raise ArgumentError(
                    "`denoiser` must be a model of the framework of `model`, got a torch module for "
                    f"{type(x).__name__}."
                )
            return network(x.to(network.dtype)).to(x.dtype)

        return denoised

    def _differentiable(self, shape: Shape) -> Any:
        """The network as attacks differentiate a classifier."""
        facts: dict[str, Any] = {"nb_classes": 0, "input_shape": shape, "of_probabilities": False}
        if self._is_of("torch"):
            from .torch_classifier import TorchClassifier

            return TorchClassifier(self.model, **facts)
        if self._is_of("tensorflow"):
            from .tensorflow_classifier import TensorFlowClassifier

            return TensorFlowClassifier(self.model, **facts)
        from .jax_classifier import JaxClassifier, keras_function

        return JaxClassifier(self.model, keras_function(self.model), **facts)

    def _is_of(self, name: str) -> bool:
        """Whether the model computes in this framework."""
        if is_a(self.model, "keras", "Model"):
            import keras

            return bool(keras.config.backend() == name)
        return name == "torch" and is_a(self.model, "torch.nn", "Module")


def as_denoiser(denoiser: Any) -> Preprocessor | None:
    """What stands between the noise and the model, as a defence.

    Raises
    ------
    ArgumentError
        If it is nothing that can be called, or a defence about labels.
    """
    denoiser = as_defence(denoiser.network if isinstance(denoiser, Denoiser) else denoiser)
    if denoiser is None:
        return None
    if not isinstance(denoiser, Preprocessor):
        if not callable(denoiser) and not hasattr(denoiser, "predict"):
            raise ArgumentError(
                "`denoiser` must be a defence, a torch module, a Keras model, or a function of arrays, got "
                f"{denoiser!r} of type {type(denoiser).__module__}.{type(denoiser).__name__}."
            )
        return NetworkDenoiser(denoiser)
    if denoiser.domains == ("labels",):
        raise ArgumentError(f"`denoiser` must change samples, got {denoiser!r}, which is about labels.")
    return denoiser


def _one_hot(labels: Array, classes: int) -> Array:
    """How often each class stands in each column of labels (M, N), shape (N, K); -1 is none."""
    counts: Array = (labels[:, :, None] == np.arange(classes)).sum(axis=0)
    return counts
