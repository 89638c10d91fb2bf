"""Files of weights: found or downloaded, compared with a checksum, and read safely."""

import hashlib
import http.client
import logging
import os
import pathlib
import shutil
import urllib.parse
import urllib.request
import uuid
from typing import IO, Any, NamedTuple

import torch

from ctkd.errors import DataError
from ctkd.files import expand_user, user_path
from ctkd.models.weights.archives import ChoiceError, folder_fault, member_of
from ctkd.models.weights.formats import read, read_open
from ctkd.models.weights.source import NAME_MARK, Source, parse_source

logger = logging.getLogger(__name__)

TIMEOUT = 60.0  # seconds without an answer


class Fetched(NamedTuple):
    """The contents of a file or an archive's member, and the unused names of the source."""

    payload: Any
    parts: tuple[str, ...]


def fetch(source: str | os.PathLike[str] | Source) -> Fetched:
    """Locates the file, and reads it or the member that the source names.

    Raises:
        DataError: see `locate`, `archives.member_of` and `formats.read`.
    """
    if not isinstance(source, Source):
        source = parse_source(source)
    path = locate(source)
    try:
        member = member_of(path, source)
        if member is None:
            return Fetched(read(path), source.names)
        return Fetched(read_open(member, f"{path}{NAME_MARK}{source.names[0]}"), source.names[1:])
    except ChoiceError:
        raise
    except DataError as error:
        if not source.file.lower().startswith(("http:", "https:")):
            raise
        raise DataError(
            f"{error} (downloaded from {source.file}; delete it to download it again)"
        ) from error


def locate(source: str | os.PathLike[str] | Source) -> pathlib.Path:
    """The local file of a source, downloaded first if it is a URL.

    Args:
        source: a path, a file:// URL (not copied), or an http(s):// URL (downloaded once, to the
            folder `checkpoints` of `torch.hub.get_dir()`).

    Raises:
        ConfigError: the path begins with the home directory of an unknown user.
        DataError: the file is missing, the server does not answer, or the checksum differs.
    """
    if not isinstance(source, Source):
        source = parse_source(source)
    address, expected = source.file, source.checksum
    scheme, is_url, rest = address.partition("://")
    if is_url and scheme.lower() in ("http", "https"):
        return _cached(address, expected)
    if is_url and scheme.lower() != "file":
        raise DataError(f"{address}: expected a path, or an http, https or file URL")
    local = urllib.request.url2pathname(rest.removeprefix("localhost")) if is_url else address
    path = user_path(local, source.setting or "the file of weights")
    if path.is_dir():
        raise DataError(folder_fault(path, source))
    if not path.is_file():
        raise DataError(
            f"the file of weights {path} does not exist (the working folder is {os.getcwd()})"
        )
    if not os.access(path, os.R_OK):
        raise DataError(f"the file of weights {path} cannot be read: check its permissions")
    _verify(path, expected, str(path))
    return path


def _cached(url: str, expected: str | None) -> pathlib.Path:
    """The file of an http(s) URL, from the cache unless its checksum is not the expected one."""
    # Many published files share a name, such as ckpt_epoch_240.pth: hash the whole URL.
    name = pathlib.PurePosixPath(urllib.parse.unquote(url.partition("?")[0]))
    key = hashlib.sha256(url.encode()).hexdigest()[:12]
    path = downloads() / f"{name.stem[:40]}-{key}{name.suffix}"
    if path.is_file():
        if expected is None or _sha256(path) == expected:
            return path
        logger.warning("%s does not have the expected checksum: downloading it again", path)
    _download(url, path, expected)
    return path


def downloads() -> pathlib.Path:
    """The folder for downloaded weights: torch.hub's folder.

    Raises:
        ConfigError: the folder is in the home directory of an unknown user.
    """
    hub = expand_user(torch.hub.get_dir(), "the folder for downloads (set TORCH_HOME)")
    return pathlib.Path(hub, "checkpoints")


def _download(url: str, target: pathlib.Path, expected: str | None) -> None:
    """Downloads `url` to a file next to `target`, and renames it when it is complete.

    torch.hub's download would keep an incomplete file.
    """
    partial = target.with_name(f"{target.name}.{uuid.uuid4().hex}.partial")
    logger.info("downloading %s to %s", url, target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response, partial.open("xb") as file:
            announced = response.headers.get("Content-Length")
            _copy(response, file, None if announced is None else int(announced), url)
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


def _copy(response: Any, file: IO[bytes], size: int | None, url: str) -> None:
    """Copies a response; on a terminal a progress bar shows it."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("downloading {task.description}"), BarColumn(bar_width=30))
    more = (DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, *more, console=console, disable=not console.is_terminal) as bars:
        name = url.rpartition("/")[2]
        shutil.copyfileobj(bars.wrap_file(response, total=size, description=name), file)


def _sha256(path: pathlib.Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _verify(path: pathlib.Path, expected: str | None, shown: str) -> None:
    """Raises DataError if a sha256 is expected and the file's sha256 differs."""
    if expected is not None and (actual := _sha256(path)) != expected:
        raise DataError(
            f"{shown} has sha256 {actual}, expected {expected}: "
            "it is damaged or another file; fetch it again, or give the checksum of this one"
        )
