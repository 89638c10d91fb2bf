"""Files of weights: found or downloaded, compared with a checksum, and read without running code.

A pickle can run anything when it is read. PyTorch's restricted reader (`weights_only=True`)
rebuilds tensors and plain containers only; `argparse.Namespace`, in which RepDistiller keeps a
run's options, is as harmless and allowed too. Whatever needs more is refused.
"""

import argparse
import hashlib
import http.client
import logging
import os
import pathlib
import re
import shutil
import urllib.parse
import urllib.request
import uuid
import zipfile
from typing import Any

import torch

from ctkd.errors import DataError
from ctkd.files import expand_user, user_path

logger = logging.getLogger(__name__)

CHECKSUM_MARK = "#sha256="
TIMEOUT = 60.0  # seconds without an answer


def fetch(source: str | os.PathLike[str]) -> Any:
    """What the checkpoint at `source` holds; `locate`, then `read`, with their errors."""
    path = locate(source)
    try:
        return read(path)
    except DataError as error:
        if not str(source).startswith(("http:", "https:")):
            raise
        raise DataError(
            f"{error} (downloaded from {source}; delete it to download it again)"
        ) from error


def locate(source: str | os.PathLike[str]) -> pathlib.Path:
    """The local file that `source` names, downloaded first where need be.

    Args:
        source: a path, a file:// URL (read in place), or an http(s):// URL (kept in the folder
            `checkpoints` of `torch.hub.get_dir()`, and taken from there the next time). It may end
            in `#sha256=` and the checksum that the file must have, 64 hexadecimal digits.

    Raises:
        ConfigError: the path begins with the home directory of an unknown user.
        DataError: there is no such file or no answer, or the checksum differs.
    """
    address, marked, digest = os.fspath(source).partition(CHECKSUM_MARK)
    expected = digest.lower() if marked else None
    if expected is not None and not re.fullmatch("[0-9a-f]{64}", expected):
        raise DataError(f"sha256 {digest!r} of {address}: expected 64 hexadecimal digits")
    scheme, is_url, rest = address.partition("://")
    if is_url and scheme.lower() in ("http", "https"):
        return _cached(address, expected)
    if is_url and scheme.lower() != "file":
        raise DataError(f"{address}: expected a path, or an http, https or file URL")
    local = urllib.request.url2pathname(rest.removeprefix("localhost")) if is_url else address
    path = user_path(local, "the file of weights")
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise DataError(f"the file of weights {path} {what} (the working folder is {os.getcwd()})")
    if not os.access(path, os.R_OK):
        raise DataError(f"the file of weights {path} may not be read: see its permissions")
    _verify(path, expected, str(path))
    return path


def _cached(url: str, expected: str | None) -> pathlib.Path:
    """The file of an http(s) URL, from the cache unless its checksum is no longer the right one."""
    # Published runs all call their file ckpt_epoch_240.pth or the like, so the whole URL counts.
    name = pathlib.PurePosixPath(urllib.parse.unquote(url.partition("?")[0]))
    key = hashlib.sha256(url.encode()).hexdigest()[:12]
    path = downloads() / f"{name.stem[:40]}-{key}{name.suffix}"
    if path.is_file():
        if expected is None or _sha256(path) == expected:
            return path
        logger.warning("%s has another checksum than the one given: downloaded anew", path)
    _download(url, path, expected)
    return path


def downloads() -> pathlib.Path:
    """The folder for downloaded weights, that of torch.hub.

    Raises:
        ConfigError: it is in a home directory that is unknown.
    """
    hub = expand_user(torch.hub.get_dir(), "the folder for downloads (set TORCH_HOME)")
    return pathlib.Path(hub, "checkpoints")


def _download(url: str, target: pathlib.Path, expected: str | None) -> None:
    """Fetches `url` beside `target`, and gives it the name only when whole and right."""
    partial = target.with_name(f"{target.name}.{uuid.uuid4().hex}.partial")
    logger.info("downloading %s to %s", url, target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response, partial.open("xb") as file:
            shutil.copyfileobj(response, file)
            announced = response.headers.get("Content-Length")
        received = partial.stat().st_size
        if announced is not None and received != int(announced):
            raise DataError(f"{url}: the download ended after {received} of {announced} bytes")
        _verify(partial, expected, url)
        os.replace(partial, target)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise DataError(
            f"{url} could not be downloaded to {target.parent} ({error}): "
            "fetch the file by other means and give its path"
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def _sha256(path: pathlib.Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _verify(path: pathlib.Path, expected: str | None, shown: str) -> None:
    """Raises DataError unless the file's sha256 is the one expected, if any is."""
    if expected is not None and (actual := _sha256(path)) != expected:
        raise DataError(
            f"{shown} has sha256 {actual}, expected {expected}: "
            "it is damaged or another file; fetch it again, or give the checksum of this one"
        )


def read(path: pathlib.Path) -> Any:
    """What `torch.save` wrote to `path`, its tensors on the CPU.

    Raises:
        DataError: the file is no checkpoint, is damaged, or cannot be read without running code.
    """
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    # Foreign bytes make a pickle reader raise nearly anything, KeyError and struct.error among it.
    except Exception as error:
        raise DataError(f"{path} {_fault(path, error)}") from error


def _fault(path: pathlib.Path, error: Exception) -> str:
    """What is wrong with a file that could not be read, and what to do about it."""
    refused = re.search(r"GLOBAL (\S+)", str(error))
    if refused:
        return (
            f"holds an object of {refused[1]}, and is not read, since unpickling it could run any "
            "code. If you trust the file, load it where it was written and save only the weights: "
            "torch.save(model.state_dict(), path)"
        )
    if "TorchScript" in str(error):
        return "is a TorchScript program: save its weights alone, torch.save(m.state_dict(), path)"
    with path.open("rb") as file:
        head = file.read(200)
    archive, pickled = head.startswith(b"PK"), head.startswith(b"\x80")
    cut = (archive and not zipfile.is_zipfile(path)) or (
        pickled and (isinstance(error, EOFError) or "unexpected EOF" in str(error))
    )
    if cut or not head:
        return f"is cut short ({path.stat().st_size} bytes): copy or download it again"
    if head.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer in place of the file: fetch the file with `git lfs pull`"
    if head.lstrip()[:1] == b"<":
        return "is a web page, not a checkpoint: the address shows a page instead of the file"
    return (
        f"is not a checkpoint, or a damaged one ({type(error).__name__}): "
        "expected what torch.save writes"
    )
