"""Pictures that cannot be read, or that EXIF turns: found before a run, left out or turned."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from ctkd.data.coco import AS_IT_IS, COCO
from ctkd.data.pictures import read_picture
from ctkd.errors import DataError

SMALL = {"categories": 3, "short_sides": (60,), "long_side": 100, "test_side": 64, "flip": False}


def make(folder, **more):
    return COCO(str(folder), **{**SMALL, **more})


def splits(folder, **more):
    dataset = make(folder, **more)
    return dataset, dataset.checked(dataset.load())


def cut(path):
    path.write_bytes(path.read_bytes()[:-200])


def swap_for_jpegs(folder):
    """Replaces all PNG files by JPEG files of the same names, as PIL goes by the contents."""
    for path in folder.glob("*2017/*.png"):
        Image.open(path).save(path, format="JPEG", quality=95)


def orient(path, orientation):
    """Stores the picture so that its EXIF orientation shows it as it was."""
    back = {
        3: Image.Transpose.ROTATE_180,
        6: Image.Transpose.ROTATE_90,
        8: Image.Transpose.ROTATE_270,
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    with Image.open(path) as picture:
        kind = picture.format
        turned = picture.transpose(back[orientation])
    turned.save(path, format=kind, exif=exif, **({"quality": 95} if kind == "JPEG" else {}))


@pytest.mark.parametrize("jpeg", [False, True])
@pytest.mark.parametrize(
    ("part", "number"), [("train2017", "000000000003"), ("val2017", "000000000503")]
)
def test_a_truncated_picture_is_found_before_training(coco_folder, part, number, jpeg):
    if jpeg:
        swap_for_jpegs(coco_folder)
    path = coco_folder / part / f"{number}.png"
    cut(path)
    with pytest.raises(DataError, match=f"{part}: 1 pictures that cannot be read") as error:
        splits(coco_folder)
    assert f"{number}.png (" in str(error.value)
    assert "coco.faults = 'skip'" in str(error.value)
    _, found = splits(coco_folder, faults="skip")
    split = found.train if part == "train2017" else found.test
    assert len(split) == 7
    assert int(number) not in split.ids
    assert all(a["image_id"] != int(number) for a in split.truth["annotations"])
    assert split.passed_over["pictures that cannot be read"] == 1
    assert split.left_out.startswith(f"1 pictures that cannot be read ({number}.png (")


def test_a_damaged_middle_of_a_picture_to_evaluate_on_is_found(coco_folder):
    path = coco_folder / "val2017" / "000000000503.png"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"val2017: 1 pictures that cannot be read: 000000000503"):
        splits(coco_folder)


def test_a_picture_of_another_size_is_refused_or_left_out(coco_folder):
    Image.new("RGB", (5, 7)).save(coco_folder / "train2017" / "000000000003.png")
    with pytest.raises(DataError, match=r"000000000003.png \(5 × 7, not 60 × 80\)"):
        splits(coco_folder)
    _, found = splits(coco_folder, faults="skip")
    assert found.train.passed_over["pictures whose size differs from the annotations"] == 1
    assert len(found.train) == 7


def test_a_split_without_a_usable_picture_is_refused_in_any_case(coco_folder):
    for path in (coco_folder / "val2017").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match="val2017: none of the 8 pictures can be used"):
        splits(coco_folder, faults="skip")


def test_processes_share_the_pictures_and_come_to_the_same_splits(coco_folder):
    for number in (2, 3, 4, 503):
        part = "train2017" if number < 500 else "val2017"
        cut(coco_folder / part / f"{number:012}.png")
    dataset = make(coco_folder, faults="skip")
    loaded, found = dataset.load(), []
    for rank in range(2):
        dataset.checked(loaded, slice(rank, None, 2), lambda one: found.append(one) or [one])
    assert [len(train.faults) for train, _ in found] == [1, 2]
    shared = [dataset.checked(loaded, slice(r, None, 2), lambda _: found) for r in range(2)]
    alone = dataset.checked(loaded)
    for one in shared:
        assert one.train.ids == alone.train.ids
        assert one.test.ids == alone.test.ids
        assert one.train.left_out == alone.train.left_out


@pytest.mark.parametrize("jpeg", [False, True])
def test_a_picture_is_turned_where_only_so_it_has_the_annotated_size(coco_folder, jpeg):
    if jpeg:
        swap_for_jpegs(coco_folder)
    dataset, before = splits(coco_folder)
    read = dataset.reader(before.train)
    whole = [read(index, AS_IT_IS).picture for index in range(8)]
    for number, orientation in ((2, 6), (3, 8)):
        orient(coco_folder / "train2017" / f"{number:012}.png", orientation)
    dataset, found = splits(coco_folder)
    read = dataset.reader(found.train)
    for index, picture in enumerate(whole):
        difference = (read(index, AS_IT_IS).picture.int() - picture.int()).abs().float()
        assert difference.mean() < (4 if jpeg else 1e-6), index
    (remark,) = found.train.remarks
    assert remark.startswith("pictures turned according to their EXIF orientation: 2;")
    assert found.test.remarks == []


def first(folder, orientation):
    """The first training picture as stored, and as it is read after the check."""
    orient(folder / "train2017" / "000000000001.png", orientation)
    dataset, found = splits(folder)
    stored = np.array(Image.open(found.train.paths[0])).transpose(2, 0, 1)
    return torch.tensor(stored), dataset.reader(found.train)(0, AS_IT_IS).picture, found.train


def test_a_picture_upside_down_is_read_as_stored_and_the_user_is_warned(coco_folder):
    stored, read, train = first(coco_folder, 3)
    assert torch.equal(read, stored)
    (remark,) = train.remarks
    assert (
        "keeps their size (upside down, mirrored or square): 1; they are read as stored" in remark
    )


def test_it_is_turned_where_other_sizes_show_that_boxes_were_drawn_on_turned_pictures(coco_folder):
    orient(coco_folder / "val2017" / "000000000502.png", 6)
    stored, read, _ = first(coco_folder, 3)
    assert torch.equal(read, stored.flip(1, 2))


def test_a_picture_whose_stored_size_is_annotated_is_not_turned(coco_folder):
    file = coco_folder / "annotations" / "instances_train2017.json"
    content = json.loads(file.read_text())
    content["images"][0].update(width=60, height=80)
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] != 1]
    content["annotations"].append({"id": 99, "image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9]})
    file.write_text(json.dumps(content))
    stored, read, train = first(coco_folder, 6)
    assert stored.shape == (3, 80, 60)
    assert torch.equal(read, stored)
    assert train.remarks == []


def test_a_picture_of_unknown_size_is_read_as_stored_unless_upright_is_asked_for(coco_folder):
    path = coco_folder / "train2017" / "000000000001.png"
    before = read_picture(str(path))
    orient(path, 6)
    assert read_picture(str(path)).shape == (3, 80, 60)
    assert torch.equal(read_picture(str(path), upright=True), before)


def test_a_picture_that_breaks_during_a_run_is_replaced_where_faults_are_skipped(coco_folder):
    for faults in ("refuse", "skip"):
        dataset, found = splits(coco_folder, faults=faults)
        read = dataset.reader(found.train)
        following = read(3, 7)
        path = coco_folder / "train2017" / "000000000003.png"
        content = path.read_bytes()
        path.write_bytes(content[:-200])
        sample, evaluated = read(2, 7), read(2, AS_IT_IS)
        path.write_bytes(content)
        assert isinstance(evaluated, DataError)  # AP of another picture would be wrong
        if faults == "refuse":
            assert isinstance(sample, DataError)
            assert "000000000003.png is not a readable picture" in str(sample)
        else:
            assert sample.index == 3
            assert torch.equal(sample.picture, following.picture)
            assert torch.equal(sample.targets["boxes"], following.targets["boxes"])
            (problem,) = sample.bad
            assert "000000000003.png is not a readable picture" in problem
            assert following.bad == ()
