"""`python -m ctkd.sweeps --sweep sweeps/digits.gin`: the launcher, without a clone."""

import sys

from ctkd.sweeps.command import main

if __name__ == "__main__":
    sys.exit(main())
