"""Make fashion_mini.npz from the four original Fashion-MNIST files (gzipped IDX).

    python data/make_fashion_mini.py FOLDER OUTPUT.npz

FOLDER holds train-images-idx3-ubyte.gz and its three companions, for example -
data/FashionMNIST/raw, after gcelib.data.load("fashion_mnist") or torchvision's
FashionMNIST("data", download=True); - /usr/share/datasets/fashion-mnist, from Debian's
package dataset-fashion-mnist. Both hold the same images; only their gzip headers
differ. The choice is fixed: 600 training and 400 test images of each class, drawn with
seed 0 and kept in their original order. The same zlib gives the same bytes, and the MD5
printed at the end is the one in gcelib/study/data/sources.py; another zlib may pack the
same content into other bytes.
"""

import hashlib
import sys
from pathlib import Path

import numpy as np

from gcelib.study.data.download import read_idx
from gcelib.study.data.sources import FASHION_MINI_MD5
from gcelib.study.data.splits import Array


def choose(
    images: Array, labels: Array, per_class: int, rng: np.random.Generator
) -> tuple[Array, Array]:
    """``per_class`` random images of each class, in their original order."""
    chosen = [
        rng.permutation(np.flatnonzero(labels == k))[:per_class] for k in range(10)
    ]
    chosen = np.sort(np.concatenate(chosen))
    return images[chosen], labels[chosen]


def main(folder: str | Path, output: str | Path) -> None:
    """Choose the images and write the file."""
    rng, arrays = np.random.default_rng(0), []
    for part, per_class in (("train", 600), ("t10k", 400)):
        images, labels = (
            read_idx(Path(folder) / f"{part}-{kind}-ubyte.gz")
            for kind in ("images-idx3", "labels-idx1")
        )
        arrays += choose(images, labels, per_class, rng)
    names = ["train_images", "train_labels", "test_images", "test_labels"]
    np.savez_compressed(output, **dict(zip(names, arrays, strict=True)))
    content = Path(output).read_bytes()
    checksum = hashlib.md5(content, usedforsecurity=False).hexdigest()
    same = (
        "the committed file"
        if checksum == FASHION_MINI_MD5
        else f"not the bytes of {FASHION_MINI_MD5}"
    )
    print(f"{output}: {len(content):,} bytes, MD5 {checksum}, {same}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
