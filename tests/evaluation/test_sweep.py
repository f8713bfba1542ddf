import numpy as np
import pytest

from preshield import (
    Chain,
    FeatureSqueezing,
    GaussianAugmentation,
    JpegCompression,
    SpatialSmoothing,
    ablate,
    sweep,
)
from preshield.evaluation.sweep import Sweep


def test_one_defence_for_each_value():
    swept = sweep(JpegCompression, "quality", [10, 50], clip_values=(0, 255))
    assert isinstance(swept, Sweep)
    assert list(swept) == ["quality=10", "quality=50"]
    assert [type(d) for d in swept.values()] == [JpegCompression] * 2
    assert [(d.quality, d.clip_values) for d in swept.values()] == [(10, (0, 255)), (50, (0, 255))]
    assert swept.parameter == "quality"
    assert swept.parameter_values == (10, 50)


def test_values_of_numpy_and_of_an_iterator():
    swept = sweep(GaussianAugmentation, "sigma", np.array([0.5, 0.25]), augmentation=False)
    assert list(swept) == ["sigma=0.5", "sigma=0.25"]
    assert swept.parameter_values == (0.5, 0.25)
    assert [type(value) for value in swept.parameter_values] == [float, float]
    swept = sweep(FeatureSqueezing, "bit_depth", iter(range(1, 3)), clip_values=(0, 1))
    assert swept.parameter_values == (1, 2)
    assert list(sweep(SpatialSmoothing, "gradient", ["exact"])) == ["gradient='exact'"]


def test_refused_sweeps():
    with pytest.raises(ValueError, match=r"`parameter` must be one of clip_values, .* got 'strength'"):
        sweep(JpegCompression, "strength", [1], clip_values=(0, 1))
    with pytest.raises(ValueError, match="`values` must hold at least one value, got none"):
        sweep(JpegCompression, "quality", [], clip_values=(0, 1))
    with pytest.raises(ValueError, match=r"`values` must differ from each other, got \[10, 10\]"):
        sweep(JpegCompression, "quality", [10, 10], clip_values=(0, 1))
    with pytest.raises(ValueError, match="`quality` must be between 1 and 100, got 0"):
        sweep(JpegCompression, "quality", [50, 0], clip_values=(0, 1))
    with pytest.raises(TypeError, match="`defence_class` must be a class of defences, got SpatialSmoothing"):
        sweep(SpatialSmoothing(3), "window_size", [3])


def test_all_stages_and_all_but_one():
    stages = [SpatialSmoothing(3), JpegCompression((0, 1)), SpatialSmoothing(5)]
    chain = Chain(stages, apply_fit=True, apply_predict=False)
    chains = ablate(chain)
    assert list(chains) == [
        "all stages",
        "without SpatialSmoothing (stage 1)",
        "without JpegCompression",
        "without SpatialSmoothing (stage 3)",
    ]
    whole, *parts = chains.values()
    assert whole is chain
    assert [part.defences for part in parts] == [stages[1:], [stages[0], stages[2]], stages[:2]]
    assert all(part.apply_fit and not part.apply_predict for part in parts)
    x = np.random.default_rng(0).random((1, 8, 8, 3), dtype=np.float32)
    by_hand = stages[2].transform(stages[0].transform(x))
    np.testing.assert_array_equal(chains["without JpegCompression"].transform(x), by_hand)


def test_refused_ablations():
    with pytest.raises(ValueError, match=r"`chain` must have two stages or more, got Chain\("):
        ablate(Chain([SpatialSmoothing(3)]))
    with pytest.raises(TypeError, match=r"`chain` must be a Chain, got SpatialSmoothing\(\)"):
        ablate(SpatialSmoothing(3))
