from contextlib import contextmanager

import numpy as np

from preshield import FeatureSqueezing, GaussianAugmentation
from preshield.evaluation.defended_model import DefendedModel


class Linear:
    """Logits (0, x.sum() - 1): class 1 where the sum exceeds 1."""

    def logits(self, x):
        total = x.reshape(len(x), -1).sum(axis=1)
        return np.stack([np.zeros_like(total), total - 1], axis=1)

    def margin_and_gradient(self, x, y):
        sign = np.where(y == 1, 1, -1).astype(np.float32)
        margin = sign * self.logits(x)[:, 1]
        return margin, np.broadcast_to(sign[:, None], x.shape).copy()


X = np.array([[0.9, 0.3], [0.2, 0.2]], dtype=np.float32)
Y = np.array([1, 1])


def test_undefended():
    model = DefendedModel(Linear())
    np.testing.assert_allclose(model.margin(X, Y), [0.2, -0.6], atol=1e-6)
    np.testing.assert_array_equal(model.predict(X), [[1, 0]])
    margin, gradient = model.margin_and_gradient(X, Y)
    np.testing.assert_allclose(margin, [0.2, -0.6], atol=1e-6)
    np.testing.assert_array_equal(gradient, np.ones((2, 2)))


def test_defence_is_applied_and_its_gradient_used():
    model = DefendedModel(Linear(), FeatureSqueezing((0, 1), bit_depth=1, gradient="soft"))
    assert model.draws == 1
    np.testing.assert_allclose(model.margin(X, Y), [0, -1], atol=1e-6)  # (1, 0) and (0, 0)
    margin, gradient = model.margin_and_gradient(X, Y)
    np.testing.assert_allclose(margin, [0, -1], atol=1e-6)
    expected = model.defence.estimate_gradient(X, np.ones_like(X))
    np.testing.assert_allclose(gradient, expected, rtol=1e-6)
    assert not np.allclose(gradient, 1)


def noise(sigma=0.5):
    return GaussianAugmentation(sigma, augmentation=False, apply_predict=True)


def test_stochastic_predictions_differ_and_are_seeded():
    x, y = np.full((200, 2), 0.5, dtype=np.float32), np.ones(200, dtype=int)
    first = DefendedModel(Linear(), noise(), draws=3, seed=1)
    again = DefendedModel(Linear(), noise(), draws=3, seed=1)
    a = first.predict(x)
    assert a.shape == (3, 200)
    assert (a[0] != a[1]).any()
    np.testing.assert_array_equal(a, again.predict(x))
    assert (a != first.predict(x)).any()
    again.predict(x)
    np.testing.assert_array_equal(first.margin(x, y), again.margin(x, y))


def test_one_right_draw_makes_the_margin_positive():
    x, y = np.full((500, 2), 0.4, dtype=np.float32), np.ones(500, dtype=int)
    few = (DefendedModel(Linear(), noise(), draws=2).margin(x, y) < 0).mean()
    many = (DefendedModel(Linear(), noise(), draws=16).margin(x, y) < 0).mean()
    single = 0.6114  # P(0.8 + N(0, 0.5) sqrt(2) < 1)
    assert abs(few - single**4) < 0.08  # twice the draws
    assert many < 0.01


def test_gradient_is_taken_at_the_draw_of_the_forward_pass():
    seeds, log = [], []

    class Recorder:
        stochastic = True

        @contextmanager
        def frozen(self, seed):
            seeds.append(seed)
            yield self
            seeds.append(None)

        def transform(self, x):
            log.append(("transform", seeds[-1]))
            return x

        def estimate_gradient(self, x, gradient):
            log.append(("gradient", seeds[-1]))
            return gradient

    DefendedModel(Linear(), Recorder(), draws=2).margin_and_gradient(X, Y)
    kinds, used = zip(*log, strict=True)
    assert kinds == ("transform", "gradient") * 2
    assert used[0] == used[1] is not None
    assert used[2] == used[3] is not None
    assert used[0] != used[2]
