"""The detectors: torchvision's own in eval mode; in train mode rows that another one can score."""

import pytest
import torch
from torch import nn
from torchvision.models.detection import fasterrcnn_resnet50_fpn
from torchvision.ops import FrozenBatchNorm2d, box_iou

from ctkd.builtin import DETECTORS
from ctkd.errors import ConfigError, DataError
from ctkd.models.weights.match import load_weights
from ctkd.registry import MODELS

TINY = {"pyramid_channels": 16, "rois_per_image": 12, "anchors_per_image": 16}
TINY |= {"anchor_sizes": (8, 16, 32, 64, 128), "min_size": 64, "max_size": 96}


def make(name="fasterrcnn_resnet18_fpn", **more):
    torch.manual_seed(0)
    return MODELS.get(name)(num_classes=4, **{**TINY, **more})


@pytest.fixture
def batch():
    torch.manual_seed(1)
    pictures = [torch.rand(3, 64, 80), torch.rand(3, 56, 72)]
    targets = [
        {
            "boxes": torch.tensor([[5.0, 5, 40, 50], [30, 8, 60, 30]]),
            "labels": torch.tensor([1, 3]),
        },
        {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},
    ]
    return pictures, targets


@pytest.mark.parametrize("name", DETECTORS)
def test_names_build_on_the_meta_device_without_weights(name):
    with torch.device("meta"):  # named weights are not even looked for
        model = MODELS.get(name)(num_classes=7, weights="IMAGENET1K_V1")
    assert model.roi_heads.box_predictor.cls_score.out_features == 7
    assert all(p.is_meta for p in model.parameters())


def test_keys_and_shapes_are_torchvisions():
    with torch.device("meta"):
        ours = MODELS.get("fasterrcnn_resnet50_fpn")(num_classes=91, norm="frozen")
        theirs = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=91)
    shapes = {key: value.shape for key, value in theirs.state_dict().items()}
    counted = {k: v for k, v in shapes.items() if not k.endswith("num_batches_tracked")}
    assert {key: value.shape for key, value in ours.state_dict().items()} == counted


def test_rows_are_the_sampled_proposals_ground_truth_among_them(batch):
    sampled = make().train()(*batch)
    assert [len(boxes) for boxes in sampled.proposals.boxes] == [12, 12]
    assert sampled.logits.shape == (24, 4)
    assert sampled.targets.shape == (24,)
    # With room for all proposals, each one is drawn, so the drawn set is known.
    proposals, logits, targets, losses = make(rois_per_image=10_000).train()(*batch)
    count = len(proposals.boxes[0])
    overlap = box_iou(batch[1][0]["boxes"], proposals.boxes[0])
    assert torch.allclose(overlap.amax(1), torch.ones(2))
    best = overlap.amax(0)
    assert torch.equal(targets[:count] > 0, best >= 0.5)
    assert targets[count:].eq(0).all()  # the picture without objects
    assert sorted(losses) == ["box", "objectness", "rpn_box"]
    assert logits.requires_grad


def test_the_same_boxes_get_the_same_logits_from_the_same_weights(batch):
    model = make(norm="frozen")
    sampled = model.train()(*batch)
    scored = model.eval().score(sampled.proposals)
    torch.testing.assert_close(scored, sampled.logits)


def test_another_teacher_scores_the_students_boxes_with_its_own_features(batch):
    sampled = make().train()(*batch)
    teacher = make("fasterrcnn_mobilenet_v2_fpn", pyramid_channels=8).eval()
    scored = teacher.score(sampled.proposals)
    assert scored.shape == sampled.logits.shape
    assert not torch.allclose(scored, sampled.logits)


def test_torchvisions_classification_loss_is_left_to_the_objective(batch):
    """The other losses are those of torchvision's own train mode, on the same draw."""
    model = make(norm="frozen", min_size=64, max_size=80).train()
    pictures = [batch[0][0]]  # of the very size to which torchvision would bring it
    targets = [batch[1][0]]
    torch.manual_seed(3)
    theirs = super(type(model), model).forward(pictures, targets)
    torch.manual_seed(3)
    torch.empty(1).uniform_()  # torchvision draws a size, even where there is one
    ours = model(pictures, targets)
    assert set(theirs) == {"loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg"}
    torch.testing.assert_close(ours.losses["box"], theirs["loss_box_reg"])
    torch.testing.assert_close(ours.losses["objectness"], theirs["loss_objectness"])
    torch.testing.assert_close(ours.losses["rpn_box"], theirs["loss_rpn_box_reg"])
    own = nn.functional.cross_entropy(ours.logits, ours.targets)
    torch.testing.assert_close(own, theirs["loss_classifier"])


def test_in_eval_mode_it_detects_in_pictures_of_any_size():
    found = make().eval()([torch.rand(3, 50, 70), torch.rand(3, 90, 30)])
    assert [set(one) for one in found] == [{"boxes", "labels", "scores"}] * 2


def test_train_mode_asks_for_targets(batch):
    with pytest.raises(ValueError, match="needs targets"):
        make().train()(batch[0])


def frozen(model):
    return {name.split(".")[2] for name, p in model.named_parameters() if not p.requires_grad}


def test_from_scratch_everything_is_trained_with_batch_normalization():
    model = make()
    assert frozen(model) == set()
    assert any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    assert not any(isinstance(m, FrozenBatchNorm2d) for m in model.modules())


def test_stages_can_be_frozen():
    assert frozen(make(trainable_stages=3)) == {"conv1", "bn1", "layer1"}
    assert frozen(make(trainable_stages=0)) >= {"conv1", "layer4"}
    mobile = make("fasterrcnn_mobilenet_v2_fpn", trainable_stages=3)
    assert frozen(mobile) == {"0", "1", "2", "3"}


def test_a_pretrained_backbone_is_loaded_frozen_and_partly_trained(tmp_path):
    from torchvision.models import resnet18

    torch.manual_seed(5)
    classifier = resnet18()
    torch.save(classifier.state_dict(), tmp_path / "backbone.pth")
    model = make(weights=str(tmp_path / "backbone.pth"))
    assert torch.equal(
        model.backbone.body.layer2[0].conv1.weight, classifier.layer2[0].conv1.weight
    )
    assert isinstance(model.backbone.body.bn1, FrozenBatchNorm2d)
    assert frozen(model) == {"conv1", "layer1"}  # a frozen normalization has no parameters
    assert isinstance(
        make(weights=str(tmp_path / "backbone.pth"), norm="batch").backbone.body.bn1, nn.BatchNorm2d
    )


def test_frozen_and_counted_normalizations_exchange_their_weights(tmp_path):
    counted, still = make(), make(norm="frozen")
    torch.save(counted.state_dict(), tmp_path / "counted.pt")
    load_weights(still, tmp_path / "counted.pt")
    torch.save(still.state_dict(), tmp_path / "still.pt")
    load_weights(counted, tmp_path / "still.pt")
    assert torch.equal(still.backbone.body.bn1.weight, counted.backbone.body.bn1.weight)


def test_bad_settings_are_named(tmp_path):
    with pytest.raises(ConfigError, match="no weights 'IMAGENET1K_V7' of resnet18.*IMAGENET1K_V1"):
        make(weights="IMAGENET1K_V7")
    with pytest.raises(DataError, match="does not exist"):
        make(weights=str(tmp_path / "missing.pth"))
    for wrong in ({"trainable_stages": 6}, {"anchor_sizes": (8,)}, {"rois_per_image": 0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            make(**wrong)
