"""Arrays that do not fit in memory: read and written block by block, with the bits of one call."""

import numpy as np
import pytest

from preshield import (
    Chain,
    Cutout,
    FeatureSqueezing,
    GaussianAugmentation,
    LabelSmoothing,
    Mixup,
    Preprocessor,
    SpatialSmoothing,
    ThermometerEncoding,
)
from preshield._core import layout
from preshield._core.errors import ArgumentError
from preshield.frameworks import blocks

X = np.random.default_rng(0).random((20, 4, 4, 3), dtype=np.float32)


def of_stages():
    return Chain(
        [
            Cutout(2, rng=1),
            GaussianAugmentation(0.1, augmentation=False, rng=2),
            ThermometerEncoding((0, 1), 3),
        ]
    )


class Recorded:
    """An array on disk: nothing but slices of it can be read and written."""

    def __init__(self, array, chunks=None):
        self.array, self.shape, self.dtype, self.chunks = array, array.shape, array.dtype, chunks
        self.nbytes, self.read, self.written = array.nbytes, [], []

    def __getitem__(self, rows):
        self.read.append(rows)
        return self.array[rows]

    def __setitem__(self, rows, values):
        self.written.append(rows)
        self.array[rows] = values

    def __len__(self):
        raise AssertionError("not every array on disk has it")


def target(shape=(20, 4, 4, 9), dtype=np.float32, **kwargs):
    return Recorded(np.zeros(shape, dtype), **kwargs)


@pytest.mark.parametrize("index", [None, 7, np.arange(20)[::-1]], ids=["none", "first", "each"])
@pytest.mark.parametrize("block", [1, 1000, 1 << 20])
def test_blocks_have_the_bits_of_one_call(block, index, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", block)
    expected, out = of_stages().transform(X, index=index), target()
    assert of_stages().transform(Recorded(X), index=index, out=out) is out
    np.testing.assert_array_equal(out.array, expected)


def test_each_call_draws_anew_and_frozen_repeats():
    defence, other, out, x = of_stages(), of_stages(), np.empty((20, 4, 4, 9), np.float32), Recorded(X)
    for _ in range(2):
        np.testing.assert_array_equal(defence.transform(x, out=out), other.transform(X))
    with defence.frozen(3):
        np.testing.assert_array_equal(defence.transform(x, out=out), defence.transform(X))


@pytest.mark.parametrize(
    ("of_x", "of_out", "step"),
    [(None, None, 2), ((3, 4, 4, 3), None, 3), ((3, 4, 4, 3), (7, 4, 4, 9), 7), (None, (1, 4, 4, 9), 2)],
)
def test_whole_chunks_are_written(of_x, of_out, step, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 2 * 4 * 4 * 9 * 4)
    x, out = Recorded(X, of_x), target(chunks=of_out)
    of_stages().transform(x, out=out)
    assert out.written == x.read == [slice(i, min(i + step, 20)) for i in range(0, 20, step)]


def test_in_place():
    x = X.copy()
    defence = SpatialSmoothing(3)
    expected = defence.transform(x)
    assert defence.transform(x, out=x) is x
    np.testing.assert_array_equal(x, expected)
    with pytest.raises(ArgumentError, match="`out` must be `x` itself or have memory of its own"):
        defence.transform(x[1:], out=x[:-1])


def test_memory_maps(tmp_path):
    x = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float32, X.shape)
    x[...] = X
    out = np.lib.format.open_memmap(tmp_path / "out.npy", "w+", np.float32, (20, 4, 4, 9))
    of_stages().transform(x, out=out).flush()
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), of_stages().transform(X))


def test_h5py(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "data.h5", "w") as file:
        x = file.create_dataset("x", data=X, chunks=(3, 4, 4, 3))
        out = file.create_dataset("out", (20, 4, 4, 9), np.float32, compression="gzip")
        of_stages().transform(x, out=out)
        np.testing.assert_array_equal(out[:], of_stages().transform(X))
        np.testing.assert_array_equal(of_stages().transform(x), out[:])  # small: in memory


def test_zarr(tmp_path):
    zarr = pytest.importorskip("zarr")
    x = zarr.create_array(tmp_path / "x.zarr", shape=X.shape, chunks=(3, 4, 4, 3), dtype=X.dtype)
    x[:] = X
    out = zarr.create_array(tmp_path / "out.zarr", shape=(20, 4, 4, 9), chunks=(4, 4, 4, 9), dtype=X.dtype)
    of_stages().transform(x, out=out)
    np.testing.assert_array_equal(out[:], of_stages().transform(X))


class Style(Preprocessor):
    def __call__(self, x, y=None):
        return x + 1, y


class Twice(Preprocessor):
    def transform(self, x):
        return 2 * x


def test_classes_that_write_public_methods():
    for defence, expected in ((Style(), X + 1), (Twice(), 2 * X)):
        np.testing.assert_array_equal(defence.transform(Recorded(X), out=np.empty_like(X)), expected)


# What is refused


@pytest.mark.parametrize(
    "out", [target((20, 4, 4, 3)), target(dtype=np.float64), [0]], ids=["shape", "dtype", "list"]
)
def test_outputs_of_another_kind(out):
    with pytest.raises(
        ArgumentError, match=r"`out` must be an array of the shape \(20, 4, 4, 9\) and the dtype"
    ):
        of_stages().transform(X, out=out)


def test_defences_that_need_the_whole_batch():
    for defence in (Mixup(3), GaussianAugmentation(0.1)):
        with pytest.raises(
            ArgumentError, match=r"take one batch at a time, and its labels: defence\(x\[i:j\]"
        ):
            defence.transform(X, out=np.empty_like(X))
    with pytest.raises(ArgumentError, match="`out` must be left out for LabelSmoothing"):
        LabelSmoothing().transform(X, out=np.empty_like(X))


def test_tensors():
    torch = pytest.importorskip("torch")
    with pytest.raises(ArgumentError, match="got `x` of torch; leave it out"):
        SpatialSmoothing(3).transform(torch.tensor(X), out=np.empty_like(X))
    da = pytest.importorskip("dask.array")
    with pytest.raises(ArgumentError, match=r"got `x` of dask; write transform\(x\).store\(out\)"):
        SpatialSmoothing(3).transform(da.from_array(X), out=np.empty_like(X))


def test_large_arrays_are_not_loaded_without_a_word(monkeypatch):
    class OnDisk(Recorded):
        chunks = None

        def __array__(self, dtype=None, copy=None):
            return self.array

    defence, x = FeatureSqueezing((0, 1), 3), OnDisk(X)
    assert defence.transform(x).shape == X.shape
    monkeypatch.setattr(layout, "LOADED", X.nbytes - 1)
    message = r"`x` must be in memory from .* MiB up, got a tests.OnDisk of .* `transform\(x, out=...\)`"
    for method in (defence, defence.transform, defence.fit, lambda x: defence.estimate_gradient(X, x)):
        with pytest.raises(ArgumentError, match=message):
            method(x)
    np.testing.assert_array_equal(defence.transform(np.asarray(x)), defence.transform(X))
    np.testing.assert_array_equal(defence.transform(x, out=np.empty_like(X)), defence.transform(X))
