"""The engine: builds a run from its configuration and trains it in one loop."""
