"""Models, their training, and what an attack needs from them."""
