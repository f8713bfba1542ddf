"""Points nearest to samples on hyperplanes within a box."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import linprog, minimize

from preshield.evaluation.perturbations import norms
from preshield.evaluation.projection import nearest_in_ball, nearest_on_plane

NORMS = ["l2", "linf", "l1"]
LOW, HIGH = -1.0, 2.0


def nearest(x, normal, rise, norm, clip_values=(LOW, HIGH)):
    return nearest_on_plane(x[None], normal[None], np.array([rise]), clip_values, norm)[0]


def smallest_norm(x, normal, rise, norm):
    """By the solvers of SciPy, which know nothing of how these problems are solved here."""
    size = len(x)
    if norm == "l2":
        plane = {"type": "eq", "fun": lambda d: normal @ d - rise, "jac": lambda d: normal}
        bounds = list(zip(LOW - x, HIGH - x, strict=True))
        start = nearest(x, normal, rise, "linf") - x  # on the plane, not the nearest
        options = {"ftol": 1e-15, "maxiter": 500}
        found = minimize(
            lambda d: d @ d / 2, start, jac=lambda d: d, bounds=bounds, constraints=plane, options=options
        )
        return np.sqrt(2 * found.fun)
    # The perturbation is a difference of two parts of one sign; their sum, or their common bound, is least.
    up, down = HIGH - x, x - LOW
    plane = np.concatenate([normal, -normal])
    if norm == "l1":
        bounds = [(0, most) for most in np.concatenate([up, down])]
        return linprog(np.ones(2 * size), A_eq=plane[None], b_eq=[rise], bounds=bounds).fun
    bounds = [(0, most) for most in np.concatenate([up, down])] + [(0, None)]
    below = np.hstack([np.eye(2 * size), -np.ones((2 * size, 1))])
    cost = np.append(np.zeros(2 * size), 1)
    return linprog(
        cost, A_ub=below, b_ub=np.zeros(2 * size), A_eq=np.append(plane, 0)[None], b_eq=[rise], bounds=bounds
    ).fun


@pytest.mark.parametrize("norm", NORMS)
@given(data=st.data())
def test_as_near_as_the_solvers_of_scipy_get(norm, data):
    size = data.draw(st.integers(1, 8))
    halves = st.integers(-4, 4).map(lambda value: value / 2)  # with ties and zeros
    normal = data.draw(arrays(np.float64, size, elements=halves | st.floats(-2, 2, allow_subnormal=False)))
    normal[np.abs(normal) < 1e-3] = 0
    x = data.draw(arrays(np.float64, size, elements=st.sampled_from([LOW, HIGH]) | st.floats(LOW, HIGH)))
    upwards = np.where(normal > 0, HIGH - x, LOW - x) @ normal
    downwards = np.where(normal > 0, LOW - x, HIGH - x) @ normal
    rise = downwards + (upwards - downwards) * data.draw(st.floats(0, 1))
    found = nearest(x, normal, rise, norm)
    assert ((found >= LOW) & (found <= HIGH)).all()
    np.testing.assert_allclose(normal @ (found - x), rise, atol=1e-9)
    length = norms((found - x)[None], norm)[0]
    assert length <= smallest_norm(x, normal, rise, norm) + 1e-6
    np.testing.assert_array_equal(found[normal == 0], x[normal == 0])


@pytest.mark.parametrize(
    ("norm", "moves"),
    # Slopes 4, 3, -2 and 0, of which the first component has room for 0.5 only.
    [("l2", [0.5, 0.6, -0.4, 0]), ("linf", [0.5, 0.52, -0.52, 0]), ("l1", [0.5, 2.6 / 3, 0, 0])],
)
def test_by_hand(norm, moves):
    x, normal = np.array([1.5, 0.0, 0.5, 0.0]), np.array([4.0, 3.0, -2.0, 0.0])
    np.testing.assert_allclose(nearest(x, normal, 4.6, norm), x + moves)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_nearest_corner_where_the_plane_is_out_of_reach(norm, size, sign):
    x = np.float32([[0, 1.5], [0, 1.5]])
    normals = np.float32([[3, -1], [0, 2]]) * np.float32(size)
    found = nearest_on_plane(x, normals, sign * np.array([20.0, np.inf]) * size, (LOW, HIGH), norm)
    corners = [[HIGH, LOW], [0, HIGH]] if sign > 0 else [[LOW, HIGH], [0, LOW]]
    np.testing.assert_array_equal(found, np.float32(corners))


@pytest.mark.parametrize("norm", NORMS)
def test_without_a_normal_or_a_rise_the_sample_stays(norm):
    x = np.float32([[0.25, -1], [0.25, 2]])
    normals = np.float32([[0, 0], [3, 4]])
    np.testing.assert_array_equal(nearest_on_plane(x, normals, np.array([5.0, 0]), (LOW, HIGH), norm), x)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("scale", [1e-20, 255.0])
def test_neither_the_unit_of_the_data_nor_that_of_the_normal_matters(norm, scale):
    rng = np.random.default_rng(0)
    x, normals = rng.random((3, 5, 2), np.float32), rng.standard_normal((3, 5, 2), np.float32)
    rise = np.array([0.5, -1, 2])
    expected = nearest_on_plane(x, normals, rise, (0.0, 1.0), norm)
    steep = nearest_on_plane(x, normals * np.float32(scale), rise * scale, (0.0, 1.0), norm)
    np.testing.assert_allclose(steep, expected, rtol=1e-5)
    wide = nearest_on_plane(x * 255, normals, rise * 255, (0.0, 255.0), norm)
    np.testing.assert_allclose(wide, expected * 255, rtol=1e-5)


@pytest.mark.parametrize("norm", NORMS)
def test_samples_do_not_depend_on_each_other(norm):
    rng = np.random.default_rng(0)
    x, normals = rng.random((6, 40), np.float32), rng.standard_cauchy((6, 40)).astype(np.float32)
    rise = np.array([0.1, 1, 5, -20, 1e3, 0])
    together = nearest_on_plane(x, normals, rise, (0.0, 1.0), norm)
    for i in range(6):
        alone = nearest_on_plane(x[[i]], normals[[i]], rise[[i]], (0.0, 1.0), norm)
        np.testing.assert_array_equal(alone[0], together[i])


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("framework", ["torch", "jax.numpy"])
def test_arrays_of_any_framework(norm, framework):
    xp = pytest.importorskip(framework)
    rng = np.random.default_rng(0)
    x, normals = rng.random((4, 3, 5), np.float32), rng.standard_normal((4, 3, 5), np.float32)
    rise = np.array([0.5, -1, 2, 100])
    found = nearest_on_plane(xp.asarray(x), xp.asarray(normals), rise, (0.0, 1.0), norm)
    assert isinstance(found, type(xp.asarray(x)))
    assert found.dtype == xp.float32
    expected = nearest_on_plane(x, normals, rise, (0.0, 1.0), norm)
    np.testing.assert_allclose(np.asarray(found), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("norm", "moves"),  # the nearest to (3, -1, 0.5) within 2
    [("l2", np.array([3, -1, 0.5]) * 2 / np.sqrt(10.25)), ("linf", [2, -1, 0.5]), ("l1", [2, 0, 0])],
)
def test_the_nearest_point_in_a_ball_by_hand(norm, moves):
    x = np.array([[0.25, 0.5, -1.0]])
    moved = x + np.array([3, -1, 0.5])
    found = nearest_in_ball(x, moved, np.array([2.0]), norm)
    np.testing.assert_allclose(found - x, [moves], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("norm", NORMS)
def test_nothing_in_a_ball_is_nearer(norm):
    """The inner product of what was cut off with a step to any other point of the ball is not positive."""
    rng = np.random.default_rng(5)
    x, moved, radii = rng.normal(size=(20, 7)), 3 * rng.normal(size=(20, 7)), rng.random(20) * 4
    found = nearest_in_ball(x, moved, radii, norm)
    assert (norms(found - x, norm) <= radii * (1 + 1e-9)).all()
    for _ in range(50):
        other = rng.normal(size=x.shape) * rng.integers(0, 2, x.shape)
        other *= (radii / norms(other, norm).clip(1e-9))[:, None]
        assert (((moved - found) * (x + other - found)).sum(axis=1) <= 1e-9).all()
    outside = norms(moved - x, norm) > radii
    np.testing.assert_allclose(norms(found - x, norm)[outside], radii[outside], rtol=1e-9)
    inside = nearest_in_ball(x, moved, norms(moved - x, norm) * 1.01, norm)
    np.testing.assert_allclose(inside, moved, rtol=1e-12)


@pytest.mark.parametrize("norm", NORMS)
def test_a_ball_without_extent(norm):
    x = np.array([[0.5, 1.0], [2.0, 0.0]])
    found = nearest_in_ball(x, np.array([[4.0, 1.0], [2.0, 0.0]]), np.zeros(2), norm)
    np.testing.assert_array_equal(found, x)
