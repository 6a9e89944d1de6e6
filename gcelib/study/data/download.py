"""Files from the net: downloaded once, checked on every use, read without unpacking."""

import gzip
import hashlib
import http.client
import os
import re
import tarfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gcelib._check import fail
from gcelib.study.data.splits import Array

#: No download and no unpacked archive is larger than this many bytes.
MAX_BYTES = 4 * 2**30


def intact(path: Path, md5s: Collection[str]) -> bool:
    """Tell whether a file has one of the published checksums.

    Parameters
    ----------
    path : pathlib.Path
        The file, which need not exist.
    md5s : collection of str
        Its possible MD5 sums, in hexadecimal.

    Returns
    -------
    bool
        False for a file that is missing or has another content.

    Examples
    --------
    >>> intact(Path("no such file"), ["d41d8cd98f00b204e9800998ecf8427e"])
    False
    """
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest() in md5s


def fetch(url: str, md5s: Collection[str], folder: Path) -> Path:
    """Get a checked file, downloaded first if it is missing or not intact.

    Only the whole, checked file ever bears its name; a download that was cut off goes
    on where it stopped, and of several processes one downloads and the others wait.

    Parameters
    ----------
    url : str
        Its address; the last part is the file's name.
    md5s : collection of str
        Its possible MD5 sums, in hexadecimal.
    folder : pathlib.Path
        Where it is kept.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    OSError
        If it cannot be had, or if something else came; the message says where to put
        it.
    """
    from filelock import FileLock

    path = folder / url.rsplit("/", 1)[1]
    if intact(path, md5s):
        return path
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{path.name}.part"
    with FileLock(f"{path}.lock"):
        if intact(path, md5s):
            return path
        problem, total = _download(url, part, path)
        if intact(part, md5s):
            os.replace(part, path)
            return path
        if part.exists() and part.stat().st_size >= total:
            part.unlink()
            problem = (
                "what came is not the published file (wrong checksum) and was deleted"
            )
    cure = "try again, which resumes, "
    cure += f"or get {url} by other means and save it as {path}"
    fail(path.name, problem, cure, OSError)


def _download(url: str, part: Path, path: Path) -> tuple[str, int]:
    """Append what ``part`` lacks; return what went wrong, and the whole size."""
    here = part.stat().st_size if part.exists() else 0
    print(f"downloading {url} to {path}, from byte {here:,} on", flush=True)
    headers = {"Range": f"bytes={here}-"}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - constant
    total = MAX_BYTES
    try:
        reply = urllib.request.urlopen(request, timeout=60)  # noqa: S310
        with reply, part.open("ab" if reply.status == 206 else "wb") as file:
            length = reply.headers.get("Content-Length", "")
            if length.isdecimal():
                total = file.tell() + int(length)
            while file.tell() < MAX_BYTES:
                block = reply.read(2**20)
                if not block:
                    break
                file.write(block)
    except urllib.error.HTTPError as error:
        nothing_left_to_send = error.code == 416
        return f"the download failed ({error})", 0 if nothing_left_to_send else total
    except (OSError, http.client.HTTPException) as error:
        return f"the download failed ({error})", total
    return "only a part of it came", total


@dataclass(frozen=True)
class _Member:
    """One entry of a zip or tar archive."""

    name: str
    size: int
    is_plain: bool
    handle: zipfile.ZipInfo | tarfile.TarInfo


def read_archive(path: Path, wanted: str) -> dict[str, bytes]:
    """Read the members of a zip or tar archive whose names match.

    Nothing is unpacked to disk by the archive's own names.

    Parameters
    ----------
    path : pathlib.Path
        The archive: ``.zip``, else a tar.
    wanted : str
        A regular expression for the whole name.

    Returns
    -------
    dict of str to bytes
        The contents by name.

    Raises
    ------
    ValueError
        If a member is a link, leads out of its folder, or if the content is over 4 GiB:
        then the whole archive is refused.
    """
    contents = {}
    total = 0
    with (
        zipfile.ZipFile(path)
        if path.suffix == ".zip"
        else tarfile.open(path) as archive
    ):
        for member in _members(archive):
            total += member.size
            parts = member.name.replace("\\", "/").split("/")
            leaves = not parts[0] or ".." in parts or ":" in member.name
            if not member.is_plain or leaves or total > MAX_BYTES:
                problem = f"member {member.name!r} is a link, leaves its folder "
                problem += "or is too large"
                fail(path.name, problem, f"delete {path}")
            if re.fullmatch(wanted, member.name):
                contents[member.name] = _content(archive, member)
    return contents


def _members(archive: zipfile.ZipFile | tarfile.TarFile) -> Iterator[_Member]:
    """List an archive of either kind."""
    if isinstance(archive, zipfile.ZipFile):
        for zipped in archive.infolist():
            is_link = zipped.external_attr >> 28 == 0o12
            yield _Member(zipped.filename, zipped.file_size, not is_link, zipped)
    else:
        for taped in archive:
            yield _Member(
                taped.name, taped.size, taped.isfile() or taped.isdir(), taped
            )


def _content(archive: zipfile.ZipFile | tarfile.TarFile, member: _Member) -> bytes:
    """Return the bytes of one member; of a folder, none."""
    if isinstance(archive, zipfile.ZipFile) and isinstance(
        member.handle, zipfile.ZipInfo
    ):
        return archive.read(member.handle)
    if isinstance(archive, tarfile.TarFile) and isinstance(
        member.handle, tarfile.TarInfo
    ):
        file = archive.extractfile(member.handle)
        return file.read() if file else b""
    raise TypeError(member.name)


def read_idx(path: str | os.PathLike[str]) -> Array:
    """Read a gzipped IDX file, the format of MNIST.

    Parameters
    ----------
    path : path
        The file.

    Returns
    -------
    array of uint8
        Its header tells the shape.
    """
    content = gzip.decompress(Path(path).read_bytes())
    n_dimensions = content[3]
    shape = np.frombuffer(content, ">i4", count=n_dimensions, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * n_dimensions).reshape(shape)
