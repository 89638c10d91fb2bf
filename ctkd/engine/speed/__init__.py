"""Faster forms of a step: torch.compile and CUDA graphs."""
