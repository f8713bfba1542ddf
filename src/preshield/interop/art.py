"""The Adversarial Robustness Toolbox: its classifiers take preshield's defences for their own."""

from typing import Any

from ..preprocessor import Preprocessor

__all__ = ["register"]


def register(module: Any) -> None:
    """Make `Preprocessor` a virtual subclass of ART's three base classes.

    ART asks `isinstance` before it accepts a defence and before it lets several of them share a graph.

    Parameters
    ----------
    module : module
        `art.defences.preprocessor.preprocessor`.
    """
    for base in (module.Preprocessor, module.PreprocessorPyTorch, module.PreprocessorTensorFlowV2):
        base.register(Preprocessor)
