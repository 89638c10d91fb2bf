"""The feature losses of a run, as terms of its loss."""

from collections.abc import Callable, Iterable, Iterator

from torch import Tensor, nn

from ctkd.errors import ConfigError
from ctkd.losses.features.feature_loss import FeatureLoss, Features, StepRows
from ctkd.losses.per_row import full_precision

Gather = Callable[[Tensor], Tensor]


class FeatureTerms(nn.Module):
    """Feature losses by the names of their terms.

    Attributes:
        losses: the feature losses; their parameters minimize the loss.
        gather: returns the rows of all ranks, given those of this rank; None for one rank.
    """

    gather: Gather | None = None

    def __init__(self, losses: Iterable[FeatureLoss]) -> None:
        """Raises ConfigError if two losses have the same name, or if it is not a list of them."""
        super().__init__()
        if isinstance(losses, nn.Module):
            raise ConfigError(f"features = {type(losses).__name__}(…): expected a list of losses")
        self.losses = nn.ModuleDict()
        for loss in losses:
            if loss.term in self.losses:
                raise ConfigError(
                    f"{loss.named} is given twice: give it once, with a larger weight"
                )
            self.losses[loss.term] = loss

    def __iter__(self) -> Iterator[FeatureLoss]:
        return (loss for loss in self.losses.values() if isinstance(loss, FeatureLoss))

    def __len__(self) -> int:
        return len(self.losses)

    def weights(self, position: float) -> dict[str, float]:
        """The weight of every loss; see `FeatureLoss.weights`."""
        return {loss.term: loss.weights(position)[loss.term] for loss in self}

    def forward(
        self, features: tuple[Features, Features] | None, rows: StepRows
    ) -> dict[str, Tensor]:
        """The losses, name -> 0-d, each a mean over the given rows. Half precision becomes float32.

        Raises:
            ValueError: there are losses, but no features; or a loss cannot use these.
        """
        if features is None:
            raise ValueError("features = None: pass the features of student and teacher, by name")
        student, teacher = ({k: full_precision(f) for k, f in side.items()} for side in features)
        found: dict[str, Tensor] = {}
        for loss in self:
            _check(loss, student, teacher, rows)
            given = (student, teacher, rows)
            if loss.compares_rows and self.gather is not None:
                given = _everywhere(self.gather, loss, *given)
            found[loss.term] = loss(*given)
        return found


def _check(loss: FeatureLoss, student: Features, teacher: Features, rows: StepRows) -> None:
    """Raises ValueError where a loss has no modules yet, or gets other rows than the step's."""
    makes_modules = type(loss).build is not FeatureLoss.build
    if makes_modules and next(loss.parameters(), None) is None:
        raise ValueError(
            f"{loss.named} has no modules yet: call build(student features, teacher features) "
            "first, and give the optimizer its parameters"
        )
    if rows.targets is None:
        return
    if loss.needs_class and rows.targets.is_floating_point():
        raise ValueError(f"{loss.named} needs one class for each row, and targets has several")
    used = [(student, name) for name in loss.names(student)]
    used += [(teacher, loss.of_teacher(name)) for _, name in used]
    for features, name in used:
        if name in features and len(features[name]) != len(rows.targets):
            raise ValueError(
                f"{loss.named} got the feature {name} of {len(features[name])} rows in a step of "
                f"{len(rows.targets)}: expected those of the same rows"
            )


def _everywhere(
    gather: Gather, loss: FeatureLoss, student: Features, teacher: Features, rows: StepRows
) -> tuple[Features, Features, StepRows]:
    """The inputs of the loss, gathered from all ranks."""
    names = loss.names(student)
    s = {name: gather(student[name]) for name in names}
    t = {other: gather(teacher[other]) for other in map(loss.of_teacher, names)}
    return s, t, StepRows(*(None if part is None else gather(part) for part in rows))
