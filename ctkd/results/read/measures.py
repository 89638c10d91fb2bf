"""The name, unit, digits and better direction of each primary metric."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """The presentation of a primary metric.

    Attributes:
        axis: the label of an axis.
        noun: the name in a sentence.
        unit: of a value, after a space; empty if the axis and the noun contain it.
        difference: the unit of a difference.
        digits: decimals.
        lower_is_better: whether a lower value is better.
    """

    axis: str
    noun: str
    unit: str = ""
    difference: str = "points"
    digits: int = 2
    lower_is_better: bool = False

    def write(self, value: float) -> str:
        """The value with its digits and its unit."""
        return f"{value:.{self.digits}f} {self.unit}".rstrip()


MEASURES = {
    "test_top1": Measure("Accuracy (top-1, %)", "accuracy", "%"),
    "ap": Measure("AP (%)", "AP", "%"),
    "test_bits_per_byte": Measure(
        "Bits per byte", "bits per byte", "", "bits per byte", 4, lower_is_better=True
    ),
}


def measure(primary: str, lower_is_better: bool = False) -> Measure:
    """The measure of a primary metric; an unknown metric is in percent unless lower is better."""
    name = primary.removeprefix("test_")
    if lower_is_better:
        other = Measure(name, name, "", name, 4, lower_is_better=True)
    else:
        other = Measure(f"{name} (%)", name, "%")
    return MEASURES.get(primary, other)
