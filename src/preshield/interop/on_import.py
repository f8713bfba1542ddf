"""Functions that are called when modules of another library are imported."""

import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__all__ = ["on_import"]

Concerns = Callable[[str], bool]
Hook = Callable[[Any], None]


def on_import(concerns: Concerns, hook: Hook) -> None:
    """Call `hook` with each module whose name concerns it: now if it is loaded, else as soon as it is."""
    loaded = filter(concerns, tuple(sys.modules))
    for name in sorted(loaded, key=lambda name: name.count(".")):  # packages before what is in them
        hook(sys.modules[name])
    sys.meta_path.insert(0, _Finder(concerns, hook))


class _Finder:
    """Leaves finding and loading to the others, and calls a hook after loading.

    It derives from nothing: `importlib.abc` would be most of what `import preshield` costs.
    """

    def __init__(self, concerns: Concerns, hook: Hook) -> None:
        self.concerns = concerns
        self.hook = hook

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not self.concerns(name):
            return None
        # Only those behind it: of two that concern the same module, as a reload leaves them, neither may ask
        # the one that asked it.
        behind = sys.meta_path[sys.meta_path.index(self) + 1 :]
        found = (finder.find_spec(name, path, target) for finder in behind)
        spec = next(filter(None, found), None)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self.hook)  # type: ignore[assignment]
        return spec


class _Loader:
    """The loader of a module, with one step more; it puts itself out of sight first."""

    def __init__(self, loader: Any, hook: Hook) -> None:
        self.loader = loader
        self.hook = hook

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)  # type: ignore[no-any-return]

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        module.__loader__ = self.loader
        self.loader.exec_module(module)
        self.hook(module)
