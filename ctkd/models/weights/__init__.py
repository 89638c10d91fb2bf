"""Weights into networks: match a state dict, read the formats in the wild, download."""
