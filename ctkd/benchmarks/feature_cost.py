"""What each feature loss adds to a training step with logits only, and what CRD's banks cost."""

import torch

from ctkd.benchmarks.counts import split_name
from ctkd.benchmarks.step import Pair
from ctkd.benchmarks.timing import Section, Work, in_turns, quartiles, ratios, spelled
from ctkd.losses.features.crd import CRD
from ctkd.losses.features.feature_loss import StepRows
from ctkd.registry import FEATURES
from ctkd.results.compare.tables import Column, Table

PLAIN = "logits only"
BATCH, CLASSES, WIDTH = 64, 100, 64  # of the rows that meet CRD's banks


def measure_feature_losses(pair: Pair, rounds: int, block: int) -> Section:
    """A step of KD with each feature loss, over the step without it; no teacher row is cached."""
    cases: dict[str, Work] = {PLAIN: pair.ours("compile = False", method="kd")}
    for name in FEATURES:
        added = f"Method.features = [@{name}]"
        cases[name] = pair.ours("compile = False", added, method="kd")
    seconds = in_turns(cases, rounds, warm_up=1, repeat=block)
    rows, data = [], []
    for name, values in seconds.items():
        ratio = ratios(values, seconds[PLAIN])
        rows.append([name, spelled(quartiles(values), 1e3), spelled(ratio, 1, 3)])
        data.append({"pair": pair.name, "case": name, "seconds": values, "ratio": ratio[1]})
    columns = [Column("feature loss"), Column("ms [quartiles]", "number")]
    columns.append(Column("times the step with logits only", "number"))
    title = f"Feature losses, {' → '.join(split_name(pair.name))}"
    return Section("features", title, Table(columns, rows), data)


def measure_banks(device: torch.device, rounds: int, sizes: tuple[int, ...]) -> Section:
    """CRD alone, forward and backward, with 16,384 negatives, for data sets of different sizes."""
    losses = {size: _crd(size, device) for size in sizes}
    cases = {f"{size:,} images": _contrast(loss, size, device) for size, loss in losses.items()}
    seconds = in_turns(cases, rounds, warm_up=1, repeat=1)
    first = next(iter(seconds))
    rows, data = [], []
    for (size, loss), (name, values) in zip(losses.items(), seconds.items(), strict=True):
        megabytes = sum(bank.numel() * bank.element_size() for bank in loss.buffers()) / 1e6
        ratio = ratios(values, seconds[first])
        sizes_of = f"{megabytes:,.0f}", spelled(quartiles(values), 1e3), spelled(ratio, 1, 2)
        rows.append([name, *sizes_of])
        data.append({"images": size, "megabytes": megabytes, "seconds": values, "ratio": ratio[1]})
    columns = [Column("CRD with"), *(Column(c, "number") for c in ("MB", "ms [quartiles]"))]
    columns.append(Column(f"times {first}", "number"))
    return Section("banks", f"CRD's loss alone, batch {BATCH}", Table(columns, rows), data)


def _crd(size: int, device: torch.device) -> CRD:
    """CRD with the banks of a data set."""
    loss, feature = CRD(), {"pooled": torch.zeros(1, WIDTH)}
    loss.build(feature, feature)
    loss.to(device)
    loss.use_samples(torch.arange(size, device=device) % CLASSES)
    return loss


def _contrast(loss: CRD, size: int, device: torch.device) -> Work:
    """Forward and backward on random features of random images."""
    indices = torch.randint(size, (BATCH,)).to(device)
    rows = StepRows(targets=indices % CLASSES, indices=indices)
    student, teacher = (torch.randn(BATCH, WIDTH).to(device) for _ in range(2))
    student.requires_grad_()

    def work() -> None:
        loss({"pooled": student}, {"pooled": teacher}, rows).backward()

    return work
