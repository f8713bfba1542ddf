"""What the models with a generator and an encoder share: networks, samples, files, checks."""

import copy
import pickle

import numpy as np
import pytest

from preshield import PixelCNN, VariationalAutoencoder, WassersteinGAN

keras = pytest.importorskip("keras")

files = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras
both = pytest.mark.parametrize("kind", [VariationalAutoencoder, WassersteinGAN])
SHAPE = (5, 3, 2)


def made(kind, seed=0):
    """A model that was never trained."""
    model = kind(3, 8, seed=seed)
    model.input_shape, model._networks = SHAPE, model._new_networks(SHAPE)
    return model


@both
def test_networks_map_images_of_odd_sizes_and_latents(kind):
    model = made(kind)
    assert model.is_fitted
    assert model.generator is model.generator
    assert model.encoder is model.encoder
    images = model.generator.predict_on_batch(np.zeros((2, 3), np.float32))
    assert images.shape == (2, *SHAPE)
    assert images.dtype == np.float32
    assert model.encoder.predict_on_batch(images).shape == (2, 3)
    far = model.generator.predict_on_batch(np.full((1, 3), 1e6, np.float32))
    assert far.min() >= 0
    assert far.max() <= 1


@both
def test_seeds_govern_weights_and_samples(kind):
    first, same, other = made(kind), made(kind), made(kind, seed=1)
    np.testing.assert_array_equal(first.sample(4), same.sample(4))
    assert (first.sample(4) != first.sample(4, seed=1)).all()
    assert (first.sample(4) != other.sample(4)).all()
    kernels = [w for n in (first.encoder, first.generator) for w in n.get_weights() if w.ndim == 2]
    assert len({round(float(kernel.std()), 6) for kernel in kernels}) == len(kernels)


def test_samples_are_images_of_standard_normal_latents():
    model = made(VariationalAutoencoder)
    latents = np.random.default_rng(5).standard_normal((1100, 3), np.float32)  # more than a batch
    expected = model.generator.predict_on_batch(latents)
    np.testing.assert_allclose(model.sample(1100, seed=5), expected, rtol=1e-5)
    assert model.sample(0).shape == (0, *SHAPE)
    assert model.sample(0).dtype == np.float32


@files
@pytest.mark.parametrize("setting", ["mixed_float16", "float64", "channels_first"])
@both
def test_settings_of_keras_make_no_difference(kind, setting, tmp_path):
    model, x = made(kind), np.random.default_rng(0).random((6, *SHAPE), np.float32)
    model.save(tmp_path / "model.keras")
    name = "image_data_format" if setting == "channels_first" else "dtype_policy"
    before = getattr(keras.config, name)()
    try:
        getattr(keras.config, f"set_{name}")(setting)
        loaded = kind.load(tmp_path / "model.keras")
        trained = kind(2, 4).fit(x, epochs=1) if keras.config.backend() == "tensorflow" else loaded
    finally:
        getattr(keras.config, f"set_{name}")(before)
    np.testing.assert_array_equal(loaded.sample(4), model.sample(4))
    np.testing.assert_array_equal(loaded.encoder.predict_on_batch(x), model.encoder.predict_on_batch(x))
    assert trained.sample(4).dtype == trained.encoder.predict_on_batch(x).dtype == np.float32


@files
@both
def test_a_file_and_a_copy_hold_the_model(kind, tmp_path):
    model = made(kind, seed=3)
    model.save(tmp_path / "model.keras")
    loaded = kind.load(tmp_path / "model.keras")
    assert repr(loaded) == f"{kind.__name__}(latent_dim=3, units=8, seed=0)"
    assert loaded.input_shape == SHAPE
    x = model.sample(4)
    for twin in (loaded, pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        np.testing.assert_array_equal(twin.sample(4), x)
        np.testing.assert_array_equal(twin.encoder.predict_on_batch(x), model.encoder.predict_on_batch(x))


@files
def test_other_files_are_refused(tmp_path):
    model, path = made(VariationalAutoencoder), tmp_path / "model.keras"
    with pytest.raises(ValueError, match=r"`path` must end in '.keras', got 'model.h5'"):
        model.save("model.h5")
    with pytest.raises(FileNotFoundError, match=r"missing\.keras"):
        VariationalAutoencoder.load(tmp_path / "missing.keras")
    model.save(path)
    with pytest.raises(ValueError, match="it holds a VariationalAutoencoder, not a WassersteinGAN"):
        WassersteinGAN.load(path)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(ValueError, match=r"cannot load .*: it is truncated"):
        VariationalAutoencoder.load(path)
    cnn = PixelCNN(2, 0, 3)
    others = [keras.Sequential([keras.Input(SHAPE), keras.layers.Conv2D(2, 3)]), cnn._network(SHAPE)]
    encoder, generator = model._new_networks(SHAPE)
    others.append(keras.Sequential([generator, encoder]))  # the wrong way round
    for other in others:
        other.save(path)
        with pytest.raises(ValueError, match=r"cannot load .*: it (does not hold|holds a seq\w+, not) a Var"):
            VariationalAutoencoder.load(path)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"latent_dim": 0}, ValueError, "`latent_dim` must be at least 1, got 0"),
        ({"units": 0}, ValueError, "`units` must be at least 1, got 0"),
        ({"seed": -1}, ValueError, "`seed` must be at least 0, got -1"),
        ({"units": 2.5}, TypeError, "`units` must be an integer, got 2.5"),
    ],
)
@both
def test_parameters_are_checked(kind, options, error, message):
    with pytest.raises(error, match=message):
        kind(**options)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((0, 4, 4, 1), np.uint8), r"`x` must hold at least one image to train on, got shape \(0, 4"),
        (np.zeros((2, 4, 4)), "`x` must be a 4-D image batch"),
        (
            np.full((2, 4, 4, 1), 1.5),
            "must hold images as uint8 or as floats in .0, 1., got float64 from 1.5",
        ),
        (np.zeros((2, 4, 4, 1), np.int64), "must hold images as uint8 or as floats in .0, 1., got int64"),
        (np.full((2, 4, 4, 1), np.nan), "`x` must be finite, got 32 NaN"),
    ],
)
@both
def test_images_are_checked(kind, x, message):
    with pytest.raises(ValueError, match=message):
        kind().fit(x)


@both
def test_models_that_are_not_trained(kind):
    model = kind()
    assert not model.is_fitted
    assert model.input_shape is None
    calls = (
        lambda: model.generator,
        lambda: model.encoder,
        lambda: model.sample(1),
        lambda: model.save("m.keras"),
    )
    for call in calls:
        with pytest.raises(
            ValueError, match=rf"is not trained yet: call fit\(x\) first, or {kind.__name__}.load"
        ):
            call()
    with pytest.raises(ValueError, match="`n` must be at least 0, got -1"):
        made(kind).sample(-1)
