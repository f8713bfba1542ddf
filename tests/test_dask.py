"""Arrays of Dask: lazy, with the bits of one call, however they are cut and wherever they are computed."""

import os
import re

import numpy as np
import pytest

from preshield import (
    Chain,
    Cutout,
    FeatureSqueezing,
    GaussianAugmentation,
    ImageResize,
    LabelSmoothing,
    Mixup,
    Preprocessor,
    Resample,
    SpatialSmoothing,
    ThermometerEncoding,
    VideoCompression,
)
from preshield._core.errors import ArgumentError
from tests.cases import ALL, audio, features, images, videos

dask = pytest.importorskip("dask")
da = pytest.importorskip("dask.array")

NOISE = {"sigma": 0.1, "augmentation": False}


@pytest.fixture(autouse=True)
def _synchronous():
    with dask.config.set(scheduler="synchronous"):
        yield


def cut(x, *lengths):
    return da.from_array(x, chunks=((*lengths, len(x) - sum(lengths)), *x.shape[1:]))


def is_split(case):
    defence = case.make()
    return defence.mixes_samples or defence._output_shape(case.sample.shape)[0] != len(case.sample)


def never(*args, **kwargs):
    raise AssertionError("nothing may be computed yet")


@pytest.mark.parametrize("case", [case for case in ALL if case.make().domains != ("labels",)], ids=str)
def test_every_defence_returns_a_lazy_array_with_the_bits_of_one_call(case):
    defence, x = case.make(), case.sample
    if is_split(case):
        with pytest.raises(ArgumentError, match="`x` must be one batch in memory for"):
            defence.transform(cut(x, 1))
        return
    with defence.frozen(3):
        expected = defence.transform(x)
        grad = np.random.default_rng(0).standard_normal(expected.shape)
        pulled = defence.estimate_gradient(x, grad)
        with dask.config.set(scheduler=never):
            lazy = defence.transform(cut(x, 1))
            lazy_pulled = defence.estimate_gradient(cut(x, 1), cut(grad, 1, 1))
    assert lazy.chunks == ((1, len(x) - 1), *((n,) for n in expected.shape[1:]))
    assert lazy.dtype == expected.dtype
    assert lazy_pulled.chunks == cut(x, 1).chunks
    assert lazy_pulled.dtype == pulled.dtype
    np.testing.assert_array_equal(lazy.compute(), expected, strict=True)
    np.testing.assert_array_equal(lazy_pulled.compute(), pulled, strict=True)


def of_stages():
    return Chain([Cutout(3, rng=1), GaussianAugmentation(**NOISE, rng=2), ThermometerEncoding((0, 1), 3)])


STOCHASTIC = [GaussianAugmentation(**NOISE, rng=0), GaussianAugmentation(**NOISE), of_stages()]


@pytest.mark.parametrize("lengths", [(), (1, 1), (0, 2), (3, 4, 1)], ids=str)
@pytest.mark.parametrize("defence", STOCHASTIC, ids=["integer", "global state", "chain"])
def test_a_call_has_one_seed_for_all_blocks(defence, lengths):
    x = np.random.default_rng(0).random((12, 4, 4, 3), dtype=np.float32)
    batch = defence.set_params(**defence.get_params())
    seeds = {"rng": 0} if "rng" in batch.params and batch.rng == 0 else {}
    np.random.seed(1)
    expected = [batch.set_params(**seeds).transform(x), batch.transform(x)]
    again = of_stages() if isinstance(defence, Chain) else batch.set_params(**seeds)
    if isinstance(defence, Chain):
        again, other = of_stages(), of_stages()
        expected = [other.transform(x), other.transform(x)]
    np.random.seed(1)
    lazy = [again.transform(cut(x, *lengths)) for _ in range(2)]
    for i in (1, 0):  # whatever is computed first, and as often as it is
        np.testing.assert_array_equal(lazy[i].compute(), expected[i])
        np.testing.assert_array_equal(lazy[i][5:7].compute(), expected[i][5:7])
    assert not np.array_equal(*expected)
