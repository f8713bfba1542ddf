"""A classifier behind a defence: what an attack asks of it, and what it draws."""

import numpy as np
import pytest

from preshield import (
    Chain,
    FeatureSqueezing,
    GaussianAugmentation,
    JpegCompression,
    as_keras_layer,
    as_torch_module,
)
from preshield.evaluation.classifiers import PredictOnly, as_classifier
from preshield.evaluation.defended import DefendedModel
from preshield.evaluation.losses import cross_entropy, margin, targeted_margin
from preshield.evaluation.perturbations import host, scaled
from tests.evaluation.analytic import Analytic, Gain, Identity, linear, softmax, threshold

WEIGHTS = np.array([[1.0, 0.0, 2.0], [0.0, 3.0, -1.0]])
BIAS = np.array([0.1, -0.2, 0.0])
X = np.array([[0.9, 0.3], [0.2, 0.2], [0.4, 0.8]], dtype=np.float32)
Y = np.array([2, 0, 1])
NUMBERS = np.array([7, 3, 40])
SEED = (1, 2)


def defended(defence=None, classifier=None, **options):
    classifier = linear(WEIGHTS, BIAS) if classifier is None else classifier
    options = {"clip_values": (0.0, 1.0), "nb_classes": 3, "input_shape": (2,)} | options
    return DefendedModel(classifier, defence, **options)


def noisy(sigma, **options):
    return GaussianAugmentation(sigma, augmentation=False, apply_predict=True, **options)


def scores(x):
    return x @ WEIGHTS + BIAS


def margins(x, y):
    z = scores(x)
    return [z[i, k] - max(z[i, j] for j in range(3) if j != k) for i, k in enumerate(y)]


def slope(x, y):
    """Gradient of the cross-entropy of the linear classifier."""
    return (softmax(scores(x)) - np.eye(3)[y]) @ WEIGHTS.T


def gradient(look):
    return host(scaled(look.gradient, look.factors))


def looked(model, loss=cross_entropy, targets=None, seed=SEED):
    return model.look(X, Y, loss, targets, NUMBERS, seed)


def forward_draws(gain):
    return [np.float32(draw) for kind, draw in gain.used if kind == "forward"]


def test_without_a_defence_it_is_the_classifier():
    model = defended()
    assert model.draws == 1
    np.testing.assert_array_equal(model.labels(X, NUMBERS, SEED), [scores(X).argmax(axis=1)])
    np.testing.assert_allclose(model.scores(X, NUMBERS, SEED), scores(X), rtol=1e-6)
    for found, passes in (
        model.margin(X, Y, NUMBERS, SEED),
        model.mean_margin(X, Y, NUMBERS, SEED),
        model.median_margin(X, Y, NUMBERS, SEED),
    ):
        np.testing.assert_allclose(found, margins(X, Y), rtol=1e-5)
        np.testing.assert_array_equal(passes, [1, 1, 1])
    look = looked(model)
    np.testing.assert_allclose(look.margin, margins(X, Y), rtol=1e-5)
    np.testing.assert_allclose(look.mean, margins(X, Y), rtol=1e-5)
    np.testing.assert_allclose(look.scores, scores(X), rtol=1e-6)
    np.testing.assert_allclose(look.values, -np.log(softmax(scores(X)))[range(3), Y], rtol=1e-5)
    np.testing.assert_allclose(gradient(look), slope(X, Y), rtol=1e-4, atol=1e-6)
    aims = np.array([0, 1, 2])
    found = gradient(looked(model, targeted_margin, aims))
    np.testing.assert_allclose(found, (WEIGHTS[:, aims] - WEIGHTS[:, Y]).T, rtol=1e-5)


def test_a_look_is_one_pass_forward_and_one_back():
    classifier = linear(WEIGHTS, BIAS)
    looked(defended(classifier=classifier))
    assert classifier.passes == ["forward", "backward"]
    classifier.passes.clear()
    looked(defended(Gain(), classifier, draws=3))
    assert classifier.passes == ["forward", "backward"]  # of all draws together


@pytest.mark.parametrize(("most", "batches"), [(1, 5), (2 * len(X), 3), (5 * len(X), 1)])
def test_draws_go_through_the_classifier_together_as_far_as_they_fit(most, batches, monkeypatch):
    expected = defended(Gain(), draws=5)
    monkeypatch.setattr("preshield.evaluation.defended.TOGETHER", most)
    classifier = linear(WEIGHTS, BIAS)
    model = defended(Gain(), classifier, draws=5)
    look, wanted = looked(model), looked(expected)
    assert classifier.passes == ["forward", "backward"] * batches
    for found, value in zip(look, wanted, strict=True):
        np.testing.assert_allclose(found, value, rtol=1e-6)
    for ask in ("mean_margin", "median_margin"):
        found, passes = getattr(model, ask)(X, Y, NUMBERS, SEED)
        value, cost = getattr(expected, ask)(X, Y, NUMBERS, SEED)
        np.testing.assert_allclose(found, value, rtol=1e-6)
        np.testing.assert_array_equal(passes, cost)
    labels = model.labels(X, NUMBERS, SEED)
    assert labels.shape == (5, len(X))
    np.testing.assert_array_equal(labels, expected.labels(X, NUMBERS, SEED))


def test_probabilities_are_attacked_as_logits():
    def jacobian(x):
        p = softmax(scores(x))
        return p[:, :, None] * (WEIGHTS.T - (p @ WEIGHTS.T)[:, None])

    classifier = Analytic(lambda x: softmax(scores(x)), jacobian, (2,), 3)
    classifier.of_probabilities = True
    look = looked(defended(classifier=classifier))
    np.testing.assert_allclose(look.scores, np.log(softmax(scores(X))), rtol=1e-5)
    np.testing.assert_allclose(gradient(look), slope(X, Y), rtol=1e-4, atol=1e-6)
    p = softmax(scores(X))
    np.testing.assert_allclose(look.margin, [p[i, k] - np.delete(p[i], k).max() for i, k in enumerate(Y)])


def test_gradient_is_the_mean_over_the_very_draws():
    gain = Gain()
    look = looked(defended(gain, draws=5))
    draws = forward_draws(gain)
    assert len(set(draws)) == 5
    by_hand = np.mean([g * slope(X * g, Y) for g in draws], axis=0)
    np.testing.assert_allclose(gradient(look), by_hand, rtol=1e-4, atol=1e-6)
    g = np.mean(draws)  # and not the gradient at the mean draw
    assert np.abs(g * slope(X * g, Y) - by_hand).max() > 0.01
    np.testing.assert_allclose(look.scores, np.mean([scores(X * g) for g in draws], axis=0), rtol=1e-4)
    each = [margins(X * g, Y) for g in draws]
    np.testing.assert_allclose(look.margin, np.max(each, axis=0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(look.mean, np.mean(each, axis=0), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("chained", [False, True])
def test_the_backward_pass_sees_the_draw_of_its_forward_pass(chained):
    gain = Gain()
    looked(defended(Chain([Identity(), gain]) if chained else gain, draws=3))
    kinds, draws = zip(*gain.used, strict=True)
    assert kinds == ("forward",) * 3 + ("backward",) * 3
    assert draws[:3] == draws[3:]
    assert len(set(draws[:3])) == 3


def test_bpda_takes_the_gradient_at_the_defended_point():
    look = looked(defended(FeatureSqueezing((0, 1), bit_depth=1)))  # gradient: identity
    np.testing.assert_allclose(look.margin, margins(np.round(X), Y), rtol=1e-5)
    np.testing.assert_allclose(gradient(look), slope(np.round(X), Y), rtol=1e-4, atol=1e-6)


def test_a_gradient_of_the_defence_is_used():
    soft = FeatureSqueezing((0, 1), bit_depth=1, gradient="soft")
    found = gradient(looked(defended(soft)))
    at_seen = slope(np.round(X), Y).astype(np.float32)
    np.testing.assert_allclose(found, soft.estimate_gradient(X, at_seen), rtol=1e-4, atol=1e-6)
    assert np.abs(found - at_seen).max() > 0.01


# Draws


def test_draws_depend_on_the_address():
    model = defended(noisy(0.3), draws=3)
    first = model.scores(X, NUMBERS, SEED)
    np.testing.assert_array_equal(first, model.scores(X, NUMBERS, SEED))
    assert (first != model.scores(X, NUMBERS, (1, 3))).all()
    assert (first != model.scores(X, NUMBERS + 1, SEED)).all()
    np.testing.assert_array_equal(first[1:], model.scores(X[1:], NUMBERS[1:], SEED))
    np.testing.assert_array_equal(first, model.with_draws(3).scores(X, NUMBERS, SEED))


def test_with_draws():
    assert defended(Gain(), draws=3).with_draws(7).draws == 7
    assert defended(Identity(), draws=3).with_draws(7).draws == 1
    assert defended(Gain()).with_draws(1).labels(X, NUMBERS, SEED).shape == (1, 3)


def test_global_state_and_the_streams_of_the_defence_stay():
    before = np.random.get_state()[1].copy()
    looked(defended(noisy(0.1)))
    np.testing.assert_array_equal(np.random.get_state()[1], before)
    own = noisy(0.1, rng=5)
    looked(defended(own))
    np.testing.assert_array_equal(own.transform(X), noisy(0.1, rng=5).transform(X))


def network(*layers):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    return torch.nn.Sequential(*layers, torch.nn.Linear(2, 3))


@pytest.mark.parametrize("chained", [False, True])
def test_a_defence_within_a_model_draws_by_the_numbers_of_the_samples(chained):
    noise = noisy(0.5, rng=3)
    layer = Chain([Identity(), noise], apply_predict=True) if chained else noise
    model = defended(classifier=as_classifier(network(as_torch_module(layer)), X), draws=4)
    assert model.draws == 4
    x = model.array(X)
    whole = model.look(x, Y, margin, None, NUMBERS, SEED)
    for rows in ([0], [2, 1]):
        some = model.look(x[rows], Y[rows], margin, None, NUMBERS[rows], SEED)
        np.testing.assert_allclose(some.scores, whole.scores[rows], rtol=1e-6)
        np.testing.assert_allclose(some.margin, whole.margin[rows], rtol=1e-5)
    np.testing.assert_allclose(model.scores(x, NUMBERS, SEED), whole.scores, rtol=1e-6)
    assert (model.scores(x, NUMBERS + 1, SEED) != whole.scores).all()
    assert len({bytes(labels) for labels in model.with_draws(40).labels(x, NUMBERS, SEED)}) > 1
    np.testing.assert_array_equal(noise.transform(X), noisy(0.5, rng=3).transform(X))  # its own stream


def test_a_defence_within_a_compiled_graph_does_too():
    """Its draws are made by threads of TensorFlow, on behalf of this one."""
    keras = pytest.importorskip("keras")
    keras.utils.set_random_seed(0)
    layers = [keras.Input((2,)), as_keras_layer(noisy(0.5, rng=3)), keras.layers.Dense(3)]
    model = defended(classifier=as_classifier(keras.Sequential(layers), X), draws=3)
    whole = looked(model)
    some = model.look(X[1:], Y[1:], cross_entropy, None, NUMBERS[1:], SEED)
    np.testing.assert_allclose(some.scores, whole.scores[1:], rtol=1e-5)
    np.testing.assert_allclose(gradient(some), gradient(whole)[1:], rtol=1e-4)
    assert (model.scores(X, NUMBERS + 1, SEED) != whole.scores).all()


def test_samples_that_a_model_adds_draw_for_themselves():
    """As with flipped copies: they have their places as numbers."""
    torch = pytest.importorskip("torch")
    noise = as_torch_module(noisy(0.5))

    class Twice(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.noise = noise

        def forward(self, x):
            return self.noise(torch.cat([x, x])).reshape(2, len(x), 2).mean(dim=0)

    x = np.zeros((3, 2), np.float32)
    model = defended(classifier=as_classifier(Twice(), x), draws=1, nb_classes=2)
    found = model.scores(x, NUMBERS, SEED)
    assert len(np.unique(found)) == 6


def viewed_by_a_vote(noise):
    return PredictOnly(lambda x: scores(noise.transform(x)), (2,), [None, Chain([Identity(), noise]), noise])


def test_views_of_a_vote_without_gradients_draw_by_number_too():
    noise = noisy(0.5, rng=3)
    model = defended(classifier=viewed_by_a_vote(noise), draws=4)
    assert model.stochastic
    first = model.scores(X, NUMBERS, SEED)
    np.testing.assert_allclose(model.scores(X[1:], NUMBERS[1:], SEED), first[1:], rtol=1e-6)
    assert (model.scores(X, NUMBERS, (6,)) != first).any()
    np.testing.assert_array_equal(noise.transform(X), noisy(0.5, rng=3).transform(X))


def test_what_a_model_does_not_draw_in_prediction_does_not_count():
    noise = GaussianAugmentation(0.5, augmentation=False, apply_predict=False)
    assert not defended(classifier=as_classifier(network(as_torch_module(noise)), X)).stochastic


def test_labels_of_each_draw():
    gain = Gain(3.0)
    labels = defended(gain, draws=6).labels(X, NUMBERS, SEED)
    np.testing.assert_array_equal(labels, [scores(X * g).argmax(axis=1) for g in forward_draws(gain)])
    assert (labels != labels[0]).any()


def test_one_right_draw_makes_the_margin_positive():
    classifier = linear([[0, 1], [0, 1]], [0, -1])  # class 1 where the sum exceeds 1
    x, y = np.full((500, 2), 0.4, dtype=np.float32), np.ones(500, dtype=int)
    few, many = (
        (defended(noisy(0.5), classifier, draws=n, nb_classes=2).margin(x, y, np.arange(500), SEED)[0] < 0)
        for n in (2, 16)
    )
    single = 0.6114  # P(0.8 + N(0, 0.5) sqrt(2) < 1)
    assert abs(few.mean() - single**4) < 0.08  # twice the draws; 0.08 is five standard deviations
    assert many.mean() < 0.01


def test_samples_that_one_draw_got_right_are_not_predicted_again():
    classifier = threshold((2,))
    model = defended(Gain(0.0), classifier, draws=4, nb_classes=2)
    x = np.array([[0.9, 0.9], [0.1, 0.1]], np.float32)
    _, passes = model.margin(x, np.array([1, 1]), np.arange(2), SEED)
    np.testing.assert_array_equal(passes, [1, 8])  # twice the draws, if none is right
    assert classifier.predicted == 9


def test_median_margin():
    gain = Gain()
    found, passes = defended(gain, draws=3).median_margin(X, Y, NUMBERS, SEED)
    each = [margins(X * g, Y) for g in forward_draws(gain)]
    assert len(each) == 6
    np.testing.assert_allclose(found, np.median(each, axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(passes, [6, 6, 6])


# Classifiers that answer otherwise


def rejecting(x):
    """Class 1 where the first feature exceeds 0.5; no answer where the second one does."""
    return np.where(x[:, 1] > 0.5, -1, (x[:, 0] > 0.5).astype(int))


def test_rejection_is_no_success_of_the_attacker():
    model = defended(classifier=PredictOnly(rejecting, (2,)), nb_classes=2)
    x = np.array([[0.9, 0.1], [0.1, 0.1], [0.9, 0.9]], np.float32)
    np.testing.assert_array_equal(model.labels(x, NUMBERS, SEED), [[1, 0, -1]])
    np.testing.assert_array_equal(model.margin(x, np.array([1, 1, 1]), NUMBERS, SEED)[0], [1, -1, 1])
    np.testing.assert_array_equal(model.mean_margin(x, np.array([0, 0, 0]), NUMBERS, SEED)[0], [-1, 1, 1])
    np.testing.assert_array_equal(model.scores(x, NUMBERS, SEED), [[0, 1], [1, 0], [0, 0]])
    np.testing.assert_array_equal(model.scores(x, NUMBERS, SEED, rejected_as=1)[2], [0, 1])


def test_nan_is_no_label():
    broken = PredictOnly(lambda x: np.where(x[:, :1] > 0.5, np.nan, scores(x)), (2,))
    message = "must return numbers, got NaN for 1 of 3 samples; look for an overflow in the model"
    model = defended(classifier=broken)
    for ask in (model.margin, model.median_margin):
        with pytest.raises(ValueError, match=message):
            ask(X, Y, NUMBERS, SEED)
    with pytest.raises(ValueError, match=message):
        model.labels(X, NUMBERS, SEED)
    spoilt = linear(WEIGHTS, [np.nan, 0, 0])
    with pytest.raises(ValueError, match="got NaN for 3 of 3 samples"):
        looked(defended(classifier=spoilt))


def test_several_infinite_scores_name_no_class():
    """As where half precision overflows: the largest would be the first class, with a margin of NaN."""
    broken = defended(classifier=PredictOnly(lambda x: np.where(x[:, :1] > 0.5, np.inf, scores(x)), (2,)))
    message = "got several infinite scores for 1 of 3 samples; look for an over"
    with pytest.raises(ValueError, match=message):
        broken.labels(X, NUMBERS, SEED)
    with pytest.raises(ValueError, match=message):
        broken.margin(X, Y, NUMBERS, SEED)
    sure = PredictOnly(lambda x: np.where(np.arange(3) == Y[:, None], np.inf, scores(x)), (2,))
    np.testing.assert_array_equal(defended(classifier=sure).labels(X, NUMBERS, SEED), [Y])


def test_takes_the_layout_of_the_channels_from_the_defence():
    jpeg = JpegCompression((0, 1), channels_first=True)
    options = {"nb_classes": 2, "input_shape": (3, 8, 8)}
    assert defended(jpeg, threshold((3, 8, 8)), **options).channels_first
    assert not defended(JpegCompression((0, 1)), threshold((8, 8, 3)), **options).channels_first
    stated = JpegCompression((0, 1), layout="NCHW")
    for defence in (stated, Chain([FeatureSqueezing((0, 1)), jpeg]), Chain([stated])):
        assert defended(defence, threshold((3, 8, 8)), **options).channels_first
