"""Classifiers in closed form, and defences that misbehave on purpose."""

import numpy as np
from art.estimators.classification.classifier import ClassGradientsMixin, ClassifierMixin
from art.estimators.estimator import BaseEstimator, LossGradientsMixin

from preshield import Preprocessor

__all__ = [
    "Analytic",
    "ClosedForm",
    "Forger",
    "Gain",
    "Identity",
    "Masking",
    "NoGradient",
    "Optimising",
    "Secretive",
    "linear",
    "softmax",
    "threshold",
]

EVERYTHING = ("image", "video", "audio", "features")


def softmax(scores):
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


class Analytic(ClassGradientsMixin, ClassifierMixin, LossGradientsMixin, BaseEstimator):
    """A classifier of ART made of a function and its Jacobian; it counts the samples that it sees."""

    def __init__(self, scores, jacobian, shape, classes, clip_values=(0.0, 1.0)):
        super().__init__(model=None, clip_values=clip_values)
        self.scores, self.jacobian, self.shape = scores, jacobian, tuple(shape)
        self.nb_classes = classes
        self.predicted, self.differentiated = 0, 0

    @property
    def input_shape(self):
        return self.shape

    def predict(self, x, batch_size=128, **kwargs):
        self.predicted += len(x)
        return self.scores(x)

    def loss_gradient(self, x, y, **kwargs):
        """Gradient of the cross-entropy."""
        self.differentiated += len(x)
        return np.einsum("nk,nk...->n...", softmax(self.scores(x)) - y, self.jacobian(x)).astype(np.float32)

    def class_gradient(self, x, label=None, **kwargs):
        jacobian = self.jacobian(x).astype(np.float32)
        if label is None:
            return jacobian
        return jacobian[np.arange(len(x)), np.broadcast_to(label, len(x))][:, None]

    def compute_loss(self, x, y, **kwargs):
        return -(y * np.log(softmax(self.scores(x)))).sum(axis=1)

    def fit(self, x, y, **kwargs):
        raise NotImplementedError


def linear(weights, bias, shape=None, clip_values=(0.0, 1.0)):
    """Scores ``x @ weights + bias``, weights of shape (D, K)."""
    weights, bias = np.asarray(weights, np.float64), np.asarray(bias, np.float64)
    shape = (len(weights),) if shape is None else shape

    def scores(x):
        return x.reshape(len(x), -1) @ weights + bias

    def jacobian(x):
        return np.broadcast_to(weights.T.reshape(1, -1, *shape), (len(x), weights.shape[1], *shape))

    return Analytic(scores, jacobian, shape, weights.shape[1], clip_values)


def threshold(shape=(8, 8, 3), level=0.5, slope=1.0):
    """Class 1 where the mean of a sample exceeds `level`: ``sqrt(D) * |mean - level|`` from the boundary."""
    size = int(np.prod(shape))
    weights = np.zeros((size, 2))
    weights[:, 1] = slope / size
    return linear(weights, [0, -slope * level], shape)


class Identity(Preprocessor):
    """An honest one that does nothing."""

    domains = EVERYTHING
    gradient_kind = "exact"

    def _transform(self, x, draw):
        return x


class Masking(Identity):
    """Hide the gradient, and do nothing else."""

    def _gradient(self, x, grad, draw):
        return np.zeros_like(grad)


class NoGradient(Identity):
    """Hide the gradient behind an overflow."""

    def _gradient(self, x, grad, draw):
        return np.full_like(grad, np.nan)


class Forger(Identity):
    """Point the other way."""

    def _gradient(self, x, grad, draw):
        return -grad


class Optimising(Identity):
    """State that every call runs an optimiser."""

    optimises_at_test_time = True


class Secretive(Identity):
    """Draw without saying so."""

    def __init__(self, size=0.5):
        self.size = size
        self.generator = np.random.default_rng(0)

    def _transform(self, x, draw):
        return x + self.size * self.generator.standard_normal((len(x), *[1] * (x.ndim - 1)))


class Gain(Preprocessor):
    """Multiply by a number that is drawn for each call; remember what was drawn, and what it was used for."""

    domains = EVERYTHING
    gradient_kind = "exact"
    stochastic = True

    def __init__(self, deviation=0.5):
        self.deviation = deviation
        self.used = []

    def _draw(self, x, rng):
        return 1 + self.deviation * rng.standard_normal()

    def _transform(self, x, draw):
        self.used.append(("forward", draw))
        return x * np.float32(draw)

    def _gradient(self, x, grad, draw):
        self.used.append(("backward", draw))
        return grad * np.float32(draw)


class ClosedForm:
    """What an attack asks of a classifier, from a function of float64 arrays and its Jacobian (N, K, ...).

    Samples are arrays of `xp`, in single precision.
    """

    of_probabilities = False

    def __init__(self, scores, jacobian, shape, classes, xp=np):
        self.scores, self.jacobian, self.input_shape, self.nb_classes, self.xp = (
            scores,
            jacobian,
            shape,
            classes,
            xp,
        )

    def array(self, x):
        return self.xp.asarray(x, dtype=self.xp.float32)

    def predict(self, x):
        return self.scores(np.asarray(x, np.float64))

    def forward(self, x):
        points = np.asarray(x, np.float64)

        def pull(derivative):
            # Not by a product of matrices, whose rounding depends on the number of rows.
            slopes = derivative.reshape(*derivative.shape, *[1] * len(self.input_shape))
            return self.array((slopes * self.jacobian(points)).sum(axis=1))

        return self.scores(points), pull
