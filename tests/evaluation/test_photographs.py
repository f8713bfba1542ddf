import numpy as np
import pytest

from preshield.evaluation.photographs import bundled_photographs, cut_crops


def photograph(height, width):
    """Pixels that tell where they come from: row in red, column in green, noise in blue."""
    rng = np.random.default_rng(0)
    image = np.empty((height, width, 3), dtype=np.uint8)
    image[..., 0] = np.arange(height)[:, None] // 2
    image[..., 1] = np.arange(width) // 2
    image[..., 2] = rng.integers(0, 256, (height, width))
    return image


def test_crops_of_one_photograph():
    task = cut_crops({"ramp": photograph(300, 400)}, train_per_class=1000, test_per_class=1000)
    # Halved: 150 x 200, so 2 x 3 whole tiles, of which (1, 1) is the test set; 25 crops per tile.
    assert task.x_train.shape == (125, 32, 32, 3)
    assert task.x_test.shape == (25, 32, 32, 3)
    assert task.x_test.dtype == np.float32
    origins = {tuple(np.rint(crop[0, 0, :2] * 255).astype(int)) for crop in task.x_test}
    starts = (64, 72, 80, 88, 96)
    assert origins == {(i, j) for i in starts for j in starts}
    assert task.class_names == ("ramp",)
    assert not task.y_test.any()


def test_halving_averages_blocks():
    image = photograph(256, 256)
    task = cut_crops({"ramp": image})
    block = image[128:130, 128:130].reshape(4, 3).mean(axis=0) / 255
    np.testing.assert_allclose(task.x_test[0, 0, 0], block, rtol=1e-6)


def test_limits_spread_over_the_photograph():
    both = {"a": photograph(256, 256), "b": photograph(500, 510)}
    task = cut_crops(both, train_per_class=10, test_per_class=4)
    assert np.bincount(task.y_train).tolist() == [10, 10]
    assert np.bincount(task.y_test).tolist() == [4, 4]
    rows = task.x_train[task.y_train == 1][:, 0, 0, 0] * 255
    assert rows.min() < 64
    assert rows.max() > 128


def test_flat_crops_are_left_out():
    image = photograph(256, 256)
    image[:160] = 128  # to row 80 of the halved picture: the crops that start at row 64 hold texture
    image[128:256, 128:192] = 128  # and columns 64 to 96
    task = cut_crops({"half flat": image}, train_per_class=1000, test_per_class=1000)
    assert len(task.x_test) == 20  # those that start at column 64 are flat
    assert task.x_train.std(axis=(1, 2, 3)).min() >= 0.03


@pytest.mark.parametrize(
    ("image", "missing"),
    [
        (photograph(254, 600), "test"),
        (np.zeros((256, 256, 3), dtype=np.uint8), "training"),
    ],
)
def test_photograph_without_crops_is_refused(image, missing):
    with pytest.raises(ValueError, match=f"photograph 'bad' .* no crop to the {missing} set"):
        cut_crops({"good": photograph(256, 256), "bad": image})


def test_bundled_photographs():
    pytest.importorskip("skimage")
    pytest.importorskip("sklearn")
    photographs = bundled_photographs()
    assert len(photographs) == 10
    assert all(p.dtype == np.uint8 and p.shape[2] == 3 for p in photographs.values())
    task = cut_crops(photographs)
    assert np.bincount(task.y_test).tolist() == [15] * 10
    assert task.class_names[-1] == "flower"
