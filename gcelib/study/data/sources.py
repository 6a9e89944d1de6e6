"""The data sets that gcelib knows: a row each in ``DATASETS``, and its reader.

``data/README.md`` tells where each one comes from, its licence and its steps.
"""

import io
import os
import re
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gcelib._check import fail
from gcelib.study import decimals
from gcelib.study.data import download
from gcelib.study.data.splits import Array, ArrayPair, Raw, draw, per_class

if TYPE_CHECKING:
    import pandas as pd


class Constants(NamedTuple):
    """Mean and standard deviation of the channels, of pixels in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


# CIFAR and IMAGENET are the published code's (torrvision/focal_calibration), which
# normalises CIFAR-100 by CIFAR but its test images by IMAGENET; here all splits of a
# data set are treated alike. FASHION is computed from the 60,000 training images,
# DIGITS from the 1,300 that are never test.
CIFAR = Constants((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
IMAGENET = Constants((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
FASHION = Constants((0.2860,), (0.3530,))
DIGITS = Constants((0.3056,), (0.3764,))


class Size(NamedTuple):
    """What is known of a data set without loading it."""

    n_train: int
    input_shape: tuple[int, ...]
    n_classes: int


@dataclass(frozen=True)
class Source:
    """One row of ``DATASETS``: how it is read and what training must know of it.

    Parameters
    ----------
    read : function
        ``read(folder, seed) -> Raw``; ``folder`` is where downloads are kept, and only
        what the seed decides may depend on it. Where ``val`` is None, it is drawn from
        ``train``.
    constants : Constants or None
        What ``normalize`` uses; None: mean and deviation of the training samples.
    augment : bool
        Whether random crops and mirror images still show the same class.
    ood : tuple of str
        Names of the out-of-distribution sets that a run looks at unless told otherwise.
    n_validation : int or None
        Samples drawn for validation; None: a tenth, as of every long tail.
    size : Size or None
        Known before a long download; None: loading is quick.
    is_table : bool
        Features, not images.
    licence : str
        In a few words; ``data/README.md`` has the rest.
    fingerprint : str or None
        SHA-256 of data that may change, the user's own; None: published and fixed.
    by_hand : str or None
        The file below the data folder that the user makes, of which no MD5 is
        published: ``source_of`` takes its fingerprint.

    Examples
    --------
    >>> DATASETS["cifar10"].size.n_classes
    10
    """

    read: Callable[[Path, int], Raw]
    constants: Constants | None
    augment: bool = False
    ood: tuple[str, ...] = ()
    n_validation: int | None = None
    size: Size | None = None
    is_table: bool = False
    licence: str = ""
    fingerprint: str | None = None
    by_hand: str | None = None


# --- fashion_mini, fashion_mnist ------------------------------------------------------

FASHION_MINI = Path(__file__).with_name("fashion_mini.npz")
FASHION_MINI_MD5 = "d5df53379571510d8471edc4339f614d"
FASHION_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
# Debian's package dataset-fashion-mnist: the published contents, packed anew.
DEBIAN_MD5 = {
    "t10k-images-idx3-ubyte.gz": "f78720b4224f21cce2f2ccf2d7a94c9a",
    "t10k-labels-idx1-ubyte.gz": "0d30e22e447f3c33dab9ed536400ac01",
    "train-images-idx3-ubyte.gz": "cf8536b0aa1a6ac5fa3f23001093305c",
    "train-labels-idx1-ubyte.gz": "10bea18fdb374794d4bb42e356e600c9",
}


def _fashion_mini(folder: Path, seed: int) -> Raw:
    """Read the 10,000 images that come with gcelib."""
    if not download.intact(FASHION_MINI, [FASHION_MINI_MD5]):
        problem = f"is missing or damaged in {FASHION_MINI.parent}"
        fail(
            FASHION_MINI.name,
            problem,
            "restore it from the repository, or install gcelib anew",
        )
    with np.load(FASHION_MINI, allow_pickle=False) as file:
        train = file["train_images"][:, None], file["train_labels"]
        test = file["test_images"][:, None], file["test_labels"]
    return Raw(train, None, test, FASHION_NAMES)


def _fashion_mnist(folder: Path, seed: int) -> Raw:
    """Read the four published files."""
    from torchvision.datasets import FashionMNIST

    where = folder / "FashionMNIST" / "raw"
    arrays = []
    for file, md5 in FashionMNIST.resources:
        md5s = [md5, DEBIAN_MD5.get(file, md5)]
        path = download.fetch(FashionMNIST.mirrors[0] + file, md5s, where)
        arrays.append(download.read_idx(path))
    images, labels, test_images, test_labels = arrays
    train = images[:, None], labels
    return Raw(train, None, (test_images[:, None], test_labels), FASHION_NAMES)


# --- digits, digit_pairs --------------------------------------------------------------


def _digits(folder: Path, seed: int) -> Raw:
    """Read scikit-learn's 1,797 digits of 8 x 8 pixels; 497 of them are always test."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[:, None]
    labels = digits.target
    test = draw(range(len(labels)), 497, 0)
    return Raw(
        (images[~test], labels[~test]), None, (images[test], labels[test]), "0123456789"
    )


def _digit_pairs(folder: Path, seed: int) -> Raw:
    """Put two digits side by side; split before, so no digit is in two splits."""
    digits = _digits(folder, seed)
    images, labels = digits.train
    few = np.isin(np.arange(len(labels)), per_class(labels, [20] * 10, seed))
    train = _pairs(images[few], labels[few], 100, seed)
    val = _pairs(images[~few], labels[~few], 20, seed)
    assert digits.test is not None  # noqa: S101 - for the type checker
    test = _pairs(*digits.test, 40, 0)
    return Raw(train, val, test, [f"{k:02d}" for k in range(100)])


def _pairs(images: Array, labels: Array, n: int, seed: int) -> ArrayPair:
    """Choose ``n`` different pairs of digits, a left and b right, for each 10 a + b."""
    rng = np.random.RandomState(seed)
    left: list[int] = []
    right: list[int] = []
    for k in range(100):
        a, b = divmod(k, 10)
        left_pool = np.flatnonzero(labels == a)
        right_pool = np.flatnonzero(labels == b)
        chosen = rng.permutation(len(left_pool) * len(right_pool))[:n]
        i, j = np.divmod(chosen, len(right_pool))
        left.extend(left_pool[i])
        right.extend(right_pool[j])
    pictures = np.concatenate([images[left], images[right]], axis=3)
    return pictures, 10 * labels[left] + labels[right]


# --- CIFAR ----------------------------------------------------------------------------


def _cifar(folder: Path, seed: int, name: str) -> Raw:
    """Read CIFAR by torchvision, which checks files' MD5 before it unpickles them."""
    from torchvision import datasets

    source = getattr(datasets, name)
    archive = download.fetch(source.url, [source.tgz_md5], folder)
    files = download.read_archive(archive, rf"{source.base_folder}/[a-z0-9._]+")
    with tempfile.TemporaryDirectory() as place:
        for file, content in files.items():
            path = Path(place) / file
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
        train = source(place, train=True)
        test = source(place, train=False)
    pair = _cifar_pair(train.data, train.targets)
    test_pair = _cifar_pair(test.data, test.targets)
    return Raw(pair, None, test_pair, train.classes)


def _cifar_pair(images: Array, labels: list[int]) -> ArrayPair:
    """Return images with the channels first, and labels."""
    return images.transpose(0, 3, 1, 2), np.array(labels)


# --- Tiny-ImageNet --------------------------------------------------------------------

TINY_IMAGENET = (
    "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
    "90528d7ca1a48142e341f4ef8d21d0de",
)
_TINY_ARRAYS = ("images", "labels", "test_images", "test_labels", "names")


def _tiny_imagenet(folder: Path, seed: int) -> Raw:
    """Read the cache of decoded images; make it first if it is missing or damaged."""
    cache = folder / "tiny_imagenet.npz"
    try:
        with np.load(cache, allow_pickle=False) as file:
            arrays = [file[name] for name in _TINY_ARRAYS]
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        arrays = _decoded_tiny_imagenet(folder)
        part = folder / f"tiny_imagenet.{os.getpid()}.part.npz"
        content: dict[str, Any] = dict(zip(_TINY_ARRAYS, arrays, strict=True))
        np.savez(part, **content)
        os.replace(part, cache)
    images, labels, test_images, test_labels, names = arrays
    return Raw((images, labels), None, (test_images, test_labels), names.tolist())


def _decoded_tiny_imagenet(folder: Path) -> list[Array]:
    """Decode the archive's JPEGs; the official validation images are the test split."""
    url, md5 = TINY_IMAGENET
    archive = download.read_archive(
        download.fetch(url, [md5], folder), r".+\.(JPEG|txt)"
    )
    files = {name.partition("/")[2]: content for name, content in archive.items()}

    def table(name: str) -> list[list[str]]:
        """The cells of one of the archive's text files, line by line."""
        return [line.split("\t") for line in files[name].decode().splitlines()]

    wnids = sorted(row[0] for row in table("wnids.txt"))
    words = {row[0]: row[1] for row in table("words.txt")}
    jpegs = sorted(f for f in files if f.startswith("train/") and f.endswith("JPEG"))
    train = [(file, file.split("/")[1]) for file in jpegs]
    test = [
        (f"val/images/{row[0]}", row[1]) for row in table("val/val_annotations.txt")
    ]
    arrays = []
    for pairs in (train, test):
        arrays.append(_decoded([files[file] for file, _ in pairs]))
        arrays.append(np.array([wnids.index(wnid) for _, wnid in pairs]))
    arrays.append(np.array([words[wnid].split(",")[0] for wnid in wnids]))
    return arrays


def _decoded(jpegs: Sequence[bytes]) -> Array:
    """Decode images of 64 x 64 pixels; grey ones become RGB."""
    from PIL import Image

    images = np.empty((len(jpegs), 3, 64, 64), np.uint8)
    for image, content in zip(images, jpegs, strict=True):
        picture = Image.open(io.BytesIO(content)).convert("RGB")
        image[:] = np.asarray(picture).transpose(2, 0, 1)
    return images


# --- AV1451 ---------------------------------------------------------------------------

_DIAGNOSES = {"CN": 0, "MCI": 1, "AD": 2, "Dementia": 2}


_AV1451 = "av1451/av1451.csv"


def _av1451(folder: Path, seed: int) -> Raw:
    """Read ADNI's table; a subject's scans are in one split, and the seed draws all."""
    path = folder / _AV1451
    table = _read_adni(path)
    regions = _regions(path, table)
    values = _numbers_of_adni(path, table, regions)
    features = values[regions].to_numpy()
    labels = values["DX"].to_numpy(np.int64)
    subjects = values["RID"].to_numpy(np.int64)
    test = draw(subjects, len(labels) / 10, seed)
    val = np.zeros_like(test)
    val[~test] = draw(subjects[~test], len(labels) / 10, seed)
    train = ~(test | val)
    return Raw(
        (features[train], labels[train]),
        (features[val], labels[val]),
        (features[test], labels[test]),
        ("CN", "MCI", "AD"),
    )


def _read_adni(path: Path) -> "pd.DataFrame":
    """The table as text, so that a bad cell can be shown as it is."""
    import pandas as pd

    try:
        table = decimals.read_csv(
            path, dtype=str, index_col=False, skip_blank_lines=False
        )
    except (OSError, ValueError) as error:
        kind = type(error) if isinstance(error, OSError) else ValueError
        cure = "ADNI licenses it: data/README.md has the steps"
        fail(path.name, f"cannot be read ({error})", cure, kind)
    checked: pd.DataFrame = table
    return checked


def _regions(path: Path, table: "pd.DataFrame") -> list[str]:
    """The 68 columns of features; a table without one of them is refused."""
    pattern = r"CTX_[LR]H_(?!UNKNOWN_)\w+_SUVR"
    regions = [column for column in map(str, table) if re.fullmatch(pattern, column)]
    has_columns = len(regions) == 68 and {"RID", "DX"} <= {*table}
    if has_columns and table["RID"].nunique() >= 10:
        return regions
    found = f"has {len(regions)} columns CTX_LH_<region>_SUVR or CTX_RH_<region>_SUVR, "
    found += "or lacks RID, DX or subjects"
    fail(path.name, found, "68 regions, both columns and 10 subjects are needed")


def _numbers_of_adni(
    path: Path, table: "pd.DataFrame", regions: list[str]
) -> "pd.DataFrame":
    """Features, diagnosis and subject as numbers; a cell that is none is refused."""
    import pandas as pd

    values: pd.DataFrame
    values = table[regions].apply(decimals.to_numeric, errors="coerce")
    values = values.astype(np.float32)
    values["DX"] = table["DX"].map(_DIAGNOSES)
    values["RID"] = decimals.to_numeric(table["RID"], errors="coerce")
    holes = np.argwhere(~np.isfinite(values.to_numpy(np.float64)))
    if len(holes):
        row, k = holes[0]
        column = values.columns[k]
        hole = f"line {row + 2}, column {column} has {table[column][row]!r}"
        cure = f"write a number (DX: {', '.join(_DIAGNOSES)}) or leave the scan out"
        fail(path.name, hole, cure)
    return values


# --- the rows -------------------------------------------------------------------------

_MIT = "MIT, Zalando SE"

#: Every data set by its name. A new one is a reader above and a row here.
DATASETS: dict[str, Source] = {
    "fashion_mini": Source(
        _fashion_mini,
        FASHION,
        augment=True,
        ood=("digits", "noise"),
        n_validation=1000,
        licence=_MIT,
    ),
    "digits": Source(
        _digits,
        DIGITS,
        ood=("fashion_mini", "noise"),
        n_validation=300,
        licence="CC BY 4.0",
    ),
    "digit_pairs": Source(
        _digit_pairs,
        DIGITS,
        ood=("fashion_mini", "noise"),
        licence="CC BY 4.0",
    ),
    "fashion_mnist": Source(
        _fashion_mnist,
        FASHION,
        augment=True,
        ood=("digits", "noise"),
        size=Size(54_000, (1, 28, 28), 10),
        licence=_MIT,
    ),
    "cifar10": Source(
        partial(_cifar, name="CIFAR10"),
        CIFAR,
        augment=True,
        ood=("svhn", "cifar10_c"),
        size=Size(45_000, (3, 32, 32), 10),
        licence="none stated; cite Krizhevsky 2009",
    ),
    "cifar100": Source(
        partial(_cifar, name="CIFAR100"),
        CIFAR,
        augment=True,
        ood=("svhn",),
        size=Size(45_000, (3, 32, 32), 100),
        licence="none stated; cite Krizhevsky 2009",
    ),
    "tiny_imagenet": Source(
        _tiny_imagenet,
        IMAGENET,
        augment=True,
        ood=("svhn",),
        size=Size(90_000, (3, 64, 64), 200),
        licence="ImageNet's terms: non-commercial research and education",
    ),
    "av1451": Source(
        _av1451,
        None,
        is_table=True,
        licence="ADNI's data use agreement; may not be passed on",
        by_hand=_AV1451,
    ),
}
