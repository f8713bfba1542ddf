"""Projected gradient descent: optima known by hand, bounds, and which of its points it returns."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import kstest

from preshield.evaluation.perturbations import norms
from preshield.evaluation.projected_gradient_descent import projected_gradient_descent

RNG = np.random.default_rng(0)
W = RNG.standard_normal(12)
X = RNG.uniform(0.3, 0.7, (5, 3, 4)).astype(np.float32)
Y = np.array([0, 1, 0, 1, 1])
SIGNS = 1 - 2.0 * Y


def linear(x, y):
    """The margin is w.x for class 0 and its negative for class 1."""
    signs = 1 - 2.0 * y
    gradient = -signs[:, None, None] * W.reshape(3, 4)  # of the loss, which grows as the margin falls
    return signs * (x.reshape(len(x), -1) @ W), gradient.astype(np.float32)


@pytest.mark.parametrize("steps", [1, 2, 20])
def test_the_worst_corner_of_a_cube(steps):
    found = projected_gradient_descent(X, Y, linear, norm="linf", eps=0.1, steps=steps)
    np.testing.assert_allclose(found, X - 0.1 * SIGNS[:, None, None] * np.sign(W).reshape(3, 4), atol=1e-6)
    assert found.dtype == np.float32


def test_the_worst_point_of_a_ball():
    found = projected_gradient_descent(X, Y, linear, norm="l2", eps=0.2, steps=1)
    wanted = -0.2 * SIGNS[:, None, None] * (W / np.linalg.norm(W)).reshape(3, 4)
    np.testing.assert_allclose(found - X, wanted, atol=1e-6)
    found = projected_gradient_descent(X, Y, linear, norm="l2", eps=0.2, steps=40)  # from a random point
    gained = linear(X, Y)[0] - linear(found, Y)[0]
    np.testing.assert_allclose(gained, 0.2 * np.linalg.norm(W), rtol=0.05)  # 2.5 eps of way in all


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_bounds_and_range(norm):
    seen = []

    def watch(x, y):
        seen.append(x)
        return linear(x, y)

    projected_gradient_descent(X, Y, watch, norm=norm, eps=0.5, clip_values=(0.2, 0.8), steps=7)
    assert len(seen) == 8
    for point in seen:
        assert point.min() >= np.float32(0.2)
        assert point.max() <= np.float32(0.8)
        size = norms(point - X) if norm == "l2" else np.abs(point - X).max(axis=(1, 2))
        assert size.max() <= 0.5 * (1 + 1e-6)


def test_the_best_point_is_kept_rather_than_the_last():
    def valley(x, y):  # wrong near 0.55 alone, and a gradient that leads through it and on
        return np.abs(x[:, 0] - 0.55) - 0.02, np.ones_like(x)

    x = np.full((3, 1), 0.5, np.float32)
    found = projected_gradient_descent(x, np.zeros(3, int), valley, norm="linf", eps=0.2, steps=50)
    assert np.abs(found - 0.55).max() < 0.02


@pytest.mark.parametrize("useless", [0.0, np.nan, np.inf])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_gradient_that_leads_nowhere(norm, useless):
    points = []

    def blind(x, y):
        points.append(x)
        return linear(x, y)[0], np.full_like(x, useless)

    found = projected_gradient_descent(X, Y, blind, norm=norm, eps=0.3, steps=30)
    steps = norms(np.diff(points, axis=0).reshape(30 * 5, 12))
    assert steps.min() > 0  # it never stands still
    np.testing.assert_array_equal(linear(found, Y)[0], np.min([linear(p, Y)[0] for p in points], axis=0))


@pytest.mark.parametrize("shape", [(1,), (2,), (3, 4)])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_starts_fill_the_ball(norm, shape):
    starts = []

    def first(x, y):
        starts.append(x)
        return np.zeros(len(x)), np.zeros_like(x)

    x = np.full((4000, *shape), 0.5)
    projected_gradient_descent(x, np.zeros(4000, int), first, norm=norm, eps=0.4, steps=2)
    moved = (starts[0] - x).reshape(4000, -1)
    radii = norms(moved) if norm == "l2" else np.abs(moved).max(axis=1)
    # The share of the volume within the radius of a point is uniform, and so is each of its directions.
    assert kstest((radii / 0.4) ** moved.shape[1], "uniform").pvalue > 0.01
    assert np.abs((moved > 0).mean(axis=0) - 0.5).max() < 4 * 0.5 / np.sqrt(4000)


def test_the_seed_decides():
    points = []

    def watch(x, y):
        points.append(x)
        return linear(x, y)

    for seed in (1, 1, 2):
        projected_gradient_descent(X, Y, watch, norm="l2", eps=0.2, steps=2, seed=seed)
    np.testing.assert_array_equal(points[0], points[3])
    assert (points[0] != points[6]).any()


def test_progress():
    done = []
    projected_gradient_descent(X, Y, linear, norm="l2", eps=0.1, steps=3, on_step=done.append)
    assert done == [0.25, 0.5, 0.75, 1]


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_defaults(norm):
    """Fifty steps, each from an evaluation, and one for the last point; values between 0 and 1."""
    seen = []

    def watch(x, y):
        seen.append(x)
        return linear(x, y)

    projected_gradient_descent(X, Y, watch, norm=norm, eps=2.0)
    assert len(seen) == 51
    assert np.min(seen) == 0
    assert np.max(seen) == 1


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_length_of_a_step(norm):
    """Two and a half times the bound, divided among the steps; within the bound it is taken in full."""
    seen = []

    def watch(x, y):
        seen.append(x)
        return np.ones(len(x)), np.ones_like(x)

    x = np.full((200, 3), 0.5)
    projected_gradient_descent(x, np.zeros(200, int), watch, norm=norm, eps=0.2, steps=100)
    for before, after in pairwise(seen[:4]):
        towards = before + (0.005 if norm == "linf" else 0.005 / np.sqrt(3))
        size = norms(towards - x) if norm == "l2" else np.abs(towards - x).max(axis=1)
        assert (size < 0.2).sum() > 100
        np.testing.assert_allclose(after[size < 0.2], towards[size < 0.2])
