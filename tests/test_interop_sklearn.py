"""scikit-learn: clone, Pipeline, grid search."""

import numpy as np
import pytest

from preshield import Chain, FeatureSqueezing, GaussianAugmentation, Preprocessor, SpatialSmoothing
from tests.cases import ALL

pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.utils import get_tags
from sklearn.utils.validation import check_is_fitted

RNG = np.random.default_rng(0)
X = RNG.random((60, 5))
Y = (X[:, 0] > 0.5).astype(int)


class Centre(Preprocessor):
    """Subtract the mean that was learned."""

    domains = ("features",)

    def __init__(self, weight=1.0):
        self.weight = weight

    def _fit(self, x, y):
        self.mean_ = self.weight * x.mean(axis=0)

    def _transform(self, x, draw):
        return x - self.mean_


@pytest.mark.parametrize("case", ALL, ids=str)
def test_clone(case):
    defence = case.make()
    copied = clone(defence)
    assert type(copied) is type(defence)
    assert copied is not defence
    assert copied.get_params().keys() == defence.get_params().keys()
    with defence.frozen(), copied.frozen():
        y = np.eye(3, dtype=np.float32)[np.arange(len(case.sample)) % 3]
        np.testing.assert_array_equal(copied(case.sample, y)[0], defence(case.sample, y)[0])


def test_clone_forgets_what_was_learned_and_drawn():
    assert not clone(Centre().fit(X)).is_fitted
    noise = GaussianAugmentation(1.0, False, rng=3)
    first = noise.transform(X)
    np.testing.assert_array_equal(clone(noise).transform(X), first)


def test_clone_copies_the_stages_of_a_chain():
    chain = Chain([FeatureSqueezing((0, 1), 3)])
    copied = clone(chain)
    assert copied.defences[0] is not chain.defences[0]
    assert copied.defences[0].bit_depth == 3


def test_pipeline():
    pipeline = make_pipeline(FeatureSqueezing((0, 1), bit_depth=4), LogisticRegression())
    pipeline.fit(X, Y)
    squeezed = np.rint(X * 15) / 15
    expected = LogisticRegression().fit(squeezed, Y).predict_proba(squeezed)
    np.testing.assert_allclose(pipeline.predict_proba(X), expected)


def test_pipeline_of_defences_alone():
    pipeline = Pipeline([("squeeze", FeatureSqueezing((0, 1), 4)), ("centre", Centre())])
    squeezed = np.rint(X * 15) / 15
    np.testing.assert_allclose(pipeline.fit(X).transform(X), squeezed - squeezed.mean(axis=0))


def test_pipeline_with_images():
    x = RNG.random((4, 6, 6, 1))
    pipeline = make_pipeline(SpatialSmoothing(3), FeatureSqueezing((0, 1), 2))
    expected = FeatureSqueezing((0, 1), 2).transform(SpatialSmoothing(3).transform(x))
    np.testing.assert_array_equal(pipeline.fit(x).transform(x), expected)


def test_parameters_through_a_pipeline():
    pipeline = Pipeline([("squeeze", FeatureSqueezing((0, 1))), ("model", LogisticRegression())])
    assert pipeline.get_params()["squeeze__bit_depth"] == 8
    pipeline.set_params(squeeze__bit_depth=2)
    assert pipeline["squeeze"].bit_depth == 2
    with pytest.raises(
        TypeError, match="FeatureSqueezing has no parameter 'bits'; it has clip_values, bit_depth"
    ):
        pipeline.set_params(squeeze__bits=2)
    assert "FeatureSqueezing(clip_values=(0, 1), bit_depth=2)" in repr(pipeline)


def test_grid_search_finds_the_bit_depth():
    """With one bit the classes of this problem cannot be told apart."""
    y = (X[:, 0] > 0.75).astype(int)
    pipeline = Pipeline([("squeeze", FeatureSqueezing((0, 1))), ("model", LogisticRegression(C=100))])
    search = GridSearchCV(pipeline, {"squeeze__bit_depth": [1, 6]}, cv=3).fit(X, y)
    assert search.best_params_ == {"squeeze__bit_depth": 6}


def test_a_learner_in_cross_validation():
    scores = cross_val_score(make_pipeline(Centre(), LogisticRegression(C=100)), X, Y, cv=3)
    assert scores.mean() > 0.85


def test_column_transformer():
    columns = ColumnTransformer([("squeeze", FeatureSqueezing((0, 1), 1), [0, 2])], remainder="passthrough")
    out = columns.fit_transform(X)
    np.testing.assert_array_equal(out, np.hstack([np.rint(X[:, [0, 2]]), X[:, [1, 3, 4]]]))


def test_tags():
    assert not get_tags(FeatureSqueezing((0, 1))).requires_fit
    assert get_tags(Centre()).requires_fit
    check_is_fitted(FeatureSqueezing((0, 1)))
    assert FeatureSqueezing((0, 1)).__sklearn_tags__().transformer_tags is not None
