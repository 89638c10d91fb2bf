"""Settings that name weights inside a file: of the teacher, of a student, of a backbone."""

import tarfile

import pytest
import torch


@pytest.fixture
def archive(teacher_file, tmp_path):
    """A tar file with the trained digits teacher."""
    path = tmp_path / "teachers.tar"
    with tarfile.open(path, "w") as packed:
        packed.add(teacher_file, "teachers/digits/model")
    return path


def test_a_teacher_out_of_an_archive_gives_the_run_of_the_file_itself(train, archive, same):
    direct = train("kd", "epochs = 1", workdir="direct")
    source = f"{archive}::digits/model"
    packed = train("kd", "epochs = 1", f"teacher_weights = {source!r}", workdir="packed")
    assert f"teacher: weights from {source} (plain state dict)\n" in packed.result.out
    assert same(direct.tensors(), packed.tensors())
    assert direct.summary["teacher_top1"] == packed.summary["teacher_top1"]


def test_an_archive_without_a_member_shows_the_setting(train, archive):
    run = train("kd", f"teacher_weights = {str(archive)!r}", status=2)
    assert run.result.err.splitlines() == [
        f"ctkd: {archive} is an archive. Set the member that you want:",
        f"  teacher_weights = '{archive}::teachers/digits/model'",
    ]


def test_a_teachers_file_with_two_that_fit_is_asked_about(train, teacher_file, tmp_path):
    state, path = torch.load(teacher_file, weights_only=True), tmp_path / "born_again.pth"
    torch.save({"student": {k: v + 1 for k, v in state.items()}, "teacher": state}, path)
    run = train("kd", f"teacher_weights = {str(path)!r}", "epochs = 1", status=2)
    assert "2 different sets of weights that fit the network" in run.result.err
    assert run.result.err.splitlines()[2] == f"  teacher_weights = '{path}::teacher'"
    chosen = train("kd", f"teacher_weights = '{path}::teacher'", "epochs = 1")
    assert f"teacher: weights from {path}::teacher (teacher)" in chosen.result.out


def test_a_half_precision_teacher_is_reported_as_one(train, teacher_file, tmp_path):
    state, path = torch.load(teacher_file, weights_only=True), tmp_path / "half.pth"
    torch.save({k: v.half() if v.is_floating_point() else v for k, v in state.items()}, path)
    run = train("kd", f"teacher_weights = {str(path)!r}", "epochs = 1")
    assert f"teacher: weights from {path} (plain state dict, stored as float16)\n" in run.result.out


def test_a_student_is_judged_out_of_an_archive_or_an_address(train, command, tmp_path):
    run = train("vanilla", "epochs = 1")
    student = run.path / "student_last.pt"
    with tarfile.open(tmp_path / "students.tar.gz", "w:gz") as packed:
        packed.add(student, "seed0/student.pt")
    judge = ("--mode=evaluate", "--gin_file=gin/digits/vanilla.gin")
    expected = command(*judge, f"--checkpoint={student}").out.splitlines()[2:]
    for source in ("students.tar.gz::student.pt", student.as_uri()):
        result = command(*judge, f"--checkpoint={source}")
        assert (result.status, result.out.splitlines()[1:]) == (0, [f"{source}:", *expected])
    asked = command(*judge, "--checkpoint=students.tar.gz")
    assert asked.status == 2
    assert asked.err.splitlines()[1] == "  --checkpoint='students.tar.gz::seed0/student.pt'"


def test_the_configuration_beside_a_checkpoint_is_found_with_a_part(train, command):
    """A name after "::" may hold a slash."""
    run = train("vanilla", "epochs = 1")
    plain = command("--mode=evaluate", "--checkpoint=run/student_last.pt").out.splitlines()[2:]
    with tarfile.open(run.path / "students.tar", "w") as packed:
        packed.add(run.path / "student_last.pt", "a/b/c/d.pt")
    result = command("--mode=evaluate", "--checkpoint=run/students.tar::a/b/c/d.pt")
    assert (result.status, result.out.splitlines()[2:]) == (0, plain)


def test_a_backbone_is_asked_about_by_its_own_setting(archive):
    from torchvision.models import resnet18

    from ctkd.errors import DataError
    from ctkd.models.weights.backbones import load_backbone

    with pytest.raises(DataError) as caught:
        load_backbone(resnet18(), resnet18, str(archive))
    member = f"{archive}::teachers/digits/model"
    assert str(caught.value).splitlines()[1] == f"  backbone_weights = '{member}'"
    with pytest.raises(DataError, match="do not fit the network"):
        load_backbone(resnet18(), resnet18, member)
