"""Draws: the published answers of Threefry, places in the stream, distributions, what they depend on."""

import copy
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from preshield import (
    Chain,
    Cutout,
    FeatureSqueezing,
    GaussianAugmentation,
    JpegCompression,
    LabelSmoothing,
    PixelDeflection,
    Preprocessor,
    Resample,
    TotalVarMin,
)
from preshield._core.draws import Draws
from preshield._core.kernels.threefry import fill_normals, fill_words, quantiles, threefry
from preshield.testing import check_preprocessor
from tests.threefry import threefry as threefry_of_python
from tests.threefry import words

ONES = 2**32 - 1
KNOWN = [  # key, counter, words: kat_vectors of Random123, threefry2x32 of 20 rounds
    ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
    ((ONES, ONES), (ONES, ONES), (0x1CB996FC, 0xBB002BE7)),
    ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
]


def draws(samples, key=(1, 2), index=None):
    index = range(samples) if index is None else index
    return Draws(np.array(key, np.uint32), np.array(index, np.uint32))


# Words


@pytest.mark.parametrize(("key", "counter", "expected"), KNOWN)
def test_published_answers(key, counter, expected):
    assert tuple(map(int, threefry(*map(np.uint32, (*key, *counter))))) == expected
    assert threefry_of_python(key, counter) == expected  # the oracle of the other tests


def test_words_are_those_of_jax():
    random = pytest.importorskip("jax.extend.random")
    key, index = np.array([7, 11], np.uint32), np.array([5], np.uint32)
    out = np.empty(40, np.uint32)
    fill_words(out, key, index, 0, 40, 0)
    pairs = np.arange(20, dtype=np.uint32)
    a, b = random.threefry2x32_p.bind(*key, pairs, np.full(20, 5, np.uint32))
    np.testing.assert_array_equal(out, np.stack([a, b], axis=1).ravel())


@settings(max_examples=60, deadline=None)
@given(
    of_sample=st.integers(1, 9),
    index=st.lists(st.integers(0, ONES), min_size=1, max_size=4),
    key=st.tuples(st.integers(0, ONES), st.integers(0, ONES)),
    first=st.sampled_from([0, 2, 7, 2**31 + 1]),
    data=st.data(),
)
def test_any_run_of_words_is_the_oracles(of_sample, index, key, first, data):
    total = of_sample * len(index)
    start = data.draw(st.integers(0, total - 1))
    out = np.zeros(data.draw(st.integers(0, total - start)), np.uint32)
    key = np.array(key, np.uint32)
    fill_words(out, key, np.array(index, np.uint32), start, of_sample, first)
    expected = np.concatenate([words(key, sample, of_sample, first) for sample in index])
    np.testing.assert_array_equal(out, expected[start : start + out.size])


def test_long_samples_are_made_in_parts():
    out, key, index = np.empty(9001, np.uint32), np.array([3, 4], np.uint32), np.array([0, 9], np.uint32)
    fill_words(out, key, index, 1001, 7001, 0)
    np.testing.assert_array_equal(out[:6000], words(key, 0, 6000, 1001))
    np.testing.assert_array_equal(out[6000:], words(key, 9, 3001))


# Normals


def test_the_table():
    table = quantiles().astype(float)
    assert table.shape == (65536,)
    np.testing.assert_array_equal(table * 2**20, np.rint(table * 2**20))
    np.testing.assert_array_equal(table, -table[::-1])
    assert (np.diff(table) > 0).all()
    assert abs(2 * np.mean(table**2) - 1) < 1e-6
    # Means of equal shares of a normal with variance 1/2: differences of its density over a share.
    ends = stats.norm.pdf(stats.norm.ppf(np.arange(65537) / 65536))
    expected = (ends[:-1] - ends[1:]) * 65536
    expected /= np.sqrt(2 * np.mean(expected**2))
    np.testing.assert_allclose(table, expected, atol=4e-6)
    assert 6.2 < 2 * table[-1] < 6.21


def test_a_normal_is_the_sum_of_the_entries_at_both_halves_of_its_word():
    key, table = np.array([5, 6], np.uint32), quantiles()
    out = np.empty(101, np.float32)
    fill_normals(out, table, key, np.array([3], np.uint32), 0, 101, 4)
    of_sample = words(key, 3, 101, 4).astype(np.int64)
    high, low = table.astype(float)[of_sample >> 16], table.astype(float)[of_sample & 0xFFFF]
    np.testing.assert_array_equal(out, high + low)


@pytest.fixture(scope="module")
def ten_million():
    """Of 1000 samples."""
    return draws(1000).standard_normal((1000, 10_000), np.float32)


def test_moments(ten_million):
    values = ten_million.ravel().astype(float)
    n = values.size
    # five standard errors of the sample moments of a normal distribution
    assert abs(values.mean()) < 5 / n**0.5
    assert abs(values.var() - 1) < 5 * (2 / n) ** 0.5
    assert abs(stats.skew(values)) < 5 * (6 / n) ** 0.5
    assert abs(stats.kurtosis(values) + 8e-5) < 5 * (24 / n) ** 0.5


def test_distribution(ten_million):
    values = np.sort(ten_million.ravel())
    n = values.size
    steps, cdf = np.arange(n + 1) / n, stats.norm.cdf(values)
    distance = max((steps[1:] - cdf).max(), (cdf - steps[:-1]).max())
    # Kolmogorov's statistic exceeds 2.23 / sqrt(n) with a probability of 1e-4
    assert distance < 2.23 / n**0.5


@pytest.mark.parametrize("sigmas", [2, 3, 4, 5])
def test_tails(ten_million, sigmas):
    expected = 2 * stats.norm.sf(sigmas) * (0.9 if sigmas == 5 else 1)
    for tail in (ten_million < -sigmas, ten_million > sigmas):
        found = int(tail.sum())
        mean = expected / 2 * ten_million.size
        assert abs(found - mean) < 5 * mean**0.5 + 1, (found, mean)


def test_neighbours_are_uncorrelated(ten_million):
    other = draws(100, key=(1, 3)).standard_normal((100, 10_000), np.float32)  # the neighbouring seed
    pairs = {
        "positions": (ten_million[:, :-1], ten_million[:, 1:]),
        "pairs of words": (ten_million[:, :-2], ten_million[:, 2:]),
        "samples": (ten_million[:-1], ten_million[1:]),
        "seeds": (ten_million[:100], other),
        "position and sample": (ten_million[:1000, :1000], ten_million[:1000, :1000].T),
    }
    for name, (a, b) in pairs.items():
        if name == "position and sample":
            a, b = a[np.triu_indices(1000, 1)], b[np.triu_indices(1000, 1)]
        for f in (np.positive, np.square):
            r = np.corrcoef(f(a).ravel(), f(b).ravel())[0, 1]
            assert abs(r) < 5 / a.size**0.5, (name, r)


# The methods of a generator


def test_rows_depend_on_their_number_alone():
    kinds = [
        lambda d, n: d.random((n, 3)),
        lambda d, n: d.random((n, 3), np.float32),
        lambda d, n: d.uniform(-2, 3, n),
        lambda d, n: d.integers(7, size=(n, 2)),
        lambda d, n: d.integers(-5, 5, n),
        lambda d, n: d.standard_normal((n, 1, 5)),
        lambda d, n: d.normal(3, 2, (n, 2)),
    ]
    for draw in kinds:
        whole = draw(draws(9), 9)
        for index in ([4], [8, 0, 3]):
            np.testing.assert_array_equal(draw(draws(len(index), index=index), len(index)), whole[index])
        assert (draw(draws(9, key=(2, 2)), 9) != whole).any()


def test_a_second_call_draws_other_words():
    d = draws(2)
    a, b, c = d.random((2, 3), np.float32), d.integers(2**32, size=(2, 2)), d.standard_normal((2, 1))
    for i in range(2):
        expected = words((1, 2), i, 9)
        np.testing.assert_array_equal(a[i], (expected[:3] >> 8) / 2**24)
        np.testing.assert_array_equal(b[i], expected[[4, 6]])  # an odd number of words leaves one over
        table = quantiles().astype(float)
        assert c[i] == table[int(expected[8]) >> 16] + table[int(expected[8]) & 0xFFFF]


def test_uniform_numbers_of_53_bits():
    d = draws(1)
    value = d.random(1)[0]
    a, b = (int(word) for word in words((1, 2), 0, 2))
    assert value == ((a >> 5) * 2**26 + (b >> 6)) / 2**53
    values = draws(1000).random((1000, 100)).ravel()
    assert stats.kstest(values, "uniform").statistic < 2.23 / values.size**0.5
    assert 0 <= values.min() < values.max() < 1


@pytest.mark.parametrize("span", [1, 2, 7, 1000])
def test_integers_are_uniform(span):
    values = draws(500).integers(-3, span - 3, (500, 40)).ravel()
    assert values.dtype == np.int64
    counts = np.bincount(values + 3, minlength=span)
    assert len(counts) == span
    assert span == 1 or stats.chisquare(counts).pvalue > 1e-4


def test_integers_take_the_share_of_a_number_of_64_bits():
    for span in (3, 2**31 + 1, 2**32):
        value = int(draws(1).integers(0, span, 1)[0])
        a, b = (int(word) for word in words((1, 2), 0, 2))
        assert value == (a * 2**32 + b) * span >> 64


def test_bounds_of_integers_may_be_arrays():
    high = np.array([1, 10, 1000])
    values = draws(400).integers(0, high, (400, 3))
    assert (values < high).all()
    assert values[:, 0].max() == 0
    assert values[:, 1].max() == 9
    assert values[:, 2].max() > 900


@pytest.mark.parametrize("bounds", [(0, 0), (5, 3), (0, 2**32 + 1)])
def test_empty_and_long_ranges_are_refused(bounds):
    with pytest.raises(ValueError, match=r"`high` must lie 1 to 2\*\*32 above `low`, got"):
        draws(2).integers(*bounds, 2)


def test_what_all_samples_share():
    one, other = draws(3), draws(7, index=range(5, 12))
    for name in ("random", "standard_normal", "uniform", "normal"):
        assert getattr(one, name)() == getattr(other, name)()
    assert one.integers(1000) == other.integers(1000)
    assert one.permutation(9).tolist() == other.permutation(9).tolist()
    assert one.shared.beta(2, 3) == other.beta(2, 3)
    assert one.standard_normal() != draws(3, key=(9, 9)).standard_normal()


def test_a_size_without_the_axis_of_samples_is_refused():
    for size in (4, (2, 3), ()):
        with pytest.raises(
            ValueError, match=r"`size` must begin with the number of samples, 3, got .*`rng.shared`"
        ):
            draws(3).random(size)


# What the draws of a defence depend on

X = np.random.default_rng(0).random((11, 6, 8, 3), dtype=np.float32)


class Drops(Preprocessor):
    """As users write it."""

    domains = ("image",)
    stochastic = True
    gradient_kind = "exact"

    def __init__(self, rng=None):
        self.rng = rng

    def _draw(self, x, rng):
        return rng.random(x.shape) < 0.5

    def _transform(self, x, draw):
        return x * draw

    def _gradient(self, x, grad, draw):
        return grad * draw


DEFENCES = [
    GaussianAugmentation(0.1, augmentation=False, rng=3),
    TotalVarMin(rng=3, max_iter=3),
    PixelDeflection((0, 1), 20, denoiser=None, rng=3, gradient="exact"),
    Cutout(3, rng=3),
    Drops(rng=3),
    Chain([Cutout(3, rng=3), GaussianAugmentation(0.1, augmentation=False, rng=4)]),
]
every = pytest.mark.parametrize("defence", DEFENCES, ids=lambda d: type(d).__name__)


def whole(defence):
    return defence.transform(X, index=0)


def in_chunks(defence, size, x=X, first=0):
    parts = [defence.transform(x[i : i + size], index=first + i) for i in range(0, len(x), size)]
    return np.concatenate(parts)


@every
@pytest.mark.parametrize("size", [1, 2, 5, 7])
def test_chunks_change_nothing(defence, size):
    np.testing.assert_array_equal(in_chunks(defence, size), whole(defence))
    grad = np.random.default_rng(1).random(X.shape)
    pulled = [
        defence.estimate_gradient(X[i : i + size], grad[i : i + size], index=i) for i in range(0, 11, size)
    ]
    np.testing.assert_array_equal(np.concatenate(pulled), defence.estimate_gradient(X, grad, index=0))


@every
def test_the_order_of_samples_and_of_calls_changes_nothing(defence):
    expected = whole(defence)
    order = np.random.default_rng(2).permutation(11)
    np.testing.assert_array_equal(defence.transform(X[order], index=order), expected[order])
    defence.transform(X)  # a call without numbers goes on in the stream, and these do not notice
    np.testing.assert_array_equal(in_chunks(defence, 3, X[5:], 5), expected[5:])
    assert (defence.transform(X[:5], index=1) != expected[:5]).any()


@every
def test_threads_change_nothing(defence, monkeypatch):
    results = []
    for threads in ("1", "8"):
        monkeypatch.setenv("PRESHIELD_NUM_THREADS", threads)
        results.append(whole(defence))
    np.testing.assert_array_equal(results[1], results[0])


def test_threads_of_a_large_batch(monkeypatch):
    x, noise = np.zeros((3, 70_001)), GaussianAugmentation(augmentation=False, rng=3)
    results = []
    for threads in ("1", "8"):
        monkeypatch.setenv("PRESHIELD_NUM_THREADS", threads)
        results.append(noise.transform(x))
        noise.rng = 3
    np.testing.assert_array_equal(results[1], results[0])


@pytest.mark.filterwarnings(r"ignore:os\.fork\(\) was called:RuntimeWarning")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_change_nothing(method):
    with ProcessPoolExecutor(2, multiprocessing.get_context(method)) as pool:
        results = list(pool.map(whole, DEFENCES[:4], timeout=120))
    for defence, result in zip(DEFENCES, results, strict=False):
        np.testing.assert_array_equal(result, whole(defence))


@every
def test_the_first_call_and_frozen_number_from_0(defence):
    fresh = copy.deepcopy(defence)
    if not isinstance(fresh, Chain):
        fresh.set_params(rng=3)
        np.testing.assert_array_equal(fresh.transform(X), whole(defence))
    with defence.frozen(8):
        np.testing.assert_array_equal(defence.transform(X), whole(defence))
        np.testing.assert_array_equal(in_chunks(defence, 4), whole(defence))


def test_without_an_integer_each_call_draws_anew():
    for noise in (
        GaussianAugmentation(augmentation=False),
        GaussianAugmentation(augmentation=False, rng=np.random.default_rng(0)),
    ):
        assert (whole(noise) != whole(noise)).any()


@pytest.mark.parametrize(
    "index", [-1, 1.5, True, "3", 2**32 - 5, [1, 2], np.zeros((11, 1), int), [0.5] * 11, None], ids=repr
)
def test_index_is_checked_before_anything_is_drawn(index):
    noise, same = (GaussianAugmentation(augmentation=False, rng=3) for _ in range(2))
    if index is not None:
        with pytest.raises(ValueError, match="`index` must be the number of the first sample of the batch"):
            noise.transform(X, index=index)
    np.testing.assert_array_equal(noise.transform(X), same.transform(X))


def test_the_last_number():
    noise = GaussianAugmentation(augmentation=False, rng=3)
    last = noise.transform(X[:1], index=2**32 - 1)
    assert (noise.transform(X[:1], index=[2**32 - 1]) == last).all()
    assert (noise.transform(X[:1], index=2**31 - 1) != last).any()


def test_every_framework_takes_numbers():
    noise = GaussianAugmentation(0.1, augmentation=False, rng=3)
    expected, order = whole(noise), np.random.default_rng(2).permutation(11)
    torch = pytest.importorskip("torch")
    tf = pytest.importorskip("tensorflow")
    jax = pytest.importorskip("jax")
    x, numbers = torch.from_numpy(X[order]), torch.from_numpy(order)
    np.testing.assert_array_equal(noise.transform(x, index=numbers), expected[order])
    np.testing.assert_array_equal(noise.transform(tf.constant(X[4:]), index=tf.constant(4)), expected[4:])
    traced = tf.function(lambda x, i: noise.transform(x, index=i))
    np.testing.assert_array_equal(traced(tf.constant(X[4:]), tf.constant(4)), expected[4:])
    np.testing.assert_array_equal(noise.transform(jax.numpy.asarray(X[4:]), index=4), expected[4:])
    # The same draw, but XLA multiplies and adds in one instruction: a unit in the last place of the larger.
    jitted = jax.jit(lambda x, i: noise.transform(x, index=i))
    np.testing.assert_allclose(jitted(X[4:], 4), expected[4:], rtol=0, atol=2.0**-23)
    np.testing.assert_allclose(jitted(X[order], order), expected[order], rtol=0, atol=2.0**-23)


def test_one_sample():
    noise = GaussianAugmentation(0.1, augmentation=False, rng=3)
    np.testing.assert_array_equal(noise.transform_one(X[4], index=4), whole(noise)[4])


@pytest.mark.parametrize("name", ["CutMix", "Mixup", "GaussianAugmentation"])
def test_those_that_mix_or_add_samples_take_no_numbers(name):
    import preshield

    defence = getattr(preshield, name)(**({} if name == "GaussianAugmentation" else {"num_classes": 2}))
    for d in (defence, Chain([Cutout(2), defence])):
        with pytest.raises(ValueError, match="`index` must be left out for"):
            d(X, np.arange(11) % 2, index=0)


def test_what_draws_nothing_takes_numbers_and_ignores_them():
    squeeze, resample = FeatureSqueezing((0, 1), 2), Resample(4, 2)
    np.testing.assert_array_equal(squeeze.transform(X, index=3), squeeze.transform(X))
    clips = [np.ones(8), np.ones(12)]
    for out, expected in zip(resample.transform(clips, index=[7, 2]), resample.transform(clips), strict=True):
        np.testing.assert_array_equal(out, expected)
    with pytest.raises(ValueError, match="`index` must be"):
        squeeze.transform(X, index=-1)


def test_methods_that_draw_by_themselves_take_no_numbers():
    class Mine(Preprocessor):
        domains = ("image",)

        def __call__(self, x, y=None):
            return x + np.random.standard_normal(x.shape), y

    with pytest.raises(ValueError, match=r"`index` must be left out for .*its own methods draw"):
        Mine().transform(X, index=0)
    assert np.isfinite(Mine().transform(X)).all()


def test_a_parent_that_draws_is_numbered():
    class Louder(GaussianAugmentation):
        def __call__(self, x, y=None):
            x, y = super().__call__(x, y)
            return 2 * x, y

    louder, noise = (cls(0.1, augmentation=False, rng=3) for cls in (Louder, GaussianAugmentation))
    expected = 2 * whole(noise)
    np.testing.assert_array_equal(in_chunks(louder, 4), expected)
    assert (louder.transform(X[3:5], index=3) == expected[3:5]).all()


def test_the_contract_sees_draws_that_depend_on_the_cut():
    class Exponential(Drops):
        def _draw(self, x, rng):
            return rng.shared.exponential(size=x.shape)

    check_preprocessor(Drops(), X)
    with pytest.raises(AssertionError, match="sample 1 alone, with index=1"):
        check_preprocessor(Exponential(), X)


# What reviewers tried


def test_bounds_without_a_size_give_theirs():
    for draw in (
        lambda d: d.normal(np.zeros((6, 3)), 1.0),
        lambda d: d.uniform(np.zeros((6, 1)), np.ones(3)),
        lambda d: d.integers(np.full((6, 3), 1000)),
    ):
        values = draw(draws(6))
        assert values.shape == (6, 3)
        assert len(np.unique(values)) > 15
        np.testing.assert_array_equal(draw(draws(6))[2:], values[2:])
    with pytest.raises(ValueError, match="`size` must begin with the number of samples, 6, got"):
        draws(6).normal(np.zeros(3))


def test_methods_that_do_not_know_samples_refuse_values_for_each():
    d = draws(6)
    for draw in (
        lambda: d.laplace(0, 1, (6, 3)),
        lambda: d.exponential(size=6),
        lambda: d.choice(4, size=6),
        lambda: d.dirichlet(np.ones(2), size=6),
    ):
        with pytest.raises(ValueError, match=r"`rng.\w+` does not know the samples"):
            draw()
    assert d.dirichlet(np.ones(6)).shape == (6,)
    assert sorted(d.permutation(6)) == list(range(6))
    assert d.shared.laplace(0, 1, 6).shape == (6,)


def test_floats_of_single_precision():
    values = draws(500).random((500, 40), np.float32)
    assert values.dtype == np.float32
    assert 0 <= values.min() < values.max() < 1


def test_integers_of_small_types_and_with_an_end():
    d = draws(400)
    values = d.integers(np.int8(-100), np.int8(100), size=400, dtype=np.int8)
    assert values.dtype == np.int8
    assert values.min() < -90 < 90 < values.max() < 100
    assert set(d.integers(1, 6, size=400, endpoint=True)) == {1, 2, 3, 4, 5, 6}
    with pytest.raises(ValueError, match="`high` must lie 1 to"):
        d.integers(np.uint8([5]), np.uint8([3]), size=(400,))
    with pytest.raises(TypeError, match="Cannot cast"):
        d.integers(0, 5.5, size=400)


@pytest.mark.parametrize("size", [(6, 2.9), (6, -2), "6"])
def test_a_size_is_made_of_whole_numbers(size):
    with pytest.raises((TypeError, ValueError)):
        draws(6).random(size)


def test_a_negative_deviation_is_refused():
    with pytest.raises(ValueError, match="`scale` must be at least 0, got -1"):
        draws(6).normal(0, -1, 6)


@pytest.mark.parametrize(
    ("parent", "args"),
    [(GaussianAugmentation, (1.0, False)), (TotalVarMin, ()), (PixelDeflection, ((0, 1), 5))],
)
def test_a_subclass_draws_other_words_than_its_parent(parent, args):
    class Mine(parent):
        def _draw(self, x, rng):
            before = rng.random((len(x), 3))  # six words
            draw = super()._draw(x, rng)
            assert getattr(draw, "noise", draw).first == 6
            return draw, before, rng.standard_normal(x.shape)

        def _transform(self, x, draw):
            self.own = draw[2]
            return super()._transform(x, draw[0])

    mine = Mine(*args, rng=0)
    out = mine.transform(np.zeros(X.shape))
    if parent is GaussianAugmentation:
        assert (out != mine.own.astype(np.float32)).mean() > 0.99


def test_values_are_drawn_in_one_place():
    class Late(Drops):
        def _draw(self, x, rng):
            return rng

        def _transform(self, x, draw):
            return x * draw.random(x.shape)

    with pytest.raises(RuntimeError, match=r"Values are drawn in `_draw\(x, rng\)`"):
        Late().transform(X)


def test_a_refused_call_draws_nothing():
    class Mine(Preprocessor):
        domains = ("image",)

        def __call__(self, x, y=None):
            return x + np.random.standard_normal(x.shape), y

    mine = Mine()
    np.random.seed(0)
    state = np.random.get_state()[1].tolist()
    for _ in range(2):
        with pytest.raises(ValueError, match="`index` must be left out for"):
            mine.transform(X, index=0)
        assert np.random.get_state()[1].tolist() == state


def test_a_chain_of_classes_for_art_moves_numpys_state_on():
    class Same(Preprocessor):
        def __call__(self, x, y=None):
            return x * 1, y

    class Noisy(Preprocessor):
        def __call__(self, x, y=None):
            return x + np.random.normal(size=x.shape).astype("f4"), y

    np.random.seed(0)
    first, second = (Chain([Same(), Noisy()]).transform(np.zeros((3, 4), "f4")) for _ in range(2))
    assert (first != second).all()


def test_labels_alone_and_empty_batches():
    labels = LabelSmoothing()(None, np.eye(3), index=0)[1]
    np.testing.assert_array_equal(labels, LabelSmoothing()(None, np.eye(3))[1])
    noise = GaussianAugmentation(augmentation=False, rng=3)
    for index in ([], 0, 5):
        assert noise.transform(X[:0], index=index).shape == (0, *X.shape[1:])
    with pytest.raises(ValueError, match="`index` must be"):
        noise.transform(X[:0], index=-5)
    with pytest.raises(ValueError, match="got values from -1 to -1"):
        noise.transform(X, index=[-1] * 11)


def test_numbers_that_a_graph_knows_beforehand_are_checked_before_it_runs():
    jax, tf = pytest.importorskip("jax"), pytest.importorskip("tensorflow")
    noise = GaussianAugmentation(0.1, augmentation=False, rng=3)
    expected = noise.transform(X, index=2**31 + 5)
    jitted = jax.jit(lambda x: noise.transform(x, index=2**31 + 5))
    np.testing.assert_allclose(jitted(X), expected, rtol=0, atol=2.0**-23)
    traced = tf.function(lambda x: noise.transform(x, index=2**31 + 5))
    np.testing.assert_array_equal(traced(tf.constant(X)), expected)
    for index in (-4, 2**32 + 3):
        for defence in (noise, FeatureSqueezing((0, 1), 2)):
            with pytest.raises(ValueError, match="`index` must be the number"):
                jax.jit(lambda x, d=defence, i=index: d.transform(x, index=i))(X)
            with pytest.raises(ValueError, match="`index` must be the number"):
                tf.function(lambda x, d=defence, i=index: d.transform(x, index=i))(tf.constant(X))


def test_what_a_defence_takes_belongs_to_its_arithmetic():
    class Mixin:
        def _transform(self, x, draw):
            return 1 - x

    class Mine(Mixin, JpegCompression):
        pass

    with pytest.raises(ValueError, match="`x` must be finite"):
        Mine((0, 1)).transform(np.full((1, 8, 8, 3), np.nan))
