"""In which form the teacher's rows are used and kept, and what each form allows."""

from typing import Any

from ctkd.data.dataset import Dataset
from ctkd.distiller import Distiller
from ctkd.engine.config.settings import Instrument, Teacher
from ctkd.engine.tasks.alignment_settings import check_alignment, has_two_vocabularies
from ctkd.errors import ConfigError
from ctkd.losses.sampled import HIGH, LOW, SampledKD

# Mean T² · KL of 256 rows of SmolLM2-135M and its first 27 layers, 64 logits a row.
WHY_NOT_TOP_K = (
    "the k largest logits move the maximum of L(T). Measured on SmolLM2-135M at T = 2 with k = 64, "
    "which hold 83 % of the mass: T² · KL is 0.42 with the rest as one class, 9.6 without it, and "
    "1.35 in truth"
)
COMMON = ("ConstantTemperature", "AnnealedTemperature", "GlobalTemperature")


def check_rows(
    distiller: Distiller, dataset: Dataset, teacher: Teacher, instrument: Instrument, part: Any
) -> None:
    """Raises ConfigError where the form of the teacher's rows does not fit the game.

    Args:
        part: the further settings of the data set's kind.
    """
    block = getattr(part, "block", None)
    check_alignment(distiller, dataset, block)
    if not distiller.needs_teacher or teacher.rows in ("float32", "float16"):
        return
    form = f"Teacher.rows = {teacher.rows!r}"
    if teacher.rows == "top_k":
        raise ConfigError(
            f"{form}: {WHY_NOT_TOP_K}. Set Teacher.rows = 'hidden16', exact at every T, or "
            "'sampled', unbiased"
        )
    if dataset.kind != "text":
        raise ConfigError(f"{form} is for language models: set 'float32' or 'float16'")
    if teacher.rows == "sampled":
        if has_two_vocabularies(dataset):
            raise ConfigError(
                f"{form} needs one vocabulary: with Alignment.tokenizer whole rows are compared, "
                "not drawn tokens. Set 'hidden16' or 'float32'"
            )
        _check_sampled(distiller, instrument, block, form)


def _check_sampled(
    distiller: Distiller, instrument: Instrument, block: int | None, form: str
) -> None:
    """Raises ConfigError where drawn tokens cannot stand for a row of logits."""
    policy, objective = type(distiller.policy).__name__, type(distiller.objective).__name__
    if not isinstance(distiller.objective, SampledKD):
        raise ConfigError(f"{form}: {objective} needs logits; set Method.objective = @SampledKD")
    if distiller.transform is not None or len(distiller.features):
        raise ConfigError(f"{form} allows neither a transform nor feature losses: set none")
    if policy not in COMMON:
        raise ConfigError(
            f"{form}: {policy} reads the teacher's logits; set Method.policy to one of "
            f"@{', @'.join(COMMON)}"
        )
    if block is not None:
        raise ConfigError(f"{form} has no head to apply in blocks: set Language.block = None")
    low, high = distiller.bounds or (LOW, HIGH)
    grid = ("Instrument.low and high", instrument.low, instrument.high)
    for name, least, most in (grid, ("the bounds of the policy", low, high)):
        if not LOW <= least < most <= HIGH:
            raise ConfigError(
                f"{form} is exact for T from {LOW:g} to {HIGH:g}, and {name} are {least:g} and "
                f"{most:g}: set them inside"
            )
