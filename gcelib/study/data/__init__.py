"""Data sets as plain tensors: ``load(name, seed)``. ``data/README.md`` tells each one's source, licence and steps."""

import gzip
import hashlib
import http.client
import io
import os
import re
import tarfile
import tempfile
import urllib.request
import zipfile
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from gcelib._check import as_tensor, boolean, choice, fail, number

EMBEDDED = Path(__file__).resolve().parents[3] / "data"
MAX_BYTES = 4 * 2**30  # no download and no unpacked archive is larger

# (mean, std) of pixels in [0, 1]. CIFAR and IMAGENET are the published code's (torrvision/focal_calibration), which
# normalises CIFAR-100 by CIFAR but its test images by IMAGENET; here all splits of a data set are treated alike.
# FASHION is computed from the 60,000 training images, DIGITS from the 1,300 that are never test.
CIFAR = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
FASHION, DIGITS = ((0.2860,), (0.3530,)), ((0.3056,), (0.3764,))

FASHION_NAMES = "T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot"
FASHION_MINI_MD5 = "d5df53379571510d8471edc4339f614d"
# Debian's dataset-fashion-mnist: the published contents, packed anew
DEBIAN_MD5 = {
    "t10k-images-idx3-ubyte.gz": "f78720b4224f21cce2f2ccf2d7a94c9a",
    "t10k-labels-idx1-ubyte.gz": "0d30e22e447f3c33dab9ed536400ac01",
    "train-images-idx3-ubyte.gz": "cf8536b0aa1a6ac5fa3f23001093305c",
    "train-labels-idx1-ubyte.gz": "10bea18fdb374794d4bb42e356e600c9",
}
TINY_IMAGENET = ("http://cs231n.stanford.edu/tiny-imagenet-200.zip", "90528d7ca1a48142e341f4ef8d21d0de")
CIFAR10_C = ("https://zenodo.org/records/2535967/files/CIFAR-10-C.tar", "56bf5dcef84df0e2308c6dcbcbbd8499")
CORRUPTIONS = (
    "gaussian_noise shot_noise impulse_noise speckle_noise defocus_blur gaussian_blur glass_blur motion_blur zoom_blur "
    "snow frost fog spatter brightness contrast saturate elastic_transform pixelate jpeg_compression"
)


@dataclass(frozen=True, eq=False)
class Splits:
    """One data set, split: all that training and evaluation need to know about it.

    train, val, test: pairs (images, labels): uint8 (N, C, H, W) or float32 features (N, D), and int64 (N,).
    mean, std: float32 (C,) of pixels in [0, 1], or (D,) of the features: what ``normalize`` uses for every split.
    input_shape: (C, H, W) or (D,). augment: whether random crops and mirror images still show the same class.
    """

    name: str
    train: tuple[torch.Tensor, torch.Tensor]
    val: tuple[torch.Tensor, torch.Tensor]
    test: tuple[torch.Tensor, torch.Tensor]
    n_classes: int
    mean: torch.Tensor
    std: torch.Tensor
    class_names: tuple[str, ...]
    input_shape: tuple[int, ...]
    augment: bool


def parent(dataset, argument="dataset"):
    """The known name without its long tail, ``"cifar10"`` for ``"cifar10_lt100"``; else an error with the nearest."""
    tail = re.fullmatch(r"(.+)_lt([1-9]\d{0,5}(?:\.\d*[1-9])?)", dataset) if isinstance(dataset, str) else None
    return choice(argument, tail[1] if tail else dataset, DATASETS)


def load(name, seed=1, root=None):
    """The data set ``name`` as ``Splits`` of CPU tensors; the seed draws the train/val split, as in the paper.

    name: a key of ``DATASETS``, or one followed by ``_lt<rho>`` for its long-tailed version (``cifar10_lt100``). The
    tail is cut from the whole training pool, always the same images; a tenth of what remains is validation. Where
    samples belong together (``digit_pairs``: a digit; ``av1451``: a subject) train and val are split first, then cut.
    Validation is drawn as in the published code (numpy's legacy shuffle, not stratified): CIFAR at seed 1 is its very
    split, and a class of one or two images may be missing in train. Only ``av1451``'s test split depends on the seed.
    root: folder of the downloaded files; None: ``$GCELIB_DATA_DIR``, else ``data/`` of the project.
    Raises ValueError for unknown names and damaged files, OSError where files are missing and cannot be downloaded.
    """
    base, seed = parent(name, "name"), number("seed", seed, 0, 2**32 - 1, integer=True)
    reader, constants, augment, *_ = DATASETS[base]
    train, val, test, names = reader(Path(root or os.environ.get("GCELIB_DATA_DIR") or EMBEDDED), seed)
    if name != base:
        train, val = (part and _cut(*part, len(names), float(name[len(base) + 3 :])) for part in (train, val))
    if val is None:
        rows = _drawn(range(len(train[1])), {"fashion_mini": 1000, "digits": 300}.get(name, len(train[1]) / 10), seed)
        train, val = (tuple(a[r] for a in train) for r in (~rows, rows))
    mean, std = constants or (train[0].mean(0), np.where(train[0].std(0) > 0, train[0].std(0), 1))
    pairs = [(as_tensor("x", np.ascontiguousarray(x)), as_tensor("y", y).long()) for x, y in (train, val, test)]
    shape = tuple(train[0].shape[1:])
    return Splits(name, *pairs, len(names), torch.tensor(mean), torch.tensor(std), tuple(names), shape, augment)


def long_tail_counts(n_max, n_classes, rho):
    """Images per class of a long tail, class 0 first: n_k = round(n_max rho^(-k/(K-1))) (App. C), but at least 1."""
    return [max(1, int(n_max * rho ** (-k / (n_classes - 1)) + 0.5)) for k in range(n_classes)]


def _per_class(labels, counts, seed):
    """Sorted indices of ``counts[k]`` random samples of each class k."""
    order = np.random.RandomState(seed).permutation(len(labels))
    return np.sort(np.concatenate([order[labels[order] == k][:n] for k, n in enumerate(counts)]))


def _cut(images, labels, n_classes, rho):
    head = np.bincount(labels, minlength=n_classes).min()  # so that every count can be met
    keep = _per_class(labels, long_tail_counts(head, n_classes, rho), 0)
    return images[keep], labels[keep]


def _drawn(groups, n, seed):
    """Mask of the first groups of a seeded shuffle that together hold ``n`` rows (or just more)."""
    ids, group_of = np.unique(groups, return_inverse=True)
    order = np.arange(len(ids))
    np.random.RandomState(seed).shuffle(order)  # the published code's generator; its numbers are frozen for ever
    last = np.searchsorted(np.cumsum(np.bincount(group_of)[order]), round(n))
    return np.isin(group_of, order[: last + 1])


def _intact(path, md5):
    """Whether the file has this MD5, or one of those in ``md5``."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest() in md5


def _fetch(url, md5, folder):
    """Path of the checked file, downloaded first if it is missing or not intact, going on where an earlier try stopped.

    Only the whole, checked file ever bears that name; other processes wait for the one that downloads.
    """
    from filelock import FileLock

    path = folder / url.rsplit("/", 1)[1]
    if _intact(path, md5):
        return path
    folder.mkdir(parents=True, exist_ok=True)
    part, problem, total = folder / f"{path.name}.part", "only a part of it came", MAX_BYTES
    with FileLock(f"{path}.lock"):
        if _intact(path, md5):
            return path
        here = part.stat().st_size if part.exists() else 0
        print(f"downloading {url} to {path}, from byte {here:,} on", flush=True)
        request = urllib.request.Request(url, headers={"Range": f"bytes={here}-"})  # noqa: S310 - a constant address
        try:
            reply = urllib.request.urlopen(request, timeout=60)  # noqa: S310
            with reply, part.open("ab" if reply.status == 206 else "wb") as file:
                length = reply.headers.get("Content-Length", "")
                total = file.tell() + int(length) if length.isdecimal() else MAX_BYTES
                while (block := reply.read(2**20)) and file.tell() < MAX_BYTES:
                    file.write(block)
        except (OSError, http.client.HTTPException) as error:
            problem = f"the download failed ({error})"
            total = 0 if getattr(error, "code", None) == 416 else total  # 416: nothing is left to send
        if _intact(part, md5):
            os.replace(part, path)
            return path
        if part.exists() and part.stat().st_size >= total:
            part.unlink()
            problem = "what came is not the published file (wrong checksum) and was deleted"
    fail(path.name, problem, f"try again, which resumes, or get {url} by other means and save it as {path}", OSError)


def _read_archive(path, wanted):
    """``{name: content}`` of the members whose names match; nothing is unpacked to disk by the archive's own names.

    An archive with a link, a path out of its folder or more than 4 GiB of content is refused as a whole.
    """
    contents, total, zipped = {}, 0, path.suffix == ".zip"
    with zipfile.ZipFile(path) if zipped else tarfile.open(path) as archive:
        for m in archive.infolist() if zipped else archive:
            name, size = (m.filename, m.file_size) if zipped else (m.name, m.size)
            plain = m.external_attr >> 28 != 0o12 if zipped else m.isfile() or m.isdir()  # 0o12: a symbolic link
            total, parts = total + size, name.replace("\\", "/").split("/")
            if not plain or not parts[0] or ".." in parts or ":" in name or total > MAX_BYTES:
                fail(path.name, f"member {name!r} is a link, leaves its folder or is too large", f"delete {path}")
            if re.fullmatch(wanted, name):
                contents[name] = archive.read(m) if zipped else archive.extractfile(m).read()
    return contents


def _fashion_mini(root, seed):
    if not _intact(EMBEDDED / "fashion_mini.npz", FASHION_MINI_MD5):
        fail("fashion_mini.npz", f"is missing or damaged in {EMBEDDED}", "restore it from the repository")
    with np.load(EMBEDDED / "fashion_mini.npz", allow_pickle=False) as file:
        images, labels, test, test_labels = (file[name] for name in file.files)
    return (images[:, None], labels), None, (test[:, None], test_labels), FASHION_NAMES.split(",")


def read_idx(path):
    """The uint8 array in a gzipped IDX file, the format of MNIST: its shape is in the header."""
    content = gzip.decompress(Path(path).read_bytes())
    shape = np.frombuffer(content, ">i4", count=content[3], offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * content[3]).reshape(shape)


def _fashion_mnist(root, seed):
    from torchvision.datasets import FashionMNIST

    folder, url = root / "FashionMNIST" / "raw", FashionMNIST.mirrors[0]
    x, y, test, test_labels = (
        read_idx(_fetch(url + f, f"{md5} {DEBIAN_MD5.get(f)}", folder)) for f, md5 in FashionMNIST.resources
    )
    return (x[:, None], y), None, (test[:, None], test_labels), FashionMNIST.classes


def _digits(root, seed):
    from sklearn.datasets import load_digits

    digits = load_digits()  # 1,797 of 8x8 pixels, 0 to 16
    images, labels = np.rint(digits.images * (255 / 16)).astype(np.uint8)[:, None], digits.target
    test = _drawn(range(len(labels)), 497, 0)
    return (images[~test], labels[~test]), None, (images[test], labels[test]), "0123456789"


def _digit_pairs(root, seed):
    def pairs(images, labels, n, seed):
        """``n`` distinct pairs of a left digit a and a right digit b for each class 10 a + b."""
        rng, left, right = np.random.RandomState(seed), [], []
        for k in range(100):
            a, b = (np.flatnonzero(labels == digit) for digit in divmod(k, 10))
            i, j = np.divmod(rng.permutation(len(a) * len(b))[:n], len(b))
            left, right = [*left, *a[i]], [*right, *b[j]]
        return np.concatenate([images[left], images[right]], axis=3), 10 * labels[left] + labels[right]

    (images, labels), _, test, _ = _digits(root, seed)
    # the digits are split before they are paired, 20 of each for training, so no digit is on two sides
    few = np.isin(np.arange(len(labels)), _per_class(labels, [20] * 10, seed))
    train, val = (pairs(images[r], labels[r], n, seed) for r, n in ((few, 100), (~few, 20)))
    return train, val, pairs(*test, 40, 0), [f"{k:02d}" for k in range(100)]


def _cifar(root, seed, name):
    from torchvision import datasets

    source = getattr(datasets, name)
    files = _read_archive(_fetch(source.url, source.tgz_md5, root), rf"{source.base_folder}/[a-z0-9._]+")
    with tempfile.TemporaryDirectory() as folder:  # torchvision checks each file's MD5 before it unpickles it
        for file, content in files.items():
            (Path(folder) / file).parent.mkdir(exist_ok=True)
            (Path(folder) / file).write_bytes(content)
        parts = [source(folder, train=train) for train in (True, False)]
    train, test = ((p.data.transpose(0, 3, 1, 2), np.array(p.targets)) for p in parts)
    return train, None, test, parts[0].classes


def _tiny_imagenet(root, seed):
    from PIL import Image

    cache, keys = root / "tiny_imagenet.npz", ("images", "labels", "test_images", "test_labels", "names")
    try:
        with np.load(cache, allow_pickle=False) as file:
            arrays = [file[k] for k in keys]
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):  # none, or damaged: make it anew
        files = _read_archive(_fetch(*TINY_IMAGENET, root), r".+\.(JPEG|txt)")
        files = {name.partition("/")[2]: content for name, content in files.items()}
        tables = (files[f"{table}.txt"].decode() for table in ("wnids", "words", "val/val_annotations"))
        wnids, words, val = ([line.split("\t") for line in table.splitlines()] for table in tables)
        wnids, words, arrays = sorted(w for (w,) in wnids), dict(words), []
        train = [(f, f.split("/")[1]) for f in sorted(files) if f.startswith("train/") and f.endswith("JPEG")]
        for pairs in (train, [(f"val/images/{row[0]}", row[1]) for row in val]):
            images = np.empty((len(pairs), 3, 64, 64), np.uint8)
            for image, (file, _) in zip(images, pairs, strict=True):
                image[:] = np.asarray(Image.open(io.BytesIO(files[file])).convert("RGB")).transpose(2, 0, 1)
            arrays += [images, np.array([wnids.index(wnid) for _, wnid in pairs])]
        arrays.append(np.array([words[w].split(",")[0] for w in wnids]))
        part = root / f"tiny_imagenet.{os.getpid()}.part.npz"
        np.savez(part, **dict(zip(keys, arrays, strict=True)))
        os.replace(part, cache)
    return arrays[:2], None, arrays[2:4], arrays[4].tolist()


def _av1451(root, seed):
    import pandas as pd

    path, diagnoses = root / "av1451" / "av1451.csv", {"CN": 0, "MCI": 1, "AD": 2, "Dementia": 2}
    try:
        table = pd.read_csv(path, dtype=str, index_col=False, skip_blank_lines=False)
    except (OSError, ValueError) as error:
        kind = type(error) if isinstance(error, OSError) else ValueError
        fail(path.name, f"cannot be read ({error})", "ADNI licenses it: data/README.md has the steps", kind)
    regions = [c for c in table if re.fullmatch(r"CTX_[LR]H_(?!UNKNOWN_)\w+_SUVR", c)]
    if len(regions) != 68 or not {"RID", "DX"} <= {*table} or table["RID"].nunique() < 10:
        found = f"has {len(regions)} columns CTX_LH_<region>_SUVR or CTX_RH_<region>_SUVR, or lacks RID, DX or subjects"
        fail(path.name, found, "68 regions, both columns and 10 subjects are needed")
    values = table[regions].apply(pd.to_numeric, errors="coerce").astype(np.float32)
    values = values.assign(DX=table["DX"].map(diagnoses), RID=pd.to_numeric(table["RID"], errors="coerce"))
    for row, k in np.argwhere(~np.isfinite(values.to_numpy(np.float64)))[:1]:
        hole = f"line {row + 2}, column {values.columns[k]} has {table[values.columns[k]][row]!r}"
        fail(path.name, hole, f"write a number (DX: {', '.join(diagnoses)}) or leave the scan out")
    features, (labels, subjects) = values[regions].to_numpy(), values[["DX", "RID"]].to_numpy(np.int64).T
    test = _drawn(subjects, len(labels) / 10, seed)
    val = np.zeros_like(test)
    val[~test] = _drawn(subjects[~test], len(labels) / 10, seed)
    return *((features[rows], labels[rows]) for rows in (~(test | val), val, test)), ("CN", "MCI", "AD")


# A reader takes (root, seed) and returns train, val, test, class names; val is None where any split will do. Then:
# normalisation (None: by the training features), crop and flip, default OOD sets; and, known before a long download,
# training images, input_shape, classes.
DATASETS = {
    "fashion_mini": (_fashion_mini, FASHION, True, ("digits", "noise")),
    "digits": (_digits, DIGITS, False, ("fashion_mini", "noise")),
    "digit_pairs": (_digit_pairs, DIGITS, False, ("fashion_mini", "noise")),
    "fashion_mnist": (_fashion_mnist, FASHION, True, ("digits", "noise"), (54_000, (1, 28, 28), 10)),
    "cifar10": (partial(_cifar, name="CIFAR10"), CIFAR, True, ("svhn", "cifar10_c"), (45_000, (3, 32, 32), 10)),
    "cifar100": (partial(_cifar, name="CIFAR100"), CIFAR, True, ("svhn",), (45_000, (3, 32, 32), 100)),
    "tiny_imagenet": (_tiny_imagenet, IMAGENET, True, ("svhn",), (90_000, (3, 64, 64), 200)),
    "av1451": (_av1451, None, False, ()),
}
OOD_OF = {name: row[3] for name, row in DATASETS.items()}
SHAPES = {name: row[4] for name, row in DATASETS.items() if row[4:]}


def check_ood(name):
    """``(corruption, severity)`` of a ``cifar10_c`` name, None for another known OOD name; else did-you-mean."""
    corrupted = re.fullmatch(r"cifar10_c(?::([a-z_]+)(?::([1-5]))?)?", name) if isinstance(name, str) else None
    if corrupted:
        return choice("ood", corrupted[1] or "gaussian_noise", CORRUPTIONS.split()), int(corrupted[2] or 5)
    known = ["svhn", "noise", "cifar10_c", "cifar10_c:<corruption>:<severity 1 to 5>", *DATASETS]
    choice("ood", name, [k for k in known if k != "av1451"])


def load_ood(name, like, root=None):
    """Images of another data set, uint8, in the channels and size of ``like``; to be normalised as ``like``'s are.

    name: ``svhn`` (test split), ``cifar10_c[:corruption[:severity]]`` (Gaussian noise at severity 5, as in the paper),
    ``noise`` (uniform pixels, as many images as ``like`` has for test), or an image data set of ``DATASETS`` (its
    test split). Grey images are repeated over the channels, colours averaged; sizes change by bilinear interpolation.
    """
    corrupted, folder = check_ood(name), Path(root or os.environ.get("GCELIB_DATA_DIR") or EMBEDDED)
    if len(getattr(like, "input_shape", ())) != 3:
        fail("like", f"{getattr(like, 'name', like)!r} has no images", "pass what load() gives for an image data set")
    channels, *size = like.input_shape
    if name == "noise":
        pixels = np.random.RandomState(0).randint(0, 256, (len(like.test[1]), channels, *size), np.uint8)
    elif name == "svhn":
        from scipy.io import loadmat
        from torchvision.datasets import SVHN

        url, _, md5 = SVHN.split_list["test"]
        pixels = loadmat(_fetch(url, md5, folder), variable_names="X")["X"].transpose(3, 2, 0, 1)
    elif corrupted:
        (content,) = _read_archive(_fetch(*CIFAR10_C, folder), rf".*/{corrupted[0]}\.npy").values()
        pixels = np.array_split(np.load(io.BytesIO(content), allow_pickle=False), 5)[corrupted[1] - 1]
        pixels = pixels.transpose(0, 3, 1, 2)
    else:
        pixels = load(name, root=root).test[0].numpy()
    images = torch.from_numpy(pixels)
    if images.shape[1] != channels:
        images = images.float().mean(1, keepdim=True).round().byte().expand(-1, channels, -1, -1)
    if list(images.shape[2:]) != size:
        images = F.interpolate(images.float(), size, mode="bilinear", antialias=True).round().clamp(0, 255).byte()
    return images.contiguous()


def normalize(images, splits):
    """Float32 network input: (pixels / 255 - mean) / std for uint8 images, (features - mean) / std for features."""
    if images.ndim != len(splits.input_shape) + 1 or images.shape[1] != len(splits.mean):
        fail("images", f"shape {tuple(images.shape)}, {splits.name} has (N, *{splits.input_shape})", "convert them")
    mean, std = (s.to(images.device) for s in (splits.mean, splits.std))
    if images.ndim == 4:
        mean, std = (255 * s[:, None, None] for s in (mean, std))
    return (images - mean) / std


def crop_and_flip(images, draws, padding=4):
    """Each image shifted and perhaps mirrored by its own row of ``draws``; zeros (black) come in at the rim.

    images: (N, C, H, W), before normalisation, as in the published recipe. draws: int64 (N, 3) on the same device: row
    and column offset in [0, 2 padding], and 1 to mirror or 0.
    """
    n, c, h, w = images.shape
    rows, columns = (torch.arange(s, device=images.device) for s in (h, w))
    dy, dx, flip = draws[:, :, None].unbind(1)
    columns = torch.where(flip == 1, columns.flip(0), columns) + dx
    pixels = ((rows + dy)[:, :, None] * (w + 2 * padding) + columns[:, None]).view(n, 1, h * w)
    return F.pad(images, [padding] * 4).flatten(2).gather(2, pixels.expand(-1, c, -1)).view_as(images)


def batches(split, batch_size, *, splits, generator=None, augment=False, drop_single=True, drop_last=False):
    """One epoch of normalised ``(x, labels)`` batches, made on the device where the split's tensors are.

    split: ``splits.train`` or another pair. generator: draws the order, and the crop and mirroring of every sample,
    for the whole epoch before the first batch, so that no batch waits for the device; a CPU generator gives the same
    data on every device. None: the stored order. augment: random crops after padding by 4 pixels, and horizontal
    flips, drawn for each sample (features pass unchanged). drop_single: in random order, leave out a trailing batch
    of one sample, with which batch norm and GCE can do nothing; drop_last: leave out any incomplete batch.
    """
    if not isinstance(split, (tuple, list)) or len(split) != 2 or np.shape(split[0])[:1] != np.shape(split[1]):
        fail("split", "is not a pair of images and as many labels", "pass splits.train or another part", TypeError)
    images, labels = (as_tensor("split", t) for t in split)
    size, n, device = number("batch_size", batch_size, 1, integer=True), len(labels), labels.device
    augment = boolean("augment", augment) and images.ndim == 4
    if augment and generator is None:
        fail("augment", "needs random numbers", "pass generator=torch.Generator().manual_seed(seed)")
    if generator is not None:
        order = torch.randperm(n, generator=generator, device=generator.device).to(device)
    if augment:
        draws = [torch.randint(high, (n, 1), generator=generator, device=generator.device) for high in (9, 9, 2)]
        draws = torch.cat(draws, 1).to(device)
    drop_single = boolean("drop_single", drop_single) and generator is not None
    if boolean("drop_last", drop_last) or (drop_single and n % size == 1):
        n -= n % size
    splits = replace(splits, mean=splits.mean.to(device), std=splits.std.to(device))

    def epoch():
        for start in range(0, n, size):
            rows = slice(start, start + size) if generator is None else order[start : start + size]
            x = crop_and_flip(images[rows], draws[rows]) if augment else images[rows]
            yield normalize(x, splits), labels[rows]

    return epoch()
