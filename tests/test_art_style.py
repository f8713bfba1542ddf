"""Classes that write public methods, as ART's do: every path runs what a direct call runs."""

import copy
import pickle
import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from preshield import (
    Chain,
    FeatureSqueezing,
    GaussianAugmentation,
    JpegCompression,
    LabelSmoothing,
    MajorityVote,
    Preprocessor,
    SpatialSmoothing,
)
from preshield.testing import check_preprocessor
from tests.cases import images

X = (0.1 + 0.8 * images()).astype(np.float32)
GRAD = np.random.default_rng(5).standard_normal(X.shape).astype(np.float32)
Y = np.eye(3, dtype=np.float32)


# Paths to a defence: each returns the defended batch and the gradient pulled back


def by_numpy(defence):
    return defence(X)[0], defence.estimate_gradient(X, GRAD)


def by_transform(defence):
    return defence.transform(X), defence.estimate_gradient(X, GRAD)


def by_torch(defence):
    torch = pytest.importorskip("torch")
    x = torch.tensor(X, requires_grad=True)
    out = defence(x)[0]
    out.backward(torch.tensor(GRAD))
    return out.detach().numpy(), x.grad.numpy()


def by_forward(defence):
    """As ART's framework classifiers call it."""
    torch = pytest.importorskip("torch")
    x = torch.tensor(X, requires_grad=True)
    out = defence.forward(x)[0]
    defence.estimate_forward(x).backward(torch.tensor(GRAD))
    return out.detach().numpy(), x.grad.numpy()


def by_tensorflow(defence, wrapped=lambda function: function):
    tf = pytest.importorskip("tensorflow")

    def run(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            out = defence(x)[0]
        return out, tape.gradient(out, x, output_gradients=tf.constant(GRAD))

    return tuple(np.asarray(a) for a in wrapped(run)(tf.constant(X)))


def by_traced_tensorflow(defence):
    return by_tensorflow(defence, pytest.importorskip("tensorflow").function)


def by_jax(defence, wrapped=lambda function: function):
    jax = pytest.importorskip("jax")

    def product(x):
        return (defence(x)[0] * GRAD).sum()

    out = wrapped(lambda x: defence(x)[0])(jax.numpy.asarray(X))
    return np.asarray(out), np.asarray(wrapped(jax.grad(product))(jax.numpy.asarray(X)))


def by_traced_jax(defence):
    return by_jax(defence, pytest.importorskip("jax").jit)


def by_chain(defence):
    return by_numpy(Chain([defence]))


def by_nested_chain(defence):
    return by_torch(Chain([Chain([defence])]))


def by_attacker(defence):
    from preshield.evaluation.classifiers import PredictOnly
    from preshield.evaluation.defended import DefendedModel

    classifier = PredictOnly(lambda x: x.reshape(len(x), -1)[:, :3], X.shape[1:])
    model = DefendedModel(classifier, defence, clip_values=(0, 1), nb_classes=3, input_shape=X.shape[1:])
    defence(X)  # as an evaluation does: a class may draw in methods of its own without having said so
    out, back = model._seen(X, np.arange(len(X)), (0,), range(1))
    return out, back(GRAD)[0]


ALL_PATHS = [
    by_numpy,
    by_transform,
    by_torch,
    by_forward,
    by_tensorflow,
    by_traced_tensorflow,
    by_jax,
    by_traced_jax,
    by_chain,
    by_nested_chain,
    by_attacker,
]
EACH_PATH = pytest.mark.parametrize("path", ALL_PATHS, ids=lambda path: path.__name__.removeprefix("by_"))


# Overridden methods of a deterministic defence


class TripleGradient(JpegCompression):
    """How people plug in their BPDA."""

    def estimate_gradient(self, x, grad):
        assert isinstance(x, np.ndarray)
        assert isinstance(grad, np.ndarray)
        return 3 * grad


class TripleParent(SpatialSmoothing):
    def estimate_gradient(self, x, grad):
        return 3 * super().estimate_gradient(x, grad)


class DoubledCall(JpegCompression):
    def __call__(self, x, y=None):
        assert isinstance(x, np.ndarray)
        x, y = super().__call__(x, y)
        return 2 * x, y


class DoubledTransform(JpegCompression):
    def transform(self, x):
        return 2 * super().transform(x)


class DoubledByTransform(JpegCompression):
    """`super().transform` within `__call__` is the parent's, too."""

    def __call__(self, x, y=None):
        return 2 * super().transform(x), y


class OfBothKinds(JpegCompression):
    """`transform` calls `__call__`, as in classes that are also scikit-learn's."""

    def __call__(self, x, y=None):
        return 2 * JpegCompression.__call__(self, x, y)[0], y

    def transform(self, x):
        return self(x)[0]


class CallsTransform(JpegCompression):
    def __call__(self, x, y=None):
        return self.transform(x), y

    def transform(self, x):
        return 2 * super().transform(x)


class SixTimes(DoubledCall):
    """A second level, in the other method."""

    def transform(self, x):
        return 3 * super().transform(x)


class FourTimes(DoubledTransform):
    def __call__(self, x, y=None):
        x, y = super().__call__(x, y)
        return 2 * x, y


class Untouched(DoubledCall):
    """Writes nothing."""


class Mixin:
    def __call__(self, x, y=None):
        x, y = super().__call__(x, y)
        return 2 * x, y


class Mixed(Mixin, JpegCompression):
    pass


class Helped(JpegCompression):
    """The whole defence within its own gradient, which differs from the parent's."""

    def __call__(self, x, y=None):
        return 2 * super().__call__(x, y)[0], y

    def estimate_gradient(self, x, grad):
        whole, parent = self.transform(x), super().transform(x)
        np.testing.assert_array_equal(whole, self(x)[0])
        np.testing.assert_array_equal(whole, 2 * parent)
        return grad * whole


JPEG = JpegCompression((0, 1)).transform(X)
MEDIAN = SpatialSmoothing(3, gradient="exact")
EXPECTED = {
    TripleGradient: (JPEG, 3 * GRAD),
    DoubledCall: (2 * JPEG, GRAD),
    DoubledTransform: (2 * JPEG, GRAD),
    DoubledByTransform: (2 * JPEG, GRAD),
    OfBothKinds: (2 * JPEG, GRAD),
    CallsTransform: (2 * JPEG, GRAD),
    SixTimes: (6 * JPEG, GRAD),
    FourTimes: (4 * JPEG, GRAD),
    Untouched: (2 * JPEG, GRAD),
    Mixed: (2 * JPEG, GRAD),
    Helped: (2 * JPEG, GRAD * 2 * JPEG),
}


@EACH_PATH
@pytest.mark.parametrize("defence", EXPECTED, ids=lambda defence: defence.__name__)
def test_every_path_runs_what_was_written(defence, path):
    out, pulled = path(defence((0, 1)))
    np.testing.assert_allclose(out, EXPECTED[defence][0], rtol=1e-6)
    np.testing.assert_allclose(pulled, EXPECTED[defence][1], rtol=1e-6)


@EACH_PATH
def test_the_gradient_of_the_parent(path):
    out, pulled = path(TripleParent(3, gradient="exact"))
    np.testing.assert_array_equal(out, MEDIAN.transform(X))
    np.testing.assert_allclose(pulled, 3 * MEDIAN.estimate_gradient(X, GRAD), rtol=1e-6)


def test_an_axis_of_classes_is_pulled_back_class_by_class():
    grads = np.stack([GRAD, 2 * GRAD], axis=1)
    np.testing.assert_array_equal(TripleGradient((0, 1)).estimate_gradient(X, grads), 3 * grads)
    expected = 3 * MEDIAN.estimate_gradient(X, grads)
    np.testing.assert_allclose(TripleParent(3, gradient="exact").estimate_gradient(X, grads), expected)


def test_a_chain_is_overridden_as_well():
    class Mine(Chain):
        def __call__(self, x, y=None):
            x, y = super().__call__(x, y)
            return 2 * x, y

        def estimate_gradient(self, x, grad):
            return 3 * super().estimate_gradient(x, grad)

    stages = [GaussianAugmentation(0.1, False), MEDIAN]
    with Mine(stages).frozen(3) as mine, Chain(stages).frozen(3) as chain:
        for path in (by_numpy, by_torch, by_chain):
            out, pulled = path(mine)
            np.testing.assert_allclose(out, 2 * chain.transform(X), rtol=1e-6)
            np.testing.assert_allclose(pulled, 3 * chain.estimate_gradient(X, GRAD), rtol=1e-5)
    assert mine.gradient_kind == "surrogate"


def test_a_vote_sees_what_was_written():
    """The median of half the brightness is below the threshold, that of the whole is not."""

    class Halved(SpatialSmoothing):
        def __call__(self, x, y=None):
            return super().__call__(x, y)[0] / 2, y

    vote = MajorityVote(lambda x: (x.mean(axis=(1, 2, 3)) > 0.3).astype(int), [None, Halved(3)])
    np.testing.assert_array_equal(vote.votes(np.full((1, 4, 4, 1), 0.5)), [[1, 0]])


def test_scikit_learn_runs_what_was_written():
    pipeline = pytest.importorskip("sklearn.pipeline")
    made = pipeline.make_pipeline(DoubledCall((0, 1)), FeatureSqueezing((0, 2), 8))
    expected = FeatureSqueezing((0, 2), 8).transform(2 * JPEG)
    np.testing.assert_array_equal(made.transform(X), expected)


def test_a_hook_below_stays_a_hook():
    """Public methods wrap the hooks, also those that a child writes."""

    class Squared(DoubledCall):
        def _transform(self, x, draw):
            return super()._transform(x, draw) ** 2

    np.testing.assert_allclose(Squared((0, 1)).transform(X), 2 * JPEG**2, rtol=1e-6)
    np.testing.assert_allclose(by_torch(Squared((0, 1)))[0], 2 * JPEG**2, rtol=1e-6)


def test_arguments_of_ones_own():
    class Scaled(JpegCompression):
        def __call__(self, x, y=None, factor=2):
            x, y = super().__call__(x, y)
            return factor * x, y

    np.testing.assert_array_equal(Scaled((0, 1))(X, factor=5)[0], 5 * JPEG)
    np.testing.assert_array_equal(Scaled((0, 1))(X)[0], 2 * JPEG)


def test_a_method_may_write_to_what_it_gets():
    class Writes(JpegCompression):
        def __call__(self, x, y=None):
            x *= 0
            y[:] = 7
            return x, y

        def estimate_gradient(self, x, grad):
            grad *= 0
            return grad

    x, y, grad = X.copy(), Y.copy(), GRAD.copy()
    for array in (x, grad):
        array.setflags(write=False)
    out, labels = Writes((0, 1))(x, y)
    assert (out == 0).all()
    assert (labels == 7).all()
    assert (Writes((0, 1)).estimate_gradient(x, grad) == 0).all()
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(y, Y)
    np.testing.assert_array_equal(grad, GRAD)


# Draws


class Louder(GaussianAugmentation):
    def __call__(self, x, y=None):
        x, y = super().__call__(x, y)
        return 2 * x, y

    def estimate_gradient(self, x, grad):
        return 3 * super().estimate_gradient(x, grad)


@EACH_PATH
def test_the_parent_draws_what_it_would_draw_alone(path):
    with Louder(0.1, False).frozen(4) as mine, GaussianAugmentation(0.1, False).frozen(4) as parent:
        if path is by_attacker:  # which has seeds of its own
            expected, out = path(parent)[0], path(mine)[0]
        else:
            expected, out = parent.transform(X), path(mine)[0]
        np.testing.assert_allclose(out, 2 * expected, rtol=1e-6)


def test_a_seed_of_its_own_governs_the_parent():
    first, second = Louder(0.1, False, rng=9), GaussianAugmentation(0.1, False, rng=9)
    for _ in range(2):
        np.testing.assert_array_equal(first.transform(X), 2 * second.transform(X))


@pytest.mark.parametrize("path", [by_torch, by_tensorflow, by_traced_tensorflow, by_jax, by_traced_jax])
def test_forward_and_backward_have_one_draw(path):
    """Drawn is what is dropped; the gradient must be dropped at the very same places."""

    class Drops(Preprocessor):
        domains = ("image",)
        stochastic = True

        def _draw(self, x, rng):
            return rng.random(x.shape) < 0.5

        def _transform(self, x, draw):
            return x * draw

        def _gradient(self, x, grad, draw):
            return grad * draw

    class Mine(Drops):
        def __call__(self, x, y=None):
            first, second = super().__call__(x)[0], super().transform(x)
            assert (first != second).any()
            return first + 10 * second, y

        def estimate_gradient(self, x, grad):
            first = super().estimate_gradient(x, grad)
            return first + 10 * super().estimate_gradient(x, grad)

    class Recomputed(Drops):
        """The gradient runs the forward pass again."""

        def estimate_gradient(self, x, grad):
            return grad * self.transform(x) / x

    if path in (by_jax, by_traced_jax):  # two passes; so frozen
        for defence in (Mine(), Recomputed()):
            with defence.frozen(2):
                out, pulled = path(defence)
            np.testing.assert_allclose(pulled, GRAD * out / X, rtol=1e-5)
        return
    for defence in (Mine(), Recomputed()):
        outs = []
        for _ in range(2):
            out, pulled = path(defence)
            np.testing.assert_allclose(pulled, GRAD * out / X, rtol=1e-5)
            outs.append(out)
        assert (outs[0] != outs[1]).any()


def test_threads_do_not_see_each_other():
    mine, parent = Louder(0.1, False), GaussianAugmentation(0.1, False)

    def frozen(defence):
        with defence.frozen(1):
            return defence.transform(X)

    expected = 2 * frozen(parent)
    with ThreadPoolExecutor(8) as pool:
        for out in pool.map(frozen, [mine] * 16):
            np.testing.assert_array_equal(out, expected)


def test_a_parent_in_a_thread_of_ones_own():
    class Mine(JpegCompression):
        def __call__(self, x, y=None):
            with ThreadPoolExecutor(2) as pool:
                halves = list(pool.map(super().__call__, (x[:1], x[1:])))
            return 2 * np.concatenate([half for half, _ in halves]), y

    np.testing.assert_array_equal(Mine((0, 1))(X)[0], 2 * JPEG)


# Classes written for ART


def written_for_art(base):
    """A class body as people write it for ART; `base` is what its import line gives."""

    class Brighten(base):
        params = ["amount", "clip_values"]  # noqa: RUF012

        def __init__(self, amount=0.25, clip_values=None, apply_fit=False, apply_predict=True):
            super().__init__(is_fitted=True, apply_fit=apply_fit, apply_predict=apply_predict)
            self.amount = amount
            self.clip_values = clip_values
            self._check_params()

        def __call__(self, x, y=None):
            x = x + self.amount
            if self.clip_values is not None:
                x = np.clip(x, *self.clip_values)
            return x, y

        def estimate_gradient(self, x, grad):
            inside = 1.0
            if self.clip_values is not None:
                inside = (x + self.amount > self.clip_values[0]) & (x + self.amount < self.clip_values[1])
            return grad * inside

        def _check_params(self):
            if not isinstance(self.amount, (int, float)):
                raise ValueError("Amount must be a number.")

    return Brighten


Brighten = written_for_art(Preprocessor)


@pytest.mark.parametrize(
    "shape", [(5,), (5, 7), (2, 8, 8, 3), (2, 3, 8, 8), (2, 3, 4, 8, 8), (1, 1, 2, 2, 2, 2)]
)
def test_an_art_style_class_takes_any_data(shape):
    x = np.linspace(0, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape)
    np.testing.assert_allclose(Brighten(0.5, (0, 1))(x)[0], np.minimum(x + 0.5, 1))
    np.testing.assert_array_equal(Brighten(0.5, (0, 1)).estimate_gradient(x, x), x * (x < 0.5))


def test_an_art_style_class_takes_samples_of_different_lengths():
    class Rescale(Preprocessor):
        def __call__(self, x, y=None):
            if x.dtype == object:
                return np.array([2 * sample for sample in x] + [None], dtype=object)[:-1], y
            return 2 * x, y

    x = np.empty(2, dtype=object)
    x[:] = [np.ones(3, np.float32), np.ones(5, np.float32)]
    out, y = Chain([Rescale()])(x, np.arange(2))
    assert [sample.tolist() for sample in out] == [[2.0] * 3, [2.0] * 5]
    assert [g.tolist() for g in Rescale().estimate_gradient(x, out)] == [[2.0] * 3, [2.0] * 5]
    np.testing.assert_array_equal(y, [0, 1])


@EACH_PATH
def test_an_art_style_class_on_every_path(path):
    out, pulled = path(Brighten(0.25, (0, 1)))
    np.testing.assert_allclose(out, np.minimum(X + np.float32(0.25), 1), rtol=1e-6)
    np.testing.assert_array_equal(pulled, GRAD * (X + np.float32(0.25) < 1))


def test_the_flags_of_an_art_style_class():
    class Bare(Preprocessor):
        def __init__(self):
            super().__init__(is_fitted=True)

        def __call__(self, x, y=None):
            return x, y

    assert (Bare().apply_fit, Bare().apply_predict, Bare().is_fitted) == (True, True, True)  # ART's defaults
    made = Brighten(apply_fit=True, apply_predict=False)
    assert (made.apply_fit, made.apply_predict, made._apply_fit, made._apply_predict) == (True, False) * 2
    made.apply_fit = False
    assert made.apply_fit is False


def test_a_class_of_hooks_keeps_its_own_defaults():
    class Hooks(Preprocessor):
        def _transform(self, x, draw):
            return x

    assert (Hooks().apply_fit, Hooks().apply_predict) == (False, True)
    made = Hooks(apply_fit=True)
    assert (made.apply_fit, repr(made), repr(Hooks())) == (True, "Hooks(apply_fit=True)", "Hooks()")
    assert made.get_params() == {"apply_fit": True, "apply_predict": True}
    assert Hooks.domains == ("image",)


def test_properties_as_older_classes_write_them():
    class Older(Preprocessor):
        def __init__(self, apply_fit=False, apply_predict=True):
            super().__init__(apply_fit=apply_fit, apply_predict=apply_predict)
            self._is_fitted = True

        @property
        def apply_fit(self):
            return self._apply_fit

        @property
        def apply_predict(self):
            return self._apply_predict

        @property
        def is_fitted(self):
            return self._is_fitted

        def __call__(self, x, y=None):
            return 2 * x, y

        def estimate_gradient(self, x, grad):
            return 2 * grad

        def fit(self, x, y=None, **kwargs):
            """Nothing to learn."""

    made = Older(apply_fit=True, apply_predict=False)
    assert (made.apply_fit, made.apply_predict, made.is_fitted) == (True, False, True)
    assert made.fit(X) is made
    np.testing.assert_array_equal(Chain([made])(X)[0], 2 * X)
    assert made.get_params() == {"apply_fit": True, "apply_predict": False}


def test_device_type_is_accepted_in_words():
    class Mine(Preprocessor):
        def __init__(self, device_type="gpu"):
            super().__init__(is_fitted=True, device_type=device_type)
            self.device_type = device_type

        def __call__(self, x, y=None):
            return 2 * x, y

    with pytest.warns(UserWarning, match="`device_type` is ignored, got 'cpu'.* Leave it out"):
        made = Mine("cpu")
    np.testing.assert_array_equal(made(X)[0], 2 * X)


def test_parameters_of_an_art_style_class():
    made = Brighten(0.5)
    assert made.get_params() == {
        "amount": 0.5,
        "clip_values": None,
        "apply_fit": False,
        "apply_predict": True,
    }
    assert made.set_params(amount=1) is made
    np.testing.assert_array_equal(made(X)[0], X + 1)
    with pytest.raises(ValueError, match="Amount must be a number"):
        made.set_params(clip_values=(0, 1), amount="much")
    assert (made.amount, made.clip_values) == (1, None)
    with pytest.raises(TypeError, match="Brighten has no parameter 'size'; it has amount, clip_values"):
        made.set_params(size=3)
    assert repr(made) == "Brighten(amount=1)"
    clone = pytest.importorskip("sklearn.base").clone(made)
    assert clone.get_params() == made.get_params()
    for twin in (pickle.loads(pickle.dumps(vars(made))), vars(copy.deepcopy(made))):
        assert twin == vars(made)


def test_a_parameter_that_is_not_kept_stops_no_evaluation():
    class Forgetful(Preprocessor):
        def __init__(self, factor, verbose=False):
            super().__init__(is_fitted=True)
            self.by = factor

        def __call__(self, x, y=None):
            return self.by * x, y

    made = Forgetful(2)
    assert repr(made) == "Forgetful()"
    assert "Forgetful" in made._repr_html_()
    np.testing.assert_array_equal(Chain([made]).transform(X), 2 * X)
    with pytest.raises(
        AttributeError, match=r"does not keep its parameter `factor`; assign `self\.factor = factor`"
    ):
        made.get_params()


def test_an_attribute_called_transform():
    """What torchvision's are called; ART has no method of this name."""

    class Composed(Preprocessor):
        def __init__(self):
            super().__init__(is_fitted=True)
            self.transform = np.sqrt

        def __call__(self, x, y=None):
            return self.transform(x), y

    for path in (by_numpy, by_torch, by_chain, by_attacker):
        np.testing.assert_array_equal(path(Composed())[0], np.sqrt(X))
    vote = MajorityVote(lambda x: (x.mean(axis=1) > 0.6).astype(int), [None, Composed()])
    np.testing.assert_array_equal(vote.votes(np.full((1, 2), 0.5)), [[0, 1]])


def test_a_helper_called_like_a_hook():
    class Helper(Preprocessor):
        def __init__(self):
            super().__init__(is_fitted=True)

        def __call__(self, x, y=None):
            return np.stack([self._transform(sample) for sample in x]), y

        def _transform(self, sample):
            return 2 * sample

    x = np.ones((2, 4), np.float32)
    np.testing.assert_array_equal(Chain([Helper()])(x)[0], 2 * x)


def test_the_contract_holds_for_an_art_style_class():
    check_preprocessor(Brighten(0.25), X)
    check_preprocessor(TripleGradient((0, 1)), X)
    check_preprocessor(DoubledTransform((0, 1)), X)
    check_preprocessor(Louder(0.1, False), X)


# Labels


def test_labels_arrive():
    class Relabels(JpegCompression):
        def __call__(self, x, y=None):
            x, y = super().__call__(x, y)
            return x, None if y is None else 1 - y

    made, expected = Relabels((0, 1)), 1 - Y
    torch, tf = pytest.importorskip("torch"), pytest.importorskip("tensorflow")
    jax = pytest.importorskip("jax")
    y = jax.numpy.asarray(Y)
    found = [
        made(X, Y)[1],
        made(torch.tensor(X), torch.tensor(Y))[1],
        made.forward(torch.tensor(X), torch.tensor(Y))[1],
        made(tf.constant(X), tf.constant(Y))[1],
        tf.function(made.__call__)(tf.constant(X), tf.constant(Y))[1],
        made(jax.numpy.asarray(X), y)[1],
        jax.jit(made.__call__)(jax.numpy.asarray(X), y)[1],
        Chain([made])(X, Y)[1],
        Chain([SpatialSmoothing(3), made])(torch.tensor(X), torch.tensor(Y))[1],
        tf.function(Chain([SpatialSmoothing(3), made]).__call__)(tf.constant(X), tf.constant(Y))[1],
    ]
    for labels in found:
        np.testing.assert_array_equal(np.asarray(labels), expected)
    assert made(X)[1] is None
    chained = Chain([made, LabelSmoothing(0.7), made])(X, Y)[1]
    smooth = LabelSmoothing(0.7)(None, 1 - Y)[1]
    np.testing.assert_allclose(chained, 1 - smooth, rtol=1e-6)


class MixesBoth(Preprocessor):
    """Data and labels from one draw; it cannot do without labels."""

    def __init__(self, apply_fit=True, apply_predict=False):
        super().__init__(is_fitted=True, apply_fit=apply_fit, apply_predict=apply_predict)

    def __call__(self, x, y=None):
        if y is None:
            raise ValueError("Labels `y` cannot be None.")
        share = np.random.random()
        return share * x + (1 - share) * x[::-1], share * y + (1 - share) * y[::-1]


def test_data_and_labels_come_from_one_run():
    """Labels say what was mixed: each row of the data is that mixture of the samples."""
    torch, tf = pytest.importorskip("torch"), pytest.importorskip("tensorflow")
    x = np.eye(3, dtype=np.float32)
    made = MixesBoth()
    shift = FeatureSqueezing((0, 1), 8)
    for out, labels in (
        made(x, Y),
        made(torch.tensor(x), torch.tensor(Y)),
        made(tf.constant(x), tf.constant(Y)),
        Chain([shift, made])(x, Y),
        Chain([shift, Chain([made])])(torch.tensor(x), torch.tensor(Y)),
    ):
        np.testing.assert_allclose(np.asarray(out), np.asarray(labels), atol=1e-2)
        assert (np.asarray(labels) != Y).any()
    with pytest.raises(ValueError, match="cannot be None"):
        made(x)


def test_a_run_is_not_repeated_for_the_labels():
    class Counts(Preprocessor):
        runs = 0

        def __call__(self, x, y=None):
            Counts.runs += 1
            return x, y

    torch = pytest.importorskip("torch")
    Counts()(X, Y), Counts()(torch.tensor(X), torch.tensor(Y)), Chain([Counts()])(X, Y)
    assert Counts.runs == 3


def test_labels_of_any_kind_pass():
    boxes = [{"boxes": np.zeros((1, 4)), "labels": np.ones(1)} for _ in X]
    for defence in (Brighten(), Chain([Brighten(), Brighten()])):
        assert defence(X, boxes)[1] is boxes
        assert defence(X, Y)[1] is Y
    torch = pytest.importorskip("torch")
    assert Brighten()(torch.tensor(X), boxes)[1] is boxes
    array = np.array(boxes, dtype=object)
    assert Brighten()(X, array)[1] is array


def test_the_number_of_samples_may_change():
    class Twice(Preprocessor):
        def __call__(self, x, y=None):
            return np.concatenate([x, x]), None if y is None else np.concatenate([y, y])

        def estimate_gradient(self, x, grad):
            return grad[: len(x)] + grad[len(x) :]

    out, labels = Twice()(X, Y)
    assert out.shape == (6, *X.shape[1:])
    np.testing.assert_array_equal(labels, [*Y, *Y])
    grad = np.concatenate([GRAD, 2 * GRAD])
    np.testing.assert_allclose(Twice().estimate_gradient(X, grad), 3 * GRAD, rtol=1e-6)
    classes = np.stack([grad, grad], axis=1)
    np.testing.assert_allclose(Twice().estimate_gradient(X, classes)[:, 1], 3 * GRAD, rtol=1e-6)
    torch = pytest.importorskip("torch")
    x = torch.tensor(X, requires_grad=True)
    Chain([Twice(), Brighten()])(x)[0].backward(torch.tensor(grad))
    np.testing.assert_allclose(x.grad, 3 * GRAD, rtol=1e-6)


# Shapes that nothing states


class Flattens(Preprocessor):
    def __call__(self, x, y=None):
        return x.reshape(len(x), -1), y

    def estimate_gradient(self, x, grad):
        return grad.reshape(x.shape)


def test_a_change_of_shape_is_found_by_running():
    flat = GRAD.reshape(3, -1)
    for defence in (Flattens(), Chain([Flattens(), Brighten()])):
        assert defence(X)[0].shape == flat.shape
        np.testing.assert_array_equal(defence.estimate_gradient(X, flat), GRAD)
        classes = np.stack([flat, 2 * flat], axis=1)
        np.testing.assert_array_equal(defence.estimate_gradient(X, classes)[:, 1], 2 * GRAD)
        with pytest.raises(ValueError, match="must have the shape"):
            defence.estimate_gradient(X, flat[:, :5])


def test_a_traced_graph_wants_the_shape_stated():
    tf, jax = pytest.importorskip("tensorflow"), pytest.importorskip("jax")

    class States(Flattens):
        def _output_shape(self, shape):
            return (shape[0], int(np.prod(shape[1:])))

    words = r"returned the shape \(3, 90\) in a graph that expects \(3, 6, 5, 3\); write `_output_shape"
    with pytest.raises(Exception, match=words):
        tf.function(Flattens().__call__)(tf.constant(X))
    with pytest.raises(Exception, match=words):
        jax.block_until_ready(jax.jit(Flattens().transform)(jax.numpy.asarray(X)))
    assert tf.function(States().__call__)(tf.constant(X))[0].shape == (3, 90)
    assert jax.jit(States().transform)(jax.numpy.asarray(X)).shape == (3, 90)


def test_a_gradient_of_another_shape_is_refused():
    class Ungraded(Preprocessor):
        def __call__(self, x, y=None):
            return x.reshape(len(x), -1), y

    class Wrong(Preprocessor):
        def __call__(self, x, y=None):
            return x, y

        def estimate_gradient(self, x, grad):
            return grad.sum(axis=-1)

    with pytest.raises(
        ValueError, match=r"must have the shape \(3, 6, 5, 3\) .* got \(3, 90\); its `__call__` changes"
    ):
        Ungraded().estimate_gradient(X, GRAD.reshape(3, -1))
    with pytest.raises(
        ValueError, match=r"gradient of Wrong must have .* got \(3, 6, 5\); return one gradient"
    ):
        Wrong().estimate_gradient(X, GRAD)


def test_what_a_method_returns_is_checked():
    class NoPair(Preprocessor):
        def __call__(self, x, y=None):
            return x

    class Words(Preprocessor):
        def __call__(self, x, y=None):
            return x.astype(str), y

    with pytest.raises(TypeError, match=r"`NoPair.__call__` must return a pair \(x, y\), got ndarray"):
        NoPair()(X)
    with pytest.raises(TypeError, match=r"`Words` must return real numbers, got an array of dtype <U"):
        Words()(X)


# Global generators, from which such classes draw


class Shaken(Preprocessor):
    """Noise from three generators; its gradient is that of the very factors."""

    def __call__(self, x, y=None):
        return x * self.factors(x), y

    def estimate_gradient(self, x, grad):
        return grad * self.factors(x)

    def factors(self, x):
        torch = pytest.importorskip("torch")
        values = np.random.random(x.shape) + random.random() + torch.rand(x.shape).numpy()
        return values.astype(np.float32)


@pytest.mark.parametrize("path", [by_torch, by_tensorflow, by_traced_tensorflow, by_attacker])
def test_forward_and_backward_draw_alike(path):
    made = Shaken()
    outs = []
    for _ in range(3):
        out, pulled = path(made)
        np.testing.assert_allclose(pulled, GRAD * (out / X), rtol=1e-4)
        outs.append(out)
    if path is not by_attacker:  # whose seed is the same each time
        assert (outs[0] != outs[1]).any()
        assert (outs[1] != outs[2]).any()


def test_what_draws_becomes_stochastic():
    made, chain = Shaken(), Chain([Shaken(), Brighten()])
    assert not made.stochastic
    made(X), chain(X)
    assert made.stochastic
    assert chain.stochastic
    assert not chain._stages[1].stochastic


def test_frozen_repeats_what_global_generators_draw():
    made = Shaken()
    with made.frozen(1):
        first, second = made(X)[0], made(X)[0]
    with made.frozen(2):
        other = made(X)[0]
    np.testing.assert_array_equal(first, second)
    assert (first != other).any()


def test_the_global_seed_governs_what_global_generators_draw():
    made, runs = Shaken(), []
    for defence in (made, made, Shaken()):
        np.random.seed(3)
        runs.append([defence(X)[0] for _ in range(2)])
    for run in runs[1:]:
        np.testing.assert_array_equal(run, runs[0])
    assert (runs[0][0] != runs[0][1]).any()


def test_what_draws_nothing_moves_no_generator():
    torch = pytest.importorskip("torch")
    states = np.random.get_state()[1].copy(), random.getstate(), torch.get_rng_state()
    for path in (by_numpy, by_torch, by_chain):
        path(Brighten()), path(TripleGradient((0, 1)))
    with Shaken().frozen(0) as made:
        made(X)
    np.testing.assert_array_equal(np.random.get_state()[1], states[0])
    assert random.getstate() == states[1]
    assert torch.equal(torch.get_rng_state(), states[2])


# What cannot be honoured


@pytest.mark.parametrize("name", ["forward", "estimate_forward"])
def test_methods_for_tensors_are_refused_where_they_are_written(name):
    with pytest.raises(TypeError, match=rf"`Mine.{name}` must not be written.* ART's PreprocessorPyTorch"):
        type("Mine", (JpegCompression,), {name: lambda self, x, y=None: (x, y)})


def test_frozen_is_refused_where_it_is_written():
    with pytest.raises(TypeError, match=r"`Mine\.frozen` must not be written"):
        type("Mine", (JpegCompression,), {"frozen": lambda self, seed=0: None})


def test_assigned_methods_are_refused(monkeypatch):
    made = JpegCompression((0, 1))
    for name in ("__call__", "transform", "estimate_gradient", "forward"):
        with pytest.raises(
            TypeError, match=rf"`{name}` must not be assigned.*`class Mine\(JpegCompression\)`"
        ):
            setattr(made, name, lambda *args: args)
    monkeypatch.setattr(JpegCompression, "estimate_gradient", lambda self, x, grad: 3 * grad)
    for run in (made, Chain([made])):
        with pytest.raises(TypeError, match=r"`JpegCompression\.estimate_gradient` was assigned after"):
            run(X)
    monkeypatch.setattr(TripleParent, "transform", lambda self, x: x)
    with pytest.raises(TypeError, match=r"`TripleParent\.transform` was assigned after"):
        TripleParent(3)(X)


def test_fit_of_ones_own():
    class Centred(Preprocessor):
        def __init__(self):
            super().__init__(apply_fit=False)

        def fit(self, x, y=None, scale=1):
            assert isinstance(x, np.ndarray)
            self.mean = scale * x.mean(axis=0)

        def __call__(self, x, y=None):
            return x - self.mean, y

    torch = pytest.importorskip("torch")
    made = Centred()
    assert not made.is_fitted
    assert made.fit(torch.tensor(X), scale=2) is made
    assert made.is_fitted
    np.testing.assert_allclose(made(X)[0], X - 2 * X.mean(axis=0), rtol=1e-6)
    squeeze, chain = FeatureSqueezing((0, 1), 1), Chain([FeatureSqueezing((0, 1), 1), Centred()])
    assert not chain.is_fitted
    chain.fit(X)
    seen = squeeze.transform(X)
    np.testing.assert_allclose(chain.transform(X), seen - seen.mean(axis=0), rtol=1e-6)
