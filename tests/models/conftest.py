"""Small networks, and real data from beside the repository, without which tests skip."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest
import torch

from ctkd.errors import DataError
from ctkd.models.weights.match import fingerprint, load_weights
from ctkd.registry import MODELS

SHARED = pathlib.Path(__file__).parents[2].parent / "shared" / "data"


@pytest.fixture(scope="session")
def teachers():
    """The folder of trained networks."""
    folder = SHARED / "teachers"
    if not folder.is_dir():
        pytest.skip(f"needs the trained networks in {folder}")
    return folder


@pytest.fixture(scope="session")
def cifar100_test(tmp_path_factory):
    """The 10,000 test images, normalised as the trained networks expect, and their labels."""
    script = SHARED / "unpack_cifar100.py"
    if not script.is_file():
        pytest.skip(f"needs CIFAR-100 beside {script}")
    folder = tmp_path_factory.mktemp("cifar100")
    subprocess.run([sys.executable, script, folder], check=True, capture_output=True)
    with np.load(folder / "cifar100.npz") as data:
        images, labels = data["test_images"], data["test_labels"]
    (folder / "cifar100.npz").unlink()  # 185 MB
    mean = torch.tensor([0.5070, 0.4865, 0.4409]).view(3, 1, 1)
    std = torch.tensor([0.2673, 0.2564, 0.2761]).view(3, 1, 1)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    return (pixels - mean) / std, torch.from_numpy(labels)


@pytest.fixture(scope="session")
def network():
    """Builds a small network by name, with weights of its own for every seed."""

    def build(name="resnet8", num_classes=10, seed=1):
        torch.manual_seed(seed)
        return MODELS.get(name)(num_classes)

    return build


@pytest.fixture
def state(network):
    return network().state_dict()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.pth"


@pytest.fixture(scope="session")
def refusal(network):
    """Loads what must be refused, and gives the DataError's message."""

    def refuse(source, model=None):
        model = model or network(seed=2)
        before = fingerprint(model.state_dict())
        with pytest.raises(DataError) as caught:
            load_weights(model, source)
        assert fingerprint(model.state_dict()) == before  # all or nothing
        return str(caught.value)

    return refuse
