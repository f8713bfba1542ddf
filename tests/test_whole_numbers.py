"""Whole numbers of a floating type, as YAML files and arithmetic yield them, wherever an integer is wanted.

Defences are in tests/test_contract.py.
"""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from preshield import (
    CAM,
    BlurNet,
    MajorityVote,
    PixelCNN,
    PixelDeflection,
    RobustActivationMap,
    VariationalAutoencoder,
    WassersteinGAN,
    evaluate,
)
from preshield.evaluation.square_attack import square_attack

IMAGES = np.random.default_rng(0).random((8, 4, 4, 1), dtype=np.float32)
kinds = pytest.mark.parametrize("kind", [float, np.float64])


def brightness(x):
    """Scores of dark and bright."""
    mean = np.asarray(x).reshape(len(x), -1).mean(axis=1)
    return np.stack([1 - mean, mean], axis=1)


@kinds
def test_deflections(kind):
    x = np.random.default_rng(0).random((2, 20, 20, 1))
    two, all_of_them = (PixelDeflection((0, 1), n, denoiser=None, rng=0) for n in (kind(2), kind(1)))
    assert two.get_params()["deflections"] == 2
    assert_array_equal(two.transform(x), PixelDeflection((0, 1), 2, denoiser=None, rng=0).transform(x))
    fraction = PixelDeflection((0, 1), 400, denoiser=None, rng=0)  # 1.0 is a fraction
    assert_array_equal(all_of_them.transform(x), fraction.transform(x))


@pytest.mark.parametrize(
    ("make", "sizes", "options"),
    [
        (PixelCNN, {"filters": 2, "blocks": 1, "kernel_size": 3, "seed": 1}, {"patience": 1}),
        (VariationalAutoencoder, {"latent_dim": 2, "units": 4, "seed": 1}, {"patience": 1}),
        (WassersteinGAN, {"latent_dim": 2, "units": 4, "seed": 1}, {"critic_steps": 2}),
    ],
    ids=lambda v: getattr(v, "__name__", ""),
)
def test_generative_models(make, sizes, options):
    pytest.importorskip("tensorflow")
    options = {"epochs": 2, "batch_size": 2, **options}
    drawn = []
    for number in (int, np.float64):
        model = make(**{name: number(size) for name, size in sizes.items()})
        model.fit(IMAGES, **{name: number(size) for name, size in options.items()})
        drawn.append(model.sample(number(3), seed=number(2)))
    assert_array_equal(*drawn)


@kinds
def test_models_of_torch(kind):
    nn = pytest.importorskip("torch").nn
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 5))
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), head)
    x = np.moveaxis(IMAGES, -1, 1)
    assert_array_equal(CAM(model, batch_size=kind(3))(x), CAM(model)(x))
    assert_array_equal(
        RobustActivationMap(model, kind(2), batch_size=kind(3))(x), RobustActivationMap(model, 2)(x)
    )
    blurred = [BlurNet.insert(model, kernel_size=size) for size in (3, kind(3))]
    assert repr(blurred[0]) == repr(blurred[1])


@kinds
def test_evaluations(kind):
    reports = [
        evaluate(
            brightness,
            IMAGES,
            IMAGES.mean(axis=(1, 2, 3)) > 0.5,
            {},
            threat="linf",
            eps=0.1,
            eot=number(2),
            seed=number(3),
            batch_size=number(3),
            budget=number(2),
            clip_values=(0, 1),
            verbose=False,
        )
        for number in (int, kind)
    ]
    assert reports[0].rows[0].worst_case == reports[1].rows[0].worst_case
    assert reports[1].from_json(reports[1].to_json()).rows[0].worst_case == reports[1].rows[0].worst_case
    found = [
        square_attack(
            IMAGES,
            lambda points, rows: points.mean(axis=(1, 2, 3)) - 0.4,
            norm="linf",
            eps=0.1,
            clip_values=(0, 1),
            queries=number(5),
            seed=number(1),
        )
        for number in (int, kind)
    ]
    assert_array_equal(*found)


@kinds
def test_votes(kind):
    vote = MajorityVote(brightness, min_votes=kind(3))
    assert_array_equal(vote.predict(IMAGES), MajorityVote(brightness, min_votes=3).predict(IMAGES))


@kinds
def test_plots(kind):
    plots = pytest.importorskip("preshield.plots")
    pytest.importorskip("matplotlib")
    assert plots.frame_strip(IMAGES, frames=kind(3)).shape == (1, 3)
    signal = np.sin(np.arange(2000))
    drawn = [plots.spectrogram(signal, 8000, window=window).images[0] for window in (64, kind(64))]
    assert_array_equal(*(image.get_array() for image in drawn))
