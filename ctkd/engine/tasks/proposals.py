"""What a method may set about a detector's rows."""

from dataclasses import dataclass

from ctkd.checks import expect, finite
from ctkd.engine.config.settings import PARTS


@PARTS.register("Proposals", settings="method")
@dataclass(frozen=True)
class ProposalSettings:
    """Of the sampled proposals, which are the rows of detection.

    Attributes:
        background_weight: the weight of a background row in the loss; a row on an object has
            weight 1. 1.0 gives the plain mean over all rows, as in every other task.
    """

    background_weight: float = 1.0

    def __post_init__(self) -> None:
        value = self.background_weight
        fine = finite(value) and value >= 0
        expect(fine, "Proposals", "background_weight", value, "a number of 0 or more")
