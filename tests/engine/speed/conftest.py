"""A Trainer whose steps a test takes by itself."""

import pytest

from ctkd.engine.job import Job
from ctkd.engine.output.console import Console
from ctkd.engine.output.workdir import Workdir
from ctkd.engine.prepare import prepare
from ctkd.engine.train import Trainer


@pytest.fixture
def trainer(teacher_file, tmp_path):
    """A Trainer of a small digits run."""

    def make(method, *bindings):
        given = [f"teacher_weights = {str(teacher_file)!r}", "digits.train_images = 100"]
        job = Job([f"gin/digits/{method}.gin"], [*given, "batch_size = 32", *bindings])
        folder, console = Workdir(tmp_path), Console(quiet=True)
        made = Trainer(prepare(job.build(), folder, console), folder, console)
        made.student.train()
        return made

    return make
