"""The subcommands of `ctkd` by their earlier names, and `check.py`, which tests a clone."""
