"""Sweeps: one Gin file describes a study; its cells are checked, sent, followed and reported."""
