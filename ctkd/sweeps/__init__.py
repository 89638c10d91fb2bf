"""Sweeps: checks, sends, follows and reports the cells of a study from a Gin file."""
