"""The names of the built-in components, with the modules that define them; data only.

A registry imports a module when one of its names is looked up, so that `--help` imports none.
"""

DATASETS = {
    "digits": "ctkd.data.digits",
    "cifar100": "ctkd.data.cifar",
    "cifar10": "ctkd.data.cifar",
    "imagenet": "ctkd.data.imagenet",
    "coco": "ctkd.data.coco",
    "python_topics": "ctkd.data.text.python_topics",
    "text_files": "ctkd.data.text.text_files",
    "brown": "ctkd.data.text.brown",
}
# For small images, and quick to build: a file of weights that does not fit is compared with these.
SMALL_NETWORKS = {
    name: f"ctkd.models.{module}"
    for module, names in {
        "digits_cnn": "digits_student digits_teacher",
        "cifar_resnet": "resnet8 resnet14 resnet20 resnet32 resnet44 resnet56 resnet110 "
        "resnet8x4 resnet32x4 ResNet50",
        "wrn": "wrn_16_1 wrn_16_2 wrn_40_1 wrn_40_2",
        "vgg": "vgg8 vgg11 vgg13 vgg16 vgg19",
        "mobilenet": "MobileNetV2",
        "shufflenet": "ShuffleV1 ShuffleV2",
    }.items()
    for name in names.split()
}
# Of torchvision's networks all that classify images, but for vgg11, vgg13, vgg16 and vgg19, whose
# names are taken above: those are torchvision_vgg11 and so on.
_TORCHVISION = (
    "alexnet convnext_base convnext_large convnext_small convnext_tiny densenet121 densenet161 "
    "densenet169 densenet201 efficientnet_b0 efficientnet_b1 efficientnet_b2 efficientnet_b3 "
    "efficientnet_b4 efficientnet_b5 efficientnet_b6 efficientnet_b7 efficientnet_v2_l "
    "efficientnet_v2_m efficientnet_v2_s googlenet inception_v3 maxvit_t mnasnet0_5 mnasnet0_75 "
    "mnasnet1_0 mnasnet1_3 mobilenet_v2 mobilenet_v3_large mobilenet_v3_small regnet_x_16gf "
    "regnet_x_1_6gf regnet_x_32gf regnet_x_3_2gf regnet_x_400mf regnet_x_800mf regnet_x_8gf "
    "regnet_y_128gf regnet_y_16gf regnet_y_1_6gf regnet_y_32gf regnet_y_3_2gf regnet_y_400mf "
    "regnet_y_800mf regnet_y_8gf resnet101 resnet152 resnet18 resnet34 resnet50 resnext101_32x8d "
    "resnext101_64x4d resnext50_32x4d shufflenet_v2_x0_5 shufflenet_v2_x1_0 shufflenet_v2_x1_5 "
    "shufflenet_v2_x2_0 squeezenet1_0 squeezenet1_1 swin_b swin_s swin_t swin_v2_b swin_v2_s "
    "swin_v2_t vgg11_bn vgg13_bn vgg16_bn vgg19_bn vit_b_16 vit_b_32 vit_h_14 vit_l_16 vit_l_32 "
    "wide_resnet101_2 wide_resnet50_2"
)
TORCHVISION_NETWORKS = _TORCHVISION.split()
DETECTORS = {
    f"fasterrcnn_{backbone}_fpn": "ctkd.models.faster_rcnn"
    for backbone in ("resnet18", "resnet50", "resnet101", "mobilenet_v2")
}
LANGUAGE_MODELS = {
    "decoder": "ctkd.models.decoder",
    "decoder_teacher": "ctkd.models.decoder",
    **dict.fromkeys(("hf_causal_lm", "hf_teacher", "drop_layers"), "ctkd.models.hugging_face"),
}
MODELS = {
    **SMALL_NETWORKS,
    **dict.fromkeys((*TORCHVISION_NETWORKS, "MobileNetV1"), "ctkd.models.imagenet_networks"),
    **DETECTORS,
    **LANGUAGE_MODELS,
}
# Prefixes of names that are not listed: timm_NAME is any network of timm.
MODEL_FAMILIES = dict.fromkeys(("torchvision_", "timm_"), "ctkd.models.imagenet_networks")
TRANSFORMS = {
    "LogitStandardization": "ctkd.losses.transforms",
    **dict.fromkeys(("SharedColumns", "SortedColumns"), "ctkd.losses.columns"),
    "PrefixBytes": "ctkd.losses.prefix_bytes",
}
TEMPERATURES = {
    "ConstantTemperature": "ctkd.temperature.constant",
    "InverseTemperature": "ctkd.temperature.inverse",
    "AnnealedTemperature": "ctkd.temperature.annealed",
    "GlobalTemperature": "ctkd.temperature.global_temperature",
    "InstanceTemperature": "ctkd.temperature.instance",
    "TokenTemperature": "ctkd.temperature.token",
    "SpreadTemperature": "ctkd.temperature.spread",
    "InverseDifficultyTemperature": "ctkd.temperature.inverse_difficulty",
    "ReplayedTemperature": "ctkd.temperature.replay",
    "ExactTemperature": "ctkd.temperature.exact",
}
SCHEDULES = dict.fromkeys(
    ("ConstantLambda", "LinearLambda", "CosineLambda"), "ctkd.adversary.schedules"
)
OBJECTIVES = {
    **dict.fromkeys(("CrossEntropy", "KD", "DKD"), "ctkd.losses.objectives"),
    **dict.fromkeys(("ReverseKL", "JSD", "SkewedKL"), "ctkd.losses.divergences"),
    "NormKD": "ctkd.losses.normkd",
    "NKD": "ctkd.losses.nkd",
    **dict.fromkeys(("RLD", "SWAP", "RC"), "ctkd.losses.rld"),
    "ABKD": "ctkd.losses.abkd",
    "EAKD": "ctkd.losses.eakd",
    "TTM": "ctkd.losses.ttm",
    "DTKD": "ctkd.losses.dtkd",
    "WTTM": "ctkd.losses.wttm",
    "DIST": "ctkd.losses.dist",
    "HardKD": "ctkd.losses.hard_kd",
    "ULD": "ctkd.losses.uld",
    "ALM": "ctkd.losses.alm",
    "SampledKD": "ctkd.losses.sampled",
    "MLKD": "ctkd.losses.mlkd",
    "CRLD": "ctkd.losses.crld",
    **dict.fromkeys(("QuirkKD", "QuirkDKD"), "ctkd.losses.quirks"),
}
OPTIMIZERS = {
    **dict.fromkeys(("SGD", "AdamW", "Lion"), "ctkd.engine.optimizer_recipes"),
    "TorchOptimizer": "ctkd.engine.other_optimizers",
}
LR_SCHEDULES = dict.fromkeys(
    ("ConstantLR", "LinearLR", "CosineLR", "OneCycleLR", "MultiStepLR"), "ctkd.engine.lr_schedules"
)
FEATURES = {
    name: f"ctkd.losses.features.{name.lower()}"
    for name in ["AT", "CRD", "FitNet", "PKT", "RKD", "ReviewKD", "SP", "SRRL", "SimKD", "VID"]
}
