"""A detector as an attacker sees it who knows it: gradients through all views, success if nobody notices."""

import numpy as np
import pytest
from scipy.special import log_softmax as log_softmax_along

from preshield import (
    Chain,
    FeatureSqueezing,
    GaussianAugmentation,
    GaussianBlur,
    SpatialSmoothing,
    SqueezeDetector,
    evaluate,
)
from preshield.evaluation.defended import DefendedModel
from preshield.evaluation.detection import Detection, distances
from preshield.evaluation.losses import cross_entropy, targeted_margin
from preshield.evaluation.perturbations import host, scaled
from preshield.preprocessor import Preprocessor
from tests.evaluation.analytic import linear
from tests.evaluation.test_voting import smooth
from tests.test_majority_vote import UNIT, X, scores, torch_model
from tests.test_squeeze_detector import Times

RNG = np.random.default_rng(2)
MANY = np.concatenate([X] * 4)
OTHERS = RNG.random((24, *X.shape[1:]), dtype=np.float32)  # of which none is at the threshold


def log_softmax(z):
    return log_softmax_along(z, axis=-1)


def seen_as(views=3, samples=40, classes=5, spread=3):
    return log_softmax(spread * RNG.standard_normal((views, samples, classes)))


# The rule


def test_distances_beside_the_formula():
    z = seen_as()
    p = np.exp(z)
    for v in range(2):
        np.testing.assert_allclose(distances(z)[v], np.abs(p[v + 1] - p[0]).sum(axis=1), rtol=1e-12)
    assert distances(log_softmax(np.array([[[0.0, 1e4]], [[0.0, -1e4]]]))) == 2


def test_scores_by_hand():
    """Two classes: what class k lacks, and by how much the log-odds exceed those of the threshold."""
    p = np.array([[[0.9, 0.1], [0.9, 0.1]], [[0.8, 0.2], [0.3, 0.7]]])
    (close, far), _ = Detection(0.4).scores(np.log(p))
    limit, odds = np.log(0.2 / 0.8), [np.log(0.1 / 0.9), np.log(0.6 / 0.4)]
    lead = np.log(9)
    np.testing.assert_allclose(close, [min(lead, limit - odds[0]), -lead])
    np.testing.assert_allclose(far, [-(odds[1] - limit), -lead - (odds[1] - limit)])


def test_the_sign_of_the_margin_is_the_decision():
    for threshold in (0.0, 0.3, 1.2, 2.0):
        rule, z = Detection(threshold), seen_as()
        z[1, :20] = z[0, :20] + 0.01 * z[1, :20]
        z[2, :20] = z[0, :20]
        z = log_softmax(z)
        flagged, top = distances(z).max(axis=0) > threshold, z[0].argmax(axis=1)
        np.testing.assert_array_equal(rule.decide(z), np.where(flagged, -1, top))
        for y in range(5):
            margin = rule.margin(z, np.full(40, y))
            np.testing.assert_array_equal(margin < 0, (top != y) & ~flagged)
            assert (margin != 0).all()


@pytest.mark.parametrize("threshold", [0.05, 0.6, 1.5])
def test_derivatives_of_the_rule_meet_finite_differences(threshold):
    """With respect to the logits of every view, where samples are reported and where they are accepted."""
    rule = Detection(threshold)
    logits = 2 * RNG.standard_normal((3, 60, 4))
    logits[1:, :30] = logits[0, :30] + 0.05 * logits[1:, :30]
    direction, upstream = RNG.standard_normal(logits.shape), RNG.uniform(-1, 1, (60, 4))
    _, to_views = rule.scores(log_softmax(logits))
    ahead, behind = (rule.scores(log_softmax(logits + h * direction))[0] for h in (1e-6, -1e-6))
    along = (upstream * (ahead - behind)).sum(axis=1) / 2e-6
    found = (to_views(upstream) * direction).sum(axis=(0, 2))
    smooth_here = np.abs(ahead - behind).max(axis=1) < 1e-4  # nothing jumped in between
    assert smooth_here.sum() > 50
    accepted = rule.decide(log_softmax(logits)) >= 0
    assert 0 < accepted.sum() < 60
    np.testing.assert_allclose(found[smooth_here], along[smooth_here], rtol=1e-5, atol=1e-6)


def test_gradients_do_not_vanish_where_views_are_sure():
    z = log_softmax(np.array([[[60.0, 0.0]], [[0.0, 60.0]]]))  # the L1 distance is 2, its derivative 1e-26
    for rule in Detection(0.5).variants():
        _, to_views = rule.scores(z)
        assert np.abs(to_views(np.array([[1.0, 0.0]]))[1]).max() > 0.4
    z = log_softmax(np.array([[[60.0, 0.0]], [[20.0, 0.0]]]))  # sure of the same
    _, to_views = Detection(1e-12).scores(z)
    assert to_views(np.array([[1.0, 0.0]]))[1, 0, 0] > 0.4


# The stand-in


def stand_in(defences=None, **options):
    defences = [GaussianBlur(), FeatureSqueezing(UNIT, 2)] if defences is None else defences
    return SqueezeDetector(smooth(**options), list(defences), 0.3).fit(OTHERS).for_attacks(X)


@pytest.mark.parametrize("of_probabilities", [False, True])
def test_gradients_of_the_stand_in_meet_finite_differences(of_probabilities):
    found = stand_in(
        [GaussianBlur(), Chain([GaussianBlur(), GaussianBlur()])], of_probabilities=of_probabilities
    )
    direction = RNG.standard_normal(X.shape).astype(np.float32)
    upstream = RNG.uniform(-1, 1, (len(X), 4))
    outputs, pull = found.forward(X)
    np.testing.assert_allclose(outputs, found.predict(X), rtol=1e-6)
    ahead, behind = (found.predict(X + np.float32(h) * direction) for h in (1e-3, -1e-3))
    along = (upstream * (ahead - behind)).sum(axis=1) / 2e-3
    assert np.abs(along).max() > 0.1
    sides = (ahead - outputs) - (outputs - behind)
    straight = np.abs(sides).max(axis=1) < 0.02 * np.abs(ahead - behind).max(axis=1)  # without a kink
    assert straight.sum() > 3
    found = (pull(upstream) * direction).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(found[straight], along[straight], rtol=0.02, atol=0.01)


def whole(found, **options):
    return DefendedModel(found, clip_values=UNIT, nb_classes=4, input_shape=X.shape[1:], **options)


@pytest.mark.parametrize("loss", [cross_entropy, targeted_margin])
def test_the_score_of_the_class_that_is_aimed_at_is_climbed(loss):
    """And where a wrong class is accepted, that of this class: how far it is from being noticed, or lost."""
    found = stand_in()
    values, pull = found.forward(X)
    for y in (found.decide(X), (found.decide(X) + 1) % 4):
        wrong = (found.decide(X) != np.where(y < 0, 0, y)) & (found.decide(X) >= 0)
        y = np.where(y < 0, 0, y)
        targets = (y + 2) % 4 if loss is targeted_margin else None
        best = np.where(np.arange(4) == y[:, None], -np.inf, values).argmax(axis=1)
        aims = best if targets is None else np.where(wrong, best, targets)
        look = whole(found).look(X, y, loss, targets, np.arange(6), (0,))
        np.testing.assert_allclose(look.values, values[range(6), aims], rtol=1e-6)
        np.testing.assert_allclose(
            host(scaled(look.gradient, look.factors)), pull(np.eye(4)[aims]), rtol=1e-3, atol=1e-6
        )


def test_every_gradient_of_defences_and_rule_is_tried():
    found = stand_in([SpatialSmoothing(3)])
    variants = found.variants()
    assert [v.views[1].gradient for v in variants[:2]] == ["exact", "identity"]
    assert len({v.rule for v in variants}) == len(variants) // 2
    assert sum(v is found for v in variants) == 1
    for v in variants:
        np.testing.assert_array_equal(v.decide(X), found.decide(X))


def test_draws_of_a_detector_depend_on_the_numbers_of_the_samples():
    noise = GaussianAugmentation(0.3, augmentation=False)
    numbers = np.array([4, 9, 2, 11, 3, 7])
    for predict in (smooth(), scores):
        detector = SqueezeDetector(predict, [noise, Chain([GaussianBlur(), noise])], 0.3).fit(MANY)
        model = whole(detector.for_attacks(X), draws=8)
        labels = model.labels(X, numbers, (3,))
        np.testing.assert_array_equal(model.labels(X[2:], numbers[2:], (3,)), labels[:, 2:])


# A task in closed form: logits (0, 20 (x1 + x2 - 1)); the squeezed version has x2 = 1/2


class Level(Preprocessor):
    """Set the second value to a half."""

    domains = ("features",)
    gradient_kind = "exact"

    def _transform(self, x, draw):
        return np.stack([x[:, 0], np.full_like(x[:, 1], 0.5)], axis=1)

    def _gradient(self, x, grad, draw):
        return np.stack([grad[:, 0], np.zeros_like(grad[:, 1])], axis=1)


PLANE = linear([[0, 20], [0, 20]], [0, -20])
START = np.array([[0.1, 0.6], [0.05, 0.65], [0.1, 0.62], [0.0, 0.7]], np.float32)
LIMIT = 0.2
# On x1 + x2 = 1 the model is undecided; there |1/2 - sigmoid(20 (x1 - 1/2))| may be 0.1, so that
CORNER = 0.5 + np.log(0.4 / 0.6) / 20  # is the smallest x1 that is not noticed


def level():
    detector = SqueezeDetector(PLANE, [Level()]).fit(np.repeat(START, 5, axis=0))
    detector.threshold_ = LIMIT
    return detector


def far(points):
    """Distances from the corner, which a search of the whole plane confirms."""
    axes = np.linspace(0.4, 0.7, 601), np.linspace(0.3, 0.7, 801)  # the corner, and beyond
    grid = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2).astype(np.float32)
    free = grid[level().classify(grid) == 1]
    found = np.abs(points[:, None] - free[None])
    return np.sqrt((found**2).sum(axis=2)).min(axis=1), found.max(axis=2).min(axis=1)


def test_smallest_joint_perturbation():
    exact = np.sqrt((CORNER - START[:, 0]) ** 2 + (1 - CORNER - START[:, 1]) ** 2)
    np.testing.assert_allclose(far(START)[0], exact, atol=2e-3)
    options = {"budget": 100, "columns": ["oblivious", "adaptive"], "verbose": False}
    report = evaluate(PLANE, START, np.zeros(4, int), {"detector": level()}, **options)
    row = report["detector"]
    np.testing.assert_allclose(row.columns["adaptive"].norms, exact, rtol=0.03)
    alone = (1 - START.sum(axis=1)) / np.sqrt(2)
    np.testing.assert_allclose(report["none"].columns["adaptive"].norms, alone, rtol=0.01)
    assert row.columns["oblivious"].rejection_rate == 1
    assert (row.columns["adaptive"].rejection_rate, row.columns["adaptive"].safe) == (0, 0)
    assert row.safe == 0
    head, _, cells = report.cells()
    shown = dict(zip(head, cells, strict=True))
    assert (shown["Oblivious"], shown["Oblivious or rejected"], shown["Worst or rejected"]) == (
        "0.00",
        "1.00",
        "0.00",
    )
    assert row.defence.name == "SqueezeDetector"


@pytest.mark.parametrize(("factor", "safe"), [(0.97, 1), (1.1, 0)])
def test_joint_attack_within_a_bound(factor, safe):
    """Just below and above the distance of each sample in L-infinity."""
    _, sizes = far(START)
    for sample, size in zip(START[:2], sizes[:2], strict=True):
        options = {
            "threat": "linf",
            "eps": factor * size,
            "budget": 60,
            "columns": ["adaptive"],
            "verbose": False,
        }
        # The detector as the classifier: without it, nothing is left.
        report = evaluate(level(), sample[None], [0], clip_values=UNIT, **options)
        assert report["none"].columns["adaptive"].safe == safe
        assert evaluate(PLANE, sample[None], [0], clip_values=UNIT, **options)["none"].worst_case == 0


def test_the_black_box_alone_flatters_the_detector():
    blind = SqueezeDetector(lambda x: np.log(0.5) + PLANE.scores(x), [Level()]).fit(
        np.repeat(START, 5, axis=0)
    )
    blind.threshold_ = LIMIT
    report = evaluate(PLANE, START, np.zeros(4, int), {"blind": blind}, budget=20, verbose=False)
    assert "there are no gradients" in report["blind"].remarks[0]
    assert report["blind"].columns["clean"].accuracy == 1


def test_in_art():
    detector = SqueezeDetector(torch_model(), [Times(0.5)]).fit(MANY)
    classifier = detector.for_art(X, UNIT)
    np.testing.assert_allclose(
        classifier.predict(X), detector.for_attacks(X).predict(X), rtol=1e-4, atol=1e-4
    )
    with pytest.raises(
        ValueError, match=r"`model` must be a model with gradients, .* `SqueezeDetector\.classify`"
    ):
        SqueezeDetector(scores, [Times(0.5)]).fit(MANY).for_art(X, UNIT)
