"""Make fashion_mini.npz from the four original Fashion-MNIST files (gzipped IDX).

    python data/make_fashion_mini.py FOLDER [OUTPUT]

FOLDER holds train-images-idx3-ubyte.gz and its three companions, for example
- data/FashionMNIST/raw, after gcelib.data.load("fashion_mnist") or torchvision's FashionMNIST("data", download=True);
- /usr/share/datasets/fashion-mnist, from Debian's package dataset-fashion-mnist.
Both hold the same images; only their gzip headers differ. The choice is fixed: 600 training and 400 test images of each
class, drawn with seed 0 and kept in their original order. The result is refused if its content is not the one that
gcelib expects, so wrong originals cannot slip in.
"""

import sys
from pathlib import Path

import numpy as np

from gcelib.data import EMBEDDED, FASHION_MINI_SHA256, fashion_mini_hash, read_idx


def choose(images, labels, per_class, rng):
    """``per_class`` random images of each class, in their original order."""
    chosen = [rng.permutation(np.flatnonzero(labels == k))[:per_class] for k in range(10)]
    chosen = np.sort(np.concatenate(chosen))
    return images[chosen], labels[chosen]


def main(folder, output=EMBEDDED / "fashion_mini.npz"):
    rng, arrays = np.random.default_rng(0), []
    for part, per_class in (("train", 600), ("t10k", 400)):
        images, labels = (read_idx(Path(folder) / f"{part}-{kind}-ubyte.gz") for kind in ("images-idx3", "labels-idx1"))
        arrays += choose(images, labels, per_class, rng)
    if fashion_mini_hash(arrays) != FASHION_MINI_SHA256:
        sys.exit(f"{folder}: these are not the original files (content SHA-256 {fashion_mini_hash(arrays)})")
    names = ["train_images", "train_labels", "test_images", "test_labels"]
    np.savez_compressed(output, **dict(zip(names, arrays, strict=True)))
    print(f"{output}: {Path(output).stat().st_size:,} bytes, content SHA-256 {FASHION_MINI_SHA256}")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(*map(Path, sys.argv[1:]))
