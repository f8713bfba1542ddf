"""Evaluations of a model with its own preprocessing: the figures are those of a model written by hand."""

import numpy as np
import pytest
from PIL import Image

import preshield
from preshield import Chain, FeatureSqueezing, GaussianAugmentation, MajorityVote, curve, evaluate
from preshield._core.remedies import how_to_resize
from preshield.neural.preprocessing import Normalisation
from preshield.neural.pretrained import PretrainedModel
from tests.vision import vision

torch = pytest.importorskip("torch")

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
LEVELS = np.random.default_rng(0).integers(0, 256, (4, 9, 12, 3), dtype=np.uint8)
PICTURES = [Image.fromarray(levels) for levels in LEVELS]
CUT = np.moveaxis(LEVELS[:, 2:8, 3:9], -1, 1).astype(np.float32) / 255  # what a crop of 6 leaves
DEFENCES = {
    "bits": FeatureSqueezing((0, 1), 3),
    "noise": GaussianAugmentation(0.05, augmentation=False, apply_fit=False, apply_predict=True),
}
SMALL = {"eot": 2, "budget": 4, "threat": "linf", "eps": 0.02, "verbose": False, "seed": 1}
COLUMNS = ["noise", "oblivious", "adaptive"]


class ByHand(torch.nn.Module):
    """The same arithmetic, written once more."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model((x - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None])


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 6 * 6, 3)).eval()


@pytest.fixture(scope="module")
def labels(model):
    return ByHand(model)(torch.from_numpy(CUT)).argmax(dim=1).numpy()


@pytest.fixture(scope="module")
def expected(model, labels):
    return evaluate(ByHand(model), CUT, labels, DEFENCES, columns=COLUMNS, **SMALL)


def check_same(report, expected):
    assert [row.name for row in report.rows] == [row.name for row in expected.rows]
    for row, other in zip(report.rows, expected.rows, strict=True):
        for name, column in row.columns.items():
            np.testing.assert_array_equal(column.outcomes, other.columns[name].outcomes)
            np.testing.assert_array_equal(column.norms, other.columns[name].norms)


def crop():
    vision("torchvision")
    from torchvision import transforms

    steps = [transforms.CenterCrop(6), transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    return transforms.Compose(steps)


def test_the_figures_are_those_of_a_module_that_normalises(model, labels, expected):
    report = evaluate(
        model, CUT, labels, DEFENCES, columns=COLUMNS, preprocess=Normalisation(MEAN, STD), **SMALL
    )
    check_same(report, expected)
    assert report["none"].columns["clean"].accuracy == 1
    assert report["none"].columns["adaptive"].forward.sum() > 0


@pytest.mark.parametrize(
    "samples",
    [
        lambda labels: (PICTURES, labels),
        lambda labels: (LEVELS, labels),
        lambda labels: (torch.from_numpy(np.moveaxis(LEVELS, -1, 1).copy()), labels),
        lambda labels: (list(zip(PICTURES, labels, strict=True)).__iter__(), None),
        lambda labels: (iter([(LEVELS[:3], labels[:3]), (LEVELS[3:], labels[3:])]), None),
        lambda labels: (CUT, labels),
    ],
    ids=["pictures", "levels", "tensor", "stream of pictures", "stream of levels", "pixels"],
)
def test_pictures_are_cut_before_the_defence(model, labels, samples):
    preprocess = crop()
    x, y = samples(labels)
    columns = {"columns": ["oblivious"], **SMALL}
    report = evaluate(model, x, y, {"bits": DEFENCES["bits"]}, preprocess=preprocess, **columns)
    expected = evaluate(ByHand(model), CUT, labels, {"bits": DEFENCES["bits"]}, **columns)
    check_same(report, expected)


def test_a_pretrained_model_brings_its_own(model, labels, expected):
    to_pixels = crop().transforms[1]
    pretrained = PretrainedModel(ByHand(model), to_pixels, None, (3, 6, 6), "timm:tiny")
    cut = [picture.crop((3, 2, 9, 8)) for picture in PICTURES]
    report = evaluate(pretrained, cut, labels, DEFENCES, columns=COLUMNS, **SMALL)
    check_same(report, expected)
    assert report.settings["classifier"] == "timm:tiny"
    with pytest.raises(ValueError, match="must be left out for 'timm:tiny', which brings its own"):
        evaluate(pretrained, cut, labels, preprocess=np.negative, **SMALL)
    with pytest.raises(
        ValueError,
        match=r"`classifier` takes samples of shape \(3, 6, 6\), got \(3, 9, 12\); resize them, such as by "
        r"preshield.ImageResize\(6, 6, channels_first=True\).transform\(x\)",
    ):
        evaluate(pretrained, PICTURES, labels, **SMALL)
    other = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(108, 3))
    with pytest.raises(ValueError, match=r"`surrogate` takes samples of shape \(3, 6, 6\), got \(3, 3, 12\)"):
        evaluate(other, CUT.reshape(4, 3, 3, 12), labels, surrogate=pretrained, **SMALL)


def test_the_surrogate_is_preprocessed_too(model, labels):
    columns = {"columns": ["transfer"], **SMALL}
    normalise = Normalisation(MEAN, STD)
    report = evaluate(model, CUT, labels, surrogate=model, preprocess=normalise, **columns)
    expected = evaluate(ByHand(model), CUT, labels, surrogate=ByHand(model), **columns)
    check_same(report, expected)


def test_a_curve(model, labels):
    points = {"columns": ["oblivious", "adaptive"], "budget": 4, "verbose": False}
    for threat in ("linf", "linf-minimum"):
        found = curve(
            model, PICTURES, labels, {}, "eps", [0, 0.3], threat=threat, preprocess=crop(), **points
        )
        same = curve(ByHand(model), CUT, labels, {}, "eps", [0, 0.3], threat=threat, **points)
        assert found.accuracy == same.accuracy
        assert found.accuracy["none"][0] == 1


def test_keras_and_jax():
    keras, jnp = pytest.importorskip("keras"), pytest.importorskip("jax.numpy")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("for Keras on TensorFlow")
    weights = np.random.default_rng(1).standard_normal((108, 3)).astype(np.float32)
    std, mean = (np.tile(np.float32(values), 36) for values in (STD, MEAN))
    x = np.moveaxis(CUT, 1, -1)
    y = (((x.reshape(4, -1) - mean) / std) @ weights).argmax(axis=1)

    def dense(weights, biases):
        network = keras.Sequential([keras.Input((6, 6, 3)), keras.layers.Flatten(), keras.layers.Dense(3)])
        network.layers[1].set_weights([weights, biases])
        return network

    pairs = (
        # The same function, with the normalisation multiplied out.
        (dense(weights, np.zeros(3)), dense(weights / std[:, None], -(mean / std) @ weights)),
        (
            lambda x: jnp.asarray(x).reshape(len(x), -1) @ weights,
            lambda x: ((jnp.asarray(x).reshape(len(x), -1) - mean) / std) @ weights,
        ),
    )
    columns = {"columns": ["oblivious"], **SMALL}
    for classifier, by_hand in pairs:
        found = evaluate(classifier, LEVELS, y, preprocess=crop(), **columns)["none"].columns["oblivious"]
        expected = evaluate(by_hand, x, y, **columns)["none"].columns["oblivious"]
        np.testing.assert_array_equal(found.outcomes, expected.outcomes)
        np.testing.assert_allclose(found.norms, expected.norms, rtol=1e-4)
        assert 0 < found.accuracy < 1
        assert "gradients" in found.attack


# The usual mistake


def test_samples_that_were_normalised(model, labels):
    normalised = Normalisation(MEAN, STD)(CUT)
    with pytest.raises(
        ValueError,
        match=r"hold pixels, got images with values from -2.48 to 2.48, as if they were normalised .* "
        r"what normalises them as `preprocess`. If .* pass clip_values=\(-2.48\d*, 2.48\d*\)",
    ):
        evaluate(model, normalised, labels, DEFENCES, **SMALL)
    low, high = float(normalised.min()), float(normalised.max())
    alone = evaluate(model, normalised, labels, clip_values=(low, high), columns=["oblivious"], **SMALL)
    assert alone.threat.clip_values == (low, high)
    for defence in (DEFENCES["bits"], Chain([DEFENCES["bits"]])):
        with pytest.raises(
            ValueError,
            match=r"`defences\['d'\]` has clip_values=\(0, 1\), and .* images with values from -2",
        ):
            evaluate(model, normalised, labels, {"d": defence}, clip_values=(low, high), **SMALL)
        with pytest.raises(ValueError, match=r"has clip_values=\(0, 1\), and .* from -1 on, of which"):
            evaluate(model, 2 * CUT - 1, labels, {"d": defence}, **SMALL)
    report = evaluate(
        model, 2 * CUT - 1, labels, FeatureSqueezing((-1, 1), 3), columns=["oblivious"], **SMALL
    )
    assert report.threat.clip_values == (-1, 1)


def test_pixels_in_other_units(model, labels):
    normalise = Normalisation(MEAN, STD)
    for x in (255 * CUT, (255 * CUT).astype(np.uint8)):
        with pytest.raises(ValueError, match=r"pixels in \[0, 1\] .* range \(0, 255\); pass x / 255, or"):
            evaluate(model, x, labels, preprocess=normalise, **SMALL)
    with pytest.raises(ValueError, match=r"range \(-1, 1\); bring them into it, or pass pictures"):
        evaluate(model, 2 * CUT - 1, labels, preprocess=normalise, **SMALL)
    double = evaluate(model, 2 * CUT - 1, labels, preprocess=lambda x: x / 2, columns=["oblivious"], **SMALL)
    assert double.threat.clip_values == (-1, 1)  # whose units only its author knows


def test_samples_of_another_size(model, labels):
    with pytest.raises(
        ValueError,
        match=r"brought to the shape \(3, 6, 6\), or pixels of that .* got samples of shape \(3, 5",
    ):
        evaluate(model, CUT[:, :, :5], labels, preprocess=crop(), **SMALL)


@pytest.mark.parametrize(
    ("shape", "takes", "remedy"),
    [
        ((3, 32, 32), (3, 224, 192), "ImageResize(224, 192, channels_first=True)"),
        ((32, 32, 1), (28, 28, 1), "ImageResize(28, 28)"),
        ((32, 32, 3), (3, 32, 32), "pass np.moveaxis(x, -1, 1)"),
        ((3, 32, 32), (32, 32, 3), "pass np.moveaxis(x, 1, -1)"),
        ((1, 28, 28), (3, 28, 28), ""),
        ((3, 32, 32), (3, None, 32), ""),
        ((32, 32, 12), (28, 28, 12), ""),
        ((5,), (4,), ""),
    ],
)
def test_how_to_resize(shape, takes, remedy):
    found = how_to_resize(shape, takes)
    assert remedy in found
    assert bool(found) == bool(remedy)
    if "ImageResize" in remedy:
        made = eval(
            found.split("such as by ")[1].replace("(x)", "(x)[0].shape"),
            {"preshield": preshield, "x": np.ones((1, *shape))},
        )
        assert made == takes
    elif remedy:
        assert eval(found.split("pass ")[1], {"np": np, "x": np.ones((1, *shape))})[0].shape == takes


def test_a_vote_takes_a_pretrained_model(model, labels):
    pretrained = PretrainedModel(ByHand(model), crop().transforms[1], None, (3, 6, 6), "timm:tiny")
    vote = MajorityVote(pretrained, [None, FeatureSqueezing((0, 1), 7)])
    np.testing.assert_array_equal(vote.predict(CUT), labels)
