"""Errors that the user can correct; every other error is our fault and keeps its traceback."""


class UserError(Exception):
    """A mistake in what was handed in (a file, a flag, a value): `main` exits with 2."""


class ConfigError(UserError, ValueError):
    """A setting of the wrong type, out of its range, misspelled or missing."""


class DataError(UserError):
    """A data set, or a file of weights, that is missing, damaged or not what was expected."""


class WorkdirError(UserError):
    """A work directory that cannot be used: another run's, another process's, not writable."""


class OutputError(UserError):
    """Standard output that cannot be written, in a command whose product it is."""


class NonFiniteError(Exception):
    """A loss, a temperature or a gradient became NaN or infinite: `main` exits with 3."""


class Interrupted(Exception):  # noqa: N818 - nothing went wrong
    """A stop was requested: `main` exits with 130. With a message, the state is saved."""
