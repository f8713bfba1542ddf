"""Environment variables that set a number."""

import os

from .errors import ArgumentError

__all__ = ["number_from"]


def number_from(variable: str) -> int | None:
    """The positive integer that an environment variable holds, or None if it is not set or empty."""
    setting = os.environ.get(variable, "")
    if not setting:
        return None
    if not setting.isdecimal() or int(setting) < 1:
        raise ArgumentError(
            f"The environment variable {variable} must be a positive integer, got {setting!r}."
        )
    return int(setting)
