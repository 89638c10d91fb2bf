"""What a run writes: work directory, checkpoints, records, TensorBoard events, console."""
