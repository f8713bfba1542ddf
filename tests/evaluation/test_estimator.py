import numpy as np
import pytest

from preshield import Chain, FeatureSqueezing, GaussianAugmentation, JpegCompression

pytest.importorskip("art")

from art.attacks.evasion import DeepFool, FastGradientMethod, HopSkipJump, ProjectedGradientDescent
from art.estimators.classification import BlackBoxClassifier

from preshield.evaluation.classifiers import PredictOnly
from preshield.evaluation.estimator import DefendedClassifier
from tests.evaluation.analytic import Gain, Identity, linear, softmax, threshold

WEIGHTS = np.array([[1.0, 0.0, 2.0], [0.0, 3.0, -1.0]])
BIAS = np.array([0.1, -0.2, 0.0])
X = np.array([[0.9, 0.3], [0.2, 0.2], [0.4, 0.8]], dtype=np.float32)
Y = np.array([2, 0, 1])


def defended(defence=None, classifier=None, **options):
    classifier = linear(WEIGHTS, BIAS) if classifier is None else classifier
    options = {"clip_values": (0.0, 1.0), "nb_classes": 3, "input_shape": (2,)} | options
    return DefendedClassifier(classifier, defence, **options)


def scores(x):
    return x @ WEIGHTS + BIAS


def margins(x, y):
    z = scores(x)
    return [z[i, k] - max(z[i, j] for j in range(3) if j != k) for i, k in enumerate(y)]


def loss_gradient(x, y):
    return (softmax(scores(x)) - np.eye(3)[y]) @ WEIGHTS.T


def test_without_a_defence_it_is_the_classifier():
    model = defended()
    assert model.draws == 1
    np.testing.assert_allclose(model.predict(X), scores(X), rtol=1e-6)
    np.testing.assert_array_equal(model.labels(X), [scores(X).argmax(axis=1)])
    for margin in (model.margin(X, Y), model.mean_margin(X, Y)):
        np.testing.assert_allclose(margin, margins(X, Y), rtol=1e-5)
    margin, gradient = model.margin_and_gradient(X, Y)
    np.testing.assert_allclose(margin, margins(X, Y), rtol=1e-5)
    np.testing.assert_allclose(gradient, loss_gradient(X, Y), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(model.loss_gradient(X, np.eye(3)[Y]), gradient, rtol=1e-5)
    np.testing.assert_allclose(model.class_gradient(X)[0], WEIGHTS.T)
    np.testing.assert_allclose(model.compute_loss(X, np.eye(3)[Y]), -np.log(softmax(scores(X)))[range(3), Y])
    assert model.input_shape == (2,)


def test_gradient_is_the_mean_over_the_very_draws():
    gain = Gain()
    gradient = defended(gain, draws=5).margin_and_gradient(X, Y)[1]
    draws = [np.float32(draw) for kind, draw in gain.used if kind == "forward"]
    assert len(set(draws)) == 5
    by_hand = np.mean([g * loss_gradient(X * g, Y) for g in draws], axis=0)
    np.testing.assert_allclose(gradient, by_hand, rtol=1e-4, atol=1e-6)
    # not the gradient at the mean draw
    g = np.mean(draws)
    assert np.abs(g * loss_gradient(X * g, Y) - by_hand).max() > 0.01


@pytest.mark.parametrize(
    ("method", "one"),
    [
        (lambda m: m.loss_gradient(X, np.eye(3)[Y]), lambda g: g * loss_gradient(X * g, Y)),
        (lambda m: m.class_gradient(X), lambda g: np.broadcast_to(g * WEIGHTS.T, (3, 3, 2))),
        (lambda m: m.predict(X), lambda g: scores(X * g)),
        (lambda m: m.mean_margin(X, Y), lambda g: margins(X * g, Y)),
        (
            lambda m: m.compute_loss(X, np.eye(3)[Y]),
            lambda g: -np.log(softmax(scores(X * g)))[range(3), Y],
        ),
    ],
    ids=["loss_gradient", "class_gradient", "predict", "mean_margin", "compute_loss"],
)
def test_everything_is_averaged_over_the_draws(method, one):
    gain = Gain()
    actual = method(defended(gain, draws=4))
    draws = [np.float32(draw) for kind, draw in gain.used if kind == "forward"]
    assert len(set(draws)) == 4
    np.testing.assert_allclose(actual, np.mean([one(g) for g in draws], axis=0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["margin_and_gradient", "loss_gradient", "class_gradient"])
@pytest.mark.parametrize("chained", [False, True])
def test_the_backward_pass_sees_the_draw_of_its_forward_pass(method, chained):
    gain = Gain()
    model = defended(Chain([Identity(), gain]) if chained else gain, draws=3)
    y = {"margin_and_gradient": Y, "loss_gradient": np.eye(3)[Y], "class_gradient": None}[method]
    getattr(model, method)(X, y)
    kinds, draws = zip(*gain.used, strict=True)
    backward = kinds.count("backward") // 3  # one for each class, if there are classes
    assert kinds == (("forward",) + ("backward",) * backward) * 3
    per_pass = np.reshape(draws, (3, -1))
    assert (per_pass == per_pass[:, :1]).all()
    assert len(set(per_pass[:, 0])) == 3


def test_bpda_takes_the_gradient_at_the_defended_point():
    jpeg_like = FeatureSqueezing((0, 1), bit_depth=1)  # gradient: identity
    model = defended(jpeg_like)
    assert model.draws == 1
    seen = np.round(X)
    np.testing.assert_allclose(model.predict(X), scores(seen), rtol=1e-6)
    margin, gradient = model.margin_and_gradient(X, Y)
    np.testing.assert_allclose(margin, margins(seen, Y), rtol=1e-5)
    np.testing.assert_allclose(gradient, loss_gradient(seen, Y), rtol=1e-4, atol=1e-6)


def test_a_gradient_of_the_defence_is_used():
    soft = FeatureSqueezing((0, 1), bit_depth=1, gradient="soft")
    gradient = defended(soft).margin_and_gradient(X, Y)[1]
    at_seen = loss_gradient(np.round(X), Y).astype(np.float32)
    np.testing.assert_allclose(gradient, soft.estimate_gradient(X, at_seen), rtol=1e-4, atol=1e-6)
    assert np.abs(gradient - at_seen).max() > 0.01


def test_draws_depend_on_the_seed_and_the_call():
    a, b = (defended(Gain(), draws=3, seed=1) for _ in range(2))
    first = a.predict(X)
    np.testing.assert_array_equal(first, b.predict(X))
    assert (first != a.predict(X)).any()
    assert (first != defended(Gain(), draws=3, seed=2).predict(X)).any()
    np.testing.assert_array_equal(first, a.with_draws(3).predict(X))  # starts anew
    b.predict(X)
    np.testing.assert_array_equal(a.margin(X, Y), b.margin(X, Y))


def test_with_draws():
    assert defended(Gain(), draws=3).with_draws(7).draws == 7
    assert defended(Identity(), draws=3).with_draws(7).draws == 1
    assert defended(Gain()).with_draws(1).labels(X).shape == (1, 3)


def test_global_state_and_the_streams_of_the_defence_stay():
    noise = GaussianAugmentation(0.1, augmentation=False, apply_predict=True)
    before = np.random.get_state()[1].copy()
    defended(noise).margin_and_gradient(X, Y)
    np.testing.assert_array_equal(np.random.get_state()[1], before)
    own = GaussianAugmentation(0.1, augmentation=False, apply_predict=True, rng=5)
    defended(own).margin_and_gradient(X, Y)
    fresh = GaussianAugmentation(0.1, augmentation=False, apply_predict=True, rng=5)
    np.testing.assert_array_equal(own.transform(X), fresh.transform(X))


def test_labels_of_each_draw():
    gain = Gain(3.0)
    labels = defended(gain, draws=6).labels(X)
    draws = [np.float32(draw) for kind, draw in gain.used if kind == "forward"]
    np.testing.assert_array_equal(labels, [scores(X * g).argmax(axis=1) for g in draws])
    assert (labels != labels[0]).any()


def test_one_right_draw_makes_the_margin_positive():
    noise = GaussianAugmentation(0.5, augmentation=False, apply_predict=True)
    classifier = linear([[0, 1], [0, 1]], [0, -1])  # class 1 where the sum exceeds 1
    x, y = np.full((500, 2), 0.4, dtype=np.float32), np.ones(500, dtype=int)
    options = {"classifier": classifier, "nb_classes": 2}
    few = (defended(noise, draws=2, **options).margin(x, y) < 0).mean()
    many = (defended(noise, draws=16, **options).margin(x, y) < 0).mean()
    single = 0.6114  # P(0.8 + N(0, 0.5) sqrt(2) < 1)
    assert abs(few - single**4) < 0.08  # twice the draws; 0.08 is five standard deviations
    assert many < 0.01


def test_samples_that_one_draw_got_right_are_not_predicted_again():
    classifier = threshold((2,))
    model = defended(Gain(0.0), classifier, draws=4, nb_classes=2)
    model.margin(np.array([[0.9, 0.9], [0.1, 0.1]], np.float32), np.array([1, 1]))
    assert classifier.predicted == 1 + 8  # the first sample once, the second for twice the draws


def rejecting(x):
    """Class 1 where the first feature exceeds 0.5; no answer where the second one does."""
    return np.where(x[:, 1] > 0.5, -1, (x[:, 0] > 0.5).astype(int))


def test_rejection_is_no_success_of_the_attacker():
    model = defended(classifier=PredictOnly(rejecting, (2,)), nb_classes=2)
    x = np.array([[0.9, 0.1], [0.1, 0.1], [0.9, 0.9]], np.float32)
    np.testing.assert_array_equal(model.labels(x), [[1, 0, -1]])
    np.testing.assert_array_equal(model.margin(x, np.array([1, 1, 1])), [1, -1, 1])
    np.testing.assert_array_equal(model.mean_margin(x, np.array([0, 0, 0])), [-1, 1, 1])
    np.testing.assert_array_equal(model.predict(x), [[0, 1], [1, 0], [0, 0]])


def test_refusals():
    model = defended()
    with pytest.raises(TypeError, match="is for attacks; train the classifier itself"):
        model.fit(X, Y)
    blind = defended(classifier=PredictOnly(scores, (2,)))
    for method in (blind.loss_gradient, blind.class_gradient):
        with pytest.raises(TypeError, match="PredictOnly has no gradients; choose `attacks` that need none"):
            method(X, np.eye(3)[Y])


def test_takes_the_layout_of_the_channels_from_the_defence():
    jpeg = JpegCompression((0, 1), channels_first=True)
    options = {"nb_classes": 2, "input_shape": (3, 8, 8)}
    assert defended(jpeg, threshold((3, 8, 8)), **options).channels_first
    assert not defended(JpegCompression((0, 1)), threshold((8, 8, 3)), **options).channels_first
    stated = JpegCompression((0, 1), layout="NCHW")
    for defence in (stated, Chain([FeatureSqueezing((0, 1)), jpeg]), Chain([stated])):
        assert defended(defence, threshold((3, 8, 8)), **options).channels_first


ATTACKS = {
    "PGD": lambda m: ProjectedGradientDescent(m, eps=0.3, eps_step=0.1, max_iter=5, verbose=False),
    "PGD, L2": lambda m: ProjectedGradientDescent(m, norm=2, eps=4, max_iter=5, eps_step=1, verbose=False),
    "FGM": lambda m: FastGradientMethod(m, eps=0.3),
    "DeepFool": lambda m: DeepFool(m, max_iter=10, nb_grads=2, verbose=False),
    "HopSkipJump": lambda m: HopSkipJump(m, max_iter=2, max_eval=50, init_eval=5, verbose=False),
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
@pytest.mark.parametrize("stochastic", [False, True])
def test_attacks_of_art(attack, stochastic):
    """Each takes the mean across 0.5, or up to it."""
    shape = (8, 8, 3)
    classifier = threshold(shape, slope=20.0)
    defence = (
        GaussianAugmentation(0.02, augmentation=False, apply_predict=True)
        if stochastic
        else FeatureSqueezing((0, 1), 6)
    )
    model = defended(defence, classifier, nb_classes=2, input_shape=shape, draws=4)
    x = np.concatenate([np.full((2, *shape), level, np.float32) for level in (0.35, 0.65)])
    x += np.random.default_rng(0).uniform(-0.1, 0.1, x.shape).astype(np.float32)
    y = np.array([0, 0, 1, 1])
    moved = attack(model).generate(x, np.eye(2, dtype=np.float32)[y])
    beyond = (moved.mean(axis=(1, 2, 3)) - 0.5) * np.array([1, 1, -1, -1])
    assert (beyond > -0.005).all()  # from -0.15


def test_a_black_box_classifier_of_art():
    box = BlackBoxClassifier(scores, (2,), 3, clip_values=(0, 1))
    np.testing.assert_array_equal(defended(classifier=box).labels(X), [scores(X).argmax(axis=1)])


def test_nan_is_no_label():
    broken = PredictOnly(lambda x: np.where(x[:, :1] > 0.5, np.nan, scores(x)), (2,))
    message = "must return numbers, got NaN for 1 of 3 samples; look for an overflow in the model"
    for ask in (lambda m: m.labels(X), lambda m: m.margin(X, Y), lambda m: m.median_margin(X, Y)):
        with pytest.raises(ValueError, match=message):
            ask(defended(classifier=broken))


def test_several_infinite_scores_name_no_class():
    """As where half precision overflows: the largest would be the first class, with a margin of NaN."""
    broken = PredictOnly(lambda x: np.where(x[:, :1] > 0.5, np.inf, scores(x)), (2,))
    for ask in (lambda m: m.labels(X), lambda m: m.margin(X, Y)):
        with pytest.raises(
            ValueError, match="got several infinite scores for 1 of 3 samples; look for an over"
        ):
            ask(defended(classifier=broken))
    sure = PredictOnly(lambda x: np.where(np.arange(3) == Y[:, None], np.inf, scores(x)), (2,))
    np.testing.assert_array_equal(defended(classifier=sure).labels(X), [Y])


def test_median_margin():
    gain = Gain()
    model = defended(gain, draws=3)
    found = model.median_margin(X, Y)
    np.testing.assert_allclose(found, np.median([margins(X * g, Y) for _, g in gain.used], axis=0), rtol=1e-5)
    assert len(gain.used) == 6


def held_by_the_classifier(noise):
    torch = pytest.importorskip("torch")
    from art.estimators.classification import PyTorchClassifier

    torch.manual_seed(0)
    network = torch.nn.Linear(2, 3)
    return PyTorchClassifier(
        network, torch.nn.CrossEntropyLoss(), (2,), 3, preprocessing_defences=[noise], device_type="cpu"
    )


def viewed_by_a_vote(noise):
    return PredictOnly(lambda x: scores(noise.transform(x)), (2,), [None, Chain([Identity(), noise]), noise])


@pytest.mark.parametrize("holder", [held_by_the_classifier, viewed_by_a_vote])
def test_what_a_classifier_draws_itself_is_averaged_and_repeated(holder):
    noise = GaussianAugmentation(0.5, augmentation=False, apply_predict=True, rng=3)
    classifier = holder(noise)
    expected = GaussianAugmentation(0.5, augmentation=False, rng=3).transform(X)
    model = defended(classifier=classifier, draws=4, seed=5)
    assert model.stochastic
    assert model.draws == 4
    assert len({bytes(model.outputs(X)) for _ in range(4)}) == 4
    first = defended(classifier=classifier, draws=4, seed=5).predict(X)
    np.testing.assert_array_equal(defended(classifier=classifier, draws=4, seed=5).predict(X), first)
    assert (defended(classifier=classifier, draws=4, seed=6).predict(X) != first).any()
    np.testing.assert_array_equal(noise.transform(X), expected)  # its own stream is where it was


def test_what_a_classifier_does_not_draw_in_prediction_does_not_count():
    classifier = held_by_the_classifier(GaussianAugmentation(0.5, augmentation=False, apply_predict=False))
    assert not defended(classifier=classifier).stochastic
