"""CIFAR: its three places, half and wrong files, validation, and the 162 views of its training set.

The sets are small here: a hundred images a part, one of each class, unless a test says otherwise.
"""

import hashlib
import pathlib
import pickle

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from scipy import stats
from torchvision.transforms.v2 import functional

from ctkd.data import cifar
from ctkd.data.cifar import CIFAR10, CIFAR100
from ctkd.data.in_memory import ResidentImages
from ctkd.errors import ConfigError, DataError
from ctkd.registry import DATASETS

SIZE = 100


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(cifar, "TRAIN_IMAGES", SIZE)
    monkeypatch.setattr(cifar, "PARTS", {"train": SIZE, "test": SIZE})
    monkeypatch.delenv(cifar.ENVIRONMENT, raising=False)


@pytest.fixture
def arrays():
    random = np.random.default_rng(0)
    made = {}
    for part in ("train", "test"):
        made[f"{part}_images"] = random.integers(0, 256, (SIZE, 32, 32, 3), dtype=np.uint8)
        made[f"{part}_labels"] = random.permutation(SIZE)
    return made


@pytest.fixture
def archive(tmp_path, arrays):
    """Writes cifar100.npz of `arrays`, changed as told, and gives its path."""

    def write(save=np.savez, **changed):
        path = tmp_path / "cifar100.npz"
        kept = {name: value for name, value in (arrays | changed).items() if value is not None}
        save(path, **kept)
        return path

    return write


def load(place, **more):
    return CIFAR100(data_dir=None if place is None else str(place), **more).load()


def assert_holds(splits, arrays):
    for part, split in (("train", splits.train), ("test", splits.test)):
        assert split.images.dtype == torch.uint8
        assert split.targets.dtype == torch.int64
        assert np.array_equal(split.images.numpy(), arrays[f"{part}_images"])
        assert np.array_equal(split.targets.numpy(), arrays[f"{part}_labels"])


def test_an_archive_is_found_in_its_folder_or_named_itself(archive, arrays):
    path = archive()
    for place in (path, path.parent):
        splits = load(place)
        assert_holds(splits, arrays)
        assert splits.validation is None


@pytest.mark.parametrize("kind", [np.uint8, np.int32, ">i4"])
def test_labels_may_be_whole_numbers_of_any_kind(archive, arrays, kind):
    labels = {f"{part}_labels": arrays[f"{part}_labels"].astype(kind) for part in ("train", "test")}
    assert_holds(load(archive(**labels)), arrays)


def test_the_environment_says_where_and_the_setting_overrules_it(archive, arrays, monkeypatch):
    path = archive()
    monkeypatch.setenv(cifar.ENVIRONMENT, str(path.parent))
    assert_holds(load(None), arrays)
    with pytest.raises(DataError, match="elsewhere does not exist"):
        load(path.parent / "elsewhere")


def test_a_tilde_is_the_home_folder(archive, arrays, monkeypatch):
    monkeypatch.setenv("HOME", str(archive().parent))
    assert_holds(load("~"), arrays)
    assert_holds(load("~/cifar100.npz"), arrays)


@pytest.mark.parametrize("variable", [None, ""])
def test_without_a_place_the_error_says_what_to_do(variable, monkeypatch):
    if variable is not None:
        monkeypatch.setenv(cifar.ENVIRONMENT, variable)
    for dataset in (CIFAR100(), CIFAR10()):
        with pytest.raises(DataError, match="no place was given") as caught:
            dataset.load()
        for word in ("data_dir = ", "CTKD_DATA", "download = True", f"{dataset.name}.npz"):
            assert word in str(caught.value)
        assert dataset.torchvision_folder in str(caught.value)


def test_a_place_without_images_says_so(tmp_path):
    with pytest.raises(DataError, match="is empty of them"):
        load(tmp_path)
    with pytest.raises(DataError, match="nowhere does not exist"):
        load(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"other\.npz does not exist"):
        load(tmp_path / "other.npz")


def test_making_one_needs_no_data():
    dataset = CIFAR100(data_dir="/nowhere", download=True)
    assert (dataset.num_classes, dataset.shape) == (100, (3, 32, 32))
    assert CIFAR10(data_dir="/nowhere").num_classes == 10


@pytest.mark.parametrize("name", ["train_images", "train_labels", "test_images", "test_labels"])
def test_a_missing_array_is_named(archive, name):
    with pytest.raises(DataError, match=f"cifar100.npz lacks an array: {name}"):
        load(archive(**{name: None}))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_file_cut_short_anywhere_is_told(archive, save):
    path = archive(save)
    whole = path.read_bytes()
    for share in (0.0, 0.001, 0.3, 0.5, 0.9, 0.9999):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(DataError, match=r"no whole \.npz archive"):
            load(path)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_changed_bytes_are_told(archive, arrays, save):
    """Bytes of the beginning and the end, where the headers are, and some between.

    A changed byte of a header may mean nothing, a date, say; then the arrays are as they were.
    """
    path = archive(save)
    whole = path.read_bytes()
    ends = [*range(0, 200, 3), *range(-400, 0, 3)]
    told = 0
    for place in [*ends, *range(200, len(whole) - 400, len(whole) // 20)]:
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        try:
            assert_holds(load(path), arrays)
        except DataError:
            told += 1
    assert told > 100


def test_what_is_no_archive_is_told(tmp_path):
    path = tmp_path / "cifar100.npz"
    for content in (b"not an archive", pickle.dumps({"train_images": 1}), b""):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"no whole \.npz archive"):
            load(path)
    with path.open("wb") as file:
        np.save(file, np.zeros(3))  # one array alone
    with pytest.raises(DataError, match=r"no whole \.npz archive"):
        load(path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"train_images": np.zeros((99, 32, 32, 3), np.uint8)},
            "train split: 99 images and 100 labels",
        ),
        ({"test_images": np.zeros((100, 3, 32, 32), np.uint8)}, r"test split.*channels come first"),
        (
            {"test_images": np.zeros((100, 28, 28, 3), np.uint8)},
            r"\[100, 28, 28, 3\].*\[100, 32, 32",
        ),
        (
            {"train_images": np.zeros((100, 32, 32), np.uint8)},
            r"train split.*\[100, 32, 32\]: expected",
        ),
        ({"train_images": np.zeros((100, 32, 32, 3), np.float32)}, "float32 images"),
        ({"train_images": np.zeros((100, 32, 32, 3), ">f8")}, "float64 images|>f8 images"),
        ({"train_images": np.zeros((100, 32, 32, 3), np.int64)}, "int64 images"),
        ({"train_labels": np.arange(99)}, "train split: 100 images and 99 labels"),
        (
            {"train_labels": np.arange(100)[:, None]},
            r"train split: the labels are int64 \[100, 1\]",
        ),
        ({"test_labels": np.arange(100.0)}, "test has uint8 images and float64 labels"),
        ({"test_labels": np.array(["cat"] * 100)}, "test has uint8 images and <U3 labels"),
        (
            {"train_images": np.zeros((99, 32, 32, 3), np.uint8), "train_labels": np.arange(99)},
            "99 images: expected the 100",
        ),
        ({"train_labels": np.arange(100) + 1}, "image 99 has the label 100.*counted from 1"),
        ({"test_labels": np.arange(100) - 1}, "test split: image 0 has the label -1: expected"),
        ({"test_labels": np.full(100, 2**40)}, "image 0 has the label 1099511627776"),
        (
            {"train_labels": np.where(np.arange(100) == 7, 8, np.arange(100))},
            r"train split: no image has one of the labels \[7\]",
        ),
        (
            {"test_labels": np.zeros(100, np.int64)},
            r"test split: no image has one of the labels \[1, 2",
        ),
    ],
)
def test_wrong_arrays_are_told(archive, changed, message):
    with pytest.raises(DataError, match=message):
        load(archive(**changed))


def test_objects_are_not_unpickled(archive):
    with pytest.raises(DataError, match="allow_pickle=False"):
        load(archive(train_labels=np.array([print] * SIZE, dtype=object)))


def test_cifar10_refuses_the_labels_of_cifar100(archive):
    with pytest.raises(DataError, match=r"expected 0 to 9 .*they lie in 0\.\.99"):
        CIFAR10(data_dir=str(archive())).load()


def write_torchvision(root, kind, arrays, monkeypatch):
    """Files in the form of torchvision's, and their checksums put in the place of the real ones."""
    folder = root / kind.base_folder
    folder.mkdir()

    def put(name, content):
        (folder / name).write_bytes(pickle.dumps(content))
        return [name, hashlib.md5((folder / name).read_bytes()).hexdigest()]

    hundred = kind is torchvision.datasets.CIFAR100
    for part in ("train", "test"):
        rows = arrays[f"{part}_images"].transpose(0, 3, 1, 2).reshape(SIZE, -1)
        labels = arrays[f"{part}_labels"].tolist()
        pieces = [slice(None)]
        if part == "train" and not hundred:
            pieces = [slice(0, 60), slice(60, None)]
        listed = [
            put(
                f"{part}{number}",
                {"data": rows[piece], "fine_labels" if hundred else "labels": labels[piece]},
            )
            for number, piece in enumerate(pieces)
        ]
        monkeypatch.setattr(kind, f"{part}_list", listed)
    key = kind.meta["key"]
    name, checksum = put(kind.meta["filename"], {key: [str(i) for i in range(100)]})
    monkeypatch.setattr(kind, "meta", {"filename": name, "key": key, "md5": checksum})
    return folder


def test_torchvisions_files(tmp_path, arrays, monkeypatch):
    write_torchvision(tmp_path, torchvision.datasets.CIFAR100, arrays, monkeypatch)
    assert_holds(load(tmp_path), arrays)
    assert_holds(load(tmp_path, download=True), arrays)  # what is there is not downloaded again


def test_torchvisions_files_of_cifar10(tmp_path, arrays, monkeypatch):
    tenth = arrays | {f"{part}_labels": arrays[f"{part}_labels"] % 10 for part in ("train", "test")}
    write_torchvision(tmp_path, torchvision.datasets.CIFAR10, tenth, monkeypatch)
    assert_holds(CIFAR10(data_dir=str(tmp_path)).load(), tenth)


@pytest.mark.parametrize("name", ["train0", "test0", "meta"])
@pytest.mark.parametrize("how", ["absent", "cut short", "a byte changed"])
def test_damaged_files_of_torchvision_are_told(tmp_path, arrays, monkeypatch, name, how):
    folder = write_torchvision(tmp_path, torchvision.datasets.CIFAR100, arrays, monkeypatch)
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 0xFF
    if how == "absent":
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content[: len(content) // 2] if how[0] == "c" else content)
    with pytest.raises(DataError, match="incomplete or damaged") as caught:
        load(tmp_path)
    assert "download = True" in str(caught.value)


def test_files_whose_checksum_differs_are_never_unpickled(tmp_path, monkeypatch):
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()

    class Trap:
        def __reduce__(self):
            return (pathlib.Path.touch, (tmp_path / "sprung",))

    for name in ("train", "test", "meta"):
        (folder / name).write_bytes(pickle.dumps(Trap()))
    with pytest.raises(DataError, match="incomplete or damaged"):
        load(tmp_path)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("error", [OSError("no network"), EOFError("cut short"), RuntimeError("?")])
def test_a_download_that_fails_is_told(tmp_path, monkeypatch, error):
    def fail(*arguments, **keywords):
        raise error

    monkeypatch.setattr(torchvision.datasets.CIFAR100, "download", fail)
    with pytest.raises(DataError, match="incomplete or damaged"):
        load(tmp_path, download=True)


def test_a_download_without_a_place_goes_to_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = []
    monkeypatch.setattr(
        torchvision.datasets.CIFAR100, "download", lambda self: asked.append(self.root)
    )
    with pytest.raises(DataError):
        load(None, download=True)
    assert asked == ["data"]


def test_nothing_is_downloaded_unasked(tmp_path, monkeypatch):
    def fail(*arguments, **keywords):
        raise AssertionError("a download")

    monkeypatch.setattr(torchvision.datasets.CIFAR100, "download", fail)
    (tmp_path / "cifar-100-python").mkdir()
    for place in (None, tmp_path):
        with pytest.raises(DataError):
            load(place)


def test_image_folders(tmp_path, arrays):
    for part in ("train", "test"):
        for image, label in zip(arrays[f"{part}_images"], arrays[f"{part}_labels"], strict=True):
            folder = tmp_path / part / f"class {label:03}"
            folder.mkdir(parents=True)
            Image.fromarray(image).save(folder / "only.png")
    splits = load(tmp_path)
    for part, split in (("train", splits.train), ("test", splits.test)):
        order = np.argsort(arrays[f"{part}_labels"])
        assert np.array_equal(split.images.numpy(), arrays[f"{part}_images"][order])
        assert split.targets.tolist() == list(range(100))


def test_validation_is_taken_out_of_the_training_images_and_never_moves(archive, arrays):
    path = archive()
    splits = load(path, validation=20)
    assert splits.validation is not None
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (80, 20, 100)
    kept, aside = set(splits.train.targets.tolist()), set(splits.validation.targets.tolist())
    assert not kept & aside  # each label is there once, so it names its image
    assert kept | aside == set(range(100))
    assert np.array_equal(splits.test.images.numpy(), arrays["test_images"])
    torch.manual_seed(5)
    again = load(path, validation=20)
    assert torch.equal(again.validation.targets, splits.validation.targets)


def test_the_real_size_gives_45000_and_5000(monkeypatch, arrays):
    monkeypatch.setattr(cifar, "TRAIN_IMAGES", 50_000)
    monkeypatch.setattr(cifar, "PARTS", {"train": 50_000, "test": 10_000})
    labels = torch.arange(50_000) % 100
    blank = torch.zeros(1, 1, 1, 1, dtype=torch.uint8)
    parts = {
        name: cifar.Split(blank.expand(size, 32, 32, 3), labels[:size])
        for name, size in cifar.PARTS.items()
    }
    monkeypatch.setattr(cifar.CIFAR, "_read", lambda self, path: (parts, ()))
    splits = load("anywhere", validation=5000)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (45_000, 5_000, 10_000)


def reference(image, view):
    """torchvision's zero padding, crop and flip: what RandomCrop and RandomHorizontalFlip call."""
    crop, mirrored = view % 81, view >= 81
    top, left = divmod(crop, 9)
    cropped = functional.crop(functional.pad(image, [4, 4, 4, 4]), top, left, 32, 32)
    return functional.horizontal_flip(cropped) if mirrored else cropped


def test_all_162_views_are_torchvisions_crops_and_flips(archive):
    splits = load(archive())
    dataset = CIFAR100()
    resident = ResidentImages(splits.train, dataset, torch.device("cpu"))
    views = torch.arange(dataset.views.count)
    assert len(views) == 162
    indices = (views * 7) % SIZE
    images = splits.train.images.permute(0, 3, 1, 2)
    expected = torch.stack(
        [reference(images[i], v) for i, v in zip(indices.tolist(), views.tolist(), strict=True)]
    )
    padded = dataset.views.pad(splits.train.images)
    assert torch.equal(dataset.views.take(padded, indices, views), expected)
    # What a network sees: the same, normalized, with the border black before it.
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (dataset.mean, dataset.std))
    torch.testing.assert_close(
        resident.batch(indices, views), (expected / 255 - mean) / std, rtol=1e-5, atol=1e-5
    )


def test_views_are_drawn_as_a_random_crop_with_padding_and_a_coin():
    """RandomCrop draws row and column uniformly out of nine each, RandomHorizontalFlip half."""
    drawn = CIFAR100().views.draw(50_000, 0, "views", 1)
    counts = torch.bincount(drawn, minlength=162).numpy()
    assert len(counts) == 162
    assert stats.chisquare(counts).pvalue > 1e-3
    by_part = counts.reshape(2, 9, 9)
    for axes in ((1, 2), (0, 2), (0, 1)):  # flip, row, column
        assert stats.chisquare(by_part.sum(axis=axes)).pvalue > 1e-3


@pytest.mark.parametrize("kind", [CIFAR100, CIFAR10])
@pytest.mark.parametrize(
    ("setting", "value", "expected"),
    [
        ("padding", -1, "0 or more"),
        ("validation", -1, "a number from 0 to 99"),
        ("validation", SIZE, "a number from 0 to 99"),
        ("mean", (0.5, 0.5), "three numbers"),
        ("std", (0.5, 0.5, 0.0), "above 0"),
        ("std", (0.5, 0.5), "three numbers"),
    ],
)
def test_settings_out_of_range_are_told(kind, setting, value, expected):
    with pytest.raises(ConfigError, match=rf"{kind.name}\.{setting} = .*{expected}"):
        kind(**{setting: value})


def test_they_are_registered_and_their_places_belong_to_the_runtime():
    for name, kind in (("cifar100", CIFAR100), ("cifar10", CIFAR10)):
        component = DATASETS.component(name)
        assert component.target is kind
        assert component.settings_of("data_dir") == component.settings_of("download") == "runtime"
        assert component.settings_of("validation") == "recipe"
