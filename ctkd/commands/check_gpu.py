"""Proves on this machine's GPU that everything works, and measures how fast it is.

    ctkd gpu-check --out DIR [--minutes 14] [--quick]
                              [--data_dir DIR] [--teacher_weights FILE] [--only tests,speed]

The parts, in order: `machine` (device and versions), `tests` (those marked gpu), `profile`
(launches and waits of one step), `speed` (images/s of a plain loop and of ours), `group` (students
that share the device), `runs` (runs of full length, as many as fit into the rest of the time).

Each part is a process of its own with a time limit. Its result is one line of DIR/results.jsonl,
written immediately: a check that is cut short keeps its results so far. Without a GPU the same
parts run in small on the CPU, as a rehearsal. Exit status: 0 if every part passed, 1 otherwise.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence

from ctkd.benchmarks import gpu_parts as parts
from ctkd.command_line import path_argument

ROOT = parts.ROOT
# The most that a part may take of the time that is left; what it does not take is for the others.
SHARES = {"machine": 0.3, "tests": 0.35, "profile": 0.3, "speed": 0.3, "group": 0.3, "runs": 1.0}
USUAL, QUICK = 14.0, 3.0  # minutes


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the parts; returns the exit status."""
    options = make_parser().parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.part:
        settings = parts.Settings(
            options.out, options.quick, options.seconds, options.data_dir, options.teacher_weights
        )
        print(json.dumps(parts.PARTS[options.part](settings)), flush=True)
        return 0
    minutes = options.minutes or (QUICK if options.quick else USUAL)
    end = time.monotonic() + 60 * minutes
    names = options.only.split(",") if options.only else list(SHARES)
    passed = [_run(name, SHARES[name] * (end - time.monotonic()), options) for name in names]
    return 0 if all(passed) else 1


def _run(name: str, seconds: float, options: argparse.Namespace) -> bool:
    """Runs a part in a process of its own, and writes its line; whether it passed."""
    started = time.monotonic()
    command = [sys.executable, "-m", "ctkd.commands.check_gpu", f"--part={name}"]
    command += [f"--seconds={seconds:.0f}", f"--out={options.out}"]
    command += ["--quick"] if options.quick else []
    for flag in ("data_dir", "teacher_weights"):
        value = getattr(options, flag)
        command += [f"--{flag}={value}"] if value else []
    log = options.out / f"{name}.log"
    line: dict[str, object] = {"part": name, "passed": False, "limit_s": round(seconds)}
    with log.open("w", encoding="utf-8") as errors:
        try:
            done = subprocess.run(
                command, stdout=subprocess.PIPE, stderr=errors, text=True, timeout=seconds, cwd=ROOT
            )
            if done.returncode == 0:
                line |= json.loads(done.stdout.splitlines()[-1])
            else:
                line["error"] = f"exit status {done.returncode}: see {log.name}"
        except subprocess.TimeoutExpired:
            line["error"] = f"cut after {seconds:.0f} s: see {log.name}"
    line["seconds"] = round(time.monotonic() - started, 1)
    if name == "runs":  # also of runs that were cut
        line["runs"] = parts.read_runs(options.out)
    with (options.out / "results.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
        file.flush()
        os.fsync(file.fileno())
    print(json.dumps(line), flush=True)
    return bool(line["passed"])


def make_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        prog="ctkd gpu-check",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--out", type=path_argument, required=True, help="the folder of results and logs")
    add("--minutes", type=float, help=f"for all parts together (default {USUAL:g})")
    add("--quick", action="store_true", help=f"{QUICK:g} minutes: few rounds, short runs")
    add("--data_dir", help="CIFAR-100; without it the speed is measured on random images")
    add("--teacher_weights", help="of ResNet-56; without them no run of full length is made")
    add("--only", help="some of the parts: " + ",".join(SHARES))
    add("--part", choices=list(SHARES), help=argparse.SUPPRESS)
    add("--seconds", type=float, default=60.0, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
