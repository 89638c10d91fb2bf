"""Tasks: where batches come from, what their rows are, and how a network is evaluated."""
