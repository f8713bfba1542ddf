"""Images put together anew from patches of clean ones."""

from itertools import pairwise, product

import numpy as np
import pytest

from preshield import ImageQuilting

RNG = np.random.default_rng(0)
IMAGES = RNG.random((3, 11, 9, 3))


def all_patches(images, size):
    """Every patch of images (N, H, W, C)."""
    _, height, width, _ = images.shape
    return np.stack(
        [
            image[i : i + size, j : j + size]
            for image in images
            for i in range(height - size + 1)
            for j in range(width - size + 1)
        ]
    )


@pytest.mark.parametrize("channels_first", [False, True])
@pytest.mark.parametrize(("size", "overlap"), [(5, 2), (3, 0), (4, 3), (1, 0), (9, 1)])
def test_an_image_is_made_of_its_own_patches(size, overlap, channels_first):
    """Overlaps agree, wherever they are cut, and so at the border, where they are wider."""
    x = np.moveaxis(IMAGES, -1, 1) if channels_first else IMAGES
    quilting = ImageQuilting((0, 1), size, overlap, 1, channels_first=channels_first).fit(x)
    np.testing.assert_array_equal(quilting.transform(x), x.astype(np.float32))


def test_fit_keeps_all_patches_or_as_many_as_it_may():
    patches = all_patches(IMAGES, 4).astype(np.float32)
    held = ImageQuilting((0, 1), 4).fit(IMAGES)._learned.patches
    np.testing.assert_array_equal(held, patches)
    some = [ImageQuilting((0, 1), 4, max_patches=60, rng=7).fit(IMAGES)._learned.patches for _ in range(2)]
    np.testing.assert_array_equal(*some)
    flat, known = some[0].reshape(60, -1), patches.reshape(len(patches), -1)
    places = np.argmax((flat[:, None] == known).all(axis=2), axis=1)
    np.testing.assert_array_equal(known[places], flat)
    # One of each share of 2.4 places, in which all are as likely
    np.testing.assert_array_equal(np.searchsorted(np.arange(61) * 144 // 60, places, "right"), range(1, 61))


def test_one_of_the_nearest_patches_is_drawn():
    """Grey levels of 0, 0.1, ... around 0.42: four are nearer than the others, each as likely."""
    levels = np.arange(11) / 10
    patches = np.broadcast_to(levels[:, None, None, None], (11, 2, 2, 1))
    quilting = ImageQuilting((0, 1), 2, 0, neighbours=4, patches=patches, rng=0)
    out = quilting.transform(np.full((1, 80, 80, 1), 0.42))[0, ::2, ::2, 0]
    found, counts = np.unique(np.round(out, 3), return_counts=True)
    np.testing.assert_allclose(found, [0.3, 0.4, 0.5, 0.6])
    np.testing.assert_allclose(counts, 400, atol=69)  # four standard deviations


def least_seam(errors):
    """By trying all paths of steps of one column at most; ties do not occur."""
    rows, width = errors.shape
    paths = [p for p in product(range(width), repeat=rows) if all(abs(a - b) <= 1 for a, b in pairwise(p))]
    return min(paths, key=lambda path: sum(errors[row, column] for row, column in enumerate(path)))


def naive(patches, shape, chosen, tops, lefts, size):
    out = np.zeros(shape)
    for (a, top), (b, left) in product(enumerate(tops), enumerate(lefts)):
        new = patches[chosen[a, b]]
        old = out[top : top + size, left : left + size].copy()
        errors, mask = ((old - new) ** 2).sum(axis=2), np.ones((size, size), bool)
        if b > 0:
            across = lefts[b - 1] + size - left
            mask &= np.arange(size) >= np.array(least_seam(errors[:, :across]))[:, None]
        if a > 0:
            down = tops[a - 1] + size - top
            mask &= np.arange(size)[:, None] >= np.array(least_seam(errors[:down].T))
        out[top : top + size, left : left + size] = np.where(mask[..., None], new, old)
    return out


@pytest.mark.parametrize(
    ("overlap", "tops", "lefts"), [(2, [0, 3, 6], [0, 3, 4]), (3, [0, 2, 4, 6], [0, 2, 4])]
)
def test_overlaps_are_cut_where_they_differ_least(overlap, tops, lefts):
    """Patches of 5 x 5; the last ones lie at the border, over more of their neighbours."""
    patches = all_patches(RNG.random((1, 14, 14, 3)), 5)
    quilting = ImageQuilting((0, 1), 5, overlap, neighbours=1, patches=patches)
    x = IMAGES[0]
    squared = [
        [((patches - x[top : top + 5, left : left + 5]) ** 2).sum((1, 2, 3)).argmin() for left in lefts]
        for top in tops
    ]
    expected = naive(patches, x.shape, np.array(squared), tops, lefts, 5)
    np.testing.assert_allclose(quilting.transform(x[None])[0], expected, atol=1e-6)
    assert np.abs(quilting.transform(x[None])[0] - x).max() > 0.1


def test_a_draw_belongs_to_a_sample():
    quilting = ImageQuilting((0, 1), rng=1).fit(RNG.random((2, 20, 20, 3)))
    whole = quilting.transform(IMAGES, index=np.arange(3))
    np.testing.assert_array_equal(quilting.transform(IMAGES[1:], index=np.arange(1, 3)), whole[1:])
    assert quilting.transform(IMAGES[:0]).shape == (0, 11, 9, 3)


def test_other_patches_later():
    """Set as a parameter, and learned: what was fitted last counts."""
    dark, bright = np.zeros((1, 5, 5, 3)), np.ones((1, 5, 5, 3))
    quilting = ImageQuilting((0, 1), neighbours=1, patches=dark)
    assert quilting.transform(IMAGES).max() == 0
    assert quilting.set_params(patches=bright).transform(IMAGES).min() == 1
    assert quilting.fit(np.full((1, 5, 5, 3), 0.5)).transform(IMAGES).max() == 0.5
    with pytest.raises(ValueError, match=r"`x` of shape \(3, 11, 9, 3\) needs at least 2 patches"):
        quilting.set_params(patches=None, neighbours=2).transform(IMAGES)


def test_before_it_is_fitted():
    quilting = ImageQuilting((0, 1))
    assert not quilting.is_fitted
    with pytest.raises(ValueError, match=r"must have patches before it is applied; call fit\(x\)"):
        quilting.transform(IMAGES)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"patch_size": 0}, "`patch_size` must be .* got 0"),
        ({"overlap": 5}, "`overlap` must be .* got 5"),
        ({"neighbours": 0}, "`neighbours` must be .* got 0"),
        ({"max_patches": 9}, "`max_patches` must be .* got 9"),
        ({"patches": np.zeros((20, 4, 4, 3))}, r"`patches` must be .* \(5, 5, C\), got .* \(20, 4, 4, 3\)"),
        ({"patches": np.zeros((9, 5, 5, 3))}, "`patches` must be at least 10"),
        ({"patches": np.full((20, 5, 5, 3), np.nan)}, "`patches` must"),
    ],
)
def test_bad_parameters(parameters, message):
    with pytest.raises(ValueError, match=message):
        ImageQuilting((0, 1), **parameters)


def test_images_that_do_not_suit():
    quilting = ImageQuilting((0, 1)).fit(IMAGES)
    with pytest.raises(ValueError, match=r"`patch_size` must be at most the smaller side .* got 5 .* 4 x 9"):
        quilting.transform(IMAGES[:, :4])
    with pytest.raises(ValueError, match=r"needs at least 10 patches of shape \(5, 5, 1\)"):
        quilting.transform(IMAGES[..., :1])
    with pytest.raises(ValueError, match=r"`x` must hold at least 10 patches .* got 2"):
        ImageQuilting((0, 1)).fit(IMAGES[:1, :5, :6])
    with pytest.raises(ValueError, match="`patch_size` must be at most"):
        ImageQuilting((0, 1)).fit(IMAGES[:, :4])
