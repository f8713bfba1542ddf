"""DiffusionModel: training, samples, files."""

import json

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from preshield import DiffusionModel

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.torch")


def images(n=8):
    """Images of 3 x 5 pixels with two channels, of which one is dark and one is bright."""
    return np.tile(np.array([0.2, 0.8], np.float32), (n, 3, 5, 1))


@pytest.fixture(scope="module")
def trained():
    return DiffusionModel(8, 20, "cosine").fit(images(), epochs=80, learning_rate=2e-2, validation=0)


def test_samples_are_like_the_images_of_the_training(trained):
    made = trained.sample(6, seed=1)
    assert made.dtype == np.float32
    assert_allclose(made.mean(axis=(0, 1, 2)), [0.2, 0.8], atol=0.1)
    assert_array_equal(trained.sample(6, seed=1), made)
    assert abs(trained.sample(6, seed=2) - made).max() > 0
    assert trained.sample(0).shape == (0, 3, 5, 2)
    assert trained.sample(1, steps=5).shape == (1, 3, 5, 2)


def test_the_network_finds_the_noise(trained):
    a = trained.alphas_cumprod[10]
    noise = np.random.default_rng(5).standard_normal((20, 2, 3, 5))
    clean = np.moveaxis(2 * images(20) - 1, -1, 1)
    noisy = torch.tensor(np.sqrt(a) * clean + np.sqrt(1 - a) * noise, dtype=torch.float32)
    found = trained.network(noisy, torch.full((20,), 10)).numpy()
    assert ((found - noise) ** 2).mean() < 0.1


def test_training_depends_on_the_seed_alone_and_shows_progress_if_asked(capsys):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    found = []
    for seed, verbose in ((0, False), (0, True), (1, False)):
        model = DiffusionModel(4, 30, "cosine", seed=seed)
        with torch.inference_mode(verbose):
            model.fit((255 * images(6)).astype(np.uint8), epochs=2, validation=0.2, verbose=verbose)
        found.append(model.sample(1))
        assert ("error of the noise" in capsys.readouterr().err) == verbose
    assert_array_equal(found[0], found[1])
    assert abs(found[0] - found[2]).max() > 0
    assert_array_equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 2, 3), (1, 9, 1)])
def test_images_of_any_size(shape):
    x = np.random.default_rng(0).random((3, *shape))
    model = DiffusionModel(3, 10).fit(x, epochs=1)
    assert model.input_shape == shape
    assert model.sample(2).shape == (2, *shape)


def test_a_model_is_written_and_read_again(trained, tmp_path):
    path = tmp_path / "model.safetensors"
    trained.save(path)
    loaded = DiffusionModel.load(path)
    assert repr(loaded) == repr(trained) == "DiffusionModel(width=8, timesteps=20, schedule='cosine', seed=0)"
    assert loaded.input_shape == (3, 5, 2)
    assert_array_equal(loaded.sample(2), trained.sample(2))


def rewritten(path, target, **changes):
    with safetensors.safe_open(path, framework="pt") as file:
        about = {**json.loads(file.metadata()["DiffusionModel"]), **changes}
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    safetensors.save_file(state, target, {"DiffusionModel": json.dumps(about)})


@pytest.mark.parametrize(
    "changes",
    [
        {"width": 1 << 30},
        {"width": 16},
        {"timesteps": 10**12},
        {"schedule": "none"},
        {"input_shape": [3, 5, 1]},
        {"input_shape": [3, 5]},
        {"input_shape": None},
        {"more": 1},
    ],
    ids=str,
)
def test_files_that_do_not_fit(trained, tmp_path, changes):
    path, target = tmp_path / "model.safetensors", tmp_path / "other.safetensors"
    trained.save(path)
    rewritten(path, target, **changes)
    with pytest.raises(ValueError, match=r"cannot load .*other.safetensors': it does not hold a Diffusion"):
        DiffusionModel.load(target)


def test_files_that_are_none(trained, tmp_path):
    path = tmp_path / "model.safetensors"
    trained.save(path)
    content = path.read_bytes()
    path.write_bytes(content[:-10])
    with pytest.raises(ValueError, match="cannot load"):
        DiffusionModel.load(path)
    state = {name: tensor.int() for name, tensor in trained.network.state_dict().items()}
    about = {"width": 8, "timesteps": 20, "schedule": "cosine", "seed": 0, "input_shape": [3, 5, 2]}
    for metadata in (None, {"DiffusionModel": json.dumps(about)}, {"DiffusionModel": "[" * 10**5}):
        safetensors.save_file(state, path, metadata)
        with pytest.raises(ValueError, match="it does not hold a DiffusionModel"):
            DiffusionModel.load(path)
    safetensors.save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="it does not hold a DiffusionModel"):
        DiffusionModel.load(path)
    with pytest.raises(FileNotFoundError, match="missing"):
        DiffusionModel.load(tmp_path / "missing.safetensors")
    for act in (trained.save, DiffusionModel.load):
        with pytest.raises(ValueError, match=r"`path` must end in '.safetensors', got .*model.pt'"):
            act(tmp_path / "model.pt")


def test_what_is_refused():
    for options, message in (
        ({"width": 0}, "`width` must be at least 1"),
        ({"timesteps": 1}, "`timesteps` must be between 2 and 100000, got 1"),
        ({"schedule": "sqrt"}, "`schedule` must be one of 'linear', 'cosine', got 'sqrt'"),
        ({"seed": -1}, "`seed` must be at least 0"),
    ):
        with pytest.raises(ValueError, match=message):
            DiffusionModel(**options)
    model = DiffusionModel(4, 10)
    with pytest.raises(ValueError, match=r"not trained yet: call fit\(x\) first, or DiffusionModel.load"):
        model.sample(1)
    with pytest.raises(ValueError, match="images as uint8 or as floats"):
        model.fit(255 * images())
    with pytest.raises(ValueError, match="at least one image"):
        model.fit(images(0))
    with pytest.raises(FloatingPointError, match="lower `learning_rate`"):
        model.fit(images(), epochs=20, learning_rate=1e18, validation=0)
    assert not model.is_fitted
    fitted = DiffusionModel(4, 10).fit(images(), epochs=1)
    with pytest.raises(ValueError, match="`steps` must be between 1 and 10, got 11"):
        fitted.sample(1, steps=11)
