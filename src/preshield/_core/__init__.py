"""What the rooms above share; knows none of them."""
