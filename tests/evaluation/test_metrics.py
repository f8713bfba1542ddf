import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import binomtest

from preshield.evaluation.metrics import (
    REJECTED,
    accepted_accuracy,
    accuracy,
    attack_success_rate,
    coverage,
    dissimilarity,
    interval,
    perturbation_norms,
    rejection_rate,
    spectrum,
    worst_case,
)

Y = np.array([0, 1, 2, 2, 1])
CLEAN = np.array([0, 1, 2, 0, REJECTED])  # three right, one wrong, one rejected
ATTACKED = np.array([1, REJECTED, 2, 1, 1])
DRAWS = np.stack([CLEAN, ATTACKED])

RAGGED = np.empty(2, dtype=object)
RAGGED[:] = [np.array([3.0, 4.0]), np.array([1.0, 2.0, 2.0])]
RAGGED_ADV = np.empty(2, dtype=object)
RAGGED_ADV[:] = [np.array([0.0, 4.0]), np.array([1.0, 2.0, 0.0])]


def labels_of(n):
    return hnp.arrays(np.int64, n, elements=st.integers(REJECTED, 3))


def columns_of(n):
    shares = hnp.arrays(np.float64, n, elements=st.floats(0, 1))
    return st.lists(hnp.arrays(bool, n) | shares, min_size=1, max_size=4)


def test_accuracy():
    assert accuracy(CLEAN, Y) == 3 / 5
    assert accuracy(ATTACKED, Y) == 2 / 5  # the rejected sample is not right
    assert accuracy(DRAWS, Y) == 5 / 10
    assert accuracy([0, 1], [0, 1]) == 1
    assert isinstance(accuracy(CLEAN, Y), float)


def test_accepted_accuracy():
    assert accepted_accuracy(CLEAN, Y) == 3 / 4
    assert accepted_accuracy(ATTACKED, Y) == 2 / 4
    assert accepted_accuracy(np.stack([Y, CLEAN]), Y) == 8 / 9  # the draws counted together
    assert np.isnan(accepted_accuracy([REJECTED, REJECTED], [0, 1]))


def test_coverage_and_rejection_rate():
    assert coverage(CLEAN) == 4 / 5
    assert rejection_rate(CLEAN) == 1 / 5
    assert coverage(DRAWS) == 8 / 10
    assert rejection_rate(DRAWS) == 2 / 10


@pytest.mark.parametrize(
    ("options", "rate"),
    [
        ({}, 2 / 5),  # samples 0 and 3; 1 was rejected
        ({"rejected": "attacked"}, 3 / 5),
        ({"clean": CLEAN}, 1 / 3),  # of samples 0, 1 and 2
        ({"clean": CLEAN, "rejected": "attacked"}, 2 / 3),
        ({"clean": np.stack([Y, CLEAN])}, 1 / 3),  # right in every draw
        ({"target": 1}, 2 / 3),  # samples 0, 2 and 3: the others are of class 1
        ({"target": [1, 0, 0, 0, 0]}, 1 / 5),
        ({"target": 1, "clean": CLEAN}, 1 / 2),  # samples 0 and 2
        ({"target": 0, "rejected": "attacked"}, 1 / 4),  # the rejected one of samples 1 to 4
    ],
)
def test_attack_success_rate(options, rate):
    assert attack_success_rate(ATTACKED, Y, **options) == pytest.approx(rate)


def test_attack_success_rate_over_draws():
    assert attack_success_rate(np.stack([Y, ATTACKED]), Y, clean=CLEAN) == pytest.approx(1 / 6)


def test_attack_success_rate_of_nothing():
    assert np.isnan(attack_success_rate(ATTACKED, Y, clean=(Y + 1) % 3))
    assert np.isnan(attack_success_rate([0, 0], [1, 1], target=1))


def test_worst_case():
    assert worst_case([[True, True, False], [True, False, True]]) == pytest.approx(1 / 3)
    assert worst_case([[1, 0.5, 0.25, 0], [0.5, 1, 0.25, 1]]) == pytest.approx(1.25 / 4)
    assert worst_case([[True, False]]) == 0.5
    assert worst_case(np.ones((2, 3), dtype=bool)) == 1


@pytest.mark.parametrize(
    ("p", "value"),
    [
        (1, (3 / 4 + 2 / 3) / 2),
        (2, (3 / 4 + 2 / np.sqrt(5)) / 2),
        (3, (3 / 4 + 2 / 9 ** (1 / 3)) / 2),
        (np.inf, (3 / 4 + 2 / 2) / 2),
    ],
)
def test_dissimilarity_of_waveforms(p, value):
    assert dissimilarity(RAGGED, RAGGED_ADV, p) == pytest.approx(value)
    assert dissimilarity(list(RAGGED), list(RAGGED_ADV), p=p) == pytest.approx(value)


def test_dissimilarity_of_images():
    x, x_adv = np.zeros((2, 2, 2, 1), np.float32), np.ones((2, 2, 2, 1), np.float32)
    x[1, 0] = 1
    assert dissimilarity(x, x_adv) == pytest.approx((2 / 2 + np.sqrt(2) / 2) / 2)
    assert dissimilarity(x_adv, x_adv) == 0


def test_dissimilarity_from_silence():
    silence, sound = np.zeros((1, 4)), np.ones((1, 4))
    assert dissimilarity(silence, silence) == 0
    assert dissimilarity(sound, silence) == np.inf
    assert dissimilarity(silence, sound) == 1


def test_dissimilarity_neither_overflows_nor_wraps():
    assert dissimilarity(np.array([[1e200, 0]]), np.array([[0, 1e200]]), p=4) == pytest.approx(2 ** (1 / 4))
    assert dissimilarity(np.uint8([[0, 0]]), np.uint8([[0, 255]])) == 1


def test_perturbation_norms():
    x, x_adv = np.zeros((3, 2, 2), np.float32), np.zeros((3, 2, 2), np.float32)
    x_adv[0] = [[3, 0], [0, -4]]
    x_adv[1] = 1
    l2, linf = perturbation_norms(x, x_adv, "l2"), perturbation_norms(x, x_adv, "linf")
    np.testing.assert_allclose(l2, [5, 2, 0])
    np.testing.assert_array_equal(linf, [4, 1, 0])
    assert l2.dtype == linf.dtype == np.float64
    np.testing.assert_allclose(perturbation_norms(RAGGED, RAGGED_ADV, "l2"), [3, 2])


@pytest.mark.parametrize("channels_first", [False, True])
def test_spectrum_of_waves(channels_first):
    rows, columns = np.mgrid[:8, :10]
    slow, fast = np.cos(2 * np.pi * columns / 10), np.cos(2 * np.pi * (3 * rows / 8 + 5 * columns / 10))
    x = np.stack([2 + slow, 10 * fast])[..., None] * [1, 3]  # two samples with two channels
    found = spectrum(np.moveaxis(x, -1, 1) if channels_first else x, channels_first=channels_first)
    expected = np.zeros((8, 10))
    expected[4, 5] = 2  # the mean
    expected[4, 4] = expected[4, 6] = 0.5  # half of an amplitude is at a frequency, half at its negative
    expected[1, 0] = expected[7, 0] = 5  # half of the sampling rate is its own negative
    np.testing.assert_allclose(10**found, expected / 5, atol=1e-12)
    assert found.max() == 0


def test_spectrum_of_nothing_and_of_zeros():
    np.testing.assert_array_equal(spectrum(np.zeros((1, 2, 3, 1))), np.full((2, 3), -20))
    with pytest.raises(ValueError, match=r"`x` must be images of shape \(N, H, W, C\).*got.*\(0, 2, 3, 1\)"):
        spectrum(np.zeros((0, 2, 3, 1)))
    with pytest.raises(ValueError, match=r"shape \(N, C, H, W\), at least one, got.*; pass "):
        spectrum(np.zeros((2, 3, 1)), channels_first=True)
    with pytest.raises(TypeError, match="`channels_first` must be True or False, got 1"):
        spectrum(np.zeros((1, 2, 3, 1)), channels_first=1)
    with pytest.raises(ValueError, match="`x` must be finite, got 6 NaN"):
        spectrum(np.full((1, 2, 3, 1), np.nan))


def test_no_samples():
    none = np.empty((0, 4))
    for value in (accuracy([], []), accepted_accuracy([], []), coverage([]), rejection_rate([])):
        assert np.isnan(value)
    assert np.isnan(attack_success_rate([], []))
    assert np.isnan(worst_case([[], []]))
    assert np.isnan(dissimilarity(none, none))
    assert perturbation_norms(none, none, "l2").shape == (0,)


@given(st.integers(1, 30).flatmap(columns_of))
def test_worst_case_is_never_above_a_column(columns):
    worst = worst_case(columns)
    assert all(worst <= column.mean() for column in columns)
    assert 0 <= worst <= 1
    assert worst_case([*columns, columns[0]]) == worst


@given(st.integers(1, 20).flatmap(lambda n: st.tuples(labels_of(n), labels_of(n))))
def test_rates_add_up(labels):
    predicted, y = labels[0], np.abs(labels[1])
    assert coverage(predicted) + rejection_rate(predicted) == pytest.approx(1)
    defended, attacked = (attack_success_rate(predicted, y, rejected=r) for r in ("defended", "attacked"))
    assert accuracy(predicted, y) + attacked == pytest.approx(1)
    assert attacked - defended == pytest.approx(rejection_rate(predicted))
    if coverage(predicted):
        product = accepted_accuracy(predicted, y) * coverage(predicted)
        assert product == pytest.approx(accuracy(predicted, y))


vectors = hnp.arrays(np.float64, (3, 4), elements=st.floats(-1e3, 1e3).map(lambda v: round(v, 3)))


@given(vectors, vectors, st.floats(1, 20))
def test_norms_agree_with_numpy(x, x_adv, p):
    l2, linf = (perturbation_norms(x, x_adv, norm) for norm in ("l2", "linf"))
    np.testing.assert_allclose(l2, np.linalg.norm(x - x_adv, axis=1), rtol=1e-12)
    np.testing.assert_array_equal(linf, np.linalg.norm(x - x_adv, np.inf, axis=1))
    size, scale = (np.linalg.norm(v, p, axis=1) for v in (x - x_adv, x_adv))
    if scale.all():
        assert dissimilarity(x, x_adv, p) == pytest.approx((size / scale).mean(), rel=1e-9)


@pytest.mark.parametrize("metric", [accuracy, accepted_accuracy, attack_success_rate])
@pytest.mark.parametrize(
    ("predicted", "y", "error", "message"),
    [
        ([0.5, 1], [0, 1], TypeError, r"`predicted` must hold integer class labels, got dtype float64; take"),
        ([0, 1], [True, False], TypeError, r"`y` must hold integer class labels, got dtype bool; take"),
        (["cat"], [0], TypeError, r"`predicted` must hold integer class labels, got dtype <U3; take"),
        ([0, -2], [0, 1], ValueError, r"`predicted` must hold .* 0 up, or -1 for a rejected .*, got -2\."),
        ([0, 1], [0, -1], ValueError, r"`y` must hold class indices from 0 up, got -1\."),
        (
            [0, 1],
            [[0, 1], [1, 0]],
            ValueError,
            r"`y` must have the shape \(N,\), got \(2, 2\); take the argmax",
        ),
        ([0], [0, 1], ValueError, r"`predicted` must hold one label for each of the 2 samples.*shape \(1,\)"),
        (0, [0], ValueError, r"`predicted` must have the shape \(N,\) or \(draws, N\), got \(\)\."),
        ([[[0]]], [0], ValueError, r"`predicted` must have the shape .*, got \(1, 1, 1\)\."),
    ],
)
def test_labels_that_are_refused(metric, predicted, y, error, message):
    with pytest.raises(error, match=message):
        metric(predicted, y)


@pytest.mark.parametrize("metric", [coverage, rejection_rate])
def test_predictions_that_are_refused(metric):
    with pytest.raises(
        TypeError, match=r"`predicted` must hold integer class labels, got dtype float64; take"
    ):
        metric([0.5])
    with pytest.raises(ValueError, match=r"`predicted` must hold .*, got -3\."):
        metric([-3])
    with pytest.raises(ValueError, match=r"`predicted` must have the shape .*, got \(\)\."):
        metric(1)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"target": [0, 1]},
            ValueError,
            r"`target` must be one class .* 5 samples, shape \(5,\), got .*\(2,\)",
        ),
        ({"target": -1}, ValueError, r"`target` must hold class indices from 0 up, got -1\."),
        ({"target": 1.5}, TypeError, r"`target` must hold integer class labels, got dtype float64; take"),
        ({"clean": [0, 1]}, ValueError, r"`clean` must hold one label for each of the 5 samples"),
        ({"clean": Y / 2}, TypeError, r"`clean` must hold integer class labels, got dtype float64; take"),
        (
            {"rejected": "ignored"},
            ValueError,
            r"`rejected` must be one of 'defended', 'attacked', got 'ignored'",
        ),
    ],
)
def test_options_that_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        attack_success_rate(ATTACKED, Y, **options)


@pytest.mark.parametrize(
    ("columns", "error", "message"),
    [
        ([], ValueError, r"`correct` must hold at least one column, got none\."),
        (
            [[1, 0], [1]],
            ValueError,
            r"`correct\[1\]` must have the shape .*, got \(1,\) beside \(2,\); average",
        ),
        ([[[1, 0]]], ValueError, r"`correct\[0\]` must have the shape \(N,\) .*, got \(1, 2\)"),
        ([[1, 2]], ValueError, r"`correct\[0\]` must hold booleans or shares .* from 1 to 2; compare"),
        ([[0, -1]], ValueError, r"`correct\[0\]` must hold booleans or shares .* from -1 to 0; compare"),
        ([[1], [np.nan]], ValueError, r"`correct\[1\]` must be finite, got 1 NaN"),
        ([["yes"]], TypeError, r"`correct\[0\]` must hold real numbers, got dtype <U3\."),
    ],
)
def test_columns_that_are_refused(columns, error, message):
    with pytest.raises(error, match=message):
        worst_case(columns)


@pytest.mark.parametrize("metric", [dissimilarity, lambda x, x_adv: perturbation_norms(x, x_adv, "l2")])
@pytest.mark.parametrize(
    ("x", "x_adv", "error", "message"),
    [
        (np.ones((2, 3)), np.ones((1, 3)), ValueError, r"`x_adv` must hold one .* the 2 samples .*, got 1\."),
        (np.ones((1, 3)), np.ones((2, 3)), ValueError, r"`x_adv` must hold one .* the 1 samples .*, got 2\."),
        (np.ones((1, 3)), np.ones((1, 4)), ValueError, r"`x_adv\[0\]` must have .* \(3,\) .*, got \(4,\)\."),
        (
            np.ones((1, 2)),
            np.array([[1, np.inf]]),
            ValueError,
            r"`x_adv\[0\]` must be finite, got 0 NaN and 1",
        ),
        (np.array([[np.nan]]), np.ones((1, 1)), ValueError, r"`x\[0\]` must be finite, got 1 NaN"),
        (
            np.array([["a"]]),
            np.array([["b"]]),
            TypeError,
            r"`x\[0\]` must hold real numbers, got dtype <U1\.",
        ),
    ],
)
def test_samples_that_are_refused(metric, x, x_adv, error, message):
    with pytest.raises(error, match=message):
        metric(x, x_adv)


@pytest.mark.parametrize(
    ("p", "error", "message"),
    [
        (0.5, ValueError, r"`p` must be at least 1, got 0\.5\."),
        (-np.inf, ValueError, r"`p` must be finite, got -inf\."),
        (np.nan, ValueError, r"`p` must be finite, got nan\."),
        ("2", TypeError, r"`p` must be a number, got '2' of type str\."),
    ],
)
def test_orders_that_are_refused(p, error, message):
    with pytest.raises(error, match=message):
        dissimilarity(np.ones((1, 2)), np.ones((1, 2)), p)


def test_norms_that_are_refused():
    with pytest.raises(ValueError, match=r"`norm` must be one of 'l2', 'linf', 'l1', got 'l0'\."):
        perturbation_norms(np.ones((1, 2)), np.ones((1, 2)), "l0")


@pytest.mark.parametrize("samples", [1, 7, 40, 200])
def test_the_interval_is_that_of_scipy(samples):
    for right in range(samples + 1):
        expected = binomtest(right, samples).proportion_ci(method="wilson")
        np.testing.assert_allclose(interval(right / samples, samples), expected, atol=1e-12)


def test_the_interval_of_a_share_between_two_counts_and_of_nothing():
    low, high = interval(0.125, 4)
    assert interval(0.0, 4) < (low, high) < interval(0.25, 4)
    assert np.isnan(interval(0.5, 0)).all()
    assert np.isnan(interval(float("nan"), 3)).all()
