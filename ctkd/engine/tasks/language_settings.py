"""How a run on text is computed and what it leaves; nothing of it changes the result."""

from dataclasses import dataclass

from ctkd.checks import expect
from ctkd.engine.config.settings import PARTS


@PARTS.register("Language", settings="runtime")
@dataclass(frozen=True)
class LanguageSettings:
    """Memory of a step, and samples at the end.

    Attributes:
        block: rows whose logits are in memory at a time, in training and in the landscape; None for
            all of them. With blocks the loss takes 5 · block · vocabulary · 4 bytes and one
            gradient of the head, for any number of rows; the result differs by rounding. (The
            median of InverseDifficultyTemperature is then that of a block.)
        continuations: how many beginnings of test windows the student continues at each evaluation,
            in the file continuations.txt; 0 for none.
        continued: tokens of a continuation.
    """

    block: int | None = None
    continuations: int = 3
    continued: int = 64

    def __post_init__(self) -> None:
        fine = self.block is None or self.block >= 1
        expect(fine, "Language", "block", self.block, "None or a number of rows of 1 or more")
        for name in ("continuations", "continued"):
            value = getattr(self, name)
            expect(value >= 0, "Language", name, value, "a number of 0 or more")
