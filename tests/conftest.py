"""Every test starts and ends with an empty Gin configuration, on one thread.

The command is called in this process by `command`, as a process of its own by `cli`.
"""

import contextlib
import ctypes
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from typing import NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two noisy cores: more threads are slower here
os.environ["CTKD_CACHE"] = tempfile.mkdtemp(prefix="ctkd-cache-")  # of fixtures of a whole module

import gin
import pytest
import torch

ROOT = pathlib.Path(__file__).parents[1]

torch.set_num_threads(1)


class Result(NamedTuple):
    status: int
    out: str
    err: str


def pytest_collection_modifyitems(items):
    """Tests of the one cluster go to one worker; tests marked gpu are left out without a GPU."""
    for item in items:
        if {"slurm", "cluster"}.intersection(item.fixturenames):
            item.add_marker(pytest.mark.xdist_group("cluster"))
        gpu = item.get_closest_marker("gpu")
        rehearsed = gpu is None or ("CTKD_GPU_REHEARSAL" in os.environ and not gpu.kwargs)
        if not rehearsed and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="there is no GPU"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Processes that slow tests start are not traced for coverage, except with `traced=True`.

    It takes as long again to import torch under a tracer, and the quick tests cover nearly as much.
    """
    slow = item.get_closest_marker("slow")
    untraced = slow is not None and not slow.kwargs.get("traced", False)
    traced = os.environ.pop("COVERAGE_PROCESS_CONFIG", None) if untraced else None
    try:
        return (yield)
    finally:
        if traced is not None:
            os.environ["COVERAGE_PROCESS_CONFIG"] = traced


@contextlib.contextmanager
def _bound_by_permissions():
    """Inside, root may write only what the permissions allow, as any other user (on Linux)."""
    libc, header = ctypes.CDLL(None), (ctypes.c_uint32 * 2)(0x20080522, 0)
    sets = (ctypes.c_uint32 * 6)()
    assert libc.capget(header, sets) == 0
    effective = sets[0]
    sets[0] &= ~0b110  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
    assert libc.capset(header, sets) == 0
    try:
        yield
    finally:
        sets[0] = effective
        assert libc.capset(header, sets) == 0


@pytest.fixture
def read_only():
    """A context in which nothing below a path can be written; with `hidden`, nor read."""

    @contextlib.contextmanager
    def within(path, hidden=False):
        modes = {p: p.stat().st_mode for p in ([path] if hidden else [path, *path.rglob("*")])}
        for p, mode in modes.items():
            p.chmod(0 if hidden else mode & ~0o222)
        try:
            with _bound_by_permissions() if os.geteuid() == 0 else contextlib.nullcontext():
                yield
        finally:
            for p, mode in modes.items():
                p.chmod(mode)

    return within


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """The user's cache of each test: a folder that nothing else is in."""
    monkeypatch.setenv("CTKD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def _clean_gin():
    gin.clear_config()
    yield
    gin.clear_config()


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Runs the command in this process, in the empty folder tmp_path; gives a Result."""
    from ctkd.main import main

    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        return Result(status, *capsys.readouterr())

    return call


@pytest.fixture
def environment():
    """Of a child process that imports the package from this clone."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path, "COLUMNS": "100"}


@pytest.fixture
def cli(tmp_path, environment):
    """Runs the command as a process of its own, in tmp_path; gives a Result."""

    return lambda *words, **more: _run(["-m", "ctkd.main", *words], tmp_path, environment | more)


@pytest.fixture
def python(tmp_path, environment):
    """Runs a few lines of Python in a fresh interpreter, in tmp_path; gives a Result."""
    return lambda code, **more: _run(["-c", code], tmp_path, environment | more)


def _run(words, folder, environment):
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    return Result(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def small_shm():
    """Runs Python where /dev/shm has 1 MiB: small_shm("-m", "ctkd.main", …, cwd=…, env=…)."""
    mount = 'mount -t tmpfs -o size=1m tmpfs /dev/shm && exec "$@"'
    within = ["unshare", "--mount", "sh", "-c", mount, "sh"]
    with contextlib.suppress(OSError):
        if subprocess.run([*within, "true"], capture_output=True).returncode == 0:
            how = {"capture_output": True, "text": True, "timeout": 200}
            start = [*within, sys.executable]
            return lambda *words, **more: subprocess.run([*start, *map(str, words)], **how, **more)
    pytest.skip("this user may not mount another /dev/shm")


def write_images(root, classes=3, train=8, val=4, side=40):
    """JPEGs in ImageNet's layout; a class is the direction and color of its stripes."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    for part, count in (("train", train), ("val", val)):
        for number in range(classes):
            folder = root / part / f"n{number:08}"
            folder.mkdir(parents=True)
            for image in range(count):
                height, width = side + int(random.integers(8)), side + int(random.integers(8))
                rows, columns = np.mgrid[:height, :width]
                wave = np.sin((rows, columns, rows + columns)[number % 3] / 3 + random.random() * 6)
                pixels = 60 * random.random((height, width, 3)) + 40
                pixels[..., number % 3] += 60 * (1 + wave)
                name = folder / f"{part}_{image}.JPEG"
                Image.fromarray(pixels.astype(np.uint8)).save(name, quality=90)
    return root


@pytest.fixture(scope="session")
def image_folders(tmp_path_factory):
    """Three classes with 8 training and 4 validation images each; not to be changed."""
    return write_images(tmp_path_factory.mktemp("images"))


@pytest.fixture
def own_images(tmp_path):
    """The same in a place of the test's own: `own_images(train=20)` writes them."""

    def write(**options):
        return write_images(tmp_path / "images", **options)

    return write


@pytest.fixture(scope="session")
def teacher_file(tmp_path_factory):
    """The weights of a trained digits teacher, made once for all tests."""
    from ctkd.engine.job import Job, execute
    from ctkd.engine.output.console import Console

    folder = tmp_path_factory.mktemp("teacher")
    quick = ("epochs = 5", "Runtime.tensorboard = False", "Runtime.figures = False")
    execute(Job(["gin/digits/teacher.gin"], quick, str(folder)), Console())
    gin.clear_config()
    return folder / "student_last.pt"


CATEGORIES = ((1, "square"), (4, "tall"), (9, "wide"))  # ids with gaps, as COCO's


def draw_coco(folder, pictures=8, seed=0):
    """A data set in COCO's layout: bright rectangles on gray noise, 60 × 80 or 80 × 60 pixels."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(seed)
    (folder / "annotations").mkdir(parents=True)
    for split, first in (("train2017", 1), ("val2017", 501)):
        (folder / split).mkdir()
        images, annotations = [], []
        for number in range(first, first + pictures):
            width, height = (80, 60) if number % 3 else (60, 80)
            pixels = random.integers(90, 120, (height, width, 3), dtype=np.uint8)
            for _ in range(1 + number % 2):
                kind = int(random.integers(3))
                w, h = ((20, 20), (12, 30), (30, 12))[kind]
                x = int(random.integers(width - w))
                y = int(random.integers(height - h))
                pixels[y : y + h, x : x + w] = np.eye(3, dtype=np.uint8)[kind] * 255
                box = {"bbox": [x, y, w, h], "area": w * h, "iscrowd": 0}
                ids = {"id": len(annotations) + 1, "image_id": number}
                annotations.append({**ids, "category_id": CATEGORIES[kind][0], **box})
            size = {"file_name": f"{number:012d}.png", "width": width, "height": height}
            Image.fromarray(pixels).save(folder / split / size["file_name"])
            images.append({"id": number, **size})
        content = {"images": images, "annotations": annotations}
        content["categories"] = [{"id": number, "name": name} for number, name in CATEGORIES]
        (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def coco_folder(tmp_path):
    """Eight pictures to train on and eight to judge by, three categories."""
    return draw_coco(tmp_path / "coco")


@pytest.fixture
def coco_json(coco_folder):
    """Changes one of that folder's annotation files: coco_json(lambda content: …, "train2017")."""

    def change(how, split="train2017"):
        file = coco_folder / "annotations" / f"instances_{split}.json"
        content = json.loads(file.read_text())
        how(content)
        file.write_text(json.dumps(content))
        return coco_folder

    return change


@pytest.fixture
def coco128():
    """The sample of real pictures, where it is."""
    folder = ROOT.parent / "shared" / "data" / "coco128"
    if not folder.is_dir():
        pytest.skip(f"the sample of COCO is not at {folder}")
    return folder
