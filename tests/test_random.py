"""Randomness: results depend on the seed alone."""

import copy
import pickle
import subprocess
import sys

import numpy as np
import pytest

from preshield import GaussianAugmentation, TotalVarMin
from preshield._core.random import SEED_WORDS, SeedStream, expand_seed

X = np.zeros((3, 40))


def noise(**kwargs):
    return GaussianAugmentation(1.0, augmentation=False, **kwargs)


def same(a, b):
    return bool((a == b).all())


# Sources


def test_none_follows_numpys_global_seed():
    np.random.seed(3)
    first, second = noise().transform(X), noise().transform(X)
    np.random.seed(3)
    again = noise()
    assert same(again.transform(X), first)
    assert same(again.transform(X), second)
    assert not same(first, second)


def test_an_integer_starts_a_stream_of_its_own():
    a, b = noise(rng=3), noise(rng=3)
    state = np.random.get_state()[2]
    draws = [a.transform(X) for _ in range(3)]
    assert np.random.get_state()[2] == state  # NumPy's global state is left alone
    np.random.seed(9)
    for draw in draws:
        assert same(b.transform(X), draw)
    assert not same(draws[0], draws[1])
    assert not same(noise(rng=4).transform(X), draws[0])


def test_a_generator_is_drawn_from():
    rng = np.random.default_rng(3)
    first = noise(rng=rng).transform(X)
    second = noise(rng=rng).transform(X)
    assert not same(first, second)
    assert same(noise(rng=np.random.default_rng(3)).transform(X), first)


@pytest.mark.parametrize("seed", [np.int64(3), 3.0, np.float64(3)], ids=repr)
def test_numpy_integers_and_whole_floats_are_seeds(seed):
    assert same(noise(rng=seed).transform(X), noise(rng=3).transform(X))
    with noise().frozen(seed) as frozen:
        first = frozen.transform(X)
    with noise().frozen(3) as frozen:
        assert same(frozen.transform(X), first)


@pytest.mark.parametrize(
    "bad", ["3", 3.5, True, np.random.RandomState(3), [3]], ids=lambda v: type(v).__name__
)
@pytest.mark.parametrize("make", [GaussianAugmentation, TotalVarMin])
def test_other_sources_are_refused(make, bad):
    with pytest.raises(
        TypeError, match=r"`rng` must be None, an integer seed or a numpy.random.Generator, got "
    ):
        make(rng=bad)


def test_negative_seeds_are_refused():
    with pytest.raises(ValueError, match="`rng` must be at least 0, got -1"):
        noise(rng=-1)
    with pytest.raises(ValueError, match="`seed` must be at least 0, got -1"), noise().frozen(-1):
        pass
    with pytest.raises(TypeError, match="`seed` must be an integer, got"), noise().frozen(1.5):
        pass


def test_set_params_starts_the_stream_again():
    defence = noise(rng=3)
    first = defence.transform(X)
    defence.transform(X)
    assert same(defence.set_params(rng=3).transform(X), first)
    defence.transform(X)
    second = noise(rng=3)
    second.transform(X)
    middle = second.transform(X)
    third = noise(rng=3)
    third.transform(X)
    assert same(third.set_params(sigma=1.0).transform(X), middle)  # another parameter does not


def test_copies_go_on_with_the_same_stream():
    defence = noise(rng=3)
    defence.transform(X)
    twins = [copy.deepcopy(defence), pickle.loads(pickle.dumps(defence))]
    expected = defence.transform(X)
    for twin in twins:
        assert same(twin.transform(X), expected)


# Frozen


def test_frozen_repeats_one_draw():
    defence = noise(rng=3)
    with defence.frozen(1) as inside:
        assert inside is defence
        first, second = defence.transform(X), defence.transform(X)
    with noise().frozen(1) as other:
        third = other.transform(X)
    with defence.frozen(2):
        fourth = defence.transform(X)
    assert same(first, second)
    assert same(first, third)
    assert not same(first, fourth)


def test_frozen_takes_nothing_from_the_stream():
    defence = noise(rng=3)
    with defence.frozen():
        defence.transform(X)
    assert same(defence.transform(X), noise(rng=3).transform(X))
    state = np.random.get_state()[2]
    with noise().frozen() as defence:
        defence.transform(X)
    assert np.random.get_state()[2] == state


def test_frozen_nests_and_ends_with_an_error():
    defence = noise(rng=3)
    with defence.frozen(1):
        outer = defence.transform(X)
        with pytest.raises(RuntimeError, match="stop"), defence.frozen(2):
            raise RuntimeError("stop")
        assert same(defence.transform(X), outer)
    assert not same(defence.transform(X), outer)


def test_the_gradient_uses_the_frozen_draw():
    x = np.random.rand(5, 3)
    augment = GaussianAugmentation(0.0, ratio=3.0)
    with augment.frozen(7):
        out = augment.transform(x)
        pulled = augment.estimate_gradient(x, np.ones(out.shape))
    source = [np.flatnonzero((np.float32(x) == row).all(axis=1))[0] for row in out]
    np.testing.assert_array_equal(pulled, np.bincount(source, minlength=5)[:, None] * np.ones(3))


# What draws depend on


def test_a_sample_has_the_same_noise_whatever_follows_it():
    short, long = np.zeros((2, 1000)), np.zeros((1000, 1000))
    defence = noise()
    with defence.frozen(1):
        assert same(defence.transform(long)[:2], defence.transform(short))
        assert not same(defence.transform(long)[500:502], defence.transform(short))


def test_the_noise_is_gaussian_and_never_repeats():
    with noise().frozen(1) as defence:
        draw = defence.transform(np.zeros((4, 1 << 18)))
    assert abs(draw.mean()) < 0.005
    assert abs(draw.std() - 1) < 0.005
    assert abs((np.abs(draw) < 1).mean() - 0.6827) < 0.005
    assert len(np.unique(draw[:, :8])) == 32


def test_another_process_draws_the_same():
    code = (
        "import numpy as np, preshield\n"
        "d = preshield.GaussianAugmentation(1.0, False, rng=11)\n"
        "print(d.transform(np.zeros((2, 3))).tobytes().hex())"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    expected = noise(rng=11).transform(np.zeros((2, 3))).tobytes().hex()
    assert out.strip() == expected


# The parts


def test_seeds_are_words():
    for stream in (SeedStream(None), SeedStream(3), SeedStream(np.random.default_rng(3))):
        first, second = stream.next(), stream.next()
        assert first.dtype == np.uint32
        assert first.shape == (SEED_WORDS,)
        assert not same(first, second)
    assert expand_seed(1, 9).shape == (9,)
    assert expand_seed(1, 0).shape == (0,)
    assert not same(expand_seed(1, 4), expand_seed(2, 4))


def test_numpys_global_state_alone_makes_the_seeds_of_the_main_process():
    np.random.seed(3)
    seeds, stream = np.random.RandomState(3).randint(0, 2**32, size=(2, 2), dtype=np.uint32), SeedStream(None)
    np.testing.assert_array_equal([stream.next(), stream.next()], seeds)
