"""Defences as modules of torch and layers of Keras, in models that are trained, saved and loaded."""

import copy
import io
import os
import pickle
import re
import subprocess
import sys

import numpy as np
import pytest

from preshield import (
    Chain,
    DefenseGAN,
    FeatureSqueezing,
    GaussianAugmentation,
    ImageSquarePad,
    JpegCompression,
    LabelSmoothing,
    PixelDeflection,
    Preprocessor,
    SpatialSmoothing,
    ThermometerEncoding,
    as_keras_layer,
    as_torch_module,
    evaluate,
)

files = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras

FIRST = np.random.default_rng(0).random((4, 3, 6, 6), dtype=np.float32)
LAST = np.ascontiguousarray(np.moveaxis(FIRST, 1, -1))


def noise(rng=0, **parameters):
    parameters = {"apply_fit": True, "apply_predict": True, **parameters}
    return GaussianAugmentation(0.1, augmentation=False, rng=rng, **parameters)


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


@pytest.fixture
def keras():
    pytest.importorskip("tensorflow")
    return pytest.importorskip("keras")


MAKERS = [pytest.param(as_torch_module, id="torch"), pytest.param(as_keras_layer, id="keras")]


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize(
    ("defence", "message"),
    [
        (
            GaussianAugmentation(0.1),
            "changes neither labels nor the number of samples, got GaussianAugmentation",
        ),
        (Chain([SpatialSmoothing(3), LabelSmoothing()]), "changes neither labels nor the number of samples"),
        (LabelSmoothing(), "changes neither labels nor the number of samples, got LabelSmoothing"),
        (
            [SpatialSmoothing(3)],
            r"`defence` must be a preshield defence, got \[Sp.* put several into a Chain",
        ),
        (JpegCompression, "`defence` must be a preshield defence, got <class"),
    ],
)
def test_what_cannot_be_a_part_of_a_model(make, defence, message):
    pytest.importorskip("torch" if make is as_torch_module else "tensorflow")
    with pytest.raises(ValueError, match=message):
        make(defence)


# torch


def sequential(torch, defence):
    torch.manual_seed(0)
    return torch.nn.Sequential(as_torch_module(defence), torch.nn.Flatten(), torch.nn.Linear(108, 3))


def test_a_module_before_a_model(torch):
    model = sequential(torch, JpegCompression((0, 1), channels_first=True))
    x = torch.tensor(FIRST, requires_grad=True)
    model.eval()(x).sum().backward()
    defended = torch.tensor(JpegCompression((0, 1), channels_first=True).transform(FIRST))
    torch.testing.assert_close(model(x), model[1:](defended))
    # The gradient of JPEG is taken for the identity: each sample has that of the linear layer.
    torch.testing.assert_close(x.grad, model[2].weight.sum(0).reshape(1, 3, 6, 6).expand(4, 3, 6, 6))
    assert "JpegCompression(clip_values=(0, 1), channels_first=True)" in repr(model)
    assert list(model[0].parameters()) == []


@pytest.mark.parametrize("fit", [False, True])
@pytest.mark.parametrize("predict", [False, True])
def test_the_mode_decides(torch, fit, predict):
    module = as_torch_module(FeatureSqueezing((0, 1), 1, apply_fit=fit, apply_predict=predict))
    x = torch.tensor([[0.3, 0.8]])
    for training, applies in ((True, fit), (False, predict)):
        assert module.train(training)(x).tolist() == ([[0.0, 1.0]] if applies else x.tolist())
    assert module.train().training


def test_a_module_follows_its_model(torch):
    module = as_torch_module(FeatureSqueezing((0, 1), 1))
    for moved in (module.double(), module.to("cpu"), module.half(), module.to(torch.float64)):
        assert moved is module
    assert module.eval()(torch.tensor([[0.3]], dtype=torch.float64)).dtype == torch.float64


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
@pytest.mark.parametrize("defence", [JpegCompression((0, 1), channels_first=True), noise(3)], ids=str)
def test_the_result_has_the_floating_type_of_the_model(torch, defence, dtype):
    """Both make float32 of float64, which a model in double precision refuses."""
    dtype = getattr(torch, dtype)
    model = torch.nn.Sequential(as_torch_module(defence), torch.nn.Conv2d(3, 1, 1)).to(dtype)
    x = torch.rand(1, 3, 4, 4).to(dtype).requires_grad_()
    model.eval()(x).sum().backward()
    assert x.grad.dtype == dtype


def test_a_loaded_state_goes_on_with_the_draws(torch):
    x = torch.tensor(FIRST)
    defence = Chain([noise(3, apply_predict=True), noise(np.random.Generator(np.random.MT19937(1)))])
    model = sequential(torch, defence).eval()
    model(x)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    other = sequential(torch, Chain([noise(3), noise(np.random.Generator(np.random.MT19937(1)))])).eval()
    other.load_state_dict(state)
    expected = model(x)
    torch.testing.assert_close(other(x), expected, rtol=0, atol=0)
    torch.testing.assert_close(other(x), model(x), rtol=0, atol=0)
    assert not torch.equal(other(x), expected)


def test_a_model_is_saved_whole(torch):
    x = torch.tensor(FIRST)
    model = sequential(torch, noise()).eval()
    model(x)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    twins = [torch.load(file, weights_only=False), copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    expected = model(x)
    for twin in twins:
        torch.testing.assert_close(twin(x), expected, rtol=0, atol=0)


def test_draws_of_numpys_state_have_no_position(torch):
    model = sequential(torch, noise(None))
    state = np.random.get_state()[2]
    sequential(torch, noise(None)).load_state_dict(model.state_dict())
    assert np.random.get_state()[2] == state


def test_a_state_of_other_parameters_warns(torch):
    state = as_torch_module(JpegCompression((0, 1), 75)).state_dict()
    module = as_torch_module(JpegCompression((0, 1), 30))
    with pytest.warns(
        UserWarning, match=r"saved with .*, quality=75\) and is loaded into .*, quality=30\), which keeps"
    ):
        module.load_state_dict(state)
    assert module.defence.quality == 30
    # The address of an object is not a parameter.
    states = [as_torch_module(PixelDeflection((0, 1), activation_map=object().__eq__)) for _ in range(2)]
    states[0].load_state_dict(states[1].state_dict())


def test_a_state_with_other_streams_is_refused(torch):
    with pytest.raises(
        ValueError, match=r"The state has the random streams of GaussianA.* into JpegCompression"
    ):
        as_torch_module(JpegCompression((0, 1))).load_state_dict(as_torch_module(noise()).state_dict())


def test_a_model_that_the_defence_holds_is_no_submodule(torch):
    gan = torch.nn.Sequential(torch.nn.Linear(2, 108), torch.nn.Unflatten(1, (3, 6, 6)))
    module = as_torch_module(DefenseGAN(gan=gan, channels_first=True, max_iter=1, restarts=1))
    assert list(module.modules()) == [module]
    assert list(module.state_dict()) == ["_extra_state"]


def test_replicas_share_the_defence(torch):
    module = as_torch_module(FeatureSqueezing((0, 1), 1)).eval()
    replica = module._replicate_for_data_parallel()
    assert replica.defence is module.defence
    assert replica(torch.tensor([[0.3, 0.8]])).tolist() == [[0.0, 1.0]]


def test_a_compiled_model(torch):
    model = sequential(torch, FeatureSqueezing((0, 1), 1)).eval()
    x = torch.tensor(FIRST)
    torch.testing.assert_close(torch.compile(model, backend="eager")(x), model(x))


def test_in_a_classifier_of_art(torch):
    classification = pytest.importorskip("art.estimators.classification")
    model = sequential(torch, FeatureSqueezing((0, 1), 1))
    classifier = classification.PyTorchClassifier(
        model, torch.nn.CrossEntropyLoss(), input_shape=(3, 6, 6), nb_classes=3, clip_values=(0, 1)
    )
    expected = model[1:](torch.tensor(np.rint(FIRST)))
    np.testing.assert_allclose(classifier.predict(FIRST), expected.detach(), rtol=1e-5, atol=1e-6)
    assert classifier.loss_gradient(FIRST, np.eye(3)[[0, 1, 2, 0]]).shape == FIRST.shape


@pytest.mark.parametrize("framework", ["torch", "keras"])
def test_an_evaluation_averages_over_the_draws_of_a_model(framework, request):
    pytest.importorskip("art")
    library = request.getfixturevalue(framework)
    if framework == "torch":
        x, model = FIRST, sequential(library, noise(apply_fit=False))
        labels = model.eval()(library.tensor(x)).argmax(1).numpy()
        module = model[0]
    else:
        x, model = LAST, network(library, noise(apply_fit=False))
        labels = model.predict(x, verbose=0).argmax(1)
        module = model.layers[0]
    position = str(module.defence._stream.position)

    def run():
        report = evaluate(
            model,
            x,
            labels,
            FeatureSqueezing((0, 1), 8),
            budget=1,
            eot=3,
            seed=5,
            columns=("clean", "adaptive"),
        )
        return [row.columns[name] for row in report.rows for name in ("clean", "adaptive")]

    first, second = run(), run()
    assert [len(column.outcomes) for column in first] == [3] * 4  # draws
    for one, two in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.outcomes, two.outcomes)
        np.testing.assert_array_equal(one.norms, two.norms)
    assert str(module.defence._stream.position) == position  # its own stream is left where it was


# Keras


def network(keras, defence, shape=(6, 6, 3)):
    keras.utils.set_random_seed(0)
    layers = [keras.Input(shape), as_keras_layer(defence), keras.layers.Flatten(), keras.layers.Dense(3)]
    return keras.Sequential(layers)


def test_a_layer_before_a_model(keras):
    model = network(keras, FeatureSqueezing((0, 1), 1))
    weights, bias = model.layers[-1].get_weights()
    expected = np.rint(LAST).reshape(4, -1) @ weights + bias
    np.testing.assert_allclose(model.predict(LAST, verbose=0), expected, rtol=1e-4, atol=1e-5)
    functional = keras.Model(inputs := keras.Input((6, 6, 3)), model.layers[0](inputs))
    np.testing.assert_array_equal(functional.predict(LAST, verbose=0), np.rint(LAST))
    assert model.layers[0].weights == []


@pytest.mark.parametrize("fit", [False, True])
@pytest.mark.parametrize("predict", [False, True])
def test_training_decides(keras, fit, predict):
    layer = as_keras_layer(FeatureSqueezing((0, 1), 1, apply_fit=fit, apply_predict=predict))
    x = np.array([[0.3, 0.8]], np.float32)
    for training, applies in ((True, fit), (False, predict), (None, predict)):
        np.testing.assert_array_equal(layer(x, training=training), [[0, 1]] if applies else x)


def test_a_model_is_trained_through_the_layer(keras):
    """Each gradient step sees the defended batch: with two levels, one weight follows by hand."""
    layer = as_keras_layer(FeatureSqueezing((0, 1), 1, apply_fit=True))
    dense = keras.layers.Dense(1, kernel_initializer="ones", use_bias=False)
    model = keras.Sequential([keras.Input((1,)), layer, dense])
    model.compile(keras.optimizers.SGD(0.25), "mse", jit_compile="auto")
    model.fit(np.array([[0.7]]), np.array([[3.0]]), verbose=0)
    # The input is 1, the output 1, the error -2, the gradient of its square -4.
    np.testing.assert_allclose(dense.kernel, [[2.0]])


def test_shapes_and_dtypes_are_known_before_anything_runs(keras):
    layer = as_keras_layer(ThermometerEncoding((0, 1), 4, apply_fit=False))
    assert layer.compute_output_shape((None, 6, None, 3)) == (None, 6, None, 12)
    spec = layer(keras.Input((6, None, 3)))
    assert (spec.shape, spec.dtype) == ((None, 6, None, 12), "float32")
    assert layer(keras.Input((6, 5, 3)), training=True).shape == (None, 6, 5, 3)
    assert layer(np.zeros((2, 6, 5, 3))).shape == (2, 6, 5, 12)


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_the_result_has_the_floating_type_of_the_layer(keras, dtype):
    layer = as_keras_layer(JpegCompression((0, 1)), dtype=dtype)
    x = keras.ops.cast(np.full((1, 8, 8, 3), 0.5), dtype)
    assert keras.backend.standardize_dtype(layer(x).dtype) == dtype
    assert layer(keras.Input((8, 8, 3), dtype=dtype)).dtype == dtype


class Shift(Preprocessor):
    """Of a user, not in the namespace of preshield."""

    domains = ("image", "features")

    def __init__(self, by=0.5):
        self.by = by

    def _transform(self, x, draw):
        return x + self.by


def recipe(defence):
    return re.sub(r"np\.\w+\((\d\.?\d*)\)", r"\1", repr(defence))  # NumPy's numbers become Python's


PARAMETERS = {
    "numbers": lambda: FeatureSqueezing((np.float32(0), np.float64(1)), np.int64(3)),
    "arrays": lambda: FeatureSqueezing((np.zeros(3), np.array([1, 2, 3], np.float32)), 3),
    "chain": lambda: Chain(
        (SpatialSmoothing(3), Chain([noise(2, clip_values=(0, 1)), JpegCompression((0, 1), 60)])),
        apply_fit=True,
    ),
    "mine": Shift,
    "dict": lambda: ImageSquarePad(pad_kwargs={"constant_values": (0.25, 0.5)}),
}


@files
@pytest.mark.parametrize("name", PARAMETERS)
def test_a_saved_model_is_loaded_and_goes_on(keras, name, tmp_path):
    model = network(keras, PARAMETERS[name]())
    model.predict(LAST, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert recipe(loaded.layers[0].defence) == recipe(model.layers[0].defence)
    assert type(loaded.layers[0].defence.get_params().get("defences", ())) is tuple
    expected = model.predict(LAST, verbose=0)
    np.testing.assert_array_equal(loaded.predict(LAST, verbose=0), expected)
    np.testing.assert_array_equal(loaded.predict(LAST, verbose=0), model.predict(LAST, verbose=0))
    copied = keras.models.clone_model(model)
    assert recipe(copied.layers[0].defence) == recipe(model.layers[0].defence)


@pytest.mark.parametrize(
    ("defence", "message"),
    [
        (
            noise(np.random.default_rng(0)),
            "`rng` must be a number, .*, got numpy.*Generator; pass an integer seed",
        ),
        (
            PixelDeflection((0, 1), activation_map=len),
            "`activation_map` must be .*, got builtins.builtin_function_or_method; make the model anew in c",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_be_saved(keras, defence, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        network(keras, defence).save(tmp_path / "model.keras")


@files
def test_the_remedy_saves_the_weights(keras, tmp_path):
    model, other = (network(keras, noise(np.random.default_rng(0))) for _ in range(2))
    model.predict(LAST, verbose=0)
    model.save_weights(tmp_path / "model.weights.h5")
    other.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(other.predict(LAST, verbose=0), model.predict(LAST, verbose=0))


def test_classes_of_a_file_are_not_imported(keras):
    layer = as_keras_layer(SpatialSmoothing(3))
    for name in ("subprocess.Popen", "Popen", "evaluate", "MajorityVote", "no_such_class"):
        config = layer.get_config()
        config["defence"]["class"] = name
        with pytest.raises(
            ValueError, match=f"a defence of class '{name}', which is not known; first import"
        ):
            type(layer).from_config(config)


OTHER_BACKEND = """
import sys
{imports}
import numpy as np
x, expected = np.load("x.npy"), np.load("expected.npy")
model = keras.saving.load_model("model.keras")
def predicts():
    np.testing.assert_allclose(predict(x), expected, rtol=1e-4, atol=1e-5)
def fits():
    model.compile("sgd", "mse")
    before = model.get_weights()[0]
    model.fit(x, np.zeros((4, 3)), verbose=0)
    assert np.abs(model.get_weights()[0] - before).max() > 0
def refused(*args, **kwargs):
    raise AssertionError("NumPy computes")
predict = lambda x: model.predict(x, verbose=0)
if sys.argv[1] == "torch":  # eager on the host: the kernels
    predicts(), fits()
    expected = predict(x)
    import torch
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    predict = lambda x: compiled(torch.from_numpy(x)).detach().numpy()
preshield._core.passes.Pass.begin = refused
predicts()
if sys.argv[1] == "jax":  # which compiles both
    fits()
assert not type(keras.__spec__.loader).__module__.startswith("preshield")
assert keras.config.backend() == sys.argv[1] and "tensorflow" not in sys.modules
"""


@files
@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "imports"),
    [
        # Whoever only looks for Keras does not stop the registration.
        ("jax", "import preshield, importlib.util; importlib.util.find_spec('keras'); import keras"),
        ("torch", "import keras, preshield"),
    ],
    ids=["jax", "torch"],
)
def test_a_fresh_process_with_another_backend(keras, backend, imports, tmp_path):
    pytest.importorskip(backend)
    model = network(keras, Chain([SpatialSmoothing(3), FeatureSqueezing((0, 1), 2)], apply_fit=True))
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "x.npy", LAST)
    np.save(tmp_path / "expected.npy", model.predict(LAST, verbose=0))
    subprocess.run(
        [sys.executable, "-c", OTHER_BACKEND.format(imports=imports), backend],
        env={**os.environ, "KERAS_BACKEND": backend},
        cwd=tmp_path,
        check=True,
        timeout=200,
    )
