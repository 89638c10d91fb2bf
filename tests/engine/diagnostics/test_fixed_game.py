"""The game on fixed rows: faults of a loss, and blocks of rows that add up."""

import pytest
import torch

from ctkd import Distiller
from ctkd.adversary.schedules import ConstantLambda
from ctkd.engine.diagnostics.fixed_game import FixedGame
from ctkd.engine.task import Rows
from ctkd.losses.objectives import KD
from ctkd.temperature import GlobalTemperature


class WithoutEntropy(KD):
    """Cross-entropy to the teacher: not 0 where both agree, and its T runs to a bound."""

    def terms(self, student, teacher, targets, temperature):
        p, log_q = (teacher / temperature).softmax(1), (student / temperature).log_softmax(1)
        return {"kd": -((p * log_q).sum(1, keepdim=True) * temperature**2).squeeze(1)}


@pytest.mark.parametrize("objective", [KD(), WithoutEntropy()])
def test_a_loss_that_is_not_0_where_both_agree_is_warned_of(objective):
    torch.manual_seed(0)
    distiller = Distiller(GlobalTemperature(), ConstantLambda(1.0), objective)
    rows = Rows(torch.randn(9, 5), 3 * torch.randn(9, 5), torch.arange(9) % 5)
    found = " ".join(FixedGame(distiller, rows).faults())
    assert ("where student and teacher agree" in found) == isinstance(objective, WithoutEntropy)
