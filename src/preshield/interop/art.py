"""The Adversarial Robustness Toolbox: its classifiers take preshield's defences for their own."""

from typing import Any

from .on_import import on_import

__all__ = ["register", "register_on_import"]

BASES = "art.defences.preprocessor.preprocessor"


def register(module: Any) -> None:
    """Make `Preprocessor` a virtual subclass of ART's three base classes.

    ART asks `isinstance` before it accepts a defence and before it lets several of them share a graph.

    Parameters
    ----------
    module : module
        `art.defences.preprocessor.preprocessor`.
    """
    from ..preprocessor import Preprocessor

    for base in (module.Preprocessor, module.PreprocessorPyTorch, module.PreprocessorTensorFlowV2):
        base.register(Preprocessor)


def register_on_import() -> None:
    """Call `register` now if ART is loaded, else as soon as it is."""
    on_import(BASES, register)
