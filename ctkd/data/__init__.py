"""Data sets: resident ones live whole on the device, augmented in batches by discrete views."""
