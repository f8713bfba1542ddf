"""The way back through a diffusion: formulas of the papers written naively, Gaussian data, derivatives."""

import sys
from types import SimpleNamespace
from weakref import ref

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from preshield.neural.diffusion import Diffusion, respaced, schedule_of
from tests.vision import vision

torch = pytest.importorskip("torch")

RNG = np.random.default_rng(0)
X = RNG.uniform(-1, 1, (3, 2, 3, 5))
ALPHAS = schedule_of("linear")
KINDS = ("epsilon", "v_prediction", "sample")


class Curved(torch.nn.Module):
    """A function of neighbours, channels and steps that is not linear, in double precision."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = torch.nn.Conv2d(2, 2, 3, padding=1).double()

    def forward(self, x, t):
        return torch.tanh(self.conv(x)) + 1e-3 * t[:, None, None, None] * x**2


class Gaussian(torch.nn.Module):
    """The noise that is expected in images whose values are normal, with a mean and a deviation."""

    def __init__(self, mean, deviation):
        super().__init__()
        self.mean, self.variance = mean, deviation**2
        self.alphas = torch.nn.Parameter(torch.tensor(ALPHAS))

    def forward(self, x, t):
        a = self.alphas[t][:, None, None, None]
        return (1 - a).sqrt() * (x - a.sqrt() * self.mean) / (a * self.variance + 1 - a)


def scheduler(kind, alphas=ALPHAS):
    """What of a scheduler of diffusers is read."""
    config = SimpleNamespace(prediction_type=kind)
    return SimpleNamespace(alphas_cumprod=torch.tensor(alphas), config=config)


def blocks(shape=X.shape):
    """Normals that are the same for a block whenever it is asked for."""
    return lambda block: np.random.default_rng(block).standard_normal(shape)


def last(diffusion, x, steps, noise, eta):
    *_, state = diffusion.states(x, steps, noise, eta=eta)
    return state.detach().numpy()


# Schedules and steps


def test_schedules_of_the_papers():
    variances = np.linspace(1e-4, 0.02, 1000)  # Ho et al. 2020, section 4
    left = 1.0
    for step, variance in enumerate(variances):
        left *= 1 - variance
        assert ALPHAS[step] == pytest.approx(left, rel=1e-10)
    cosine = schedule_of("cosine", 100)
    f = [np.cos((i / 100 + 0.008) / 1.008 * np.pi / 2) ** 2 for i in range(101)]  # Nichol, Dhariwal, eq. 17
    assert_allclose(cosine[:-1], [value / f[0] for value in f[1:-1]], rtol=1e-9)
    assert cosine[-1] == pytest.approx(cosine[-2] * (1 - 0.999))


def test_a_schedule_of_an_object_and_of_an_array():
    assert_array_equal(schedule_of(scheduler("epsilon")), ALPHAS)
    assert_array_equal(schedule_of([0.5, 0.25]), [0.5, 0.25])
    assert_array_equal(schedule_of([0.5, 0]), [0.5, 0])


@pytest.mark.parametrize(
    "schedule",
    ["quadratic", [], [0.5, 0.6], [1.0, 0.5], [0.5, -0.1], [[0.5]], 3, [np.nan], object(), np.zeros(3)],
)
def test_what_is_no_schedule(schedule):
    with pytest.raises(ValueError, match="`schedule` must be 'linear', 'cosine', a scheduler"):
        schedule_of(schedule)


def test_steps_are_evenly_spaced_from_the_last_one_on():
    assert respaced(99, 4) == [99, 74, 49, 24]
    assert respaced(2, 3) == [2, 1, 0]
    assert respaced(9, 1) == [9]
    assert respaced(9, 4) == [9, 7, 4, 2]  # the ceilings of 10, 7.5, 5 and 2.5, numbered from 0


# The way back


def test_ancestral_sampling_is_that_of_the_paper():
    # Ho et al. 2020, algorithm 2, with the smaller of the two variances of section 3.2.
    alphas, noise, network = ALPHAS[::50][:6], blocks(), Curved()
    x = np.sqrt(alphas[5]) * X + np.sqrt(1 - alphas[5]) * noise(0)
    for t in range(5, -1, -1):
        before = alphas[t - 1] if t else 1.0
        beta = 1 - alphas[t] / before
        found = network(torch.tensor(x), torch.full((3,), t)).detach().numpy()
        x = (x - beta / np.sqrt(1 - alphas[t]) * found) / np.sqrt(1 - beta)
        if t:
            x = x + np.sqrt((1 - before) / (1 - alphas[t]) * beta) * noise(t)
    assert_allclose(last(Diffusion(network, alphas), X, respaced(5, 6), noise, 1.0), x, rtol=1e-10)


def test_deterministic_sampling_follows_the_flow_of_gaussian_data():
    # Along the flow, the distance from the mean in deviations of the noisy images stays as it is.
    mean, deviation = 0.3, 0.5
    diffusion = Diffusion(Gaussian(mean, deviation), "linear")
    a, noise = ALPHAS[399], blocks()
    noisy = np.sqrt(a) * X + np.sqrt(1 - a) * noise(0)
    expected = mean + deviation * (noisy - np.sqrt(a) * mean) / np.sqrt(a * deviation**2 + 1 - a)
    errors = [
        abs(last(diffusion, X, respaced(399, count), noise, 0.0) - expected).max() for count in (400, 100)
    ]
    assert errors[0] < 0.01 < errors[1] < 0.05


def test_ancestral_sampling_keeps_the_distribution_of_the_data():
    mean, deviation = -0.2, 0.4
    x = mean + deviation * np.random.default_rng(1).standard_normal((1, 1, 100, 200))
    out = last(Diffusion(Gaussian(mean, deviation), "linear"), x, respaced(499, 250), blocks(x.shape), 1.0)
    assert out.mean() == pytest.approx(mean, abs=0.01)
    assert out.std() == pytest.approx(deviation, abs=0.01)
    # Of the image that came, as much is left as its share in the noisy one tells.
    a, left = ALPHAS[499], np.corrcoef(x.ravel(), out.ravel())[0, 1]
    assert left == pytest.approx(a * deviation**2 / (a * deviation**2 + 1 - a), abs=0.02)


def test_one_image_that_the_model_knows_is_all_that_remains():
    known = torch.tensor(X[:1])

    class One(torch.nn.Module):
        def forward(self, x, t):
            a = torch.tensor(ALPHAS)[t][:, None, None, None]
            return ((x - a.sqrt() * known) / (1 - a).sqrt()).to(x.dtype)

    for eta in (0.0, 1.0):
        out = last(Diffusion(One(), "linear"), -X[:1], respaced(99, 7), blocks(known.shape), eta)
        assert_allclose(out, known, atol=1e-4)  # of a module without weights, in single precision


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_the_same_model_by_each_of_its_predictions(eta):
    class Predicts(torch.nn.Module):
        def __init__(self, kind):
            super().__init__()
            self.noise, self.kind = Gaussian(0.1, 0.6), kind

        def forward(self, x, t):
            noise, a = self.noise(x, t), torch.tensor(ALPHAS)[t][:, None, None, None]
            clean = (x - (1 - a).sqrt() * noise) / a.sqrt()
            found = {
                "epsilon": noise,
                "sample": clean,
                "v_prediction": a.sqrt() * noise - (1 - a).sqrt() * clean,
            }[self.kind]
            return SimpleNamespace(sample=torch.cat([found, found * 0 + 7], dim=1))  # variances, as it were

    results = [
        last(Diffusion(Predicts(kind), scheduler(kind)), X, respaced(149, 5), blocks(), eta) for kind in KINDS
    ]
    assert_allclose(results[1], results[0], rtol=1e-9)
    assert_allclose(results[2], results[0], rtol=1e-9)
    plain = last(Diffusion(Gaussian(0.1, 0.6), ALPHAS), X, respaced(149, 5), blocks(), eta)
    assert_allclose(results[0], plain, rtol=1e-9)


def test_images_are_saturated_in_each_step_if_asked():
    class Far(torch.nn.Module):
        def forward(self, x, t):
            return x * 0 + 5  # an image of 3 deviations below

    alphas = [0.8, 0.5]
    out = last(Diffusion(Far(), alphas, saturated=True), X, [1], blocks(), 0.0)
    assert_array_equal(out, np.full(X.shape, -1))
    noisy = np.sqrt(0.5) * X + np.sqrt(0.5) * blocks()(0)
    first = np.sqrt(0.8) * -1 + np.sqrt(0.2) * (noisy + np.sqrt(0.5)) / np.sqrt(0.5)
    states = list(Diffusion(Far(), alphas, saturated=True).states(X, [1, 0], blocks(), eta=0.0))
    assert_allclose(states[1], first, rtol=1e-5)


# The gradient


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_meets_finite_differences(kind, eta):
    diffusion, steps, noise = Diffusion(Curved(), scheduler(kind, ALPHAS[::100])), [4, 2, 1], blocks()
    direction, given = RNG.standard_normal((2, *X.shape))
    h = 1e-6
    ahead, behind = (last(diffusion, X + sign * h * direction, steps, noise, eta) for sign in (1, -1))
    seen = []
    with torch.inference_mode():  # whatever mode the caller is in
        pulled = diffusion.pull_back(X, steps, noise, lambda image: (seen.append(image), given)[1], eta=eta)
    assert (pulled * direction).sum() == pytest.approx((given * (ahead - behind)).sum() / (2 * h), rel=1e-6)
    assert_array_equal(seen[0], last(diffusion, X, steps, noise, eta))


def test_the_gradient_holds_the_activations_of_one_step():
    alive, most = [], []

    class Remembers(torch.nn.Module):
        def forward(self, x, t):
            activation = torch.sin(3 * x)
            if torch.is_grad_enabled():
                alive.append(ref(activation))
                most.append(sum(held() is not None for held in alive))
            return activation**2

    diffusion = Diffusion(Remembers(), "linear")
    diffusion.pull_back(X, respaced(99, 20), blocks(), np.ones_like, eta=1.0)
    assert most == [1] * 20


# Models of others


def test_what_a_model_may_not_return():
    def wrong(returned):
        class Wrong(torch.nn.Module):
            def forward(self, x, t):
                return returned(x)

        return Diffusion(Wrong(), "linear")

    message = r"`model` must return a tensor of the shape of its noisy images, \(3, 2, 3, 5\), got "
    for returned, got in (
        (lambda x: x[:, :1], r"\(3, 1, 3, 5\)"),
        (lambda x: x[..., :4], r"\(3, 2, 3, 4\)"),
        (lambda x: [1, 2], "list"),
    ):
        with pytest.raises(ValueError, match=message + got):
            list(wrong(returned).states(X, [5], blocks(), eta=1.0))
    with pytest.raises(ValueError, match="must be one of 'epsilon', 'v_prediction', 'sample', got 'flow'"):
        Diffusion(Curved(), scheduler("flow"))
    with pytest.raises(ValueError, match="leaves nothing of an image at step 1"):
        list(Diffusion(Curved(), [0.5, 0.0]).states(X, [1], blocks(), eta=1.0))
    with pytest.raises(TypeError, match="positional argument") as caught:
        list(Diffusion(torch.nn.Identity(), "linear").states(X, [5], blocks(), eta=1.0))
    assert "noisy images of shape (3, 2, 3, 5) at step 5" in caught.value.__notes__[0]


def test_a_network_in_half_precision_keeps_images_in_single_precision():
    network = torch.nn.Conv2d(2, 2, 1).to(torch.bfloat16)

    class Half(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = network

        def forward(self, x, t):
            assert x.dtype == torch.bfloat16
            return self.conv(x)

    diffusion = Diffusion(Half(), "linear")
    *_, state = diffusion.states(X, [9, 4], blocks(), eta=1.0)
    assert state.dtype == torch.float32


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("sampler", ["DDPM", "DDIM"])
def test_beside_the_schedulers_of_diffusers(kind, sampler, monkeypatch):
    diffusers = vision("diffusers")
    torch.manual_seed(0)
    unet = diffusers.UNet2DModel(
        sample_size=8,
        in_channels=2,
        out_channels=2,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
    ).eval()
    x, steps = RNG.uniform(-1, 1, (2, 2, 8, 8)), respaced(9, 10)
    noise, options = blocks(x.shape), {"prediction_type": kind, "clip_sample": False}
    arguments = {"eta": 0.0} if sampler == "DDIM" else {}
    schedule = getattr(diffusers, f"{sampler}Scheduler")(**options)
    schedule.set_timesteps(1000)
    now = []
    module = sys.modules[type(schedule).__module__]
    monkeypatch.setattr(module, "randn_tensor", lambda *_, **__: single(noise(now[-1])))
    with torch.no_grad():
        state = schedule.add_noise(single(x), single(noise(0)), torch.tensor([9, 9]))
        for t in steps:
            now.append(t)
            state = schedule.step(unet(state, t).sample, t, state, **arguments).prev_sample
    ours = last(Diffusion(unet, schedule), x, steps, noise, float(sampler == "DDPM"))
    # Its shares are in single precision, so that what a step adds, their difference, has four digits.
    assert_allclose(ours, state, atol=1e-4)


def single(x):
    return torch.tensor(x, dtype=torch.float32)
