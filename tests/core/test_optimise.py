"""The batched minimisers beside SciPy's."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize, rosen, rosen_der

from preshield._core.optimise import METHODS, minimise

methods = pytest.mark.parametrize("method", METHODS)


def quadratics(seed, batch, n, condition=30.0):
    """Convex quadratics with known minima, the objective for `minimise`, and starting points."""
    rng = np.random.default_rng(seed)
    turns = np.linalg.qr(rng.normal(size=(batch, n, n)))[0]
    curvatures = np.exp(rng.uniform(0, np.log(condition), size=(batch, n)))
    matrices = np.einsum("bij,bj,bkj->bik", turns, curvatures, turns)
    minima = rng.normal(size=(batch, n))

    def objective(x, rows):
        grads = np.einsum("bij,bj->bi", matrices[rows], x - minima[rows])
        return np.einsum("bi,bi->b", grads, x - minima[rows]) / 2, grads

    return objective, minima, 3 * rng.normal(size=(batch, n))


def rosenbrock(x, rows):
    return np.array([rosen(p) for p in x]), np.array([rosen_der(p) for p in x])


@methods
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), batch=st.integers(1, 5), n=st.integers(1, 12))
def test_convex_quadratics_are_solved(method, seed, batch, n):
    objective, minima, start = quadratics(seed, batch, n)
    result = minimise(objective, start, method=method, max_iter=500, tolerance=1e-7)
    # the gradient bounds the distance: |x - minimum| <= |gradient| / least curvature, here 1
    np.testing.assert_allclose(result.x, minima, atol=1e-7 * np.sqrt(n))


@methods
def test_rosenbrock_ends_where_scipy_ends(method):
    start = np.array([[-1.2, 1.0, 0.5], [2.0, -1.0, 0.0], [0.0, 0.0, 0.0]])
    result = minimise(rosenbrock, start, method=method, max_iter=1000, tolerance=1e-6)
    for x, value, x0 in zip(result.x, result.value, start, strict=True):
        theirs = minimize(rosen, x0, jac=rosen_der, method="BFGS", options={"gtol": 1e-6})
        np.testing.assert_allclose(x, theirs.x, atol=1e-5)
        assert value == rosen(x)


@methods
def test_ten_steps_do_no_worse_than_scipy_on_average(method):
    # Ten steps of CG on ten unknowns solve a quadratic, so more unknowns than steps are needed here.
    objective, _, start = quadratics(3, 30, 40, condition=300.0)
    ours = minimise(objective, start, method=method, max_iter=10).value
    theirs = []
    for k, x0 in enumerate(start):
        rows = np.array([k])
        solved = minimize(
            lambda x, rows=rows: float(objective(x[None], rows)[0][0]),
            x0,
            jac=lambda x, rows=rows: objective(x[None], rows)[1][0],
            method=method,
            options={"maxiter": 10},
        )
        theirs.append(solved.fun)
    assert ours.mean() <= np.mean(theirs)


@methods
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), max_iter=st.integers(1, 8))
def test_never_above_the_start_and_each_row_on_its_own(method, seed, max_iter):
    rng = np.random.default_rng(seed)
    frequencies, offsets = rng.uniform(0.5, 3, size=(2, 5, 4))

    def bumpy(x, rows):  # neither convex nor smooth
        inside = frequencies[rows] * x + offsets[rows]
        value = np.sin(inside).sum(axis=1) + np.abs(x).sum(axis=1)
        return value, frequencies[rows] * np.cos(inside) + np.sign(x)

    start = rng.normal(size=(5, 4))
    kept = start.copy()
    result = minimise(bumpy, start, method=method, max_iter=max_iter)
    np.testing.assert_array_equal(start, kept)
    value, _ = bumpy(result.x, np.arange(5))
    np.testing.assert_array_equal(result.value, value)
    assert (result.value <= bumpy(start, np.arange(5))[0]).all()
    assert (result.iterations <= max_iter).all()
    for k in range(5):
        alone = minimise(
            lambda x, _, k=k: bumpy(x, np.full(len(x), k)), start[k : k + 1], method=method, max_iter=max_iter
        )
        np.testing.assert_array_equal(alone.x[0], result.x[k])
        assert alone.evaluations[0] == result.evaluations[k]


@methods
def test_finished_rows_are_left_alone(method):
    seen = []
    scale = np.array([0.0, 1.0, 100.0])[:, None]  # at rest; one step; many steps

    def objective(x, rows):
        seen.append(rows.copy())
        curvature = 1 + scale[rows] * np.arange(x.shape[1])
        return (curvature * x**2).sum(axis=1) / 2, curvature * x

    start = np.array([[0.0] * 6, [1.0] + [0.0] * 5, [1.0] * 6])
    result = minimise(objective, start, method=method, max_iter=100)
    counts = np.bincount(np.concatenate(seen), minlength=3)
    np.testing.assert_array_equal(counts, result.evaluations)
    assert counts[0] == 1
    assert result.iterations[0] == 0
    assert result.iterations[1] < result.iterations[2]
    assert counts[1] < counts[2]
    last = {row: max(i for i, rows in enumerate(seen) if row in rows) for row in range(3)}
    assert last[0] < last[1] < last[2]
    np.testing.assert_allclose(result.x, 0, atol=1e-5)


@methods
@pytest.mark.parametrize("max_iter", [1, 2, 5])
def test_max_iter_is_honoured(method, max_iter):
    start = np.full((1, 6), -1.0)
    result = minimise(rosenbrock, start, method=method, max_iter=max_iter, tolerance=0)
    assert result.iterations[0] == max_iter


@methods
def test_a_gradient_that_points_the_wrong_way_changes_nothing(method):
    start = np.ones((2, 3))
    result = minimise(lambda x, rows: ((x**2).sum(axis=1), -2 * x), start, method=method)
    np.testing.assert_array_equal(result.x, start)
    np.testing.assert_array_equal(result.iterations, 0)


@methods
def test_a_function_with_a_kink_at_its_minimum(method):
    def objective(x, rows):
        return np.abs(x).sum(axis=1) + 5 * np.abs(x[:, 0] - x[:, 1]), np.sign(x) + 5 * np.sign(
            x[:, :1] - x[:, 1:]
        ) * [1, -1]

    result = minimise(objective, np.array([[3.0, 2.0]]), method=method, max_iter=50)
    assert result.value[0] < 5  # steepest descent from (3, 2) meets the valley x = y at a value of 5


@methods
def test_an_empty_batch(method):
    result = minimise(lambda x, rows: (x.sum(axis=1), np.ones_like(x)), np.empty((0, 4)), method=method)
    assert result.x.shape == (0, 4)
