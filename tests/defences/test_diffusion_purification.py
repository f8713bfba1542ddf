"""DiffusionPurification: what comes out for data whose noise is known, draws, gradients, what is refused."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from preshield import DiffusionModel, DiffusionPurification, evaluate
from preshield.neural.diffusion import Diffusion, respaced, schedule_of
from tests.cases import Mixing

torch = pytest.importorskip("torch")

LINEAR = schedule_of("linear")
X = np.random.default_rng(0).uniform(0.2, 0.8, (5, 4, 3, 2)).astype(np.float32)
IMAGE = np.linspace(0.1, 0.9, 12, dtype=np.float32).reshape(1, 4, 3, 1)


class Known(torch.nn.Module):
    """The noise in images whose values are normal, around a mean or an image of means."""

    def __init__(self, mean, deviation, alphas=LINEAR):
        super().__init__()
        self.mean = torch.nn.Parameter(torch.tensor(mean, dtype=torch.float64))
        self.alphas, self.variance = torch.tensor(alphas), deviation**2

    def forward(self, x, t):
        a = self.alphas[t][:, None, None, None]
        return (1 - a).sqrt() * (x - a.sqrt() * self.mean) / (a * self.variance + 1 - a)


def channels_first(x):
    return np.ascontiguousarray(np.moveaxis(x, -1, 1))


def known_image(image=IMAGE):
    return Known(2 * channels_first(image) - 1, 0.0)


def mixing(**options):
    return DiffusionPurification(**{"model": Mixing(), "schedule": "linear", "steps": 4, "rng": 7, **options})


# What comes out


@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
def test_all_images_become_the_one_that_the_model_knows(sampler):
    x = np.random.default_rng(0).random((3, *IMAGE.shape[1:]))
    defence = DiffusionPurification(model=known_image(), schedule="linear", sampler=sampler, steps=5)
    out = defence.transform(x)
    assert out.dtype == np.float32
    assert_allclose(out, np.repeat(IMAGE, 3, axis=0), atol=1e-6)


def test_what_is_far_from_gaussian_data_comes_nearer_and_more_so_with_more_noise():
    # Deterministic steps follow the flow: the expected result for each value is linear in it.
    mean, deviation, x = 0.0, 0.1, np.full((1, 1, 100, 100), 0.9, np.float32)
    found = []
    for t_star in (0.05, 0.1, 0.2):
        defence = DiffusionPurification(
            model=Known(mean, deviation),
            schedule="linear",
            t_star=t_star,
            sampler="ddim",
            layout="NCHW",
            rng=0,
        )
        a = LINEAR[round(1000 * t_star) - 1]
        expected = mean + deviation * np.sqrt(a) * 0.8 / np.sqrt(a * deviation**2 + 1 - a)
        found.append(2 * defence.transform(x).mean() - 1)
        assert found[-1] == pytest.approx(expected, abs=0.01)
    assert found[0] > found[1] > found[2] > 0


def test_the_noise_has_the_variance_of_the_schedule():
    class Nothing(torch.nn.Module):
        def forward(self, x, t):
            seen.append((x.clone(), t.clone()))
            return x * 0

    seen = []
    x = np.full((2, 50, 50, 1), 0.75)
    DiffusionPurification(model=Nothing(), schedule="linear", t_star=0.3, steps=3, rng=0).transform(x)
    assert [int(t[0]) for _, t in seen] == [299, 199, 99]
    noisy = seen[0][0].numpy()
    assert noisy.shape == (2, 1, 50, 50)
    assert noisy.mean() == pytest.approx(0.5 * np.sqrt(LINEAR[299]), abs=0.03)
    assert noisy.std() == pytest.approx(np.sqrt(1 - LINEAR[299]), rel=0.03)
    assert abs(np.corrcoef(noisy[0].ravel(), noisy[1].ravel())[0, 1]) < 0.05


def test_t_star_counts_timesteps():
    for t_star, steps in ((0.1, 100), (1, 1000), (1e-9, 1), (0.0015, 2)):
        defence = mixing(t_star=t_star, steps=None)
        assert defence._steps(Diffusion(Mixing(), "linear")) == list(range(steps - 1, -1, -1))


@pytest.mark.parametrize(
    "clip_values",
    [(0, 255), (-1, 1), (np.array([0.0, 0.5]), np.array([2.0, 1.0])), ([0, -3], [10, 3])],
    ids=str,
)
def test_ranges_and_layouts(clip_values):
    low, high = (np.asarray(value, float) for value in clip_values)
    span, grad = high - low, np.random.default_rng(1).standard_normal(X.shape)
    unit = mixing(t_star=0.01)
    expected = unit.transform(X, index=0)
    for first in (False, True):
        turned = channels_first if first else np.copy
        defence = mixing(t_star=0.01, clip_values=clip_values, channels_first=first)
        out = defence.transform(turned(low + span * X), index=0)
        assert_allclose(out, turned(low + span * expected), rtol=1e-4, atol=1e-4)
        pulled = defence.estimate_gradient(turned(low + span * X), turned(grad / span), index=0)
        wanted = unit.estimate_gradient(X, grad, index=0) / span
        assert_allclose(pulled, turned(wanted), rtol=1e-3, atol=1e-6)


def test_bytes_and_other_types():
    levels = np.rint(255 * X).astype(np.uint8)
    expected = mixing().transform(levels / 255)
    out = mixing(clip_values=(0, 255)).transform(levels)
    assert out.dtype == np.float32
    assert_allclose(out, 255 * expected, rtol=1e-4, atol=1e-3)
    assert mixing().transform(X.astype(np.float16)).dtype == np.float16
    assert mixing().transform(X[:0]).shape == (0, 4, 3, 2)
    assert mixing().transform(X[:, :1, :1]).shape == (5, 1, 1, 2)


def test_results_and_images_are_saturated():
    class Far(torch.nn.Module):
        def forward(self, x, t):
            return x * 0 - torch.tensor([9.0, -9.0])[:, None, None]

    out = DiffusionPurification(model=Far(), schedule="linear", rng=0).transform(X)
    assert_array_equal(out[..., 0], 1)
    assert_array_equal(out[..., 1], 0)
    beyond = 1.5 * X - 0.25
    assert_array_equal(mixing().transform(beyond), mixing().transform(np.clip(beyond, 0, 1)))


# Whose draws they are


def test_draws_depend_on_seed_and_number_alone():
    out = mixing().transform(X, index=10)
    assert_array_equal(mixing(batch_size=2).transform(X, index=10), out)
    parts = [mixing().transform(X[i : i + 1], index=10 + i) for i in range(5)]
    assert_array_equal(np.concatenate(parts), out)
    assert_array_equal(
        mixing(channels_first=True).transform(channels_first(X), index=10), channels_first(out)
    )
    assert abs(mixing().transform(X, index=11) - out).max() > 0.01
    assert abs(mixing(rng=8).transform(X, index=10) - out).max() > 0.01
    defence = mixing()
    assert abs(defence.transform(X) - defence.transform(X)).max() > 0.01


def test_every_step_has_noise_of_its_own():
    class Same(torch.nn.Module):
        """Each step back returns what it gets, less its share, and noise."""

        def forward(self, x, t):
            seen.append(x.clone().numpy())
            return x * 0

    seen, x = [], np.full((1, 40, 40, 1), 0.5)
    a = LINEAR[[899, 599, 299]]
    DiffusionPurification(model=Same(), schedule=a[::-1], t_star=1, rng=0).transform(x)
    first = seen[0] / np.sqrt(1 - a[0])
    second = seen[1] - np.sqrt(a[1] / a[0]) * seen[0]
    third = seen[2] - np.sqrt(a[2] / a[1]) * seen[1]
    for noise, other in ((first, second), (first, third), (second, third)):
        for shift in range(5):  # as if blocks overlapped
            shifted = noise.ravel()[shift:], other.ravel()[: noise.size - shift]
            assert abs(np.corrcoef(*shifted)[0, 1]) < 0.1
    assert second.std() == pytest.approx(np.sqrt((1 - a[1]) / (1 - a[0]) * (1 - a[0] / a[1])), rel=0.05)


def test_deterministic_steps_draw_only_once():
    rows = [(sampler, steps) for sampler in ("ddpm", "ddim") for steps in (2, 4)]
    states = [mixing(sampler=sampler, steps=steps).transform(X) for sampler, steps in rows]
    ddpm, ddim = abs(states[0] - states[1]).max(), abs(states[2] - states[3]).max()
    assert ddim < ddpm / 2


# Gradients


def test_the_gradient_of_gaussian_data_is_known():
    # Each step multiplies the distance from the mean of noisy images; here by hand, for two steps.
    deviation, (a, b) = 0.5, LINEAR[[99, 49]]

    def step(a, b):
        share = (1 - a) / (a * deviation**2 + 1 - a)  # of the noise, in the noisy image, times its root
        return np.sqrt(b) * (1 - share) / np.sqrt(a) + np.sqrt(1 - b) * share / np.sqrt(1 - a)

    two = np.sqrt(a) * step(a, b) * step(b, 1.0)
    one = np.sqrt(a) * step(a, 1.0)
    grad = np.random.default_rng(0).standard_normal(X.shape)
    for options, expected in (
        ({}, two),
        ({"gradient": "surrogate", "surrogate_steps": 1}, one),
        ({"gradient": "surrogate", "surrogate_steps": 2}, two),
        ({"gradient": "surrogate", "surrogate_steps": 9}, two),
        ({"gradient": "identity"}, 1.0),
    ):
        defence = DiffusionPurification(
            (-9, 9), Known(0.0, deviation), 0.1, 2, "ddim", schedule="linear", rng=0, **options
        )
        assert_allclose(defence.estimate_gradient(X, grad), expected * grad, rtol=1e-5)


def test_the_surrogate_is_a_shorter_way_from_the_same_noise():
    range_ = (-4, 5)  # nothing is saturated
    defence = mixing(clip_values=range_, gradient="surrogate", surrogate_steps=2)
    grad = np.random.default_rng(0).standard_normal(X.shape)
    with defence.frozen(5), mixing(clip_values=range_, steps=2).frozen(5) as shorter:
        pulled = defence.estimate_gradient(X, grad)
        exact = shorter.estimate_gradient(X, grad)
    assert_array_equal(pulled, exact)


def test_saturated_values_have_no_gradient():
    x, grad = X.copy(), np.ones(X.shape)
    x[0, 0, 0, 0], x[0, 0, 1, 0] = 1.5, 0.0
    pulled = mixing(steps=1, t_star=0.001).estimate_gradient(x, grad)
    assert pulled[0, 0, 0, 0] == 0 != pulled[0, 0, 1, 0]
    for high in np.linspace(0.6, 0.9, 7):  # the ends themselves are within, whatever the span rounds to
        ends = np.full((1, 1, 1, 2), high, np.float32)
        at = mixing(clip_values=(np.float32(0.1), np.float32(high)), gradient="surrogate")
        assert (at.estimate_gradient(ends, np.ones(ends.shape)) != 0).all()

    class Far(torch.nn.Module):
        def forward(self, x, t):
            return x - 90

    far = DiffusionPurification(model=Far(), schedule="linear", steps=2, rng=0)
    assert_array_equal(far.transform(X), np.ones(X.shape))
    assert_array_equal(far.estimate_gradient(X, grad), np.zeros(X.shape))
    assert (far.set_params(gradient="surrogate").estimate_gradient(X, grad) != 0).all()


def test_tensors_of_torch_with_the_gradient():
    defence = mixing()
    x = torch.tensor(X, requires_grad=True)
    with defence.frozen(3):
        out = defence.transform(x)
        out.sum().backward()
        assert_array_equal(out.detach().numpy(), defence.transform(X))
        assert_allclose(x.grad.numpy(), defence.estimate_gradient(X, np.ones_like(X)), rtol=1e-6)
    assert all(p.grad is None for p in known_image().parameters())


# Models


def unet(shape=(4, 3), channels=2):
    """What of a network of diffusers is read."""
    module = Mixing()
    module.config = SimpleNamespace(sample_size=shape, in_channels=channels)
    return module


def test_a_pipeline_of_diffusers():
    config = SimpleNamespace(prediction_type="sample")
    scheduler = SimpleNamespace(alphas_cumprod=torch.tensor(LINEAR[:50]), config=config)
    pipeline = SimpleNamespace(unet=unet(), scheduler=scheduler)
    expected = mixing(model=unet(), schedule=scheduler).transform(X)
    assert_array_equal(mixing(model=pipeline, schedule=None).transform(X), expected)
    assert abs(expected - mixing(model=unet(), schedule=LINEAR[:50]).transform(X)).max() > 0.01
    assert_array_equal(
        mixing(model=pipeline, schedule="linear").transform(X), mixing(schedule="linear").transform(X)
    )
    square = unet(shape=3)
    with pytest.raises(ValueError, match="height 3, width 3, channels 2, got height 4, width 3, channels 2"):
        mixing(model=square).transform(X)
    with pytest.raises(ValueError, match="height 4, width 3, channels 3, got height 4, width 3, channels 2"):
        mixing(model=unet(channels=3)).transform(X)


def test_fit_trains_a_model_and_leaves_that_of_the_caller():
    given = DiffusionModel(8, 20)
    defence = DiffusionPurification((0, 255), given, rng=0, t_star=0.5, channels_first=True)
    assert not defence.is_fitted
    with pytest.raises(ValueError, match=r"has no trained model yet: call fit\(x\) with clean"):
        defence.transform(channels_first(255 * X))
    assert defence.fit(channels_first(255 * X), epochs=2, learning_rate=1e-3) is defence
    assert defence.is_fitted
    assert not given.is_fitted
    assert defence.model_.input_shape == (4, 3, 2)
    expected = DiffusionModel(8, 20).fit(X, epochs=2, learning_rate=1e-3)
    trained = DiffusionPurification((0, 255), expected, rng=0, t_star=0.5, channels_first=True)
    with defence.frozen(0), trained.frozen(0):
        out = trained.transform(channels_first(255 * X))
        assert_allclose(defence.transform(channels_first(255 * X)), out, rtol=1e-3, atol=0.05)
    assert trained.fit(channels_first(255 * X)) is trained
    with pytest.raises(ValueError, match="unexpected keyword argument 'epochs': `model` is trained"):
        trained.fit(channels_first(255 * X), epochs=3)
    with pytest.raises(ValueError, match=r"height 4, width 3, channels 2, got height 2, width 3, channels 2"):
        trained.transform(channels_first(255 * X[:, :2]))
    with pytest.raises(ValueError, match=r"height 4, width 3, channels 2, got height 3, width 3, channels 2"):
        trained.fit(channels_first(255 * X[:, :3]))
    assert copy.deepcopy(trained).model.input_shape == (4, 3, 2)


def test_an_evaluation_attacks_with_each_gradient():
    weights = torch.tensor(np.random.default_rng(0).normal(size=(24, 2)), dtype=torch.float32)
    classifier = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(24, 2, bias=False))
    classifier[1].weight.data = weights.T.contiguous()
    x = channels_first(X)
    y = classifier(torch.tensor(x)).argmax(1).numpy()
    defence = mixing(channels_first=True, steps=2, surrogate_steps=1)
    report = evaluate(classifier, x, y, {"diffusion": defence}, clip_values=(0, 1), budget=4, eot=2)
    assert report.rows[1].columns["adaptive"].accuracy < 0.5


# What is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"t_star": 0}, "`t_star` must be above 0, got 0"),
        ({"t_star": 1.1}, "`t_star` must be between 0 and 1, got 1.1"),
        ({"t_star": np.nan}, "`t_star` must be finite"),
        ({"steps": 0}, "`steps` must be at least 1, got 0"),
        ({"steps": 2.5}, "`steps` must be an integer, got 2.5"),
        ({"sampler": "euler"}, "`sampler` must be one of 'ddpm', 'ddim', got 'euler'"),
        ({"gradient": "adjoint"}, "`gradient` must be one of 'identity', 'surrogate', 'exact'"),
        ({"surrogate_steps": 0}, "`surrogate_steps` must be at least 1"),
        ({"batch_size": 0}, "`batch_size` must be at least 1"),
        ({"clip_values": (1, 0)}, "`clip_values`"),
        ({"model": 3}, "`model` must be None, a DiffusionModel, a torch module or a pipeline of diffusers"),
        ({"model": lambda x, t: x}, "got an object of type function"),
        ({"schedule": None}, "`schedule` must be given with a torch module"),
        ({"schedule": "quadratic"}, "`schedule` must be 'linear', 'cosine'"),
        ({"model": None}, "`schedule` must be None, because a DiffusionModel has its own, got 'linear'"),
        ({"layout": "NFHWC"}, "`layout`"),
    ],
    ids=lambda given: str(given).partition(" at 0x")[0],  # the same for all workers
)
def test_what_is_refused_at_once(options, message):
    with pytest.raises(ValueError, match=message):
        mixing(**options)


def test_what_is_refused_when_the_model_is_asked():
    message = r"`steps` must be at most the number of timesteps up to `t_star`, 100 of 1000, got 101"
    with pytest.raises(ValueError, match=message):
        mixing(steps=101).transform(X)
    nothing = Known(np.nan, 0.1)
    message = r"`model` must return finite numbers, got 120 values that are NaN or infinite"
    with pytest.raises(ValueError, match=message):
        mixing(model=nothing).transform(X)
    with pytest.raises(ValueError, match=r"`x`.*NaN"):
        mixing().transform(np.where(X > 0.5, np.nan, X))
    with pytest.warns(UserWarning, match="clip_values"):
        mixing().transform(255 * X)
    assert respaced(99, 100) == list(range(99, -1, -1))
