"""Randomized smoothing: against SciPy and the closed form of a linear model, and what is refused."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from preshield import (
    Chain,
    Denoiser,
    FeatureSqueezing,
    GaussianAugmentation,
    LabelSmoothing,
    RandomizedSmoothing,
    WaveletDenoising,
    evaluate,
)
from preshield.evaluation.diagnostics import diagnose
from preshield.evaluation.report import Column, RobustnessRow, Threat
from preshield.evaluation.smoothing import NetworkDenoiser
from preshield.evaluation.smoothing_report import certified, largest_radius, lower_bound, significant

RNG = np.random.default_rng(0)
WEIGHTS = RNG.standard_normal(12)
X = RNG.random((5, 12), dtype=np.float32)
DISTANCES = (X - 0.5) @ WEIGHTS / np.linalg.norm(WEIGHTS)  # signed, from the boundary of `linear`
ALPHA = 0.001


def linear(x):
    """Class 1 on one side of a hyperplane through the middle."""
    return ((x.reshape(len(x), -1) - 0.5) @ WEIGHTS > 0).astype(int)


def in_torch(weights=WEIGHTS, shape=None):
    torch = pytest.importorskip("torch")
    layer = torch.nn.Linear(len(weights), 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(np.stack([-weights, weights]) / 2))
        layer.bias.copy_(torch.tensor(np.array([1, -1]) * weights.sum() / 4))
    return torch.nn.Sequential(torch.nn.Flatten(), layer)


# The figures


@given(st.integers(1, 400), st.data(), st.floats(1e-6, 0.5))
def test_lower_bound_is_that_of_scipy(trials, data, alpha):
    successes = data.draw(hnp.arrays(np.int64, st.integers(1, 4), elements=st.integers(0, trials)))
    expected = [
        stats.binomtest(int(k), trials, alternative="greater").proportion_ci(1 - alpha, "exact").low
        for k in successes
    ]
    np.testing.assert_allclose(lower_bound(successes, trials, alpha), expected, rtol=1e-9, atol=1e-12)


@given(
    hnp.arrays(np.int64, st.tuples(st.integers(0, 4), st.integers(2, 4)), elements=st.integers(0, 60)),
    st.floats(1e-6, 0.9),
)
def test_abstaining_is_the_exact_binomial_test(counts, alpha):
    def one(row):
        second, first = np.sort(row)[-2:]
        total = int(first + second)
        chance = stats.binomtest(int(first), total).pvalue if total else 1.0
        if abs(chance - alpha) < 1e-12 * alpha:
            return None
        return int(row.argmax()) if chance <= alpha and first > second else -1

    for found, expected in zip(significant(counts, alpha), map(one, counts), strict=True):
        assert expected is None or found == expected


def test_certificates_by_hand():
    # 40 of 40: the bound is alpha ** (1 / 40); 20 of 40: below one half
    selection = np.array([[1, 3, 0], [2, 2, 0], [0, 0, 4]])
    estimation = np.array([[0, 40, 0], [20, 20, 0], [40, 0, 0]])
    labels, radii = certified(selection, estimation, 40, 0.5, 0.05)
    assert labels.tolist() == [1, -1, -1]
    np.testing.assert_allclose(radii, [0.5 * stats.norm.ppf(0.05 ** (1 / 40)), 0, 0])
    assert radii[0] == largest_radius(0.5, 40, 0.05)
    # of 50 draws 10 had no label: they count as draws
    _, fewer = certified(selection, estimation, 50, 0.5, 0.05)
    bound = stats.binomtest(40, 50, alternative="greater").proportion_ci(0.95, "exact").low
    np.testing.assert_allclose(fewer[0], 0.5 * stats.norm.ppf(bound))


def test_radii_of_a_linear_model_approach_the_closed_form():
    n, sigma = 10_000, 0.5
    labels, radii = RandomizedSmoothing(linear, sigma, n=n, alpha=ALPHA, rng=3, batch_size=5000).certify(X)
    np.testing.assert_array_equal(labels, DISTANCES > 0)
    share = stats.norm.cdf(np.abs(DISTANCES) / sigma)  # of the draws on the side of the sample
    assert (radii <= np.abs(DISTANCES)).all()
    # what the authors' procedure gives for a count that is four standard deviations low
    fewest = n * share - 4 * np.sqrt(n * share * (1 - share)) - 1
    bound = stats.beta.ppf(ALPHA, fewest, n - fewest + 1)
    assert (radii >= sigma * stats.norm.ppf(bound)).all()


def test_predict_by_counts():
    seen = []

    def model(x):
        seen.append(x)
        return np.where(np.arange(len(x)) % 4 == 0, 1, 0)  # whatever it sees

    smoothed = RandomizedSmoothing(model, 0.1, n0=8, n=40, alpha=0.01, batch_size=40, rng=0)
    # 30 against 10 of 40: p = 0.0022
    assert smoothed.predict(X[:1]).tolist() == [0]
    assert stats.binomtest(30, 40).pvalue < 0.01
    smoothed.alpha = 0.001
    assert smoothed.predict(X[:1]).tolist() == [-1]


# Draws


def test_the_model_sees_unclipped_gaussian_noise():
    seen = []
    x = np.full((2, 3, 40), 0.9, np.float32)

    def keeping(x):
        seen.append(np.array(x))
        return (x[:, 0, 0] > 0.5).astype(int)

    RandomizedSmoothing(keeping, 0.3, n=1000, batch_size=1100, rng=0).certify(x)
    noise = np.concatenate([seen[0], seen[2]]) - x[0]  # the second call repeats some rows
    assert noise.shape == (2200, 3, 40)
    assert noise.dtype == np.float32
    assert (noise > 0.9).any()
    assert stats.kstest(noise.ravel()[::7] / 0.3, "norm").pvalue > 1e-3
    assert abs(noise.std() - 0.3) < 0.003
    flat = noise.reshape(2200, -1)
    assert len(np.unique(flat[:, 0])) > 2190  # each draw anew, the first hundred too
    assert np.abs(np.corrcoef(flat[:1100, :5].T, flat[1100:, :5].T) - np.eye(10)).max() < 0.15


@pytest.mark.parametrize("size", [1, 7, 5000])
def test_results_depend_on_the_seed_and_the_number_alone(size):
    options = {"n0": 10, "n": 60}
    whole = RandomizedSmoothing(linear, 0.5, rng=5, **options).certify(X)
    smoothed = RandomizedSmoothing(linear, 0.5, rng=5, batch_size=size, **options)
    np.testing.assert_array_equal(smoothed.certify(X).radii, whole.radii)
    parts = [smoothed.certify(X[:2]), smoothed.certify(X[2:], index=2)]  # a call does not move the next one
    np.testing.assert_array_equal(np.concatenate([part.radii for part in parts]), whole.radii)
    shuffled = smoothed.certify(X[::-1], index=np.arange(5)[::-1]).radii
    np.testing.assert_array_equal(shuffled[::-1], whole.radii)
    assert (RandomizedSmoothing(linear, 0.5, rng=6, **options).certify(X).radii != whole.radii).any()


def test_other_sources_of_draws():
    def certify(rng):
        return RandomizedSmoothing(linear, 0.5, n=200, rng=rng).certify(X).radii

    np.random.seed(1)
    first, second = certify(None), certify(None)
    np.random.seed(1)
    np.testing.assert_array_equal(certify(None), first)
    assert (first != second).any()
    np.testing.assert_array_equal(certify(np.random.default_rng(2)), certify(np.random.default_rng(2)))


def test_input_stays_and_may_be_of_any_kind():
    x = np.repeat(X, 2, axis=1)[:, ::2]
    before = x.copy()
    x.flags.writeable = False
    smoothed = RandomizedSmoothing(linear, 0.5, n0=10, n=100, rng=0)
    expected = smoothed.certify(X)
    for given_ in (x, X.astype(np.float64), X.tolist(), pytest.importorskip("torch").tensor(X)):
        np.testing.assert_array_equal(smoothed.certify(given_).radii, expected.radii)
    np.testing.assert_array_equal(x, before)
    labels, radii = smoothed.certify(X[:0])
    assert labels.shape == radii.shape == (0,)
    assert smoothed.predict(X[:0]).shape == (0,)
    assert smoothed.report(X[:0], np.zeros(0, int)).labels.shape == (0,)
    assert smoothed.certify(X.astype(np.float16)).radii.dtype == np.float64
    whole = RandomizedSmoothing(lambda x: linear(x / 255), 50, n0=10, n=100, rng=0)
    pixels = np.round(X * 255)
    np.testing.assert_array_equal(whole.certify(pixels.astype(np.uint8)).radii, whole.certify(pixels).radii)


# Models


def test_a_torch_module_predicts_without_dropout_and_keeps_its_flags():
    torch = pytest.importorskip("torch")
    plain = in_torch()
    model = torch.nn.Sequential(torch.nn.Dropout(0.5), plain).train()
    expected = RandomizedSmoothing(plain, 0.5, n=200, rng=0).certify(X)
    found = RandomizedSmoothing(model, 0.5, n=200, rng=0).certify(X)
    np.testing.assert_array_equal(found.radii, expected.radii)
    assert model.training
    assert model[0].training
    np.testing.assert_array_equal(
        RandomizedSmoothing(linear, 0.5, n=200, rng=0).certify(X).radii, expected.radii
    )


def test_models_of_other_kinds():
    expected = RandomizedSmoothing(linear, 0.5, n0=20, n=100, rng=0).certify(X)

    class Estimator:
        def predict_proba(self, x):
            return np.eye(2)[linear(x)]

    models = [Estimator(), lambda x: 3 * np.eye(5)[linear(x)] - 1]
    jax = pytest.importorskip("jax")
    weights = jax.numpy.asarray(np.stack([-WEIGHTS, WEIGHTS], axis=1))
    models.append(lambda x: (jax.numpy.asarray(x) - 0.5) @ weights)
    for model in models:
        found = RandomizedSmoothing(model, 0.5, n0=20, n=100, rng=0).certify(X)
        np.testing.assert_array_equal(found.radii, expected.radii)


def test_a_model_that_rejects_gives_no_label():
    half = RandomizedSmoothing(
        lambda x: np.where(x[:, 0] > 5, 1, -1), 0.1, n0=10, n=50, rng=0
    )  # never a label
    labels, radii = half.certify(X[:2])
    assert labels.tolist() == [-1, -1]
    assert radii.tolist() == [0, 0]
    assert half.predict(X[:2]).tolist() == [-1, -1]


def test_a_model_that_draws_is_refused():
    torch = pytest.importorskip("torch")

    class Dropping(torch.nn.Module):
        def forward(self, x):
            dropped = torch.nn.functional.dropout(x, 0.5, training=True)
            return torch.stack([dropped.sum(dim=1), 6 - dropped.sum(dim=1)], dim=1)

    rng = np.random.default_rng(0)
    for model in (Dropping(), lambda x: rng.integers(0, 2, len(x))):
        with pytest.raises(ValueError, match="`model` must give the same output for the same batch"):
            RandomizedSmoothing(model, 0.5, n=200, rng=0).certify(X)


# Denoisers


def images(channels_first=True):
    x = np.random.default_rng(1).random((3, 8, 8, 2), dtype=np.float32)
    return np.ascontiguousarray(np.moveaxis(x, -1, 1)) if channels_first else x


def bright(x):
    return (x.reshape(len(x), -1).mean(axis=1) > 0.5).astype(int)


def test_a_denoiser_stands_between_the_noise_and_the_model():
    by_hand = RandomizedSmoothing(lambda x: bright(np.rint(x)), 0.2, n0=4, n=8, rng=0).certify(images())
    for denoiser in (
        FeatureSqueezing((0, 1), 1),
        np.rint,
        Chain([FeatureSqueezing((0, 1), 1), FeatureSqueezing((0, 1), 1)]),
    ):
        found = RandomizedSmoothing(bright, 0.2, n0=4, n=8, denoiser=denoiser, rng=0).certify(images())
        np.testing.assert_array_equal(found.radii, by_hand.radii)


def test_noise_is_no_reason_for_a_warning_of_the_range():
    x = images(channels_first=False)
    denoiser = WaveletDenoising((0, 1), sigma=0.5)
    RandomizedSmoothing(bright, 0.5, n0=2, n=4, denoiser=denoiser, rng=0).certify(x)
    with pytest.warns(UserWarning, match="WaveletDenoising: `clip_values` should be the range"):
        RandomizedSmoothing(bright, 20, n0=2, n=4, denoiser=denoiser, rng=0).certify(x * 255)


def test_denoisers_that_draw_are_addressed():
    noise = GaussianAugmentation(0.3, augmentation=False)
    options = {"n0": 10, "n": 200, "denoiser": noise, "rng": 0}
    first = RandomizedSmoothing(linear, 0.4, **options).certify(X).radii
    np.testing.assert_array_equal(
        RandomizedSmoothing(linear, 0.4, batch_size=9, **options).certify(X).radii, first
    )
    alone = RandomizedSmoothing(linear, 0.4, n0=10, n=200, rng=0).certify(X).radii
    assert first.mean() < alone.mean()  # more noise, the same sigma


def test_a_network_is_differentiated_as_a_denoiser():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(2, 2, 3, padding=1)
    network = torch.nn.Sequential(conv, torch.nn.Tanh())
    defence, x = NetworkDenoiser(network), images()
    out = defence.transform(x)
    with torch.no_grad():
        np.testing.assert_allclose(out, network(torch.tensor(x)).numpy(), atol=1e-6)
    grad, step = RNG.standard_normal(x.shape).astype(np.float32), 1e-2
    pulled = defence.estimate_gradient(x, grad)
    direction = RNG.standard_normal(x.shape).astype(np.float32)
    plus, minus = (defence.transform(x + sign * step * direction) for sign in (1, -1))
    numeric = np.sum((plus - minus) / (2 * step) * grad, dtype=float)
    np.testing.assert_allclose(np.sum(pulled * direction, dtype=float), numeric, rtol=1e-2)
    tensor = torch.tensor(x)
    arithmetic = defence._arithmetic(x.shape, np.dtype(np.float32))
    np.testing.assert_allclose(arithmetic(tensor, torch).detach().numpy(), out, atol=1e-6)
    assert NetworkDenoiser(lambda x: x).gradient_kind == "identity"


def test_a_denoiser_keeps_the_shape():
    for denoiser in (lambda x: x[:, :1], lambda x: x[:1]):
        with pytest.raises(ValueError, match="`denoiser` must keep the shape of a batch"):
            RandomizedSmoothing(bright, 0.2, n0=2, n=4, denoiser=denoiser, rng=0).certify(images())


# Attacks


def attacked(sigma=0.3, n0=24, **options):
    return RandomizedSmoothing(in_torch(), sigma, n0=n0, n=200, rng=0, **options)


def test_gradient_of_the_averaged_probabilities():
    stand_in = attacked().for_attacks(X)
    upstream, step = RNG.standard_normal((5, 2)), 1e-3
    x, direction = stand_in.array(X), stand_in.array(RNG.standard_normal(X.shape))
    with stand_in.at(np.arange(5), (7, 1)):
        scores, pull = stand_in.forward(x)
        plus, minus = (stand_in.predict(x + sign * step * direction) for sign in (1, -1))
    pulled = np.asarray(pull(upstream))  # after the block: the draws are those of the forward pass
    numeric = ((plus - minus) / (2 * step) * upstream).sum()
    np.testing.assert_allclose((pulled * np.asarray(direction)).sum(), numeric, rtol=2e-3)
    np.testing.assert_allclose(scores.sum(axis=1), 1)
    with stand_in.at(np.arange(5), (7, 2)):
        assert (stand_in.predict(x) != scores).any()


def test_gradient_through_a_denoiser_and_in_groups():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    denoiser = torch.nn.Sequential(torch.nn.Linear(12, 12), torch.nn.Tanh())
    stand_in = attacked(n0=40, denoiser=denoiser).for_attacks(X)
    x, direction, step = stand_in.array(X), stand_in.array(RNG.standard_normal(X.shape)), 3e-3
    assert len(list(stand_in._groups(x, range(40), np.arange(5)))) > 1
    _, pull = stand_in.forward(x)
    plus, minus = (stand_in.predict(x + sign * step * direction) for sign in (1, -1))
    pulled = np.asarray(pull(np.tile([0.0, 1.0], (5, 1))))
    numeric = (plus - minus)[:, 1].sum() / (2 * step)
    np.testing.assert_allclose((pulled * np.asarray(direction)).sum(), numeric, rtol=5e-3)


def test_success_is_a_wrong_label_beyond_chance():
    stand_in = attacked(n0=40).for_attacks(X)
    middle = np.full((3, 12), 0.5, np.float32)
    shift = (WEIGHTS / np.linalg.norm(WEIGHTS)).astype(np.float32)
    x = stand_in.array(middle + np.array([[0.9], [0.0], [0.15]], np.float32) * shift)
    # 0.9 is three standard deviations away; 0 is on the boundary; 0.15 needs more than 40 draws
    assert stand_in.decide(x).tolist() == [1, -1, 1]
    y = np.array([0, 0, 0])
    margins = stand_in.margin(x, y)
    assert (margins < 0).tolist() == [True, False, False]
    _, _, looked = stand_in.look(x, y)
    np.testing.assert_array_equal(looked, margins)
    assert (stand_in.margin(x, 1 - y) > 0).all()


def test_no_attack_reaches_into_the_certificate():
    smoothed, y = attacked(sigma=0.2), (DISTANCES > 0).astype(int)
    labels, radii = smoothed.certify(X)
    report = evaluate(smoothed, X, y, clip_values=(-3, 4), budget=12, columns=["adaptive"], verbose=False)
    row = report["none"]
    norms = row.columns["adaptive"].norms
    assert np.isfinite(norms).all()
    assert (norms >= np.where(labels == y, radii, 0)).all()
    assert (norms >= np.abs(DISTANCES) - 0.02).all()  # in truth no smaller one exists
    assert not [d for d in report.diagnostics if d.check == "certificate broken"]
    for radius in (0, 0.1, 0.2, 0.3):
        certain = np.mean((labels == y) & (radii >= radius))
        assert row.accuracy_at(radius, or_rejected=True) >= certain
    assert "certified" in row.evidence


def test_a_broken_certificate_is_a_diagnostic():
    def row(norm, outcome):
        columns = {
            "clean": Column(np.array([[1, 1]], np.int8), np.zeros(2), "", 0.0),
            "adaptive": Column(np.array([[outcome, 0]], np.int8), np.array([norm, 0.9]), "", 0.0),
        }
        evidence = {"number": np.arange(2), "certified": np.array([0.5, 0.0])}
        return RobustnessRow("none", None, columns, 0.0, evidence=evidence, white_box=False)

    def fired(threat, *state):
        return [d.check for d in diagnose(row(*state), Threat(threat, None, (0.0, 1.0)))]

    assert fired("l2-minimum", 0.4, 0) == ["certificate broken"]
    assert fired("l1-minimum", 0.4, 0) == ["certificate broken"]
    for state in (("l2-minimum", 0.6, 0), ("l2-minimum", 0.4, -1), ("linf-minimum", 0.4, 0)):
        assert fired(*state) == []


def test_without_gradients_labels_are_attacked():
    smoothed = RandomizedSmoothing(linear, 0.3, n0=10, n=20, rng=0)
    report = evaluate(
        smoothed, X, linear(X), columns=["black-box"], budget=1, clip_values=(0, 1), verbose=False
    )
    assert report["none"].columns["black-box"].outcomes.shape == (1, 5)
    stand_in = smoothed.for_attacks(X)
    assert not hasattr(stand_in, "forward")


# What is refused


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"sigma": 0}, "`sigma` must be above 0"),
        ({"sigma": -1}, "`sigma` must be at least 0, got -1"),
        ({"sigma": np.nan}, "`sigma` must be finite"),
        ({"sigma": "0.5"}, "`sigma` must be a number"),
        ({"n0": 0}, "`n0` must be at least 1"),
        ({"n": 50}, "`n` must be at least `n0`, which is 100, got 50; pass n0=50"),
        ({"n": 10.5}, "`n` must be an integer"),
        ({"alpha": 0}, "`alpha` must lie between 0 and 1"),
        ({"alpha": 1.0}, "`alpha` must lie between 0 and 1"),
        ({"alpha": True}, "`alpha` must be a number"),
        ({"batch_size": 0}, "`batch_size` must be at least 1"),
        ({"rng": "seed"}, "`rng` must be None, an integer"),
        ({"denoiser": 3}, "`denoiser` must be a defence, a torch module"),
        ({"denoiser": LabelSmoothing(0.9)}, "`denoiser` must change samples"),
        ({"model": 3}, "`model` must be a torch module"),
    ],
)
def test_arguments_are_checked(arguments, match):
    with pytest.raises(ValueError, match=match):
        RandomizedSmoothing(**{"model": linear, "sigma": 0.5, **arguments})


def test_batches_are_checked():
    smoothed = RandomizedSmoothing(linear, 0.5, n0=2, n=4, rng=0)
    bad = X.copy()
    bad[1, 2] = np.nan
    with pytest.raises(ValueError, match=r"`x` .*NaN"):
        smoothed.certify(bad)
    with pytest.raises(ValueError, match=re.escape("pass x[None] for one sample")):
        smoothed.predict(X[0])
    with pytest.raises(ValueError, match=re.escape("is `radii / np.sqrt(x[0].size)`")):
        smoothed.certify(X, norm="linf")
    with pytest.raises(ValueError, match="`norm` must be"):
        smoothed.certify(X, norm="l1")
    for y in (None, np.zeros(4, int), np.full(5, 0.5)):
        with pytest.raises(ValueError, match="`y` must hold"):
            smoothed.report(X, y)
    with pytest.raises(ValueError, match="`index` must be the number"):
        smoothed.certify(X, index=[1, 2])
    with pytest.raises(ValueError, match="`model` must return"):
        RandomizedSmoothing(lambda x: x[:3, 0], 0.5, n0=2, n=4).certify(X)
    with pytest.raises(ValueError, match="scores that are numbers"):
        RandomizedSmoothing(lambda x: np.full((len(x), 2), np.nan), 0.5, n0=2, n=4).certify(X)


def test_units_are_doubted_once():
    pixels = (images() * 255).astype(np.uint8)
    smoothed = RandomizedSmoothing(bright, 0.25, n0=2, n=4, rng=0)
    with pytest.warns(
        UserWarning, match=re.escape("pass sigma=63.75, or scale the data, for example with x / 255")
    ):
        smoothed.certify(pixels)
    smoothed.certify(pixels)
    with pytest.warns(UserWarning, match="`sigma` should be in units of the data, got 64 for values up to"):
        RandomizedSmoothing(bright, 64, n0=2, n=4, rng=0).certify(images())
    RandomizedSmoothing(bright, 64, n0=2, n=4, rng=0).certify(pixels)
    RandomizedSmoothing(linear, 0.5, n0=2, n=4, rng=0).certify(100 * X)  # measurements, in any unit


def test_report_and_facts():
    y = np.array([0, 1, 1, 0, 1])
    smoothed = RandomizedSmoothing(linear, 0.4, n0=20, n=200, rng=0, denoiser=Denoised())
    report = smoothed.report(X, np.eye(2)[y])
    labels, radii = smoothed.certify(X)
    np.testing.assert_array_equal(report.radii, radii)
    np.testing.assert_array_equal(report.labels, labels)
    np.testing.assert_array_equal(report.plain, linear(X))
    assert (report.model, report.denoiser) == ("linear", "Denoised")
    assert repr(smoothed) == "RandomizedSmoothing(linear, 0.4, n0=20, n=200, alpha=0.001, denoiser=Denoised)"
    assert "arXiv:1902.02918" in smoothed._repr_html_()
    assert set(smoothed.get_params()) >= {"model", "sigma", "n0", "n", "alpha", "denoiser"}


class Denoised(FeatureSqueezing):
    def __init__(self):
        super().__init__((0, 1), 8)


def test_a_denoiser_of_our_own():
    pytest.importorskip("torch")
    x = images()
    denoiser = Denoiser(0.2, depth=2, width=2).fit(x, epochs=1)
    model = lambda x: bright(np.asarray(x))  # noqa: E731
    found = RandomizedSmoothing(model, 0.2, n0=4, n=20, denoiser=denoiser, rng=0).certify(x)
    by_hand = RandomizedSmoothing(model, 0.2, n0=4, n=20, denoiser=denoiser.denoise, rng=0).certify(x)
    np.testing.assert_array_equal(found.radii, by_hand.radii)
