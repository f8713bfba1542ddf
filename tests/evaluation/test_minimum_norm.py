import numpy as np
import pytest

from preshield.evaluation.minimum_norm import minimum_norm_attack, pull_towards

W = np.array([3.0, -4.0], dtype=np.float32)  # norm 5
B = -0.5


def margin(x, y):
    """A linear classifier: class 1 where W @ x + B is positive, class 0 elsewhere."""
    return (x @ W + B) * np.where(y == 1, 1, -1)


def margin_and_gradient(x, y):
    """The margin and the gradient of the loss, which points away from the class."""
    return margin(x, y), np.where(y == 1, -1, 1)[:, None].astype(np.float32) * W


def flat(x, y):
    return margin(x, y), np.zeros_like(x)


def undefined(x, y):
    return margin(x, y), np.full_like(x, np.nan)


X = np.array([[0.8, 0.3], [0.5, 0.6], [0.9, 0.2]], dtype=np.float32)
Y = np.array([1, 0, 0])  # the last one is wrong from the start
DISTANCE = np.abs(X @ W + B)[:2] / 5


def test_linear_distance():
    before = X.copy()
    found = minimum_norm_attack(X, Y, margin, margin_and_gradient, halvings=14)
    np.testing.assert_allclose(found.norms[:2], DISTANCE, atol=1e-4)
    assert found.norms[2] == 0
    np.testing.assert_array_equal(found.x[2], X[2])
    np.testing.assert_allclose(np.linalg.norm(found.x - X, axis=1), found.norms, atol=1e-6)
    assert (margin(found.x, Y) < 0).all()
    np.testing.assert_array_equal(X, before)


@pytest.mark.parametrize("halvings", [0, 1, 4, 8])
def test_bisection_is_as_exact_as_stated(halvings):
    found = minimum_norm_attack(X, Y, margin, margin_and_gradient, halvings=halvings)
    covered = minimum_norm_attack(X, Y, margin, margin_and_gradient, halvings=0).norms[:2]
    excess = found.norms[:2] - DISTANCE
    assert (excess > 0).all()
    assert (excess <= covered * 2.0**-halvings).all()


@pytest.mark.parametrize("scale", [1 / 100, 255])
def test_no_scale_has_to_be_guessed(scale):
    def scaled(x, y):
        value, gradient = margin_and_gradient(x / scale, y)
        return value, gradient / scale

    reference = minimum_norm_attack(X, Y, margin, margin_and_gradient)
    found = minimum_norm_attack(
        X * np.float32(scale),
        Y,
        lambda x, y: margin(x / scale, y),
        scaled,
        clip_values=(0, scale),
    )
    np.testing.assert_allclose(found.norms, scale * reference.norms, rtol=1e-4)


def test_result_stays_in_range():
    """The shortest way to the line leaves the range; the way along the border does not."""
    x, y = np.array([[1.0, 0.02]], dtype=np.float32), np.array([1])
    for low, high in ((0, 1), (-0.25, 1.5)):
        found = minimum_norm_attack(x, y, margin, margin_and_gradient, clip_values=(low, high))
        assert margin(found.x, y)[0] < 0
        assert found.x.min() >= low
        assert found.x.max() <= high

    def beyond(x, y):
        return x[:, 0] + 0.1, -np.ones_like(x)  # wrong below -0.1 only

    reached = minimum_norm_attack(x, y, lambda x, y: beyond(x, y)[0], beyond)
    np.testing.assert_array_equal(reached.norms, [np.inf])
    reached = minimum_norm_attack(x, y, lambda x, y: beyond(x, y)[0], beyond, clip_values=(-1, 1))
    assert reached.norms[0] < 2


def test_budget_too_small():
    found = minimum_norm_attack(X, Y, margin, margin_and_gradient, first=0.02, max_steps=1)
    np.testing.assert_array_equal(found.norms, [np.inf, np.inf, 0])
    covered = 0.02 * np.sqrt(2)  # of the diagonal
    np.testing.assert_allclose(np.linalg.norm(found.x - X, axis=1), [covered, covered, 0], atol=1e-6)


@pytest.mark.parametrize("budget", [2, 5, 20, 100])
def test_every_budget_crosses_the_range(budget):
    """On a model that is always right; few steps are longer steps."""

    def constant(x, y):
        return np.ones(len(x)), np.ones_like(x)

    x = np.zeros((1, 2), dtype=np.float32)
    found = minimum_norm_attack(x, np.array([0]), lambda x, y: np.ones(len(x)), constant, max_steps=budget)
    assert found.norms[0] == np.inf
    assert np.linalg.norm(found.x) == pytest.approx(np.sqrt(2), rel=1e-4)


def test_steps_grow_with_the_distance_covered():
    visited = []

    def watched(x, y):
        visited.append(x.copy())
        return np.ones(len(x)), np.ones_like(x)

    x = np.zeros((1, 2), dtype=np.float32)
    minimum_norm_attack(x, np.array([0]), lambda x, y: np.ones(len(x)), watched, first=0.01, max_steps=30)
    covered = np.linalg.norm(np.concatenate(visited), axis=1)
    steps, least = np.diff(covered), 0.01 * np.sqrt(2)
    inside = covered[1:] < np.sqrt(2) - 1e-6
    expected = np.maximum(least, 0.2 * covered[:-1])
    np.testing.assert_allclose(steps[inside], expected[inside], rtol=1e-4)
    assert covered[-1] == pytest.approx(np.sqrt(2))  # the far corner, well within the budget


@pytest.mark.parametrize("useless", [flat, undefined])
def test_random_directions_where_the_gradient_leads_nowhere(useless):
    found = minimum_norm_attack(X, Y, margin, useless, first=0.1)
    assert (found.norms[:2] >= DISTANCE).all()
    assert (margin(found.x, Y) < 0).all()
    again = minimum_norm_attack(X, Y, margin, useless, first=0.1)
    np.testing.assert_array_equal(found.x, again.x)
    other = minimum_norm_attack(X, Y, margin, useless, first=0.1, seed=1)
    assert (found.x[:2] != other.x[:2]).any()


def test_tiny_gradients_are_followed():
    """In single precision the square of their norm would be zero."""

    def tiny(x, y):
        value, gradient = margin_and_gradient(x, y)
        return value, gradient * np.float32(1e-30)

    found = minimum_norm_attack(X, Y, margin, tiny)
    reference = minimum_norm_attack(X, Y, margin, margin_and_gradient)
    np.testing.assert_allclose(found.norms, reference.norms, rtol=1e-5)


def test_infinite_where_nothing_helps():
    def constant(x, y):
        return np.ones(len(x)), np.ones_like(x)

    found = minimum_norm_attack(X, Y, lambda x, y: constant(x, y)[0], constant, max_steps=5)
    np.testing.assert_array_equal(found.norms, np.full(3, np.inf))
    assert np.isfinite(found.x).all()


def test_samples_that_are_done_cost_nothing():
    sizes = []

    def counted(x, y):
        sizes.append(len(x))
        return margin_and_gradient(x, y)

    near_and_far = np.array([[0.51, 0.25], [0.9, 0.1]], dtype=np.float32)  # 0.006 and 0.36 away
    minimum_norm_attack(near_and_far, np.array([1, 1]), margin, counted, first=0.1 / np.sqrt(2), growth=0)
    assert sizes == [2, 2, 1, 1, 1]


def test_progress_rises_to_one():
    for gradient in (margin_and_gradient, flat):
        done = []
        minimum_norm_attack(X, Y, margin, gradient, on_step=done.append)
        assert done == sorted(done)
        assert done[-1] == pytest.approx(1)


def test_pull_towards():
    moved = np.array([[0.0, 1.0], [0.5, 0.6], [0.9, 0.2]], dtype=np.float32)
    before = moved.copy()
    found = pull_towards(X, moved, Y, margin, failed=np.array([False, True, False]), halvings=20)
    start, end = margin(X, Y)[0], margin(moved, Y)[0]
    fraction = start / (start - end)  # where the line crosses the boundary
    np.testing.assert_allclose(found.norms[0], fraction * np.linalg.norm(moved[0] - X[0]), atol=1e-5)
    assert margin(found.x, Y)[0] < 0
    np.testing.assert_array_equal(found.norms[1:], [np.inf, 0])
    np.testing.assert_array_equal(found.x[1:], moved[1:])
    np.testing.assert_array_equal(moved, before)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-2, 3)])
def test_as_many_steps_as_there_are_cross_the_range(low, high):
    """Without growth of their own, steps lengthen by one factor from `first` of the diagonal to all of it."""
    x, seen = np.full((1, 2), low, np.float32), []

    def upwards(x, y):
        seen.append(x[0].copy())
        return np.ones(1), np.ones_like(x)

    options = {"clip_values": (low, high), "max_steps": 5, "first": 1 / 16, "growth": 0.0}
    found = minimum_norm_attack(x, Y[:1], margin, upwards, **options)
    side = high - low
    np.testing.assert_allclose(
        np.array(seen) - low, side * np.array([[0, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1]] * 2).T, rtol=1e-5
    )
    np.testing.assert_array_equal(found.x, seen[-1:])
    seen.clear()
    minimum_norm_attack(x, Y[:1], margin, upwards, **options | {"growth": 3.0})
    np.testing.assert_allclose(np.array(seen) - low, side * np.array([[0, 1 / 16, 1 / 4, 1, 1, 1]] * 2).T)


def test_progress():
    """Seven tenths are those samples that are wrong by now, three the bisection."""
    done = []
    minimum_norm_attack(X, Y, margin, margin_and_gradient, halvings=4, on_step=done.append)
    climbing = len(done) - 5
    assert done[0] == pytest.approx(0.7 / 3)  # one is wrong from the start
    assert set(np.round(np.array(done[:climbing]) * 3 / 0.7, 6)) <= {1, 2, 3}
    assert done[climbing - 1] == pytest.approx(0.7)
    assert done[climbing:] == pytest.approx([0.775, 0.85, 0.925, 1, 1])
    assert done == sorted(done)
