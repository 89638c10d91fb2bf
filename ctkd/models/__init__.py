"""Networks by name, and the loading of their published weights."""
