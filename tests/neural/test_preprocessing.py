"""Geometry and normalisation, apart: together they are what the library's own transform computes."""

import numpy as np
import pytest
from PIL import Image

from preshield.neural.preprocessing import Geometry, Normalisation, joined, split, stacked
from tests.vision import vision

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8))
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)


def of_torchvision(torch):
    from torchvision import models, transforms
    from torchvision.transforms import v2

    yield models.ViT_B_16_Weights.DEFAULT.transforms()
    yield models.EfficientNet_B0_Weights.DEFAULT.transforms(crop_size=40, resize_size=48)
    steps = (transforms.ToTensor(), transforms.Normalize(MEAN, STD, inplace=True), torch.nn.Identity())
    yield transforms.Compose([lambda picture: picture.convert("L").convert("RGB"), *steps])
    yield transforms.Compose([transforms.Compose([transforms.Resize(36), transforms.CenterCrop(32)]), *steps])
    to_float = v2.ToDtype(torch.float32, scale=True)
    yield v2.Compose([v2.ToImage(), v2.Resize(36), v2.CenterCrop(32), to_float, v2.Normalize(MEAN, STD)])
    yield v2.Compose([v2.PILToTensor(), to_float, v2.Normalize(MEAN, (1.0,) * 3), v2.Normalize((0.0,), STD)])


def of_timm(torch):
    from timm.data import create_transform

    yield create_transform((3, 32, 32), mean=MEAN, std=STD, crop_pct=0.9, interpolation="bicubic")
    yield create_transform((3, 32, 24), mean=MEAN, std=STD, crop_mode="border")


@pytest.mark.parametrize(("package", "transforms"), [("torchvision", of_torchvision), ("timm", of_timm)])
def test_both_parts_are_the_transform_to_the_bit(package, transforms):
    vision(package)
    import torch

    for transform in transforms(torch):
        parts = split(transform)
        pixels = parts.geometry(PICTURE)
        assert pixels.dtype == np.float32
        assert pixels.min() >= 0
        assert pixels.max() <= 1
        result = parts.normalise(torch.from_numpy(pixels)[None])[0]
        torch.testing.assert_close(result, torch.as_tensor(transform(PICTURE)), rtol=0, atol=0, msg=repr)


def test_image_processors_of_transformers():
    """Those on torchvision fuse the scale with the normalisation, which rounds once less."""
    transformers = vision("transformers")
    import torch

    names = ("ViTImageProcessor", "ViTImageProcessorPil", "CLIPImageProcessor")
    for name, exact in zip(names, (False, True, False), strict=True):
        processor = getattr(transformers, name)(image_mean=MEAN, image_std=STD)
        parts = split(processor)
        expected = processor(images=PICTURE, return_tensors="pt")["pixel_values"]
        result = parts.normalise(torch.from_numpy(parts.geometry(PICTURE))[None])
        torch.testing.assert_close(result, expected, rtol=0, atol=0 if exact else 1e-6)
    # A model that takes other units than [0, 1], and one that normalises nothing.
    signed = transformers.ViTImageProcessorPil(rescale_factor=1 / 127.5, image_mean=MEAN, image_std=STD)
    plain = transformers.ViTImageProcessorPil(do_normalize=False)
    for processor in (signed, plain):
        parts = split(processor)
        expected = processor(images=PICTURE, return_tensors="pt")["pixel_values"]
        result = parts.normalise(torch.from_numpy(parts.geometry(PICTURE))[None])
        torch.testing.assert_close(result, expected, rtol=0, atol=1e-6)


def test_what_has_no_geometry():
    vision("torchvision")
    from torchvision import transforms

    def double(x):
        return 2 * x

    assert split(None).normalise is split(None).geometry is None
    assert split(double).normalise is double
    assert split(double).geometry is None
    only = split(transforms.Normalize(MEAN, STD))
    assert only.geometry is None
    np.testing.assert_array_equal(only.normalise.mean, MEAN)
    assert split(transforms.Compose([transforms.ToTensor()])).normalise is None


def test_a_normalisation_in_every_framework_and_layout():
    normalise = Normalisation(MEAN, STD)
    x = np.random.default_rng(0).random((2, 3, 5, 4), dtype=np.float32)
    expected = np.stack([(x[:, c] - np.float32(MEAN[c])) / np.float32(STD[c]) for c in range(3)], axis=1)
    np.testing.assert_array_equal(normalise(x), expected)
    np.testing.assert_array_equal(normalise(np.moveaxis(x, 1, -1)), np.moveaxis(expected, 1, -1))
    square = x[..., :3]
    np.testing.assert_array_equal(normalise(square), expected[..., :3])
    last = Normalisation(MEAN, STD, channels_first=False)(square)
    np.testing.assert_array_equal(last, np.moveaxis(normalise(np.moveaxis(square, -1, 1)), 1, -1))
    np.testing.assert_allclose(Normalisation(0.5, 0.25)(x[:, :2]), (x[:, :2] - 0.5) / 0.25)
    np.testing.assert_allclose(Normalisation(0.5, 0.25)(x[0, 0]), (x[0, 0] - 0.5) / 0.25)
    with pytest.raises(ValueError, match=r"normalises 3 channels, .* of shape \(2, 5, 4\); pass images"):
        normalise(x[:, :2])
    for package, make in (("torch", "from_numpy"), ("tensorflow", "constant"), ("jax.numpy", "asarray")):
        module = pytest.importorskip(package)
        result = normalise(getattr(module, make)(x))
        assert type(result) is type(getattr(module, make)(x))
        np.testing.assert_allclose(np.asarray(result), expected, rtol=1e-6)


def test_pictures_of_all_kinds():
    levels = np.asarray(PICTURE)
    geometry = Geometry(lambda picture: np.asarray(picture, np.float32).transpose(2, 0, 1) / 255)
    expected = levels.transpose(2, 0, 1).astype(np.float32) / 255
    for picture in (PICTURE, levels, levels.transpose(2, 0, 1), PICTURE.convert("RGBA")):
        np.testing.assert_array_equal(geometry(picture), expected)
    grey = geometry(levels[..., :1])
    np.testing.assert_array_equal(grey, expected[[0, 0, 0]])
    np.testing.assert_array_equal(geometry(levels[..., 0]), grey)
    last = Geometry(geometry, channels_first=False)
    np.testing.assert_array_equal(stacked(map(last, [PICTURE, PICTURE]))[1], levels / np.float32(255))
    with pytest.raises(ValueError, match=r"all pictures to one size, got \(3, 40, 56\) and \(3, 56, 40\)"):
        stacked(map(geometry, [PICTURE, PICTURE.rotate(90, expand=True)]))
    with pytest.raises(ValueError, match=r"resizes pictures: .* \(40, 56, 3\) of float64; pass the pictures"):
        geometry(levels / 255)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (
            np.zeros((1, 3, 4, 4)),
            r"one tensor \(C, H, W\) of .* got shape \(1, 3, 4, 4\) of float64",
        ),
        (np.zeros((3, 4, 4), np.uint8), r"of floating numbers .* got shape \(3, 4, 4\) of uint8"),
        (np.full((3, 4, 4), 200.0), r"pixels in \[0, 1\] before it normalises, got values from 200 to 200"),
        (np.full((3, 4, 4), np.nan), "`preprocess` must be finite"),
    ],
)
def test_what_a_geometry_may_not_make(made, message):
    with pytest.raises(ValueError, match=message):
        Geometry(lambda picture: made)(PICTURE)


def test_values_that_interpolation_leaves_outside_are_clipped():
    pixels = Geometry(lambda picture: np.linspace(-0.1, 1.1, 48).reshape(3, 4, 4))(PICTURE)
    assert pixels.min() == 0
    assert pixels.max() == 1


def test_what_cannot_be_split():
    vision("timm")
    import torch
    from timm.data import create_transform
    from torchvision import models, transforms
    from torchvision.transforms import v2

    normalise = transforms.Normalize(MEAN, STD)
    for step in (
        transforms.RandomHorizontalFlip(),
        v2.RandomErasing(),
        transforms.ColorJitter(0.1),
        v2.GaussianBlur(3),
        transforms.FiveCrop(8),
        v2.JPEG((10, 90)),
    ):
        with pytest.raises(ValueError, match=r"same pixels each time, got .* for training .*weights.trans"):
            split(transforms.Compose([step, transforms.ToTensor(), normalise]))
    with pytest.raises(ValueError, match="the same pixels each time, got"):
        split(create_transform(32, is_training=True))
    for step in (transforms.CenterCrop(8), v2.ToDtype(torch.float16), torch.nn.Upsample(8)):
        with pytest.raises(ValueError, match=r"must end with its normalisation, .* behind it; put"):
            split(transforms.Compose([transforms.ToTensor(), normalise, step]))
    with pytest.raises(ValueError, match=r"of a classifier of images, got SemanticSegmentation\(\)"):
        split(models.segmentation.FCN_ResNet50_Weights.DEFAULT.transforms())
    with pytest.raises(ValueError, match=r"must be a function of batches, a transform .* got 'resnet50'"):
        split("resnet50")

    class Processor:
        do_normalize, image_mean, rescale_offset = True, MEAN, True

    with pytest.raises(ValueError, match="by a factor alone, got Processor with rescale_offset=True"):
        split(Processor())


# Joined to a model


def test_a_torch_module_keeps_its_type_and_its_flags():
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2)).double()
    assert joined(model, None, (3, 2, 2)) is model
    made = joined(model, Normalisation(MEAN, STD), (3, 2, 2))
    x = torch.rand(2, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    by_hand = (x - torch.tensor(MEAN)[:, None, None].double()) / torch.tensor(STD)[:, None, None].double()
    torch.testing.assert_close(made(x), model(by_hand), rtol=1e-6, atol=1e-6)
    (grad,) = torch.autograd.grad(made(x)[:, 0].sum(), x)
    weight = model[1].weight[0].reshape(3, 2, 2) / torch.tensor(STD)[:, None, None]
    torch.testing.assert_close(grad, weight.expand(2, 3, 2, 2), rtol=1e-6, atol=1e-6)
    assert not made.eval().model.training


def test_functions_and_keras_models():
    keras = pytest.importorskip("keras")
    x = np.random.default_rng(0).random((2, 3, 3, 3), dtype=np.float32)
    normalise = Normalisation(MEAN, STD)
    assert joined(np.sum, normalise, x.shape[1:])(x) == normalise(x).sum()
    model = keras.Sequential([keras.Input((3, 3, 3)), keras.layers.Flatten()])
    made = joined(model, normalise, x.shape[1:])
    last = Normalisation(MEAN, STD, channels_first=False)(x)
    np.testing.assert_allclose(np.asarray(made(x)), last.reshape(2, -1), rtol=1e-6)
    assert made.input_shape == (None, 3, 3, 3)


def test_classifiers_that_cannot_be_joined():
    class Estimator:
        def predict(self, x):
            return x

    with pytest.raises(ValueError, match=r"a torch module, a Keras model or a function, got a .*Estimator"):
        joined(Estimator(), np.negative, (3,))
