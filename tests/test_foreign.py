"""Objects of ART's own classes, and of classes derived from them, in Chain, evaluate and votes."""

import copy
import pickle

import numpy as np
import pytest

import preshield
from preshield import (
    Chain,
    FeatureSqueezing,
    JpegCompression,
    MajorityVote,
    SpatialSmoothing,
    ablate,
    evaluate,
)

pytest.importorskip("art")

import art.defences.preprocessor as art
from art.defences.preprocessor.preprocessor import (
    Preprocessor,
    PreprocessorPyTorch,
    PreprocessorTensorFlowV2,
)

from tests.cases import features
from tests.test_art_style import (
    ALL_PATHS,
    GRAD,
    X,
    Y,
    by_attacker,
    by_chain,
    by_torch,
    by_traced_tensorflow,
    written_for_art,
)

# Paths start from a chain, which adapts what it gets
PATHS = pytest.mark.parametrize("path", ALL_PATHS, ids=lambda path: path.__name__.removeprefix("by_"))

Brighten = written_for_art(Preprocessor)


class Squares(PreprocessorPyTorch):
    """Only `forward`, which is what ART asks for."""

    def forward(self, x, y=None):
        return x**2, y


class SquaresOfTensorFlow(PreprocessorTensorFlowV2):
    def forward(self, x, y=None):
        return x**2, y


class Cubes(PreprocessorPyTorch):
    """With an estimate for the backward pass that differs from the defence."""

    def forward(self, x, y=None):
        return x**3, y

    def estimate_forward(self, x, y=None):
        return x**2


class Flattens(PreprocessorPyTorch):
    def forward(self, x, y=None):
        return 2 * x.flatten(1), y


class Noise(Preprocessor):
    """Factors from NumPy's global state; its gradient draws them again."""

    def __call__(self, x, y=None):
        return x * self.factors(x), y

    def estimate_gradient(self, x, grad):
        return grad * self.factors(x)

    def factors(self, x):
        return np.random.uniform(0.5, 1, x.shape).astype(np.float32)


class TorchNoise(PreprocessorPyTorch):
    def forward(self, x, y=None):
        import torch

        return x * (0.5 + torch.rand(x.shape)), y


EXPECTED = {
    "numpy": (lambda: art.FeatureSqueezing((0, 1), 2), lambda: (np.rint(X * 3) / 3, GRAD)),
    "derived": (
        lambda: Brighten(0.25, (0, 1)),
        lambda: (np.minimum(X + np.float32(0.25), 1), GRAD * (X + np.float32(0.25) < 1)),
    ),
    "torch": (lambda: Squares(device_type="cpu"), lambda: (X**2, 2 * X * GRAD)),
    "estimate": (lambda: Cubes(device_type="cpu"), lambda: (X**3, 2 * X * GRAD)),
    "tensorflow": (SquaresOfTensorFlow, lambda: (X**2, 2 * X * GRAD)),
    "arts jpeg": (
        lambda: art.JpegCompression((0, 1), 75),
        lambda: (art.JpegCompression((0, 1), 75)(X)[0], GRAD),
    ),
}


@PATHS
@pytest.mark.parametrize("kind", EXPECTED)
def test_a_stage_of_art_on_every_path(kind, path):
    pytest.importorskip("torch"), pytest.importorskip("tensorflow")
    make, expected = EXPECTED[kind]
    out, pulled = path(Chain([make()]))
    np.testing.assert_allclose(out, expected()[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(pulled, expected()[1], rtol=1e-5, atol=1e-6)
    assert out.dtype == np.float32


def test_stages_of_both_libraries_obey_the_chain_rule():
    pytest.importorskip("torch")
    median, soft = SpatialSmoothing(3, gradient="exact"), FeatureSqueezing((0, 1), 2, gradient="soft")
    chain = Chain([median, Squares(device_type="cpu"), soft])
    seen = median.transform(X)
    np.testing.assert_allclose(chain.transform(X), soft.transform(seen**2), rtol=1e-6)
    expected = median.estimate_gradient(X, 2 * seen * soft.estimate_gradient(seen**2, GRAD))
    for path in (by_chain, by_torch, by_attacker):
        np.testing.assert_allclose(path(chain)[1], expected, rtol=1e-4, atol=1e-6)


def test_a_change_of_shape_in_torch():
    torch = pytest.importorskip("torch")
    chain = Chain([Flattens(device_type="cpu"), FeatureSqueezing((0, 2), 8)])
    x = torch.tensor(X, requires_grad=True)
    out = chain(x)[0]
    out.backward(torch.tensor(GRAD.reshape(3, -1)))
    assert out.shape == (3, 90)
    np.testing.assert_allclose(x.grad, 2 * GRAD)
    np.testing.assert_allclose(chain.estimate_gradient(X, GRAD.reshape(3, -1)), 2 * GRAD)


@pytest.mark.parametrize("noise", [Noise, lambda: TorchNoise(device_type="cpu")], ids=["numpy", "torch"])
@pytest.mark.parametrize("path", [by_torch, by_traced_tensorflow, by_attacker])
def test_forward_and_backward_draw_alike(noise, path):
    pytest.importorskip("torch")
    chain = Chain([noise()])
    for _ in range(2):
        out, pulled = path(chain)
        np.testing.assert_allclose(pulled, GRAD * (out / X), rtol=1e-4)
    assert chain.stochastic
    with chain.frozen(3):
        np.testing.assert_array_equal(chain.transform(X), chain.transform(X))
    assert (chain.transform(X) != chain.transform(X)).any()


def test_cutout_of_art_in_a_chain():
    """What is cut out has no gradient."""
    pytest.importorskip("torch")
    cut = art.CutoutPyTorch(length=2, channels_first=False, apply_predict=True, device_type="cpu")
    for _ in range(3):
        out, pulled = by_torch(Chain([cut]))
        assert (out == 0).any()
        np.testing.assert_array_equal(pulled, GRAD * (out != 0))


def test_labels_that_art_mixes():
    torch = pytest.importorskip("torch")
    mixup = art.MixupPyTorch(num_classes=3, device_type="cpu")
    chain, x = Chain([FeatureSqueezing((0, 1), 8), mixup]), np.eye(3, dtype=np.float32)
    for out, labels in (chain(x, Y), chain(torch.tensor(x), torch.tensor(Y))):
        np.testing.assert_allclose(np.asarray(out), np.asarray(labels), atol=1e-2)
    with pytest.raises(ValueError, match="cannot be None"):
        chain(x)


def test_fit_of_a_stage_of_art():
    class Centred(Preprocessor):
        def __init__(self):
            super().__init__(is_fitted=False, apply_fit=True, apply_predict=True)

        def fit(self, x, y=None, **kwargs):
            self.mean = x.mean(axis=0)
            self._is_fitted = True

        def __call__(self, x, y=None):
            return x - self.mean, y

    x, squeeze = features(), FeatureSqueezing((0, 1), 1)
    chain = Chain([squeeze, Centred()])
    assert not chain.is_fitted
    chain.fit(x)
    assert chain.is_fitted
    seen = squeeze.transform(x)
    np.testing.assert_allclose(chain.transform(x), seen - seen.mean(axis=0), atol=1e-6)


# Objects and parameters


def test_a_chain_keeps_the_very_objects():
    stage = art.FeatureSqueezing((0, 1), 2)
    stages = [SpatialSmoothing(3), stage]
    chain = Chain(stages)
    assert chain.defences is stages
    assert chain.get_params()["defences"] is stages
    assert chain._stages[1] is chain._stages[1]
    assert repr(chain._stages[1]) == "FeatureSqueezing(clip_values=(0, 1), bit_depth=2)"
    assert list(ablate(chain)) == ["all stages", "without SpatialSmoothing", "without FeatureSqueezing"]
    assert ablate(chain)["without SpatialSmoothing"].defences[0] is stage
    assert "FeatureSqueezing" in chain._repr_html_()
    stage.bit_depth = 1
    np.testing.assert_array_equal(Chain([stage]).transform(X), np.rint(X))


def test_clone_pickle_and_copies():
    clone = pytest.importorskip("sklearn.base").clone
    chain = Chain([art.FeatureSqueezing((0, 1), 2)])
    expected = chain.transform(X)
    for twin in (clone(chain), copy.deepcopy(chain), pickle.loads(pickle.dumps(chain))):
        np.testing.assert_array_equal(twin.transform(X), expected)
        assert twin.defences[0] is not chain.defences[0]
        assert twin._stages[0].defence is twin.defences[0]
    chain.set_params(defences=[art.FeatureSqueezing((0, 1), 1)])
    np.testing.assert_array_equal(chain.transform(X), np.rint(X))


def test_stages_are_objects_not_classes():
    with pytest.raises(
        TypeError, match=r"`defences\[0\]` must be a defence of preshield or ART, got .*ABCMeta"
    ):
        Chain([art.FeatureSqueezing])


def test_a_vote_takes_views_of_art():
    vote = MajorityVote(
        lambda x: (x.mean(axis=1) > 0.45).astype(int), [None, art.FeatureSqueezing((0, 1), 1)]
    )
    np.testing.assert_array_equal(
        vote.votes(np.array([[0.4, 0.6], [0.4, 0.4]], np.float32)), [[1, 1], [0, 0]]
    )


# ART's classifiers and evaluate


def linear(defences):
    torch = pytest.importorskip("torch")
    from art.estimators.classification import PyTorchClassifier

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(90, 3))
    return PyTorchClassifier(
        model,
        torch.nn.CrossEntropyLoss(),
        (6, 5, 3),
        3,
        clip_values=(0, 1),
        preprocessing_defences=defences,
        device_type="cpu",
    )


def test_a_chain_puts_numpy_defences_of_art_beside_ours():
    """In a chain they are one defence, differentiated exactly; in a list they obey the chain rule, too."""
    brighten = Brighten(0.25, (0, 1))
    median = SpatialSmoothing(3, gradient="exact")
    bare = linear(None)
    seen = median.transform(X)
    moved = brighten(seen)[0]
    grad = brighten.estimate_gradient(seen, bare.loss_gradient(moved, Y))
    expected = median.estimate_gradient(X, grad)
    for classifier in (linear(Chain([median, brighten])), linear([median, brighten])):
        np.testing.assert_allclose(classifier.predict(X), bare.predict(moved), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(classifier.loss_gradient(X, Y), expected, rtol=1e-4, atol=1e-6)


def test_an_art_style_class_of_ours_shares_a_list():
    """After the import line was changed, what ART refused in a list is differentiated through."""
    brighten, median = (
        written_for_art(preshield.Preprocessor)(0.25, (0, 1)),
        SpatialSmoothing(3, gradient="exact"),
    )
    classifier, bare = linear([median, brighten]), linear(None)
    seen = median.transform(X)
    grad = brighten.estimate_gradient(seen, bare.loss_gradient(brighten(seen)[0], Y))
    expected = median.estimate_gradient(X, grad)
    np.testing.assert_allclose(classifier.loss_gradient(X, Y), expected, rtol=1e-4, atol=1e-6)


def test_a_gradient_of_ones_own_in_arts_classifiers():
    class Mine(JpegCompression):
        def estimate_gradient(self, x, grad):
            return 3 * super().estimate_gradient(x, grad)

    tf = pytest.importorskip("tensorflow")
    from art.estimators.classification import KerasClassifier, TensorFlowV2Classifier

    model = tf.keras.Sequential(
        [tf.keras.Input((6, 5, 3)), tf.keras.layers.Flatten(), tf.keras.layers.Dense(3)]
    )
    loss = tf.keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile(loss=loss)

    def tensorflow(defences):
        return TensorFlowV2Classifier(
            model, 3, (6, 5, 3), loss_object=loss, clip_values=(0, 1), preprocessing_defences=defences
        )

    def keras(defences):
        return KerasClassifier(model, use_logits=True, clip_values=(0, 1), preprocessing_defences=defences)

    for make in (linear, tensorflow, keras):
        expected = 3 * make([JpegCompression((0, 1))]).loss_gradient(X, Y)
        assert np.abs(expected).max() > 0.01
        np.testing.assert_allclose(make([Mine((0, 1))]).loss_gradient(X, Y), expected, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(
            make([Chain([Mine((0, 1))])]).loss_gradient(X, Y), expected, rtol=1e-5, atol=1e-7
        )


def scores(x):
    return np.stack([0.5 - x[:, 0], x[:, 0] - 0.5], axis=1)


def test_evaluate_takes_defences_of_art():
    pytest.importorskip("torch")
    x, y = np.random.default_rng(0).random((12, 4), dtype=np.float32), np.arange(12) % 2
    x[:, 0] = 0.2 + 0.6 * y
    noise, squeeze = Noise(), art.FeatureSqueezing((0, 1), 2)
    state = np.random.get_state()
    report = evaluate(scores, x, y, {"squeeze": squeeze, "noise": noise}, eot=4, budget=3, verbose=False)
    after = np.random.get_state()
    np.testing.assert_array_equal(after[1], state[1])
    assert after[2:] == state[2:]
    ours = evaluate(scores, x, y, {"squeeze": FeatureSqueezing((0, 1), 2)}, eot=4, budget=3, verbose=False)
    for column in set(ours["squeeze"].columns) - {"shared"}:  # which depends on the other rows
        assert report["squeeze"].columns[column].accuracy == ours["squeeze"].columns[column].accuracy
    assert (report["squeeze"].defence.name, report["squeeze"].defence.stochastic) == (
        "FeatureSqueezing",
        False,
    )
    assert report["squeeze"].defence.parameters == {"clip_values": "(0, 1)", "bit_depth": "2"}
    assert report["noise"].defence.stochastic
    again = evaluate(scores, x, y, {"noise": Noise()}, eot=4, budget=3, verbose=False)
    for name in set(again["noise"].columns) - {"shared"}:
        assert again["noise"].columns[name].accuracy == report["noise"].columns[name].accuracy
    assert [row.name for row in evaluate(scores, x, y, squeeze, budget=1, verbose=False).rows] == [
        "none",
        "FeatureSqueezing",
    ]


def test_evaluate_attacks_through_the_gradient_of_art():
    """Squares, through which the identity points the wrong way: negated pixels."""
    torch = pytest.importorskip("torch")

    class Negative(PreprocessorPyTorch):
        def forward(self, x, y=None):
            return 1 - x, y

    x = np.random.default_rng(0).random((16, 6), dtype=np.float32)
    y = np.arange(16) % 2
    x[:, 0] = np.where(y, 0.3, 0.7)
    model = torch.nn.Linear(6, 2)
    with torch.no_grad():
        model.weight[:] = torch.tensor([[-4.0, 0, 0, 0, 0, 0], [4.0, 0, 0, 0, 0, 0]])
        model.bias[:] = torch.tensor([2.0, -2.0])
    report = evaluate(
        model, x, y, {"negative": Negative(device_type="cpu")}, clip_values=(0, 1), budget=10, verbose=False
    )
    adaptive = report["negative"].columns["adaptive"]
    assert report["negative"].columns["clean"].accuracy == 1
    assert adaptive.accuracy == 0
    np.testing.assert_allclose(np.median(adaptive.norms), 0.2, rtol=0.02)  # the distance to the border


def test_evaluate_refuses_what_changes_the_number_of_samples():
    class Twice(Preprocessor):
        def __call__(self, x, y=None):
            return np.concatenate([x, x]), y

    x, y = np.full((6, 4), 0.5, np.float32), np.arange(6) % 2
    with pytest.raises(
        ValueError, match=r"must keep the number of samples, got Twice\(\), which turns 6 into 12"
    ):
        evaluate(scores, x, y, {"twice": Twice()}, verbose=False)
