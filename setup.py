"""Packaging: `pyproject.toml` holds the metadata; here the Gin files of `gin/` join the wheel."""

import pathlib
import shutil

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithGinFiles(build_py):
    """Copies the Gin files into the package, so that an installed ctkd finds `digits/ctkd.gin`."""

    def run(self) -> None:
        """See setuptools."""
        super().run()
        if not self.editable_mode:
            target = pathlib.Path(self.build_lib) / "ctkd" / "gin"
            source = pathlib.Path(__file__).parent / "gin"
            shutil.copytree(source, target, dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithGinFiles})
