"""The command `ctkd` and its subcommands; a subcommand is a module with a function `main`."""
