"""What a learned temperature costs: its own forward, backward and update, over a whole step."""

from collections.abc import Callable

import torch

from ctkd.adversary.grl import gradient_reversal
from ctkd.benchmarks.counts import POLICIES, make_policy
from ctkd.benchmarks.timing import Section, in_turns, quartiles, spelled
from ctkd.engine.optim import Optimizer
from ctkd.engine.optimizer_recipes import SGDRecipe
from ctkd.results.compare.tables import Column, Table

CLASSES = 100


def measure_policies(batch: int, step_seconds: float, device: torch.device, rounds: int) -> Section:
    """Each policy alone, on logits [batch, 100]; `step_seconds` is what a whole step takes."""
    cases = {name: own_step(name, batch, device) for name in POLICIES}
    seconds = in_turns(cases, rounds, warm_up=3, repeat=20)
    constant = quartiles(seconds["ConstantTemperature"])[1]
    rows, data = [], []
    for name, values in sorted(seconds.items(), key=lambda item: quartiles(item[1])[1]):
        own = quartiles(values)[1]
        share, more = 100 * own / step_seconds, 100 * (own - constant) / step_seconds
        rows.append([name, spelled(quartiles(values), 1e6), f"{share:.2f}", f"{more:.2f}"])
        data.append({"policy": name, "seconds": values, "percent_of_step": share})
    columns = [
        Column("policy"),
        Column("µs [quartiles]", "number"),
        Column("% of the step", "number"),
        Column("% more than constant T", "number"),
    ]
    title = (
        f"Temperature policies: own forward, backward, update; step of {1e3 * step_seconds:.1f} ms"
    )
    return Section("policies", title, Table(columns, rows), data)


def own_step(name: str, batch: int, device: torch.device) -> Callable[[], None]:
    """Forward, reversal, backward from a given dL/dT, and the optimizer's step, for one policy."""
    policy = make_policy(name, CLASSES).to(device)
    student, teacher = torch.randn(2, batch, CLASSES, device=device)
    lambda_, progress = torch.ones((), device=device), torch.zeros((), device=device)
    slope = torch.randn(batch, 1, device=device)
    parameters = list(policy.parameters())
    if not parameters:
        return lambda: policy(student, teacher, progress)
    optimizer = Optimizer(SGDRecipe(), policy, None)

    def step() -> None:
        temperature = gradient_reversal(policy(student, teacher, progress), lambda_)
        temperature.backward(slope if temperature.dim() else slope[0, 0])  # type: ignore[no-untyped-call]
        optimizer.step()

    return step
