"""Chain: composition, the exact chain rule, labels, draws."""

import copy
import tracemalloc

import numpy as np
import pytest

from preshield import (
    Chain,
    FeatureSqueezing,
    GaussianAugmentation,
    GaussianBlur,
    JpegCompression,
    LabelSmoothing,
    Preprocessor,
    SpatialSmoothing,
    ThermometerEncoding,
    TotalVarMin,
)
from tests.cases import features, images


class Learner(Preprocessor):
    """Subtract the mean that was learned; remember what was seen."""

    domains = ("image", "features")

    def _fit(self, x, y):
        self.seen = (np.array(x), y)
        self.mean = x.mean(axis=0)

    def _transform(self, x, draw):
        return x - self.mean


class Sound(Preprocessor):
    domains = ("audio",)


# Composition


def test_a_chain_is_its_stages_one_after_the_other():
    x = images()
    stages = [SpatialSmoothing(3), JpegCompression((0, 1), 60), ThermometerEncoding((0, 1), 4)]
    expected = x
    for stage in stages:
        expected = stage.transform(expected)
    out, y = Chain(stages)(x, None)
    np.testing.assert_array_equal(out, expected)
    assert out.shape == (3, 6, 5, 12)
    assert y is None


def test_known_answer():
    chain = Chain([FeatureSqueezing((0, 1), 1), ThermometerEncoding((0, 1), 2)])
    np.testing.assert_array_equal(chain.transform([[0.2, 0.7]]), [[1, 0, 1, 1]])


def test_stages_apply_whatever_their_own_flags_say():
    x = features()
    chain = Chain([FeatureSqueezing((0, 1), 1, apply_fit=False, apply_predict=False)], True, False)
    np.testing.assert_array_equal(chain.transform(x), np.rint(x))
    assert (chain.apply_fit, chain.apply_predict) == (True, False)


def test_a_nested_chain_is_the_flat_chain():
    stages = [GaussianAugmentation(0.1), SpatialSmoothing(3, gradient="exact"), GaussianAugmentation(0.2)]
    flat, nested = Chain(stages), Chain([Chain(stages[:2]), Chain(stages[2:])])
    x, y = images(), np.arange(3)
    with flat.frozen(4), nested.frozen(4):
        for a, b in zip(flat(x, y), nested(x, y), strict=True):
            np.testing.assert_array_equal(a, b)
        grad = np.random.rand(12, 6, 5, 3)
        np.testing.assert_array_equal(flat.estimate_gradient(x, grad), nested.estimate_gradient(x, grad))


# Gradients


def test_the_chain_rule_holds_at_the_points_that_were_visited():
    x, grad = images(), np.random.rand(3, 6, 5, 3)
    median, soft = SpatialSmoothing(3, gradient="exact"), FeatureSqueezing((0, 1), 2, gradient="soft")
    pulled = Chain([median, soft]).estimate_gradient(x, grad)
    exact = median.estimate_gradient(x, soft.estimate_gradient(median.transform(x), grad))
    at_the_original = median.estimate_gradient(x, soft.estimate_gradient(x, grad))
    np.testing.assert_array_equal(pulled, exact)
    assert np.abs(pulled - at_the_original).max() > 0.1


def test_the_chain_rule_holds_through_changes_of_shape():
    x = images()
    code, soft = ThermometerEncoding((0, 1), 4), FeatureSqueezing((-1, 2), 2, gradient="soft")
    chain = Chain([SpatialSmoothing(2, gradient="exact"), code, soft])
    grad = np.random.rand(3, 6, 5, 12)
    smooth = SpatialSmoothing(2).transform(x)
    step = soft.estimate_gradient(code.transform(smooth), grad)
    step = code.estimate_gradient(smooth, step)
    expected = SpatialSmoothing(2, gradient="exact").estimate_gradient(x, step)
    np.testing.assert_array_equal(chain.estimate_gradient(x, grad), expected)


def test_the_gradient_sees_the_draw_of_its_pass():
    """Copies are drawn: only the very same draw sends each gradient to the sample that was copied."""
    x = np.random.rand(6, 4)
    chain = Chain([GaussianAugmentation(0.0, ratio=2.0), GaussianAugmentation(0.0, ratio=0.5)])
    with chain.frozen(9):
        out = chain.transform(x)
        grad = np.random.rand(*out.shape)
        pulled = chain.estimate_gradient(x, grad)
    source = np.array([np.flatnonzero((np.float32(x) == row).all(axis=1))[0] for row in out])
    expected = np.zeros(x.shape)
    np.add.at(expected, source, grad)
    np.testing.assert_allclose(pulled, expected)


# Labels


def test_labels_go_through_every_stage_that_changes_them():
    x, y = np.arange(8.0).reshape(4, 2), np.eye(4)
    chain = Chain(
        [LabelSmoothing(0.7), GaussianAugmentation(0.0, ratio=1.5, rng=1), FeatureSqueezing((0, 8), 4)]
    )
    out, labels = chain(x, y)
    assert out.shape == (10, 2)
    assert labels.shape == (10, 4)
    np.testing.assert_allclose(np.sort(labels, axis=1), [[0.1, 0.1, 0.1, 0.7]] * 10)
    np.testing.assert_array_equal(labels.argmax(axis=1), np.rint(out[:, 0] / 2).astype(int))


def test_without_labels_there_is_nothing_to_smooth():
    x = features()
    chain = Chain([FeatureSqueezing((0, 1), 2), LabelSmoothing()])
    out, y = chain(x)
    np.testing.assert_array_equal(out, FeatureSqueezing((0, 1), 2).transform(x))
    assert y is None
    np.testing.assert_array_equal(chain.transform(x), out)


def test_labels_pass_untouched_where_no_stage_is_about_them():
    y = object()
    assert Chain([SpatialSmoothing()])(images(), y)[1] is y


def test_labels_alone_run_no_stage():
    """A traced graph asks for them apart from the data; the draws are those of the pass with the data."""

    class Busy(Preprocessor):
        domains = ("features",)

        def _transform(self, x, draw):
            raise AssertionError("work for nothing")

    stages = [GaussianAugmentation(0.0, ratio=1.5), LabelSmoothing(0.7), FeatureSqueezing((0, 1))]
    copies, nested = GaussianAugmentation(0.0), Chain([Busy(), GaussianAugmentation(0.0)])
    x, y = features(), np.eye(4)
    with Chain([*stages, copies]).frozen(3) as chain:
        expected, seed = chain(x, y)[1], chain._next_seed()
    idle = Chain([*stages, nested])
    np.testing.assert_array_equal(idle._transform_labels(y, idle._begin(x, seed)), expected)


def test_a_chain_about_labels_takes_any_data():
    y = Chain([LabelSmoothing(0.9), Chain([LabelSmoothing(0.8)])])(None, np.eye(3))[1]
    np.testing.assert_allclose(y, 0.9 * np.eye(3) + 0.05 * (1 - np.eye(3)))


def test_a_chain_names_the_layout_of_its_stages_unless_they_differ():
    first, last = SpatialSmoothing(channels_first=True), SpatialSmoothing()
    with pytest.raises(
        ValueError, match=r"4-D image batch \(NCHW\) or a 5-D video batch \(NCFHW\), got shape"
    ):
        Chain([FeatureSqueezing((0, 1)), first, first]).transform(np.zeros((3, 8)))
    with pytest.raises(
        ValueError, match=r"must be a 4-D image batch or a 5-D video batch, got shape \(3, 8\)"
    ):
        Chain([first, last]).transform(np.zeros((3, 8)))


def test_data_pass_untouched_through_stages_about_labels():
    x = features()
    assert Chain([LabelSmoothing(), LabelSmoothing(0.5)])(x, np.eye(4))[0] is x


# Draws


def test_equal_stages_draw_differently():
    x = np.zeros((2, 50))
    chain = Chain([GaussianAugmentation(1.0, False), GaussianAugmentation(1.0, False)])
    for seed in range(3):
        with chain.frozen(seed):
            total = chain.transform(x)
        assert 1.1 < total.std() < 1.8  # sqrt(2), not 2 as if both added the same noise


def test_stages_keep_their_own_seeds():
    x = np.zeros((2, 5))
    noise = GaussianAugmentation(1.0, False, rng=5)
    expected = [noise.transform(x) for _ in range(2)]
    chain = Chain([FeatureSqueezing((-9, 9), 64), GaussianAugmentation(1.0, False, rng=5)])
    for first in expected:
        np.testing.assert_array_equal(chain.transform(x), first)


def test_a_frozen_stage_stays_frozen_in_the_chain():
    x = np.zeros((2, 5))
    noise = GaussianAugmentation(1.0, False)
    chain = Chain([noise])
    with noise.frozen(3):
        first, second, alone = chain.transform(x), chain.transform(x), noise.transform(x)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first, alone)
    assert (chain.transform(x) != first).any()


# Facts, dtypes, parameters


def test_facts_are_those_of_the_stages():
    chain = Chain([SpatialSmoothing(), LabelSmoothing(), ThermometerEncoding((0, 1))])
    assert chain.domains == ("image", "video")
    assert (chain.stochastic, chain.changes_shape, chain.optimises_at_test_time) == (False, True, False)
    assert chain.gradient_kind == "identity"
    assert Chain([ThermometerEncoding((0, 1)), LabelSmoothing()]).gradient_kind == "surrogate"
    assert Chain([TotalVarMin()]).stochastic
    assert Chain([TotalVarMin()]).optimises_at_test_time
    assert Chain([LabelSmoothing()]).domains == ("labels",)
    assert Chain([LabelSmoothing()]).gradient_kind == "exact"
    assert chain.paper == "arXiv:1704.01155, arXiv:1512.00567, https://openreview.net/forum?id=S18Su--CW"
    assert len(chain.known_attacks) == len(set(chain.known_attacks)) >= 3
    assert not chain.ragged


def test_the_dtype_follows_from_stage_to_stage():
    x = np.zeros((1, 8, 8, 3))
    median, squeeze = SpatialSmoothing(3), FeatureSqueezing((0, 1))
    assert Chain([median, median]).transform(x.astype(np.uint8)).dtype == np.uint8
    assert Chain([median, squeeze]).transform(x.astype(np.uint8)).dtype == np.float32
    assert Chain([median, squeeze]).transform(x).dtype == np.float64
    assert Chain([JpegCompression((0, 1)), squeeze]).transform(x).dtype == np.float32


def test_the_stages_are_checked():
    with pytest.raises(TypeError, match="`defences` must be a list of defences, got SpatialSmoothing"):
        Chain(SpatialSmoothing())
    with pytest.raises(ValueError, match="`defences` must hold at least one defence"):
        Chain([])
    with pytest.raises(
        TypeError,
        match=r"`defences\[1\]` must be a defence of preshield or ART, got 'jpeg' of type builtins.str",
    ):
        Chain([SpatialSmoothing(), "jpeg"])
    with pytest.raises(TypeError, match=r"`defences\[0\]` must be .* of type builtins.type"):
        Chain([SpatialSmoothing])
    with pytest.raises(
        ValueError, match="must have a domain in common, got SpatialSmoothing: image/video, Sound: audio"
    ):
        Chain([SpatialSmoothing(), Sound()])
    with pytest.raises(TypeError, match="`apply_fit` must be True or False, got 1"):
        Chain([SpatialSmoothing()], 1)


def test_a_stage_refuses_what_it_cannot_take():
    """The first stage takes any shape, the second images alone: refused before the first works."""
    chain = Chain([FeatureSqueezing((0, 1)), SpatialSmoothing()])
    with pytest.raises(ValueError, match=r"`x` must be a 4-D image batch .* got shape \(4, 7\)"):
        chain.transform(features())
    with pytest.raises(ValueError, match="must not be negative"):
        Chain([FeatureSqueezing((-1, 1)), JpegCompression((0, 1))]).transform(-images())


def test_parameters():
    chain = Chain([SpatialSmoothing()])
    stages = [SpatialSmoothing(5), FeatureSqueezing((0, 1))]
    assert chain.set_params(defences=stages).defences is stages
    assert repr(Chain(stages)) == (
        "Chain(defences=[SpatialSmoothing(window_size=5), FeatureSqueezing(clip_values=(0, 1))])"
    )
    with pytest.raises(TypeError, match="`defences` must be a list"):
        chain.set_params(defences=None)
    assert chain.defences is stages


# Learning


def test_a_stage_learns_from_what_the_stages_before_it_make():
    x, y = images(), np.eye(3)
    learner, squeeze = Learner(), FeatureSqueezing((0, 1), 1)
    chain = Chain([squeeze, learner, LabelSmoothing()])
    assert not chain.is_fitted
    assert chain.fit(x, y) is chain
    assert chain.is_fitted
    np.testing.assert_array_equal(learner.seen[0], squeeze.transform(x))
    np.testing.assert_array_equal(learner.seen[1], y)
    expected = squeeze.transform(x) - squeeze.transform(x).mean(axis=0)
    np.testing.assert_allclose(chain.transform(x), expected, rtol=1e-6)


def test_two_learners():
    x = features()
    first, second = Learner(), Learner()
    Chain([first, second]).fit(x)
    np.testing.assert_array_equal(second.seen[0], x - x.mean(axis=0))


def test_nothing_is_computed_where_nothing_is_learned():
    class Busy(Preprocessor):
        domains = ("features",)

        def _transform(self, x, draw):
            raise AssertionError("work for nothing")

    class Last(Busy):
        def _fit(self, x, y):
            self.seen = x

    chain = Chain([Busy(), LabelSmoothing(), Busy()])
    assert chain.is_fitted
    assert chain.fit(features()) is chain
    assert Chain([Learner(), Last(), Busy()]).fit(features()).is_fitted


def test_stages_with_one_seed_do_not_repeat_each_other():
    def noise():
        return GaussianAugmentation(1.0, False, rng=5)

    x = np.zeros((40, 50), np.float32)
    first = noise().transform(x)
    same = noise()
    for chain in (
        Chain([noise(), noise()]),
        Chain([same, same]),
        Chain([Chain([noise()]), Chain([noise()])]),
    ):
        for options in ({}, {"index": 0}):
            added = copy.deepcopy(chain).transform(x, **options) - first
            assert abs(np.corrcoef(added.ravel(), first.ravel())[0, 1]) < 0.1
            assert abs(added.std() - 1) < 0.1
        again = np.concatenate([chain.transform(x[i : i + 7], index=i) for i in range(0, 40, 7)])
        np.testing.assert_array_equal(again, chain.transform(x, index=0))


def test_without_a_gradient_no_copy_of_each_stage_is_kept():
    """Beside the result there is what one stage receives, in the chain and in the chain within it."""
    x = np.random.default_rng(0).random((64, 64, 64, 3), np.float32)
    blurs = Chain([GaussianBlur(3), Chain([GaussianBlur(3), GaussianBlur(3)]), *[GaussianBlur(3)] * 3])
    blurs.transform(x[:1])
    tracemalloc.start()
    out = blurs.transform(x)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < out.nbytes + 2.1 * x.nbytes
