"""A denoiser: the same network in both frameworks, its training and its file."""

import numpy as np
import pytest

from preshield import Denoiser

X = np.random.default_rng(0).random((8, 2, 6, 5), dtype=np.float32)


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


def smooth(count=24):
    """Images of one brightness each, (N, C, H, W)."""
    levels = np.random.default_rng(1).random((count, 1, 1, 1), dtype=np.float32)
    return np.ascontiguousarray(np.broadcast_to(levels, (count, 1, 8, 8)))


def classifier_in(torch):
    """Class 1 where an image is brighter than one half."""
    layer = torch.nn.Linear(64, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.stack([-torch.ones(64), torch.ones(64)]))
        layer.bias.copy_(torch.tensor([32.0, -32.0]))
    return torch.nn.Sequential(torch.nn.Flatten(), layer)


def last(moved):
    return np.ascontiguousarray(np.moveaxis(moved, 1, -1))


def test_known_weights_give_known_pictures(torch):
    denoiser = Denoiser(0.1, depth=2, width=1)
    shift = np.zeros((3, 3, 1, 1), np.float32)
    shift[1, 0] = 1.0  # the pixel to the left
    denoiser.weights = [shift, np.array([-0.5], np.float32), 2 * shift, np.array([0.25], np.float32)]
    x = np.array([[[[1.0, 0.0, 0.7, 0.0]]]], np.float32)
    # to the right by one, less one half, cut at zero: 0 .5 0 .2; again: 0 0 .5 0, twice, plus a quarter
    np.testing.assert_allclose(denoiser.denoise(x) - x, -np.array([[[[0.25, 0.25, 1.25, 0.25]]]]), atol=1e-6)


def test_a_new_network_changes_nothing(torch):
    denoiser = Denoiser(0.1)
    denoiser.weights = denoiser._initial(2)
    np.testing.assert_array_equal(denoiser.denoise(X), X)
    kernel = denoiser.weights[2]
    assert kernel.shape == (3, 3, 32, 32)
    assert abs(kernel.std() * np.sqrt(9 * 32 / 2) - 1) < 0.02


def test_training_removes_noise_and_follows_the_seed(torch):
    x = smooth()
    noisy = x + 0.3 * np.random.default_rng(2).standard_normal(x.shape, np.float32)

    def trained(seed, epochs=80):
        return Denoiser(0.3, depth=3, width=8, seed=seed).fit(x, epochs=epochs, learning_rate=1e-2)

    denoiser = trained(0)
    assert np.std(denoiser.denoise(noisy) - x) < 0.6 * np.std(noisy - x)
    again, other = trained(0, epochs=2), trained(1, epochs=2)
    for found, same, another in zip(again.weights, trained(0, epochs=2).weights, other.weights, strict=True):
        np.testing.assert_array_equal(found, same)
        assert (found != another).any()
    pixels = np.round(x * 255).astype(np.uint8)
    whole = Denoiser(0.3, depth=2, width=2).fit(pixels, epochs=1).weights
    halves = Denoiser(0.3, depth=2, width=2).fit(pixels / np.float32(255), epochs=1).weights
    np.testing.assert_array_equal(whole[0], halves[0])


def test_stability_trains_for_the_classifier_and_leaves_it(torch):
    x, model = smooth(), classifier_in(torch).train()
    before = [p.detach().clone() for p in model.parameters()]
    many = torch.tensor(x).repeat(40, 1, 1, 1)
    labels = model(many).argmax(dim=1)
    noisy = many + 1.5 * torch.randn(many.shape, generator=torch.Generator().manual_seed(0))

    def loss(denoiser):
        seen = torch.tensor(denoiser.denoise(noisy.numpy()))
        return float(torch.nn.functional.cross_entropy(model(seen), labels).detach())

    denoiser = Denoiser(1.5, depth=2, width=4)
    denoiser.fit(x, epochs=3)
    mean_error = loss(denoiser)
    weights = [w.copy() for w in denoiser.weights]
    denoiser.fit(x, loss="stability", classifier=model, warm_start=True, epochs=200, learning_rate=1e-2)
    assert loss(denoiser) < 0.9 * mean_error
    assert all(torch.equal(p, q) and p.grad is None for p, q in zip(model.parameters(), before, strict=True))
    assert model.training
    # from new weights, and from those that there were
    fresh = Denoiser(1.5, depth=2, width=4).fit(x, epochs=1, learning_rate=1e-9)
    np.testing.assert_allclose(fresh.weights[0], fresh._initial(1)[0], atol=1e-6)
    kept = Denoiser(1.5, depth=2, width=4)
    kept.weights = weights
    kept.fit(x, epochs=1, learning_rate=1e-9, warm_start=True)
    np.testing.assert_allclose(kept.weights[0], weights[0], atol=1e-6)


def test_probabilities_have_the_same_loss_as_their_logits(torch):
    x, model = smooth(8), classifier_in(torch)
    options = {"loss": "stability", "epochs": 2}
    by_logits = Denoiser(0.5, depth=2, width=2).fit(x, classifier=model, **options)
    shares = torch.nn.Sequential(model, torch.nn.Softmax(dim=1))
    by_shares = Denoiser(0.5, depth=2, width=2).fit(x, classifier=shares, **options)
    np.testing.assert_allclose(by_shares.weights[2], by_logits.weights[2], atol=1e-5)
    assert np.abs(by_logits.weights[2]).max() > 1e-4


def test_keras_trains_and_runs_the_same_network(torch):
    keras = pytest.importorskip("keras")
    x = smooth(8)
    options = {"depth": 2, "width": 3}
    of_keras = Denoiser(0.3, framework="keras", **options).fit(last(x), epochs=2)
    of_torch = Denoiser(0.3, **options).fit(x, epochs=2)
    np.testing.assert_allclose(of_keras.denoise(last(x)), last(of_torch.denoise(x)), atol=2e-4)
    assert np.abs(of_torch.denoise(x) - x).max() > 1e-3
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(2)])
    model.layers[1].trainable = False
    before = [np.array(array) for array in model.get_weights()]
    of_keras.fit(last(x), loss="stability", classifier=model, epochs=2)
    for array, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(array, old)
    assert model.trainable
    assert [layer.trainable for layer in model.layers] == [True, False]
    assert np.abs(of_keras.weights[2]).max() > 0


def test_files_are_for_both_frameworks(torch, tmp_path):
    path = tmp_path / "denoiser.npz"
    denoiser = Denoiser(0.3, depth=3, width=4).fit(smooth(4), epochs=1)
    denoiser.save(path)
    loaded = Denoiser.load(path)
    assert (loaded.sigma, loaded.depth, loaded.width, loaded.framework) == (0.3, 3, 4, "torch")
    np.testing.assert_array_equal(loaded.denoise(smooth(4)), denoiser.denoise(smooth(4)))
    assert not loaded.network.training
    assert Denoiser.load(path, framework="keras").framework == "keras"
    with np.load(path) as file:
        arrays = dict(file)
    for change in (
        {"weights_00": arrays["weights_00"][:1]},
        {"format": np.array(9)},
        {"sigma": np.array(-1.0)},
    ):
        np.savez(path, **{**arrays, **change})
        with pytest.raises(ValueError, match="cannot load"):
            Denoiser.load(path)
    arrays["weights_00"] = np.array([print], dtype=object)  # would be a pickle
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match="cannot load"):
        Denoiser.load(path)
    path.write_bytes(b"PK\x03\x04")
    with pytest.raises(ValueError, match="cannot load"):
        Denoiser.load(path)
    with pytest.raises(FileNotFoundError, match="none"):
        Denoiser.load(tmp_path / "none.npz")
    with pytest.raises(ValueError, match=r"`path` must end in '\.npz'"):
        denoiser.save(tmp_path / "denoiser.pt")


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"sigma": 0}, "`sigma` must be above 0"),
        ({"depth": 1}, "`depth` must be at least 2"),
        ({"width": 0}, "`width` must be at least 1"),
        ({"framework": "jax"}, "`framework` must be"),
        ({"seed": -1}, "`seed` must be at least 0"),
    ],
)
def test_arguments_are_checked(arguments, match):
    with pytest.raises(ValueError, match=match):
        Denoiser(**{"sigma": 0.1, **arguments})


def test_training_data_and_options_are_checked(torch):
    denoiser, model = Denoiser(0.1), classifier_in(torch)
    for options, match in (
        ({"x": 2 * X}, r"floats in \[0, 1\]"),
        ({"x": X[0]}, "`x`"),
        ({"loss": "l1"}, "`loss` must be"),
        ({"epochs": 0}, "`epochs` must be at least 1"),
        ({"loss": "stability"}, "`classifier` must be a torch module"),
        ({"loss": "stability", "classifier": 3}, "`classifier` must be"),
        ({"classifier": model}, "`classifier` must be left out"),
        ({"warm_start": True}, "not trained yet"),
    ):
        with pytest.raises((ValueError, TypeError), match=match):
            denoiser.fit(**{"x": X, **options})
    assert not denoiser.is_fitted
    with pytest.raises(ValueError, match="not trained yet"):
        denoiser.denoise(X)
    with pytest.raises(FloatingPointError, match="lower `learning_rate`"):
        Denoiser(0.1, depth=3, width=4).fit(X, epochs=6, learning_rate=1e25)
