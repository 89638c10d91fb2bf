"""Every test starts and ends with an empty Gin configuration, on one thread."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two noisy cores: more threads are slower here

import gin
import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _clean_gin():
    gin.clear_config()
    yield
    gin.clear_config()
