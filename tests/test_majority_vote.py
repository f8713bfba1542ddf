"""Voting over views: by hand, with every kind of classifier, and what is refused."""

import re

import numpy as np
import pytest

import preshield
from preshield import (
    Chain,
    FeatureSqueezing,
    GaussianAugmentation,
    GaussianBlur,
    JpegCompression,
    LabelSmoothing,
    MajorityVote,
    SpatialSmoothing,
)

UNIT = (0, 1)
RNG = np.random.default_rng(0)
X = RNG.random((6, 8, 7, 3), dtype=np.float32)
WEIGHTS = RNG.standard_normal((8 * 7 * 3, 4)).astype(np.float32)


def scores(x):
    return (x.reshape(len(x), len(WEIGHTS)) - 0.5) @ WEIGHTS


def bright(x):
    """Label: how bright a sample is, in tenths."""
    return np.floor(x.reshape(len(x), -1).mean(axis=1) * 10 + 1e-6).astype(int)


def columns(x):
    """A classifier whose label is the first value of a sample; for views that are given by hand."""
    return x[:, 0].astype(int)


# Views


def test_default_views_are_the_image_and_one_and_two_blurs():
    blur = GaussianBlur(5, 1.0)
    once = blur.transform(X)
    expected = [scores(view).argmax(axis=1) for view in (X, once, blur.transform(once))]
    vote = MajorityVote(scores)
    np.testing.assert_array_equal(vote.votes(X), np.transpose(expected))
    assert vote.min_votes == 2
    first = np.ascontiguousarray(np.moveaxis(X, -1, 1))
    moved = MajorityVote(lambda x: scores(np.moveaxis(x, 1, -1)), channels_first=True)
    np.testing.assert_array_equal(moved.votes(first), vote.votes(X))


def test_predict_by_hand():
    views = [None, FeatureSqueezing(UNIT, 1), FeatureSqueezing(UNIT, 2)]
    x = np.array([[0.9, 0.8, 0.7], [0.9, 0.4, 0.4], [0.0, 0.0, 0.0]])
    # as it is: 0.8, 0.56, 0; in one bit: 1, 1/3, 0; in two bits: (1+2/3+2/3)/3, (1+1/3+1/3)/3, 0
    np.testing.assert_array_equal(MajorityVote(bright, views).votes(x), [[8, 10, 7], [5, 3, 5], [0, 0, 0]])
    np.testing.assert_array_equal(MajorityVote(bright, views).predict(x), [-1, 5, 0])
    np.testing.assert_array_equal(MajorityVote(bright, views, min_votes=3).predict(x), [-1, -1, 0])
    assert MajorityVote(bright, views).predict(x).dtype == np.int64


def test_views_that_go_on_give_what_they_give_alone(monkeypatch):
    counted = []
    original = SpatialSmoothing._transform

    def counting(self, x, draw):
        counted.append(self.window_size)
        return original(self, x, draw)

    monkeypatch.setattr(SpatialSmoothing, "_transform", counting)
    small, large = SpatialSmoothing(2), SpatialSmoothing(3)
    views = [
        small,
        Chain([small, large]),
        Chain([large, small]),
        None,
        small,
        Chain([small, SpatialSmoothing(2)]),
    ]
    found = MajorityVote(scores, views).votes(X)
    assert counted == [2, 3, 3, 2, 2, 2]  # in place of 2, 2 3, 3 2, -, 2, 2 2
    alone = [scores(X if v is None else v.transform(X)).argmax(axis=1) for v in views]
    np.testing.assert_array_equal(found, np.transpose(alone))


def test_draws_are_not_shared():
    noise = GaussianAugmentation(0.5, augmentation=False)
    seen = []

    def predict(x):
        seen.append(x)
        return scores(x)

    MajorityVote(predict, [noise, noise, Chain([noise, SpatialSmoothing(1)])]).votes(X)
    assert not any(np.array_equal(seen[i], seen[j]) for i, j in [(0, 1), (0, 2), (1, 2)])


def test_a_frozen_chain_stays_frozen():
    chain = Chain([GaussianAugmentation(0.5, augmentation=False), SpatialSmoothing(3)])
    vote = MajorityVote(scores, [chain], min_votes=1)
    with chain.frozen(3):
        expected = scores(chain.transform(X)).argmax(axis=1)
        np.testing.assert_array_equal(vote.votes(X)[:, 0], expected)


def test_views_of_any_kind():
    views = [JpegCompression(UNIT, 40), Chain([SpatialSmoothing(3), FeatureSqueezing(UNIT, 2)]), None]
    expected = [scores(X if v is None else v.transform(X)).argmax(axis=1) for v in views]
    np.testing.assert_array_equal(MajorityVote(scores, views).votes(X), np.transpose(expected))
    waves = RNG.uniform(-1, 1, (3, 50))
    vote = MajorityVote(
        lambda x: (np.abs(x).mean(axis=1) > 0.5).astype(int), [None, FeatureSqueezing((-1, 1), 4)]
    )
    assert vote.votes(waves).shape == (3, 2)


def test_input_stays_and_may_be_read_only_strided_or_empty():
    x = np.repeat(X, 2, axis=1)[:, ::2]
    before = x.copy()
    x.flags.writeable = False
    np.testing.assert_array_equal(MajorityVote(scores).predict(x), MajorityVote(scores).predict(X))
    np.testing.assert_array_equal(x, before)
    assert MajorityVote(scores).predict(X[:0]).shape == (0,)


# Classifiers of every kind


class Estimator:
    def predict(self, x):
        return scores(x).argmax(axis=1)


class Probabilistic:
    def predict_proba(self, x):
        return np.exp(scores(x)) / np.exp(scores(x)).sum(axis=1, keepdims=True)

    def predict(self, x):
        raise AssertionError("scores are better than labels")


@pytest.mark.parametrize(
    "predict",
    [
        Estimator(),
        Probabilistic(),
        lambda x: scores(x).tolist(),
        lambda x: scores(x).argmax(axis=1).tolist(),
    ],
    ids=["estimator", "probabilities", "scores", "labels"],
)
def test_anything_that_predicts(predict):
    np.testing.assert_array_equal(MajorityVote(predict).votes(X), MajorityVote(scores).votes(X))


def torch_model():
    torch = pytest.importorskip("torch")
    layer = torch.nn.Linear(len(WEIGHTS), 4)
    with torch.no_grad():
        layer.weight[:] = torch.from_numpy(WEIGHTS.T.copy())
        layer.bias[:] = torch.from_numpy(-0.5 * WEIGHTS.sum(axis=0))
    return torch.nn.Sequential(torch.nn.Flatten(), layer, torch.nn.Dropout(0.9))


def keras_model():
    keras = pytest.importorskip("keras")
    model = keras.Sequential([keras.Input(X.shape[1:]), keras.layers.Flatten(), keras.layers.Dense(4)])
    model.layers[-1].set_weights([WEIGHTS, -0.5 * WEIGHTS.sum(axis=0)])
    return model


def test_torch_modules_stay_in_training():
    torch = pytest.importorskip("torch")
    model = torch_model().train()
    vote = MajorityVote(model)
    expected = MajorityVote(scores).votes(X)
    np.testing.assert_array_equal(vote.votes(X), expected)
    assert all(module.training for module in model.modules())
    np.testing.assert_array_equal(vote.votes(torch.from_numpy(X)), expected)
    np.testing.assert_array_equal(vote.votes(X.astype(np.float64)), expected)
    many = np.concatenate([X] * 50)  # more than a batch
    np.testing.assert_array_equal(vote.votes(many), np.concatenate([expected] * 50))
    assert vote.votes(X[:0]).shape == (0, 3)


def test_keras_models():
    np.testing.assert_array_equal(MajorityVote(keras_model()).votes(X), MajorityVote(scores).votes(X))


def art_classifier(kind, defences=None):
    pytest.importorskip("art")
    if kind == "torch":
        torch = pytest.importorskip("torch")
        from art.estimators.classification import PyTorchClassifier

        loss = torch.nn.CrossEntropyLoss()
        return PyTorchClassifier(
            torch_model(),
            loss,
            X.shape[1:],
            4,
            clip_values=UNIT,
            preprocessing_defences=defences,
            device_type="cpu",
        )
    model = keras_model()
    from art.estimators.classification import TensorFlowV2Classifier
    from keras.losses import CategoricalCrossentropy

    loss = CategoricalCrossentropy(from_logits=True)
    return TensorFlowV2Classifier(
        model, 4, X.shape[1:], loss_object=loss, clip_values=UNIT, preprocessing_defences=defences
    )


@pytest.mark.parametrize("kind", ["torch", "tensorflow"])
def test_art_classifiers_with_defences_of_their_own(kind):
    bits, median = FeatureSqueezing(UNIT, 2), SpatialSmoothing(3)
    vote = MajorityVote(art_classifier(kind, [bits]), [None, median])
    expected = [scores(bits.transform(v)).argmax(axis=1) for v in (X, median.transform(X))]
    np.testing.assert_array_equal(vote.votes(X), np.transpose(expected))


# The report

VOTES = np.array([[0, 0, 0], [1, 1, 0], [0, 1, 1], [2, 1, 0], [2, 2, 2]])
TRUE = np.array([0, 1, 0, 2, 1])


def test_report_by_hand():
    labels = VOTES.astype(float)

    class Column(preshield.Preprocessor):
        """A view that puts one column first."""

        domains = ("features",)

        def __init__(self, which):
            self.which = which

        def _transform(self, x, draw):
            return x[:, self.which :]

    report = MajorityVote(columns, [None, Column(1), Column(2)]).report(labels, TRUE)
    assert report.views == ("input", "Column", "Column (3)")
    np.testing.assert_array_equal(report.votes, VOTES)
    assert report.view_accuracies == (0.8, 0.4, 0.2)
    assert (report.accuracy, report.rejection_rate, report.accepted_accuracy) == (0.4, 0.2, 0.5)
    assert [(p.min_votes, p.coverage, p.accuracy, p.accepted_accuracy) for p in report.curve] == [
        (1, 0.8, 0.4, 0.5),
        (2, 0.8, 0.4, 0.5),
        (3, 0.4, 0.2, 0.5),
    ]
    one_hot = MajorityVote(columns, [None], min_votes=1).report(labels, np.eye(3)[TRUE])
    assert one_hot.accuracy == 0.8


# Refusals

BLUR = GaussianBlur()


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (
            lambda: MajorityVote(scores, min_votes=4),
            ValueError,
            "`min_votes` must be between 1 and the number of views, which is 3, got 4",
        ),
        (lambda: MajorityVote(scores, [None], min_votes=2), ValueError, "number of views, which is 1, got 2"),
        (lambda: MajorityVote(scores, min_votes=0), ValueError, "`min_votes` must be between 1 .* got 0"),
        (lambda: MajorityVote(scores, min_votes=1.5), TypeError, "`min_votes` must be an integer, got 1.5"),
        (lambda: MajorityVote(scores, []), ValueError, "`views` must hold at least one view, got none"),
        (
            lambda: MajorityVote(scores, BLUR),
            TypeError,
            "`views` must be a list of defences and None, got Gauss",
        ),
        (
            lambda: MajorityVote(scores, [None, "blur"]),
            TypeError,
            r"`views\[1\]` must be a defence of preshield or ART, or None for the input itself, got 'blur'",
        ),
        (lambda: MajorityVote(scores, [BLUR, GaussianBlur]), TypeError, r"`views\[1\]` must be a defence"),
        (
            lambda: MajorityVote(scores, [None, LabelSmoothing()]),
            ValueError,
            r"`views\[1\]` must change samples, got LabelSmoothing\(\), which is about labels; leave it out",
        ),
        (
            lambda: MajorityVote(scores, [BLUR, BLUR], channels_first=True),
            ValueError,
            "`channels_first` must be left out with `views`.* got True",
        ),
        (lambda: MajorityVote(scores, channels_first=1), TypeError, "`channels_first` must be True or False"),
        (lambda: MajorityVote(3), TypeError, r"`predict` must be a torch module, .* got builtins\.int"),
    ],
)
def test_refused_parameters(make, error, match):
    with pytest.raises(error, match=match):
        make()


@pytest.mark.parametrize(
    ("predict", "match"),
    [
        (lambda x: scores(x)[:-1], r"each of the 6 samples, shape \(6,\), .* got shape \(5, 4\)"),
        (lambda x: scores(x).argmax(axis=1)[:2], r"got shape \(2,\)"),
        (lambda x: scores(x)[:, :1], r"each sample, shape \(6, K\) with K >= 2, got shape \(6, 1\)"),
        (lambda x: 1, r"got shape \(\)"),
        (lambda x: np.full((len(x), 3), np.nan), "scores that are numbers, got 18 NaN"),
        (lambda x: np.full(len(x), 0.5), "class indices from 0 on, or -1 to reject, got"),
        (lambda x: np.full(len(x), -2), "class indices from 0 on"),
        (lambda x: np.full(len(x), "cat"), "class indices .* got array.*cat"),
        (lambda x: np.full(len(x), np.inf), "class indices .* got array.*inf"),
    ],
)
def test_refused_predictions(predict, match):
    with pytest.raises(ValueError, match=f"`predict` must return .*{match}"):
        MajorityVote(predict, [None], min_votes=1).predict(X)


def test_refused_batches():
    called = []

    def predict(x):
        called.append(x)
        return scores(x)

    with pytest.raises(ValueError, match="`x` must be finite, got 1 NaN"):
        MajorityVote(predict, [None], min_votes=1).predict(np.where(np.arange(6) == 2, np.nan, 1.0)[:, None])
    with pytest.raises(ValueError, match=r"`x` must be a 4-D image batch .* got shape \(6, 7\)"):
        MajorityVote(predict, [BLUR], min_votes=1).predict(np.zeros((6, 7)))
    for noise in (GaussianAugmentation(0.1), Chain([BLUR, GaussianAugmentation(0.1)])):
        with pytest.raises(
            ValueError,
            match=r"`views\[1\]` must keep the number of samples, .* turns 6 into 12; pass augmentation=F",
        ):
            MajorityVote(predict, [None, noise]).predict(X)
    with pytest.raises(ValueError, match="`y` must hold one label for each of the 6 samples of `x`, got 2"):
        MajorityVote(predict).report(X, [0, 1])
    assert not called  # before any work


def test_classes_that_are_not_the_columns_of_their_probabilities():
    model = Probabilistic()
    model.classes_ = np.array([2, 3, 5, 8])
    match = r"`predict` must have the classes 0, .* got `classes_` array\(\[2, 3, 5, 8\]\); .* LabelEncoder"
    with pytest.raises(ValueError, match=match):
        MajorityVote(model)
    model.classes_ = np.arange(4)
    vote = MajorityVote(model)
    np.testing.assert_array_equal(vote.votes(X), MajorityVote(scores).votes(X))
    model.classes_ = np.array(list("abcd"))  # trained again
    with pytest.raises(ValueError, match="`predict` must have the classes 0"):
        vote.report(X, np.zeros(6))
    labels = Estimator()  # says labels itself
    labels.classes_ = np.array([2, 3, 5, 8])
    assert MajorityVote(labels).votes(X).shape == (6, 3)


# What it says about itself


def test_facts():
    row = next(row for row in preshield.list_defences() if row.name == "MajorityVote")
    assert row.summary.startswith("Predict several views of a sample")
    assert row.known_attacks == MajorityVote.known_attacks
    vote = MajorityVote(scores, [None, JpegCompression(UNIT), GaussianAugmentation(0.1, False)])
    assert (vote.gradient_kind, vote.stochastic, vote.domains) == ("identity", True, ("image", "video"))
    assert (MajorityVote.gradient_kind, MajorityVote.stochastic) == ("exact", False)
    default = MajorityVote(scores)
    assert (default.gradient_kind, default.stochastic, default.domains) == (
        "exact",
        False,
        ("image", "video"),
    )
    assert repr(default) == (
        "MajorityVote(scores, views=[None, GaussianBlur(), "
        "Chain(defences=[GaussianBlur(), GaussianBlur()])], min_votes=2)"
    )
    shown = default._repr_html_()
    assert "min_votes=2" in shown
    assert "arxiv.org/abs/1706.04701" in shown
    assert not re.search(" at 0x", shown)


def test_the_command_line_does_not_offer_it():
    """It changes no file."""
    from preshield.cli import _defence_name

    with pytest.raises(ValueError, match="'MajorityVote' is no defence; choose from BandPass, BlurNet"):
        _defence_name("MajorityVote")
