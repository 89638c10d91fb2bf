"""A dry run: the resolved configuration and the sizes of a run's parts, without training."""

from torch import nn

from ctkd.engine.diagnostics.warnings import faults_of_run
from ctkd.engine.job import Job
from ctkd.engine.output.console import Console


def describe(job: Job, console: Console) -> str:
    """Builds the run on the meta device (no data, no weights, no memory) and describes it.

    The text is a Gin file of the same run. The warnings of a real run go to the console, which
    writes them to standard error.

    Raises:
        ConfigError: the configuration is wrong.
    """
    run = job.build(meta=True)
    for fault in faults_of_run(run):
        console.warn(fault)
    teacher = run.teacher_network
    sizes = [
        f"{'run':<18} {run.name}, {run.recipe.epochs} epochs, seed {run.seed}",
        f"{'work directory':<18} {job.workdir_of(run)}",
        f"{'student':<18} {_parameters(run.student)}",
        f"{'teacher':<18} {'not used' if teacher is None else _parameters(teacher)}",
    ]
    policy = run.distiller.policy
    if policy is not None:
        sizes.append(f"{'temperature policy':<18} {type(policy).__name__}, {_parameters(policy)}")
    if run.features is not None:
        sizes += [f"{'feature':<18} {line}" for line in run.features.lines()]
        for loss in run.distiller.features:
            about = f"{type(loss).__name__}, weight {loss.weight:g}, {_parameters(loss)}"
            sizes.append(f"{'feature loss':<18} {about}")
    return run.config + "\n" + "\n".join(f"# {line}" for line in sizes)


def _parameters(module: nn.Module) -> str:
    count = sum(parameter.numel() for parameter in module.parameters())
    return f"{count:,} parameters" if count != 1 else "1 parameter"
