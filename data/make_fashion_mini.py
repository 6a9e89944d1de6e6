"""Make fashion_mini.npz from the four original Fashion-MNIST files (gzipped IDX).

    python data/make_fashion_mini.py FOLDER [OUTPUT]

FOLDER holds train-images-idx3-ubyte.gz and its three companions, for example
- data/FashionMNIST/raw, after ``gcelib.data.load("fashion_mnist")`` or torchvision's ``FashionMNIST(download=True)``;
- /usr/share/datasets/fashion-mnist, from Debian's package dataset-fashion-mnist.
Both hold the same images (their gzip headers differ), and the content is checked before use. The choice is fixed: 600
training and 400 test images of each class, drawn with seed 0 and kept in their original order.
"""

import sys
from pathlib import Path

import numpy as np

from gcelib.data import DATA_DIR, fashion_mini_hash, read_fashion_mnist


def choose(images, labels, per_class, rng):
    """``per_class`` random images of each class, in their original order."""
    chosen = [rng.permutation(np.flatnonzero(labels == k))[:per_class] for k in range(10)]
    chosen = np.sort(np.concatenate(chosen))
    return images[chosen], labels[chosen]


def main(folder, output=DATA_DIR / "fashion_mini.npz"):
    rng = np.random.default_rng(0)
    arrays = [*choose(*read_fashion_mnist(folder, "train"), 600, rng)]
    arrays += choose(*read_fashion_mnist(folder, "t10k"), 400, rng)
    names = ["train_images", "train_labels", "test_images", "test_labels"]
    np.savez_compressed(output, **dict(zip(names, arrays, strict=True)))
    print(f"{output}: {Path(output).stat().st_size:,} bytes, content SHA-256 {fashion_mini_hash(*arrays)}")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(*map(Path, sys.argv[1:]))
