"""Evaluations on an accelerator: the host plays one, and kernels, which compute there, must not be called."""

import math
from functools import partial

import numpy as np
import pytest

from preshield import (
    Chain,
    FeatureSqueezing,
    GaussianAugmentation,
    JpegCompression,
    PixelDeflection,
    SpatialSmoothing,
    evaluate,
)
from preshield._core.passes import Pass
from preshield._core.tensors import framework, to_numpy
from preshield.evaluation.bounded_attack import bounded_attack
from preshield.evaluation.classifiers import as_classifier
from preshield.evaluation.defended import DefendedModel
from preshield.evaluation.losses import cross_entropy
from preshield.evaluation.oracle import Oracle

UNIT = (0.0, 1.0)
RNG = np.random.default_rng(0)
X = RNG.random((6, 3, 8, 8)).astype(np.float32)
WEIGHTS = RNG.standard_normal((192, 4)).astype(np.float32)
Y = (X.reshape(6, -1) @ WEIGHTS).argmax(axis=1)
NOISE = {"augmentation": False, "apply_fit": False, "apply_predict": True, "rng": 0}
DEFENCES = {
    "squeezing": FeatureSqueezing(UNIT, 3),
    "jpeg": JpegCompression(UNIT, quality=50, channels_first=True),
    "noise": GaussianAugmentation(0.1, **NOISE),
    "deflection": PixelDeflection(UNIT, 5, 3, denoiser=None, rng=0, channels_first=True),
    "chain": Chain([SpatialSmoothing(3, channels_first=True), GaussianAugmentation(0.1, **NOISE)]),
}
FACTS = {"clip_values": UNIT, "nb_classes": 4, "input_shape": X.shape[1:]}
SETTINGS = {"budget": 8, "eot": 2, "clip_values": UNIT, "verbose": False}


@pytest.fixture
def play(monkeypatch):
    """What lets tensors on the host be taken for tensors on an accelerator."""

    def play(kind="torch"):
        rooms = ["frameworks.dispatch", "evaluation.defended", f"frameworks.{kind}"]
        rooms += ["evaluation.jax_classifier"] if kind == "jax" else []
        for room in rooms:
            monkeypatch.setattr(f"preshield.{room}.on_device", lambda x: framework(x) == kind)

    return play


def model(kind="torch"):
    if kind == "jax":
        weights = pytest.importorskip("jax").numpy.asarray(WEIGHTS)
        return lambda x: x.reshape(len(x), -1) @ weights
    torch = pytest.importorskip("torch")
    layer = torch.nn.Linear(192, 4, bias=False)
    layer.weight.data = torch.from_numpy(WEIGHTS.T.copy())
    return torch.nn.Sequential(torch.nn.Flatten(), layer).requires_grad_(False)


def norms(kind, names):
    defences = {name: DEFENCES[name] for name in names}
    return {row.name: row.norms for row in evaluate(model(kind), X, Y, defences, **SETTINGS).rows}


# One of JAX, which compiles every operation.
@pytest.mark.parametrize(("kind", "names"), [("torch", list(DEFENCES)), ("jax", ["noise"])])
def test_defences_compute_where_the_model_does(kind, names, play, monkeypatch):
    expected = norms(kind, names)
    play(kind)
    on_host = Pass.begin

    def refused(defence, x, *args, **kwargs):
        assert len(x) <= 2, f"{defence} computes on the host"  # where each is tried on two samples
        return on_host(defence, x, *args, **kwargs)

    monkeypatch.setattr(Pass, "begin", refused)
    found = norms(kind, names)
    assert found.keys() == expected.keys()
    for name, of_row in found.items():  # the same draws and the same arithmetic, rounded differently
        np.testing.assert_allclose(of_row, expected[name], rtol=0.05, err_msg=name)


@pytest.mark.parametrize("kind", ["torch", "jax"])
def test_an_attack_fetches_numbers_alone(kind, play, monkeypatch):
    """No sample goes to the host, of those that stay and of those that leave the attack."""

    def oracle():
        defended = DefendedModel(as_classifier(model(kind), X[:2]), DEFENCES["noise"], **FACTS, draws=2)
        return Oracle(defended, defended.array(X), Y, np.arange(6), (0,))

    attack, fetched = partial(bounded_attack, norm="linf", eps=0.01, budget=8), []
    expected = attack(oracle())
    play(kind)

    def fetch(x):
        fetched.append(math.prod(x.shape[1:]))
        return to_numpy(x)

    monkeypatch.setattr("preshield.evaluation.perturbations.to_numpy", fetch)
    found = attack(oracle())
    assert 0 < (found.margins < 0).sum() < 6  # at once, or later
    assert framework(found.x) == kind
    assert max(fetched) <= 4  # scores
    np.testing.assert_allclose(found.margins, expected.margins, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.x, expected.x, atol=1e-6)


def test_fewer_draws_at_once_where_memory_ends(play):
    """All draws make one batch, then half of them, until they fit."""
    torch = pytest.importorskip("torch")

    class Small(torch.nn.Module):
        sizes, limit = (), 1000

        def forward(self, x):
            Small.sizes += (len(x),)
            if len(x) > self.limit:
                raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB.")
            return x.flatten(1) @ torch.from_numpy(WEIGHTS)

    classifier = as_classifier(Small(), X[:2])

    def look():
        model = DefendedModel(classifier, DEFENCES["noise"], **FACTS, draws=7)
        return model.look(classifier.array(X[:3]), Y[:3], cross_entropy, None, np.arange(3), (0,))

    wanted = look()
    Small.limit = 20
    play()
    Small.sizes = ()
    found = look()
    np.testing.assert_allclose(found.mean, wanted.mean, rtol=1e-5)
    np.testing.assert_allclose(found.gradient, wanted.gradient, rtol=1e-4, atol=1e-6)
    assert Small.sizes == (
        21,
        16,
        16,
        16,
    )  # the last are filled up
