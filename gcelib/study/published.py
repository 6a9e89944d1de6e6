"""Outputs and labels of networks that other people trained and published.

Twenty-two image classifiers: the field's networks at the field's scale, for whoever
asks what calibration does outside our own small runs. Nothing is embedded: each file is
downloaded from its source at a pinned commit when somebody asks, and checked.
"""

import csv
import hashlib
import io
import os
import pickle
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gcelib import _check
from gcelib.study import files
from gcelib.study.places import data_dir

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
_Arrays = tuple[npt.NDArray[Any], npt.NDArray[Any]]

#: The smallest probability before the logarithm: the smallest float32, as measured.
SMALLEST = 1e-45


@dataclass(frozen=True)
class PublishedFile:
    """One file at a pinned commit of a public repository.

    Parameters
    ----------
    repository, commit, path : str
        Where it lies.
    n_bytes : int
        Its size.
    sha256 : str
        What its content must hash to.
    """

    repository: str
    commit: str
    path: str
    n_bytes: int
    sha256: str

    @property
    def url(self) -> str:
        """The address of the raw file."""
        place = self.repository.removeprefix("github.com/")
        return f"https://raw.githubusercontent.com/{place}/{self.commit}/{self.path}"

    @property
    def file_name(self) -> str:
        """Its name in a folder of many sources."""
        place = self.repository.removeprefix("github.com/")
        return f"{place}/{self.path}".replace("/", "__")


@dataclass(frozen=True)
class PublishedNetwork:
    """One published classifier.

    Parameters
    ----------
    dataset : str
        Whose test set the outputs belong to; all 10,000 samples.
    n_classes : int
        K.
    outputs : PublishedFile
        Probabilities, and the labels too where ``labels`` is None.
    labels : PublishedFile or None
        The labels' own file.
    licence : str
        What the source states.
    """

    dataset: str
    n_classes: int
    outputs: PublishedFile
    labels: PublishedFile | None
    licence: str


def _netcal(dataset: str, n_classes: int, name: str, sha256: str) -> PublishedNetwork:
    """A network of netcal's examples, labels in the same file."""
    outputs = PublishedFile(
        "github.com/EFS-OpenSource/calibration-framework",
        "2a3db8d7cb2a557f3b563c98ce00954f43dfe927",
        f"examples/classification/records/{dataset}/{name}.npz",
        480492 if n_classes == 10 else 4080492,
        sha256,
    )
    return PublishedNetwork(dataset, n_classes, outputs, None, "Apache-2.0")


def _widmann_file(name: str, n_bytes: int, sha256: str) -> PublishedFile:
    """A file of the experiments of Widmann, Lindsten and Zachariah (2019)."""
    return PublishedFile(
        "github.com/devmotion/CalibrationPaper",
        "a164e8ba0f37ea6cdd8f04a34abe43ed06b87a66",
        f"experiments/data/PyTorch-CIFAR10/{name}.csv",
        n_bytes,
        sha256,
    )


def _widmann(name: str, n_bytes: int, sha256: str) -> PublishedNetwork:
    """A network of those experiments; all have the same labels."""
    labels = _widmann_file(
        "labels",
        21000,
        "8c005c49438094954d09bcf8e440c937a877a5554f97302e05b747b3845b2ed9",
    )
    outputs = _widmann_file(name, n_bytes, sha256)
    return PublishedNetwork("cifar10", 10, outputs, labels, "none stated")


def _cleanlab(dataset: str, sha256: str, labels_sha256: str) -> PublishedNetwork:
    """Cross-validated probabilities of cleanlab's study of label errors."""
    source = "github.com/cleanlab/label-errors"
    commit = "6d5d6b31a13216290afc40e5c6319399c4d15c06"
    outputs = PublishedFile(
        source,
        commit,
        f"cross_validated_predicted_probabilities/{dataset}_test_set_pyx.npy",
        800128,
        sha256,
    )
    labels = PublishedFile(
        source,
        commit,
        f"original_test_labels/{dataset}_test_set_original_labels.npy",
        20128,
        labels_sha256,
    )
    return PublishedNetwork(dataset, 10, outputs, labels, "Apache-2.0")


#: The published networks, by name.
PUBLISHED: dict[str, PublishedNetwork] = {
    "lenet5_cifar10": _netcal(
        "cifar10",
        10,
        "lenet-5-cifar-10",
        "2fea8ab231920142ebf1fb90ec07677681f0ea64aef1a328e1d45898978e3c90",
    ),
    "wrn16_4_cifar10": _netcal(
        "cifar10",
        10,
        "wideresnet-16-4-cifar-10",
        "ce2bafe1fa22e8da7b132cb45556b5d154bd50bbec5d91913bba2e04fbd76182",
    ),
    "densenet_bc_100_cifar100": _netcal(
        "cifar100",
        100,
        "densenet-bc-100-cifar-100",
        "6b8c33de93bdf1ae7de335f485c73c9f7198b359f85de6b1f21066a7e7c6379e",
    ),
    "lenet5_cifar100": _netcal(
        "cifar100",
        100,
        "lenet-5-cifar-100",
        "45807c28708ba788ef3e4d9f9d25f59ebe93a2eb5d4dd5fa8380095636a244a0",
    ),
    "wrn16_4_cifar100": _netcal(
        "cifar100",
        100,
        "wideresnet-16-4-cifar-100",
        "ab3ce671b234521fe346977df2bb1c755a2c96b1781c350cef76be0ad36e5e12",
    ),
    "densenet121_cifar10": _widmann(
        "densenet121",
        1307637,
        "618b47ef01f22e3e82b5e4bacc78d2b2818211c7c52db1b5723b251f08739a18",
    ),
    "densenet161_cifar10": _widmann(
        "densenet161",
        1309963,
        "624c889f9ff9dd6ab8b6205f59a4497eb8be0b58fdf312571ef4e92eb512f06e",
    ),
    "densenet169_cifar10": _widmann(
        "densenet169",
        1311219,
        "f0fa59a709adeab3ec4fe7d06cc1166c1a44df2a1a60534f25cad385386bfa15",
    ),
    "googlenet_cifar10": _widmann(
        "googlenet",
        1256608,
        "e24cbae2961fba7a4242b050e971d0f53a14cbbc0d6715a23b757b72e9ca6033",
    ),
    "inception_v3_cifar10": _widmann(
        "inception_v3",
        1269640,
        "101f0ea51e6c1bcda358262df0aa07e021846c42f26b5a16bd86512b3759a415",
    ),
    "mobilenet_v2_cifar10": _widmann(
        "mobilenet_v2",
        1267172,
        "83900137295ba171bdcafb873e4bb4e14a59afe3e5a383b7a07d3f2b4769e7cf",
    ),
    "resnet18_cifar10": _widmann(
        "resnet18",
        1283873,
        "b516c06c0f541c991daf435580a61274f69d46049a33d7f26ccb90efd1cf0fc2",
    ),
    "resnet34_cifar10": _widmann(
        "resnet34",
        1288760,
        "f51635ac7305446337b71d3bb2536cbd17083cc76c0071378a3a5dc7f7e341e6",
    ),
    "resnet50_cifar10": _widmann(
        "resnet50",
        1273784,
        "047813dc70800932725428fcb41159f165193102dcda95463c8d732b1e86775c",
    ),
    "resnet_orig_cifar10": _widmann(
        "resnet_orig",
        1259813,
        "4ee9049dfa3459ce8dfef7384536f3e00f56a56561df1163ffc4ce6a47d677d2",
    ),
    "vgg11_bn_cifar10": _widmann(
        "vgg11_bn",
        1251762,
        "aa95286cacd62cc3b38414430c4324b66c61290080702e4ac21aefef699860a8",
    ),
    "vgg13_bn_cifar10": _widmann(
        "vgg13_bn",
        1252264,
        "1ca45c3a82a7f029ca95906d72c2bf0b8258fdc97291bba9506342c353dbc15f",
    ),
    "vgg16_bn_cifar10": _widmann(
        "vgg16_bn",
        1254789,
        "e517a0a2b4bde324d55fbd24e432a0251803d7a4118e2ce52bf9e63ab9ee7bda",
    ),
    "vgg19_bn_cifar10": _widmann(
        "vgg19_bn",
        1253395,
        "cec0f2b7bf64634b2bdfb7028241aeda3acd13d602da8b793dac2a54d94550a1",
    ),
    "vgg16_keras_cifar10": PublishedNetwork(
        "cifar10",
        10,
        PublishedFile(
            "github.com/p-lambda/verified_calibration",
            "ee81c346895e3377653bd347c429a95bd631058d",
            "data/cifar_probs.dat",
            480249,
            "fe3cdd9e8d77336aa60916949ec126ef0c17a828d95c1999a88a59bc56a550bf",
        ),
        None,
        "MIT",
    ),
    "cross_validated_cifar10": _cleanlab(
        "cifar10",
        "c445b25cee680e3919b4bd81d230a5c7c2179ed556609d84e000ee046bb44b49",
        "8fba587d5b11011df52b2a20eb4a272eeaf20c2d162554059f714d4b78d23aed",
    ),
    "cross_validated_mnist": _cleanlab(
        "mnist",
        "403d0f1188c8940ceb47994a2cd9eb2aee6946810b5488d9d4501c97e09f30c2",
        "9c4b8d0ef379b2ce0d312470484d79e282a47e092738fca1edff326f9b67c20e",
    ),
}


def published_logits(
    name: str, folder: str | os.PathLike[str] | None = None
) -> tuple[FloatArray, IntArray]:
    """Logits and labels of one network of ``PUBLISHED``.

    The sources hold probabilities, rounded to float32 or to eight digits, some exactly
    0 or 1. They come back as log p, p at least 1e-45 after rows are made to sum to 1.

    Parameters
    ----------
    name : str
        A key of ``PUBLISHED``.
    folder : path, optional
        Where the files lie, or are put when they are downloaded. Default:
        ``published/`` in the folder of data.

    Returns
    -------
    logits : (10000, K) float32 array
    labels : (10000,) int64 array

    Raises
    ------
    ValueError
        For an unknown name, or a file that is not the published one.
    OSError
        If a file is missing and cannot be downloaded.

    Examples
    --------
    >>> logits, labels = published_logits("resnet18_cifar10")  # doctest: +SKIP
    """
    network = PUBLISHED[_check.choice("name", name, list(PUBLISHED))]
    place = _default_folder() if folder is None else Path(folder)
    content = _content(network.outputs, place)
    read = _READERS[Path(network.outputs.path).suffix]
    probs, labels = read(content, network, place)
    probs = probs.astype(np.float64)
    expected = (len(labels), network.n_classes)
    if probs.shape != expected or labels.min() < 0 or labels.max() >= expected[1]:
        problem = f"holds {probs.shape} probabilities and {labels.shape} labels"
        _check.fail(network.outputs.file_name, problem, "get it from its source again")
    probs /= probs.sum(1, keepdims=True)
    return np.log(probs.clip(SMALLEST)).astype(np.float32), labels.astype(np.int64)


def _default_folder() -> Path:
    """``published/`` where data lie."""
    return data_dir() / "published"


def _content(file: PublishedFile, folder: Path) -> bytes:
    """The bytes of a file, downloaded if it is not there; only the published ones."""
    path = folder / file.file_name
    if not path.is_file():
        _download(file, path)
    with path.open("rb") as stream:
        content = stream.read(file.n_bytes + 1)
    if hashlib.sha256(content).hexdigest() != file.sha256:
        cure = f"delete it, or get {file.url} by other means and save it as {path}"
        _check.fail(str(path), "is not the published file (wrong SHA-256)", cure)
    return content


def _download(file: PublishedFile, path: Path) -> None:
    """Fetch one file whole, check it, and only then give it its name."""
    cure = f"try again, or get {file.url} by other means and save it as {path}"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with urllib.request.urlopen(file.url, timeout=60) as reply:  # noqa: S310
            content = reply.read(file.n_bytes + 1)
    except OSError as error:
        problem = f"the download failed ({error})"
        _check.fail(path.name, problem, cure, OSError)
    if hashlib.sha256(content).hexdigest() != file.sha256:
        problem = "what came is not the published file (wrong SHA-256)"
        _check.fail(path.name, problem, cure)
    files.write_atomic(path, content)


def _read_npz(content: bytes, network: PublishedNetwork, folder: Path) -> _Arrays:
    """Records of netcal: predictions and labels in one archive."""
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return arrays["predictions"], arrays["ground_truth"].reshape(-1)


def _read_csv(content: bytes, network: PublishedNetwork, folder: Path) -> _Arrays:
    """A row a sample; labels, which count from 1, in a file of their own."""
    labels = _numbers(_content_of_labels(network, folder)).reshape(-1)
    return _numbers(content), labels.astype(np.int64) - 1


def _content_of_labels(network: PublishedNetwork, folder: Path) -> bytes:
    """The bytes of the labels' own file."""
    if network.labels is None:
        cure = "name it in the network's row"
        _check.fail("labels", f"{network.outputs.path} has no file of labels", cure)
    return _content(network.labels, folder)


def _numbers(content: bytes) -> npt.NDArray[np.float64]:
    """The numbers of a csv file without a header."""
    rows = csv.reader(io.StringIO(content.decode("ascii")))
    return np.array([[float(cell) for cell in row] for row in rows if row])


def _read_npy(content: bytes, network: PublishedNetwork, folder: Path) -> _Arrays:
    """One array in each of two files."""
    labels = _content_of_labels(network, folder)
    return (
        np.load(io.BytesIO(content), allow_pickle=False),
        np.load(io.BytesIO(labels), allow_pickle=False).reshape(-1),
    )


def _read_pickle(content: bytes, network: PublishedNetwork, folder: Path) -> _Arrays:
    """A pickled pair, read by an unpickler that knows only numpy's arrays."""
    probs, labels = _ArraysOnly(io.BytesIO(content), encoding="latin1").load()
    return np.asarray(probs), np.asarray(labels).reshape(-1)


class _ArraysOnly(pickle.Unpickler):
    """Unpickles numpy arrays; refuses every other class or function."""

    def find_class(self, module: str, name: str) -> object:
        """What an array needs to be built, or an error."""
        plain = module.replace("numpy._core", "numpy.core")
        allowed = {
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
            ("numpy.core.multiarray", "_reconstruct"): np.zeros(0).__reduce__()[0],
            ("_codecs", "encode"): lambda text, _: text.encode("latin1"),
        }
        if (plain, name) not in allowed:
            _check.fail(
                "pickle", f"asks for {module}.{name}", "it holds more than arrays"
            )
        return allowed[plain, name]


_READERS: dict[str, Callable[[bytes, PublishedNetwork, Path], _Arrays]] = {
    ".npz": _read_npz,
    ".csv": _read_csv,
    ".npy": _read_npy,
    ".dat": _read_pickle,
}


def sources_table() -> str:
    """The sources as csv, a line a network: what data/published.csv holds.

    Examples
    --------
    >>> sources_table().splitlines()[0][:30]
    'network,dataset,classes,licenc'
    """
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    header = "network dataset classes licence repository commit"
    files = "path bytes sha256 labels_path labels_bytes labels_sha256"
    writer.writerow([*header.split(), *files.split()])
    for name, network in PUBLISHED.items():
        outputs = network.outputs
        labels = network.labels
        row = [name, network.dataset, network.n_classes, network.licence]
        row += [outputs.repository, outputs.commit]
        row += [outputs.path, outputs.n_bytes, outputs.sha256]
        row += [labels.path, labels.n_bytes, labels.sha256] if labels else [""] * 3
        writer.writerow(row)
    return table.getvalue()
