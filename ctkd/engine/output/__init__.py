"""The output of a run: work directory, checkpoints, records, TensorBoard events, console."""
