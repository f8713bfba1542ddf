"""The Adversarial Robustness Toolbox: its classifiers take preshield's defences for their own."""

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

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
    if BASES in sys.modules:
        register(sys.modules[BASES])
    else:
        sys.meta_path.insert(0, _Finder())


class _Finder:
    """Leaves finding and loading to the others, and registers after loading.

    It derives from nothing: `importlib.abc` would be most of what `import preshield` costs.
    """

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != BASES:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)  # type: ignore[assignment]
        return spec


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
        register(module)
