"""Temperature policies: modules, `policy(student_logits, teacher_logits, progress) -> T`."""

from ctkd.temperature.annealed import AnnealedTemperature
from ctkd.temperature.constant import ConstantTemperature
from ctkd.temperature.global_temperature import GlobalTemperature
from ctkd.temperature.instance import InstanceTemperature

__all__ = ["AnnealedTemperature", "ConstantTemperature", "GlobalTemperature", "InstanceTemperature"]
