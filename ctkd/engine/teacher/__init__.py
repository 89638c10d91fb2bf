"""The frozen teacher: its weights, its folded network, and the cache of its rows."""
