"""Tensors of each framework, one file each: there and back, with the gradient."""
