"""Data sets: small ones in the device's memory, large ones read from files, and text."""
