"""The error with which arguments are refused, and notes on the errors of others."""

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["ArgumentError", "noted"]


class ArgumentError(TypeError, ValueError):
    """An argument of the wrong type or with a value that breaks a rule.

    ART raises ValueError for many arguments of the wrong type, NumPy and scikit-learn raise TypeError. This
    error is both, so `except` clauses of either habit catch it.
    """


@contextmanager
def noted(note: str) -> Iterator[None]:
    """Add a note to an error from code of the user, such as a model, and let it pass as it is.

    Why such code fails is not known here. So the note states what was done, and blames nothing.
    """
    try:
        yield
    except Exception as error:
        error.add_note(note)
        raise
