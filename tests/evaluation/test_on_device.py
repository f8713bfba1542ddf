"""Evaluations on an accelerator: the host plays one, and kernels, which compute there, must not be called."""

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
SETTINGS = {"budget": 8, "eot": 2, "clip_values": UNIT, "verbose": False}


@pytest.fixture
def play(monkeypatch):
    """What lets tensors on the host be taken for tensors on an accelerator."""
    torch = pytest.importorskip("torch")
    from preshield.evaluation import defended as of_attacks
    from preshield.frameworks import dispatch
    from preshield.frameworks import torch as room

    def play():
        for module in (room, dispatch, of_attacks):
            monkeypatch.setattr(module, "on_device", lambda x: isinstance(x, torch.Tensor))

    return play


def model():
    torch = pytest.importorskip("torch")
    layer = torch.nn.Linear(192, 4, bias=False)
    layer.weight.data = torch.from_numpy(WEIGHTS.T.copy())
    return torch.nn.Sequential(torch.nn.Flatten(), layer).requires_grad_(False)


def norms():
    return {row.name: row.norms for row in evaluate(model(), X, Y, DEFENCES, **SETTINGS).rows}


def test_defences_compute_where_the_model_does(play, monkeypatch):
    expected = norms()
    play()
    on_host = Pass.begin

    def refused(defence, x, *args, **kwargs):
        assert len(x) <= 2, f"{defence} computes on the host"  # where each is tried on two samples
        return on_host(defence, x, *args, **kwargs)

    monkeypatch.setattr(Pass, "begin", refused)
    found = norms()
    assert found.keys() == expected.keys()
    for name, of_row in found.items():  # the same draws and the same arithmetic, rounded differently
        np.testing.assert_allclose(of_row, expected[name], rtol=0.05, err_msg=name)


def test_fewer_draws_at_once_where_memory_ends(play):
    """All draws make one batch, then half of them, until they fit."""
    torch = pytest.importorskip("torch")
    from preshield.evaluation.classifiers import as_classifier
    from preshield.evaluation.defended import DefendedModel
    from preshield.evaluation.losses import cross_entropy

    class Small(torch.nn.Module):
        sizes, limit = (), 1000

        def forward(self, x):
            Small.sizes += (len(x),)
            if len(x) > self.limit:
                raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB.")
            return x.flatten(1) @ torch.from_numpy(WEIGHTS)

    classifier = as_classifier(Small(), X[:2])
    facts = {"clip_values": UNIT, "nb_classes": 4, "input_shape": X.shape[1:], "draws": 7}

    def look():
        model = DefendedModel(classifier, DEFENCES["noise"], **facts)
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
