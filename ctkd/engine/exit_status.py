"""The exit status of a command that trains: 0 done, 2 a user's error, 3 not finite, 130 stopped.

Nothing here imports torch: a signal may come before it is imported.
"""

import os
import sys
from collections.abc import Callable

from ctkd.engine.interrupt import EarlyInterrupts
from ctkd.errors import Interrupted, NonFiniteError, UserError
from ctkd.standard_output import safe_output


def exit_status(work: Callable[[EarlyInterrupts], None]) -> int:
    """Does the work; returns the status, with one clear message on standard error if it is not 0.

    `work` calls `raise_if_signalled` of its argument once its libraries are imported.
    """
    with safe_output():
        try:
            with EarlyInterrupts() as early:
                work(early)
        except UserError as error:
            print(f"ctkd: {error}", file=sys.stderr)
            return 2
        except NonFiniteError as error:
            print(f"ctkd: stopped: {error}", file=sys.stderr)
            return 3
        except (Interrupted, KeyboardInterrupt) as error:
            saved = "the state is saved"
            state = f"{error}; {saved}" if str(error) else "interrupted; what was saved stays"
            print(f"ctkd: {state}; the same command goes on from there", file=sys.stderr)
            return 130
        return 0


def leave(status: int) -> None:
    """Ends the process; after an interrupt immediately.

    At a normal exit Python would tear down libraries whose import was interrupted. That can abort
    the process, or report the interrupt as an uncaught exception.
    """
    if status == 130:
        with safe_output():  # flushes both streams
            pass
        os._exit(status)
    sys.exit(status)
