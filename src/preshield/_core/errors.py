"""The error with which arguments are refused."""

__all__ = ["ArgumentError"]


class ArgumentError(TypeError, ValueError):
    """An argument of the wrong type or with a value that breaks a rule.

    ART raises ValueError for many arguments of the wrong type, NumPy and scikit-learn raise TypeError. This
    error is both, so `except` clauses of either habit catch it.
    """
