"""A filter in a model: SciPy between the layers of the original, training, files, ART's classifiers."""

import copy
import io
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, uniform_filter

from preshield import BlurNet
from preshield.neural import feature_blur
from preshield.neural.model_files import load_model

RNG = np.random.default_rng(0)
X = RNG.random((6, 8, 9, 3), dtype=np.float32)
Y = np.arange(6) % 3
FIRST = np.ascontiguousarray(np.moveaxis(X, -1, 1))  # for torch
NUMPY_2 = "ignore:__array__ implementation:DeprecationWarning"  # in the files of Keras


def blurred(maps, kernel_size, kernel):
    """What the filter makes of feature maps (N, H, W, C)."""
    if kernel == "box":
        return uniform_filter(maps, (1, kernel_size, kernel_size, 1), mode="constant")
    sigma = 0.15 * kernel_size + 0.35
    return gaussian_filter(maps, (0, sigma, sigma, 0), mode="constant", radius=kernel_size // 2)


def variation(maps):
    """Sum of the absolute differences of neighbours, averaged over samples and channels."""
    rows, columns = np.abs(np.diff(maps, axis=1)), np.abs(np.diff(maps, axis=2))
    return (rows.sum(axis=(1, 2)) + columns.sum(axis=(1, 2))).mean()


# Two models alike: a convolution, an activation, a second convolution around which the first one's maps pass


@pytest.fixture(scope="module")
def keras():
    keras = pytest.importorskip("keras")
    if keras.config.backend() != "tensorflow":
        pytest.skip("Keras runs on another backend")
    return keras


@pytest.fixture
def keras_model(keras):
    keras.utils.set_random_seed(0)
    layers = keras.layers
    inputs = keras.Input((8, 9, 3))
    first = layers.ReLU(name="relu")(layers.Conv2D(4, 3, padding="same", name="first")(inputs))
    second = layers.Conv2D(4, 3, padding="same", activation="relu", name="second")(first)
    mean = layers.GlobalAveragePooling2D()(layers.Add()([first, second]))
    model = keras.Model(inputs, layers.Dense(3, name="head")(mean))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def keras_expected(model, name, kernel_size, kernel):
    """Outputs for X, layer by layer, with the filter after one convolution."""

    def layer(called, maps):
        out = np.asarray(model.get_layer(called)(maps))
        return blurred(out, kernel_size, kernel) if called == name else out

    first = layer("relu", layer("first", X))
    maps = first + layer("second", first)
    return layer("head", maps.mean(axis=(1, 2)))


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


@pytest.fixture
def torch_model(torch):
    nn = torch.nn

    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Conv2d(3, 4, 3, padding=1)
            self.norm = nn.BatchNorm2d(4)
            self.parts = nn.ModuleDict({"second": nn.Conv2d(4, 4, 3, padding=1)})
            self.head = nn.Linear(4, 3)

        def forward(self, x):
            first = torch.relu(self.norm(self.first(x)))
            return self.head((first + torch.relu(self.parts["second"](first))).mean(dim=(2, 3)))

    torch.manual_seed(0)
    return Residual().eval()


def torch_expected(torch, model, name, kernel_size, kernel):
    def conv(module, maps, filtered):
        out = module(maps).detach().numpy()
        out = np.moveaxis(blurred(np.moveaxis(out, 1, -1), kernel_size, kernel), -1, 1) if filtered else out
        return torch.tensor(out)

    first = torch.relu(model.norm(conv(model.first, torch.tensor(FIRST), name == "first")))
    maps = first + torch.relu(conv(model.parts["second"], first, name == "parts.second"))
    return model.head(maps.mean(dim=(2, 3))).detach().numpy()


CASES = pytest.mark.parametrize(
    ("layer", "kernel_size", "kernel"),
    [(None, 5, "box"), ("first", 3, "gaussian"), ("second", 7, "box"), ("second", 11, "gaussian")],
)


# Keras


@CASES
def test_keras_filters_after_the_convolution(keras_model, layer, kernel_size, kernel):
    before = keras_model(X).numpy()
    new = BlurNet.insert(keras_model, layer, kernel_size, kernel)
    expected = keras_expected(keras_model, layer or "first", kernel_size, kernel)
    np.testing.assert_allclose(new(X).numpy(), expected, atol=1e-5)
    np.testing.assert_array_equal(keras_model(X).numpy(), before)
    assert np.abs(expected - before).max() > 1e-3


def test_keras_shares_weights_and_leaves_a_fixed_filter(keras_model):
    before = keras_model(X).numpy()
    new = BlurNet.insert(keras_model)
    assert [id(v) for v in new.trainable_variables] == [id(v) for v in keras_model.trainable_variables]
    new.trainable = False  # as in fine-tuning, and back
    new.trainable = True
    filters = new.get_layer("first_blur").weight.numpy()
    np.testing.assert_allclose(filters, np.full((5, 5, 4, 1), 1 / 25), rtol=1e-6)
    new.fit(X, Y, epochs=1, verbose=0)  # compiled as the original is
    np.testing.assert_array_equal(new.get_layer("first_blur").weight.numpy(), filters)
    assert np.abs(keras_model(X).numpy() - before).max() > 1e-4
    assert not keras_model.losses
    assert new.optimizer is not keras_model.optimizer


def test_keras_trains_with_the_penalties(keras, keras_model):
    new = BlurNet.insert(keras_model, kernel_size=3, trainable=True, linf=2.0, tv=0.5)
    maps = np.asarray(keras_model.get_layer("first")(X))
    outputs = new(X)
    np.testing.assert_allclose(
        [float(loss) for loss in new.losses], [2 / 9, 0.5 * variation(maps)], rtol=1e-5
    )
    entropy = float(keras.losses.SparseCategoricalCrossentropy(from_logits=True)(Y, outputs))
    loss = new.train_on_batch(X, Y)
    assert float(loss) == pytest.approx(entropy + 2 / 9 + 0.5 * variation(maps), rel=1e-5)
    filters = new.get_layer("first_blur").weight.numpy()
    assert np.ptp(filters, axis=2).max() > 1e-4  # the channels have gone apart
    new.fit(X, Y, epochs=20, verbose=0)
    after = np.asarray(keras_model.get_layer("first")(X))
    assert variation(after) < 0.7 * variation(maps)


def test_keras_norm_of_each_filter(keras):
    layer = feature_blur.keras_layer()(3, learned=True, linf=1.0)
    layer.build((None, None, None, 2))
    weights = np.zeros((3, 3, 2, 1))
    weights[0, 2, 0], weights[1, 1, 1], weights[2, 2, 1] = -5, 2, 1
    layer.weight.assign(weights)
    layer(X[..., :2])
    assert float(layer.losses[0]) == 3.5  # (5 + 2) / 2


def test_keras_channels_first(keras):
    layer = feature_blur.keras_layer()(5, tv=1.0, data_format="channels_first")
    assert layer.compute_output_shape((None, 3, 8, 9)) == (None, 3, 8, 9)
    layer.build((None, 3, 8, 9))
    assert layer.weight.shape == (5, 5, 3, 1)
    assert float(layer.total_variation(FIRST)) == pytest.approx(variation(X), rel=1e-5)


def test_keras_sequential_and_models_within(keras, keras_model):
    layers = keras.layers
    inner = keras.Sequential(
        [keras.Input((8, 9, 3)), layers.Conv2D(3, 3, padding="same", name="conv"), layers.ReLU()],
        name="inner",
    )
    outer = keras.Sequential([keras.Input((8, 9, 3)), layers.Rescaling(2.0), inner, keras_model])
    before = outer(X).numpy()
    new = BlurNet.insert(outer)
    relu = np.maximum(blurred(np.asarray(inner.layers[0](2 * X)), 5, "box"), 0)
    np.testing.assert_allclose(new(X).numpy(), keras_model(relu).numpy(), atol=1e-5)
    assert isinstance(new, keras.Sequential)
    assert new.layers[2] is keras_model
    second = BlurNet.insert(outer, f"{keras_model.name}/second")
    blur = BlurNet.insert(keras_model, "second")
    np.testing.assert_allclose(second(X).numpy(), blur(inner(2 * X)).numpy(), atol=1e-5)
    np.testing.assert_array_equal(outer(X).numpy(), before)


def test_keras_a_convolution_called_twice(keras):
    conv = keras.layers.Conv2D(3, 3, padding="same")
    inputs = {"a": keras.Input((8, 9, 3), name="a"), "b": keras.Input((8, 9, 3), name="b")}
    model = keras.Model(inputs, {"sum": conv(inputs["a"]) + conv(conv(inputs["b"]))})
    new = BlurNet.insert(model)
    once = blurred(np.asarray(conv(X)), 5, "box")
    expected = once + blurred(np.asarray(conv(once)), 5, "box")
    np.testing.assert_allclose(new({"a": X, "b": X})["sum"], expected, atol=1e-5)


def test_keras_a_filter_after_a_filter(keras, keras_model):
    twice = BlurNet.insert(BlurNet.insert(keras_model, kernel_size=3), kernel_size=3)
    assert [layer.name for layer in twice.layers if "blur" in layer.name] == ["first_blur_blur", "first_blur"]
    first, second, head = map(keras_model.get_layer, ("first", "second", "head"))
    maps = np.maximum(blurred(blurred(np.asarray(first(X)), 3, "box"), 3, "box"), 0)
    maps = maps + np.asarray(second(maps))
    np.testing.assert_allclose(twice(X), head(maps.mean(axis=(1, 2))), atol=1e-5)


def test_keras_a_loss_without_a_name(keras_model):
    keras_model.compile("sgd", lambda y, outputs: outputs)
    assert not BlurNet.insert(keras_model).compiled


FRESH = """
import sys, warnings
import numpy as np
from preshield.neural.model_files import load_model
folder = sys.argv[1]
model = load_model(f"{folder}/model.keras")
x = np.load(f"{folder}/x.npy")
np.save(f"{folder}/out.npy", np.asarray(model.predict(x, verbose=0)))
from preshield import BlurNet
new = BlurNet.insert(model, "second", 3, "gaussian", trainable=True, linf=1.0, tv=1.0)
new.compile("sgd", "mse")
losses = [new.train_on_batch(x, np.ones((len(x), 3))) for _ in range(3)]
assert losses[2] < losses[0] - 0.1, losses
assert len(new.trainable_variables) == len(model.trainable_variables) + 1
"""


@pytest.mark.slow
@pytest.mark.filterwarnings(NUMPY_2)
def test_keras_saves_and_loads_in_a_fresh_process_on_another_backend(keras_model, tmp_path):
    pytest.importorskip("jax")
    new = BlurNet.insert(keras_model, trainable=True, linf=2.0, tv=0.5)
    new.fit(X, Y, epochs=2, verbose=0)
    new.save(tmp_path / "model.keras")
    np.save(tmp_path / "x.npy", X)
    loaded = load_model(tmp_path / "model.keras")
    layer = loaded.get_layer("first_blur")
    kept = {"kernel_size": 5, "kernel": "box", "learned": True, "linf": 2.0, "tv": 0.5}
    assert kept.items() <= layer.get_config().items()
    np.testing.assert_allclose(loaded(X).numpy(), new(X).numpy(), rtol=1e-6)
    subprocess.run(
        [sys.executable, "-c", FRESH, str(tmp_path)],
        env={**os.environ, "KERAS_BACKEND": "jax"},
        check=True,
        timeout=120,
    )
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), new(X).numpy(), atol=1e-5)


@pytest.mark.filterwarnings("ignore:.model.compiled_loss:UserWarning:keras")  # ART calls it
@pytest.mark.parametrize("kind", ["KerasClassifier", "TensorFlowV2Classifier"])
def test_keras_in_classifiers_of_art(keras, keras_model, kind):
    classification = pytest.importorskip("art.estimators.classification")
    tf = pytest.importorskip("tensorflow")
    keras_model.compile("sgd", keras.losses.CategoricalCrossentropy(from_logits=True))
    new = BlurNet.insert(keras_model, trainable=True, linf=2.0, tv=0.5)
    if kind == "KerasClassifier":
        classifier = classification.KerasClassifier(new, use_logits=True)
    else:
        classifier = classification.TensorFlowV2Classifier(
            new, 3, X.shape[1:], loss_object=keras.losses.CategoricalCrossentropy(from_logits=True)
        )
    one_hot = np.eye(3, dtype=np.float32)[Y]
    np.testing.assert_allclose(classifier.predict(X), new(X).numpy(), atol=1e-6)
    images = tf.constant(X)
    with tf.GradientTape() as tape:
        tape.watch(images)
        loss = tf.nn.softmax_cross_entropy_with_logits(one_hot, new(images))
    expected = tape.gradient(loss, images).numpy()
    found = classifier.loss_gradient(X, one_hot)
    scale = np.abs(expected).max() / np.abs(found).max()  # a sum or a mean of the losses
    assert round(scale) in (1, len(X))
    np.testing.assert_allclose(found * round(scale), expected, atol=1e-6)


# torch


@CASES
def test_torch_filters_after_the_convolution(torch, torch_model, layer, kernel_size, kernel):
    x = torch.tensor(FIRST)
    before = torch_model(x)
    layer = "parts.second" if layer == "second" else layer
    new = BlurNet.insert(torch_model, layer, kernel_size, kernel)
    expected = torch_expected(torch, torch_model, layer or "first", kernel_size, kernel)
    np.testing.assert_allclose(new(x).detach(), expected, atol=1e-5)
    assert torch.equal(torch_model(x), before)
    assert np.abs(expected - before.detach().numpy()).max() > 1e-3


def test_torch_shares_tensors_and_leaves_a_fixed_filter(torch, torch_model):
    new = BlurNet.insert(torch_model)
    assert [id(p) for p in new.parameters()] == [id(p) for p in torch_model.parameters()]
    assert new.norm.running_mean is torch_model.norm.running_mean
    assert not any(module.training for module in new.modules())
    new.train()
    assert not any(module.training for module in torch_model.modules())
    before = torch_model(torch.tensor(FIRST))
    optimiser = torch.optim.SGD(new.parameters(), lr=0.1)
    torch.nn.functional.cross_entropy(new(torch.tensor(FIRST)), torch.tensor(Y)).backward()
    optimiser.step()
    assert (torch_model(torch.tensor(FIRST)) - before).abs().max() > 1e-4
    np.testing.assert_allclose(new.first[1].weight, np.full((4, 1, 5, 5), 1 / 25), rtol=1e-6)


def test_torch_trains_with_the_penalties(torch, torch_model):
    new = BlurNet.insert(torch_model, kernel_size=3, trainable=True, linf=2.0, tv=0.5).train()
    x, y = torch.tensor(FIRST), torch.tensor(Y)
    maps = np.moveaxis(torch_model.first(x).detach().numpy(), 1, -1)
    assert BlurNet.penalty(new).item() == pytest.approx(2 / 9)  # nothing has passed yet
    new(x)
    expected = 2 / 9 + 0.5 * variation(maps)
    assert BlurNet.penalty(new).item() == pytest.approx(expected, rel=1e-5)
    new.eval()(2 * x)  # is not counted
    assert BlurNet.penalty(new).item() == pytest.approx(expected, rel=1e-5)
    optimiser = torch.optim.SGD(new.train().parameters(), lr=0.01)
    for _ in range(20):
        optimiser.zero_grad()
        (torch.nn.functional.cross_entropy(new(x), y) + BlurNet.penalty(new)).backward()
        optimiser.step()
    after = np.moveaxis(torch_model.first(x).detach().numpy(), 1, -1)
    assert variation(after) < 0.7 * variation(maps)
    assert np.ptp(new.first[1].weight.detach().numpy(), axis=0).max() > 1e-5


def test_torch_norm_of_each_filter(torch):
    blur = feature_blur.torch_module()(2, 3, learned=True, linf=1.0)
    with torch.no_grad():
        blur.weight.zero_()
        blur.weight[0, 0, 0, 2], blur.weight[1, 0, 1, 1], blur.weight[1, 0, 2, 2] = -5, 2, 1
    assert feature_blur.penalty(blur).item() == 3.5  # (5 + 2) / 2
    two = torch.nn.Sequential(blur, copy.deepcopy(blur))
    assert feature_blur.penalty(two).item() == 7


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize("trainable", [False, True])
def test_torch_saves_and_loads(torch, torch_model, trainable):
    x = torch.tensor(FIRST)
    new = BlurNet.insert(torch_model, trainable=trainable, linf=2.0 * trainable, tv=0.5)
    (new.train()(x).sum() + BlurNet.penalty(new)).backward()  # leaves a graph behind
    with torch.no_grad():
        for parameter in new.parameters():
            parameter += 0.1 * torch.rand(parameter.shape)
    other = BlurNet.insert(copy.deepcopy(torch_model), trainable=trainable)
    other.load_state_dict(new.state_dict())
    assert "first.1.weight" in new.state_dict()
    assert "first.1.variation" not in new.state_dict()
    new.eval()
    expected = new(x)
    stored = io.BytesIO()
    torch.save(new.first[1], stored)
    stored.seek(0)
    again = torch.load(stored, weights_only=False)
    assert torch.equal(again(torch_model.first(x)), new.first(x))
    assert type(pickle.loads(pickle.dumps(again))) is feature_blur.torch_module()
    for model in (other.eval(), copy.deepcopy(new), torch.jit.script(new), torch.jit.trace(new, x)):
        torch.testing.assert_close(model(x), expected)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_torch_scripted_models_train(torch, torch_model):
    scripted = torch.jit.script(BlurNet.insert(torch_model, tv=1.0).train())
    scripted(torch.tensor(FIRST)).sum().backward()
    maps = np.moveaxis(torch_model.first(torch.tensor(FIRST)).detach().numpy(), 1, -1)
    assert getattr(scripted.first, "1").variation.item() == pytest.approx(variation(maps), rel=1e-5)


def test_torch_the_convolution_alone_and_twice(torch):
    conv = torch.nn.Conv2d(3, 3, 3, padding=1, dtype=torch.float64).requires_grad_(False)
    x = torch.tensor(FIRST, dtype=torch.float64)

    def filtered(maps):
        return np.moveaxis(blurred(np.moveaxis(conv(maps).numpy(), 1, -1), 5, "box"), -1, 1)

    once = filtered(x)
    np.testing.assert_allclose(BlurNet.insert(conv)(x), once, atol=1e-12)
    twice = torch.nn.ModuleDict({"a": conv, "b": torch.nn.Sequential(conv, torch.nn.ReLU(), conv)})
    new = BlurNet.insert(twice)
    np.testing.assert_allclose(new["a"](x), once, atol=1e-12)
    relu = torch.tensor(np.maximum(once, 0))
    np.testing.assert_allclose(new["b"](x), filtered(relu), atol=1e-12)
    assert type(twice["a"]) is torch.nn.Conv2d


def test_torch_a_filter_after_a_filter(torch, torch_model):
    first = BlurNet.insert(torch_model, kernel_size=3)
    second = BlurNet.insert(first, "parts.second", kernel_size=3)
    assert second.first[1].weight is first.first[1].weight
    assert [name for name, _ in second.named_buffers() if name.endswith("1.weight")] == [
        "first.1.weight",
        "parts.second.1.weight",
    ]


def test_torch_in_classifiers_of_art(torch, torch_model):
    classification = pytest.importorskip("art.estimators.classification")
    new = BlurNet.insert(torch_model, trainable=True, linf=2.0, tv=0.5)
    classifier = classification.PyTorchClassifier(
        new, torch.nn.CrossEntropyLoss(), FIRST.shape[1:], 3, device_type="cpu"
    )
    np.testing.assert_allclose(classifier.predict(FIRST), new(torch.tensor(FIRST)).detach(), atol=1e-6)
    x = torch.tensor(FIRST, requires_grad=True)
    torch.nn.functional.cross_entropy(new(x), torch.tensor(Y)).backward()
    np.testing.assert_allclose(classifier.loss_gradient(FIRST, np.eye(3)[Y]), x.grad, atol=1e-6)


# What is refused


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"kernel_size": 4}, ValueError, "`kernel_size` must be odd.*got 4; take 3 or 5"),
        ({"kernel_size": 0}, ValueError, "`kernel_size` must be at least 1, got 0"),
        ({"kernel": "mean"}, ValueError, "`kernel` must be one of 'box', 'gaussian', got 'mean'"),
        ({"trainable": 1}, TypeError, "`trainable` must be True or False, got 1"),
        ({"trainable": True, "linf": -1}, ValueError, "`linf` must be at least 0, got -1"),
        ({"tv": -0.1}, ValueError, "`tv` must be at least 0, got -0.1"),
        ({"tv": "much"}, TypeError, "`tv` must be a number, got 'much'"),
        ({"linf": 0.1}, ValueError, "`linf` must be 0 for filters that are not trained, got 0.1; pass"),
        ({}, TypeError, "`model` must be a Keras model or a torch module, got builtins.str"),
    ],
)
def test_bad_parameters(parameters, error, message):
    with pytest.raises(error, match=message):
        BlurNet.insert("model", **parameters)


def test_refused_keras_models(keras, keras_model):
    with pytest.raises(ValueError, match="must be one of the convolutions 'first', 'second', got 'third'"):
        BlurNet.insert(keras_model, "third")
    with pytest.raises(ValueError, match="must be one of the convolutions 'first', 'second', got 'relu'"):
        BlurNet.insert(keras_model, "relu")
    dense = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="`model` must have a two-dimensional convolution, got a Sequential"):
        BlurNet.insert(dense)

    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.conv = keras.layers.Conv2D(3, 3)

        def call(self, x):
            return self.conv(x)

    for model in (Own(), keras.Sequential([keras.Input((8, 9, 3)), Own()])):
        with pytest.raises(
            ValueError, match=r"functional or a Sequential.*got an instance of Own.*keras_layer"
        ):
            BlurNet.insert(model)

    class Doubled(keras.Sequential):
        def call(self, x, **kwargs):
            return 2 * super().call(x, **kwargs)

    class Trains(keras.Model):
        def train_step(self, data):
            return {}

    conv = keras.layers.Conv2D(3, 3, padding="same", name="conv")
    doubled = Doubled([keras.Input((8, 9, 3)), conv])
    trains = Trains(keras_model.inputs, keras_model.outputs)
    for model in (doubled, keras.Sequential([keras.Input((8, 9, 3)), doubled]), trains):
        with pytest.raises(
            ValueError, match=r"functional or a Sequential.*instance of (Doubled|Trains), whose"
        ):
            BlurNet.insert(model)
    first = keras.layers.Conv2D(3, 3, padding="same", name="first")
    assert BlurNet.insert(keras.Sequential([keras.Input((8, 9, 3)), first, doubled]))
    with pytest.raises(ValueError, match=r"`model` must be built, got the Sequential 'new' .*model.build"):
        BlurNet.insert(keras.Sequential([keras.layers.Conv2D(3, 3)], name="new"))
    with pytest.raises(TypeError, match=r"`model` must be a torch module, got a Keras model.*`model.losses`"):
        BlurNet.penalty(keras_model)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning", "ignore:`torch.nn.utils:FutureWarning")
def test_refused_torch_models(torch, torch_model):
    normed = torch.nn.Sequential(torch.nn.utils.weight_norm(torch.nn.Conv2d(3, 2, 3)))
    with pytest.raises(
        ValueError, match=r"copy.deepcopy .* in the place of torch.nn.utils.weight_norm, take"
    ):
        BlurNet.insert(normed)
    new = torch.nn.Sequential(torch.nn.utils.parametrizations.weight_norm(torch.nn.Conv2d(3, 2, 3)))
    assert BlurNet.insert(new)(torch.tensor(FIRST)).shape == (6, 2, 6, 7)
    with pytest.raises(ValueError, match=r"one of the convolutions 'first', 'parts.second', got 'second'"):
        BlurNet.insert(torch_model, "second")
    with pytest.raises(ValueError, match="must have a two-dimensional convolution, got a Linear without one"):
        BlurNet.insert(torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"must not be scripted or traced.*do it afterwards"):
        BlurNet.insert(torch.jit.script(torch_model))
    with pytest.raises(ValueError, match=r"must hold a filter, got a Residual.*BlurNet.insert"):
        BlurNet.penalty(torch_model)


@pytest.mark.parametrize(("function", "extra"), [("keras_layer", "tensorflow"), ("torch_module", "torch")])
def test_without_the_framework(monkeypatch, function, extra):
    missing = "keras" if extra == "tensorflow" else "torch"
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=rf'pip install "preshield\[{extra}\]"'):
        getattr(feature_blur, function).__wrapped__()


def test_other_names_are_not_there():
    with pytest.raises(AttributeError, match="has no attribute 'FeatureSharpen'"):
        feature_blur.FeatureSharpen  # noqa: B018
