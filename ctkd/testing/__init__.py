"""Checks that a component keeps the contract of its kind, for the tests of any package.

    from ctkd.testing import check_objective


    def test_my_objective():
        check_objective(MyObjective(), num_classes=10)

A check raises an AssertionError that names the component and the fault. Checks run on the CPU, in a
fraction of a second.
"""

from ctkd.testing.ctkd_contract import check_ctkd
from ctkd.testing.feature_contract import check_feature_loss
from ctkd.testing.objective_contract import check_objective
from ctkd.testing.policy_contract import check_policy
from ctkd.testing.schedule_contract import check_schedule
from ctkd.testing.settings_contract import check_settings
from ctkd.testing.training_step import TrainingStep
from ctkd.testing.transform_contract import check_transform

__all__ = [
    "TrainingStep",
    "check_ctkd",
    "check_feature_loss",
    "check_objective",
    "check_policy",
    "check_schedule",
    "check_settings",
    "check_transform",
]
