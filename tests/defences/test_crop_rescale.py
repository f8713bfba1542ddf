"""Random crops at the size of the image."""

import numpy as np
import pytest

from preshield import CropRescale, MajorityVote

# In each pixel of an image of 6 x 5 its number: a crop tells where it was cut
NUMBERED = np.arange(30).reshape(6, 5, 1)


def test_all_places_are_as_likely():
    """Crops of 4 x 3 in 6 x 5: nine of them, of which the upper left corner shows the place."""
    out = CropRescale((4, 3), interpolation="nearest", rng=0).transform(np.stack([NUMBERED] * 3600))
    places, counts = np.unique(out[:, 0, 0, 0], return_counts=True)
    np.testing.assert_array_equal(places, [0, 1, 2, 5, 6, 7, 10, 11, 12])
    np.testing.assert_allclose(counts, 400, atol=80)  # four standard deviations
    np.testing.assert_array_equal(out.max(axis=(1, 2, 3)) - out[:, 0, 0, 0], 3 * 5 + 2)


@pytest.mark.parametrize("method", ["nearest", "bilinear"])
@pytest.mark.parametrize("crop", [(4, 3), (1, 1), (6, 2), (2, 5)])
def test_torch_rescales_alike(method, crop):
    torch = pytest.importorskip("torch")
    x = np.stack([np.moveaxis(NUMBERED, -1, 0) * [[[1.0]], [[2.5]]]] * 9)
    found = CropRescale(crop, True, interpolation=method, rng=0).transform(x)
    (height, width), expected = crop, []
    options = {"mode": method} | ({"align_corners": False} if method == "bilinear" else {})
    for top in range(6 - height + 1):
        for left in range(5 - width + 1):
            part = torch.tensor(x[:1, :, top : top + height, left : left + width])
            expected.append(torch.nn.functional.interpolate(part, (6, 5), **options).numpy()[0])
    for image in found:
        assert min(np.abs(image - one).max() for one in expected) < 1e-12
    if len(expected) > 4:
        assert len(np.unique(found.reshape(9, -1), axis=0)) > 2


@pytest.mark.parametrize(("side", "crop"), [(224, 90), (32, 13), (1, 1), (2, 1)])
def test_the_default_is_that_of_the_paper(side, crop):
    x = np.broadcast_to(np.arange(side)[:, None, None], (1, side, side, 1))
    assert len(np.unique(CropRescale(interpolation="nearest", rng=0).transform(x))) == crop


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_the_gradient_is_the_transpose(interpolation):
    rng = np.random.default_rng(0)
    x, direction, grad = rng.normal(size=(3, 4, 7, 5, 3))
    defence = CropRescale((3, 4), interpolation=interpolation)
    with defence.frozen(2):
        out, pulled = defence.transform(direction), defence.estimate_gradient(x, grad)
    np.testing.assert_allclose((pulled * direction).sum(), (grad * out).sum(), rtol=1e-12)
    assert (pulled == 0).any()  # outside of the crop


def test_a_crop_does_not_look_outside():
    x = np.zeros((9, 6, 6, 1))
    x[:, 2:4, 2:4] = 1
    values = np.unique(CropRescale(2, rng=0).transform(x).min(axis=(1, 2, 3)))
    assert set(values) <= {0, 1}
    whole = CropRescale(6).transform(x)
    np.testing.assert_array_equal(whole, x)


@pytest.mark.parametrize("kind", [np.uint8, np.int64, np.float16, np.float64])
def test_types_and_empty_batches(kind):
    defence = CropRescale(3, rng=0)
    assert defence.transform(np.ones((2, 6, 5, 3), kind)).dtype == kind
    assert defence.transform(np.ones((0, 6, 5, 3), kind)).shape == (0, 6, 5, 3)
    np.testing.assert_allclose(defence.transform(np.full((2, 6, 5, 3), 7, kind)), 7, rtol=1e-15)


def test_a_vote_draws_a_crop_for_each_view():
    seen = []

    def predict(x):
        seen.append(x)
        return np.eye(3)[x[:, 0, 0, 0] % 3]

    crops = [CropRescale(2, interpolation="nearest", rng=k) for k in range(5)]
    MajorityVote(predict, crops, min_votes=1).predict(np.stack([NUMBERED] * 4))
    assert len(np.unique(np.concatenate(seen), axis=0)) > 5


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"crop_size": 0}, "`crop_size` must be .* got 0"),
        ({"crop_size": (3, 4, 5)}, r"`crop_size` must be an integer or a pair .* got \(3, 4, 5\)"),
        ({"interpolation": "area"}, "`interpolation` must be one of"),
    ],
)
def test_bad_parameters(parameters, message):
    with pytest.raises(ValueError, match=message):
        CropRescale(**parameters)


def test_what_is_too_large_or_empty():
    with pytest.raises(ValueError, match=r"`crop_size` must be at most the size of an image, \(6, 5\)"):
        CropRescale((4, 6)).transform(NUMBERED[None])
    with pytest.raises(ValueError, match="`x` must have at least one pixel"):
        CropRescale().transform(np.zeros((1, 0, 4, 3)))
