"""Resampling by a bank of filters: taps by hand, resampy, the matrix and its transpose, memory."""

import tracemalloc

import numpy as np
import pytest
import resampy
from hypothesis import given, settings
from hypothesis import strategies as st

from preshield._core import resampling
from preshield._core.kernels.polyphase import apply_filters, fill_filters, spread_filters
from preshield._core.resampling import FILTERS, Resampler, resampler

rates = st.integers(1, 60) | st.sampled_from([7919, 8000, 11025, 16000, 22050, 44100, 44101, 48000])


def resample(x, old, new, name="sinc_window"):
    """Signals `(S, length)` at the new rate."""
    operator = Resampler(old, new, name)
    out = np.empty((len(x), 1, operator.length(x.shape[1])), x.dtype)
    operator.apply(x[:, None], out)
    return out[:, 0]


def matrix(operator, old, new):
    """What `apply` does to signals of this length, as a matrix `(new, old)`."""
    out = np.empty((old, 1, new))
    operator.apply(np.eye(old)[:, None], out)
    return out[:, 0].T


# The kernels, by hand


def test_taps_by_hand():
    # A wing of two zero crossings, four entries each: 8, 7, ..., 0. At half the rate a step is two entries.
    table = np.arange(8.0, -1, -1)
    rows = np.full((3, 8), np.nan)
    fill_filters(rows, np.array([0, 0.25, 1]), table, 4, 0.5)
    expected = [
        [2, 4, 6, 8, 6, 4, 2, 0],  # on an input: entries 0, 2, 4, 6 before, 2, 4, 6 after
        [1.5, 3.5, 5.5, 7.5, 6.5, 4.5, 2.5, 0.5],  # 0.25 * 0.5 * 4 entries further on
        [0, 2, 4, 6, 8, 6, 4, 2],  # on the next input
    ]
    np.testing.assert_array_equal(rows, expected)


def test_the_step_is_cut_to_whole_entries():
    # 0.7 * 4 = 2.8 entries from one tap to the next become 2; the other wing still begins 2.8 entries away.
    rows = np.empty((1, 8))
    fill_filters(rows, np.array([0.0]), np.arange(8.0, -1, -1), 4, 0.7)
    np.testing.assert_allclose(rows, [[2, 4, 6, 8, 5.2, 3.2, 1.2, 0]], atol=1e-12)


def test_apply_and_spread_by_hand():
    rows = np.array([[1.0, 2, 3], [0, -1, 0]])
    which, first = np.array([0, 1]), np.array([1, 2])
    segments = np.array([[9.0, 1, 2, 3, 4, 9], [9, 0, 0, 1, 0, 9]])
    out = np.empty((2, 2))
    apply_filters(out, segments, rows, which, first)
    np.testing.assert_array_equal(out, [[14, -3], [3, -1]])
    back = np.zeros((1, 6))
    spread_filters(back, np.array([[10.0, 7]]), rows, which, first)
    np.testing.assert_array_equal(back, [[0, 10, 20 + 0, 30 - 7, 0, 0]])


# The whole


@settings(max_examples=60, deadline=None)
@given(
    old=rates,
    new=rates,
    name=st.sampled_from(sorted(FILTERS)),
    length=st.integers(1, 3000),
    dtype=st.sampled_from([np.float32, np.float64, np.int16]),
    seed=st.integers(0, 2**32 - 1),
)
def test_equals_resampy(old, new, name, length, dtype, seed):
    if old == new or length * new < old or max(old, new) > FILTERS[name] * min(old, new):
        return
    x = np.random.default_rng(seed).uniform(-1, 1, (2, length))
    scale = 32767 if dtype is np.int16 else 1
    x = (x * scale).astype(dtype)
    out = resample(x.astype(np.float32) if scale > 1 else x, old, new, name)
    expected = resampy.resample(x, old, new, filter=name)
    assert out.shape == expected.shape
    np.testing.assert_allclose(out, expected, rtol=0, atol=1e-5 * scale if dtype != np.float64 else 1e-9)


@pytest.mark.parametrize("name", FILTERS)
def test_entries_are_those_of_resampy(name):
    assert resampy.filters.get_filter(name)[1] == FILTERS[name]


def test_outputs_just_before_an_input():
    # In resampy's arithmetic output 5 of 13 to 5 lies a rounding error before input 13. It gets the taps of
    # the end of a period, which are not those of the beginning: the step is cut to whole entries.
    operator = Resampler(13, 5, "sinc_window")
    assert int(5 * operator.period) == 12
    bank = operator._bank(np.dtype(float))
    assert np.abs(bank[-1, 1:] - bank[0, :-1]).max() > 5e-4
    x = np.random.default_rng(0).uniform(-1, 1, (1, 5000))
    expected = resampy.resample(x, 13, 5, filter="sinc_window")
    np.testing.assert_allclose(resample(x, 13, 5), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("old", "new"), [(3, 2), (2, 3), (1, 4), (7, 1), (44100, 44101)])
@pytest.mark.parametrize("lengths", [(1, 1), (5, 7), (300, 0), (300, 301)])
def test_transpose_is_that_of_the_matrix(old, new, lengths):
    operator = resampler(old, new, "kaiser_fast")
    grad = np.random.default_rng(0).standard_normal((2, 3, lengths[1]))
    out = np.full((2, 3, lengths[0]), np.nan)
    operator.transpose(grad, out)
    np.testing.assert_allclose(out, grad @ matrix(operator, *lengths), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("old", "new"), [(3, 2), (5, 11), (44100, 44101), (1, 300), (300, 1), (3583, 7)])
def test_blocks_and_missing_banks_make_no_difference(old, new, monkeypatch):
    x = np.random.default_rng(0).standard_normal((3, 2, 6000))
    operator = Resampler(old, new, "sinc_window")
    length = min(operator.length(6000), 20000)

    def results(operator):
        out, back = np.empty((3, 2, length)), np.empty_like(x)
        operator.apply(x, out)
        operator.transpose(out, back)
        return out, back

    expected = results(operator)
    for name, value in {"BANK_TAPS": 0, "BLOCK_TAPS": 5000, "BLOCK_OUTPUTS": 37, "SEGMENT": 1}.items():
        monkeypatch.setattr(resampling, name, value)
    for actual, wanted in zip(results(Resampler(old, new, "sinc_window")), expected, strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=0, atol=1e-9 * np.abs(wanted).max())


@pytest.mark.parametrize(("old", "new"), [(44100, 44101), (44101, 44100), (700021, 680960)])
def test_a_bank_that_would_be_large_is_not_made(old, new):
    x = np.zeros((1, 1, 20_000), np.float32)
    operator = Resampler(old, new, "kaiser_best")
    out, back = np.empty((1, 1, operator.length(20_000)), np.float32), np.empty_like(x)
    tracemalloc.start()
    operator.apply(x, out)
    operator.transpose(out, back)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert not operator.banks
    assert peak < 16 * 2**20  # a bank of 44101 rows of 100 taps takes 17 MB in single precision


def test_channels_interleaved_or_not():
    x = np.random.default_rng(0).random((4, 500, 3), dtype=np.float32)
    operator = resampler(3, 2, "sinc_window")
    out = np.empty((4, 333, 3), np.float32)
    operator.apply(np.moveaxis(x, 1, 2), np.moveaxis(out, 1, 2))
    for sample, channel in np.ndindex(4, 3):
        alone = resample(np.ascontiguousarray(x[sample : sample + 1, :, channel]), 3, 2)
        np.testing.assert_allclose(out[sample, :, channel], alone[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", [(0, 1, 50), (2, 0, 50)])
def test_nothing_to_do(shape):
    operator = resampler(3, 2, "sinc_window")
    out, back = np.empty((*shape[:2], 33)), np.empty(shape)
    operator.apply(np.zeros(shape), out)
    operator.transpose(out, back)


def test_operators_are_kept():
    assert resampler(3, 2, "sinc_window") is resampler(3, 2, "sinc_window")
    assert resampler(3, 2, "sinc_window") is not resampler(3, 2, "kaiser_fast")


@pytest.mark.parametrize(
    ("table", "entries", "fraction", "taps"),
    [
        # A quarter of the way from each entry to the next; beyond the last one the table is flat.
        ([1.0, 0.5, 0.25], 1, 0.25, [0.25, 0.4375, 0.875, 0.625, 0.3125, 0.25]),
        ([1.0, 0.5, 0.25], 1, 0.0, [0.25, 0.5, 1.0, 0.5, 0.25, 0.0]),
        ([1.0, 0.5, 0.25], 1, 1.0, [0.0, 0.25, 0.5, 1.0, 0.5, 0.25]),
        # Two entries for each tap: half of the way after 0 and after 2 to the left, after 1 to the right.
        ([4.0, 3.0, 2.0, 1.0], 2, 0.25, [0.0, 1.5, 3.5, 2.5, 0.0, 0.0]),
    ],
)
def test_taps_between_the_entries_of_a_table(table, entries, fraction, taps):
    rows = np.full((1, 6), np.nan)
    fill_filters(rows, np.array([fraction]), np.array(table), entries, 1.0)
    np.testing.assert_array_equal(rows, [taps])
