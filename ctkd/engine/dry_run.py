"""What a run would be: its resolved configuration and the sizes of its parts."""

from torch import nn

from ctkd.engine.job import Job


def describe(job: Job) -> str:
    """Builds the run on the meta device (no data, no weights, no memory) and puts it into words.

    Raises:
        ConfigError: the configuration is wrong.
    """
    run = job.build(meta=True)
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
    return run.config + "\n" + "\n".join(f"# {line}" for line in sizes)


def _parameters(module: nn.Module) -> str:
    count = sum(parameter.numel() for parameter in module.parameters())
    return f"{count:,} parameters" if count != 1 else "1 parameter"
