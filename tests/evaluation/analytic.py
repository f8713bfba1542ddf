"""Classifiers in closed form, and defences that misbehave on purpose."""

import numpy as np

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
    "WithJacobian",
    "in_art",
    "linear",
    "linear_closed_form",
    "softmax",
    "threshold",
]

EVERYTHING = ("image", "video", "audio", "features")


def softmax(scores):
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


class Analytic:
    """An adapter made of a function and its Jacobian; it counts the samples that it sees, and the passes."""

    model = None
    of_probabilities = False
    channels_first = False

    def __init__(self, scores, jacobian, shape, classes, clip_values=(0.0, 1.0)):
        self.scores, self.jacobian, self.input_shape = scores, jacobian, tuple(shape)
        self.nb_classes, self.clip_values = classes, clip_values
        self.predicted, self.differentiated = 0, 0
        self.passes = []

    def array(self, x):
        return np.asarray(x, np.float32)

    def predict(self, x):
        self.predicted += len(x)
        self.passes.append("predict")
        return self.scores(x)

    def forward(self, x):
        self.passes.append("forward")
        jacobian = self.jacobian(x)

        def pull(derivative):
            self.differentiated += len(x)
            self.passes.append("backward")
            return np.einsum("nk,nk...->n...", derivative, jacobian).astype(np.float32)

        return self.scores(x), pull


def in_art(analytic, *, by="both", averages=False):
    """The same as a classifier of ART, with `loss_gradient`, `class_gradient`, both or neither."""
    from art.estimators.classification.classifier import ClassGradientsMixin, ClassifierMixin
    from art.estimators.estimator import BaseEstimator, LossGradientsMixin

    class Common(ClassifierMixin, BaseEstimator):
        asked = ()

        @property
        def input_shape(self):
            return analytic.input_shape

        def predict(self, x, batch_size=128, **kwargs):
            return analytic.predict(x)

        def fit(self, x, y, **kwargs):
            raise NotImplementedError

    class Losses(LossGradientsMixin):
        def loss_gradient(self, x, y, **kwargs):
            self.asked += ("loss",)
            slopes = softmax(analytic.scores(x)) - y
            gradient = np.einsum("nk,nk...->n...", slopes, analytic.jacobian(x)).astype(np.float32)
            return gradient / len(x) if averages else gradient

    class Classes(ClassGradientsMixin):
        def class_gradient(self, x, label=None, **kwargs):
            self.asked += ("classes" if label is None else "class",)
            jacobian = analytic.jacobian(x).astype(np.float32)
            if label is None:
                return jacobian
            return jacobian[np.arange(len(x)), np.broadcast_to(label, len(x))][:, None]

    mixins = {"both": (Losses, Classes), "loss": (Losses,), "classes": (Classes,), "neither": ()}[by]
    classifier = type("Analytic", (*mixins, Common), {})(model=None, clip_values=analytic.clip_values)
    classifier.nb_classes = analytic.nb_classes
    return classifier


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
    """A classifier for attacks: scores of a NumPy array, and their derivative taken back to it."""

    def __init__(self, scores, pull, shape, classes, like=np.asarray):
        self.scores, self.back, self.like = scores, pull, like
        self.input_shape, self.nb_classes, self.of_probabilities = tuple(shape), classes, False

    def array(self, x):
        return self.like(np.asarray(x, np.float32))

    def predict(self, x):
        return self.scores(np.asarray(x, np.float64))

    def forward(self, x):
        x = np.asarray(x, np.float64)
        return self.scores(x), lambda slope: self.array(self.back(x, slope))


def linear_closed_form(weights, bias, shape=None, like=np.asarray):
    """Scores ``x @ weights + bias``, each sample by itself: the same bits in any batch."""
    weights = np.asarray(weights, np.float64)
    shape = (len(weights),) if shape is None else shape

    def scores(x):
        return (x.reshape(len(x), -1, 1) * weights).sum(axis=1) + np.asarray(bias)

    def pull(x, slope):
        return (slope[:, None, :] * weights).sum(axis=2).reshape(x.shape)

    return ClosedForm(scores, pull, shape, weights.shape[1], like)


class WithJacobian:
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
