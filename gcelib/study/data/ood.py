"""Out-of-distribution images, in the shape of the data they are shown to."""

import io
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from gcelib._check import choice, fail
from gcelib.study import places
from gcelib.study.data import download
from gcelib.study.data.loading import load
from gcelib.study.data.sources import DATASETS
from gcelib.study.data.splits import Array, Splits

CIFAR10_C = (
    "https://zenodo.org/records/2535967/files/CIFAR-10-C.tar",
    "56bf5dcef84df0e2308c6dcbcbbd8499",
)
CORRUPTIONS = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "speckle_noise",
    "defocus_blur",
    "gaussian_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "spatter",
    "brightness",
    "contrast",
    "saturate",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
)
_CORRUPTED = re.compile(r"cifar10_c(?::([a-z_]+)(?::([1-5]))?)?")
_CORRUPTED_FORM = "cifar10_c:<corruption>:<severity 1 to 5>"


@dataclass(frozen=True)
class Corruption:
    """Which of CIFAR-10-C's image sets is meant.

    Parameters
    ----------
    name : str
        One of ``CORRUPTIONS``.
    severity : int
        1 to 5.

    Examples
    --------
    >>> check_ood("cifar10_c:fog:3")
    Corruption(name='fog', severity=3)
    """

    name: str
    severity: int


def check_ood(name: str) -> Corruption | None:
    """Refuse the name of an out-of-distribution set that nobody knows.

    Parameters
    ----------
    name : str
        ``svhn``, ``noise``, an image data set, or
        ``cifar10_c[:corruption[:severity]]``.

    Returns
    -------
    Corruption or None
        Of a ``cifar10_c`` name; without more, Gaussian noise at severity 5, as in the
        paper.

    Raises
    ------
    ValueError, TypeError
        With the nearest known name.

    Examples
    --------
    >>> check_ood("svhn")
    """
    corrupted = _CORRUPTED.fullmatch(name) if isinstance(name, str) else None
    if corrupted:
        corruption = choice("ood", corrupted[1] or "gaussian_noise", CORRUPTIONS)
        return Corruption(corruption, int(corrupted[2] or 5))
    images = [known for known, source in DATASETS.items() if not source.is_table]
    choice("ood", name, [*_READERS, "cifar10_c", _CORRUPTED_FORM, *images])
    return None


def is_ood(name: str) -> bool:
    """Tell whether a name is that of an out-of-distribution set.

    Parameters
    ----------
    name : str
        As for ``check_ood``.

    Returns
    -------
    bool

    Examples
    --------
    >>> is_ood("cifar10_c:fog"), is_ood("mean_of_sets")
    (True, False)
    """
    try:
        check_ood(name)
    except ValueError:
        return False
    return True


def load_ood(
    name: str, like: Splits, root: str | os.PathLike[str] | None = None
) -> torch.Tensor:
    """Load images of another data set, to be shown to a network trained on ``like``.

    Parameters
    ----------
    name : str
        ``svhn`` (its test split), ``cifar10_c[:corruption[:severity]]`` (Gaussian noise
        at severity 5, as in the paper), ``noise`` (uniform pixels, as many images as
        ``like`` has for test), or an image data set of ``DATASETS`` (its test split).
    like : Splits
        The data whose channels and size they take: grey images are repeated over the
        channels, colours averaged, and sizes change by bilinear interpolation.
    root : path, optional
        Folder of downloaded files; None: where ``load`` looks.

    Returns
    -------
    uint8 (N, C, H, W) tensor
        To be normalised as the images of ``like`` are.

    Raises
    ------
    ValueError, TypeError
        For an unknown name, or where ``like`` has no images.
    OSError
        If a file is missing and cannot be downloaded.

    Examples
    --------
    >>> from gcelib import data
    >>> load_ood("noise", data.load("digits")).shape
    torch.Size([497, 1, 8, 8])
    """
    corruption = check_ood(name)
    if len(getattr(like, "input_shape", ())) != 3:
        problem = f"{getattr(like, 'name', like)!r} has no images"
        fail("like", problem, "pass what load() gives for an image data set")
    folder = places.data_dir(root)
    if corruption is not None:
        pixels = _cifar10_c(folder, corruption)
    elif name in _READERS:
        pixels = _READERS[name](folder, like)
    else:
        pixels = load(name, root=root).test[0].numpy()
    return _in_the_shape_of(torch.from_numpy(pixels), like.input_shape)


def _noise(folder: Path, like: Splits) -> Array:
    """Draw every pixel evenly from 0 to 255."""
    shape = (len(like.test[1]), *like.input_shape)
    return np.random.RandomState(0).randint(0, 256, shape, np.uint8)


def _svhn(folder: Path, like: Splits) -> Array:
    """Read the test split of the Street View House Numbers."""
    from scipy.io import loadmat
    from torchvision.datasets import SVHN

    url, _, md5 = SVHN.split_list["test"]
    path = download.fetch(url, [md5], folder)
    images: Array = loadmat(path, variable_names=["X"])["X"]
    return images.transpose(3, 2, 0, 1)


def _cifar10_c(folder: Path, corruption: Corruption) -> Array:
    """Read one corruption of CIFAR-10's test images; a file holds five severities."""
    url, md5 = CIFAR10_C
    archive = download.fetch(url, [md5], folder)
    (content,) = download.read_archive(archive, rf".*/{corruption.name}\.npy").values()
    by_severity = np.array_split(np.load(io.BytesIO(content), allow_pickle=False), 5)
    return by_severity[corruption.severity - 1].transpose(0, 3, 1, 2)


#: Sets that are no data set of ``DATASETS``. A new one is a reader above and a line
#: here.
_READERS: dict[str, Callable[[Path, Splits], Array]] = {"svhn": _svhn, "noise": _noise}


def _in_the_shape_of(
    images: torch.Tensor, input_shape: tuple[int, ...]
) -> torch.Tensor:
    """Give uint8 images the channels and the size (C, H, W)."""
    channels, *size = input_shape
    if images.shape[1] != channels:
        grey = images.float().mean(1, keepdim=True).round().byte()
        images = grey.expand(-1, channels, -1, -1)
    if list(images.shape[2:]) != size:
        resized = F.interpolate(images.float(), size, mode="bilinear", antialias=True)
        images = resized.round().clamp(0, 255).byte()
    return images.contiguous()
