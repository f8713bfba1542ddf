"""Linear filters: the recursion, its state, its transpose."""

import numpy as np
import pytest

from preshield import LFilter


def recursion(b, a, x, state=None):
    """y of a[0] y[n] = sum b[k] x[n - k] - sum a[k] y[n - k], as the textbook has it."""
    y = np.zeros(len(x))
    for n in range(len(x)):
        total = sum(b[k] * x[n - k] for k in range(len(b)) if n >= k)
        total -= sum(a[k] * y[n - k] for k in range(1, len(a)) if n >= k)
        y[n] = total / a[0]
    return y


COEFFICIENTS = {
    "delay": ([0.0, 1.0], [1.0]),
    "finite": ([0.5, 0.3, -0.2], [2.0]),
    "infinite": ([0.1, 0.2], [1.0, 0.1, 0.3, 0.4]),
    "sum of one": ([0.3, 0.2], [1.0, 0.5, -0.5]),  # for which ART takes it to be finite
    "scaled": ([1.0, 1.0], [-4.0, 2.0]),
}


@pytest.mark.parametrize("name", COEFFICIENTS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_recursion(name, dtype):
    b, a = COEFFICIENTS[name]
    x = np.random.default_rng(0).uniform(-1, 1, (3, 30)).astype(dtype)
    out = LFilter(np.array(b), np.array(a)).transform(x)
    assert out.dtype == dtype
    expected = np.stack([recursion(b, a, signal.astype(float)) for signal in x])
    np.testing.assert_allclose(out, expected.astype(dtype), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", COEFFICIENTS)
def test_the_gradient_is_the_transpose(name):
    b, a = COEFFICIENTS[name]
    matrix = np.stack([recursion(b, a, unit) for unit in np.eye(12)], axis=1)
    grad = np.random.default_rng(1).standard_normal((2, 12))
    pulled = LFilter(np.array(b), np.array(a)).estimate_gradient(np.zeros((2, 12)), grad)
    np.testing.assert_allclose(pulled, grad @ matrix, rtol=1e-10, atol=1e-12)


def test_a_finite_filter_by_hand():
    out = LFilter([1.0, 2.0, 3.0]).transform(np.array([[1.0, 0, 0, 0, 10]]))
    np.testing.assert_array_equal(out, [[1, 2, 3, 0, 10]])


def test_the_state_before_the_first_value():
    # y[0] = x[0] + z, y[n] = x[n] + x[n - 1]
    out = LFilter([1.0, 1.0], initial_cond=[5.0]).transform(np.array([[1.0, 2.0], [3.0, 4.0]]))
    np.testing.assert_array_equal(out, [[6, 3], [8, 7]])
    grad = LFilter([1.0, 1.0], initial_cond=[5.0]).estimate_gradient(np.ones((1, 2)), np.array([[1.0, 10.0]]))
    np.testing.assert_array_equal(grad, [[11, 10]])  # which the state does not change
    stereo = np.ones((1, 2, 3))
    out = LFilter([1.0, 1.0], initial_cond=[[5.0], [7.0]]).transform(stereo)
    np.testing.assert_array_equal(out, [[[6, 2, 2], [8, 2, 2]]])
    out = LFilter([1.0, 1.0], axis=0, initial_cond=[5.0]).transform(stereo.swapaxes(1, 2))
    np.testing.assert_array_equal(out, [[[6, 6], [2, 2], [2, 2]]])


@pytest.mark.parametrize(("axis", "time"), [(-1, 2), (1, 2), (0, 1), (-2, 1)])
def test_axis_is_that_of_a_sample(axis, time):
    x = np.random.default_rng(0).random((2, 9, 10))
    out = LFilter([0.0, 1.0], axis=axis).transform(x)
    np.testing.assert_array_equal(out, np.insert(np.delete(x, -1, time), 0, 0, time))


def test_the_axis_of_the_channels_is_refused():
    x = np.random.default_rng(0).random((2, 100, 2))
    with pytest.raises(
        ValueError, match=r"`axis` must be that of time, got -1 .* \(100, 2\).*; pass axis=0, or"
    ):
        LFilter([0.5, 0.5]).transform(x)
    with pytest.raises(ValueError, match=r"`axis` must be that of time, got -1"):
        LFilter([0.5, 0.5]).estimate_gradient(x, x)
    np.testing.assert_allclose(
        LFilter([0.5, 0.5], axis=0).transform(x)[..., 1], LFilter([0.5, 0.5]).transform(x[..., 1])
    )
    np.testing.assert_allclose(LFilter([0.5, 0.5], axis=1).transform(x)[..., 1], x.mean(axis=-1))
    with pytest.raises(
        ValueError, match=r"`axis` must be an axis of a sample of shape \(9,\), got 1; pass axis=-1"
    ):
        LFilter(axis=1).transform(np.zeros((2, 9)))


def test_clipping_stops_the_gradient():
    lfilter = LFilter([1.0, 1.0], clip_values=(-1, 1))
    x = np.array([[0.25, 0.5, 0.75, -0.5]])
    np.testing.assert_array_equal(lfilter.transform(x), [[0.25, 0.75, 1, 0.25]])
    grad = lfilter.estimate_gradient(x, np.array([[1.0, 2.0, 4.0, 8.0]]))
    np.testing.assert_array_equal(grad, [[1 + 2, 2, 8, 8]])  # nothing of the third, which was clipped


def test_samples_of_different_lengths():
    x = [np.array([1.0, 0, 0]), np.array([2.0, 0, 0, 0], np.float32), np.array([3, 0], np.int16)]
    lfilter = LFilter([1.0], [1.0, -0.5])
    out = lfilter.transform(x)
    assert [sample.tolist() for sample in out] == [[1, 0.5, 0.25], [2, 1, 0.5, 0.25], [3, 1.5]]
    assert [sample.dtype for sample in out] == [np.float64, np.float32, np.float32]
    pulled = lfilter.estimate_gradient(x, [np.ones(3), np.ones(4), np.ones(2)])
    assert [sample.tolist() for sample in pulled] == [[1.75, 1.5, 1], [1.875, 1.75, 1.5, 1], [1.5, 1]]


def test_an_unstable_filter_is_noticed_where_it_overflows():
    unstable = LFilter([1.0], [1.0, -3.0])
    assert unstable.transform(np.ones((1, 3)))[0, 2] == 13
    for call in (unstable.transform, lambda x: unstable.estimate_gradient(x, x)):
        with pytest.raises(
            ValueError, match=r"`denominator_coef` must make a stable .* of its roots is 3, which"
        ):
            call(np.ones((1, 1000)))
    with pytest.raises(ValueError, match=r"the result overflows in float16"):
        unstable.transform(np.ones((1, 30), np.float16))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"numerator_coef": []}, r"`numerator_coef` must be a 1-D array of numbers, got \[\]"),
        ({"numerator_coef": 0.5}, "`numerator_coef` must be a 1-D array of numbers, got 0.5"),
        ({"numerator_coef": [[1.0], [1.0, 2.0]]}, "`numerator_coef` must be a 1-D array of numbers"),
        ({"numerator_coef": ["a"]}, "`numerator_coef` must hold real numbers"),
        ({"numerator_coef": [np.nan]}, "`numerator_coef` must be finite"),
        ({"denominator_coef": [0.0, 1.0]}, "`denominator_coef` must start with a number other than 0"),
        ({"axis": 2}, "`axis` must be between -2 and 1, got 2"),
        ({"axis": 0.5}, "`axis` must be an integer, got 0.5"),
        ({"initial_cond": 1.0}, "`initial_cond` must be a 1-D or 2-D array of numbers, got 1.0"),
        ({"initial_cond": [1.0, 2.0]}, "`initial_cond` must hold 0 numbers, one less than .* got 2"),
        ({"clip_values": (1, 0)}, "`clip_values` must have minimum < maximum"),
        ({"verbose": "True"}, "`verbose` must be True or False, got 'True'"),
    ],
)
def test_bad_parameters(kwargs, message):
    with pytest.raises(ValueError, match=message):
        LFilter(**kwargs)


def test_a_state_that_does_not_fit_is_refused():
    lfilter = LFilter([1.0, 1.0], initial_cond=np.zeros((3, 1)))
    with pytest.raises(
        ValueError, match=r"must have the shape \(1,\) or \(2, 1\) for samples of shape \(2, 9\), got"
    ):
        lfilter.transform(np.zeros((4, 2, 9)))


def test_repr_shows_the_coefficients():
    assert repr(LFilter()) == "LFilter()"
    assert repr(LFilter([1.0, 1.0])) == "LFilter(numerator_coef=[1.0, 1.0])"  # not a broadcast default
