"""The project's whole check: style, spelling, types, layers, and the tests with their coverage.

    python tools/check.py            everything
    python tools/check.py --fast     without the tests marked slow, and without coverage

Further arguments go to pytest. Ends with the results of all checks; the exit status is 0 if all
passed.
"""

import os
import pathlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

ROOT = pathlib.Path(__file__).resolve().parent.parent
COVERAGE = 95  # percent of ctkd/, branches included
FIRST = (["ruff", "check", "."], ["ruff", "format", "--check", "."], ["codespell"])
# Each takes one core for a minute at most: they run next to the tests, and are shown after them.
MEANWHILE = (["mypy"], ["lint-imports", "--no-logo"])


def main(arguments: list[str]) -> int:
    """Runs every check even after one failed, so that one look shows all that is wrong."""
    if {"-h", "--help"} & set(arguments):
        print(__doc__)
        return 0
    fast = "--fast" in arguments
    rest = [argument for argument in arguments if argument != "--fast"]
    # Two workers for two cores; a third was tried and gained nothing.
    tests = ["pytest", "-n", "2", "--dist", "loadgroup", *rest]
    if fast:
        tests += ["-m", "not slow"]
    else:
        tests += ["--cov=ctkd", "--cov-report=term:skip-covered", f"--cov-fail-under={COVERAGE}"]
    results = [_run(command) for command in FIRST]
    with ThreadPoolExecutor() as pool:
        waiting = [pool.submit(_run, command, later=True) for command in MEANWHILE]
        results.append(_run(tests))
        results += [future.result() for future in waiting]
    failed = []
    for name, status, output in results:
        if output is not None:
            print(f"=== {name}\n{output}", end="", flush=True)
        if status:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _run(command: list[str], later: bool = False) -> tuple[str, int, str | None]:
    """The name, the exit status, and the output if it is to be shown later."""
    name = " ".join(command[:3])
    if not later:
        print(f"=== {name}", flush=True)
    if command[0] == "pytest":
        program = [sys.executable, "-m", "pytest"]
    else:
        program = [str(pathlib.Path(sys.executable).parent / command[0])]
    done = subprocess.run(
        [*program, *command[1:]],
        cwd=ROOT,
        # Two noisy cores: a second thread slows small tensors down.
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE if later else None,
        stderr=subprocess.STDOUT if later else None,
        text=True,
    )
    return name, done.returncode, done.stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
