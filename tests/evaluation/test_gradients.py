from itertools import pairwise

import numpy as np
import pytest

from preshield import (
    Chain,
    FeatureSqueezing,
    GaussianAugmentation,
    GaussianBlur,
    JpegCompression,
    SpatialSmoothing,
    ThermometerEncoding,
)
from preshield.evaluation.gradients import gradient_variants, side_by_side
from tests.evaluation.analytic import Identity

X = np.random.default_rng(0).random((2, 4, 4, 3), dtype=np.float32)


@pytest.mark.parametrize(
    ("make", "strongest_first"),
    [
        (lambda **kw: FeatureSqueezing((0, 1), 3, **kw), ["soft", "identity"]),
        (lambda **kw: SpatialSmoothing(3, **kw), ["exact", "identity"]),
        (lambda **kw: ThermometerEncoding((0, 1), 4, **kw), ["soft", "surrogate", "identity"]),
        (lambda **kw: JpegCompression((0, 1), **kw), ["soft", "straight-through", "identity"]),
    ],
    ids=["FeatureSqueezing", "SpatialSmoothing", "ThermometerEncoding", "JpegCompression"],
)
def test_every_gradient_is_tried_the_strongest_first(make, strongest_first):
    for own in strongest_first:
        defence = make(gradient=own)
        variants = gradient_variants(defence)
        assert [variant.gradient for variant in variants] == strongest_first
        assert variants[strongest_first.index(own)] is defence
        assert defence.gradient == own
        for variant in variants:
            assert type(variant) is type(defence)
            assert {**variant.get_params(), "gradient": own} == defence.get_params()
    grad = np.random.default_rng(1).normal(size=defence.transform(X).shape)
    pulled = [variant.estimate_gradient(X, grad) for variant in variants]
    assert all((one != other).any() for one, other in pairwise(pulled))


def test_one_gradient():
    blur = GaussianBlur(3)
    assert gradient_variants(blur) == [blur]
    assert gradient_variants(None) == [None]
    chain = Chain([GaussianBlur(3), GaussianAugmentation(0.1, False)])
    assert gradient_variants(chain) == [chain]


def gradients_of(chain):
    """The gradients of the stages, those of inner chains in lists of their own."""
    return [
        gradients_of(stage) if isinstance(stage, Chain) else getattr(stage, "gradient", None)
        for stage in chain.defences
    ]


def test_a_chain_is_tried_with_the_strongest_and_with_the_weakest_gradients_of_all_stages():
    stages = [
        SpatialSmoothing(3),
        JpegCompression((0, 1)),
        Chain([FeatureSqueezing((0, 1), 4), GaussianBlur(3)]),
    ]
    chain = Chain(stages, apply_fit=True)
    variants = gradient_variants(chain)
    assert [gradients_of(variant) for variant in variants] == [
        ["exact", "soft", ["soft", None]],
        ["identity", "straight-through", ["identity", None]],
        ["identity", "identity", ["identity", None]],
    ]
    assert variants[-1] is chain
    assert chain.defences is stages
    assert all(variant.apply_fit for variant in variants)


def test_a_chain_with_a_combination_of_its_own_is_tried_with_it_too():
    chain = Chain([SpatialSmoothing(3, gradient="exact"), FeatureSqueezing((0, 1), 4)])
    variants = gradient_variants(chain)
    assert [gradients_of(variant) for variant in variants] == [
        ["exact", "soft"],
        ["identity", "identity"],
        ["exact", "identity"],
    ]
    assert variants[-1] is chain


def test_side_by_side():
    assert side_by_side([[1, 2, 3], [4], [5, 6]]) == [[1, 4, 5], [2, 4, 6], [3, 4, 6]]


def test_variants_keep_what_was_learned():
    class Learner(Identity):
        gradients = ("identity", "exact")

        def __init__(self, gradient="exact"):
            self.gradient = gradient

        def _fit(self, x, y):
            self.mean_ = x.mean()

    learner = Learner().fit(X)
    own, other = gradient_variants(learner)
    assert own is learner
    assert other.is_fitted
    assert other.mean_ == learner.mean_
