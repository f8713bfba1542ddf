"""Class-activation maps, of one class and of several."""

import copy
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preshield import CAM, RobustActivationMap
from preshield.neural.activation_maps import normalised, resized
from preshield.neural.layers import convolution, convolutions, framework_of
from preshield.neural.locks import LOCKS

torch = pytest.importorskip("torch")
nn = torch.nn
F = nn.functional

RNG = np.random.default_rng(0)
X = RNG.random((5, 24, 20, 3), dtype=np.float32)
CHANNELS_FIRST = np.ascontiguousarray(X.transpose(0, 3, 1, 2))
KERNELS = [RNG.standard_normal(shape).astype(np.float32) / 3 for shape in ((3, 3, 3, 6), (3, 3, 6, 8))]
DENSE = RNG.standard_normal((8, 7)).astype(np.float32)
BIAS = RNG.standard_normal(7).astype(np.float32)


@pytest.fixture(scope="module")
def keras():
    pytest.importorskip("tensorflow")
    return pytest.importorskip("keras")


def pooled(activation=None):
    """A torch classifier with the weights above: convolutions, global average pooling, a dense layer."""
    parts = [nn.Conv2d(3, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3, bias=False), nn.ReLU()]
    parts += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 7)]
    model = nn.Sequential(*parts, *([activation] if activation else []))
    with torch.no_grad():
        for layer, kernel in zip((model[0], model[3]), KERNELS, strict=True):
            layer.weight.copy_(torch.from_numpy(kernel.transpose(3, 2, 0, 1)))
        model[0].bias.zero_()
        model[7].weight.copy_(torch.from_numpy(DENSE.T))
        model[7].bias.copy_(torch.from_numpy(BIAS))
    return model


def pooled_keras(keras, activation=None):
    """The same for Keras."""
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((24, 20, 3)),
            layers.Conv2D(6, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(8, 3, use_bias=False),
            layers.ReLU(),
            layers.GlobalAveragePooling2D(),
            layers.Dense(7, activation=activation),
        ]
    )
    model.set_weights([KERNELS[0], np.zeros(6, np.float32), KERNELS[1], DENSE, BIAS])
    return model


def features():
    """Feature maps of the last convolution, shape (N, C, h, w), and the scores."""
    with torch.no_grad():
        maps = pooled()[:5](torch.from_numpy(CHANNELS_FIRST)).numpy()
    return maps, maps.mean(axis=(2, 3)) @ DENSE + BIAS


def weighted(classes):
    """The definition: feature maps, weighted by the dense layer; then scaled to [0, 1]."""
    maps, _ = features()
    return scaled(np.einsum("nchw,cn->nhw", maps, DENSE[:, classes]))


def scaled(maps):
    low, high = maps.min((1, 2), keepdims=True), maps.max((1, 2), keepdims=True)
    return (maps - low) / (high - low)


def enlarged(maps, size=(24, 20)):
    """An independent resize."""
    transform = pytest.importorskip("skimage.transform")
    return np.stack([transform.resize(m, size, order=1, mode="edge", anti_aliasing=False) for m in maps])


# Worked out by hand


def tiny():
    """Two feature maps, relu(x) and relu(-x), and three classes."""
    model = nn.Sequential(
        nn.Conv2d(1, 2, 1, bias=False), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3)
    )
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([1.0, -1.0]).reshape(2, 1, 1, 1))
        model[4].weight.copy_(torch.tensor([[2.0, 0.0], [1.0, 1.0], [-1.0, 0.5]]))
        model[4].bias.copy_(torch.tensor([0.0, 0.5, 0.0]))
    return model


IMAGE = np.array([[[[4.0, 2.0], [0.0, -1.0]]]], np.float32)
# Feature maps [[4, 2], [0, 0]] and [[0, 0], [0, 1]]; means 1.5 and 0.25; scores 3, 2.25, -1.375.


def test_the_map_of_the_predicted_class():
    np.testing.assert_allclose(CAM(tiny())(IMAGE), [[[1, 0.5], [0, 0]]])


def test_the_map_of_a_given_class():
    np.testing.assert_allclose(CAM(tiny())(IMAGE, [1]), [[[1, 0.5], [0, 0.25]]])
    # -[[4, 2], [0, 0]] + [[0, 0], [0, 0.5]] lies between -4 and 0.5.
    np.testing.assert_allclose(CAM(tiny())(IMAGE, [2]), [[[0, 2 / 4.5], [4 / 4.5, 1]]], rtol=1e-6)


def test_the_geometric_mean():
    # Of [[1, 0.5], [0, 0]] and [[1, 0.5], [0, 0.25]], then of those and [[0, 4/9], [8/9, 1]].
    np.testing.assert_allclose(RobustActivationMap(tiny(), k=2)(IMAGE), [[[1, 0.5], [0, 0]]])
    np.testing.assert_allclose(RobustActivationMap(tiny(), k=3)(IMAGE), [[[0, 1], [0, 0]]])


def test_the_geometric_mean_of_two_different_maps():
    model = tiny()
    with torch.no_grad():
        model[4].weight.copy_(torch.tensor([[1.0, 8.0], [1.0, 1.0], [0.0, 0.0]]))
        model[4].bias.copy_(torch.tensor([5.0, 6.0, -9.0]))
    # Maps [[4, 2], [0, 8]] / 8 and [[4, 2], [0, 1]] / 4; their product [[4, 1], [0, 2]] / 8.
    expected = np.sqrt([[[4, 1], [0, 2]]]) / 2
    np.testing.assert_allclose(RobustActivationMap(model, k=2)(IMAGE), expected, rtol=1e-6)


def test_a_constant_map_is_zero():
    constant = np.full((2, 1, 3, 3), 0.7, np.float32)
    constant[1, 0, 1, 1] = 2
    for maps in (CAM(tiny())(constant), RobustActivationMap(tiny(), k=2)(constant)):
        assert not maps[0].any()
        assert maps[1].max() == 1
    assert not CAM(tiny())(-np.ones((1, 1, 3, 3), np.float32), [0]).any()


# The definition


def test_cam_is_the_dense_layer_over_the_feature_maps():
    _, scores = features()
    expected = scaled(enlarged(weighted(scores.argmax(1))))
    maps = CAM(pooled())(CHANNELS_FIRST)
    assert maps.dtype == np.float32
    np.testing.assert_allclose(maps, expected, atol=1e-5)
    y = np.array([0, 6, 2, 3, 1])
    np.testing.assert_allclose(CAM(pooled())(CHANNELS_FIRST, y), scaled(enlarged(weighted(y))), atol=1e-5)


@pytest.mark.parametrize("k", [1, 3, 7])
def test_robust_map_is_the_geometric_mean_of_the_likeliest_classes(k):
    _, scores = features()
    classes = np.argsort(scores, axis=1)[:, ::-1][:, :k]
    mean = np.prod([weighted(row) for row in classes.T], axis=0) ** (1 / k)
    maps = RobustActivationMap(pooled(), k)(CHANNELS_FIRST)
    np.testing.assert_allclose(maps, scaled(enlarged(mean)), atol=1e-5)


def test_one_class_is_cam():
    np.testing.assert_array_equal(
        RobustActivationMap(pooled(), k=1)(CHANNELS_FIRST), CAM(pooled())(CHANNELS_FIRST)
    )


class Functional(nn.Module):
    """The network above, with functions in place of layers and a frozen first part."""

    def __init__(self, way):
        super().__init__()
        self.body, self.way = pooled(), way

    def forward(self, x):
        with torch.no_grad():
            x = F.max_pool2d(torch.relu(self.body[0](x)), 2)
            x = self.body[3](x)
            if self.way == "out of place":
                x = F.relu(x)
            elif self.way == "in place":
                x = F.relu(x, inplace=True)
            else:
                x = x * (x > 0)
        return self.body[7](x.mean(dim=(2, 3)))


@pytest.mark.parametrize("way", ["out of place", "in place", "by hand"])
def test_activations_that_are_no_layers_are_seen(way):
    for view in (CAM, RobustActivationMap):
        np.testing.assert_allclose(
            view(Functional(way))(CHANNELS_FIRST), view(pooled())(CHANNELS_FIRST), atol=1e-6
        )


@pytest.mark.parametrize("softmax", [nn.Softmax(dim=1), nn.LogSoftmax(dim=1)])
def test_a_softmax_at_the_end_makes_no_difference(softmax):
    np.testing.assert_allclose(
        RobustActivationMap(pooled(softmax))(CHANNELS_FIRST),
        RobustActivationMap(pooled())(CHANNELS_FIRST),
        atol=1e-6,
    )


class Residual(nn.Module):
    """A convolution, batch normalisation, a sum in place, an activation; then pooling and a dense layer."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, padding=1)
        self.norm, self.relu, self.dense = nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Linear(4, 5)

    def maps(self, x):
        x = self.relu(self.first(x))
        out = self.norm(self.last(x))
        out += x
        return self.relu(out)

    def forward(self, x):
        return self.dense(self.maps(x).mean((2, 3)))


def test_the_maps_go_through_normalisation_and_a_residual_sum():
    torch.manual_seed(0)
    model = Residual().eval()
    with torch.no_grad():
        maps = model.maps(torch.from_numpy(CHANNELS_FIRST)).numpy()
        expected = np.einsum("nchw,c->nhw", maps, model.dense.weight[3].numpy())
    np.testing.assert_allclose(CAM(model)(CHANNELS_FIRST, [3] * 5), scaled(expected), atol=1e-5)


def test_the_maps_of_an_earlier_convolution_end_at_the_next():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 4, 3, padding=1), nn.Tanh()]
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(1920, 5))
    x = torch.from_numpy(CHANNELS_FIRST)
    maps = model[:2](x).detach().requires_grad_()
    (grad,) = torch.autograd.grad(model[2:](maps)[:, 2].sum(), maps)
    expected = (maps * grad.mean((2, 3), keepdim=True)).sum(1).detach().numpy()
    np.testing.assert_allclose(CAM(model, "0")(CHANNELS_FIRST, [2] * 5), scaled(expected), atol=1e-4)


# Keras


def test_frameworks_agree(keras):
    model = pooled_keras(keras)
    np.testing.assert_allclose(CAM(model)(X), CAM(pooled())(CHANNELS_FIRST), atol=1e-5)
    np.testing.assert_allclose(
        RobustActivationMap(model, 3)(X), RobustActivationMap(pooled(), 3)(CHANNELS_FIRST), atol=1e-5
    )
    y = np.array([0, 6, 2, 3, 1])
    name = model.layers[0].name
    np.testing.assert_allclose(CAM(model, name)(X, y), CAM(pooled(), "0")(CHANNELS_FIRST, y), atol=1e-5)


def test_frameworks_agree_on_other_heads(keras):
    """Grad-CAM: a flattened head, whose weights stand in another order."""
    weight = RNG.standard_normal((3, 3, 8, 7)).astype(np.float32)
    ours = nn.Sequential(*pooled()[:5], nn.MaxPool2d((3, 2)), nn.Flatten(), nn.Linear(72, 7, bias=False))
    with torch.no_grad():
        ours[7].weight.copy_(torch.from_numpy(weight.transpose(3, 2, 0, 1).reshape(7, 72)))
    layers = keras.layers
    head = [layers.MaxPooling2D((3, 2)), layers.Flatten(), layers.Dense(7, use_bias=False)]
    theirs = keras.Sequential([keras.Input((24, 20, 3)), *pooled_keras(keras).layers[:4], *head])
    theirs.layers[-1].set_weights([weight.reshape(72, 7)])
    np.testing.assert_allclose(CAM(theirs)(X), CAM(ours)(CHANNELS_FIRST), atol=1e-5)


def test_keras_softmax_makes_no_difference(keras):
    expected = RobustActivationMap(pooled_keras(keras))(X)
    plain = pooled_keras(keras)
    layered = [
        keras.Sequential([plain, last])
        for last in (keras.layers.Softmax(), keras.layers.Activation("softmax"))
    ]
    for model in (pooled_keras(keras, "softmax"), *layered):
        np.testing.assert_allclose(RobustActivationMap(model)(X), expected, atol=1e-6)


def test_keras_models_within_models(keras):
    """The convolution in a model in a model; the layers keep their one place in the graph."""
    expected = CAM(pooled_keras(keras))(X)
    parts = pooled_keras(keras).layers
    image = keras.Input((24, 20, 3))
    inner = keras.Sequential([image, *parts[:4]], name="inner")
    base = keras.Model(image, inner(image), name="base")
    inputs = keras.Input((24, 20, 3))
    scores = keras.Sequential(parts[4:], name="head")(base(inputs))
    model = keras.Model(inputs, scores)
    assert list(convolutions(model)) == [f"base/inner/{part.name}" for part in (parts[0], parts[2])]
    np.testing.assert_allclose(CAM(model)(X), expected, atol=1e-6)
    again = keras.Sequential(
        [keras.Input((24, 20, 3)), *base.layers[1:], keras.layers.Rescaling(1.0), *parts[4:]]
    )
    np.testing.assert_allclose(CAM(again)(X), expected, atol=1e-6)


def test_keras_graphs_with_branches(keras):
    layers = keras.layers
    inputs = keras.Input((24, 20, 3))
    first = layers.Conv2D(4, 1, activation="relu")(inputs)
    last = layers.Conv2D(4, 3, padding="same", name="last")(first)
    joined = layers.ReLU()(layers.Add()([first, layers.BatchNormalization()(last)]))
    dense = layers.Dense(5)
    model = keras.Model(inputs, dense(keras.ops.mean(joined, axis=(1, 2))))
    maps = keras.Model(inputs, joined)(X).numpy()
    kernel = dense.kernel.numpy()
    np.testing.assert_allclose(CAM(model)(X, [3] * 5), scaled(maps @ kernel[:, 3]), atol=1e-5)
    assert model.get_layer("last").output.shape == (None, 24, 20, 4)


@pytest.mark.slow
def test_keras_on_torch():
    pytest.importorskip("keras")
    code = """
import numpy as np
import keras, torch
from preshield import CAM, RobustActivationMap
from tests.neural.test_activation_maps import CHANNELS_FIRST, X, pooled, pooled_keras
model = pooled_keras(keras, "softmax")
with torch.no_grad():
    maps = CAM(model)(X), RobustActivationMap(model, 3)(X)
with torch.inference_mode():
    np.testing.assert_array_equal(CAM(model)(X), maps[0])
theirs = CAM(pooled())(CHANNELS_FIRST), RobustActivationMap(pooled(), 3)(CHANNELS_FIRST)
np.testing.assert_allclose(maps, theirs, atol=1e-5)
assert all(v.value.grad is None and v.value.requires_grad for v in model.trainable_variables)
"""
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "KERAS_BACKEND": "torch"})


def test_keras_backends_without_gradients_are_refused(keras, monkeypatch):
    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    with pytest.raises(ValueError, match=r"runs on the Keras backend 'jax'; .* KERAS_BACKEND=tensorflow"):
        CAM(pooled_keras(keras))


# Nothing is changed


def mixed():
    """A torch model of which a part trains, another is frozen."""
    model = nn.Sequential(pooled()[:3], nn.BatchNorm2d(6), nn.Dropout(0.5), pooled()[3:]).train()
    model[1].eval()
    model[0].requires_grad_(False)
    return model


@pytest.mark.parametrize("context", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_a_torch_model_is_left_as_it_was(context):
    model = mixed()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    flags = [module.training for module in model.modules()]
    x = CHANNELS_FIRST.copy()
    x.flags.writeable = False
    with context():
        maps = RobustActivationMap(model, 3)(x)
        assert torch.is_grad_enabled() == (context is torch.enable_grad)
    assert maps.any()
    assert [module.training for module in model.modules()] == flags
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert [p.requires_grad for p in model.parameters()] == [False] * 2 + [True] * 5
    assert all(p.grad is None for p in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


def test_a_torch_model_is_left_as_it_was_after_an_error():
    model = mixed()
    message = r"channels.*\nRaised by `model`, which takes images \(N, C, H, W\), for .* \(5, 2, 24, 20\)"
    with pytest.raises(RuntimeError, match=message):  # the model's own
        CAM(model)(CHANNELS_FIRST[:, :2])
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())


def test_a_model_that_trains_is_seen_in_inference_mode():
    np.testing.assert_array_equal(CAM(mixed())(CHANNELS_FIRST), CAM(mixed().eval())(CHANNELS_FIRST))


def test_a_keras_model_is_left_as_it_was(keras):
    model = keras.Sequential([*pooled_keras(keras).layers[:4], keras.layers.BatchNormalization()])
    model.add(keras.layers.Dropout(0.5))
    model.add(keras.layers.Flatten())
    model.add(keras.layers.Dense(3))
    model.build((None, 24, 20, 3))
    weights = model.get_weights()
    expected = model.predict(X, verbose=0)
    x = X.copy()
    x.flags.writeable = False
    assert RobustActivationMap(model, 3)(x).any()
    for before, after in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    np.testing.assert_array_equal(model.predict(X, verbose=0), expected)


def test_threads_may_share_a_model():
    """What another thread computes with the model meanwhile is its own."""
    view = CAM(pooled().eval())
    batches = [np.roll(CHANNELS_FIRST, i, axis=0) for i in range(24)]
    expected = [view(batch) for batch in batches]
    with ThreadPoolExecutor(4) as pool, torch.no_grad():
        found = list(pool.map(view, batches))
    np.testing.assert_array_equal(found, expected)


def test_threads_may_share_a_model_that_trains():
    model = nn.Sequential(pooled()[:3], nn.Dropout(0.5), pooled()[3:]).train()
    view = CAM(model)
    expected = view(CHANNELS_FIRST)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(view, [CHANNELS_FIRST] * 100))
    np.testing.assert_array_equal(found, [expected] * 100)
    assert all(module.training for module in model.modules())


def test_a_model_may_make_maps_of_its_own():
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = pooled()

        def forward(self, x):
            return self.body(x * torch.from_numpy(CAM(self.body)(x))[:, None])

    masked = CHANNELS_FIRST * CAM(pooled())(CHANNELS_FIRST)[:, None]
    np.testing.assert_allclose(CAM(Masked())(CHANNELS_FIRST), CAM(pooled())(masked), atol=1e-6)


@pytest.mark.filterwarnings(r"ignore:os\.fork\(\) was called:RuntimeWarning")  # of JAX
@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes cannot fork")
def test_a_forked_process_does_not_wait_for_a_lock_of_its_parent():
    with LOCKS.flags:
        child = os.fork()
        if not child:
            thread = threading.Thread(target=LOCKS.flags.acquire, daemon=True)
            thread.start()
            thread.join(5)
            os._exit(thread.is_alive())
        assert os.waitpid(child, 0)[1] == 0


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras
def test_copies(keras):
    for model, x in ((pooled(), CHANNELS_FIRST), (pooled_keras(keras), X)):
        view = RobustActivationMap(model, 3)
        np.testing.assert_array_equal(copy.deepcopy(view)(x), view(x))


# Batches, tensors, sizes


def test_batches_make_no_difference(keras):
    for model, x in ((pooled(), CHANNELS_FIRST), (pooled_keras(keras), X)):
        for whole, parts in (
            (CAM(model), CAM(model, batch_size=2)),
            (RobustActivationMap(model), RobustActivationMap(model, batch_size=2)),
        ):
            np.testing.assert_allclose(parts(x), whole(x), atol=1e-6)
        y = [0, 6, 2, 3, 1]
        np.testing.assert_allclose(CAM(model, batch_size=2)(x, y), CAM(model)(x, y), atol=1e-6)


def test_tensors_of_any_framework(keras):
    tf = pytest.importorskip("tensorflow")
    expected = CAM(pooled())(CHANNELS_FIRST)
    assert isinstance(expected, np.ndarray)
    for x in (torch.from_numpy(CHANNELS_FIRST).requires_grad_(), tf.constant(CHANNELS_FIRST)):
        np.testing.assert_array_equal(CAM(pooled())(x), expected)
    model = pooled_keras(keras)
    np.testing.assert_array_equal(CAM(model)(torch.from_numpy(X)), CAM(model)(tf.constant(X)))


def test_no_images():
    assert RobustActivationMap(tiny(), k=2)(np.zeros((0, 1, 4, 6), np.float32)).shape == (0, 4, 6)


def test_half_precision():
    model = pooled().to(torch.bfloat16)
    np.testing.assert_allclose(CAM(model)(CHANNELS_FIRST), CAM(pooled())(CHANNELS_FIRST), atol=0.1)


@pytest.mark.parametrize("size", [(4, 6), (8, 9), (7, 5), (3, 2), (1, 1), (40, 3)])
def test_resizing(size):
    maps = RNG.random((3, 4, 6))
    np.testing.assert_allclose(resized(maps, size), enlarged(maps, size), atol=1e-12)


@given(st.lists(st.integers(-50, 50), min_size=6, max_size=6), st.sampled_from([1e-6, 1.0, 1e6]))
def test_normalised(values, unit):
    maps = np.array(values, float).reshape(1, 2, 3)
    found = normalised(maps * unit)
    if len(set(values)) == 1:
        assert not found.any()
    else:
        assert (found.min(), found.max()) == (0, 1)
        np.testing.assert_allclose(found * np.ptp(maps) + maps.min(), maps, atol=1e-9)


def test_rounding_is_no_map():
    maps = np.full((1, 2, 2), 0.3)
    maps[0, 0, 0] += 1e-8
    assert not normalised(maps).any()


# Layers


def test_convolutions(keras):
    assert list(convolutions(pooled())) == ["0", "3"]
    found = convolutions(
        keras.Sequential([keras.Input((8, 8, 3)), keras.layers.SeparableConv2D(2, 3, name="s")])
    )
    assert list(found) == ["s"]
    model = pooled()
    assert convolution(model) == ("3", model[3])
    assert convolution(model, which="first") == ("0", model[0])
    assert convolution(model, "0") == ("0", model[0])


def test_what_a_model_is(keras):
    assert framework_of(pooled()) == "torch"
    assert framework_of(pooled_keras(keras)) == "keras"
    with pytest.raises(
        TypeError, match=r"`classifier` must be a Keras model or a torch module, got builtins.int"
    ):
        framework_of(3, "classifier")


# Bad input


@pytest.mark.parametrize("view", [CAM, RobustActivationMap])
def test_refused_models(view, keras):
    with pytest.raises(
        TypeError, match=r"must be a Keras model or a torch module, got .*ndarray; .* `.model`"
    ):
        view(X)
    with pytest.raises(ValueError, match="must have a two-dimensional convolution, got a Linear without one"):
        view(nn.Linear(3, 2))
    with pytest.raises(ValueError, match="`layer` must be one of the convolutions '0', '3', got '1'"):
        view(pooled(), layer="1")
    with pytest.raises(ValueError, match="`batch_size` must be at least 1, got 0"):
        view(pooled(), batch_size=0)

    class Own(keras.Model):
        def __init__(self):
            super().__init__(name="own")
            self.conv = keras.layers.Conv2D(2, 3)

        def call(self, x):
            return self.conv(x)

    with pytest.raises(
        ValueError, match=r"functional or sequential, .* got 'own' of the class Own with .* build it as"
    ):
        view(Own())
    with pytest.raises(ValueError, match="got 'own' of the class Own"):
        view(keras.Sequential([keras.Input((8, 8, 3)), Own(), keras.layers.Flatten()]))

    class Negative(keras.Model):
        def call(self, x):
            return -super().call(x)

    class Named(keras.Sequential):
        pass

    plain = pooled_keras(keras)
    negative = Negative(plain.inputs, plain.outputs, name="negative")
    for model in (negative, keras.Sequential([keras.Input((24, 20, 3)), negative])):
        with pytest.raises(ValueError, match="got 'negative' of the class Negative with a `call` of its own"):
            view(model)
    np.testing.assert_array_equal(view(Named([keras.Input((24, 20, 3)), *plain.layers]))(X), view(plain)(X))


class Unused(nn.Module):
    def __init__(self, called):
        super().__init__()
        self.conv, self.dense, self.called = nn.Conv2d(3, 2, 3), nn.Linear(3, 4), called

    def forward(self, x):
        if self.called:
            self.conv(x)
        return self.dense(x.mean((2, 3)))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(nn.Conv2d(3, 2, 3)), r"one score per class, shape \(N, K\), got \(5, 2, 22, 18\)"),
        (Unused(called=False), "does not use its convolution 'conv'; name another"),
        (Unused(called=True), "scores that do not depend on its convolution 'conv'; name another"),
    ],
)
def test_models_that_do_not_fit(model, message):
    with pytest.raises(ValueError, match=message):
        CAM(model)(CHANNELS_FIRST)


def test_refused_k():
    with pytest.raises(ValueError, match="`k` must be at least 1, got 0"):
        RobustActivationMap(pooled(), 0)
    with pytest.raises(TypeError, match=r"`k` must be an integer, got 2.5"):
        RobustActivationMap(pooled(), 2.5)
    with pytest.raises(ValueError, match="`k` must be at most 7, the number of scores of `model`, got 8"):
        RobustActivationMap(pooled(), 8)(CHANNELS_FIRST)


def test_refused_images(keras):
    for view in (CAM, RobustActivationMap):
        with pytest.raises(
            ValueError, match=r"`x` must be a 4-D image batch \(NCHW\), got shape \(3, 24, 20\)"
        ):
            view(pooled())(CHANNELS_FIRST[0])
        with pytest.raises(ValueError, match="must be finite, got 1440 NaN"):
            view(pooled())(CHANNELS_FIRST[:1] * np.nan)
        with pytest.raises(ValueError, match=r"Raised by .* images \(N, H, W, C\), for .* \(1, 3, 24, 24\)"):
            view(pooled_keras(keras))(np.zeros((1, 3, 24, 24), np.float32))


def test_any_number_of_channels():
    model = nn.Sequential(nn.Conv2d(8, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    assert CAM(model)(RNG.random((2, 8, 8, 3), dtype=np.float32)).shape == (2, 8, 3)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([0, 1], r"one class index for each of the 5 images, shape \(5,\), got shape \(2,\)"),
        ([[0]] * 5, r"one class index for each of the 5 images, shape \(5,\), got shape \(5, 1\)"),
        ([0.0] * 5, "class indices as integers, got dtype float64"),
        ([0, 1, 2, 3, -1], "class indices from 0 on, got -1"),
    ],
)
def test_refused_classes(y, message):
    with pytest.raises(ValueError, match=f"`y` must hold {message}"):
        CAM(pooled())(CHANNELS_FIRST, y)


def test_no_classes_for_no_images():
    assert CAM(pooled())(CHANNELS_FIRST[:0], []).shape == (0, 24, 20)


def test_refused_class_that_the_model_has_not():
    with pytest.raises(ValueError, match=r"`y` must hold classes below 7, .* got 7"):
        CAM(pooled())(CHANNELS_FIRST, [0, 1, 2, 3, 7])


def test_repr():
    assert repr(CAM(pooled())) == "CAM(Sequential, layer='3')"
    assert repr(RobustActivationMap(pooled(), 2)) == "RobustActivationMap(Sequential, k=2, layer='3')"


# Floating types, and what models return


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_a_torch_model_is_given_its_own_floating_type(kind):
    model = pooled(nn.Softmax(dim=1)).to(kind)
    maps = CAM(model)(CHANNELS_FIRST, np.arange(5))
    assert maps.dtype == np.float32
    tolerance = 1e-5 if kind == torch.float64 else 0.06
    np.testing.assert_allclose(maps, CAM(pooled())(CHANNELS_FIRST, np.arange(5)), atol=tolerance)
    assert np.isfinite(RobustActivationMap(model, 3)(torch.from_numpy(CHANNELS_FIRST).to(kind))).all()


@pytest.mark.parametrize("kind", ["float16", "mixed_float16", "bfloat16", "float64"])
def test_keras_models_of_every_policy(keras, kind):
    before = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy(kind)
        model = pooled_keras(keras)
    finally:
        keras.config.set_dtype_policy(before)
    maps = CAM(model)(X, np.arange(5))
    assert maps.dtype == np.float32
    np.testing.assert_allclose(maps, CAM(pooled())(CHANNELS_FIRST, np.arange(5)), atol=0.06)


class Record(dict):
    @property
    def logits(self):
        return self["logits"]


@pytest.mark.parametrize(
    "form",
    [lambda s: {"out": s, "aux": s[:, :2]}, lambda s: (s, None), lambda s: Record(logits=s, loss=0)],
    ids=["mapping", "tuple", "record"],
)
def test_scores_within_what_a_model_returns(form):
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = pooled(nn.Softmax(dim=1))

        def forward(self, x):
            return form(self.inner(x))

    np.testing.assert_array_equal(CAM(Wrapped())(CHANNELS_FIRST), CAM(pooled())(CHANNELS_FIRST))


def test_errors_of_a_model_are_its_own():
    error = KeyError("weights")

    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            raise error

    with pytest.raises(KeyError, match="Raised by `model`, which takes images") as caught:
        CAM(Broken())(CHANNELS_FIRST)
    assert caught.value is error
