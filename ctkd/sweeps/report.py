from collections.abc import Sequence
from pathlib import Path
from ctkd.sweeps.folder import SweepFolder
from ctkd.sweeps.state import Status
def write_report(folder: SweepFolder, found: Sequence[Status]) -> list[Path]:
    return []
