"""A vote as an attacker sees it: gradients through all views, success by the votes."""

import numpy as np
import pytest

from preshield import (
    Chain,
    FeatureSqueezing,
    GaussianAugmentation,
    GaussianBlur,
    MajorityVote,
    Preprocessor,
    SpatialSmoothing,
    evaluate,
)
from preshield.evaluation.classifiers import PredictOnly, has_gradients
from preshield.evaluation.defended import DefendedModel
from preshield.evaluation.losses import cross_entropy, logits_ratio, margin, targeted_margin
from preshield.evaluation.perturbations import host, scaled
from tests.evaluation.analytic import Analytic, Gain, threshold
from tests.test_majority_vote import UNIT, WEIGHTS, X, art_classifier, scores, torch_model

RNG = np.random.default_rng(1)
BLUR = GaussianBlur()
BLURS = [None, GaussianBlur(), Chain([GaussianBlur(), GaussianBlur()])]


def smooth(of_probabilities=False):
    """A classifier with curvature: tanh of the values, weighted; or the softmax of these."""
    w = WEIGHTS.astype(np.float64) / 4

    def logits(x):
        return np.tanh(x.reshape(len(x), -1) - 0.5) @ w

    def jacobian(x):
        slope = 1 / np.cosh(x.reshape(len(x), -1, 1) - 0.5) ** 2
        return np.moveaxis(slope * w, 2, 1).reshape(len(x), 4, *x.shape[1:])

    def of_softmax(x):
        p, inner = np.exp(log_softmax(logits(x))), jacobian(x)
        mean = np.einsum("nk,nk...->n...", p, inner)
        return p[:, :, None, None, None] * (inner - mean[:, None])

    if not of_probabilities:
        return Analytic(logits, jacobian, X.shape[1:], 4)
    model = Analytic(lambda x: np.exp(log_softmax(logits(x))), of_softmax, X.shape[1:], 4)
    model.of_probabilities = True
    return model


def log_softmax(z):
    return z - np.log(np.exp(z).sum(axis=1, keepdims=True))


MANY = [*BLURS, SpatialSmoothing(3), GaussianBlur(3, 0.4), FeatureSqueezing(UNIT, 1)]


@pytest.mark.parametrize("views", [BLURS, MANY[:5], MANY], ids=len)
@pytest.mark.parametrize("min_votes", [1, 2, 3])
def test_scores_of_the_stand_in(min_votes, views):
    """Minus the mean of what a class lacks in the fewest views that would elect it, worked out one by one."""
    model = smooth()
    vote = MajorityVote(model, views, min_votes=min_votes)
    stand_in = vote.for_attacks(X)
    seen = [log_softmax(model.scores(X if v is None else v.transform(X))) for v in views]
    for n in range(len(X)):
        for k in range(4):
            lacks = [z[n].max() - z[n, k] for z in seen]
            nearest = sorted(range(len(views)), key=lacks.__getitem__)
            for count in range(min_votes, len(views) + 1):
                votes = [z[n].argmax() for z in seen]
                for view in nearest[:count]:
                    votes[view] = k
                if all(votes.count(k) > votes.count(j) for j in {*votes} - {k}):
                    break
            expected = -np.mean([lacks[view] for view in nearest[:count]])
            assert stand_in.predict(X)[n, k] == pytest.approx(expected, abs=1e-4)
    label = vote.predict(X)
    np.testing.assert_array_equal(stand_in.decide(X), label)
    chosen = label >= 0
    assert chosen.any()
    np.testing.assert_array_equal(stand_in.predict(X).argmax(axis=1)[chosen], label[chosen])


@pytest.mark.parametrize("min_votes", [1, 2, 3])
@pytest.mark.parametrize("of_probabilities", [False, True])
def test_gradients_of_the_stand_in_meet_finite_differences(min_votes, of_probabilities):
    model = smooth(of_probabilities)
    stand_in = MajorityVote(model, BLURS, min_votes=min_votes).for_attacks(X)
    direction = RNG.standard_normal(X.shape).astype(np.float32)
    upstream = RNG.uniform(-1, 1, (len(X), 4))
    outputs, pull = stand_in.forward(X)
    np.testing.assert_allclose(outputs, stand_in.predict(X), rtol=1e-6)
    ahead, behind = (stand_in.predict(X + np.float32(h) * direction) for h in (1e-3, -1e-3))
    along = (upstream * (ahead - behind)).sum(axis=1) / 2e-3
    assert np.abs(along).max() > 0.1
    np.testing.assert_allclose((pull(upstream) * direction).sum(axis=(1, 2, 3)), along, rtol=0.02, atol=0.01)


@pytest.mark.parametrize("loss", [cross_entropy, logits_ratio, targeted_margin])
def test_the_label_has_no_part_in_the_loss(loss):
    """What it loses elects nobody: the score of the target counts, or that of the best wrong class."""
    stand_in = MajorityVote(smooth(), BLURS).for_attacks(X)
    scores, pull = stand_in.forward(X)
    y = scores.argmax(axis=1)
    targets = (y + 2) % 4 if loss is targeted_margin else None
    found = whole(stand_in).look(X, y, loss, targets, np.arange(6), (0,))
    climbed = np.where(np.arange(4) == y[:, None], -np.inf, scores).argmax(axis=1)
    climbed = climbed if targets is None else targets
    np.testing.assert_allclose(found.values, scores[range(6), climbed], rtol=1e-6)
    np.testing.assert_allclose(
        host(scaled(found.gradient, found.factors)), pull(np.eye(4)[climbed]), rtol=1e-3, atol=1e-6
    )


def test_where_a_wrong_class_is_elected_the_way_back_is_to_the_label():
    stand_in = MajorityVote(smooth(), BLURS, min_votes=3).for_attacks(X)
    scores, pull = stand_in.forward(X)
    elected = stand_in.decide(X)
    y = np.where(elected == 0, 1, 0)
    found = whole(stand_in).look(X, y, margin, None, np.arange(6), (0,))
    wrong = elected >= 0
    assert wrong.any()
    np.testing.assert_allclose(found.values[wrong], -scores[range(6), y][wrong], rtol=1e-6)
    expected = pull(-np.eye(4)[y])
    np.testing.assert_allclose(
        host(scaled(found.gradient, found.factors))[wrong], expected[wrong], rtol=1e-3, atol=1e-6
    )


def test_a_loss_of_scores_without_labels_is_taken_as_it_is():
    """The derivative of a class's score, for attacks of ART."""
    stand_in = MajorityVote(smooth(), BLURS).for_attacks(X)
    upstream = RNG.standard_normal((6, 4))

    def weighted(scores, y, targets):
        return (scores * upstream).sum(axis=1), upstream

    found = whole(stand_in).look(X, np.full(6, -1), weighted, None, np.arange(6), (0,))
    np.testing.assert_allclose(
        host(scaled(found.gradient, found.factors)), stand_in.forward(X)[1](upstream), rtol=1e-3, atol=1e-6
    )


def test_one_pass_through_each_view_gives_all():
    model = smooth()
    stand_in = MajorityVote(model, BLURS).for_attacks(X)
    model.passes.clear()
    found = whole(stand_in).look(X, np.arange(6) % 4, cross_entropy, None, np.arange(6), (0,))
    assert model.passes == ["forward"] * 3 + ["backward"] * 3
    np.testing.assert_array_equal(found.margin, stand_in.margin(X, np.arange(6) % 4))


def whole(stand_in, defence=None, **options):
    return DefendedModel(
        stand_in, defence, clip_values=UNIT, nb_classes=4, input_shape=X.shape[1:], **options
    )


def test_margin_has_the_sign_of_the_vote():
    vote = MajorityVote(smooth(), BLURS, min_votes=3)
    stand_in, label = vote.for_attacks(X), vote.predict(X)
    assert (label == -1).any()
    assert (label >= 0).any()
    for y in range(4):
        margin = stand_in.margin(X, np.full(6, y))
        np.testing.assert_array_equal(margin < 0, (label != y) & (label != -1))
        assert (margin != 0).all()


def test_the_backward_pass_sees_the_draws_of_its_views():
    gain = Gain()
    stand_in = MajorityVote(smooth(), [None, gain]).for_attacks(X)
    assert stand_in.stochastic
    gain.used.clear()
    stand_in.forward(X)[1](np.eye(4)[[0] * 6])
    (forward, drawn), (backward, again) = gain.used
    assert (forward, backward) == ("forward", "backward")
    assert drawn == again
    assert whole(stand_in, draws=5).draws == 5


def test_draws_of_a_vote_depend_on_the_numbers_of_the_samples():
    """Two views through one object draw apart, in the vote as in its stand-in."""
    noise = GaussianAugmentation(0.3, augmentation=False)
    numbers, y = np.array([4, 9, 2, 11, 3, 7]), np.arange(6) % 4
    for predict in (smooth(), smooth().scores):
        stand_in = MajorityVote(predict, [noise, noise], min_votes=1).for_attacks(X)
        model = whole(stand_in, draws=8)
        labels = model.labels(X, numbers, (3,))
        np.testing.assert_array_equal(model.labels(X[2:], numbers[2:], (3,)), labels[:, 2:])
        assert (labels == -1).any()  # views that see the same noise agree
        if has_gradients(stand_in):
            all_ = model.look(X, y, cross_entropy, None, numbers, (3,))
            some = model.look(X[:2], y[:2], cross_entropy, None, numbers[:2], (3,))
            np.testing.assert_allclose(some.scores, all_.scores[:2], rtol=1e-6)


def test_every_gradient_of_the_views_is_tried():
    median = SpatialSmoothing(3)
    stand_in = MajorityVote(smooth(), [None, median, Chain([median, BLUR])]).for_attacks(X)
    first, second = stand_in.variants()
    assert second is stand_in
    kinds = [(v.views[1].gradient, v.views[2].defences[0].gradient) for v in (first, second)]
    assert kinds == [("exact", "exact"), ("identity", "identity")]
    np.testing.assert_array_equal(first.decide(X), second.decide(X))
    assert len(MajorityVote(smooth(), BLURS).for_attacks(X).variants()) == 1


@pytest.mark.parametrize("kind", ["torch", "tensorflow"])
def test_gradients_of_real_classifiers(kind):
    """Linear, so in closed form: what the rival gains on the label of each view, through its adjoint."""
    vote = MajorityVote(art_classifier(kind), [None, BLUR], min_votes=2)
    stand_in = vote.for_attacks(X)
    outputs, pull = stand_in.forward(stand_in.array(X))
    rival = np.where(np.arange(4) == outputs.argmax(axis=1)[:, None], -np.inf, outputs).argmax(axis=1)
    expected = np.zeros(X.shape)
    for view, top in zip([None, BLUR], vote.votes(X).T, strict=True):
        towards = (WEIGHTS[:, rival] - WEIGHTS[:, top]).T.reshape(X.shape)
        expected += (towards if view is None else view.estimate_gradient(X, towards)) / 2
    np.testing.assert_allclose(host(pull(np.eye(4)[rival])), expected, rtol=1e-3, atol=1e-4)


def test_models_and_callables_as_they_are_attacked():
    assert has_gradients(MajorityVote(torch_model(), [None], min_votes=1).for_attacks(X))
    blind = MajorityVote(scores).for_attacks(X)
    assert isinstance(blind, PredictOnly)
    np.testing.assert_array_equal(blind.predict(X), MajorityVote(scores).predict(X))


# A task in closed form: class 1 where the mean exceeds 0.5

SHAPE = (8, 8, 3)
Y = np.arange(12) % 2
OFFSETS = np.linspace(0.05, 0.35, 12)
SAMPLES = np.float32(0.5 + np.where(Y, 1, -1) * OFFSETS)[:, None, None, None] + RNG.uniform(
    -0.1, 0.1, (12, *SHAPE)
).astype(np.float32)
OPTIONS = {"budget": 20, "verbose": False, "columns": ("adaptive", "black-box", "oblivious")}


def test_black_box_alone_flatters_the_vote():
    """The same vote, once as a callable and once with its gradients."""
    model = threshold(SHAPE, slope=20)
    honest, blind = MajorityVote(model), MajorityVote(model.scores)
    report = evaluate(model, SAMPLES, Y, {"honest": honest, "blind": blind}, **OPTIONS)
    assert report["honest"].columns["clean"].accuracy == report["blind"].columns["clean"].accuracy == 1
    assert report["honest"].columns["adaptive"].accuracy == 0
    assert report["blind"].columns["adaptive"].accuracy > 0.5
    assert np.isfinite(report["honest"].norms).all()
    assert "there are no gradients" in report["blind"].remarks[0]
    assert not report["honest"].remarks


def test_norms_of_a_linear_vote():
    """Two views that shift the mean by different amounts: both must cross, so the further one decides."""

    class Shift(Preprocessor):
        domains = ("image",)
        gradient_kind = "exact"

        def __init__(self, by):
            self.by = by

        def _transform(self, x, draw):
            return x + np.float32(self.by)

    vote = MajorityVote(threshold(SHAPE, slope=20), [None, Shift(0.02), Shift(-0.03)], min_votes=2)
    unanimous = MajorityVote(threshold(SHAPE, slope=20), [None, Shift(0.02), Shift(-0.03)], min_votes=3)
    lenient = MajorityVote(threshold(SHAPE, slope=20), [None, Shift(0.02), Shift(-0.03)], min_votes=1)
    report = evaluate(
        threshold(SHAPE, slope=20),
        SAMPLES,
        Y,
        {"one": lenient, "two": vote, "three": unanimous},
        **OPTIONS | {"columns": ["adaptive", "oblivious"], "budget": 100},
    )
    mean, sign = SAMPLES.mean(axis=(1, 2, 3)), np.where(Y, 1, -1)
    size = np.sqrt(192)
    # 0 becomes 1 in the views that stand at +0.02 and 0, and last in that at -0.03; 1 becomes 0 the other way
    # one vote elects nobody while the two other views agree
    for name, shift in {"one": 0.0, "two": 0.0, "three": np.where(Y, 0.02, -0.03)}.items():
        exact = sign * (mean + shift - 0.5) * size
        np.testing.assert_allclose(report[name].columns["adaptive"].norms, exact, rtol=0.02)
        assert report[name].defence.name == "MajorityVote"
        oblivious = report[name].columns["oblivious"].norms  # of examples made without the vote
        np.testing.assert_array_equal(oblivious, report["none"].columns["adaptive"].norms)
    assert "MajorityVote" in report.to_html()


def test_rejection_is_counted_and_is_no_success():
    """As the classifier: at grey the two views disagree, and the attack goes on until they agree again."""

    class Lift(Preprocessor):
        domains = ("image",)
        gradient_kind = "exact"

        def _transform(self, x, draw):
            return x + np.float32(0.1)

    vote = MajorityVote(threshold(SHAPE, slope=20), [None, Lift()])
    label = vote.predict(SAMPLES)
    report = evaluate(vote, SAMPLES, Y, [FeatureSqueezing(UNIT, 8)], **OPTIONS)
    clean = report["none"].columns["clean"]
    np.testing.assert_array_equal(clean.outcomes[0], np.where(label == -1, -1, label == Y))
    assert clean.rejection_rate > 0
    for row in report.rows:
        found = row.columns["adaptive"]
        assert found.accuracy == 0
        assert found.safe == 0
    mean = SAMPLES.mean(axis=(1, 2, 3))
    distance = np.where(Y, mean + 0.1 - 0.5, 0.5 - mean) * np.sqrt(192)
    np.testing.assert_allclose(report["none"].columns["adaptive"].norms, distance, rtol=0.02)
    assert report.settings["classifier"] == "MajorityVote"
    assert "Coverage" in report.table()
    assert not [d for d in report.diagnostics if d.check == "gradient far from finite differences"]


def test_a_stochastic_vote_is_judged_over_draws():
    noise = GaussianAugmentation(0.05, augmentation=False, clip_values=UNIT)
    vote = MajorityVote(threshold(SHAPE, slope=20), [None, noise])
    report = evaluate(vote, SAMPLES, Y, [], eot=3, **OPTIONS | {"columns": ["adaptive"]})
    assert report["none"].columns["adaptive"].outcomes.shape == (3, 12)
    assert not [d for d in report.diagnostics if d.check == "results change between runs"]
    again = evaluate(vote, SAMPLES, Y, [], eot=3, **OPTIONS | {"columns": ["adaptive"]})
    np.testing.assert_array_equal(report["none"].norms, again["none"].norms)


def test_refused_as_a_row():
    with pytest.raises(ValueError, match=r"Raised by `defences\['vote'\]` .* shape \(2, 8, 8, 3\)"):
        evaluate(threshold(SHAPE), SAMPLES, Y, {"vote": MajorityVote(scores)}, **OPTIONS)
    with pytest.raises(ValueError, match='must not use the name "none"'):
        evaluate(threshold(SHAPE), SAMPLES, Y, {"none": MajorityVote(threshold(SHAPE))}, **OPTIONS)
