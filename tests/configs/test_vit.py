"""The files for vision transformers: DeiT's recipe, and what their cards say."""

import pytest

from ctkd.engine.config.builder import KnownNetworks
from ctkd.engine.job import Job

KNOWN = KnownNetworks()  # each network is built once, and tried


def build(folder, *files, bindings=()):
    names = [f"gin/{folder}/{name}.gin" for name in files]
    return Job(names, bindings).build(meta=True, known=KNOWN)


@pytest.mark.parametrize(
    ("folder", "batch", "end"), [("cifar100", 128, 0.02), ("imagenet", 1024, 0.01)]
)
def test_the_recipe_is_deits(folder, batch, end):
    run = build(folder, "vit/ctkd")
    student, policy = run.optimizers.student, run.optimizers.policy
    assert (run.recipe.epochs, run.recipe_epochs, run.recipe.batch_size) == (300, 300, batch)
    assert (type(student).__name__, type(policy).__name__) == ("AdamWRecipe", "SGDRecipe")
    assert (student.lr, student.weight_decay) == (pytest.approx(5e-4 * batch / 512), 0.05)
    assert student.decay_norms_and_biases is False
    rates = [run.optimizers.lr(p) / student.lr for p in (2.5, 5, 152.5, 300)]
    assert rates == pytest.approx([0.5, 1.0, (1 + end) / 2, end])
    augmentation = run.task_part
    given = (augmentation.mixup, augmentation.cutmix, augmentation.erasing)
    assert (*given, augmentation.label_smoothing) == (0.8, 1.0, 0.25, 0.1)
    assert hasattr(run.student, "dist_token")


@pytest.mark.parametrize("folder", ["cifar100", "imagenet"])
def test_methods_differ_in_the_method_alone(folder):
    recipe = build(folder, "vit/kd").settings["recipe"]
    for method in ("ctkd", "hard"):
        assert build(folder, f"vit/{method}").settings["recipe"] == recipe


def test_pairs_change_the_networks_alone():
    recipe = build("imagenet", "vit/kd").settings["recipe"]
    for pair in ("convnext_tiny_deit_tiny", "regnet_y_16gf_mixer"):
        other = build("imagenet", "vit/kd", f"vit/pairs/{pair}").settings["recipe"]
        shared = recipe.keys() & other.keys() - {"Recipe.student", "Teacher.network"}
        assert {name: other[name] for name in shared} == {name: recipe[name] for name in shared}
