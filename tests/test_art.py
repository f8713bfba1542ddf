"""The Adversarial Robustness Toolbox: preshield's defences inside its classifiers and attacks.

The models are linear with a softmax, so logits, losses and gradients have a closed form; every value is
compared with it. `ONE`, `TWO` and `FOUR` have gradients that depend on where they are taken.
"""

import copy
import subprocess
import sys

import numpy as np
import pytest

from preshield import (
    BlurNet,
    Chain,
    DefenseGAN,
    FeatureSqueezing,
    GaussianAugmentation,
    GaussianBlur,
    InverseGAN,
    JpegCompression,
    LabelSmoothing,
    MajorityVote,
    Mp3Compression,
    PixelDeflection,
    Preprocessor,
    Resample,
    SpatialSmoothing,
    ThermometerEncoding,
    VideoCompression,
)
from preshield._core.layout import object_array

pytest.importorskip("art")

from art.attacks.evasion import (
    AutoProjectedGradientDescent,
    FrameSaliencyAttack,
    ProjectedGradientDescent,
)
from art.defences.preprocessor.preprocessor import (
    Preprocessor as ArtPreprocessor,
)
from art.defences.preprocessor.preprocessor import (
    PreprocessorPyTorch,
    PreprocessorTensorFlowV2,
)
from art.estimators.classification import BlackBoxClassifier, SklearnClassifier

RNG = np.random.default_rng(0)
X = RNG.random((4, 6, 5, 3), dtype=np.float32)
LABELS = np.array([0, 1, 2, 0])
Y = np.eye(3, dtype=np.float32)[LABELS]


def median(**kwargs):
    return SpatialSmoothing(3, gradient="exact", **kwargs)


def soft(**kwargs):
    return FeatureSqueezing((0, 1), 2, gradient="soft", **kwargs)


ONE = [median()]
TWO = [median(), soft()]
BLURS = [GaussianBlur(3, 0.8), BlurNet(5)]
FOUR = [median(), soft(), SpatialSmoothing(2, gradient="exact"), ThermometerEncoding((0, 1), 4)]
LISTS = {"one": ONE, "two": TWO, "four": FOUR, "chain": [Chain(FOUR)], "blurs": BLURS}
EACH_LIST = pytest.mark.parametrize("defences", LISTS.values(), ids=LISTS)


# The closed form


def weights(shape):
    return np.random.default_rng(1).standard_normal((int(np.prod(shape)), 3)).astype(np.float32) / 4


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def points(defences, x):
    """What each defence receives, and what the model receives."""
    visited = [x]
    for defence in defences:
        visited.append(defence.transform(visited[-1]))
    return visited


def logits(defences, x):
    seen = points(defences, x)[-1]
    return seen.reshape(len(x), -1) @ weights(seen.shape[1:])


def pulled_back(defences, x, grad):
    """The chain rule, stage by stage."""
    for defence, point in zip(reversed(defences), reversed(points(defences, x)[:-1]), strict=True):
        grad = defence.estimate_gradient(point, grad)
    return grad


def loss_gradient(defences, x, y):
    """Gradient of the summed cross-entropy."""
    seen = points(defences, x)[-1]
    grad = (softmax(logits(defences, x)) - y) @ weights(seen.shape[1:]).T
    return pulled_back(defences, x, grad.reshape(seen.shape))


def class_gradient(defences, x):
    seen = points(defences, x)[-1]
    grad = np.broadcast_to(weights(seen.shape[1:]).T, (len(x), 3, int(np.prod(seen.shape[1:]))))
    return pulled_back(defences, x, grad.reshape(len(x), 3, *seen.shape[1:]))


def close(actual, expected, atol=1e-5):
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=atol)


# The classifiers, all with the same weights. The losses are sums, means or taken sample by sample


RATE = 0.1


def model_shape(defences, like):
    """Shape of what the model receives."""
    shape = like.shape
    for defence in defences:
        shape = defence._output_shape(shape) if isinstance(defence, Preprocessor) else shape
    return shape[1:]


def pytorch(defences, like=X, **kwargs):
    torch = pytest.importorskip("torch")
    from art.estimators.classification import PyTorchClassifier

    shape = model_shape(defences, like)
    layer = torch.nn.Linear(int(np.prod(shape)), 3)
    with torch.no_grad():
        layer.weight[:] = torch.tensor(weights(shape).T)
        layer.bias[:] = 0
    model = torch.nn.Sequential(torch.nn.Flatten(), layer)
    return PyTorchClassifier(
        model,
        torch.nn.CrossEntropyLoss(reduction="sum"),
        like.shape[1:],
        3,
        optimizer=torch.optim.SGD(model.parameters(), RATE),
        clip_values=(0, 1),
        preprocessing_defences=defences,
        device_type="cpu",
        **kwargs,
    )


def keras_model(defences, like=X):
    tf = pytest.importorskip("tensorflow")
    shape = model_shape(defences, like)
    layers = [tf.keras.Input(shape), tf.keras.layers.Flatten(), tf.keras.layers.Dense(3)]
    model = tf.keras.Sequential(layers)
    model.layers[-1].set_weights([weights(shape), np.zeros(3)])
    loss = tf.keras.losses.CategoricalCrossentropy(from_logits=True, reduction="sum")
    model.compile(tf.keras.optimizers.SGD(RATE), loss)
    return model


def tensorflow(defences, like=X, **kwargs):
    model = keras_model(defences, like)
    from art.estimators.classification import TensorFlowV2Classifier

    return TensorFlowV2Classifier(
        model,
        3,
        like.shape[1:],
        loss_object=model.loss,
        optimizer=model.optimizer,
        clip_values=(0, 1),
        preprocessing_defences=defences,
        **kwargs,
    )


def keras(defences, **kwargs):
    model = keras_model(defences)
    from art.estimators.classification import KerasClassifier

    return KerasClassifier(
        model, use_logits=True, clip_values=(0, 1), preprocessing_defences=defences, **kwargs
    )


def black_box(defences, like=X, **kwargs):
    def predict(x):
        return x.reshape(len(x), -1) @ weights(x.shape[1:])

    return BlackBoxClassifier(
        predict, like.shape[1:], 3, clip_values=(0, 1), preprocessing_defences=defences, **kwargs
    )


FRAMEWORKS = pytest.mark.parametrize("make", [pytorch, tensorflow])
NETWORKS = pytest.mark.parametrize("make", [pytorch, tensorflow, keras])


# Registration; that it does not depend on what is imported first is tested in test_art_estimators.py


def test_defences_pass_for_arts_own():
    for base in (ArtPreprocessor, PreprocessorPyTorch, PreprocessorTensorFlowV2):
        for defence in (*FOUR, Chain(FOUR), LabelSmoothing(), GaussianAugmentation()):
            assert isinstance(defence, base)
            assert issubclass(type(defence), base)
        assert not isinstance("defence", base)


# predict


@pytest.mark.parametrize("make", [pytorch, tensorflow, keras, black_box])
@EACH_LIST
def test_predict(make, defences):
    close(make(defences).predict(X), logits(defences, X))


@NETWORKS
def test_predict_applies_what_is_meant_for_it(make):
    defences = [median(apply_predict=False), soft()]
    close(make(defences).predict(X), logits([soft()], X))


@NETWORKS
def test_a_single_defence_needs_no_list(make):
    classifier = make([soft()])
    classifier.set_params(preprocessing_defences=median())
    close(classifier.predict(X), logits([median()], X))


@NETWORKS
def test_a_stochastic_defence_in_prediction(make):
    noise = GaussianAugmentation(0.2, False, apply_predict=True)
    classifier = make([noise, soft()])
    with noise.frozen(3):
        expected = logits([noise, soft()], X)
        close(classifier.predict(X), expected)
    assert np.abs(classifier.predict(X) - expected).max() > 1e-3


@FRAMEWORKS
def test_pixel_deflection_in_a_list(make):
    def spared(x):
        return x.mean(axis=-1)

    exact = PixelDeflection((0, 1), 0.5, 2, activation_map=spared, denoiser=None, gradient="exact")
    denoised = PixelDeflection((0, 1), 20, 3)
    defences = [exact, soft(), denoised]
    classifier = make(defences)
    attack = ProjectedGradientDescent(classifier, eps=0.05, eps_step=0.05, max_iter=1, verbose=False)
    with exact.frozen(1), denoised.frozen(2):
        assert all((defence.transform(X) != X).any() for defence in defences)
        close(classifier.predict(X), logits(defences, X))
        grad = loss_gradient(defences, X, Y)
        close(classifier.loss_gradient(X, Y), grad)
        close(classifier.class_gradient(X, 1), class_gradient(defences, X)[:, 1:2])
        clear = np.abs(grad) > 1e-6
        close(attack.generate(X, Y)[clear], np.clip(X + 0.05 * np.sign(grad), 0, 1)[clear])
    assert (np.abs(grad) > 1e-6).mean() > 0.1


@FRAMEWORKS
def test_a_vote_over_a_classifier_with_a_list(make):
    views = [None, GaussianBlur(3, 0.8), Chain(BLURS)]
    vote = MajorityVote(make(TWO), views, min_votes=1)
    expected = [logits([*stages, *TWO], X).argmax(axis=1) for stages in ([], [GaussianBlur(3, 0.8)], BLURS)]
    np.testing.assert_array_equal(vote.votes(X), np.transpose(expected))
    attack = ProjectedGradientDescent(
        vote.for_art(X, (0, 1)), eps=0.3, eps_step=0.1, max_iter=5, verbose=False
    )
    right = vote.predict(X)
    assert (right >= 0).any()
    found = attack.generate(X, np.eye(3, dtype=np.float32)[np.maximum(right, 0)])
    assert np.abs(found - X).max() <= 0.3 + 1e-6
    assert (vote.predict(found) != right)[right >= 0].mean() > 0.5


@FRAMEWORKS
def test_arts_standardisation_follows(make):
    classifier = make(TWO, preprocessing=(0.5, 0.25))
    seen = (points(TWO, X)[-1] - 0.5) / 0.25
    expected = seen.reshape(4, -1) @ weights(X.shape[1:])
    close(classifier.predict(X), expected)
    grad = ((softmax(expected) - Y) @ weights(X.shape[1:]).T).reshape(X.shape) / 0.25
    close(classifier.loss_gradient(X, Y), pulled_back(TWO, X, grad))


def test_arts_own_torch_defences_share_the_list():
    pytest.importorskip("torch")

    class Halve(PreprocessorPyTorch):
        def forward(self, x, y=None):
            return x / 2, y

    classifier = pytorch([Halve(device_type="cpu"), *TWO])
    close(classifier.predict(X), logits(TWO, X / 2))
    close(classifier.loss_gradient(X, Y), loss_gradient(TWO, X / 2, Y) / 2)


# Gradients: PyTorch and TensorFlow differentiate through the list


@FRAMEWORKS
@EACH_LIST
def test_loss_gradient_is_the_chain_rule(make, defences):
    classifier = make(defences)
    assert classifier.all_framework_preprocessing
    expected = loss_gradient(defences, X, Y)
    close(classifier.loss_gradient(X, Y), expected)
    assert np.abs(expected).max() > 0.1


@FRAMEWORKS
def test_the_chain_rule_is_taken_where_the_stages_were(make):
    """The same, worked out stage by stage; the gradient at the original batch is another one."""
    grad = ((softmax(logits(TWO, X)) - Y) @ weights(X.shape[1:]).T).reshape(X.shape)
    smooth = median().transform(X)
    expected = median().estimate_gradient(X, soft().estimate_gradient(smooth, grad))
    elsewhere = median().estimate_gradient(X, soft().estimate_gradient(X, grad))
    found = make(TWO).loss_gradient(X, Y)
    close(found, expected)
    assert np.abs(found - elsewhere).max() > 0.1


@FRAMEWORKS
@EACH_LIST
@pytest.mark.parametrize("label", [1, [0, 2, 1, 1]], ids=["one class", "a class each"])
def test_class_gradient_is_the_chain_rule(make, defences, label):
    expected = class_gradient(defences, X)[np.arange(4), label][:, None]
    close(make(defences).class_gradient(X, label), expected)


@FRAMEWORKS
@EACH_LIST
def test_class_gradient_of_all_classes(make, defences):
    close(make(defences).class_gradient(X), class_gradient(defences, X))


def test_arts_own_tensorflow_defences_stop_the_gradient_of_all_classes():
    """What is corrected for ours: ART differentiates with respect to the *defended* batch."""
    pytest.importorskip("tensorflow")
    from art.estimators.classification import TensorFlowV2Classifier

    class Halve(PreprocessorTensorFlowV2):
        def forward(self, x, y=None):
            return x / 2, y

    classifier = TensorFlowV2Classifier(keras_model([]), 3, X.shape[1:], preprocessing_defences=[Halve()])
    expected = class_gradient([], X) / 2
    close(classifier.class_gradient(X, label=None), 2 * expected)
    close(classifier.class_gradient(X, label=1), expected[:, 1:2])


@FRAMEWORKS
def test_gradient_sees_the_draw_of_its_pass(make):
    """Noise moves the point at which the next stage is differentiated: the same for both passes."""
    moved = GaussianAugmentation(0.3, False, rng=3).transform(X)
    noise = GaussianAugmentation(0.3, False, apply_predict=True, rng=3)
    close(make([noise, soft()]).loss_gradient(X, Y), loss_gradient([soft()], moved, Y))


# Gradients: Keras and scikit-learn classifiers, which hand the original batch to every stage of ART's own


@pytest.mark.parametrize(
    "defences",
    [ONE, TWO, FOUR, [Chain(ONE)], [Chain(TWO)], [Chain(FOUR)], [median(), Chain(FOUR[1:])]],
    ids=["one", "two", "four", "1", "2", "4", "1 and 3"],
)
def test_keras_gradients_are_the_chain_rule(defences):
    stages = [stage for d in defences for stage in (d.defences if isinstance(d, Chain) else [d])]
    classifier = keras(defences)
    close(classifier.loss_gradient(X, Y), loss_gradient(stages, X, Y))
    close(classifier.class_gradient(X), class_gradient(stages, X))
    close(classifier.class_gradient(X, 1), class_gradient(stages, X)[:, 1:2])
    close(classifier.class_gradient(X, LABELS), class_gradient(stages, X)[np.arange(4), LABELS][:, None])


def test_keras_gradients_of_arts_own_defences_are_taken_at_the_original_batch():
    """What is corrected for ours; with one of ours in the list, ART's own are given what they saw, too."""

    class Square(ArtPreprocessor):
        def __call__(self, x, y=None):
            return x**2, y

        def estimate_gradient(self, x, grad):
            return 2 * x * grad

    at_model = loss_gradient([], X**4, Y)
    close(keras([Square(), Square()]).loss_gradient(X, Y), 4 * X**2 * at_model)
    wide = FeatureSqueezing((0, 1), 1, apply_predict=False)
    close(keras([Square(), Square(), wide]).loss_gradient(X, Y), 4 * X**3 * at_model)


def test_keras_gradients_of_a_list_that_changes_shape_midway():
    defences = [ThermometerEncoding((0, 1), 4), soft()]
    close(keras(defences).predict(X), logits(defences, X))
    close(keras(defences).loss_gradient(X, Y), loss_gradient(defences, X, Y))


def sklearn_classifier(defences):
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(3)
    x, y = rng.random((60, 8)), rng.integers(0, 3, 60)
    return SklearnClassifier(
        LogisticRegression(C=100).fit(x, y), clip_values=(0, 1), preprocessing_defences=defences
    )


COARSE, FINE = FeatureSqueezing((0, 1), 1, gradient="soft"), FeatureSqueezing((0, 1), 2, gradient="soft")
ROWS = np.random.default_rng(4).random((4, 8), dtype=np.float32)


@pytest.mark.parametrize(
    "stages", [[FINE], [FINE, COARSE], [FINE, COARSE, FINE, COARSE]], ids=["one", "two", "four"]
)
def test_sklearn_classifiers(stages):
    plain = sklearn_classifier(None)
    seen = points(stages, ROWS)[-1]
    in_list, in_chain = sklearn_classifier(stages), sklearn_classifier([Chain(stages)])
    for classifier in (in_list, in_chain):
        close(classifier.predict(ROWS), plain.predict(seen))
        close(classifier.loss_gradient(ROWS, Y), pulled_back(stages, ROWS, plain.loss_gradient(seen, Y)))
        close(classifier.class_gradient(ROWS), pulled_back(stages, ROWS, plain.class_gradient(seen)))


def test_sklearn_fit():
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(5)
    x, y = rng.random((40, 8)), np.eye(3)[rng.integers(0, 3, 40)]
    squeeze = FeatureSqueezing((0, 1), 1, apply_fit=True)
    classifier = SklearnClassifier(LogisticRegression(), clip_values=(0, 1), preprocessing_defences=[squeeze])
    classifier.fit(x, y)
    expected = LogisticRegression().fit(np.rint(x), y.argmax(axis=1)).predict_proba(np.rint(x))
    close(classifier.predict(x), expected)


# fit: one step of gradient descent on the whole batch


def trained(classifier):
    """Weights and biases."""
    if hasattr(classifier.model, "get_weights"):
        return classifier.model.get_weights()
    layer = classifier.model[-1]
    return layer.weight.detach().numpy().T, layer.bias.detach().numpy()


def one_step(x, y):
    w = weights(x.shape[1:])
    rows = x.reshape(len(x), -1)
    error = softmax(rows @ w) - y
    return w - RATE * rows.T @ error, -RATE * error.sum(axis=0)


def check_trained(classifier, x, y):
    for found, expected in zip(trained(classifier), one_step(x, y), strict=True):
        close(found, expected)


FIT_LISTS = {
    "one": [median(apply_fit=True)],
    "two": [median(apply_fit=True), JpegCompression((0, 1), 60)],
    "four": [median(apply_fit=True), soft(), JpegCompression((0, 1), 60), ThermometerEncoding((0, 1), 4)],
}


@NETWORKS
@pytest.mark.parametrize("defences", FIT_LISTS.values(), ids=FIT_LISTS)
def test_fit(make, defences):
    classifier = make(defences)
    classifier.fit(X, Y, batch_size=4, nb_epochs=1)
    applied = [d for d in defences if d.apply_fit]
    check_trained(classifier, points(applied, X)[-1], Y)


@NETWORKS
def test_fit_with_more_samples_and_softer_labels(make):
    defences = [LabelSmoothing(0.8), GaussianAugmentation(0.2, ratio=1.5, rng=7)]
    classifier = make(defences)
    classifier.fit(X, Y, batch_size=16, nb_epochs=1)
    x, y = GaussianAugmentation(0.2, ratio=1.5, rng=7)(X, LabelSmoothing(0.8)(X, Y)[1])
    assert len(x) == len(y) == 10
    check_trained(classifier, x, y)
    w, b = trained(classifier)
    close(classifier.predict(X), X.reshape(4, -1) @ w + b)  # neither is for prediction


# Attacks


@NETWORKS
@EACH_LIST
def test_projected_gradient_descent_steps_along_the_chain_rule(make, defences):
    attack = ProjectedGradientDescent(make(defences), eps=0.05, eps_step=0.05, max_iter=1, verbose=False)
    found = attack.generate(X, Y)
    grad = loss_gradient(defences, X, Y)
    clear = np.abs(grad) > 1e-6
    expected = np.clip(X + 0.05 * np.sign(grad), 0, 1)
    close(found[clear], expected[clear])
    assert clear.mean() > 0.1


def check_auto_attack(classifier, defences, **kwargs):
    """It fools the defended model within its bounds."""
    right = logits(defences, X).argmax(axis=1)
    attack = AutoProjectedGradientDescent(
        classifier, eps=0.4, eps_step=0.2, max_iter=10, nb_random_init=1, verbose=False, **kwargs
    )
    found = attack.generate(X, np.eye(3, dtype=np.float32)[right])
    assert np.abs(found - X).max() <= 0.4 + 1e-6
    assert found.min() >= 0
    assert found.max() <= 1
    fooled = logits(defences, found).argmax(axis=1) != right
    assert fooled.mean() >= 0.5


@FRAMEWORKS
@EACH_LIST
@pytest.mark.parametrize("loss_type", [None, "cross_entropy", "difference_logits_ratio"])
def test_auto_projected_gradient_descent(make, defences, loss_type):
    check_auto_attack(make(defences), defences, loss_type=loss_type)


@pytest.mark.filterwarnings("ignore:.model.compiled_loss:UserWarning:keras")  # ART calls it
@pytest.mark.parametrize("stages", [ONE, TWO, [*TWO, *TWO]], ids=["one", "two", "four"])
def test_auto_projected_gradient_descent_on_keras(stages):
    """Stages that keep the shape: ART takes the shape of its examples from the Keras model."""
    for defences in (stages, [Chain(stages)]):
        check_auto_attack(keras(defences), stages, loss_type=None)


@pytest.mark.parametrize("stages", [[FINE], [FINE, COARSE]], ids=["one", "two"])
def test_projected_gradient_descent_on_sklearn(stages):
    classifier = sklearn_classifier(stages)
    attack = ProjectedGradientDescent(classifier, eps=0.05, eps_step=0.05, max_iter=1, verbose=False)
    grad = pulled_back(stages, ROWS, sklearn_classifier(None).loss_gradient(points(stages, ROWS)[-1], Y))
    clear = np.abs(grad) > 1e-6
    expected = np.clip(ROWS + 0.05 * np.sign(grad), 0, 1)
    close(attack.generate(ROWS, Y)[clear], expected[clear])
    assert clear.mean() > 0.5


# Sound and video, alone and in lists: what the codecs return, and gradients straight through them


def sounds():
    time = np.arange(900) * np.array([[0.02], [0.05], [0.11], [0.2]])
    noise = np.random.default_rng(6).uniform(-0.1, 0.1, (4, 900))
    return (0.5 + 0.3 * np.sin(time) + noise)[..., None].astype(np.float32)


def clips():
    """A bright square on a dark ramp moves with the frames."""
    x = np.empty((4, 5, 8, 12, 3), np.float32)
    x[:] = np.linspace(0.1, 0.5, 12)[:, None]
    for n, f in np.ndindex(4, 5):
        x[n, f, n : n + 4, f : f + 5] = (0.9, 0.6, 0.2 + 0.1 * n)
    return x


SOUNDS, CLIPS = sounds(), clips()
MP3, LOW_RATE = Mp3Compression(16000, full_scale=1.0), Resample(16000, 8000, restore=True)
VIDEO = VideoCompression(video_format="mp4", clip_values=(0, 1))
MEDIA = {
    "mp3": ([MP3], SOUNDS),
    "resample": ([LOW_RATE], SOUNDS),
    "video": ([VIDEO], CLIPS),
    "mp3 and resample": ([MP3, LOW_RATE, Mp3Compression(16000, bit_rate=16000)], SOUNDS),
    "to another rate": ([Resample(16000, 8000), Mp3Compression(8000)], SOUNDS),
    "video and squeezing": ([soft(), VIDEO, VideoCompression(video_format="avi")], CLIPS),
}
EACH_MEDIUM = pytest.mark.parametrize(("defences", "x"), MEDIA.values(), ids=MEDIA)


@FRAMEWORKS
@EACH_MEDIUM
def test_sound_and_video_in_a_list(make, defences, x):
    classifier = make(defences, x)
    close(classifier.predict(x), logits(defences, x), atol=1e-4)
    assert np.abs(logits(defences, x) - logits([], x)).max() > 1e-2 or len(defences) > 1
    expected = loss_gradient(defences, x, Y)
    close(classifier.loss_gradient(x, Y), expected, atol=1e-4)
    assert np.abs(expected).max() > 0.1


@FRAMEWORKS
@EACH_MEDIUM
def test_projected_gradient_descent_on_sound_and_video(make, defences, x):
    eps = 0.02
    attack = ProjectedGradientDescent(make(defences, x), eps=eps, eps_step=eps, max_iter=1, verbose=False)
    found = attack.generate(x, Y)
    grad = loss_gradient(defences, x, Y)
    clear = np.abs(grad) > 1e-3
    close(found[clear], np.clip(x + eps * np.sign(grad), 0, 1)[clear])
    assert clear.mean() > 0.1


@FRAMEWORKS
@pytest.mark.parametrize("defences", [[VIDEO], MEDIA["video and squeezing"][0]], ids=["alone", "in a list"])
def test_frame_saliency_attack(make, defences):
    """Frames are attacked in the order of their mean absolute gradient, until the defended model is wrong."""
    classifier = make(defences, CLIPS)
    right = np.eye(3, dtype=np.float32)[logits(defences, CLIPS).argmax(axis=1)]
    inner = ProjectedGradientDescent(classifier, eps=0.1, eps_step=0.1, max_iter=1, verbose=False)
    found = FrameSaliencyAttack(classifier, inner, frame_index=1, verbose=False).generate(CLIPS, right)
    whole = inner.generate(CLIPS, right)
    saliency = np.abs(loss_gradient(defences, CLIPS, right)).mean(axis=(2, 3, 4))
    wrong = logits(defences, found).argmax(axis=1) != right.argmax(axis=1)
    assert wrong.any()
    for clip, result, attacked, scores, fooled in zip(CLIPS, found, whole, saliency, wrong, strict=True):
        changed = [f for f in range(5) if (result[f] != clip[f]).any()]
        assert changed == sorted(np.argsort(-scores)[: len(changed)])
        close(result[changed], attacked[changed])
        assert fooled or len(changed) == 5


RAGGED = {
    "mp3": (MP3, [SOUNDS[0], SOUNDS[1, :500], SOUNDS[2, :3]]),
    "resample": (Resample(16000, 8000), [SOUNDS[0], SOUNDS[1, :500, 0], SOUNDS[2, :6]]),
    "video": (VIDEO, [CLIPS[0], CLIPS[1, :2], CLIPS[2, :1, :7]]),
    "chain": (Chain([MP3, LOW_RATE]), [SOUNDS[0], SOUNDS[1, :500]]),
}


@pytest.mark.parametrize("make", [pytorch, tensorflow, keras])
@pytest.mark.parametrize(("defence", "samples"), RAGGED.values(), ids=RAGGED)
def test_samples_of_different_lengths_in_a_classifier(make, defence, samples):
    """As ART's speech recognisers do it, whose `predict` pads what the defences return."""
    classifier = make([defence])
    found, _ = classifier._apply_preprocessing(object_array(samples), None, fit=False)
    assert found.dtype == object
    for result, sample in zip(found, samples, strict=True):
        np.testing.assert_array_equal(result, defence.transform(sample[None])[0])


@pytest.mark.parametrize(("defence", "samples"), RAGGED.values(), ids=RAGGED)
def test_samples_of_different_lengths_without_gradients(defence, samples):
    """A function that takes an object array, behind the same defence twice."""

    def predict(x):
        return np.array([[sample.mean(), sample.std()] for sample in x])

    classifier = BlackBoxClassifier(predict, None, 2, preprocessing_defences=[defence, defence])
    expected = predict(defence.transform(defence.transform(object_array(samples))))
    close(classifier.predict(object_array(samples), batch_size=2), expected)


# Handling


@NETWORKS
def test_bad_input_is_refused_inside_a_classifier(make):
    x = X.copy()
    x[0, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="got 1 NaN and 0 infinite among 360 values"):
        make(TWO).predict(x)


def test_a_classifier_can_be_copied_with_its_defences():
    classifier = pytorch([GaussianAugmentation(0.2, False, apply_predict=True, rng=3), soft()])
    twin = copy.deepcopy(classifier)
    for _ in range(2):
        close(twin.predict(X), classifier.predict(X))


def test_set_params_exchanges_the_defences():
    classifier = pytorch(ONE)
    classifier.set_params(preprocessing_defences=TWO)
    close(classifier.predict(X), logits(TWO, X))
    assert classifier.get_params()["preprocessing_defences"] == TWO


# Generators of either framework before classifiers of either


def generator(framework, shape=X.shape[1:]):
    """A linear generator of images, with two latents."""
    weights, size = np.random.default_rng(2).normal(size=(2, int(np.prod(shape)))), int(np.prod(shape))
    if framework == "torch":
        torch = pytest.importorskip("torch")
        layer = torch.nn.Linear(2, size)
        layer.weight.data = torch.tensor(weights.T, dtype=torch.float32)
        layer.bias.data = torch.full((size,), 0.5)
        return torch.nn.Sequential(layer, torch.nn.Unflatten(1, shape))
    layers = pytest.importorskip("tensorflow").keras.layers
    model = pytest.importorskip("tensorflow").keras.Sequential(
        [layers.Input((2,)), layers.Dense(size), layers.Reshape(shape)]
    )
    model.layers[0].set_weights([weights, np.full(size, 0.5)])
    return model


@FRAMEWORKS
@pytest.mark.parametrize("framework", ["torch", "tensorflow"])
def test_the_gan_defences_in_a_list(make, framework):
    model = generator(framework)
    defences = [
        InverseGAN(gan=model, inverse_gan=lambda x: x[:, 0, 0, :2], apply_predict=True),
        soft(),
        DefenseGAN(gan=model, restarts=2),
    ]
    classifier = make(defences)
    with defences[-1].frozen(1):
        found = defences[0].transform(X).reshape(4, -1) - 0.5
        span = np.random.default_rng(2).normal(size=(2, 90))
        nearest = (X.reshape(4, -1) - 0.5) @ np.linalg.pinv(span) @ span
        np.testing.assert_allclose(found, nearest, atol=1e-3)
        close(classifier.predict(X), logits(defences, X), atol=1e-3)
        close(classifier.loss_gradient(X, Y), loss_gradient(defences, X, Y), atol=1e-3)


def test_a_keras_generator_before_a_torch_classifier_of_channels_first():
    x = np.ascontiguousarray(np.moveaxis(X, -1, 1))
    defence = DefenseGAN(gan=generator("tensorflow"), restarts=1, rng=0, channels_first=True)
    expected = DefenseGAN(gan=generator("torch"), restarts=1, rng=0).transform(X)
    close(
        pytorch([defence], like=x).predict(x),
        logits([], np.ascontiguousarray(np.moveaxis(expected, -1, 1))),
        atol=1e-3,
    )


@FRAMEWORKS
def test_inverse_gan_says_that_it_does_nothing_by_default(make):
    classifier = make([InverseGAN(gan=generator("torch"))])
    with pytest.warns(UserWarning, match="This InverseGAN does nothing in a classifier"):
        close(classifier.predict(X), logits([], X))
    close(classifier.predict(X), logits([], X))  # once


def test_the_library_is_reloaded_before_art_is_loaded():
    """The hook of the first time stays, and neither may ask the other without end."""
    code = (
        "import importlib, preshield; importlib.reload(preshield); importlib.reload(preshield);"
        "from art.defences.preprocessor.preprocessor import Preprocessor;"
        "assert isinstance(preshield.SpatialSmoothing(), Preprocessor)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
