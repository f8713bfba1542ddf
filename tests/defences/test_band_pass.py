"""A band of frequencies: SciPy's filter run both ways, its symmetry, its rules."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import butter, sosfiltfilt

from preshield import BandPass
from tests.cases import audio

RATE = 16000


def scipy_filter(x, low, high, order, rate=RATE):
    """Both ways along the last axis, with silence before and after that is longer than the filter rings."""
    kind = "lowpass" if low is None else "highpass" if high is None else "bandpass"
    ends = [end for end in (low, high) if end is not None]
    sections = butter(order, ends if len(ends) > 1 else ends[0], kind, output="sos", fs=rate)
    silence = [(0, 0)] * (x.ndim - 1) + [(20_000, 20_000)]
    return sosfiltfilt(sections, np.pad(x, silence), padtype=None)[..., 20_000:-20_000]


@settings(max_examples=15, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 600)),
    low=st.one_of(st.none(), st.floats(100, 3000)),
    width=st.one_of(st.none(), st.floats(200, 4900)),
    order=st.integers(1, 5),
    seed=st.integers(0, 2**32 - 1),
)
def test_it_is_scipys_filter_run_both_ways(shape, low, width, order, seed):
    high = None if width is None else (low or 0) + width
    if low is None and high is None:
        low = 700.0
    x = np.random.default_rng(seed).standard_normal(shape)
    out = BandPass(RATE, low, high, order).transform(x)
    np.testing.assert_allclose(out, scipy_filter(x, low, high, order), atol=1e-10)


def test_amplitudes_by_hand():
    """At a cutoff half is left, and of a frequency whose tangent is t times as large 1 / (1 + t ** 8)."""
    seconds = np.arange(4 * RATE) / RATE
    double = np.arctan(2 * np.tan(np.pi * 1000 / RATE)) * RATE / np.pi
    tones = np.stack([np.cos(2 * np.pi * hertz * seconds) for hertz in (0, 500, 1000, double)])
    peaks = np.abs(BandPass(RATE, high=1000).transform(tones)[:, RATE:-RATE]).max(axis=1)
    half = np.tan(np.pi * 500 / RATE) / np.tan(np.pi * 1000 / RATE)
    np.testing.assert_allclose(peaks, [1, 1 / (1 + half**8), 0.5, 1 / 257], rtol=1e-6)
    assert np.abs(BandPass(RATE, low=50).transform(tones[:1])[:, RATE:-RATE]).max() < 1e-12  # of a constant


def test_nothing_is_delayed():
    """The response to an impulse is the same forwards and backwards in time."""
    impulse = np.zeros((1, 2001))
    impulse[0, 1000] = 1
    out = BandPass(RATE, 300, 3400).transform(impulse)
    np.testing.assert_allclose(out, out[:, ::-1], atol=1e-14)
    assert out.argmax() == 1000


def test_the_gradient_is_the_transpose():
    defence = BandPass(RATE, 200, 2500, order=3)
    matrix = defence.transform(np.eye(40))  # rows: responses to impulses
    x, grad = np.random.default_rng(1).standard_normal((2, 3, 40))
    np.testing.assert_allclose(defence.estimate_gradient(x, grad), grad @ matrix.T, atol=1e-14)


def test_layouts_and_lengths_agree():
    x = audio(2)
    defence = BandPass(RATE, 300, 3400)
    expected = defence.transform(np.moveaxis(x, 2, 1).reshape(6, 700)).reshape(3, 2, 700)
    np.testing.assert_array_equal(defence.transform(x), np.moveaxis(expected, 1, 2))
    first = BandPass(RATE, 300, 3400, channels_first=True)
    np.testing.assert_array_equal(first.transform(np.moveaxis(x, 2, 1)), expected)
    clips = [x[0], x[1, :50], x[2, :1, 0], np.zeros(0)]
    for out, clip in zip(defence.transform(clips), clips, strict=True):
        np.testing.assert_array_equal(out, defence.transform(clip[None])[0])
    grads = defence.estimate_gradient(clips, clips)
    np.testing.assert_array_equal(grads[1], defence.estimate_gradient(clips[1][None], clips[1][None])[0])


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.float16, np.float32, ">f8", np.longdouble])
def test_types(dtype):
    x = np.rint(audio(scale=100)).astype(dtype)
    out = BandPass(RATE, high=2000).transform(x)
    kind = np.dtype(dtype)
    assert out.dtype == (kind.newbyteorder("=") if kind.kind == "f" else np.float32)
    expected = scipy_filter(x.astype(float), None, 2000, 4)
    np.testing.assert_allclose(out.astype(float), expected, atol=0.05 if dtype == np.float16 else 1e-4)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, r"`low` or `high` must be a frequency in Hz, got None for both; pass high=4000\."),
        ({"low": 0, "high": 100}, r"`low` must lie .* 1\.6 to 7998\.4 Hz, got 0 at 16000 Hz; pass low=None"),
        ({"low": 9, "high": 8000}, r"`high` must lie .* got 8000 at 16000 Hz; pass high=None for a band"),
        ({"high": 8000}, r"`high` must lie .* got 8000 at 16000 Hz; pass high=4000\."),
        ({"low": 1000, "high": 1000}, r"`high` must lie above `low`, by 1\.6 Hz at least, got low=1000"),
        ({"high": "1 kHz"}, r"`high` must be a number, got '1 kHz' of type str"),
        ({"low": float("nan")}, r"`low` must be finite, got nan"),
        ({"high": 100, "order": 25}, r"`order` must be between 1 and 24, got 25"),
        ({"high": 100, "sample_rate": 0}, r"`sample_rate` must be at least 1, got 0"),
        ({"high": 100, "channels_first": 1}, r"`channels_first` must be True or False, got 1"),
    ],
)
def test_wrong_parameters(parameters, message):
    with pytest.raises(ValueError, match=message):
        BandPass(**{"sample_rate": RATE, **parameters})


def test_channels_in_the_place_of_time_are_refused():
    with pytest.raises(ValueError, match=r"got \(2, 2, 99\), of 2 along time .* pass channels_first=True\."):
        BandPass(RATE, 300).transform(np.zeros((2, 2, 99)))


def test_the_lowest_cutoff_and_the_highest_order():
    """Which ring longest: a constant passes, and nothing comes around from the other end."""
    out = BandPass(RATE, high=1.6, order=24).transform(np.eye(1, 3000))
    assert np.isfinite(out).all()
    assert np.abs(out).max() < 1e-3
    wide = BandPass(RATE, low=1.6).transform(np.eye(1, 3000))
    assert 0.99 < wide[0, 0] < 1
    assert (wide[0, 1:] < 0).all()  # of the area of an impulse nothing is left
