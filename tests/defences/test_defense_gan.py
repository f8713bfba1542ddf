"""InverseGAN and DefenseGAN: the nearest image of linear and kinked generators, models of every kind."""

import gc
import multiprocessing
import os
import warnings
import weakref
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Thread
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from preshield import DefenseGAN, InverseGAN, VariationalAutoencoder
from preshield.defences import defense_gan
from preshield.neural import latent_maps

torch = pytest.importorskip("torch")

SHAPE = (4, 3, 2)
SIZE = 24
LATENTS = 3
RNG = np.random.default_rng(0)
A = RNG.normal(size=(SIZE, LATENTS)) / 3
B = RNG.normal(size=SIZE) / 3 + 0.5
X = RNG.random((5, *SHAPE))
both = pytest.mark.parametrize("defence", [InverseGAN, DefenseGAN])
optimisers = pytest.mark.parametrize("optimiser", ["lbfgs", "adam"])


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Torch's threads cost more than networks this small, and do not survive a fork."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def linear(shape=SHAPE):
    """The generator G(z) = A z + b, in torch."""
    layer = torch.nn.Linear(LATENTS, SIZE)
    layer.weight.data, layer.bias.data = (torch.tensor(a, dtype=torch.float32) for a in (A, B))
    return torch.nn.Sequential(layer, torch.nn.Unflatten(1, shape))


def keras_linear(shape=SHAPE):
    pytest.importorskip("tensorflow")
    keras = pytest.importorskip("keras")
    model = keras.Sequential([keras.Input((LATENTS,)), keras.layers.Dense(SIZE), keras.layers.Reshape(shape)])
    model.layers[0].set_weights([A.T, B])
    return model


def solution(x):
    """Latents of the nearest images that the linear generator makes."""
    return np.linalg.lstsq(A, (x.reshape(len(x), -1) - B).T, rcond=None)[0].T


def nearest(x):
    return (solution(x) @ A.T + B).reshape(x.shape)


class Waves(torch.nn.Module):
    """Images of one pixel, sin(3 z) + z / 4: many minima, of which the start decides."""

    encoding_length = 1

    def forward(self, z):
        return (torch.sin(3 * z) + z / 4).reshape(-1, 1, 1, 1)


def channels_first(x):
    return np.ascontiguousarray(np.moveaxis(x, -1, 1))


# The search


@both
@optimisers
def test_the_nearest_image_of_a_linear_generator(defence, optimiser):
    out = defence(gan=linear(), rng=0, restarts=2, optimiser=optimiser).transform(X)
    assert out.dtype == np.float32
    assert_allclose(out, nearest(X), atol=1e-3)


def test_the_best_of_all_starts_counts():
    x = np.array([-0.9, 0.2, 1.3]).reshape(3, 1, 1, 1)

    def error(restarts):
        out = DefenseGAN(gan=Waves(), rng=3, restarts=restarts).transform(x)
        return np.abs(out - x).ravel()

    # More starts begin with the fewer ones.
    errors = np.array([error(restarts) for restarts in (1, 4, 16, 64)])
    assert (np.diff(errors, axis=0) <= 1e-4).all()
    assert errors[0].max() > 0.1  # one start is not enough
    assert errors[-1].max() < 1e-3


def test_the_search_starts_where_the_encoder_says():
    # The sine has a value of 0.1 near 0.03, and near 2.06, in the next valley of the error.
    x = np.array([0.1]).reshape(1, 1, 1, 1)
    seen = []

    class Remembers(Waves):
        def forward(self, z):
            seen.append(z.detach().numpy().copy())
            return super().forward(z)

    for start in (0.2, 2.0):
        seen.clear()

        def encoder(images, start=start):
            return np.full((len(images), 1), start)

        InverseGAN(gan=Remembers(), inverse_gan=encoder, max_iter=1).transform(x)
        assert_allclose(seen[1], [[start]])  # the first was asked for the shape of the images
        out = InverseGAN(gan=Waves(), inverse_gan=encoder, restarts=3, rng=0, max_iter=50).transform(x)
        assert_allclose(out, x, atol=1e-3)
        seen.clear()
        DefenseGAN(gan=Remembers(), restarts=3, rng=0, max_iter=1).transform(x)
        assert start not in seen[1]


@pytest.fixture
def searches(monkeypatch):
    """What was searched for; the latents that are found are 0."""
    seen = []

    def search(generator, targets, starts, **options):
        seen.append((targets, starts, options))
        return np.zeros((len(targets), *generator.latent_shape), np.float32)

    monkeypatch.setattr(defense_gan, "nearest_latents", search)
    return seen


def test_every_image_has_starts_of_its_own(searches):
    x = X[:, :1, :1, :1]
    found = []
    for encoder, restarts in ((None, 200), (lambda images: 7 + images.reshape(-1, 1), 201)):
        InverseGAN(gan=Waves(), inverse_gan=encoder, restarts=restarts, rng=5).transform(x)
        starts = searches.pop()[1]
        found.append(starts(slice(0, 5)))
        assert_array_equal(np.concatenate([starts(slice(i, i + 1)) for i in range(5)]), found[-1])
    drawn, encoded = found
    assert_allclose(encoded[:, 0], 7 + x.reshape(5, 1), rtol=1e-6)
    assert_array_equal(encoded[:, 1:], drawn)
    assert len(np.unique(drawn)) > 995  # multiples of 2**-20, a few of which may meet
    assert abs(drawn.mean()) < 0.1
    assert abs(drawn.std() - 1) < 0.1


def test_parameters_reach_the_search(searches):
    DefenseGAN(gan=linear(), batch_size=3, max_iter=7).transform(X)
    expected = {"method": "L-BFGS-B", "max_iter": 7, "tolerance": 1e-6, "batch_size": 3, "progress": None}
    assert searches[0][2] == expected
    wide = DefenseGAN(gan=linear(), optimiser="adam", clip_values=(-10, 10), verbose=True)
    wide.transform(X)
    options = searches[1][2]
    assert (options["method"], options["progress"]) == ("Adam", "DefenseGAN")
    assert options["tolerance"] == pytest.approx(20**2 * 1e-6)  # errors are in squared units of the images
    wide.set_params(clip_values=([0, 0], [1, 3])).transform(X)
    assert searches[2][2]["tolerance"] == pytest.approx((1 + 9) / 2 * 1e-6)


def test_one_step_from_the_encoder():
    """One step of L-BFGS goes down, but not to the minimum; the rest of them do."""
    start = solution(X) + 1
    before = DefenseGAN(gan=linear()).loss(start, X)
    found = InverseGAN(gan=linear(), inverse_gan=lambda images: start, max_iter=1).transform(X)
    after = ((found - X) ** 2).mean(axis=(1, 2, 3)).sum()
    least = ((nearest(X) - X) ** 2).mean(axis=(1, 2, 3)).sum()
    assert least * 1.01 < after < before
    assert_allclose(
        InverseGAN(gan=linear(), inverse_gan=lambda images: start).transform(X), nearest(X), atol=1e-3
    )


@optimisers
def test_max_iter_is_honoured(optimiser):
    errors = [
        ((DefenseGAN(gan=linear(), rng=0, restarts=1, max_iter=n, optimiser=optimiser)(X)[0] - X) ** 2).mean()
        for n in (1, 3, 100)
    ]
    assert errors[0] > errors[1] * 1.01
    assert errors[1] > errors[2]


def test_images_that_are_found_are_not_searched_for_again():
    counts = []

    class Counts(torch.nn.Module):
        encoding_length = LATENTS

        def __init__(self):
            super().__init__()
            self.net = linear()

        def forward(self, z):
            counts.append(len(z))
            return self.net(z)

    x = nearest(X).astype(np.float32)
    start = solution(x)
    start[3:] += 2
    InverseGAN(gan=Counts(), inverse_gan=lambda images: start).transform(x)
    # One for the shape; all five once; those that start at the minimum never again; five images at last.
    assert counts[:2] == [1, 5]
    assert set(counts[2:-1]) <= {1, 2}
    assert counts[-1] == 5


@both
def test_neither_the_batch_size_nor_the_order_of_the_batch_matters(defence):
    found = []
    for batch_size in (1, 2, 100):
        one = defence(gan=Waves(), batch_size=batch_size, restarts=2, rng=5)
        found.append(one.transform(X[..., :1, :1, :1]))
    assert_allclose(found[1], found[0], atol=1e-3)
    assert_allclose(found[2], found[0], atol=1e-3)
    order = [3, 0, 4, 2, 1]
    unique = defence(gan=linear(), restarts=2, rng=5)  # convex: the starts do not matter
    assert_allclose(unique.transform(X[order]), unique.transform(X)[order], atol=1e-3)


def test_draws():
    x = X[:, :1, :1, :1]
    defence = DefenseGAN(gan=Waves(), restarts=1, rng=0, max_iter=1)
    first, second = defence.transform(x), defence.transform(x)
    assert np.abs(first - second).max() > 1e-3
    again = DefenseGAN(gan=Waves(), restarts=1, rng=0, max_iter=1)
    assert_array_equal(again.transform(x), first)
    with defence.frozen(3):
        assert_array_equal(defence.transform(x), defence.transform(x))


def test_an_empty_batch_and_the_identity_gradient():
    defence = DefenseGAN(gan=linear())
    assert defence.transform(X[:0]).shape == (0, *SHAPE)
    grad = RNG.normal(size=X.shape)
    assert_array_equal(defence.estimate_gradient(X, grad), grad)
    classes = RNG.normal(size=(5, 2, *SHAPE))
    assert_array_equal(defence.estimate_gradient(X, classes), classes)


# Loss and its gradient


@pytest.mark.parametrize("make", [linear, keras_linear])
def test_loss_by_hand_and_its_gradient(make):
    defence = DefenseGAN(gan=make())
    z = RNG.normal(size=(5, LATENTS))
    rest = z @ A.T + B - X.reshape(5, -1)
    assert isinstance(defence.loss(z, X), float)
    assert defence.loss(z, X) == pytest.approx((rest**2).mean(axis=1).sum(), rel=1e-5)
    assert_allclose(defence.estimate_gradient(z, X), 2 * rest @ A / SIZE, rtol=1e-4, atol=1e-6)


def test_the_gradient_of_the_loss_is_of_the_kind_of_the_latents():
    defence = DefenseGAN(gan=linear())
    z = np.zeros((5, LATENTS))
    expected = defence.estimate_gradient(z, X)
    assert type(expected) is np.ndarray
    of_torch = defence.estimate_gradient(torch.zeros((5, LATENTS), requires_grad=True), torch.tensor(X))
    assert_array_equal(of_torch.numpy(), expected)
    tf = pytest.importorskip("tensorflow")
    of_tensorflow = defence.estimate_gradient(tf.constant(z), X)
    assert tf.is_tensor(of_tensorflow)
    assert_array_equal(of_tensorflow, expected)
    assert defence.loss(torch.zeros((5, LATENTS)), tf.constant(X)) == defence.loss(z, X)


def test_loss_against_finite_differences():
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, SIZE), torch.nn.Unflatten(1, SHAPE)
    ).double()
    defence = InverseGAN(gan=model)
    z, direction = RNG.normal(size=(2, 5, 2))
    ahead, behind = (defence.loss(z + sign * 1e-2 * direction, X) for sign in (1, -1))
    slope = (defence.estimate_gradient(z, X) * direction).sum()
    assert (ahead - behind) / 2e-2 == pytest.approx(slope, rel=1e-3)


def test_latents_that_are_not_flat():
    model = torch.nn.Sequential(torch.nn.ConvTranspose2d(LATENTS, 2, (4, 3)))
    x = channels_first(X)
    defence = InverseGAN(gan=model, rng=0, channels_first=True)
    weight = model[0].weight.detach().numpy().reshape(LATENTS, -1).T
    bias = np.repeat(model[0].bias.detach().numpy(), 12)
    z = np.linalg.lstsq(weight, (x.reshape(5, -1) - bias).T, rcond=None)[0]
    expected = ((weight @ z).T + bias).reshape(x.shape)
    assert_allclose(defence.transform(x), expected, atol=1e-3)
    latents = z.T.reshape(5, LATENTS, 1, 1)
    least = ((expected - x) ** 2).mean(axis=(1, 2, 3)).sum()
    assert defence.loss(latents, x) == pytest.approx(least, rel=1e-4)
    assert_allclose(defence.estimate_gradient(latents, x), 0, atol=1e-5)
    flat = InverseGAN(gan=model, inverse_gan=lambda images: z.T, max_iter=1, channels_first=True)
    assert_allclose(flat.transform(x), expected, atol=1e-3)


# Models of every kind


def test_keras_before_channels_first_data_and_torch_before_channels_last():
    first = channels_first(X)
    out = DefenseGAN(gan=keras_linear(), rng=0, restarts=1, channels_first=True).transform(first)
    assert_allclose(out, channels_first(nearest(X)), atol=1e-3)
    layers = linear((3, 4, 2))  # another arrangement of the same values
    out = DefenseGAN(gan=layers, rng=0, restarts=1).transform(np.moveaxis(X.reshape(5, 3, 4, 2), 1, -1))
    assert_allclose(out, np.moveaxis(nearest(X).reshape(5, 3, 4, 2), 1, -1), atol=1e-3)


def test_the_encoder_sees_images_as_the_generator_makes_them():
    seen = []

    def encoder(images):
        seen.append(images)
        return torch.zeros((len(images), LATENTS))

    InverseGAN(gan=linear(), inverse_gan=encoder, channels_first=True, max_iter=1).transform(
        channels_first(X)
    )
    assert_allclose(seen[0], X, rtol=1e-6)


def test_a_generator_and_an_encoder_of_art():
    pytest.importorskip("art")
    from art.estimators.generation import TensorFlowV2Generator

    generator = TensorFlowV2Generator(encoding_length=LATENTS, model=keras_linear())
    encoder = SimpleNamespace(predict=solution)  # ART 1.20 has lost its own
    found = InverseGAN(gan=generator, inverse_gan=encoder, max_iter=1).transform(X)
    assert_allclose(found, nearest(X), atol=1e-3)
    assert_allclose(DefenseGAN(gan=generator, restarts=1).transform(X), nearest(X), atol=1e-3)


def test_encoders_of_every_kind():
    keras = pytest.importorskip("keras")
    weights = np.linalg.pinv(A)
    layer = torch.nn.Linear(SIZE, LATENTS)
    layer.weight.data = torch.tensor(weights, dtype=torch.float32)
    layer.bias.data = torch.tensor(-weights @ B, dtype=torch.float32)
    model = keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(LATENTS)])
    model.layers[-1].set_weights([weights.T, -weights @ B])
    for encoder in (torch.nn.Sequential(torch.nn.Flatten(), layer), model):
        out = InverseGAN(gan=linear(), inverse_gan=encoder, max_iter=1).transform(X)
        assert_allclose(out, nearest(X), atol=1e-3)


class Guessed(torch.nn.Module):
    """A generator that does not tell the size of its latents."""

    def forward(self, z):
        weights = torch.tensor(A, dtype=z.dtype)
        return (z @ weights.T + torch.tensor(B, dtype=z.dtype)).reshape(-1, *SHAPE)


def test_the_encoder_tells_the_size_of_the_latents():
    out = InverseGAN(gan=Guessed(), inverse_gan=solution, max_iter=1).transform(X)
    assert_allclose(out, nearest(X), atol=1e-3)
    with pytest.raises(ValueError, match="set its attribute `encoding_length`"):
        DefenseGAN(gan=Guessed()).transform(X)
    told = Guessed()
    told.encoding_length = LATENTS
    assert_allclose(DefenseGAN(gan=told, restarts=1).transform(X), nearest(X), atol=1e-3)


def test_an_encoder_of_the_other_layout_tells_it_too():
    def encoder(images):
        assert images.shape[1:] == SHAPE
        return solution(images)

    defence = InverseGAN(gan=Guessed(), inverse_gan=encoder, max_iter=1, channels_first=True)
    first = channels_first(X)
    assert_allclose(defence.transform(first), channels_first(nearest(X)), atol=1e-3)
    assert defence.loss(solution(X), first) == pytest.approx(((nearest(X) - X) ** 2).sum() / SIZE, rel=1e-4)
    for call in (defence.transform, lambda x: defence.loss(solution(X), x)):
        with pytest.raises(ValueError, match="set its attribute `encoding_length`"):
            call(first[:, :, :2])


def test_a_lazy_layer_does_not_tell_the_size_of_the_latents():
    def lazy():
        return torch.nn.Sequential(torch.nn.LazyLinear(SIZE), torch.nn.Unflatten(1, SHAPE))

    with pytest.raises(ValueError, match="set its attribute `encoding_length`"):
        DefenseGAN(gan=lazy()).transform(X)
    assert InverseGAN(gan=lazy(), inverse_gan=solution, max_iter=1).transform(X).shape == X.shape
    told = lazy()
    told.encoding_length = LATENTS
    assert DefenseGAN(gan=told, restarts=1, max_iter=1).transform(X).shape == X.shape
    # Nor do layers further inside.
    model = torch.nn.Sequential(torch.nn.LazyConvTranspose2d(5, (4, 3)), torch.nn.Conv2d(5, 2, 1))
    with pytest.raises(ValueError, match="set its attribute `encoding_length`"):
        DefenseGAN(gan=model, channels_first=True).transform(channels_first(X))


def test_torch_modules_are_left_as_they_were():
    model = torch.nn.Sequential(linear(), torch.nn.Dropout(0.5), torch.nn.BatchNorm2d(4))
    model[1].eval()
    flags = [module.training for module in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    defence = DefenseGAN(gan=model, restarts=1, max_iter=2, rng=0)
    with torch.inference_mode():
        out = defence.transform(X)
    for mode in (torch.no_grad, torch.enable_grad):
        with mode():
            assert_array_equal(DefenseGAN(gan=model, restarts=1, max_iter=2, rng=0).transform(X), out)
    assert [module.training for module in model.modules()] == flags
    assert all(parameter.grad is None for parameter in model.parameters())
    for name, value in model.state_dict().items():
        assert_array_equal(value, state[name])


def test_a_keras_model_is_compiled_once_and_not_kept_alive():
    keras = pytest.importorskip("keras")
    traces = []

    class Traced(keras.layers.Layer):
        def call(self, z):
            traces.append(z.shape)
            return z

    model = keras.Sequential([keras.Input((LATENTS,)), Traced(), *keras_linear().layers])
    traces.clear()
    for count in (5, 3, 1):
        DefenseGAN(gan=model, rng=0, restarts=2).transform(X[:count])
    assert len(traces) == 2  # images, and errors with their gradients
    kept = weakref.ref(model)
    assert kept() in latent_maps._COMPILED
    del model
    gc.collect()
    assert kept() is None


# Ranges


def test_results_are_saturated_to_clip_values():
    x = 255 * X
    wide = linear()
    wide[0].weight.data *= 255
    wide[0].bias.data *= 255
    expected = 255 * nearest(X)
    out = DefenseGAN(gan=wide, restarts=1).transform(x)
    assert_allclose(out, expected, atol=0.3)
    out = DefenseGAN(gan=wide, restarts=1, clip_values=(100, 150)).transform(x)
    assert_allclose(out, np.clip(expected, 100, 150), atol=0.3)
    out = DefenseGAN(gan=wide, restarts=1, clip_values=([100, 0], [150, 120])).transform(x)
    assert_allclose(out, np.clip(expected, [100, 0], [150, 120]), atol=0.3)


@pytest.fixture(scope="module")
def grey():
    """Grey images, whose one property is their brightness."""
    pytest.importorskip("tensorflow")
    return np.random.default_rng(0).random((96, 1, 1, 1)) * np.ones((1, 4, 3, 1))


@pytest.fixture(scope="module")
def trained(grey):
    return VariationalAutoencoder(2, 16).fit(grey, epochs=15)


def test_models_of_preshield_know_images_in_the_unit_range(trained, grey):
    plain = DefenseGAN(gan=trained, restarts=2, rng=0)
    out = plain.transform(grey[:8])
    scaled = DefenseGAN(gan=trained, restarts=2, rng=0, clip_values=(-10, 30), channels_first=True)
    found = scaled.transform(channels_first(40 * grey[:8] - 10))
    assert_allclose(found, channels_first(40 * out - 10), atol=0.05)
    z = trained.encoder.predict_on_batch(grey[:8])
    made = trained.generator.predict_on_batch(z)
    error = ((made - grey[:8]) ** 2).mean(axis=(1, 2, 3)).sum()
    assert plain.loss(z, grey[:8]) == pytest.approx(error, rel=1e-4)
    assert scaled.loss(z, channels_first(40 * grey[:8] - 10)) == pytest.approx(error, rel=1e-4)


def test_inverse_gan_starts_from_the_encoder_of_the_model(trained, grey):
    made = trained.generator.predict_on_batch(trained.encoder.predict_on_batch(grey[:8]))
    guess = ((made - grey[:8]) ** 2).mean(axis=(1, 2, 3))
    out = InverseGAN(gan=trained, max_iter=1).transform(grey[:8])
    assert (((out - grey[:8]) ** 2).mean(axis=(1, 2, 3)) <= guess + 1e-7).all()
    # Nothing is drawn: no seed matters.
    assert_array_equal(InverseGAN(gan=trained, max_iter=1, rng=9).transform(grey[:8]), out)
    assert_array_equal(
        InverseGAN(gan=trained.generator, inverse_gan=trained, max_iter=1).transform(grey[:8]), out
    )


# Training


@pytest.fixture
def fits(monkeypatch):
    """What the training was given; it leaves the weights as they are at first."""
    seen = []

    def fit(model, images, **options):
        seen.append((images, options))
        model._networks = model._new_networks(images.shape[1:])

    monkeypatch.setattr(VariationalAutoencoder, "fit", fit)
    return seen


def test_models_are_trained_on_images_in_the_unit_range(fits, grey):
    defence = DefenseGAN(clip_values=(-1, 3), channels_first=True, restarts=1, max_iter=2, verbose=True)
    defence.fit(channels_first(4 * grey - 1), epochs=7)
    images, options = fits[0]
    assert_allclose(images, grey, atol=1e-12)
    assert options == {"epochs": 7, "verbose": True}
    of_arrays = DefenseGAN(clip_values=np.array([-1, 3]), channels_first=True, restarts=1, max_iter=2)
    assert of_arrays.fit(channels_first(4 * grey - 1)).transform(channels_first(grey)).shape == (96, 1, 4, 3)
    assert_allclose(fits.pop()[0], grey, atol=1e-12)
    assert DefenseGAN().fit(grey, verbose=True).gan_.is_fitted
    assert fits[1][1] == {"verbose": True}
    DefenseGAN().fit(grey)
    assert fits[2][1] == {"verbose": False}


@both
def test_fit_trains_a_copy(defence, fits, grey):
    untrained = VariationalAutoencoder(2, 16)
    made = defence(gan=untrained, clip_values=(0, 2), restarts=2)
    assert not made.is_fitted
    for call in (made.transform, lambda x: made.loss(np.zeros((96, 2)), x)):
        with pytest.raises(ValueError, match=r"no trained model yet: call fit\(x\) with clean training"):
            call(2 * grey)
    assert made.fit(2 * grey, epochs=2) is made
    assert made.is_fitted
    assert not untrained.is_fitted
    assert made.gan_.is_fitted
    assert made.gan_.latent_dim == 2
    assert made.transform(2 * grey[:3]).shape == (3, 4, 3, 1)


def test_fit_of_the_default_model(grey):
    defence = DefenseGAN(restarts=1)
    with pytest.raises(ValueError, match=r"`x` must lie in \[0, 1\] where `clip_values` is None, got .* 2"):
        defence.fit(2 * grey + 0.1)
    assert type(defence.fit(grey[:8], epochs=1).gan_) is VariationalAutoencoder


def test_a_search_shows_progress_if_asked(capsys):
    for verbose in (False, True):
        DefenseGAN(gan=linear(), restarts=1, max_iter=1, verbose=verbose).transform(X)
        assert ("DefenseGAN" in capsys.readouterr().err) == verbose


def test_fit_of_a_model_that_is_trained(trained, grey):
    for model in (trained, linear((4, 3, 2))):
        x = grey if model is trained else X
        defence = DefenseGAN(gan=model)
        assert defence.is_fitted
        assert defence.fit(x).gan_ is model
        with pytest.raises(TypeError, match="unexpected keyword argument 'epochs': `gan` is trained already"):
            defence.fit(x, epochs=2)
        with pytest.raises(ValueError, match=r"`gan` makes images of shape .*, of shape \(6, 3, 1\)"):
            defence.fit(np.zeros((2, 6, 3, 1)))


# Threads and processes


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_errors_and_gradients_are_exact_enough_whatever_the_model_computes_in(kind):
    """The model computes in its own type; errors and their gradients are in float32 or float64."""
    model = linear().to(kind)
    latents = np.random.default_rng(0).standard_normal((5, LATENTS))
    errors, gradients = latent_maps.Generator(model).errors(X)(latents, np.arange(5))
    assert errors.dtype == gradients.dtype == (np.float64 if kind == torch.float64 else np.float32)
    weights = model[0].weight.detach().double().numpy()
    with torch.no_grad():
        images = model(torch.from_numpy(latents).to(kind)).double().numpy()
    residuals = (images - X.astype(np.float32)).reshape(5, -1)
    assert_allclose(errors, (residuals**2).mean(axis=1), rtol=1e-6)
    expected = 2 * residuals @ weights / SIZE
    assert_allclose(gradients, expected, atol=torch.finfo(kind).eps * np.abs(expected).max())


class Trained(torch.nn.Module):
    """In training mode it makes noise."""

    encoding_length = LATENTS

    def __init__(self):
        super().__init__()
        self.net = torch.nn.Sequential(linear(), torch.nn.Dropout(0.5), torch.nn.Tanh())

    def forward(self, z):
        return self.net(z)


def test_many_threads_with_one_module():
    model = Trained()

    def found(seed):
        return DefenseGAN(gan=model, rng=seed, restarts=2, max_iter=10).transform(X)

    expected = [found(seed) for seed in range(8)]
    with ThreadPoolExecutor(8) as pool:
        assert_array_equal(list(pool.map(found, range(8))), expected)
    assert all(module.training for module in model.modules())


@pytest.mark.filterwarnings(r"ignore:os\.fork\(\) was called:RuntimeWarning")
@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
def test_a_fork_while_another_thread_evaluates_the_module():
    """The lock that this thread holds is free in the child."""
    inside, leave = Event(), Event()

    class Waits(Trained):
        def forward(self, z):
            inside.set()
            leave.wait(60)
            return super().forward(z)

    defence = DefenseGAN(gan=Waits(), rng=0, restarts=1, max_iter=1)
    thread = Thread(target=defence.transform, args=(X,))
    thread.start()
    assert inside.wait(60)
    child = multiprocessing.get_context("fork").Process(target=in_a_child, args=(defence.gan, leave))
    child.start()
    child.join(60)
    hung = child.is_alive()
    child.kill()
    leave.set()
    thread.join()
    assert not hung
    assert child.exitcode == 0


def in_a_child(model, leave):
    torch.set_num_threads(1)  # a pool of OpenMP that the parent has started does not survive a fork
    leave.set()
    out = DefenseGAN(gan=model, rng=0, restarts=1, max_iter=1).transform(X)
    os._exit(0 if out.shape == X.shape else 1)


# Flags and old arguments


def test_the_flags_of_art_are_told_once_to_who_reads_them():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        defence = InverseGAN(gan=linear(), max_iter=1)
        defence.transform(X)
        repr(defence), defence.get_params(), InverseGAN(**defence.get_params())
        assert defence.set_params(restarts=2).get_params()["apply_predict"] is False
    with pytest.warns(UserWarning, match="does nothing in a classifier.*pass apply_predict=True"):
        assert defence.apply_predict is False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert defence.apply_predict is False  # once
        assert InverseGAN(apply_fit=True).apply_predict is False
        assert InverseGAN(apply_predict=True).apply_predict is True
        assert DefenseGAN().apply_predict is True
        assert DefenseGAN(apply_predict=False).apply_predict is False
        assert InverseGAN().set_params(apply_predict=True).apply_predict is True


@both
def test_sess_is_ignored_with_a_warning(defence):
    with pytest.warns(UserWarning, match="`sess` is ignored: TensorFlow 2 has no sessions") as caught:
        assert defence("session", linear()).sess == "session"
    assert caught[0].filename == __file__


# What is refused


@both
@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"gan": 3}, TypeError, "`gan` must be a Keras model, a torch module, .* got 3 of type int"),
        ({"gan": np.sin}, TypeError, "`gan` must be a Keras model"),
        ({"restarts": 0}, ValueError, "`restarts` must be at least 1, got 0"),
        ({"max_iter": 0}, ValueError, "`max_iter` must be at least 1, got 0"),
        ({"max_iter": 1.5}, TypeError, "`max_iter` must be an integer, got 1.5"),
        ({"optimiser": "sgd"}, ValueError, "`optimiser` must be one of 'lbfgs', 'adam', got 'sgd'"),
        ({"rng": "seed"}, TypeError, "`rng` must be None, an integer seed"),
        ({"batch_size": 0}, ValueError, "`batch_size` must be at least 1, got 0"),
        ({"clip_values": (1, 0)}, ValueError, "`clip_values` must have minimum < maximum"),
        ({"verbose": 1}, TypeError, "`verbose` must be True or False, got 1"),
        ({"channels_first": 1}, TypeError, "`channels_first` must be True or False, got 1"),
        ({"apply_predict": 1}, TypeError, "`apply_predict` must be True or False, got 1"),
    ],
)
def test_parameters_are_checked(defence, parameters, error, message):
    with pytest.raises(error, match=message):
        defence(**parameters)


@pytest.mark.parametrize(("encoder", "kind"), [(3, "int"), (VariationalAutoencoder, "type")])
def test_an_encoder_of_no_kind(encoder, kind):
    with pytest.raises(TypeError, match=rf"`inverse_gan` must be None, a Keras model, .* of type {kind}"):
        InverseGAN(inverse_gan=encoder)


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        (lambda x: np.zeros((len(x), 7)), r"latents as `gan` takes them, of shape \(3,\), got \(7,\)"),
        (lambda x: np.zeros((1, LATENTS)), r"one latent for each image, .* got \(1, 3\)"),
        (lambda x: np.full((len(x), LATENTS), np.nan), "`inverse_gan` must give finite latents, got 15 val"),
        (lambda x: x @ np.zeros(5), r"matmul.*\nRaised by `inverse_gan` .* images of shape \(4, 3, 2\)"),
    ],
)
def test_encoders_that_do_not_fit_are_refused(encoder, message):
    with pytest.raises(ValueError, match=message):
        InverseGAN(gan=linear(), inverse_gan=encoder).transform(X)


class Table(torch.nn.Module):
    encoding_length = 2

    def __init__(self, outputs):
        super().__init__()
        self.outputs = outputs

    def forward(self, z):
        return torch.as_tensor(self.outputs, dtype=torch.float32)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (linear((24,)), r"`gan` makes images of shape \(24,\), .* of `x`, of shape \(4, 3, 2\)"),
        (Table(np.zeros((3, *SHAPE))), r"`gan` must give one image for each latent, .* got \(3, 4, 3, 2\)"),
        (Table(np.full((1, *SHAPE), np.inf)), "`gan` must give finite images, got 24 values that are not"),
        (
            torch.nn.Sequential(torch.nn.Flatten(0), torch.nn.Linear(2, 3)),
            "one image for each",
        ),
    ],
)
def test_generators_that_do_not_fit_are_refused(model, message):
    with pytest.raises(ValueError, match=message):
        DefenseGAN(gan=model).transform(X)


def test_batches_that_do_not_fit_are_refused():
    defence = DefenseGAN(gan=linear())
    bad = X.copy()
    bad[0, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="`x` must be finite, got 1 NaN"):
        defence.transform(bad)
    with pytest.raises(ValueError, match="`x` must be finite, got 1 NaN"):
        defence.loss(np.zeros((5, LATENTS)), bad)
    with pytest.raises(ValueError, match=r"of shape \(3,\) for each of the 5 images, got shape \(4, 3\)"):
        defence.loss(np.zeros((4, 3)), X)
    with pytest.raises(ValueError, match=r"of shape \(3,\) for each of the 5 images, got shape \(5, 4\)"):
        defence.estimate_gradient(np.zeros((5, 4)), X)
    with pytest.raises(ValueError, match="`z_encoding` must be finite, got 1 NaN"):
        defence.loss(np.where(np.eye(5, 3) * [1, 0, 0], np.nan, 0), X)
    with pytest.raises(ValueError, match="`grad` must have the shape"):
        defence.estimate_gradient(X, X[:, :2])
