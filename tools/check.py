"""The project's whole check: style, spelling, types, layers, and the tests with their coverage.

    python tools/check.py            everything
    python tools/check.py --fast     without the tests marked slow, and without coverage

Further arguments go to pytest. Ends with pytest's summary; the exit status is 0 if all passed.
"""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
COVERAGE = 95  # percent of ctkd/, branches included


def main(arguments: list[str]) -> int:
    """Runs every check even after one failed, so that one look shows all that is wrong."""
    if {"-h", "--help"} & set(arguments):
        print(__doc__)
        return 0
    fast = "--fast" in arguments
    rest = [argument for argument in arguments if argument != "--fast"]
    binaries = pathlib.Path(sys.executable).parent
    # Two workers for two cores; a third was tried and gained nothing.
    pytest = [sys.executable, "-m", "pytest", "-n", "2", "--dist", "loadgroup", *rest]
    if fast:
        pytest += ["-m", "not slow"]
    else:
        pytest += ["--cov=ctkd", "--cov-report=term:skip-covered", f"--cov-fail-under={COVERAGE}"]
    commands = [
        [str(binaries / "ruff"), "check", "."],
        [str(binaries / "ruff"), "format", "--check", "."],
        [str(binaries / "codespell")],
        [str(binaries / "mypy")],
        [str(binaries / "lint-imports"), "--no-logo"],
        pytest,
    ]
    # Two noisy cores: a second thread slows small tensors down.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    failed = []
    for command in commands:
        name = " ".join([pathlib.Path(command[0]).name, *command[1:3]])
        print(f"=== {name}", flush=True)
        if subprocess.run(command, cwd=ROOT, env=environment).returncode:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
