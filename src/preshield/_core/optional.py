"""The one way to import an optional package."""

from importlib import import_module
from typing import Any

__all__ = ["require"]


def require(module: str, *, extra: str) -> Any:
    """Import `module`, or say which extra brings it.

    Parameters
    ----------
    module : str
        Name of the module, with dots.
    extra : str
        The extra of preshield that installs it.

    Returns
    -------
    module
        The imported module.

    Raises
    ------
    ImportError
        If the package is missing; it names the extra.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != package:
            raise
        raise ImportError(
            f'This needs the package {package!r}: pip install "preshield[{extra}]".',
            name=error.name,
        ) from error
