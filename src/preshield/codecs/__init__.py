"""Array to bytes to array; these know no defence."""
