"""Arithmetic on arrays of any namespace of the array API standard, one file for each kind; no checks."""
