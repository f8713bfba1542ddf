"""The progress bar."""

import warnings
from typing import Any

__all__ = ["progress_bar"]


def progress_bar(**options: Any) -> Any:
    """Make tqdm's bar for where the code runs; in a notebook without ipywidgets the one of text, silently."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "IProgress not found")
        from tqdm.auto import tqdm
    return tqdm(**options)
