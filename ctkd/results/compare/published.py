"""Published top-1 accuracies, by teacher, student and method, each with its source.

Two numbers of different sources may differ by their recipe, and by which accuracy they report:
the best test epoch exceeds the last one by about 0.3 points, of the size of the gains claimed.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Published:
    """One published number.

    Attributes:
        value: top-1 accuracy on the test set, percent.
        source: where it stands.
        reports: which accuracy that is, of the "best" test epoch or the "last"; None where the
            source does not tell.
        epochs: length of the published run.
    """

    value: float
    source: str
    reports: Literal["best", "last"] | None
    epochs: int = 240


REPDISTILLER = "RepDistiller (Tian et al., ICLR 2020)"
CTKD = "CTKD (Li et al., AAAI 2023)"
DKD = "DKD (Zhao et al., CVPR 2022), mdistiller's recipe"
CTKD_DKD = "CTKD (Li et al., AAAI 2023), its own run of DKD"
LS = "Logit Standardization (Sun et al., CVPR 2024)"
WTTM = "WTTM (Zheng and Yang, ICLR 2024), means of 5 runs"

# Teacher -> student, in the order of the papers' tables; every tuple below follows it.
PAIRS: tuple[tuple[str, str], ...] = (
    ("resnet56", "resnet20"),
    ("resnet110", "resnet32"),
    ("resnet110", "resnet20"),
    ("wrn_40_2", "wrn_16_2"),
    ("wrn_40_2", "wrn_40_1"),
    ("vgg13", "vgg8"),
    ("resnet32x4", "resnet8x4"),
    ("wrn_40_2", "ShuffleV1"),
    ("vgg13", "MobileNetV2"),
    ("ResNet50", "MobileNetV2"),
    ("resnet32x4", "ShuffleV1"),
    ("resnet32x4", "ShuffleV2"),
)

_Row = tuple[float | None, ...]
NA: None = None  # not published

_KD: _Row = (70.66, 73.08, 70.66, 74.92, 73.54, 72.98, 73.33, 74.83, 67.37, 67.35, 74.07, 74.45)
_CTKD: _Row = (71.19, 73.52, 70.99, 75.45, 73.93, 73.52, 73.39, 75.78, 68.46, 68.47, 74.48, 75.31)
_DKD: _Row = (71.97, 74.11, 71.06, 76.24, 74.81, 74.68, 76.32, 76.70, 69.71, 70.35, 76.45, 77.07)
_CTKD_DKD: _Row = (71.43, 73.66, 71.28, 75.70, 74.54, NA, NA, NA, NA, NA, 75.44, 76.48)
_DKD_CTKD: _Row = (71.65, 74.02, 71.70, 75.81, 74.59, NA, NA, NA, NA, NA, 75.93, 76.94)
_KD_LS: _Row = (71.43, 74.17, 71.48, 76.11, 74.37, 74.36, 76.62, NA, 68.61, 69.02, NA, 75.56)
_CTKD_LS: _Row = (71.34, 74.01, 71.39, 76.08, 74.58, 74.47, 76.67, NA, 68.98, 69.36, NA, 76.18)

_DIST: _Row = (71.75, 73.69, 71.65, 75.51, 74.73, 73.89, 76.31, 76.40, 68.50, 68.66, 76.34, 77.35)
_WTTM: _Row = (71.92, 74.13, 71.67, 76.37, 74.58, 74.44, 76.06, 75.42, 69.16, 69.59, 74.37, 76.55)

# Method (the stem of its Gin file) -> its rows, the one to show first.
_ROWS: dict[str, tuple[tuple[_Row, str, Literal["best", "last"] | None], ...]] = {
    "kd": ((_KD, REPDISTILLER, "last"),),
    "ctkd": ((_CTKD, CTKD, "best"),),
    "dkd": ((_DKD, DKD, "best"), (_CTKD_DKD, CTKD_DKD, "best")),
    "dkd_ctkd": ((_DKD_CTKD, CTKD, "best"),),
    "standardized": ((_KD_LS, LS, "best"),),
    "ctkd_standardized": ((_CTKD_LS, LS, "best"),),
    "dist": ((_DIST, WTTM, None),),
    "wttm": ((_WTTM, WTTM, None),),
}

# Networks trained without a teacher.
ALONE: dict[str, float] = {
    "resnet20": 69.06,
    "resnet32": 71.14,
    "resnet56": 72.34,
    "resnet110": 74.31,
    "resnet8x4": 72.50,
    "resnet32x4": 79.42,
    "wrn_16_2": 73.26,
    "wrn_40_1": 71.98,
    "wrn_40_2": 75.61,
    "vgg8": 70.36,
    "vgg13": 74.64,
    "MobileNetV2": 64.60,
    "ShuffleV1": 70.50,
    "ShuffleV2": 71.82,
    "ResNet50": 79.34,
}

# Teacher -> student -> method; a student alone has its number whatever the teacher.
_IMAGENET: dict[tuple[str, str], dict[str, tuple[Published, ...]]] = {
    ("resnet34", "resnet18"): {
        "vanilla": (Published(70.26, CTKD, None, 120),),
        "kd": (Published(70.83, CTKD, "best", 120), Published(71.03, "mdistiller", None, 100)),
        "ctkd": (Published(71.32, CTKD, "best", 120),),
        "dkd": (Published(71.13, CTKD_DKD, "best", 120), Published(71.70, DKD, "best", 100)),
        "dkd_ctkd": (Published(71.51, CTKD, "best", 120),),
    },
    ("resnet50", "MobileNetV1"): {
        "vanilla": (Published(68.87, DKD, None, 100),),
        "kd": (Published(70.50, "mdistiller", None, 100),),
        "dkd": (Published(72.05, DKD, "best", 100),),
    },
}


def lookup(
    teacher: str | None, student: str, method: str, dataset: str = "cifar100"
) -> Published | None:
    """The published number to set beside a run of `method`, the first of `lookup_all`, or None.

    `method` is the name of our configuration: vanilla (the student alone, whatever the teacher),
    kd, ctkd, dkd, dkd_ctkd, standardized (KD + LS), ctkd_standardized (CTKD + LS), dist or wttm.
    """
    return next(iter(lookup_all(teacher, student, method, dataset)), None)


def lookup_all(
    teacher: str | None, student: str, method: str, dataset: str = "cifar100"
) -> tuple[Published, ...]:
    """Every published number for the same, the one whose recipe our configuration follows first."""
    if dataset == "imagenet":
        for (taught_by, taught), numbers in _IMAGENET.items():
            if taught == student and (method == "vanilla" or taught_by == teacher):
                return numbers.get(method, ())
        return ()
    if dataset != "cifar100":
        return ()
    if method == "vanilla":
        return (Published(ALONE[student], REPDISTILLER, None),) if student in ALONE else ()
    return tuple(_distilled(teacher, student, method))


def _distilled(teacher: str | None, student: str, method: str) -> Iterator[Published]:
    """The numbers of the CIFAR-100 tables for one cell."""
    if teacher is None or (teacher, student) not in PAIRS:
        return
    column = PAIRS.index((teacher, student))
    for row, source, reports in _ROWS.get(method, ()):
        value = row[column]
        if value is not None:
            yield Published(value, source, reports)


def published_notes(beside: Iterable[tuple[str, Published | None, int | None]]) -> Iterator[str]:
    """Sources of the numbers set beside ours, and how far our runs are from theirs in length.

    Args:
        beside: of each row, the method, the published number, our epochs.
    """
    rows = [(method, found, ours) for method, found, ours in beside if found is not None]
    sources: dict[str, list[str]] = {}
    for method, found, _ in rows:
        which = {None: "epoch not stated", "last": "last epoch", "best": "best epoch"}
        methods = sources.setdefault(f"{found.source}, {which[found.reports]}", [])
        methods += [method] if method not in methods else []
    if sources:
        told = "; ".join(f"{', '.join(methods)}: {source}" for source, methods in sources.items())
        yield f"Published: {told}. A best epoch is not to be set against a last one."
    lengths = {(ours, found.epochs) for _, found, ours in rows if ours not in (None, found.epochs)}
    for ours, theirs in sorted(lengths, key=str):
        yield f"The published runs have {theirs} epochs, these have {ours}."
