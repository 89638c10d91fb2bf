"""Commands beside the package, run from a clone: `python tools/NAME.py --help` tells of each."""
