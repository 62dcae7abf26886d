"""How fast, beside the least that anything could do: `make bench`. Never fails on an absolute time."""
