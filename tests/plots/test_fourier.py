import numpy as np
import pytest

from preshield import plots
from preshield.evaluation import metrics
from tests.plots.helpers import IMAGES, shown


@pytest.mark.parametrize("height", [32, 33])
def test_spectrum_of_a_sinusoid_peaks_at_its_frequency(height):
    rows, columns = np.mgrid[:height, :20]
    wave = np.sin(2 * np.pi * (rows * 8 / height + columns * 3 / 20))  # cycles per pixel: 8 / height, 3 / 20
    ax = plots.spectrum(np.stack([wave, 0.5 * wave])[..., None])
    amplitudes = shown(ax)
    left, right, bottom, top = ax.images[0].get_extent()
    peaks = np.argwhere(amplitudes > -1)
    at = [
        (top + (r + 0.5) * (bottom - top) / height, left + (c + 0.5) * (right - left) / 20) for r, c in peaks
    ]
    np.testing.assert_allclose(at, [(-8 / height, -3 / 20), (8 / height, 3 / 20)], atol=1e-12)
    assert amplitudes.max() == 0
    assert np.sort(amplitudes.ravel())[-3] < -10  # nothing else


def test_spectrum_is_relative_and_averages():
    constant, impulse = np.ones((1, 4, 4, 1)), np.zeros((1, 4, 4, 1))
    impulse[0, 0, 0] = 4  # amplitude 4 at every frequency, beside 16 at zero
    both = shown(plots.spectrum(np.concatenate([constant, impulse])))
    assert both[2, 2] == 0
    np.testing.assert_allclose(np.delete(both.ravel(), 10), np.log10(4 / 20))


def test_spectra_share_one_scale(rng):
    noise = rng.normal(size=(2, 16, 16, 3))
    axes = plots.spectra({"clean": noise + 100, "difference": noise})
    assert [ax.get_title() for ax in axes] == ["clean", "difference"]
    assert axes[0].images[0].get_clim() == axes[1].images[0].get_clim()
    np.testing.assert_array_equal(shown(axes[1]), shown(plots.spectrum(noise)))
    assert len(axes[0].figure.axes) == 3  # one scale
    assert axes[0].images[0].get_clim() != plots.spectrum(noise).images[0].get_clim()


def test_spectra_of_feature_maps(rng):
    maps = rng.normal(size=(2, 8, 6, 5))
    first = np.moveaxis(maps, -1, 1)
    expected = metrics.spectrum(maps)
    np.testing.assert_array_equal(shown(plots.spectrum(maps)), expected)
    np.testing.assert_array_equal(shown(plots.spectrum(first, channels_first=True)), expected)
    axes = plots.spectra({"clean": first, "attacked": 2 * first}, channels_first=True)
    np.testing.assert_array_equal(shown(axes[0]), expected)
    np.testing.assert_allclose(shown(axes[1]), expected)


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: plots.spectrum(IMAGES[0]), "`x` must be images.*pass x\\[None\\] for one image"),
        (lambda: plots.spectrum(IMAGES[:0]), "at least one, got shape \\(0, 4, 4, 3\\)"),
        (lambda: plots.spectrum(IMAGES, limits=(0, 0)), "`limits` must have darkest < brightest"),
        (lambda: plots.spectrum(IMAGES, limits=-4), "`limits` must be a pair"),
        (lambda: plots.spectra({}), "`batches` must hold at least one"),
        (lambda: plots.spectra({"clean": IMAGES[0]}), "`batches\\['clean'\\]` must be images"),
    ],
)
def test_spectra_refuse(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()
