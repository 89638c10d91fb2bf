"""ctkd: knowledge distillation with a learned temperature (CTKD, arXiv 2211.16231)."""

from typing import TYPE_CHECKING

from ctkd.lazy import lazy_names

if TYPE_CHECKING:
    from ctkd.adversary.grl import gradient_reversal
    from ctkd.adversary.schedules import ConstantLambda, CosineLambda, LinearLambda
    from ctkd.distiller import Distiller
    from ctkd.engine.diagnostics.of_networks import landscape
    from ctkd.losses.dist import DIST
    from ctkd.losses.dkd import dkd_loss
    from ctkd.losses.kd import kd_loss
    from ctkd.losses.objectives import DKD, KD, CrossEntropy
    from ctkd.losses.transforms import LogitStandardization
    from ctkd.models.extraction import features
    from ctkd.temperature.annealed import AnnealedTemperature
    from ctkd.temperature.constant import ConstantTemperature
    from ctkd.temperature.global_temperature import GlobalTemperature
    from ctkd.temperature.instance import InstanceTemperature

__version__ = "0.1.0"
__all__ = [
    "DIST",
    "DKD",
    "KD",
    "AnnealedTemperature",
    "ConstantLambda",
    "ConstantTemperature",
    "CosineLambda",
    "CrossEntropy",
    "Distiller",
    "GlobalTemperature",
    "InstanceTemperature",
    "LinearLambda",
    "LogitStandardization",
    "__version__",
    "dkd_loss",
    "features",
    "gradient_reversal",
    "kd_loss",
    "landscape",
]
__getattr__ = lazy_names(
    __name__,
    {
        "Distiller": "ctkd.distiller",
        "kd_loss": "ctkd.losses.kd",
        "dkd_loss": "ctkd.losses.dkd",
        "features": "ctkd.models.extraction",
        "gradient_reversal": "ctkd.adversary.grl",
        "ConstantTemperature": "ctkd.temperature.constant",
        "AnnealedTemperature": "ctkd.temperature.annealed",
        "GlobalTemperature": "ctkd.temperature.global_temperature",
        "InstanceTemperature": "ctkd.temperature.instance",
        "ConstantLambda": "ctkd.adversary.schedules",
        "LinearLambda": "ctkd.adversary.schedules",
        "CosineLambda": "ctkd.adversary.schedules",
        "LogitStandardization": "ctkd.losses.transforms",
        "CrossEntropy": "ctkd.losses.objectives",
        "KD": "ctkd.losses.objectives",
        "DKD": "ctkd.losses.objectives",
        "DIST": "ctkd.losses.dist",
        "landscape": "ctkd.engine.diagnostics.of_networks",
    },
)
