import numpy as np
import pytest

from preshield.evaluation.minimum_norm import minimum_norm_attack

W = np.array([3.0, -4.0], dtype=np.float32)  # norm 5
B = -0.5


def margin(x, y):
    """A linear classifier: class 1 where W @ x + B is positive, class 0 elsewhere."""
    return (x @ W + B) * np.where(y == 1, 1, -1)


def margin_and_gradient(x, y):
    return margin(x, y), np.where(y == 1, 1, -1)[:, None].astype(np.float32) * W


X = np.array([[0.8, 0.3], [0.5, 0.6], [0.9, 0.2]], dtype=np.float32)
Y = np.array([1, 0, 0])  # the last one is wrong from the start


def test_linear_distance():
    before = X.copy()
    found = minimum_norm_attack(X, Y, margin, margin_and_gradient, step=0.1, halvings=12)
    distance = np.abs(X @ W + B) / 5
    np.testing.assert_allclose(found.norms[:2], distance[:2], atol=1e-4)
    assert found.norms[2] == 0
    np.testing.assert_array_equal(found.x[2], X[2])
    np.testing.assert_allclose(np.linalg.norm(found.x - X, axis=1), found.norms, atol=1e-6)
    assert (margin(found.x, Y) < 0).all()
    np.testing.assert_array_equal(X, before)


def test_result_stays_in_range():
    x = np.array([[1.0, 0.02]], dtype=np.float32)  # the hyperplane is reached along the border
    found = minimum_norm_attack(x, np.array([1]), margin, margin_and_gradient, step=0.1)
    assert margin(found.x, np.array([1]))[0] < 0
    assert found.x.min() >= 0
    assert found.x.max() <= 1


def test_budget_too_small():
    found = minimum_norm_attack(X, Y, margin, margin_and_gradient, step=0.01, max_steps=2)
    np.testing.assert_array_equal(found.norms, [np.inf, np.inf, 0])
    np.testing.assert_allclose(np.linalg.norm(found.x - X, axis=1), [0.02, 0.02, 0], atol=1e-6)


def test_zero_gradient_fails_without_nan():
    def flat(x, y):
        return margin(x, y), np.zeros_like(x)

    found = minimum_norm_attack(X, Y, margin, flat, max_steps=3)
    np.testing.assert_array_equal(found.norms, [np.inf, np.inf, 0])
    np.testing.assert_array_equal(found.x, X)


def test_samples_that_are_done_cost_nothing():
    sizes = []

    def counted(x, y):
        sizes.append(len(x))
        return margin_and_gradient(x, y)

    near_and_far = np.array([[0.51, 0.25], [0.9, 0.1]], dtype=np.float32)  # 0.006 and 0.36 away
    minimum_norm_attack(near_and_far, np.array([1, 1]), margin, counted, step=0.1)
    assert sizes == [2, 2, 1, 1, 1]


def test_progress_rises_to_one():
    done = []
    minimum_norm_attack(X, Y, margin, margin_and_gradient, on_step=done.append)
    assert done == sorted(done)
    assert done[-1] == pytest.approx(1)
