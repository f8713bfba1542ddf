"""The Adversarial Robustness Toolbox: its estimators take preshield's defences for their own."""

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

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
    loaded = filter(_concerns_us, tuple(sys.modules))
    for name in sorted(loaded, key=lambda name: name.count(".")):  # the bases of estimators first
        adopt(sys.modules[name])
    sys.meta_path.insert(0, _Finder())


def _concerns_us(name: str) -> bool:
    return name == BASES or name.startswith(ESTIMATORS)


class _Finder:
    """Leaves finding and loading to the others, and adopts after loading.

    It derives from nothing: `importlib.abc` would be most of what `import preshield` costs.
    """

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not _concerns_us(name):
            return None
        for finder in sys.meta_path:
            if isinstance(finder, _Finder):
                continue
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _Loader(spec.loader)  # type: ignore[assignment]
                return spec
        return None


class _Loader:
    """The loader of ART's module, with one step more; it puts itself out of sight first."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)  # type: ignore[no-any-return]

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        module.__loader__ = self.loader
        self.loader.exec_module(module)
        adopt(module)
