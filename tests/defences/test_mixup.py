"""Mixup: shares, orders, labels."""

import numpy as np
import pytest
from scipy import stats

from preshield import Chain, GaussianAugmentation, LabelSmoothing, Mixup
from preshield._core.arithmetic.dirichlet import dirichlet
from preshield._core.draws import Draws


@pytest.mark.parametrize("num_mix", [2, 3, 5])
def test_samples_and_labels_are_mixed_alike(num_mix):
    unit = np.eye(6)  # the mixture of unit vectors is the row of shares
    x, y = Mixup(6, 0.7, num_mix, rng=1)(unit, unit)
    np.testing.assert_array_equal(x, y)
    np.testing.assert_allclose(x.sum(axis=1), 1)
    np.testing.assert_allclose(x.sum(axis=0), 1)  # every sample is used as often as any other
    share = x.diagonal().min()  # of those that meet themselves in no permutation
    assert 0 < share < 1
    assert (x.diagonal() >= share).all()


def test_two_samples_by_hand(monkeypatch):
    class Given:
        xp = np

        def shares(self, alpha, parts, x):
            assert (alpha, parts) == (0.5, 2)
            return np.array([0.75, 0.25])

        def order(self):
            return np.array([2, 0, 1])

    mixup = Mixup(2, 0.5)
    x = np.array([[[4.0]], [[8.0]], [[16.0]]])
    draw = mixup._draw(x, Given())
    np.testing.assert_array_equal(mixup._transform(x, draw).ravel(), [3 + 4, 6 + 1, 12 + 2])
    labels = mixup._transform_labels(np.array([0, 1, 1]), draw)
    np.testing.assert_array_equal(labels, [[0.75, 0.25], [0.25, 0.75], [0, 1]])
    # sample 0 is three quarters of mixture 0 and a quarter of mixture 1, and so on
    grad = mixup._gradient(x, np.array([[[1.0]], [[2.0]], [[4.0]]]), draw)
    np.testing.assert_array_equal(grad.ravel(), [0.75 + 0.5, 1.5 + 1, 3 + 0.25])


@pytest.mark.parametrize(("alpha", "num_mix"), [(0.3, 2), (1.0, 2), (2.0, 4)])
def test_shares_follow_the_dirichlet_distribution(alpha, num_mix):
    mixup, x = Mixup(2, alpha, num_mix, rng=0), np.zeros((1, 1))
    shares = np.array([mixup._begin(x, mixup._next_seed()).shares for _ in range(1000)])
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    for share in shares.T:
        assert stats.kstest(share, stats.beta(alpha, alpha * (num_mix - 1)).cdf).pvalue > 1e-4


@pytest.mark.parametrize("alpha", [0.4, 1.0])
def test_many_shares_are_gamma_variates_over_their_sum(alpha):
    parts = 200_000
    shares = dirichlet(Draws(np.zeros(2, np.uint32), np.zeros(1, np.uint32)), np, alpha, parts, np.float64)
    assert stats.kstest(shares, stats.gamma(alpha, scale=1 / (alpha * parts)).cdf).pvalue > 1e-3


def test_orders_are_permutations_drawn_anew():
    mixup = Mixup(2, num_mix=3, rng=0)
    x = np.zeros((9, 1))
    orders = [mixup._begin(x, mixup._next_seed()).orders for _ in range(20)]
    assert all((np.sort(order, axis=1) == np.arange(9)).all() for order in orders)
    assert len({order.tobytes() for order in orders}) == 20
    assert any((order[0] != order[1]).any() for order in orders)


def test_class_indices_become_rows():
    mixup, x = Mixup(4), np.zeros((5, 2))
    indices = np.array([3, 0, 1, 3, 2])
    with mixup.frozen(0):
        rows = mixup(x, np.eye(4, dtype=np.float32)[indices])[1]
        np.testing.assert_array_equal(mixup(x, indices)[1], rows)
        np.testing.assert_array_equal(mixup(x, indices.astype(np.uint8))[1], rows)
    assert rows.dtype == np.float32


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floating_types_are_kept(dtype):
    x, y = Mixup(3)(np.ones((3, 2), dtype), np.eye(3, dtype=dtype))
    assert x.dtype == y.dtype == dtype


def test_integer_labels_are_not_truncated():
    labels = Mixup(2, rng=0)(np.zeros((2, 1)), np.eye(2, dtype=int))[1]
    np.testing.assert_allclose(labels.sum(axis=1), 1)
    assert ((labels > 0) & (labels < 1)).any() or (labels == 1).any()


def test_labels_are_needed():
    x, mixup = np.zeros((2, 3)), Mixup(2)
    for call in (mixup, mixup.transform, Chain([mixup, GaussianAugmentation(0.1, False)])):
        with pytest.raises(
            ValueError, match=r"`y` must be given: \w+ mixes labels .* keep apply_predict=False"
        ):
            call(x)
    assert mixup.estimate_gradient(x, x).shape == x.shape


def test_labels_are_needed_in_graphs_too():
    tf = pytest.importorskip("tensorflow")
    jax = pytest.importorskip("jax")
    with pytest.raises(ValueError, match="`y` must be given"):
        tf.function(lambda x: Mixup(2)(x)[0], autograph=False)(tf.zeros((2, 3)))
    with pytest.raises(ValueError, match="`y` must be given"):
        jax.jit(lambda x: Mixup(2)(x)[0])(jax.numpy.zeros((2, 3)))


def test_in_a_chain_labels_take_part_in_every_stage():
    unit = np.eye(3, dtype=np.float32)
    chain = Chain([Mixup(3), Mixup(3), LabelSmoothing(0.8)])
    with chain.frozen(0):
        x, y = chain(unit, unit)
        np.testing.assert_allclose(x.sum(axis=1), 1, rtol=1e-6)
        expected = np.where(x == 1, 0.8, np.where(x == 0, 0.1, x))
    np.testing.assert_allclose(y, expected, rtol=1e-6)
    assert chain.mixes_samples


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.zeros((2, 3)), r"`y` must have shape \(N, 4\), got \(2, 3\)"),
        (np.zeros((2, 1)), r"`y` must have shape \(N, 4\), got \(2, 1\)"),
        (np.zeros((2, 4, 1)), r"`y` must have shape \(N, 4\), got \(2, 4, 1\)"),
        (np.array([0, 4]), "`y` must hold class indices from 0 to 3, got values from 0 to 4"),
        (np.array([0.5, 1]), "`y` must hold class indices from 0 to 3"),
        (np.zeros((3, 4)), "`y` must have one label for each of the 2 samples"),
        (np.array(["a", "b"]), "`y` must hold real numbers"),
    ],
)
def test_labels_that_cannot_be_mixed_are_refused(y, message):
    with pytest.raises(ValueError, match=message):
        Mixup(4)(np.zeros((2, 3)), y)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"num_classes": 0}, "`num_classes` must be at least 1, got 0"),
        ({"num_classes": 2, "alpha": 0}, "`alpha` must be above 0, got 0"),
        ({"num_classes": 2, "alpha": np.inf}, "`alpha` must be finite"),
        ({"num_classes": 2, "num_mix": 1}, "`num_mix` must be at least 2, got 1"),
    ],
)
def test_bad_parameters(kwargs, message):
    with pytest.raises(ValueError, match=message):
        Mixup(**kwargs)
