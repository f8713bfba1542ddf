"""The batched minimisers beside SciPy's."""

from itertools import pairwise

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
def test_a_gradient_that_is_no_number_ends_the_descent(method):
    result = minimise(
        lambda x, rows: (x.sum(axis=1), np.full_like(x, np.nan)), np.ones((2, 3)), method=method
    )
    np.testing.assert_array_equal(result.x, 1)
    assert (result.evaluations <= 2).all()


@methods
def test_a_step_that_gains_next_to_nothing_is_shortened(method):
    def objective(x, rows):  # down to the plateau that begins at 1e-6
        return np.maximum(-x, -1e-6)[:, 0], np.where(x < 1e-6, -1.0, 0.0)

    result = minimise(objective, np.zeros((1, 1)), method=method, max_iter=1)
    assert 0 < 1e-4 * result.x[0, 0] <= -result.value[0]


@methods
def test_a_valley_that_a_step_leapt_over_is_returned_to(method):
    def objective(x, rows):  # down, but for a rise at 1.5 that the steps 1 and 2 do not see
        t = np.clip(5 * x - 7, 0, 1)
        return (1.5 * t**2 * (3 - 2 * t) - x)[:, 0], 45 * t * (1 - t) - 1

    assert 1 < minimise(objective, np.zeros((1, 1)), method=method, max_iter=1).x[0, 0] < 1.5


@methods
@pytest.mark.parametrize(("height", "expected"), [(1e12, 0.1), (np.inf, 0.5)])
def test_a_cliff_does_not_stall_the_line_search(method, height, expected):
    seen = []

    def objective(x, rows):  # the cubic through 0 and 1 is least next to 0, or nowhere
        seen.append(x[0, 0])
        return np.where(x < 1, -x, height)[:, 0], np.where(x < 1, -1.0, 1.0)

    minimise(objective, np.zeros((1, 1)), method=method, max_iter=1)
    assert seen[seen.index(1) + 1] == expected


@pytest.mark.parametrize("scale", [1.0, 0.25, 3.0])
@pytest.mark.parametrize(("a", "b"), [(4.0, 5.0), (2.0, 1.0), (8.0, 0.5)])
def test_the_minimum_of_a_cubic_is_found_at_once(scale, a, b):
    """The first step has length 1; the slope (a x - 1) (b x + 1) vanishes at the minimum, 1 / a."""
    seen = []

    def objective(x, rows):
        seen.append(x[0, 0])
        value = -x + (a - b) / 2 * x**2 + a * b / 3 * x**3
        return scale * value[:, 0], scale * (a * x - 1) * (b * x + 1)

    result = minimise(objective, np.zeros((1, 1)), max_iter=1)
    assert seen == pytest.approx([0, 1, 1 / a], rel=1e-12)
    assert result.x[0, 0] == seen[-1]


@methods
def test_a_function_with_a_kink_at_its_minimum(method):
    def objective(x, rows):
        return np.abs(x).sum(axis=1) + 5 * np.abs(x[:, 0] - x[:, 1]), np.sign(x) + 5 * np.sign(
            x[:, :1] - x[:, 1:]
        ) * [1, -1]

    result = minimise(objective, np.array([[3.0, 2.0]]), method=method, max_iter=50)
    assert result.value[0] < 5  # steepest descent from (3, 2) meets the valley x = y at a value of 5


def iterates(objective, start, method, steps):
    """The points after 0, 1, 2, ... steps from one start, with values and gradients."""
    points = [start] + [
        minimise(objective, start[None], method=method, max_iter=k + 1, tolerance=0).x[0]
        for k in range(steps)
    ]
    evaluations = [objective(x[None], np.array([0])) for x in points]
    return (
        np.array(points),
        np.array([e[0][0] for e in evaluations]),
        np.array([e[1][0] for e in evaluations]),
    )


def assert_parallel(a, b):
    np.testing.assert_allclose(a / np.linalg.norm(a), b / np.linalg.norm(b), atol=1e-9)


START = np.array([-1.2, 1.0, 0.5, -0.3, 0.8, 2.0, -0.7])


def test_lbfgs_follows_the_matrix_of_its_last_five_pairs():
    x, _, grads = iterates(rosenbrock, START, "L-BFGS-B", 12)
    steps, changes, unit = np.diff(x, axis=0), np.diff(grads, axis=0), np.eye(len(START))
    assert_parallel(steps[0], -grads[0])
    for k in range(1, 12):
        s, y = steps[k - 1], changes[k - 1]
        inverse = s @ y / (y @ y) * unit
        for s, y in zip(steps[max(k - 5, 0) : k], changes[max(k - 5, 0) : k], strict=True):
            keep = unit - np.outer(s, y) / (s @ y)
            inverse = keep @ inverse @ keep.T + np.outer(s, s) / (s @ y)
        assert_parallel(steps[k], -inverse @ grads[k])


def test_cg_follows_polak_and_ribiere():
    start = np.random.default_rng(3).normal(size=7)  # some coefficients on the way are negative
    x, _, grads = iterates(rosenbrock, start, "CG", 8)
    coefficients = [g @ (g - before) / (before @ before) for before, g in pairwise(grads)]
    assert min(coefficients) < 0 < max(coefficients)
    direction = -grads[0]
    for step, grad, coefficient in zip(np.diff(x, axis=0), grads[1:], coefficients, strict=True):
        assert_parallel(step, direction)
        direction = max(coefficient, 0) * direction - grad


def test_newton_converges_faster_and_faster():
    objective, minima, start = quadratics(5, 1, 8)
    x, _, _ = iterates(objective, start[0], "Newton-CG", 9)
    errors = np.linalg.norm(x - minima, axis=1)
    assert errors[9] < 1e-8 * errors[0]
    assert errors[9] / errors[8] < 1e-2 * errors[1] / errors[0]


@pytest.mark.parametrize(
    ("method", "left", "strong"), [("L-BFGS-B", 0.3, False), ("CG", 0.1, True), ("Newton-CG", 0.9, False)]
)
def test_steps_meet_the_wolfe_conditions(method, left, strong):
    x, values, grads = iterates(rosenbrock, START, method, 12)
    for k, step in enumerate(np.diff(x, axis=0)):
        before, after = grads[k] @ step, grads[k + 1] @ step
        assert before < 0
        assert values[k + 1] <= values[k] + 1e-4 * before
        assert after >= left * before
        assert not strong or after <= -left * before


@methods
def test_neighbours_do_not_matter_to_the_last_bit(method):
    start = np.random.default_rng(2).normal(size=(9, 37))  # an odd length: vector instructions leave a rest
    together = minimise(rosenbrock, start, method=method, max_iter=15)
    for chosen in ([4], [8, 2, 5], [7, 6, 5, 4, 3, 2, 1, 0]):
        few = minimise(rosenbrock, start[chosen], method=method, max_iter=15)
        for name in ("x", "value", "iterations", "evaluations"):
            np.testing.assert_array_equal(getattr(few, name), getattr(together, name)[chosen])


@methods
def test_an_objective_may_return_any_layout_and_precision(method):
    def objective(x, rows):
        return (x**2).sum(axis=1).astype(np.float32), np.asfortranarray(2 * x, dtype=np.float32)

    result = minimise(objective, np.ones((3, 4)), method=method)
    assert result.x.dtype == result.value.dtype == np.float64
    np.testing.assert_allclose(result.x, 0, atol=1e-5)


@methods
def test_an_empty_batch(method):
    result = minimise(lambda x, rows: (x.sum(axis=1), np.ones_like(x)), np.empty((0, 4)), method=method)
    assert result.x.shape == (0, 4)


def crooked(x, rows):
    """A valley with a kinked floor, around whose bends the gradient at one side says nothing of the other."""
    rest = x[:, 1] - x[:, 0] ** 2
    grad = np.stack([-20 * np.sign(rest) * x[:, 0] - 2 * (1 - x[:, 0]), 10 * np.sign(rest)], axis=1)
    return 10 * np.abs(rest) + (1 - x[:, 0]) ** 2, grad


def test_before_a_row_stops_the_gradient_itself_has_been_searched():
    """Where the remembered pairs lead nowhere, L-BFGS forgets them; it tries 20 steps along each line."""
    cosines = []
    for start in np.random.default_rng(0).normal(size=(25, 1, 2)) * 2:
        seen = []

        def objective(x, rows, seen=seen):
            seen.append(x[0].copy())
            return crooked(x, rows)

        result = minimise(objective, start, max_iter=300)
        last, grad = seen[-20] - result.x[0], crooked(result.x, [0])[1][0]
        if result.iterations[0] < 300 and last.any():
            cosines.append(-last @ grad / np.linalg.norm(last) / np.linalg.norm(grad))
    assert len(cosines) > 15
    # Not all: at the bottom of the valley the steps are as small as rounding.
    assert np.median(cosines) > 0.9999


@pytest.mark.parametrize("scale", [1, 1e-3])
def test_a_line_search_does_not_look_for_less_than_the_precision(scale):
    seen = []

    def uphill(x, rows):  # whichever way: the line is searched until it ends for another reason
        seen.append(np.abs(x[0, 0]))
        return scale * (4 + 100 * np.abs(x[:, 0])), np.full((1, 1), -3.0 * scale)

    counts = []
    for precision in (1e-2, 1e-3, 1e-9):
        seen.clear()
        result = minimise(uphill, np.zeros((1, 1)), precision=precision)
        assert result.x == 0
        counts.append(len(seen))
        # 3 is what each unit of the step promises, 4 the value.
        assert (3 * np.array(seen[1:]) > 4 * precision).all()
    assert counts[0] < counts[1] < counts[2] <= 21
    assert min(seen) == 0


def test_values_in_single_precision_do_not_cost_more_and_lose_nothing():
    objective, _, start = quadratics(7, 50, 10)

    def rounded(x, rows):  # with a least value of 1
        value, grad = objective(x.astype(np.float32).astype(np.float64), rows)
        return (value + 1).astype(np.float32), grad.astype(np.float32)

    blind = minimise(rounded, start, max_iter=200, tolerance=0)
    aware = minimise(rounded, start, max_iter=200, tolerance=0, precision=1e-6)
    assert aware.evaluations.sum() < blind.evaluations.sum() / 2
    value, _ = objective(aware.x, np.arange(50))
    assert (value < 2e-5).all()


@pytest.mark.parametrize("kinked", [False, True])
def test_the_latents_of_a_network_beside_scipy(kinked):
    """Errors of the images of a small network, from the same starts, in the precision of the search."""
    rng = np.random.default_rng(1)
    weights = [rng.normal(size=shape) / np.sqrt(shape[0]) for shape in ((6, 32), (32, 32), (32, 40))]

    def network(z):
        layers = [z]
        for w in weights:
            inside = layers[-1] @ w
            layers.append(np.maximum(inside, 0) if kinked and w is not weights[-1] else np.tanh(inside))
        return layers

    targets = network(rng.normal(size=(50, 6)))[-1] + rng.normal(size=(50, 40)) / 10
    start = rng.normal(size=(50, 6))

    def objective(z, rows):
        layers = network(z)
        rest = layers[-1] - targets[rows]
        grad = rest / 20
        for w, layer in zip(weights[::-1], layers[:0:-1], strict=True):
            grad = grad * ((layer > 0) if kinked and w is not weights[-1] else 1 - layer**2) @ w.T
        return (rest**2).mean(axis=1), grad

    ours = minimise(objective, start, max_iter=200, tolerance=1e-6, precision=1e-6)

    def scipys(k):
        def one(z):
            value, grad = objective(z[None], [k])
            return value[0], grad[0]

        return minimize(one, start[k], jac=True, method="L-BFGS-B", options={"maxiter": 200}).fun

    theirs = np.array([scipys(k) for k in range(50)])
    assert np.median(ours.value - theirs) < 1e-6 * np.median(theirs)
    if not kinked:  # whichever of the valleys a row is in, it has reached the ground
        assert np.abs(objective(ours.x, np.arange(50))[1]).max() < 1e-4


# Adam


def test_adam_solves_quadratics():
    objective, minima, start = quadratics(3, 6, 5)
    result = minimise(objective, start, method="Adam", max_iter=2000, tolerance=0, learning_rate=0.3)
    np.testing.assert_allclose(result.x, minima, atol=1e-4)


@pytest.mark.parametrize(("options", "rate"), [({}, 0.3), ({"learning_rate": 0.5}, 0.5)])
def test_the_first_steps_of_adam_by_hand(options, rate):
    gradients = np.array([3.0, -1.0, 0.5])  # whatever the point
    seen = []

    def objective(x, rows):
        seen.append(x[0, 0])
        return -np.arange(1.0, 2) * len(seen), gradients[[[len(seen) - 1]]]

    minimise(objective, np.zeros((1, 1)), method="Adam", max_iter=2, **options)
    # m = 0.1 * 3 / 0.1 = 3, v = 9: a step of the rate; then m = (0.27 - 0.1) / 0.19,
    # v = (0.999 * 9 + 1) / 1.999, and half of the rate.
    second = rate / 2 * (0.17 / 0.19) / np.sqrt((0.999 * 9 + 1) / 1.999)
    np.testing.assert_allclose(seen, [0, -rate, -rate - second], rtol=1e-7)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), max_iter=st.integers(1, 8))
def test_adam_keeps_the_best_point_and_each_row_on_its_own(seed, max_iter):
    rng = np.random.default_rng(seed)
    frequencies = rng.uniform(1, 20, size=(5, 3))
    seen = {k: [] for k in range(5)}

    def bumpy(x, rows):
        value = np.sin(frequencies[rows] * x).sum(axis=1)
        for row, v in zip(rows, value, strict=True):
            seen[row].append(v)
        return value, frequencies[rows] * np.cos(frequencies[rows] * x)

    start = rng.normal(size=(5, 3))
    kept = start.copy()
    result = minimise(bumpy, start, method="Adam", max_iter=max_iter, tolerance=0)
    np.testing.assert_array_equal(start, kept)
    np.testing.assert_array_equal(result.value, [min(seen[k]) for k in range(5)])
    np.testing.assert_array_equal(result.iterations, max_iter)
    np.testing.assert_array_equal(result.evaluations, max_iter + 1)
    for k in range(5):
        alone = minimise(
            lambda x, _, k=k: bumpy(x, np.full(len(x), k)),
            start[k : k + 1],
            method="Adam",
            max_iter=max_iter,
            tolerance=0,
        )
        np.testing.assert_allclose(alone.x[0], result.x[k], rtol=1e-12)


def test_adam_leaves_finished_rows_alone():
    seen = []

    def objective(x, rows):
        seen.append(rows.copy())
        return (x**2).sum(axis=1) / 2, np.where(rows[:, None] == 1, 0.0, x)

    result = minimise(objective, np.array([[1.0], [1.0], [1e-9]]), method="Adam", max_iter=5)
    np.testing.assert_array_equal(result.evaluations, [6, 1, 1])
    np.testing.assert_array_equal(result.iterations, [5, 0, 0])
    assert [list(rows) for rows in seen] == [[0, 1, 2]] + [[0]] * 5


def test_adam_of_no_number_and_of_no_rows():
    result = minimise(
        lambda x, rows: (np.full(len(x), np.nan), np.full_like(x, np.nan)), np.ones((2, 3)), method="Adam"
    )
    np.testing.assert_array_equal(result.x, 1)
    np.testing.assert_array_equal(result.evaluations, 1)
    empty = minimise(lambda x, rows: (x.sum(axis=1), x), np.empty((0, 4)), method="Adam")
    assert empty.x.shape == (0, 4)
