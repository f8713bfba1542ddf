"""Preprocessing defences against adversarial examples.

The names, arguments and results of `art.defences.preprocessor`, faster, for NumPy, torch, TensorFlow and
JAX. Every name is loaded when it is first used.
"""

import lazy_loader

from .interop.art import register_on_import
from .interop.modules import register_layer_on_import

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

_lazy = __getattr__


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("preshield")
    return _lazy(name)


register_on_import()
register_layer_on_import()
