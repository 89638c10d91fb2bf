"""Several processes in one run: the world of ranks, sums over ranks, batch normalization."""
