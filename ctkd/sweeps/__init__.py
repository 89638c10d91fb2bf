"""Sweeps: a Gin file describes a study; its cells are checked, submitted, followed, reported."""
