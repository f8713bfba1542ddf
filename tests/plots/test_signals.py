import numpy as np
import pytest

from preshield import plots
from tests.plots.helpers import shown

RATE = 8000


def test_short_signals_are_drawn_as_they_are(rng):
    signals = {"clean": rng.normal(size=50), "attacked": rng.normal(size=40)}
    ax = plots.waveforms(signals, rate=10, stacked=False)
    for line, (name, signal) in zip(ax.lines, signals.items(), strict=True):
        np.testing.assert_array_equal(line.get_ydata(), signal)
        np.testing.assert_allclose(line.get_xdata(), np.arange(len(signal)) / 10)
        assert line.get_label() == name
    assert ax.get_xlim() == (0, 5)


def test_long_signals_keep_every_peak(rng):
    signal = rng.normal(size=1_000_003)
    signal[[123_456, 1_000_001]] = 100, -100
    ax = plots.waveforms(signal)
    x, y = ax.lines[0].get_data()
    assert len(x) < 5000
    assert (np.diff(x) > 0).all()
    np.testing.assert_array_equal(y, signal[x.astype(int)])  # every point is a sample
    for start in range(0, 1_000_003, 100_000):
        part, drawn = signal[start : start + 100_000], y[(x >= start) & (x < start + 100_000)]
        assert (drawn.min(), drawn.max()) == (part.min(), part.max())


def test_stacked_signals_have_a_lane_each():
    signals = np.array([[0.0, 1.0, 0.0], [0.0, -2.0, 0.0]])
    ax = plots.waveforms(signals, labels=["one", "two"])
    zeros = ax.get_yticks()
    assert [label.get_text() for label in ax.get_yticklabels()] == ["one", "two"]
    for line, signal, zero in zip(ax.lines, signals, zeros, strict=True):
        np.testing.assert_allclose(line.get_ydata() - zero, signal)
    assert zeros[0] - 2 > zeros[1] + 2  # lanes do not touch
    assert ax.get_ylim()[0] < zeros[1] - 2


def test_spectrogram_of_a_chirp():
    t = np.arange(2 * RATE) / RATE
    frequency = 500 + 1000 * t  # Hz, rises by 1 kHz in a second
    ax = plots.spectrogram(0.1 * np.sin(2 * np.pi * (500 * t + 500 * t**2)), RATE)
    levels = shown(ax)
    left, right, bottom, top = ax.images[0].get_extent()
    times = left + (np.arange(levels.shape[1]) + 0.5) * (right - left) / levels.shape[1]
    loudest = bottom + (levels.argmax(axis=0) + 0.5) * (top - bottom) / len(levels)
    inside = (times > 0.1) & (times < 1.9)
    np.testing.assert_allclose(1000 * loudest[inside], np.interp(times[inside], t, frequency), atol=35)
    assert times[0] == pytest.approx(0, abs=1e-12)
    assert levels.max() == pytest.approx(-20, abs=1.5)  # a tenth of full scale
    low, high = ax.images[0].get_clim()
    assert high == levels.max()
    assert high - low == 80
    assert ax.figure.axes[1].get_ylabel() == "Level (dB)"


def test_spectrogram_has_0_db_at_full_scale():
    sine = 32768 * np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE)
    ax = plots.spectrogram(sine, RATE, window=256, full_scale=32768, limits=(-60, 0))
    levels = shown(ax)
    assert levels.shape[0] == 129
    np.testing.assert_allclose(levels[32, 4:-4], 0, atol=1e-6)  # 1000 Hz is bin 32 of 256
    assert levels[64:, 4:-4].max() < -60
    assert ax.images[0].get_clim() == (-60, 0)


def test_silence_has_a_spectrogram():
    assert np.isfinite(shown(plots.spectrogram(np.zeros(100), RATE))).all()


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: plots.waveforms([]), "`x` must hold at least one signal"),
        (lambda: plots.waveforms({}), "`x` must hold at least one signal, got none"),
        (lambda: plots.waveforms(np.zeros((2, 3, 4))), "must be a signal of shape \\(T,\\).*got \\(3, 4\\)"),
        (lambda: plots.waveforms([[1.0, np.inf]]), "`x` must be finite"),
        (lambda: plots.waveforms(np.zeros((2, 9)), labels=["a"]), "each of the 2 signals, got 1 names"),
        (lambda: plots.waveforms(np.zeros(9), rate=0), "`rate` must be at least 1e-12, got 0"),
        (lambda: plots.spectrogram(np.zeros((2, 9)), RATE), "got \\(2, 9\\); draw one of the 2 signals"),
        (lambda: plots.spectrogram(np.zeros(9), -1), "`rate` must be at least 1e-12, got -1"),
        (lambda: plots.spectrogram(np.zeros(9), RATE, window=1), "`window` must be at least 2"),
        (
            lambda: plots.spectrogram(np.zeros(9), RATE, limits=(0, -60)),
            "`limits` must have darkest < brightest",
        ),
    ],
)
def test_signals_refuse(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()
