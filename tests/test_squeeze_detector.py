"""Detection by comparison: by hand, with every kind of model, and what is refused."""

import numpy as np
import pytest

import preshield
from preshield import (
    BlurNet,
    Chain,
    FeatureSqueezing,
    GaussianAugmentation,
    GaussianBlur,
    ImageResize,
    LabelSmoothing,
    MajorityVote,
    Preprocessor,
    SpatialSmoothing,
    SqueezeDetector,
)
from preshield.evaluation.classifiers import PredictOnly, has_gradients, predictor
from tests.test_majority_vote import UNIT, WEIGHTS, X, scores, torch_model

EVERYTHING = ("image", "video", "audio", "features")


class Times(Preprocessor):
    """Multiply by a number, for squeezers that are worked out by hand."""

    domains = EVERYTHING
    gradient_kind = "exact"

    def __init__(self, factor):
        self.factor = factor

    def _transform(self, x, draw):
        return x * x.dtype.type(self.factor)

    def _gradient(self, x, grad, draw):
        return grad * grad.dtype.type(self.factor)


def shares(x):
    """Probabilities whose second is the first value of a sample: L1 distances are twice its changes."""
    return np.stack([1 - x[:, 0], x[:, 0]], axis=1)


def column(*values):
    return np.array(values, dtype=np.float64)[:, None]


CLEAN = column(*np.arange(19) / 100)


# Scores


def test_scores_by_hand():
    """Logits (0, 2 x1 - x2), squeezed to half and to nothing."""
    weights = np.array([[0.0, 2.0], [0.0, -1.0]])
    detector = SqueezeDetector(lambda x: x @ weights, [Times(0.5), Times(0)]).fit(np.zeros((19, 2)))
    x = np.array([[1.0, 0.5], [0.0, 3.0], [0.0, 0.0]])
    sigmoid = [1 / (1 + np.exp(-1.5)), 1 / (1 + np.exp(3.0)), 0.5]
    halved = [1 / (1 + np.exp(-0.75)), 1 / (1 + np.exp(1.5)), 0.5]
    expected = [[2 * abs(a - b), 2 * abs(a - 0.5)] for a, b in zip(sigmoid, halved, strict=True)]
    np.testing.assert_allclose(detector.distances(x), expected, rtol=1e-12)
    np.testing.assert_allclose(detector.scores(x), np.max(expected, axis=1), rtol=1e-12)
    assert detector.threshold_ == 0
    np.testing.assert_array_equal(detector.predict(x), [True, True, False])
    np.testing.assert_array_equal(detector.classify(x), [-1, -1, 0])


def test_probabilities_are_told_from_logits_once_by_all_samples_of_fit():
    detector = SqueezeDetector(shares, [Times(0)]).fit(CLEAN)
    np.testing.assert_allclose(detector.scores(column(0.25, 0.5)), [0.5, 1.0])
    logits = SqueezeDetector(shares, [Times(0)]).fit(np.concatenate([CLEAN, column(1.5, -1)]))
    p = np.exp(shares(column(0.25))[0])
    one = np.exp([1, 0]) / np.exp([1, 0]).sum()
    np.testing.assert_allclose(logits.scores(column(0.25)), [np.abs(p / p.sum() - one).sum()])
    with pytest.raises(ValueError, match=r"`model` must return rows of probabilities, as it did .* fit\(x\)"):
        detector.scores(column(1.5))


def test_logits_of_any_size():
    detector = SqueezeDetector(lambda x: np.concatenate([x, -x], axis=1), [Times(-1)]).fit(0 * CLEAN)
    np.testing.assert_array_equal(detector.scores(column(1e4, -1e30, 0)), [2, 2, 0])


def test_the_largest_distance_counts_and_squeezers_may_be_chains_and_of_art():
    from art.defences.preprocessor import FeatureSqueezing as Arts

    bits, median = FeatureSqueezing(UNIT, 1), SpatialSmoothing(3)
    defences = [bits, Chain([bits, median]), median]
    detector = SqueezeDetector(scores, defences).fit(np.concatenate([X] * 4))
    views = [X, bits.transform(X), median.transform(bits.transform(X)), median.transform(X)]
    p = [np.exp(s - s.max(axis=1, keepdims=True)) for s in map(scores, views)]
    p = [s / s.sum(axis=1, keepdims=True) for s in p]
    expected = [np.abs(s - p[0]).sum(axis=1) for s in p[1:]]
    np.testing.assert_allclose(detector.distances(X), np.transpose(expected), rtol=1e-4, atol=1e-6)
    of_art = SqueezeDetector(scores, [Arts(UNIT, 1)]).fit(np.concatenate([X] * 4))
    np.testing.assert_allclose(of_art.distances(X)[:, 0], detector.distances(X)[:, 0], rtol=1e-6)


# The threshold


@pytest.mark.parametrize(
    ("fpr", "count", "above"),
    [(0.05, 19, 0), (0.05, 39, 1), (0.05, 38, 0), (0.5, 1, 0), (0.3, 9, 2), (0.29, 99, 28)],
)
def test_threshold_by_hand(fpr, count, above):
    """The ceil((1 - fpr) (N + 1))-th smallest of twice 0, 1, ..., N - 1 hundredths, in any order."""
    values = np.arange(count) / 100
    detector = SqueezeDetector(shares, [Times(0)], fpr).fit(values[::-1, None])
    assert detector.threshold_ == pytest.approx(2 * values[count - 1 - above])
    assert detector.predict(values[:, None]).sum() == above <= fpr * count
    assert detector.is_fitted


def test_equal_scores_are_not_reported():
    detector = SqueezeDetector(shares, [Times(0)], 0.2).fit(np.full((20, 1), 0.25))
    assert not detector.predict(np.full((3, 1), 0.25)).any()
    assert detector.predict(column(0.26)).all()


def test_a_fresh_sample_is_reported_as_often_as_promised():
    """The mean over all choices of one fresh sample among 40 exchangeable ones, one by one."""
    values = np.random.default_rng(0).random(40)
    reported = []
    for fresh in range(40):
        rest = np.delete(values, fresh)[:, None]
        detector = SqueezeDetector(shares, [Times(0)], 0.1).fit(rest)
        reported.append(detector.predict(values[fresh : fresh + 1, None])[0])
    assert np.mean(reported) == 0.1


@pytest.mark.parametrize(
    ("fpr", "count", "needed"), [(0.05, 18, 19), (0.01, 98, 99), (0.3, 2, 3), (0.05, 0, 19)]
)
def test_too_few_samples(fpr, count, needed):
    called = []

    def model(x):
        called.append(x)
        return shares(x)

    match = f"`x` must hold at least {needed} clean samples for fpr={fpr}, .* got {count}; pass more, or"
    with pytest.raises(ValueError, match=match):
        SqueezeDetector(model, [Times(0)], fpr).fit(np.zeros((count, 1)))
    assert not called
    SqueezeDetector(model, [Times(0)], fpr).fit(np.zeros((needed, 1)))


# Models, tensors, batches


def test_every_kind_of_model_scores_alike():
    import jax.numpy as jnp

    from tests.test_majority_vote import art_classifier

    clean = np.concatenate([X] * 4)
    weights = jnp.asarray(WEIGHTS)
    kinds = [
        scores,
        torch_model(),
        lambda x: (jnp.asarray(x).reshape(len(x), -1) - 0.5) @ weights,
        art_classifier("tensorflow"),
    ]
    found = [SqueezeDetector(model, [GaussianBlur()]).fit(clean) for model in kinds]
    for detector in found[1:]:
        np.testing.assert_allclose(detector.scores(X), found[0].scores(X), rtol=1e-3, atol=1e-5)
        assert detector.threshold_ == pytest.approx(found[0].threshold_, rel=1e-3)
        assert has_gradients(detector.for_attacks(X))
    assert isinstance(found[0].for_attacks(X), PredictOnly)
    for detector in found:
        stand_in = detector.for_attacks(X)
        decide = getattr(stand_in, "decide", stand_in.predict)
        np.testing.assert_array_equal(decide(stand_in.array(X)), detector.classify(X))


def test_tensors_integers_and_arrays_that_are_not_contiguous():
    import torch

    detector = SqueezeDetector(scores, [FeatureSqueezing(UNIT, 1)]).fit(np.concatenate([X] * 4))
    expected = detector.scores(X)
    read_only = X.copy()
    read_only.flags.writeable = False
    strided = np.repeat(X, 2, axis=0)[::2]
    for x in (read_only, strided, torch.tensor(X, requires_grad=True), X.astype(np.float64), X.tolist()):
        np.testing.assert_allclose(detector.scores(x), expected, rtol=1e-4, atol=1e-6)
    whole = SqueezeDetector(lambda x: scores(x / 255), [FeatureSqueezing((0, 255), 1)])
    bytes_ = np.round(255 * X).astype(np.uint8)
    assert whole.fit(np.concatenate([bytes_] * 4)).scores(bytes_).shape == (6,)
    assert detector.scores(X[:0]).shape == (0,)
    assert detector.distances(X[:0]).shape == (0, 1)
    assert detector.predict(X[:1]).dtype == bool
    assert detector.classify(X[:0]).dtype == np.int64


def test_draws_are_addressed_by_sample():
    noise = GaussianAugmentation(0.3, augmentation=False, rng=0)
    detector = SqueezeDetector(scores, [noise, Chain([GaussianBlur(), noise])]).fit(np.concatenate([X] * 4))
    again = SqueezeDetector(scores, [noise, Chain([GaussianBlur(), noise])]).fit(np.concatenate([X] * 4))
    assert detector.threshold_ == again.threshold_
    assert detector.stochastic
    whole = detector.distances(X, index=10)
    parts = [detector.distances(X[i : i + 2], index=10 + i) for i in (0, 2, 4)]
    np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-4, atol=1e-6)
    assert (np.abs(detector.distances(X, index=0) - whole) > 1e-3).any()


def test_a_detector_is_a_classifier_for_others_by_its_labels():
    detector = SqueezeDetector(shares, [Times(0)], 0.5).fit(column(0.7, 0.7))
    x = column(0.2, 0.6, 0.9)
    np.testing.assert_array_equal(predictor(detector)(x), [0, 1, -1])
    np.testing.assert_array_equal(MajorityVote(detector, [None], min_votes=1).predict(x), [0, 1, -1])


# The report


def report():
    detector = SqueezeDetector(shares, [Times(0), Times(0.5)], 0.25).fit(column(0.1, 0.2, 0.3))
    clean, y = column(0.1, 0.4, 0.9, 0.8), np.array([0, 0, 1, 1])
    attacked = {"far": column(0.7, 0.85, 0.2, 0.3), "near": column(0.6, 0.4, 0.9, 0.1)}
    return detector.report(clean, y, attacked=attacked | {"nothing": clean})


def test_report_by_hand():
    """Scores are twice the values: the threshold is 0.6."""
    found = report()
    assert found.threshold == pytest.approx(0.6)
    assert found.defences == ("Times", "Times (2)")
    np.testing.assert_allclose(
        found.clean.distances, np.array([[0.2, 0.1], [0.8, 0.4], [1.8, 0.9], [1.6, 0.8]])
    )
    assert found.false_positive_rate == 0.75
    # far: all are wrong; 1.4, 1.7 and, at the threshold, 0.6 and below it 0.4. near: 1.2 and 0.2 are wrong
    assert found.true_positive_rates == pytest.approx(
        {"far": 0.5, "near": 0.5, "nothing": np.nan}, nan_ok=True
    )
    assert found.evaded == {"far": 0.5, "near": 0.25, "nothing": 0}
    assert set(found.roc) == {"far", "near"}
    # far, pairs above 0.2, 0.8, 1.8, 1.6: 1.4 has 2, 1.7 has 3, 0.4 and 0.6 have 1 each
    assert found.roc["far"].auc == pytest.approx(7 / 16)
    # near: 1.2 has 2, 0.2 has half a tie
    assert found.roc["near"].auc == pytest.approx(2.5 / 8)
    assert [line[0] for line in found.cells()] == ["", "clean", "far", "near", "nothing"]
    assert found.cells()[2] == ("far", "0.00", "0.50", "0.50", "0.50", "0.44")
    assert found.cells()[4] == ("nothing", "1.00", "0.75", "-", "0.00", "-")
    assert "an attacker who knows the detector is measured by `evaluate`" in str(found)


def test_one_set_of_attacked_samples_needs_no_name():
    detector = SqueezeDetector(shares, [Times(0)], 0.5).fit(column(0.1))
    found = detector.report(column(0.2, 0.8), [0, 1], attacked=column(0.7, 0.7))
    assert list(found.attacked) == ["attacked"]
    assert found.true_positive_rates == {"attacked": 1.0}


def test_a_report_is_read_back_and_drawn(tmp_path):
    found = report()
    path = tmp_path / "found.json"
    text = found.to_json(path)
    for again in (type(found).from_json(text), type(found).from_json(path)):
        assert str(again) == str(found)
        assert again.roc == found.roc
    page = found.to_html(tmp_path / "found.html")
    assert page.count("<svg") or "image/svg" in page
    assert '<code class="ps-code">evaluate</code>' in page
    assert "ROC area" in found._repr_html_()
    markdown = found.to_markdown()
    assert "| far | 0.00 | 0.50 | 0.50 | 0.50 | 0.44 |" in markdown
    for broken in (
        text.replace('"float"', '"f"'),
        text.replace('"tuple": ["Times", "Times (2)"]', '"tuple": []'),
    ):
        if broken != text:
            with pytest.raises(ValueError, match="`source`"):
                type(found).from_json(broken)
    with pytest.raises(ValueError, match="`source` must be the JSON of a DetectionReport"):
        type(found).from_json("{}")


# Refusals


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: SqueezeDetector(scores, []), "`defences` must hold at least one defence, got none"),
        (lambda: SqueezeDetector(scores, GaussianBlur()), "`defences` must be a list of defences, got Gauss"),
        (
            lambda: SqueezeDetector(scores, [None]),
            r"`defences\[0\]` must be a defence of preshield or ART, got N",
        ),
        (
            lambda: SqueezeDetector(scores, [LabelSmoothing()]),
            r"`defences\[0\]` must change samples, got Label",
        ),
        (lambda: SqueezeDetector(scores, [GaussianBlur()], 0), r"`fpr` must be .* within \(0, 1\), got 0"),
        (
            lambda: SqueezeDetector(scores, [GaussianBlur()], 1.0),
            r"`fpr` must be .* within \(0, 1\), got 1.0",
        ),
        (lambda: SqueezeDetector(scores, [GaussianBlur()], np.nan), "`fpr` must be"),
        (lambda: SqueezeDetector(scores, [GaussianBlur()], "5%"), "`fpr` must be a number, got '5%'"),
        (
            lambda: SqueezeDetector(3, [GaussianBlur()]),
            r"`model` must be a torch module, .* got builtins\.int",
        ),
    ],
)
def test_refused_parameters(make, match):
    with pytest.raises(ValueError, match=match):
        make()


def test_refused_before_fit():
    detector = SqueezeDetector(scores, [GaussianBlur()])
    assert not detector.is_fitted
    calls = [detector.scores, detector.predict, detector.distances, detector.classify, detector.for_attacks]
    for call in [*calls, lambda x: detector.report(x, np.zeros(6), attacked=x)]:
        with pytest.raises(ValueError, match=r"`SqueezeDetector` must have a threshold .* call fit\(x\)"):
            call(X)
    with pytest.raises(ValueError, match="must have a threshold"):
        preshield.evaluate(scores, X, np.zeros(6, int), {"squeeze": detector}, verbose=False)


@pytest.mark.parametrize(
    ("model", "match"),
    [
        (lambda x: scores(x).argmax(axis=1), r"scores for each of two classes or more, .* got shape \(24,\)"),
        (
            lambda x: scores(x)[:, 0],
            r"got shape \(24,\); pass `predict_proba` instead of labels, and a model",
        ),
        (lambda x: scores(x)[:, :1], r"K >= 2, got shape \(24, 1\); give a binary model two columns"),
        (lambda x: np.where(np.arange(4) == 1, np.nan, scores(x)), "numbers, got NaN for 24 of 24 samples"),
        (lambda x: scores(x)[1:], "one row of scores for each sample"),
    ],
)
def test_refused_models(model, match):
    with pytest.raises(ValueError, match=f"`model` must return .*{match}"):
        SqueezeDetector(model, [GaussianBlur()]).fit(np.concatenate([X] * 4))


def test_refused_batches():
    many = np.concatenate([X] * 4)
    smaller = ImageResize(4, 4)
    match = r"`defences\[1\]` must keep a shape .* got ImageResize.* \(8, 7, 3\) into \(4, 4, 3\)"
    with pytest.raises(ValueError, match=match):
        SqueezeDetector(scores, [GaussianBlur(), smaller]).fit(many)
    means = SqueezeDetector(lambda x: x.mean(axis=(1, 2)), [smaller]).fit(many)  # of any size
    assert means.scores(X).shape == (6,)
    detector = SqueezeDetector(scores, [GaussianBlur()]).fit(many)
    with pytest.raises(ValueError, match="`x` must be finite, got 1 NaN"):
        detector.scores(np.where(np.arange(X.size).reshape(X.shape) == 2, np.nan, X))
    of_any = SqueezeDetector(lambda x: x.reshape(len(x), -1)[:, :4], [GaussianBlur()])
    with pytest.raises(ValueError, match=r"`x` of shape \(20, 3, 16, 16\) has its channels first, but"):
        of_any.fit(np.zeros((20, 3, 16, 16)))
    with pytest.raises(
        ValueError, match=r"`defences\[0\]` must keep the number of samples, .* augmentation=F"
    ):
        SqueezeDetector(scores, [GaussianAugmentation(0.1)]).fit(many)
    with pytest.raises(ValueError, match="`y` must hold one label for each of the 6 samples of `x`, got 2"):
        detector.report(X, [0, 1], attacked=X)
    with pytest.raises(ValueError, match=r"`attacked` must hold each .* got \(2, 8, 7, 3\) for 'PGD'"):
        detector.report(X, np.zeros(6), attacked={"PGD": X[:2]})


# What it says about itself


def test_facts():
    row = next(row for row in preshield.list_defences() if row.name == "SqueezeDetector")
    assert row.summary.startswith("Report a sample if a model changes its mind")
    detector = SqueezeDetector(scores, [BlurNet(3), FeatureSqueezing(UNIT, 2)], fpr=0.1)
    assert (detector.gradient_kind, detector.stochastic, detector.domains) == (
        "identity",
        False,
        ("image", "video"),
    )
    assert repr(detector).startswith("SqueezeDetector(scores, defences=[BlurNet(")
    assert repr(detector).endswith("fpr=0.1)")
    assert "arxiv.org/abs/1706.04701" in detector._repr_html_()
