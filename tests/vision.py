"""Libraries of vision, in tests."""

import sys
from importlib import import_module
from importlib.util import find_spec

import pytest

# What the Python code of torchvision expects of its compiled part when it is imported
OPERATORS = ("nms", "qnms")


def vision(package):
    """Import a package that needs torchvision, or skip the test.

    The compiled part of torchvision is made for one build of torch, and that of PyPI does not load beside a
    CPU build. Transforms and classifiers need no more of it than that two operators are known.
    """
    for name in ("torch", "torchvision", package):
        if find_spec(name.partition(".")[0]) is None:
            pytest.skip(f"could not import {name!r}")
    import torch

    try:
        import_module("torchvision")
    except RuntimeError:
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        for name in OPERATORS:
            torch.library.define(
                f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            )
    return import_module(package)
