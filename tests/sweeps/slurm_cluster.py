"""A real SLURM on this machine, for the tests: munge, a controller, two nodes of four cores.

As root, where `slurmctld slurmd slurm-client munge` are installed; everything lies in one folder.

    python tests/sweeps/slurm_cluster.py FOLDER     starts it, and says what to export
    python tests/sweeps/slurm_cluster.py FOLDER stop
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "scontrol")
NODES = ("n1", "n2")
HOSTS = Path("/etc/hosts")
HOSTS_LINE = f"127.0.0.1 {' '.join(NODES)} # ctkd's test cluster\n"
CONFIG = """\
ClusterName=ctkd
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
SlurmctldPort={port}
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdSpoolDir={folder}/spool.%n
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,sched_min_interval=0
SlurmdParameters=config_overrides
JobRequeue=1
InactiveLimit=0
KillWait=5
MinJobAge=300
MaxArraySize=5
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
MailProg=/bin/true
JobCompType=jobcomp/none
AccountingStorageType=accounting_storage/none
NodeName=n[1-2] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{first}-{last}] CPUs=4 RealMemory=10000
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO PriorityTier=1
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP OverSubscribe=NO PriorityTier=9
"""


def why_not() -> str | None:
    """Why there can be no cluster here, or None if there can."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        return f"SLURM is not installed (no {', '.join(missing)})"
    return None if os.geteuid() == 0 else "a SLURM of its own needs root"


def start(folder: Path) -> dict[str, str]:
    """Starts everything and waits until both nodes are idle; what clients need to know of it.

    Where that fails it starts all of it a second time: another process may have taken a port.
    """
    try:
        return _start(folder)
    except RuntimeError as error:
        print(f"a second try: {error}", file=sys.stderr)
        for path in folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        return _start(folder)


def _start(folder: Path) -> dict[str, str]:
    """Starts everything once."""
    for name in ("state", "spool.n1", "spool.n2"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    if any(_address(node) != "127.0.0.1" for node in NODES):
        with HOSTS.open("a") as file:
            file.write(HOSTS_LINE)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o600)
    port = _free_ports(3)
    config = folder / "slurm.conf"
    names = {"host": socket.gethostname().split(".")[0], "folder": folder}
    config.write_text(CONFIG.format(port=port, first=port + 1, last=port + 2, **names))
    environment = {**os.environ, "SLURM_CONF": str(config)}
    munge = [f"--{kind}={folder}/munge.{kind}" for kind in ("socket",)]
    munge += [f"--{kind}-file={folder}/munged.{kind}" for kind in ("pid", "log", "seed")]
    try:
        _run(["munged", f"--key-file={key}", *munge], environment)
        _run(["slurmctld", "-c", "-f", str(config)], environment)
        for node in NODES:
            _run(["slurmd", "-N", node, "-f", str(config)], environment)
        end = time.monotonic() + 60
        while time.monotonic() < end:
            nodes = _run(["sinfo", "-h", "-o", "%T %D"], environment, check=False)
            if nodes.strip() == "idle 2":
                return {"SLURM_CONF": str(config)}
            time.sleep(0.2)
        raise RuntimeError(f"the nodes did not become idle: {nodes.strip()!r}")
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        stop(folder)
        raise RuntimeError(f"{error}\n{_last_lines(folder)}") from error


def _last_lines(folder: Path) -> str:
    """The last lines of every log."""
    tails = []
    for path in sorted(folder.glob("*.log")):
        lines = path.read_text(errors="replace").splitlines()[-8:]
        tails.append("\n".join([f"{path.name}:", *lines]))
    return "\n".join(tails)


def stop(folder: Path) -> None:
    """Ends every process of the cluster, nodes first."""
    names = ("slurmd.n1", "slurmd.n2", "slurmctld", "munged")
    for name in names:
        with contextlib.suppress(OSError, ValueError):
            number = int((folder / f"{name}.pid").read_text())
            os.kill(number, signal.SIGTERM)
            _wait_for(number)
    text = HOSTS.read_text()
    if HOSTS_LINE in text:
        HOSTS.write_text(text.replace(HOSTS_LINE, ""))


def _wait_for(number: int) -> None:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        os.kill(number, 0)  # raises when it has gone
        time.sleep(0.1)
    os.kill(number, signal.SIGKILL)


def _address(name: str) -> str | None:
    try:
        return socket.gethostbyname(name)
    except OSError:
        return None


def _free_ports(count: int) -> int:
    """The first of `count` neighboring ports that no process listens on."""
    for first in range(17001, 19000, count):
        sockets = []
        try:
            for port in range(first, first + count):
                sockets.append(socket.socket())
                sockets[-1].bind(("127.0.0.1", port))
            return first
        except OSError:
            continue
        finally:
            for opened in sockets:
                opened.close()
    raise RuntimeError("no free ports")


def _run(command: list[str], environment: dict[str, str], check: bool = True) -> str:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30)
    if check and done.returncode:
        raise RuntimeError(f"{command[0]}: {done.stderr.strip()}")
    return done.stdout


if __name__ == "__main__":
    folder = Path(sys.argv[1]).absolute()
    if sys.argv[2:] == ["stop"]:
        stop(folder)
    else:
        for name, value in start(folder).items():
            print(f"export {name}={value}")
