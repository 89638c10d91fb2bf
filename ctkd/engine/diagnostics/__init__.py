"""The landscape L(T) and the warnings of a run."""
