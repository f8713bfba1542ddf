"""Arithmetic on batches of perturbations: the same in every framework."""

import numpy as np
import pytest

from preshield._core.tensors import framework
from preshield.evaluation.perturbations import (
    at_least,
    between,
    chosen,
    copied,
    dots,
    for_each,
    host,
    norms,
    places,
    put,
    scaled,
    take,
    unit,
    within,
)

X = np.array([[[3, 0], [0, 4]], [[0, 0], [0, 0]], [[-1, 2], [2, -4]]], dtype=np.float32)


@pytest.fixture(params=["numpy", "numpy in double", "torch", "torch in double", "jax"])
def like(request):
    """What makes an array of the framework."""
    kind = request.param.split()[0]
    dtype = np.float64 if "double" in request.param else np.float32
    if kind == "torch":
        torch = pytest.importorskip("torch")
        return lambda x: torch.from_numpy(np.array(x, dtype))
    if kind == "jax":
        jnp = pytest.importorskip("jax").numpy
        return lambda x: jnp.asarray(np.array(x, dtype))
    return lambda x: np.array(x, dtype)


def equal(found, expected, like, **tolerance):
    """The values, and the kind of array."""
    expected = like(expected)
    assert type(found) is type(expected)
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(host(found), host(expected), **{"rtol": 1e-6, "atol": 0, **tolerance})


def test_numbers_of_samples_by_hand(like):
    x = like(X)
    for norm, expected in (("l2", [5, 0, 5]), ("linf", [4, 0, 4]), ("l1", [7, 0, 9])):
        found = norms(x, norm)
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        assert isinstance(found, np.ndarray)
        assert found.dtype == np.float64
    np.testing.assert_array_equal(norms(x), norms(x, "l2"))
    found = dots(x, like(np.arange(12).reshape(X.shape)))
    np.testing.assert_array_equal(found, [3 * 0 + 4 * 3, 0, -8 + 2 * 9 + 2 * 10 - 4 * 11])
    assert isinstance(found, np.ndarray)


def test_of_jax_few_numbers_of_points_are_taken(like):
    x, mask, samples = like(np.zeros((100, 1))), np.zeros(100, bool), np.arange(100)
    of_jax = framework(x) == "jax"
    mask[samples % 5 == 3] = True
    wanted = samples[mask]
    found = places(mask, x)
    assert len(found) == (32 if of_jax else 20)
    np.testing.assert_array_equal(found[:20], wanted)
    assert (found[20:] == 98).all()
    assert not len(places(samples < 0, x))  # none
    np.testing.assert_array_equal(places(samples >= 0, x), samples)  # all
    few = places(samples < 2, x)
    assert len(few) == (16 if of_jax else 2)
    # Of points that stand for one sample, the first is enough; no more are taken than there are.
    again = places(few >= 0, x[:16], few) if of_jax else few
    np.testing.assert_array_equal(np.unique(few[again]), [0, 1])
    if of_jax:
        mask = np.ones(40, bool)
        mask[0] = False
        found = places(mask, x[:40], np.minimum(np.arange(40), 20))
        np.testing.assert_array_equal(found, [*range(1, 21), *[20] * 12])


def test_samples_by_hand(like):
    x = like(X)
    equal(scaled(x, np.array([2, 7, -1.0])), X * np.array([2, 7, -1])[:, None, None], like)
    equal(unit(x), X / np.array([5, 1, 5])[:, None, None], like)
    middle = between(x, like(np.ones_like(X)), np.array([0.5, 1, 0]))
    equal(middle, [[[2, 0.5], [0.5, 2.5]], [[1, 1], [1, 1]], X[2]], like)
    equal(chosen(np.array([True, False, True]), x, x + 1), [X[0], X[1] + 1, X[2]], like)
    equal(for_each(np.array([1, 2, 3]), x), np.array([1, 2, 3])[:, None, None], like)
    assert host(for_each(np.array([True, False, True]), x)).dtype == bool
    np.testing.assert_array_equal(host(x), X)


def test_some_samples(like):
    x = like(X)
    equal(take(x, np.array([2, 0, 2])), X[[2, 0, 2]], like)
    equal(take(x, np.array([2, 1, 0])), X[::-1], like)
    equal(take(x, np.arange(2)), X[:2], like)
    equal(take(x, np.zeros(0, int)), X[:0], like)
    equal(take(x, np.arange(3)), X, like)


def test_samples_are_put_into_a_copy(like):
    x = like(X)
    own = copied(x)
    changed = put(own, np.array([2, 0]), like(X[:2] + 1))
    equal(changed, [X[1] + 1, X[1], X[0] + 1], like)
    equal(x, X, like)
    equal(put(x, np.zeros(0, int), like(X[:0])), X, like)


def test_a_small_batch_is_filled_up_with_its_last_sample(like):
    x = like(X)
    equal(at_least(x, 5), X[[0, 1, 2, 2, 2]], like)
    assert len(at_least(x)) == 16
    for enough in (x[:0], at_least(x, 3), at_least(x, 2)):
        assert len(enough) in (0, 3)
    large = like(np.zeros((2, 300, 300)))
    assert at_least(large) is large  # too large to be repeated for it


def test_what_single_precision_takes_for_nothing_has_a_direction(like):
    tiny = like([[3e-30, 4e-30], [3e30, 4e30]])  # squares of which are 0 and infinite in single precision
    np.testing.assert_allclose(norms(tiny), [5e-30, 5e30], rtol=1e-6)
    equal(unit(tiny), [[0.6, 0.8]] * 2, like)


def test_there_may_be_no_samples(like):
    nothing = like(X[:0])
    for norm in ("l2", "linf", "l1"):
        assert norms(nothing, norm).shape == (0,)
    for found in (unit(nothing), within(nothing, nothing, "l2", 1.0), scaled(nothing, np.zeros(0))):
        assert found.shape == (0, 2, 2)


def test_a_perturbation_is_brought_back_to_the_bound_and_no_further(like):
    start = np.ones((3, 1, 2))
    steps = np.array([[[3, 4]], [[0.3, -0.4]], [[0, 0]]])  # of norm 5, 0.5 and 0
    x, moved = like(start), like(start + steps)
    equal(within(x, moved, "l2", 1.0) - x, [[[0.6, 0.8]], [[0.3, -0.4]], [[0, 0]]], like, atol=2e-7)
    equal(within(x, moved, "linf", 0.35) - x, [[[0.35, 0.35]], [[0.3, -0.35]], [[0, 0]]], like, atol=2e-7)
    equal(within(x, moved, "l2", 9.0), host(moved), like)
    equal(within(x, moved, "l2", 0.0), start, like)
    equal(x, start, like)
