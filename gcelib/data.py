"""Data sets as plain tensors: splits drawn by a seed, long tails, out-of-distribution sets, batches on the device."""

import gzip
import hashlib
import math
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from gcelib._validate import boolean, choice, fail, number

DATA_DIR = Path(__file__).resolve().parent.parent / "data"

# (mean, std) per channel of pixels in [0, 1]. Fashion-MNIST: all 60,000 training images; digits: the 1,300 that are
# not test images (both computed here, population std, and recomputed by the tests). CIFAR and ImageNet: the values of
# the published code, whose CIFAR-100 test images alone were normalised with IMAGENET; ours are not.
CIFAR = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
FASHION = ((0.2860,), (0.3530,))
DIGITS = ((0.3056,), (0.3764,))

FASHION_NAMES = [
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
]
FASHION_SHA256 = {  # of the unpacked files
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
FASHION_MINI_SHA256 = "9a419caab140c9b214ae6968c71fc0966056d263d98ff7fe78530ab5075f85d8"


@dataclass(frozen=True, eq=False)
class Splits:
    """One data set, split: all that training and evaluation need to know about it.

    train, val, test: pairs ``(images, labels)``; images uint8 (N, C, H, W) or features float32 (N, D), labels
    int64 (N,).
    mean, std: float32 (C,) of pixels in [0, 1], or (D,) of the features: what ``normalize`` uses, for every split.
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

    def to(self, device):
        """The same splits with every tensor on ``device``."""
        moved = {s: tuple(t.to(device) for t in getattr(self, s)) for s in ("train", "val", "test")}
        return replace(self, mean=self.mean.to(device), std=self.std.to(device), **moved)


def parse_name(name):
    """``("cifar10", 100.0)`` for ``"cifar10_lt100"``, ``("cifar10", None)`` for ``"cifar10"``; else did-you-mean."""
    tail = re.fullmatch(r"(.+)_lt([1-9]\d*(?:\.\d+)?)", name) if isinstance(name, str) else None
    base, rho = (tail[1], float(tail[2])) if tail else (name, None)
    return choice("name", base, READERS), rho


def load(name, seed=1, root=None):
    """The data set ``name`` as ``Splits`` of CPU tensors; the seed draws the train/val split, as in the paper.

    name: a key of ``READERS``, or one followed by ``_lt<rho>`` for its long-tailed version (``cifar10_lt100``, see
    ``long_tail_counts``): the tail is cut from the whole training pool, always the same images; then a tenth of what
    remains, drawn by the seed, is validation. The test split never changes, except that of ``av1451``, which has none
    of its own. Validation images are drawn as the published code draws them (numpy's legacy shuffle, not stratified),
    so that CIFAR with seed 1 gives the published split.
    root: the folder of the downloaded files, ``data/`` of the project if None.
    """
    base, rho = parse_name(name)
    seed = number("seed", seed, 0, 2**32 - 1, integer=True)
    train, val, test, class_names, (mean, std), augment = READERS[base](
        DATA_DIR if root is None else Path(root), seed, rho
    )
    if mean is None:
        mean, std = train[0].mean(0), train[0].std(0)
    pairs = [
        (torch.from_numpy(np.ascontiguousarray(x)), torch.from_numpy(y.astype(np.int64))) for x, y in (train, val, test)
    ]
    mean, std, names = torch.tensor(mean), torch.tensor(std), tuple(class_names)
    return Splits(name, *pairs, len(names), mean, std, names, train[0].shape[1:], augment)


def long_tail_counts(n_max, n_classes, rho):
    """Images per class of a long tail: n_k = round(n_max rho^(-k/(K-1))), nearest (the paper's App. C).

    Class 0 is the head by rule; n_max is the size of the smallest class, so that every count can be met exactly.
    """
    return [math.floor(n_max * rho ** (-k / (n_classes - 1)) + 0.5) for k in range(n_classes)]


def _first_groups(groups, n, seed):
    """Mask of the rows of the first groups of a seeded shuffle that together hold ``n`` rows."""
    ids, group_of = np.unique(groups, return_inverse=True)
    order = np.arange(len(ids))
    np.random.RandomState(seed).shuffle(order)  # the published code's generator, for its very split
    last = np.searchsorted(np.cumsum(np.bincount(group_of)[order]), n)
    return np.isin(group_of, order[: last + 1])


def _split(images, labels, n_classes, n_val, seed, rho, groups=None):
    """The pool cut to a long tail (if ``rho``) and split by the seed: ``(train, val)``."""
    keep = np.arange(len(labels))
    if rho is not None:
        counts = long_tail_counts(np.bincount(labels, minlength=n_classes).min(), n_classes, rho)
        if min(counts) < 1:
            fail("name", f"a tail of {rho:g} leaves no image of class {counts.index(0)}", "choose a smaller ratio")
        rng = np.random.default_rng(0)
        keep = np.concatenate([rng.permutation(np.flatnonzero(labels == k))[:n] for k, n in enumerate(counts)])
        keep.sort()
        n_val = round(len(keep) / 10)
    images, labels = images[keep], labels[keep]
    val = _first_groups(np.arange(len(keep)) if groups is None else groups[keep], n_val, seed)
    return (images[~val], labels[~val]), (images[val], labels[val])


def _fashion_mini(root, seed, rho):
    with np.load(DATA_DIR / "fashion_mini.npz", allow_pickle=False) as file:
        arrays = [file[k] for k in ("train_images", "train_labels", "test_images", "test_labels")]
    if fashion_mini_hash(*arrays) != FASHION_MINI_SHA256:
        fail("fashion_mini.npz", "is not the file that belongs to this version", "restore it with git checkout data")
    images, labels, test_images, test_labels = arrays
    pool = _split(images[:, None], labels, 10, 1000, seed, rho)
    return *pool, (test_images[:, None], test_labels), FASHION_NAMES, FASHION, True


def fashion_mini_hash(*arrays):
    """SHA-256 of the arrays' bytes in order: the content of ``fashion_mini.npz`` whatever zlib packed it."""
    return hashlib.sha256(b"".join(a.tobytes() for a in arrays)).hexdigest()


def read_fashion_mnist(folder, part):
    """Images (N, 28, 28) and labels (N,) of ``part``, "train" or "t10k", from the checked ``.gz`` files in ``folder``."""
    arrays = []
    for name, header in ((f"{part}-images-idx3-ubyte", 16), (f"{part}-labels-idx1-ubyte", 8)):
        path = Path(folder) / f"{name}.gz"
        with gzip.open(path) as file:
            content = file.read(50_000_000)
        if hashlib.sha256(content).hexdigest() != FASHION_SHA256[name]:
            fail(path.name, "is not the original file", f"delete {path} and try again")
        arrays.append(np.frombuffer(content, np.uint8, offset=header))
    return arrays[0].reshape(-1, 28, 28), arrays[1]


def _base_digits():
    """scikit-learn's 1,797 digits as uint8 (N, 8, 8), labels, and the mask of the 497 that are always test."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    return images, digits.target, _first_groups(np.arange(len(images)), 497, 0)


def _digits(root, seed, rho):
    images, labels, is_test = _base_digits()
    images = images[:, None]
    pool = _split(images[~is_test], labels[~is_test], 10, 300, seed, rho)
    return *pool, (images[is_test], labels[is_test]), "0123456789", DIGITS, False


def _pairs(images, labels, counts, seed):
    """``counts[10 a + b]`` distinct pairs of a left digit a and a right digit b: images (N, 1, 8, 16), labels."""
    rng, left, right = np.random.default_rng(seed), [], []
    for k, n in enumerate(counts):
        a, b = (np.flatnonzero(labels == digit) for digit in divmod(k, 10))
        i, j = np.divmod(rng.choice(len(a) * len(b), n, replace=False), len(b))
        left.append(a[i])
        right.append(b[j])
    pairs = np.concatenate([images[np.concatenate(left)], images[np.concatenate(right)]], axis=2)
    return pairs[:, None], np.repeat(np.arange(100), counts)


def _digit_pairs(root, seed, rho):
    images, labels, is_test = _base_digits()
    test = _pairs(images[is_test], labels[is_test], [40] * 100, 0)
    # the digits are split before they are paired, so no digit is seen on both sides; a tail is cut on both sides alike
    base = _split(images[~is_test], labels[~is_test], 10, 300, seed, None)
    train, val = (_pairs(*b, long_tail_counts(n, 100, rho or 1), seed) for b, n in zip(base, (100, 20), strict=True))
    return train, val, test, [f"{k:02d}" for k in range(100)], DIGITS, False


READERS = {"fashion_mini": _fashion_mini, "digits": _digits, "digit_pairs": _digit_pairs}

OOD_OF = {
    "fashion_mini": ("digits", "noise"),
    "digits": ("fashion_mini", "noise"),
    "digit_pairs": ("fashion_mini", "noise"),
}


def load_ood(name, like, root=None):
    """Test images of another data set, uint8, in the channels and size of ``like`` (normalise them as ``like``'s).

    name: ``noise`` (uniform pixels, as many as ``like`` has test images) or any image data set (its test split).
    """
    if name == "noise":
        rng = np.random.default_rng(0)
        return torch.from_numpy(rng.integers(0, 256, (len(like.test[1]), *like.input_shape), dtype=np.uint8))
    images = load(choice("name", name, [*READERS, "noise"]), root=root).test[0]
    channels, *size = like.input_shape
    if images.shape[1] != channels:
        images = images.float().mean(1, keepdim=True).round().byte().expand(-1, channels, -1, -1)
    if list(images.shape[2:]) != size:
        images = F.interpolate(images.float(), size, mode="bilinear", antialias=True).round().clamp(0, 255).byte()
    return images.contiguous()


def normalize(images, splits):
    """Float32 network input: (pixels / 255 - mean) / std per channel, or (features - mean) / std."""
    mean, std = (s.to(images.device) for s in (splits.mean, splits.std))
    if images.dtype == torch.uint8:
        mean, std = 255 * mean[:, None, None], 255 * std[:, None, None]
    return (images - mean) / std


def crop_and_flip(images, draws, padding=4):
    """Each image shifted and perhaps mirrored by its own row of ``draws``; zeros come in at the rim.

    images: uint8 (N, C, H, W), before normalisation, as in the published recipe. draws: int64 (N, 3) of the row and
    column offset in [0, 2 padding] and 0 or 1 (mirrored).
    """
    n, c, h, w = images.shape
    rows, columns = (torch.arange(s, device=images.device) for s in (h, w))
    dy, dx, flip = draws[:, :, None].unbind(1)
    rows = rows + dy
    columns = torch.where(flip == 1, columns.flip(0), columns) + dx
    sample, channel = (torch.arange(s, device=images.device) for s in (n, c))
    padded = F.pad(images, [padding] * 4)
    return padded[sample[:, None, None, None], channel[:, None, None], rows[:, None, :, None], columns[:, None, None]]


def batches(split, batch_size, *, splits, generator=None, augment=False, drop_single=None, drop_last=False, padding=4):
    """One epoch of ``(normalised inputs, labels)`` batches, made on the device where the split's tensors are.

    split: ``splits.train`` or another pair. generator: draws the order, and every crop and mirroring, of the whole
    epoch at once, so that nothing waits for the device within an epoch; a CPU generator gives the same data on every
    device. None: the order as stored. augment: crops of the image padded by 4 pixels and horizontal flips, drawn for
    each sample (features pass unchanged). drop_single: drop a trailing batch of one sample, which batch-coupled
    losses and batch normalisation cannot use (None: when shuffled); drop_last: drop any incomplete batch.
    """
    images, labels = split
    size = number("batch_size", batch_size, 1, integer=True)
    augment = boolean("augment", augment) and images.dim() == 4
    if generator is None:
        if augment:
            fail("augment", "needs random numbers", "pass generator=torch.Generator().manual_seed(seed)")
        order = draws = None
    else:
        n = len(labels)
        order = torch.randperm(n, generator=generator, device=generator.device).to(labels.device)
        if augment:
            high = torch.tensor([2 * padding + 1, 2 * padding + 1, 2], device=generator.device)
            draws = torch.rand(n, 3, generator=generator, device=generator.device, dtype=torch.float64)
            draws = (draws * high).long().to(labels.device)
    drop_single = generator is not None if drop_single is None else boolean("drop_single", drop_single)
    least = size if boolean("drop_last", drop_last) else 1 + drop_single
    splits = replace(splits, mean=splits.mean.to(images.device), std=splits.std.to(images.device))

    def epoch():
        for start in range(0, len(labels), size):
            if min(size, len(labels) - start) < min(least, size):
                return
            rows = slice(start, start + size) if order is None else order[start : start + size]
            x = crop_and_flip(images[rows], draws[rows], padding) if augment else images[rows]
            yield normalize(x, splits), labels[rows]

    return epoch()
