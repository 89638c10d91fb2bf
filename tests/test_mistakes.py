"""A user's mistakes: status 2, one clear message, no traceback, and nothing written or lost."""

import pathlib

import pytest
import torch

KD = "--gin_file=gin/digits/kd.gin"
CTKD = "--gin_file=gin/digits/ctkd.gin"


def param(binding):
    return f"--gin_param={binding}"


@pytest.fixture
def mistaken(command, tmp_path):
    """Calls the command, checks how it fails, and gives its message."""

    def call(*arguments, writes=()):
        result = command(*arguments)
        assert result.status == 2, (result.out, result.err)
        assert result.err.startswith("ctkd: ")
        assert sum(line.startswith("ctkd: ") for line in result.err.splitlines()) == 1
        assert "Traceback" not in result.err
        written = {path.name for path in tmp_path.iterdir()}
        assert written <= {"given", *writes}, written
        return result.err

    return call


@pytest.fixture
def write(tmp_path):
    """Writes a file into the folder `given`; its path from the working directory."""

    def call(name, content):
        path = tmp_path / "given" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content) if isinstance(content, str) else path.write_bytes(content)
        return f"given/{name}"

    return call


FLAGS = [
    ([], "nothing to do: give a Gin file, for example --gin_file=gin/digits/ctkd.gin; `ctkd list`"),
    (["--gin_flie=a.gin"], "no flag --gin_flie; did you mean --gin_file? --help lists the flags"),
    (["--epohcs=3", KD], "no flag --epohcs; did you mean --epochs?"),
    (["--lr", "0.5", KD], "no flag --lr; other settings are given so: --gin_param 'SGD.lr = 0.1'"),
    (["--epochs=many", KD], "--epochs=many: expected a whole number, as in --epochs=10"),
    (["--student=resnet 20", KD], "expected the name of a network, as in `ctkd list`"),
    (["--seed=3", param("seed = 4"), KD], "--seed and --gin_param set the same macro 'seed'"),
    (["--gin_param", "seed", "=", "1", KD], 'needs quotes: --gin_param "seed = 1"'),
    (["--gin_param=lr=", "1", KD], 'needs quotes: --gin_param "lr = 1"'),
    (["-h"], "no flag --h"),
    (["--mode=tune", KD], "mode"),
    (["--fresh=perhaps", KD], "fresh"),
    (["--gin_file"], "gin_file"),
    (["gin/digits/kd.gin"], "is not a flag: Gin files are given as --gin_file=gin/digits/kd.gin"),
    ([KD, "--checkpoint=a.pt"], "--checkpoint goes with --mode=evaluate; a run resumes by itself"),
    ([KD, "--fresh", "--dry_run"], "--fresh begins a run again: it goes with neither"),
    (["--mode=evaluate"], "--mode=evaluate needs --workdir or --checkpoint of a run"),
    (["--mode=evaluate", "--workdir=nowhere"], "--workdir=nowhere does not exist, so no run"),
    (["--workdir=nowhere"], "give the folder of a run (runs/…/METHOD-seed0-HASH), or a --gin_file"),
    (["--mode=evaluate", KD], "does not exist"),
    (["--mode=evaluate", KD, "--checkpoint=nowhere.pt"], "nowhere.pt does not exist"),
    (["--flagfile=nowhere.txt"], "nowhere.txt"),
]


@pytest.mark.parametrize(("arguments", "expected"), FLAGS)
def test_flags(mistaken, arguments, expected):
    message = mistaken(*arguments)
    assert expected in message
    assert message.count("\n") == 1


FILES = [
    ("gin/digits/ctdk.gin", "no Gin file 'gin/digits/ctdk.gin'"),
    ("gin/digits/ctdk.gin", "did you mean gin/digits/ctkd.gin"),
    ("gin/digits", "no Gin file 'gin/digits'"),
    ("", "no Gin file ''"),
]


@pytest.mark.parametrize(("name", "expected"), FILES)
def test_files_that_are_not_there(mistaken, name, expected):
    assert expected in mistaken(f"--gin_file={name}")


TEXTS = [
    ("SGD.lr = = 3", "syntax error"),
    ("SGD.lr = (3", "syntax error"),
    ("include 'gin/digits/kd.gin", "syntax error"),
    ("SGD.lr 3", "syntax error"),
    ("SGD.lr = red", "'red' is not a value (a text needs quotes, a component an @)"),
    (
        "include 'gin/digits/kdd.gin'",
        "line 1, includes a missing file: no Gin file",
    ),
    ("include 'a.gin'", "circular include: "),
    ("import no_such_pkg.losses", "No module named 'no_such_pkg'"),
    (b"\xff\xfe\x00", "cannot be read as a Gin file"),
    (b"\x00", "a.gin"),
    ("", "a.gin chooses no method. Give a method's file before it: --gin_file="),
]


@pytest.mark.parametrize(("text", "expected"), TEXTS)
def test_what_stands_in_a_file(mistaken, write, text, expected):
    assert expected in mistaken(f"--gin_file={write('a.gin', text)}")


BINDINGS = [
    ("Method.policy = @GlobalTemprature", "did you mean GlobalTemperature"),
    ("student = @digits_studnet", "did you mean digits_student"),
    ("GlobalTemprature.tau_init = 2", "did you mean GlobalTemperature"),
    ("SGD.leraning_rate = 0.1", "(it has lr, "),
    ("SGD.momentun = 0.1", "did you mean momentum?"),
    ("epohcs = 2", "nothing refers to the macro 'epohcs'; did you mean epochs?"),
    ("lr = 0.5", "nothing refers to the macro 'lr': give --gin_param 'SGD.lr = 0.5'"),
    ("seed = one", "expected a whole number, as in --seed=10"),
    ("device = cuda", "--gin_param \"device = 'cuda'\", or --device=cuda"),
    ("Runtime.device = cuda:0", "a text needs quotes: --gin_param \"Runtime.device = 'cuda:0'\""),
    ("student = digits_teacher", "a component needs an @: --gin_param 'student = @digits_teacher'"),
    ("SGD.lr = %rate", "the macro %rate is used but never set"),
    ("SGD.lr = '0.1'", "SGD.lr = '0.1': expected a number"),
    ("SGD.lr = None", "SGD.lr = None: expected a number"),
    ("SGD.lr = -0.1", "SGD.lr = -0.1: expected a number above 0"),
    ("SGD.lr = 1e999", "SGD.lr = inf: expected a number above 0"),
    ("SGD.nesterov = 1", "SGD.nesterov = 1: expected True or False"),
    ("SGD.milestones = (180, 150)", "SGD.milestones = (180, 150): expected rising numbers"),
    ("SGD.milestones = ('a', 'b')", "expected a list of a number"),
    ("epochs = 2.5", "Recipe.epochs = 2.5: expected a whole number"),
    ("epochs = 0", "Recipe.epochs = 0: expected a number of 1 or more"),
    ("epochs = None", "Recipe.epochs = None: expected a whole number"),
    ("batch_size = True", "Recipe.batch_size = True: expected a whole number"),
    ("seed = -1", "Seed.seed = -1: expected a whole number of 0 or more"),
    ("seed = 'x'", "Seed.seed = 'x': expected a whole number"),
    ("precision = 'float8'", "expected one of 'float32', 'bfloat16', 'float16'"),
    ("compile = 'yes'", "Runtime.compile = 'yes': expected True or False"),
    (
        "Teacher.min_accuracy = 200.0",
        "Teacher.min_accuracy = 200.0: expected None or an accuracy in percent",
    ),
    ("digits.padding = -1", "digits.padding = -1: expected a number of pixels"),
    ("digits.train_images = 5000", "digits.train_images = 5000: expected None or a number from 1"),
    ("KD.kd_weight = -1.0", "KD.kd_weight = -1.0: expected"),
    ("CosineLambda.end = -1.0", "CosineLambda.end = -1.0: expected"),
    ("GlobalTemperature.tau_init = 0.0", "GlobalTemperature.tau_init = 0.0: expected"),
    ("student = @KD", "Recipe.student = '@KD': expected a network"),
    ("student = 'digits_student'", "expected a reference to a component, such as @Name"),
    ("student = None", "Recipe.student = None: expected a network, such as @resnet20"),
    ("Recipe.dataset = None", "Recipe.dataset = None: expected a data set, such as @digits"),
    ("Method.objective = None", "Method.objective = None: expected an objective, such as @KD"),
    ("Method.policy = None", "it needs a temperature policy"),
    ("Method.schedule = None", "a learned temperature needs a schedule of λ, such as CosineLambda"),
    ("teacher = None", "the objective KD needs a teacher"),
    ("SGD.lr = %gin.REQUIRED", "SGD.lr must be set: it has no default"),
    ("DKD.beta = 2.0", "'DKD.beta = 2.0' changes nothing: this run uses only "),
    ("InstanceTemperature.hidden = 8", "changes nothing"),
    ("SGD.lr = 0.1\nSGD.lrr = 2", "did you mean lr?"),
    ("= 3", "syntax error"),
    ("digits_teacher.num_classes = 9", "the teacher tells 9 classes apart, the data set has 10"),
    ("digits_student.num_classes = 9", "the student tells 9 classes apart, the data set has 10"),
    ("student = @resnet20", "the student cannot take images of 1 × 8 × 8"),
    ("student = @digits_student()", "Recipe.student is a DigitsCNN that was made already"),
    ("Method.objective = @GlobalTemperature", "expected an objective: "),
    ("Method.policy = @p/GlobalTemperature", "@p/GlobalTemperature: Gin's scopes are not used"),
    ("p/GlobalTemperature.raw_init = 2.0", "bind GlobalTemperature.raw_init"),
]


@pytest.mark.parametrize(("binding", "expected"), BINDINGS)
def test_bindings(mistaken, binding, expected):
    assert expected in mistaken(CTKD, param(binding))


def test_a_device_that_is_not_there(mistaken):
    message = mistaken(CTKD, param("device = 'cuda:9'"), writes=["runs"])
    assert "Runtime.device = 'cuda:9' cannot be used: " in message


def torch_file(tmp_path, value):
    path = tmp_path / "given/weights.pt"
    path.parent.mkdir(exist_ok=True)
    torch.save(value, path)
    return path


TEACHERS = [
    (b"no weights at all", "is not a checkpoint, or a damaged one"),
    (b"", "is empty (0 bytes)"),
    (b"<!DOCTYPE html><html>", "is a web page, not a checkpoint"),
    (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
]


@pytest.mark.parametrize(("content", "expected"), TEACHERS)
def test_a_teacher_file_that_is_none(mistaken, write, content, expected):
    name = write("weights.pt", content)
    message = mistaken(CTKD, param(f"teacher_weights = {name!r}"), writes=["runs"])
    assert expected in message
    assert message.count("\n") == 1


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"a": torch.ones(3)}, "do not fit the network"),
        ([1, 2, 3], "has no named tensors"),
        ({"model": pathlib.PurePosixPath("x")}, "could run any code"),
    ],
)
def test_a_teacher_file_with_other_contents(mistaken, tmp_path, value, expected):
    path = torch_file(tmp_path, value)
    message = mistaken(CTKD, param(f"teacher_weights = {str(path)!r}"), writes=["runs"])
    assert expected in message


def test_a_teacher_file_of_another_number_of_classes(mistaken, tmp_path):
    from ctkd.registry import MODELS

    path = torch_file(tmp_path, MODELS.get("digits_teacher")(num_classes=7).state_dict())
    message = mistaken(CTKD, param(f"teacher_weights = {str(path)!r}"), writes=["runs"])
    assert "are for 7 classes, the network has 10" in message


def test_a_teacher_file_that_is_not_there(mistaken):
    message = mistaken(CTKD, param("teacher_weights = '/nowhere/teacher.pt'"), writes=["runs"])
    assert "/nowhere/teacher.pt does not exist" in message


@pytest.mark.parametrize("below", ["file", "file/run"])
def test_a_work_directory_that_cannot_be_written(mistaken, write, below):
    write("file", "mine")
    message = mistaken(CTKD, f"--workdir=given/{below}")
    assert f"cannot use the work directory given/{below}: " in message
    assert pathlib.Path("given/file").read_text() == "mine"


def test_a_folder_of_something_else_is_left_as_it_is(mistaken, write):
    write("thesis.tex", "all of it")
    for more in ([], ["--fresh"]):
        message = mistaken(CTKD, "--workdir=given", *more)
        assert "given is not a work directory of ctkd: it contains thesis.tex" in message
    assert [path.name for path in pathlib.Path("given").iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("workdir", [".", ""])
def test_the_working_directory_itself_is_never_taken_over(mistaken, write, workdir):
    write("thesis.tex", "all of it")
    for more in ([], ["--fresh"]):
        mistaken(CTKD, f"--workdir={workdir}", *more)


def test_several_mistakes_are_reported_one_at_a_time(mistaken):
    message = mistaken(CTKD, param("epohcs = 2"), param("SGD.lr = -1"))
    assert message.count("\n") == 1
