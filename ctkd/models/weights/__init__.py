"""Loading of weights: downloads, reads published formats, and matches a state dict."""
