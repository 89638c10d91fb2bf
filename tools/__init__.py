"""More commands, run from a clone. `python tools/NAME.py --help` describes each."""
