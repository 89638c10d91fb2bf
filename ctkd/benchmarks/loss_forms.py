"""The losses by rows and classes: time and memory of the closed form and of the readable form."""

import inspect
import os
from collections.abc import Callable, Sequence

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler prints much

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from ctkd.benchmarks.timing import Section, in_turns, quartiles, ratios, spelled
from ctkd.losses.dkd import dkd_rows
from ctkd.losses.kd import kd_rows
from ctkd.results.compare.tables import Column, Table

ROWS, CLASSES = (64, 256, 2048, 65_536), (2, 10, 100, 1000, 32_000)
LARGEST = 2**26  # rows × classes
WORK = 2**22  # elements that one number is the mean over, so that small losses can be timed
MOST = 100  # calls that one number is the mean over: ten milliseconds of the smallest loss

Form = Callable[[Tensor, Tensor, Tensor, Tensor], Sequence[Tensor]]
READABLE = ", autograd"


def _kd(function: Callable[..., Tensor]) -> Form:
    return lambda student, teacher, targets, temperature: (function(student, teacher, temperature),)


def _dkd(function: Callable[..., Sequence[Tensor]]) -> Form:
    return lambda student, teacher, targets, temperature: function(
        student, teacher, targets[:, None], temperature
    )


FORMS: dict[str, Form] = {
    "KD": _kd(kd_rows),
    "KD" + READABLE: _kd(inspect.unwrap(kd_rows)),
    "DKD": _dkd(dkd_rows),
    "DKD" + READABLE: _dkd(inspect.unwrap(dkd_rows)),
}


def measure_losses(device: torch.device, rounds: int, largest: int = LARGEST) -> Section:
    """Forward and backward, with the gradients in the student's logits and in a scalar T."""
    rows, data = [], []
    for n in ROWS:
        for c in CLASSES:
            if n * c <= largest:
                cells, found = _at(n, c, device, rounds)
                rows.append(cells)
                data += found
    columns = [Column("rows", "count"), Column("classes", "count")]
    for loss in ("KD", "DKD"):
        columns += [
            Column(f"{loss} ms", "number", 3),
            Column("ns/element", "number"),
            Column("times as fast as readable", "number"),
            Column("memory", "number"),
            Column("memory, readable", "number"),
        ]
    notes = (
        "Forward and backward, float32. Times as fast: the time of the readable form (by autograd) "
        "over the time of ctkd/losses/fused.py, median and quartiles of the rounds. "
        "Memory: the most that is allocated beyond inputs and returned gradients, over the size of "
        "the student's logits.",
    )
    title = "Losses by rows and classes"
    return Section("losses", title, Table(columns, rows, notes), data)


def _at(
    n: int, c: int, device: torch.device, rounds: int
) -> tuple[list[float | str], list[dict[str, object]]]:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (3 * torch.randn(n, c, generator=generator).to(device) for _ in range(2))
    targets = torch.randint(c, (n,), generator=generator).to(device)
    temperature = torch.full((), 4.0, device=device, requires_grad=True)
    student.requires_grad_()

    def work(form: Form) -> Callable[[], tuple[Tensor, ...]]:
        def once() -> tuple[Tensor, ...]:
            terms = form(student, teacher, targets, temperature)
            loss = torch.stack([term.sum() for term in terms]).sum()
            return torch.autograd.grad(loss, (student, temperature))

        return once

    cases = {name: work(form) for name, form in FORMS.items()}
    repeat = max(1, min(MOST, WORK // (n * c) // 10))
    seconds = in_turns(cases, max(3, rounds if n * c < WORK else rounds // 3), 1, repeat)
    memory = {name: _peak(case, student) for name, case in cases.items()}
    cells: list[float | str] = [n, c]
    for loss in ("KD", "DKD"):
        readable = loss + READABLE
        middle = quartiles(seconds[loss])[1]
        faster = spelled(ratios(seconds[readable], seconds[loss]), 1, 2)
        cells += [1e3 * middle, 1e9 * middle / (n * c), faster, memory[loss], memory[readable]]
    found: list[dict[str, object]] = [
        {"loss": name, "rows": n, "classes": c, "seconds": seconds[name], "memory": memory[name]}
        for name in FORMS
    ]
    return cells, found


def _peak(work: Callable[[], tuple[Tensor, ...]], logits: Tensor) -> float:
    """The most memory that is allocated at once, less the returned gradients, over the logits'."""
    size = logits.numel() * logits.element_size()
    if logits.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return (torch.cuda.max_memory_allocated() - before) / size - 1
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    live = most = 0
    events = profiler.profiler.kineto_results.events() if profiler.profiler else ()
    for event in events:
        if event.name() == "[memory]":
            live += event.nbytes()
            most = max(most, live)
    return most / size - 1
