"""Packaging: the package `ctkd`, with the Gin files of `gin/` inside a wheel as `ctkd/gin`."""

import pathlib
import re
import shutil

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = pathlib.Path(__file__).parent
INIT = (HERE / "ctkd" / "__init__.py").read_text(encoding="utf-8")
VERSION = re.search(r'__version__ = "(.+)"', INIT)[1]  # it is written there, and nowhere else


class BuildWithGinFiles(build_py):
    """Copies the Gin files into the package, so that an installed ctkd finds `digits/ctkd.gin`."""

    def run(self) -> None:
        """See setuptools."""
        super().run()
        if not self.editable_mode:
            target = pathlib.Path(self.build_lib) / "ctkd" / "gin"
            shutil.copytree(HERE / "gin", target, dirs_exist_ok=True)


setup(
    name="ctkd",
    version=VERSION,
    description="Knowledge distillation with a learned temperature",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="ctkd contributors",
    license="MIT",
    license_files=["LICENSE"],
    project_urls={"Paper": "https://arxiv.org/abs/2211.16231"},
    keywords="knowledge distillation, temperature, curriculum, pytorch, gin",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    python_requires=">=3.10",
    packages=find_packages(include=["ctkd", "ctkd.*"]),
    package_data={"ctkd.results": ["*.html", "*.css", "*.js"], "ctkd.results.compare": ["*.csv"]},
    cmdclass={"build_py": BuildWithGinFiles},
    install_requires=[
        "torch>=2.5",
        "torchvision",
        "gin-config>=0.5",
        "absl-py",
        "fvcore",
        "submitit>=1.5",
        "tensorboard",
        "pycocotools",
        "scikit-learn",
        "scipy>=1.11",
        "numpy",
        "matplotlib>=3.8",
        "pillow",
        "rich",
        "safetensors",
    ],
    extras_require={
        "dev": [
            "pytest>=8,<9.2",  # xdist 3.8 cannot group tests under 9.2, and the cluster's must be
            "pytest-cov",
            "pytest-timeout",
            "pytest-xdist",
            "coverage>=7.10",
            "hypothesis",
            "mypy",
            "ruff",
            "import-linter>=2.1",
            "setuptools>=70.1",  # the tests build the wheel without a download
            "build",
            "sphinx>=7.4",
            "furo",
            "myst-parser",
        ]
    },
)
