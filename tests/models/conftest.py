"""Small networks, and real data from the folder above the repository, without which tests skip."""

import http.server
import pathlib
import subprocess
import sys
import threading

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
    """The 10,000 test images, normalized as the trained networks expect, and their labels."""
    script = SHARED / "unpack_cifar100.py"
    if not script.is_file():
        pytest.skip(f"needs CIFAR-100 next to {script}")
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

    def refuse(source, model=None, setting=""):
        model = model or network(seed=2)
        before = fingerprint(model.state_dict())
        with pytest.raises(DataError) as caught:
            load_weights(model, source, setting=setting)
        assert fingerprint(model.state_dict()) == before  # all or nothing
        return str(caught.value)

    return refuse


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A loopback server: `files` maps paths to contents; `requests` lists what was asked for."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            web.requests.append(self.path)
            content = web.files.get(self.path)
            self.send_response(200 if content is not None else 404)
            self.send_header("Content-Length", str(len(content or b"") + web.promised))
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *_):
            pass

    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    web.files, web.requests, web.promised = {}, [], 0
    web.url = f"http://127.0.0.1:{web.server_port}"
    web.cache = tmp_path / "home" / "hub" / "checkpoints"
    thread = threading.Thread(target=web.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield web
    web.shutdown()
    web.server_close()
    thread.join()
