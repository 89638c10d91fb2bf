"""Finished runs, read from their work directories."""
