"""Every estimator of ART that takes `preprocessing_defences`, run with preshield's.

The table of docs/migrating.md states what was found; a test walks ART and wants a row for each class. Models
are linear or quadratic, so that what they see and their gradients have a closed form. Where a package that
ART wraps is not at hand, a stand-in has the few names that ART uses.
"""

import ast
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from preshield import (
    Chain,
    FeatureSqueezing,
    GaussianAugmentation,
    JpegCompression,
    LabelSmoothing,
    Mp3Compression,
    Preprocessor,
    Resample,
    SpatialSmoothing,
    ThermometerEncoding,
)
from preshield._core.layout import object_array
from tests.test_art import (
    LABELS,
    SOUNDS,
    TWO,
    Y,
    black_box,
    class_gradient,
    close,
    keras,
    keras_model,
    logits,
    loss_gradient,
    median,
    model_shape,
    one_step,
    points,
    pulled_back,
    pytorch,
    soft,
    softmax,
    tensorflow,
    trained,
    weights,
)
from tests.test_art import X as IMAGES

pytest.importorskip("art")

import art
from art.defences.preprocessor import FeatureSqueezing as ArtSqueezing
from art.defences.preprocessor import JpegCompression as ArtJpeg
from art.defences.preprocessor import SpatialSmoothing as ArtSmoothing
from art.defences.preprocessor.preprocessor import PreprocessorPyTorch

ROOT = Path(__file__).parents[1]


def noise(**kwargs):
    return GaussianAugmentation(0.3, False, apply_predict=True, **kwargs)


def same_noise():
    """Two defences that draw the same: one for the estimator, one for the expectation."""
    return noise(rng=3), noise(rng=3)


# The table


def rows():
    """The table of docs/migrating.md: the words for each class of ART."""
    text = (ROOT / "docs" / "migrating.md").read_text(encoding="utf-8")
    (table,) = re.findall(r"<!-- estimators -->\n(.*?)\n<!-- /estimators -->", text, re.DOTALL)
    found = {}
    for line in table.splitlines()[2:]:
        names, verdict, _ = (cell.strip() for cell in line.strip("|").split("|"))
        for name in re.findall(r"`(\w+)`", names):
            assert name not in found, f"{name} has two rows"
            found[name] = verdict
    return found


def estimators():
    """Classes of ART whose constructor takes `preprocessing_defences`."""
    package = Path(art.__file__).parent
    for folder in ("estimators", "experimental"):
        for file in sorted((package / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ClassDef) and node.name != "BaseEstimator":
                    inits = [n for n in node.body if getattr(n, "name", "") == "__init__"]
                    named = [arg.arg for init in inits for arg in (*init.args.args, *init.args.kwonlyargs)]
                    if "preprocessing_defences" in named:
                        yield node.name


def test_every_estimator_has_a_row():
    names = set(estimators())
    assert len(names) > 45
    assert names <= set(rows())
    assert set(rows().values()) == {"works", "works in part", "refused in words"}


# What is corrected, whichever is imported first

ORDERS = {
    "art first": "import art.estimators.object_tracking, art.estimators.classification; "
    "import art.defences.preprocessor, preshield",
    "preshield first": "import preshield; preshield.SpatialSmoothing(); import art.defences.preprocessor; "
    "import art.estimators.object_tracking, art.estimators.classification",
    "art last": "from preshield import FeatureSqueezing; FeatureSqueezing((0, 1)); "
    "import art.estimators.classification, art.estimators.object_tracking",
}


@pytest.mark.slow
@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_the_order_of_imports_makes_no_difference(order):
    """Defences pass for ART's; each corrected method once, a tracker's on top of that of its base."""
    pytest.importorskip("torch")
    pytest.importorskip("tensorflow")
    code = f"""
{order}
import numpy as np
from art.defences.preprocessor import preprocessor as base
from art.estimators.classification import BlackBoxClassifier, KerasClassifier, PyTorchClassifier
from art.estimators.estimator import BaseEstimator
from art.estimators.object_tracking import PyTorchGoturn
from art.estimators.pytorch import PyTorchEstimator
from preshield import FeatureSqueezing, SpatialSmoothing

defences = [SpatialSmoothing(3), FeatureSqueezing((0, 1), 1)]
for kind in (base.Preprocessor, base.PreprocessorPyTorch, base.PreprocessorTensorFlowV2):
    assert all(isinstance(d, kind) for d in defences)
flat = lambda x: x.reshape(len(x), -1)
classifier = BlackBoxClassifier(flat, (2, 2, 1), 4, preprocessing_defences=defences)
assert (classifier.predict(np.full((1, 2, 2, 1), 0.7, dtype=np.float32)) == 1).all()

def layers(method):
    n = 0
    while hasattr(method, "__wrapped__"):
        n, method = n + 1, method.__wrapped__
    return n

assert layers(BaseEstimator._apply_preprocessing) == 1
assert layers(PyTorchEstimator._apply_preprocessing) == 1
assert layers(PyTorchGoturn._apply_preprocessing) == 2
assert layers(KerasClassifier.loss_gradient) == 1
assert layers(PyTorchClassifier.custom_loss_gradient) == 1
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_every_correction_finds_its_method():
    """ART of today has each module, class and method that is corrected, and it is."""
    import importlib

    from preshield.interop.art_estimators import CORRECTIONS, REFUSALS

    for package in ("jax", "tensorflow", "torch"):
        pytest.importorskip(package)

    for module, owners in CORRECTIONS.items():
        loaded = importlib.import_module(module)
        for owner, methods in owners.items():
            for name in methods:
                method = getattr(loaded, owner).__dict__[name]
                assert hasattr(method, "__wrapped__"), f"{module}.{owner}.{name}"
    package = Path(art.__file__).parent
    sources = "".join(file.read_text(encoding="utf-8") for file in package.glob("estimators/**/*.py"))
    assert all(f"class {name}(" in sources for name in REFUSALS)


def test_a_version_of_art_without_a_method_is_warned_about():
    from preshield.interop.art_estimators import correct

    module = ModuleType("art.estimators.pytorch")
    with pytest.warns(UserWarning, match=r"no PyTorchEstimator\._apply_preprocessing.*finite differences"):
        correct(module)


@pytest.mark.parametrize("make", [keras, tensorflow, pytorch])
def test_estimators_without_our_defences_are_arts(make):
    """Its own defences, and none, go the way that they always went."""
    close(make([ArtSmoothing(3)]).loss_gradient(IMAGES, Y), loss_gradient([SpatialSmoothing(3)], IMAGES, Y))
    close(make([]).loss_gradient(IMAGES, Y), loss_gradient([], IMAGES, Y))


# Detectors. The loss is a sum of squares and products, so its gradient at the model is 2x + w


def vision(monkeypatch):
    """What ART's detectors import of torchvision."""
    names = ["", ".models", ".models.detection", ".ops", ".ops.boxes"]
    modules = {f"torchvision{name}": ModuleType(f"torchvision{name}") for name in names}
    modules["torchvision"].__version__ = "0.20.0"
    modules["torchvision.models"].ResNet50_Weights = None
    modules["torchvision.models.detection"].FasterRCNN_ResNet50_FPN_Weights = None
    modules["torchvision.ops.boxes"].box_area = lambda boxes: (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)


def detection_model():
    torch = pytest.importorskip("torch")

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.bias = torch.nn.Parameter(torch.zeros(1))

        def forward(self, x, y=None):
            self.seen, self.labels = x, y
            if self.training:
                return {"loss_classifier": (x**2 + x * torch.tensor(slopes(x.shape))).sum() + self.bias.sum()}
            one = {"boxes": torch.zeros(1, 4), "labels": torch.zeros(1, dtype=torch.int64)}
            return [{**one, "scores": image.mean()[None]} for image in x]

    return Model()


def slopes(shape):
    return np.random.default_rng(8).standard_normal(tuple(shape)[1:]).astype(np.float32)


DETECTORS = ["PyTorchObjectDetector", "PyTorchYolo", "PyTorchFasterRCNN"]


@pytest.fixture
def detector(monkeypatch):
    vision(monkeypatch)
    import art.estimators.object_detection as module

    def make(defences, name="PyTorchObjectDetector", *, channels_first=False, top=255, **kwargs):
        model = detection_model()
        return getattr(module, name)(
            model,
            input_shape=(3, 12, 10) if channels_first else (12, 10, 3),
            optimizer=pytest.importorskip("torch").optim.SGD(model.parameters(), 0.1),
            clip_values=None if top is None else (0, top),
            channels_first=channels_first,
            preprocessing_defences=defences,
            device_type="cpu",
            **kwargs,
        )

    return make


def photographs(channels_first=False, top=255, seed=7):
    """A mean of 0.448 of the range, in whole steps of 255."""
    x = np.random.default_rng(seed).normal(0.448, 0.15, (2, 12, 10, 3))
    x = np.clip(np.rint(x * 255), 0, 255) * (top or 1) / 255
    return np.ascontiguousarray(np.moveaxis(x, -1, 1) if channels_first else x).astype(np.float32)


def boxes():
    return [{"boxes": np.array([[1, 2, 5, 6]], np.float32), "labels": np.ones(1, np.int64)} for _ in range(2)]


def at_model(x, channels_first, top):
    return (x if channels_first else np.moveaxis(x, -1, 1)) / (top or 1)


def detector_gradient(defences, x, channels_first, top):
    """By hand: the gradient at the model, in the user's layout and range, through the defences."""
    seen = at_model(points(defences, x)[-1], channels_first, top)
    grad = (2 * seen + slopes(seen.shape)) / (top or 1)
    return pulled_back(defences, x, grad if channels_first else np.moveaxis(grad, 1, -1))


def image_defences(channels_first, top):
    top = top or 1
    return {
        "none": [],
        "median": [SpatialSmoothing(3, channels_first=channels_first, gradient="exact")],
        "squeezing": [FeatureSqueezing((0, top), 4, gradient="soft")],
        "jpeg": [JpegCompression((0, top), 75, channels_first=channels_first)],
        "two": [
            SpatialSmoothing(3, channels_first=channels_first, gradient="exact"),
            FeatureSqueezing((0, top), 2, gradient="soft"),
        ],
    }


@pytest.mark.parametrize("channels_first", [False, True], ids=["NHWC", "NCHW"])
@pytest.mark.parametrize("top", [255, 1, None])
@pytest.mark.parametrize("which", ["median", "squeezing", "jpeg", "two", "chain"])
@pytest.mark.parametrize("name", DETECTORS)
def test_detectors(detector, name, which, top, channels_first):
    sets = image_defences(channels_first, top)
    defences = [Chain(sets["two"])] if which == "chain" else sets[which]
    x = photographs(channels_first, top)
    estimator = detector(defences, name, channels_first=channels_first, top=top)
    expected = at_model(points(defences, x)[-1], channels_first, top)
    scores = [image["scores"] for image in estimator.predict(x)]
    close(estimator.model.seen, expected)
    close(np.ravel(scores), expected.mean(axis=(1, 2, 3)))
    grad = detector_gradient(defences, x, channels_first, top)
    found = estimator.loss_gradient(x, boxes())
    assert found.shape == x.shape
    assert found.dtype == x.dtype
    close(found, grad, atol=1e-6)
    assert np.abs(grad).max() > 1e-3


def test_jpeg_in_a_detector_leaves_the_grey_levels_that_arts_class_leaves(detector):
    """At the range of [0, 1] there would be three."""
    x = np.random.default_rng(0).normal(0.448, 0.2, (2, 48, 48, 3)).clip(0, 1)
    x = np.rint(x * 255).astype(np.float32)
    for channels_first in (False, True):
        batch = np.ascontiguousarray(np.moveaxis(x, -1, 1)) if channels_first else x
        levels = {}
        for cls in (JpegCompression, ArtJpeg):
            defence = cls((0, 255), 75, channels_first=channels_first)
            estimator = detector([defence], channels_first=channels_first)
            estimator.predict(batch)
            levels[cls] = len(np.unique(np.rint(255 * estimator.model.seen.numpy())))
        assert abs(levels[JpegCompression] - levels[ArtJpeg]) <= 2
        assert levels[ArtJpeg] > 200


@pytest.mark.parametrize("channels_first", [False, True], ids=["NHWC", "NCHW"])
def test_a_detector_sees_what_arts_numpy_classes_make(detector, channels_first):
    x = photographs(channels_first)
    for ours, theirs in (
        (FeatureSqueezing((0, 255), 4), ArtSqueezing((0, 255), bit_depth=4)),
        (
            SpatialSmoothing(3, channels_first=channels_first),
            ArtSmoothing(3, channels_first=channels_first),
        ),
    ):
        seen = []
        for defence in (ours, theirs):
            estimator = detector([defence], channels_first=channels_first)
            estimator.predict(x)
            seen.append(estimator.model.seen.numpy())
        close(*seen)
        assert seen[0].max() > 0.5
        assert np.abs(seen[0] - at_model(x, channels_first, 255)).max() > 0.01


@pytest.mark.parametrize("channels_first", [False, True], ids=["NHWC", "NCHW"])
def test_the_gradient_of_a_detector_meets_finite_differences(detector, channels_first):
    defences = image_defences(channels_first, 255)["median"]
    estimator = detector(defences, channels_first=channels_first)
    x = np.random.default_rng(2).permutation(720).reshape(photographs(channels_first).shape)
    x = (x * 255 / 720).astype(np.float32)  # no ties, at which the median has no gradient
    found = estimator.loss_gradient(x, boxes())
    rng = np.random.default_rng(3)
    for at in (tuple(rng.integers(0, n) for n in x.shape) for _ in range(12)):
        step = np.zeros_like(x)
        step[at] = 0.15  # less than half of what separates two values
        ends = [estimator.compute_loss(x + sign * step, boxes()).astype(np.float64) for sign in (1, -1)]
        assert found[at] == pytest.approx((ends[0] - ends[1]) / 0.3, abs=4e-4)


def test_the_gradient_of_a_detector_is_that_of_its_own_draw(detector):
    ours, again = same_noise()
    x = photographs(top=1)
    found = detector([ours, soft()], top=1).loss_gradient(x, boxes())
    moved = again.transform(x)
    close(found, detector_gradient([soft()], moved, False, 1))
    assert np.abs(found - detector_gradient([soft()], noise(rng=4).transform(x), False, 1)).max() > 0.1


def test_a_detector_takes_tensors_and_whole_numbers(detector):
    torch = pytest.importorskip("torch")
    defences = [median()]
    x = photographs()
    estimator, expected = detector(defences), detector_gradient(defences, x, False, 255)
    close(estimator.loss_gradient(torch.tensor(x), boxes()), expected, atol=1e-6)
    close(estimator.loss_gradient(x.astype(np.uint8), boxes()), expected, atol=1e-6)
    leaf = torch.tensor(x / 2, requires_grad=True)  # as the patch attacks ask
    estimator.compute_loss(leaf * 2, boxes()).backward()
    close(leaf.grad, 2 * expected, atol=1e-6)


@pytest.mark.parametrize(("fit", "predict"), [(True, False), (False, True), (False, False)])
def test_a_detector_applies_what_is_meant_for_it(detector, fit, predict):
    defence = median(apply_fit=fit, apply_predict=predict)
    estimator = detector([defence])
    x = photographs()
    smooth = at_model(defence.transform(x), False, 255)
    plain = at_model(x, False, 255)
    estimator.predict(x)
    close(estimator.model.seen, smooth if predict else plain)
    estimator.fit(x, boxes(), nb_epochs=1)
    in_order = np.argsort(estimator.model.seen.detach().numpy().mean(axis=(1, 2, 3)))  # ART shuffles
    expected = smooth if fit else plain
    close(
        estimator.model.seen.detach().numpy()[in_order], expected[np.argsort(expected.mean(axis=(1, 2, 3)))]
    )
    close(
        estimator.loss_gradient(x, boxes()),
        detector_gradient([defence] if predict else [], x, False, 255),
        atol=1e-6,
    )


def test_a_detector_is_trained_on_more_samples(detector):
    """Boxes go with the copies."""
    estimator = detector([GaussianAugmentation(0.1, ratio=1.5)])
    given = boxes()
    given[1]["labels"] = np.full(1, 7)
    estimator.fit(photographs(), given, nb_epochs=1)
    assert estimator.model.seen.shape[0] == 5
    assert {int(one["labels"]) for one in estimator.model.labels} <= {1, 7}
    assert len(estimator.model.labels) == 5


def test_arts_standardisation_sees_in_a_detector_what_it_sees_without_defences(detector):
    mean, std = np.array([0.2, 0.4, 0.6], np.float32), np.array([0.5, 1, 2], np.float32)
    x = photographs()
    plain = detector(None, preprocessing=(mean, std))
    estimator = detector([median()], preprocessing=(mean, std))
    smooth = median().transform(x)
    plain.predict(smooth)
    estimator.predict(x)
    expected = (at_model(smooth, False, 255) - mean[:, None, None]) / std[:, None, None]
    close(plain.model.seen, expected)
    close(estimator.model.seen, expected)
    grad = (2 * expected + slopes(expected.shape)) / std[:, None, None] / 255
    close(
        estimator.loss_gradient(x, boxes()), pulled_back([median()], x, np.moveaxis(grad, 1, -1)), atol=1e-6
    )


def test_arts_torch_defences_share_the_list_of_a_detector(detector):
    """Each sees the layout and range that it was written for."""

    class Shift(PreprocessorPyTorch):
        def forward(self, x, y=None):
            assert x.shape[1] == 3
            assert x.max() < 1.5
            return x + 0.25, y

    x = photographs()
    defences = [median(), Shift(device_type="cpu"), FeatureSqueezing((0, 400), 8)]
    estimator = detector(defences)
    estimator.predict(x)
    shifted = (median().transform(x) + 0.25 * 255).astype(np.float32)
    close(estimator.model.seen, at_model(FeatureSqueezing((0, 400), 8).transform(shifted), False, 255), 5e-3)


@pytest.mark.parametrize("channels_first", [False, True], ids=["NHWC", "NCHW"])
def test_arts_numpy_defences_share_the_list_of_a_detector(detector, channels_first):
    x = photographs(channels_first)
    ours = image_defences(channels_first, 255)["median"]
    defences = [*ours, ArtSqueezing((0, 255), bit_depth=4)]  # whose gradient is the identity
    seen = at_model(defences[1](ours[0].transform(x))[0], channels_first, 255)
    grad = (2 * seen + slopes(seen.shape)) / 255
    grad = grad if channels_first else np.moveaxis(grad, 1, -1)
    estimator = detector(defences, channels_first=channels_first)
    estimator.predict(x)
    close(estimator.model.seen, seen)
    close(estimator.loss_gradient(x, boxes()), ours[0].estimate_gradient(x, grad), atol=1e-6)
    with pytest.raises(NotImplementedError, match="inputs and preprocessing not supported"):
        estimator.loss_gradient(pytest.importorskip("torch").from_numpy(x), boxes())


@pytest.mark.parametrize(
    "defences", [[LabelSmoothing()], [median(), Chain([LabelSmoothing()], apply_fit=True)]]
)
def test_smoothed_labels_are_refused_where_labels_are_boxes(detector, defences):
    with pytest.raises(
        ValueError, match=r"`preprocessing_defences` of PyTorchObjectDetector.*labels there are boxes"
    ):
        detector(defences)
    estimator = detector([median()])
    with pytest.raises(TypeError, match="leave the defence out"):
        estimator.set_params(preprocessing_defences=defences)
    detector([LabelSmoothing(apply_fit=False)])


def test_detection_transformer(monkeypatch):
    """Its own loss, by way of a model with DETR's parts; the oracle is ART without defences."""
    vision(monkeypatch)
    torch = pytest.importorskip("torch")
    from art.estimators.object_detection import PyTorchDetectionTransformer
    from art.estimators.object_detection.detr import NestedTensor

    class Detr(torch.nn.Module):
        aux_loss = False

        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.input_proj = torch.nn.Conv2d(3, 4, 1)
            self.query_embed = torch.nn.Embedding(2, 4)
            self.class_embed, self.bbox_embed = torch.nn.Linear(4, 92), torch.nn.Linear(4, 4)

        def backbone(self, samples):
            x, mask = samples.decompose()
            return [NestedTensor(x, mask)], [None]

        def transformer(self, src, mask, queries, pos):
            return [(src.mean(dim=(2, 3))[:, None] + queries)[None]]

        def forward(self, x):
            raise AssertionError("ART has one of its own")

    def make(defences):
        return PyTorchDetectionTransformer(
            Detr(),
            (3, 12, 10),
            clip_values=(0, 255),
            preprocessing_defences=defences,
            device_type="cpu",
        )

    x, defences = photographs(True), image_defences(True, 255)["two"]
    seen = points(defences, x)[-1]
    found, expected = make(defences).predict(x), make(None).predict(seen)
    close(found[1]["scores"], expected[1]["scores"])
    at_seen = make(None).loss_gradient(seen, boxes())
    close(make(defences).loss_gradient(x, boxes()), pulled_back(defences, x, at_seen), atol=1e-7)
    assert np.abs(at_seen).max() > 1e-5


@pytest.mark.parametrize("kind", ["Faster-RCNN", "YOLO", None])
def test_object_seeker(monkeypatch, kind):
    """Lines of the image are masked before the defences: its certificate is one of the defended detector."""
    vision(monkeypatch)
    from art.estimators.certification.object_seeker import PyTorchObjectSeeker

    defences = [median()]
    x = photographs()
    estimator = PyTorchObjectSeeker(
        detection_model(),
        input_shape=(12, 10, 3),
        clip_values=(0, 255),
        channels_first=False,
        preprocessing_defences=defences,
        detector_type=kind,
        num_lines=1,
        device_type="cpu",
    )
    close(estimator.loss_gradient(x, boxes()), detector_gradient(defences, x, False, 255), atol=1e-6)
    estimator.predict(x[:1])
    masked = np.repeat(x[:1], 5, axis=0)
    masked[1, :, :5], masked[2, :, 5:], masked[3, :6], masked[4, 6:] = 0, 0, 0, 0
    close(estimator.model.seen, at_model(median().transform(masked), False, 255))


def test_the_tensorflow_detector_refuses_defences():
    pytest.importorskip("tensorflow")
    from art.estimators.object_detection import TensorFlowV2FasterRCNN

    with pytest.raises(ValueError, match="does not support `preprocessing_defences`"):
        TensorFlowV2FasterRCNN((6, 5, 3), model=object(), preprocessing_defences=[median()])


def test_a_defence_in_place_of_the_standardisation_of_the_tensorflow_detector():
    tf = pytest.importorskip("tensorflow")
    from art.estimators.object_detection import TensorFlowV2FasterRCNN

    class Model:
        num_classes = 2

        def provide_groundtruth(self, **kwargs):
            pass

        def preprocess(self, x):
            return x, None

        def predict(self, x, shapes):
            return x

        def loss(self, x, shapes):
            return {"loss": tf.reduce_sum(x**2)}

    ours, again = same_noise()
    chain = Chain([ours, soft()])
    estimator = TensorFlowV2FasterRCNN((6, 5, 3), Model(), preprocessing=chain, attack_losses=("loss",))
    moved = again.transform(IMAGES)
    labels = [{"boxes": np.zeros((1, 4), np.float32), "labels": np.zeros(1, np.int64)}] * 4
    expected = soft().estimate_gradient(moved, 2 * soft().transform(moved))
    close(estimator.loss_gradient(IMAGES, labels), expected)


# The tracker. Videos with the channels last, in the range of the user, are what ART passes to the defences


def tracker(defences, top=255):
    torch = pytest.importorskip("torch")
    from art.estimators.object_tracking import PyTorchGoturn

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.seen = []

        def forward(self, target, search):
            self.seen.append((target.detach().numpy(), search.detach().numpy()))
            found = torch.stack([target.mean(), search.mean(), search.std(), target.amin()]) / top
            return (found + torch.tensor([2.0, 2.0, 6.0, 6.0]))[None]

    return PyTorchGoturn(
        Model(),
        (3, 6, 6),
        (0, top),
        preprocessing_defences=defences,
        preprocessing=(np.zeros(3), np.ones(3)),
        device_type="cpu",
    )


def video(top=255):
    x = np.random.default_rng(5).random((2, 3, 16, 18, 3), dtype=np.float32)
    return x * top


TRACK = [{"boxes": np.array([[4, 4, 10, 12]] * 3, np.float32)}] * 2
FIRST = np.array([[4, 4, 10, 12]] * 2, np.float32)


def arts_warnings(test):
    """What its tracker does to torch."""
    for message in ("size_average and reduce args", "Converting a tensor with requires_grad=True"):
        test = pytest.mark.filterwarnings(f"ignore:{message}:UserWarning")(test)
    return test


@pytest.mark.parametrize("top", [255, 1])
@pytest.mark.parametrize("which", ["median", "squeezing", "jpeg", "two"])
@arts_warnings
def test_the_tracker(which, top):
    """The oracle is the tracker without defences, on what is defended."""
    defences = image_defences(False, top)[which]
    x = video(top)
    seen = points(defences, x)[-1]
    plain, estimator = tracker(None, top), tracker(defences, top)
    expected = plain.predict(seen, y_init=FIRST)
    for one, other in zip(estimator.predict(x, y_init=FIRST), expected, strict=True):
        close(one["boxes"], other["boxes"])
    at_seen = plain.loss_gradient(seen, TRACK)
    close(estimator.loss_gradient(x, TRACK) * top, pulled_back(defences, x, at_seen) * top, atol=1e-6)
    assert np.abs(at_seen).max() * top > 1e-3


@arts_warnings
def test_the_gradient_of_the_tracker_is_that_of_its_own_draw():
    ours, again = same_noise()
    x = video(1)
    moved = np.concatenate([again.transform(one[None]) for one in x])  # one video at a time
    at_seen = tracker(None, 1).loss_gradient(soft().transform(moved), TRACK)
    expected = soft().estimate_gradient(moved, at_seen)
    close(tracker([ours, soft()], 1).loss_gradient(x, TRACK), expected, atol=1e-5)


def test_the_tracker_defends_frame_by_frame():
    """`init` and `update`, as the GOT-10k toolkit calls them: the first frame is defended, too."""
    x = np.rint(video(255)[0]).astype(np.uint8)
    box = np.array([4, 4, 6, 8])
    smooth = median().transform(x[None].astype(np.float64))[0]
    plain, estimator = tracker(None), tracker([median()])
    for one, frames in ((plain, smooth), (estimator, x)):
        one.init(frames[0], box)
        one.boxes = [one.update(frame) for frame in frames[1:]]
    close(estimator.boxes, plain.boxes)
    for ours, theirs in zip(estimator.model.seen, plain.model.seen, strict=True):
        close(ours, theirs, atol=1e-3)


def test_smoothed_labels_are_refused_by_the_tracker():
    with pytest.raises(ValueError, match=r"of PyTorchGoturn must not hold LabelSmoothing.*boxes"):
        tracker([LabelSmoothing()])


# Speech recognisers, with the model and the decoder left out


def deep_speech(defences, **kwargs):
    torch = pytest.importorskip("torch")
    from art.estimators.pytorch import PyTorchEstimator
    from art.estimators.speech_recognition import PyTorchDeepSpeech

    class Model(torch.nn.Module):
        def forward(self, inputs, sizes):
            self.seen = inputs
            return inputs[..., None], sizes, None

    class Recogniser(PyTorchDeepSpeech):
        def __init__(self):
            PyTorchEstimator.__init__(
                self,
                device_type="cpu",
                model=None,
                clip_values=(-1, 1),
                channels_first=None,
                preprocessing_defences=defences,
                **{"preprocessing": None, **kwargs},
            )
            self._version, self._model, self._use_amp = 2, Model(), False
            self.criterion = lambda outputs, *args: (outputs**2).sum() / 2

        def _transform_model_input(self, x, y=None, compute_gradient=False, **kwargs):
            rows = [torch.tensor(row) if isinstance(row, np.ndarray) else row for row in x]
            for i, row in enumerate(rows if compute_gradient else ()):
                x[i] = row.requires_grad_()
            longest = max(len(row) for row in rows)
            inputs = torch.stack([torch.nn.functional.pad(row, (0, longest - len(row))) for row in rows])
            return inputs, None, torch.ones(len(rows)), None, np.arange(len(rows))

    return Recogniser()


WAVES = np.ascontiguousarray(SOUNDS[:2, ..., 0])
SHIFTED = [Resample(16000, 8000, restore=True), FeatureSqueezing((-1, 1), 3, gradient="soft")]


@pytest.mark.parametrize(
    "defences",
    [
        [Mp3Compression(16000, full_scale=1.0)],
        [Resample(16000, 8000, restore=True)],
        SHIFTED,
        [Chain([Resample(16000, 8000, restore=True), Mp3Compression(16000, full_scale=1.0)])],
    ],
    ids=["mp3", "resample", "two", "chain"],
)
def test_deep_speech(defences):
    """The loss is half a sum of squares over two samples, so its gradient at the model is x / 2."""
    estimator = deep_speech(defences)
    probabilities, sizes = estimator.predict(WAVES, transcription_output=False)
    seen = points(defences, WAVES)[-1]
    close(probabilities[..., 0], seen)
    np.testing.assert_array_equal(sizes, seen.shape[1])
    found = estimator.loss_gradient(WAVES, np.array(["A", "B"]))
    close(found, pulled_back(defences, WAVES, seen / 2))


def test_deep_speech_with_recordings_of_different_lengths():
    """And with a standardisation, and two defences."""
    resample, mp3 = Resample(16000, 8000, restore=True), Mp3Compression(16000, full_scale=1.0)
    batch = object_array([WAVES[0], WAVES[1, :500]])
    estimator = deep_speech([resample, mp3], preprocessing=(0.1, 2.0))
    probabilities, sizes = estimator.predict(batch, transcription_output=False)
    for row, size, sample in zip(probabilities[..., 0], sizes, batch, strict=True):
        defended = mp3.transform(resample.transform(sample[None]))[0]
        close(row[: len(sample)], (defended - 0.1) / 2)
        assert size == 900
    equal = object_array([WAVES[0], WAVES[1]])  # NumPy stacks no others, nor does ART's loss_gradient
    found = estimator.loss_gradient(equal, np.array(["A", "B"]))
    at_seen = (mp3.transform(resample.transform(WAVES)) - 0.1) / 2 / 2 / 2
    expected = resample.estimate_gradient(WAVES, mp3.estimate_gradient(WAVES, at_seen))
    close(np.stack(list(found)), expected)


def test_the_gradient_of_deep_speech_is_that_of_its_own_draw():
    ours, again = same_noise()
    squeeze = FeatureSqueezing((-1, 1), 3, gradient="soft")
    moved = again.transform(WAVES)
    expected = squeeze.estimate_gradient(moved, squeeze.transform(moved) / 2)
    close(deep_speech([ours, squeeze]).loss_gradient(WAVES, np.array(["A", "B"])), expected)


@pytest.mark.parametrize("which", ["squeezing", "resample"])
def test_deep_speech_with_one_waveform_at_a_time(which):
    """As the attacks on speech recognisers ask, in torch."""
    torch = pytest.importorskip("torch")
    defence = {"squeezing": SHIFTED[1], "resample": SHIFTED[0]}[which]
    try:
        defence.transform(WAVES[0])
    except ValueError as refusal:
        pytest.skip(str(refusal))
    batch = torch.tensor(WAVES, requires_grad=True)
    inputs, *_ = deep_speech([defence])._preprocess_transform_model_input(batch, None, None)
    (inputs**2).sum().backward()
    seen = defence.transform(WAVES)
    close(inputs.detach(), seen)
    close(batch.grad, defence.estimate_gradient(WAVES, 2 * seen))


def espresso(defences):
    torch = pytest.importorskip("torch")
    from art.estimators.pytorch import PyTorchEstimator
    from art.estimators.speech_recognition import PyTorchEspresso

    class Recogniser(PyTorchEspresso):
        def __init__(self):
            PyTorchEstimator.__init__(
                self,
                device_type="cpu",
                model=None,
                clip_values=(-1, 1),
                channels_first=None,
                preprocessing_defences=defences,
                preprocessing=None,
            )
            self._model = self._models = torch.nn.Module()
            self.criterion = lambda model, batch: ((batch["net_input"]["src_tokens"] ** 2).sum() / 2, 0, 0)
            self.task = SimpleNamespace(inference_step=lambda generator, models, batch: self.heard(batch))
            self.esp_args = SimpleNamespace(nbest=1)
            self.generator = SimpleNamespace(symbols_to_strip_from_output=())
            self.dictionary = SimpleNamespace(string=lambda tokens, **kwargs: str(tokens.tolist()))
            self.bpe = SimpleNamespace(decode=lambda text: text)

        def heard(self, batch):
            return [[{"tokens": row.sum() * 100}] for row in batch["net_input"]["src_tokens"]]

        def _transform_model_input(self, x, y=None, compute_gradient=False):
            rows = torch.stack([torch.tensor(row) for row in x])[..., None]
            lengths = torch.full((len(x),), rows.shape[1])
            net_input = {"src_tokens": rows.requires_grad_(compute_gradient), "src_lengths": lengths}
            return {"net_input": net_input}, np.arange(len(x))

    return Recogniser()


@pytest.mark.parametrize("defences", [SHIFTED[:1], SHIFTED], ids=["one", "two"])
def test_espresso(defences):
    """It passes object arrays, and takes gradients with one axis more."""
    if len(defences) > 1:
        defences = [Resample(16000, 8000, restore=True), Mp3Compression(16000, full_scale=1.0)]
    estimator, batch = espresso(defences), object_array(list(WAVES))
    seen = points(defences, WAVES)[-1]
    heard = [float(text) for text in estimator.predict(WAVES)]
    np.testing.assert_allclose(heard, 100 * seen.sum(axis=1), atol=1)
    found = estimator.loss_gradient(batch, np.array(["A", "B"]))
    close(np.stack(list(found)).astype(np.float32), pulled_back(defences, WAVES, seen))


def test_smoothed_labels_are_refused_by_speech_recognisers():
    for make in (deep_speech, espresso):
        with pytest.raises(ValueError, match=r"must not hold LabelSmoothing.*transcriptions"):
            make([LabelSmoothing()])


# Classifiers of ART whose gradients have a way of their own, with the linear model of tests/test_art.py


def hugging_face(defences, **kwargs):
    torch = pytest.importorskip("torch")
    from art.estimators.classification.hugging_face import HuggingFaceClassifierPyTorch

    inner = pytorch(defences).model  # with the weights of the closed form

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return SimpleNamespace(logits=self.inner(x))

    return HuggingFaceClassifierPyTorch(
        Model(),
        torch.nn.CrossEntropyLoss(reduction="sum"),
        model_shape(defences, IMAGES),
        3,
        clip_values=(0, 1),
        preprocessing_defences=defences,
        device_type="cpu",
        **kwargs,
    )


def jax_classifier(defences):
    jax = pytest.importorskip("jax")
    from art.experimental.estimators.classification import JaxClassifier

    def scores(w, x):
        return x.reshape(len(x), -1) @ w

    def loss(w, x, y):
        return -(y * jax.nn.log_softmax(scores(w, x))).sum()

    return JaxClassifier(
        weights(model_shape(defences, IMAGES)),
        scores,
        loss,
        lambda w, x, y: w - 0.1 * jax.grad(loss)(w, x, y),
        IMAGES.shape[1:],
        3,
        preprocessing_defences=defences,
    )


CLASSIFIERS = pytest.mark.parametrize("make", [pytorch, tensorflow, keras, hugging_face, jax_classifier])
LISTS = {"one": [median()], "two": TWO, "shape": [ThermometerEncoding((0, 1), 4), soft()]}
EACH_LIST = pytest.mark.parametrize("defences", LISTS.values(), ids=LISTS)


@CLASSIFIERS
@EACH_LIST
def test_classifiers(make, defences):
    """The chain rule, in every list; JAX has no gradient of classes in ART."""
    classifier = make(defences)
    close(classifier.predict(IMAGES), logits(defences, IMAGES))
    close(classifier.loss_gradient(IMAGES, Y), loss_gradient(defences, IMAGES, Y))
    if make is jax_classifier:
        with pytest.raises(NotImplementedError, match=r"^$"):
            classifier.class_gradient(IMAGES)
        return
    expected = class_gradient(defences, IMAGES)
    close(classifier.class_gradient(IMAGES), expected)
    close(classifier.class_gradient(IMAGES, 1), expected[:, 1:2])
    close(classifier.class_gradient(IMAGES, LABELS), expected[np.arange(4), LABELS][:, None])
    assert np.abs(expected).max() > 0.01


@CLASSIFIERS
def test_the_gradient_of_a_classifier_is_that_of_its_own_draw(make):
    """Twice, and of the classes: each call draws anew, once for its two passes."""
    ours, again = same_noise()
    classifier = make([ours, soft()])
    close(classifier.loss_gradient(IMAGES, Y), loss_gradient([soft()], again.transform(IMAGES), Y))
    close(classifier.loss_gradient(IMAGES, Y), loss_gradient([soft()], again.transform(IMAGES), Y))
    if make is not jax_classifier:
        close(classifier.class_gradient(IMAGES), class_gradient([soft()], again.transform(IMAGES)))


@pytest.mark.parametrize("make", [keras, tensorflow])
def test_what_art_does_to_the_classifier_in_a_gradient_stays(make):
    """The list is still there, and so is what ART keeps with the object."""
    classifier = make(TWO)
    before = {name: value for name, value in vars(classifier).items() if name != "preprocessing_operations"}
    operations = list(classifier.preprocessing_operations)
    classifier.class_gradient(IMAGES)
    assert classifier.preprocessing_operations == operations
    assert {name: vars(classifier)[name] for name in before} == before
    assert hasattr(classifier, "all_framework_preprocessing") == (make is tensorflow)


def data_generator(make):
    """A generator of ART for the framework of a classifier, which yields the whole batch."""
    from art import data_generators

    if make is pytorch:
        torch = pytest.importorskip("torch")
        pairs = torch.utils.data.TensorDataset(torch.tensor(IMAGES), torch.tensor(Y))
        loader = torch.utils.data.DataLoader(pairs, batch_size=4)
        return data_generators.PyTorchDataGenerator(loader, size=4, batch_size=4)
    tf = pytest.importorskip("tensorflow")
    if make is tensorflow:
        pairs = tf.data.Dataset.from_tensor_slices((IMAGES, Y)).batch(4)
        return data_generators.TensorFlowV2DataGenerator(pairs, size=4, batch_size=4)

    def batches():
        while True:
            yield IMAGES, Y

    return data_generators.KerasDataGenerator(batches(), size=4, batch_size=4)


@pytest.mark.parametrize("make", [pytorch, tensorflow, keras])
def test_training_from_a_generator_is_defended(make):
    """ART skips `fit`, and the defences with it, where it knows the generator."""
    defences = [median(apply_fit=True), soft()]
    classifier = make(defences)
    classifier.fit_generator(data_generator(make), nb_epochs=1)
    for got, wanted in zip(trained(classifier), one_step(median().transform(IMAGES), Y), strict=True):
        close(got, wanted)
    other = make(defences)
    epochs = []
    options = {"scheduler": epochs.append} if make is tensorflow else {}
    other.fit_generator(data_generator(make), nb_epochs=3, **options)
    for _ in range(2):
        classifier.fit(IMAGES, Y, batch_size=4, nb_epochs=1)
    for got, wanted in zip(trained(other), trained(classifier), strict=True):
        close(got, wanted)
    assert epochs == ([0, 1, 2] if make is tensorflow else [])


def test_estimators_that_others_write():
    """Whatever calls the two methods of ART's base class gets the chain rule in lists."""
    from art.estimators.classification.classifier import ClassifierLossGradients

    class Mine(ClassifierLossGradients):
        input_shape = IMAGES.shape[1:]

        def predict(self, x):
            return self._apply_preprocessing(x, None, fit=False)[0]

        def loss_gradient(self, x, y, **kwargs):
            return self._apply_preprocessing_gradient(x, 2 * self.predict(x))

        fit = save = None

    defences = LISTS["shape"]
    estimator = Mine(model=None, clip_values=None, preprocessing_defences=defences, preprocessing=(0.5, 2))
    seen = (points(defences, IMAGES)[-1] - 0.5) / 2
    close(estimator.predict(IMAGES), seen)
    close(estimator.loss_gradient(IMAGES, Y), pulled_back(defences, IMAGES, 2 * seen / 2))


def test_tensorflow_gradients_of_a_tensor():
    tf = pytest.importorskip("tensorflow")
    close(tensorflow(TWO).class_gradient(tf.constant(IMAGES)), class_gradient(TWO, IMAGES))


@pytest.mark.parametrize("make", [pytorch, hugging_face])
@pytest.mark.parametrize("defences", [[median()], TWO], ids=["one", "two"])
def test_the_gradient_between_activations(make, defences):
    """`custom_loss_gradient`, which the feature collision attack asks for: the layer flattens its input."""
    torch = pytest.importorskip("torch")
    classifier, target = make(defences), np.flip(IMAGES, 0).copy()
    layer = {pytorch: "0", hugging_face: "inner.1"}[make]

    def half_square(difference, p):
        assert p == 2
        return (difference**2).sum() / 2

    grad = classifier.custom_loss_gradient(half_square, IMAGES, target, layer)
    difference = points(defences, IMAGES)[-1] - points(defences, target)[-1]
    close(grad, pulled_back(defences, IMAGES, difference))
    hooks = sum(len(module._forward_hooks) for module in classifier.model.modules())
    classifier.custom_loss_gradient(half_square, IMAGES, target, layer)
    if make is pytorch:  # a hook for each call would keep each batch
        assert sum(len(module._forward_hooks) for module in classifier.model.modules()) == hooks
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("kind", ["LogisticRegression", "SVC", "LinearSVC"])
@pytest.mark.parametrize("two", [False, True], ids=["one", "two"])
def test_scikit_learn_classifiers(kind, two):
    """ART's own answers at the defended samples, pulled back; the median is not its own square."""
    from art.estimators.classification import scikitlearn as module
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import SVC, LinearSVC

    rng = np.random.default_rng(3)
    train, y = rng.random((60, 8)), rng.integers(0, 3, 60)
    model = {"LogisticRegression": LogisticRegression(C=100), "SVC": SVC(), "LinearSVC": LinearSVC()}[kind]
    model.fit(train, y)
    model.probability = False  # scikit-learn 1.9 has a word there, which ART takes for True
    cls = {"LogisticRegression": module.ScikitlearnLogisticRegression}.get(kind, module.ScikitlearnSVC)
    ours, again = same_noise()
    rows = rng.random((4, 8))
    squeeze = FeatureSqueezing((0, 1), 2, gradient="soft")
    defences = [ours, squeeze] if two else [squeeze]
    classifier, plain = cls(model, preprocessing_defences=defences), cls(model)
    for method, argument in (("loss_gradient", Y), ("class_gradient", None), ("class_gradient", 1)):
        moved = again.transform(rows) if two else rows
        seen = squeeze.transform(moved)
        expected = squeeze.estimate_gradient(moved, getattr(plain, method)(seen, argument))
        close(getattr(classifier, method)(rows, argument), expected)
        assert np.abs(expected).max() > 1e-3
    seen = squeeze.transform(again.transform(rows) if two else rows)
    close(classifier.predict(rows), plain.predict(seen))


def test_scikit_learn_logistic_regression_is_not_defended_twice():
    """ART asks its `predict` for the error at the defended samples, and it defends them again."""
    from art.estimators.classification.scikitlearn import ScikitlearnLogisticRegression
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(3)
    model = LogisticRegression(C=100).fit(rng.random((60, 8)), rng.integers(0, 3, 60))
    shrink = Shrink()
    classifier, rows = (
        ScikitlearnLogisticRegression(model, preprocessing_defences=[shrink]),
        rng.random((4, 8)),
    )
    error = model.predict_proba(rows / 2) - Y
    close(classifier.loss_gradient(rows, Y), error @ model.coef_ / 3 / 2)


class Shrink(Preprocessor):
    """Half of everything: the plainest defence whose square is not itself."""

    domains = ("image", "features")
    gradient_kind = "exact"

    def __init__(self, apply_fit=False):
        self.apply_fit = apply_fit

    def _transform(self, x, draw):
        return x / 2

    def _gradient(self, x, grad, draw):
        return grad / 2


TREES = {
    "ScikitlearnDecisionTreeClassifier": ("tree", "DecisionTreeClassifier"),
    "ScikitlearnExtraTreeClassifier": ("tree", "ExtraTreeClassifier"),
    "ScikitlearnAdaBoostClassifier": ("ensemble", "AdaBoostClassifier"),
    "ScikitlearnBaggingClassifier": ("ensemble", "BaggingClassifier"),
    "ScikitlearnExtraTreesClassifier": ("ensemble", "ExtraTreesClassifier"),
    "ScikitlearnGradientBoostingClassifier": ("ensemble", "GradientBoostingClassifier"),
    "ScikitlearnRandomForestClassifier": ("ensemble", "RandomForestClassifier"),
    "ScikitlearnGaussianNB": ("naive_bayes", "GaussianNB"),
    "ScikitlearnClassifier": ("neighbors", "KNeighborsClassifier"),
}


@pytest.mark.parametrize("name", TREES)
def test_scikit_learn_models_without_gradients(name):
    """`fit` and `predict` behind two defences are those of the model on what is defended."""
    from importlib import import_module

    from art.estimators.classification import scikitlearn as module

    place, model = TREES[name]
    make = getattr(import_module(f"sklearn.{place}"), model)
    options = {"random_state": 0} if "random_state" in make().get_params() else {}
    rng = np.random.default_rng(3)
    x, y = rng.random((60, 8)), rng.integers(0, 3, 60)
    defences = [FeatureSqueezing((0, 1), 2, apply_fit=True), Shrink(apply_fit=True)]
    classifier = getattr(module, name)(make(**options), preprocessing_defences=defences)
    classifier.fit(x, np.eye(3)[y])
    seen = (np.rint(x * 3) / 3 / 2).astype(np.float32)
    close(classifier.predict(x), make(**options).fit(seen, y).predict_proba(seen))


# Packages that may not be installed


class Trees:
    """A model that returns the first two columns, and keeps what it was trained on."""

    classes_ = np.arange(2)
    _Booster__num_class = 2

    def fit(self, x, y, **kwargs):
        self.trained = x, y

    def predict_proba(self, x):
        return np.asarray(x)[:, :2]

    predict = predict_proba

    def num_feature(self):
        return 8


TREE_PACKAGES = {
    "XGBoostClassifier": ("xgboost", {"XGBClassifier": Trees, "Booster": type("Booster", (), {})}),
    "CatBoostARTClassifier": ("catboost.core", {"CatBoostClassifier": Trees}),
    "LightGBMClassifier": ("lightgbm", {"Booster": Trees}),
}


@pytest.mark.parametrize("name", TREE_PACKAGES)
def test_boosted_trees(monkeypatch, name):
    place, names = TREE_PACKAGES[name]
    for package in (place.split(".")[0], place):
        monkeypatch.setitem(sys.modules, package, ModuleType(package))
    vars(sys.modules[place]).update(names)
    import art.estimators.classification as module

    defences = [FeatureSqueezing((0, 1), 2, apply_fit=True), Shrink(apply_fit=True), noise()]
    options = {} if name == "LightGBMClassifier" else {"nb_features": 8}
    if name == "XGBoostClassifier":
        options["nb_classes"] = 2
    classifier = getattr(module, name)(Trees(), preprocessing_defences=defences[:2], **options)
    x = np.random.default_rng(3).random((6, 8))
    seen = np.rint(x * 3) / 3 / 2
    close(classifier.predict(x), seen[:, :2])
    if name == "LightGBMClassifier":
        with pytest.raises(NotImplementedError, match=r"^$"):
            classifier.fit(x, np.zeros(6))
    else:
        classifier.fit(x, np.arange(6))
        close(classifier.model.trained[0], seen)
        np.testing.assert_array_equal(classifier.model.trained[1], np.arange(6))


def test_gaussian_processes(monkeypatch):
    """ART takes a difference of predictions, defended once and twice, times the step of 1e-4 or 1e-5."""
    w = np.random.default_rng(1).random(5)

    class Process:
        def predict(self, x):
            return [x @ w]

        def predict_noiseless(self, x):
            return [x @ w, x @ w]

    monkeypatch.setitem(sys.modules, "GPy", ModuleType("GPy"))
    monkeypatch.setitem(sys.modules, "GPy.models", ModuleType("GPy.models"))
    sys.modules["GPy.models"].GPClassification = Process
    from art.estimators.classification import GPyGaussianProcessClassifier

    x, y = np.random.default_rng(2).random((3, 5)), np.eye(2)[[0, 1, 0]]
    squeeze = FeatureSqueezing((0, 1), 2, gradient="soft")
    defences = [squeeze, Shrink()]
    classifier = GPyGaussianProcessClassifier(Process(), preprocessing_defences=defences)
    seen = squeeze.transform(x) / 2
    close(classifier.predict(x)[:, 0], seen @ w)
    close(classifier.predict_uncertainty(x), seen @ w)
    at_seen = np.stack([np.tile(w, (3, 1)), np.tile(-w, (3, 1))], axis=1)
    expected = squeeze.estimate_gradient(x, at_seen / 2)
    close(classifier.class_gradient(x) / 1e-4**2, expected, atol=1e-3)
    close(classifier.class_gradient(x, 1) / 1e-4**2, expected[:, 1:], atol=1e-3)
    of_loss = -expected[np.arange(3), y.argmax(axis=1)]
    close(classifier.loss_gradient(x, y) / 1e-5**2, of_loss, atol=1e-2)
    assert np.abs(expected).max() > 0.1


# Regressors


def test_pytorch_regressor():
    """A linear model with half the squared error, summed."""
    torch = pytest.importorskip("torch")
    from art.estimators.regression.pytorch import PyTorchRegressor

    w = weights(IMAGES.shape[1:])[:, :1]
    layer = torch.nn.Linear(90, 1, bias=False)
    layer.weight.data = torch.tensor(w.T)
    model = torch.nn.Sequential(torch.nn.Flatten(), layer)
    ours, again = same_noise()
    defences = [ours, soft()]
    estimator = PyTorchRegressor(
        model,
        lambda found, wanted: ((found - wanted) ** 2).sum() / 2,
        IMAGES.shape[1:],
        clip_values=(0, 1),
        preprocessing_defences=defences,
        device_type="cpu",
    )
    y = np.arange(4, dtype=np.float32)
    moved = again.transform(IMAGES)
    found = estimator.loss_gradient(IMAGES, y)
    value = soft().transform(moved).reshape(4, -1) @ w
    grad = ((value - y[:, None]) @ w.T).reshape(IMAGES.shape)
    close(found, soft().estimate_gradient(moved, grad))
    close(estimator.predict(IMAGES), soft().transform(again.transform(IMAGES)).reshape(4, -1) @ w)

    def half_square(difference, p):
        return (difference**2).sum() / 2

    estimator.set_params(preprocessing_defences=[Shrink()])
    grad = estimator.custom_loss_gradient(half_square, IMAGES, np.zeros_like(IMAGES), "0")
    close(grad, IMAGES / 4)


def test_keras_regressor():
    """Without its graph, for which the backend of Keras 3 has no `placeholder`: ART's does not run there."""
    pytest.importorskip("tensorflow")
    from art.estimators.regression.keras import KerasRegressor

    class Regressor(KerasRegressor):
        def _initialize_params(self, model, input_layer, output_layer):
            self._input_shape = IMAGES.shape[1:]
            self._loss_gradients = lambda batch: [2 * batch[0]]

    model = keras_model([])
    ours, again = same_noise()
    estimator = Regressor(model, preprocessing_defences=[ours, soft()])
    moved = again.transform(IMAGES)
    expected = soft().estimate_gradient(moved, 2 * soft().transform(moved))
    close(estimator.loss_gradient(IMAGES, np.zeros(4)), expected)
    expected = logits([soft()], again.transform(IMAGES))
    close(estimator.predict(IMAGES), expected)


@pytest.mark.parametrize("name", ["ScikitlearnRegressor", "ScikitlearnDecisionTreeRegressor"])
def test_scikit_learn_regressors(name):
    from art.estimators.regression import scikitlearn as module
    from sklearn.tree import DecisionTreeRegressor

    rng = np.random.default_rng(3)
    x, y = rng.random((60, 8)), rng.random(60)
    defences = [FeatureSqueezing((0, 1), 2, apply_fit=True), Shrink(apply_fit=True)]
    estimator = getattr(module, name)(DecisionTreeRegressor(random_state=0), preprocessing_defences=defences)
    estimator.fit(x, y)
    seen = (np.rint(x * 3) / 3 / 2).astype(np.float32)
    close(estimator.predict(x), DecisionTreeRegressor(random_state=0).fit(seen, y).predict(seen))


def test_black_boxes():
    from art.estimators.classification import BlackBoxClassifierNeuralNetwork
    from art.estimators.regression import BlackBoxRegressor

    defences = [median(), soft()]
    seen = points(defences, IMAGES)[-1].reshape(4, -1)
    regressor = BlackBoxRegressor(
        lambda x: x.reshape(len(x), -1).sum(axis=1), IMAGES.shape[1:], preprocessing_defences=defences
    )
    close(regressor.predict(IMAGES), seen.sum(axis=1))
    network = BlackBoxClassifierNeuralNetwork(
        lambda x: x.reshape(len(x), -1)[:, :3], IMAGES.shape[1:], 3, preprocessing_defences=defences
    )
    close(network.predict(IMAGES), seen[:, :3])
    close(black_box(defences).predict(IMAGES), logits(defences, IMAGES))


def test_smoothed_labels_are_refused_by_regressors():
    from art.estimators.regression import BlackBoxRegressor

    with pytest.raises(ValueError, match=r"must not hold LabelSmoothing.*labels there are values"):
        BlackBoxRegressor(len, (3,), preprocessing_defences=[LabelSmoothing()])


# Estimators that hold estimators


def test_ensembles_and_detectors_of_attacks_refuse_defences_and_take_defended_members():
    pytest.importorskip("tensorflow")
    from art.estimators.classification import DeepPartitionEnsemble, DetectorClassifier, EnsembleClassifier

    for make in (
        lambda **kwargs: EnsembleClassifier([keras([])], clip_values=(0, 1), **kwargs),
        lambda **kwargs: DeepPartitionEnsemble(
            [keras([])], ensemble_size=1, clip_values=(0, 1), channels_first=False, **kwargs
        ),
        lambda **kwargs: DetectorClassifier(keras([]), keras([]), **kwargs),
    ):
        make()
        with pytest.raises(NotImplementedError, match="not applicable in this classifier"):
            make(preprocessing_defences=[median()])
    ensemble = EnsembleClassifier([keras(TWO), keras([soft()])], clip_values=(0, 1))
    close(ensemble.predict(IMAGES), (logits(TWO, IMAGES) + logits([soft()], IMAGES)) / 2)
    expected = (loss_gradient(TWO, IMAGES, Y) + loss_gradient([soft()], IMAGES, Y)) / 2
    close(ensemble.loss_gradient(IMAGES, Y), expected)
    expected = (class_gradient(TWO, IMAGES) + class_gradient([soft()], IMAGES)) / 2
    close(ensemble.class_gradient(IMAGES), expected)


def test_query_efficient_gradients_of_a_defended_classifier():
    """Differences of predictions: what they pass through is differentiated, whatever it is."""
    from art.estimators.classification import (
        BlackBoxClassifier,
        QueryEfficientGradientEstimationClassifier,
    )

    def predict(x):
        half = 0.5 + 0.5 * np.tanh(x.sum(axis=1, keepdims=True))
        return np.hstack([half, 1 - half])

    plain = BlackBoxClassifier(lambda x: predict(x / 2), (3,), 2, clip_values=(-1, 1))
    defended = BlackBoxClassifier(predict, (3,), 2, clip_values=(-1, 1), preprocessing_defences=[Shrink()])
    x, y = np.random.default_rng(2).random((2, 3)) / 2, np.eye(2)
    found = []
    for classifier in (plain, defended):
        np.random.seed(0)
        found.append(QueryEfficientGradientEstimationClassifier(classifier, 20, 0.01).loss_gradient(x, y))
    close(*found)


# Certificates


def smoothing(backend, name, defences, **kwargs):
    """A smoothed classifier with the linear model, and noise of scale 0 unless told otherwise."""
    common = {
        "nb_classes": 3,
        "clip_values": (0, 1),
        "preprocessing_defences": defences,
        "sample_size": 4,
        "scale": 0.0,
    }
    if backend == "torch":
        torch = pytest.importorskip("torch")
        model = pytorch(defences or []).model
        common.update(
            loss=torch.nn.CrossEntropyLoss(reduction="sum"),
            optimizer=torch.optim.SGD(model.parameters(), 0.1),
            input_shape=IMAGES.shape[1:],
            device_type="cpu",
        )
    else:
        pytest.importorskip("tensorflow")
        model = keras_model(defences or [])
        common.update(loss_object=model.loss, optimizer=model.optimizer, input_shape=IMAGES.shape[1:])
    import art.estimators.certification.randomized_smoothing as module

    return getattr(module, name)(model=model, **{**common, **kwargs})


SMOOTHED = [
    ("torch", "PyTorchRandomizedSmoothing"),
    ("torch", "PyTorchMACER"),
    ("torch", "PyTorchSmoothAdv"),
    ("torch", "PyTorchSmoothMix"),
    ("tensorflow", "TensorFlowV2RandomizedSmoothing"),
    ("tensorflow", "TensorFlowV2MACER"),
    ("tensorflow", "TensorFlowV2SmoothAdv"),
]
ORDER_OF_NOISE = "ignore:\\s*With the current backend:UserWarning"


@pytest.mark.filterwarnings(ORDER_OF_NOISE)
@pytest.mark.parametrize(("backend", "name"), SMOOTHED, ids=[name for _, name in SMOOTHED])
def test_randomized_smoothing(backend, name):
    classifier = smoothing(backend, name, TWO)
    counts = classifier.predict(IMAGES, is_abstain=False)
    np.testing.assert_array_equal(counts.argmax(axis=1), logits(TWO, IMAGES).argmax(axis=1))
    close(classifier.loss_gradient(IMAGES, Y), loss_gradient(TWO, IMAGES, Y))
    found = classifier.loss_gradient(IMAGES, Y, sampling=True)
    close(found, loss_gradient(TWO, IMAGES, Y) / 4)  # a mean over the batch
    ours, again = same_noise()
    classifier = smoothing(backend, name, [ours, soft()], clip_values=(-9, 9))  # ART clips once more
    found = classifier.loss_gradient(IMAGES, Y, sampling=True)
    close(found, loss_gradient([soft()], again.transform(IMAGES), Y) / 4)


@pytest.mark.filterwarnings(ORDER_OF_NOISE)
def test_randomized_smoothing_of_a_defended_classifier():
    pytest.importorskip("tensorflow")
    from art.estimators.certification.randomized_smoothing import NumpyRandomizedSmoothing

    classifier = NumpyRandomizedSmoothing(keras(TWO), 4, 0.0)
    counts = classifier.predict(IMAGES, is_abstain=False)
    np.testing.assert_array_equal(counts.argmax(axis=1), logits(TWO, IMAGES).argmax(axis=1))
    close(classifier.loss_gradient(IMAGES, Y), loss_gradient(TWO, IMAGES, Y))
    close(classifier.class_gradient(IMAGES), class_gradient(TWO, IMAGES))


@pytest.mark.filterwarnings("ignore:\\s*This estimator does not support networks:UserWarning")
@pytest.mark.parametrize("name", ["PytorchDeepZ", "PyTorchIBPClassifier"])
def test_certificates_that_would_not_hold_are_refused(name):
    torch = pytest.importorskip("torch")
    from art.estimators.certification import deep_z, interval

    cls = getattr(deep_z, name, None) or getattr(interval, name)

    def make(defences):
        model = torch.nn.Sequential(torch.nn.Linear(8, 3))
        loss = torch.nn.CrossEntropyLoss()
        return cls(model, loss, (8,), 3, preprocessing_defences=defences, device_type="cpu")

    for defences in ([Shrink()], [Chain([Shrink()])], [noise()]):
        with pytest.raises(
            ValueError, match=rf"of {name} must not hold.*pass apply_predict=False, or certify"
        ):
            make(defences)
    squeeze = FeatureSqueezing((0, 1), 1, apply_fit=True, apply_predict=False)
    classifier, x = make([squeeze]), np.random.default_rng(0).random((4, 8), dtype=np.float32)
    close(classifier.apply_preprocessing(x, Y, fit=True)[0], np.rint(x))
    close(classifier.apply_preprocessing(x, Y, fit=False)[0], x)


def derandomized(backend, defences):
    options = {
        "nb_classes": 3,
        "ablation_type": "column",
        "ablation_size": 2,
        "threshold": 0.3,
        "logits": True,
        "preprocessing_defences": defences,
        "clip_values": (0, 1),
    }
    if backend == "torch":
        torch = pytest.importorskip("torch")
        from art.estimators.certification.derandomized_smoothing import PyTorchDeRandomizedSmoothing

        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(6 * 6 * 6, 3))
        loss = torch.nn.CrossEntropyLoss()
        return PyTorchDeRandomizedSmoothing(
            model, loss, (3, 6, 6), algorithm="levine2020", device_type="cpu", **options
        )
    tf = pytest.importorskip("tensorflow")
    from art.estimators.certification.derandomized_smoothing import TensorFlowV2DeRandomizedSmoothing

    tf.keras.utils.set_random_seed(0)
    layers = [tf.keras.Input((6, 6, 6)), tf.keras.layers.Flatten(), tf.keras.layers.Dense(3)]
    return TensorFlowV2DeRandomizedSmoothing(tf.keras.Sequential(layers), input_shape=(6, 6, 3), **options)


@pytest.mark.parametrize("backend", ["torch", "tensorflow"])
def test_derandomized_smoothing(backend):
    """`predict` defends each ablated image, which the certificate allows; `eval_and_certify` would not."""
    x = np.random.default_rng(0).random((2, 6, 6, 3)).astype(np.float32)
    x = np.ascontiguousarray(np.moveaxis(x, -1, 1)) if backend == "torch" else x
    classifier, plain = derandomized(backend, [Shrink()]), derandomized(backend, None)
    counts, whole = np.zeros((2, 3)), np.zeros((2, 3))
    for column in range(6):
        ablated = plain.ablator.forward(x.copy(), column_pos=column)
        of_half = plain.ablator.forward(x / 2, column_pos=column)
        scores = (
            plain._model(one)[-1] if backend == "torch" else plain.model(one)
            for one in (ablated / 2, of_half)
        )
        votes = [softmax(np.asarray(one.detach() if backend == "torch" else one)) >= 0.3 for one in scores]
        counts, whole = counts + votes[0], whole + votes[1]
    np.testing.assert_array_equal(classifier.predict(x), counts)
    assert (counts != whole).any()
    labels = np.array([0, 1])
    with pytest.raises(ValueError, match=r"must be empty for eval_and_certify.*ablator\.certify"):
        classifier.eval_and_certify(x, labels, size_to_certify=1, verbose=False)
    assert len(classifier.ablator.certify(classifier.predict(x), 1, labels)[0]) == 2  # as the message says
    plain.eval_and_certify(x, np.eye(3)[labels], size_to_certify=1, verbose=False)


@pytest.mark.parametrize("backend", ["torch", "tensorflow"])
def test_derandomized_smoothing_behind_jpeg(backend):
    """The six channels of an ablated image are six pictures in grey."""
    x = np.random.default_rng(0).random((2, 6, 6, 3)).astype(np.float32)
    x = np.ascontiguousarray(np.moveaxis(x, -1, 1)) if backend == "torch" else x
    jpeg = JpegCompression((0, 1), 5, channels_first=backend == "torch")
    classifier, plain = derandomized(backend, [jpeg]), derandomized(backend, None)
    counts = np.zeros((2, 3))
    for column in range(6):
        ablated = np.asarray(plain.ablator.forward(x.copy(), column_pos=column))
        axis = 1 if backend == "torch" else 3
        channels = [jpeg.transform(one) for one in np.split(ablated, 6, axis=axis)]
        seen = np.concatenate(channels, axis=axis)
        scores = (
            plain._model(pytest.importorskip("torch").from_numpy(seen))[-1].detach()
            if backend == "torch"
            else plain.model(seen)
        )
        counts += softmax(np.asarray(scores)) >= 0.3
    np.testing.assert_array_equal(classifier.predict(x), counts)
    assert (counts != plain.predict(x)).any()


# Generators and poisoning


def test_a_generator_of_art_never_applies_its_defences_so_it_refuses_them():
    pytest.importorskip("tensorflow")
    from art.estimators.generation import TensorFlowV2Generator

    with pytest.raises(
        ValueError, match=r"of TensorFlowV2Generator must not hold.*put them into the estimator"
    ):
        TensorFlowV2Generator(2, object(), preprocessing_defences=[median()])
    TensorFlowV2Generator(2, object(), preprocessing_defences=[median(apply_predict=False)])


def test_neural_cleanse():
    """Its gradients call themselves in ART 1.20, whatever the defences."""
    pytest.importorskip("tensorflow")
    from art.estimators.poison_mitigation import KerasNeuralCleanse

    classifier = KerasNeuralCleanse(keras_model(TWO), use_logits=True, preprocessing_defences=TWO)
    close(classifier.predict(IMAGES), logits(TWO, IMAGES))


# ART's own defences in one list with ours


def torch_operation(kind):
    """An operation of ART in torch, and what it makes of a batch; channels first."""
    if kind == "cutout":
        from art.defences.preprocessor import CutoutPyTorch

        return CutoutPyTorch(3, channels_first=True, apply_predict=True, device_type="cpu")
    if kind == "resize":
        from art.preprocessing.image import ImageResizePyTorch

        return ImageResizePyTorch(4, 3, apply_predict=True)
    from art.preprocessing.expectation_over_transformation.natural_corruptions.brightness.pytorch import (
        EoTBrightnessPyTorch,
    )

    return EoTBrightnessPyTorch(1, (0.0, 1.0), (0.1, 0.1), apply_fit=True)


FIRST_CHANNELS = np.ascontiguousarray(np.moveaxis(IMAGES, -1, 1))


def start_again():
    """The generators from which ART draws."""
    np.random.seed(1)
    sys.modules["torch"].manual_seed(1)


@pytest.mark.parametrize("kind", ["cutout", "resize", "brightness"])
def test_arts_torch_operations_in_a_list_with_ours(kind, monkeypatch):
    """`predict`, gradients and `fit`, with ART's operation first and last."""
    torch = pytest.importorskip("torch")
    monkeypatch.setitem(sys.modules, "cv2", SimpleNamespace(INTER_LINEAR=1))  # ART imports it with the rest
    operation = torch_operation(kind)
    smooth = SpatialSmoothing(3, channels_first=True, gradient="exact", apply_fit=True)
    for defences in ([operation, smooth], [smooth, operation]):
        start_again()
        leaf = x = torch.tensor(FIRST_CHANNELS, requires_grad=True)
        for defence in defences:
            x = defence.forward(x)[0]
        seen = x.detach().numpy()
        classifier = pytorch([], like=seen)
        x.backward(torch.tensor(classifier.loss_gradient(seen, Y)))
        classifier.set_params(preprocessing_defences=defences)
        assert classifier.all_framework_preprocessing
        start_again()
        close(classifier.predict(FIRST_CHANNELS), seen.reshape(4, -1) @ weights(seen.shape[1:]))
        start_again()
        close(classifier.loss_gradient(FIRST_CHANNELS, Y), leaf.grad.numpy())
        assert np.abs(leaf.grad.numpy()).max() > 0.1
        start_again()
        classifier.fit(FIRST_CHANNELS, Y, batch_size=4, nb_epochs=1)
        for got, expected in zip(trained(classifier), one_step(seen, Y), strict=True):
            close(got, expected)


@pytest.mark.parametrize("kind", ["cutout", "resize"])
def test_arts_tensorflow_operations_in_a_list_with_ours(kind, monkeypatch):
    """The same, with gradients of classes; ART's EoT classes for TensorFlow fail by themselves."""
    tf = pytest.importorskip("tensorflow")
    monkeypatch.setitem(sys.modules, "cv2", SimpleNamespace(INTER_LINEAR=1))
    from art.defences.preprocessor import CutoutTensorFlowV2
    from art.preprocessing.image import ImageResizeTensorFlowV2

    if kind == "cutout":
        operation = CutoutTensorFlowV2(3, apply_predict=True)
    else:
        operation = ImageResizeTensorFlowV2(4, 3, apply_predict=True)

    def again():
        np.random.seed(1)
        tf.random.set_seed(1)

    from art.preprocessing.expectation_over_transformation.natural_corruptions.brightness import (
        tensorflow as eot,
    )

    with pytest.raises(tf.errors.InvalidArgumentError, match=r"Can not squeeze"):
        eot.EoTBrightnessTensorFlow(1, (0.0, 1.0), 0.1).forward(tf.constant(IMAGES))
    smooth = median(apply_fit=True)
    for defences in ([operation, smooth], [smooth, operation]):
        again()
        x = tf.constant(IMAGES)
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(x)
            seen = x
            for defence in defences:
                seen = defence.forward(seen)[0]
        classifier = tensorflow([], like=seen.numpy())
        at_model = (
            classifier.loss_gradient(seen.numpy(), Y),
            *np.moveaxis(classifier.class_gradient(seen), 1, 0),
        )
        expected = [tape.gradient(seen, x, tf.constant(grad)).numpy() for grad in at_model]
        classifier.set_params(preprocessing_defences=defences)
        again()
        close(classifier.predict(IMAGES), seen.numpy().reshape(4, -1) @ weights(seen.shape[1:]))
        again()
        close(classifier.loss_gradient(IMAGES, Y), expected[0])
        again()
        close(classifier.class_gradient(IMAGES), np.stack(expected[1:], axis=1))
        again()
        close(classifier.class_gradient(IMAGES, 1)[:, 0], expected[2])
        again()
        classifier.fit(IMAGES, Y, batch_size=4, nb_epochs=1)
        for got, wanted in zip(trained(classifier), one_step(seen.numpy(), Y), strict=True):
            close(got, wanted)


def test_arts_mixup_in_a_list_with_ours():
    """For training; its mixed labels reach the loss."""
    pytest.importorskip("torch")
    from art.defences.preprocessor import MixupPyTorch

    smooth, mixup = median(apply_fit=True), MixupPyTorch(3, device_type="cpu")
    classifier = pytorch([smooth, mixup])
    close(classifier.loss_gradient(IMAGES, Y), loss_gradient([smooth], IMAGES, Y))
    start_again()
    _, y = mixup(smooth.transform(IMAGES), Y)
    start_again()
    seen = {}
    classifier._loss = lambda found, wanted: seen.update(y=wanted) or (found * 0).sum()
    classifier._reduce_labels = False
    classifier.fit(IMAGES, Y, batch_size=4, nb_epochs=1)
    assert np.abs(y - Y).max() > 0.01
    close(np.sort(seen["y"].numpy().max(axis=1)), np.sort(y.max(axis=1)))


@pytest.mark.parametrize("make", [pytorch, tensorflow, keras, hugging_face])
@pytest.mark.parametrize("ours_first", [True, False])
def test_arts_numpy_defences_in_a_list_with_ours(make, ours_first):
    """Where ART raises NotImplementedError, stage by stage; ART's gradients are those that it declares."""
    theirs = ArtSmoothing(3, apply_fit=True)
    defences = [soft(), theirs] if ours_first else [theirs, soft()]
    classifier = make([])
    classifier.set_params(preprocessing_defences=defences)
    first = defences[0](IMAGES)[0]
    x = defences[1](first)[0]
    close(classifier.predict(IMAGES), logits([], x))
    point = IMAGES if ours_first else first
    expected = soft().estimate_gradient(point, loss_gradient([], x, Y))
    close(classifier.loss_gradient(IMAGES, Y), expected)
    close(classifier.class_gradient(IMAGES), soft().estimate_gradient(point, class_gradient([], x)))
    assert np.abs(expected - loss_gradient([], x, Y)).max() > 0.1
    if make is not hugging_face:
        classifier.fit(IMAGES, Y, batch_size=4, nb_epochs=1)
        for got, wanted in zip(trained(classifier), one_step(theirs(IMAGES)[0], Y), strict=True):
            close(got, wanted)


@pytest.mark.parametrize(
    ("make", "defences"),
    [
        (pytorch, [Resample(16000, 8000), Resample(8000, 16000)]),
        (tensorflow, [Resample(16000, 8000), Resample(8000, 16000)]),
        (keras, [Resample(16000, 8000), Resample(8000, 16000)]),
        (keras, [Resample(16000, 8000, apply_predict=False)]),
    ],
    ids=["pytorch", "tensorflow", "keras", "none applied"],
)
def test_numbers_in_an_object_array(make, defences):
    """Rows of one length are a batch like any other."""
    rows = np.random.default_rng(3).random((4, 8)).astype(np.float32)
    classifier = make([], preprocessing=(0.5, 2.0))
    classifier.set_params(preprocessing_defences=defences)
    expected = (points([d for d in defences if d.apply_predict], rows)[-1] - 0.5) / 2
    found, _ = classifier._apply_preprocessing(rows.astype(object), None, fit=False)
    assert found.shape == (4, 8)
    close(np.asarray(found, np.float32), expected)


@pytest.mark.parametrize("make", [pytorch, tensorflow, keras])
def test_recordings_of_different_lengths_with_arts_standardisation(make):
    """And in a list of two."""
    resample, mp3 = Resample(16000, 8000), Mp3Compression(8000, full_scale=1.0)
    samples = [SOUNDS[0], SOUNDS[1, :500]]
    classifier = make([resample, mp3], preprocessing=(0.5, 2.0))
    found, _ = classifier._apply_preprocessing(object_array(samples), None, fit=False)
    for result, sample in zip(found, samples, strict=True):
        close(result, (mp3.transform(resample.transform(sample[None]))[0] - 0.5) / 2)
