"""The Adversarial Robustness Toolbox: its estimators take preshield's defences for their own."""

from types import ModuleType
from typing import Any

from .on_import import on_import

__all__ = ["adopt", "register", "register_on_import"]

BASES = "art.defences.preprocessor.preprocessor"
ESTIMATORS = ("art.estimators.", "art.experimental.estimators.")


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


def adopt(module: ModuleType) -> None:
    """Prepare a module of ART that has just been loaded: register, or correct its estimators."""
    if module.__name__ == BASES:
        register(module)
    else:
        from .art_estimators import correct

        correct(module)


def register_on_import() -> None:
    """Adopt the modules of ART that are loaded, and each other one as soon as it is."""
    on_import(lambda name: name == BASES or name.startswith(ESTIMATORS), adopt)
