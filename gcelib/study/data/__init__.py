"""Data sets as plain tensors: ``load(name, seed)``.

A row a data set is in ``sources``, your own data in ``own``; ``data/README.md`` tells
each one's source, licence and steps.
"""

from gcelib.study.data.batches import batches, crop_and_flip, normalize
from gcelib.study.data.loading import load, load_as_described, parent, source_of
from gcelib.study.data.long_tails import long_tail_counts
from gcelib.study.data.ood import CORRUPTIONS, Corruption, check_ood, load_ood
from gcelib.study.data.sources import (
    CIFAR,
    DATASETS,
    DIGITS,
    FASHION,
    FASHION_NAMES,
    IMAGENET,
    Size,
    Source,
)
from gcelib.study.data.splits import Raw, Splits

__all__ = [
    "CIFAR",
    "CORRUPTIONS",
    "DATASETS",
    "DIGITS",
    "FASHION",
    "FASHION_NAMES",
    "IMAGENET",
    "Corruption",
    "Raw",
    "Size",
    "Source",
    "Splits",
    "batches",
    "check_ood",
    "crop_and_flip",
    "load",
    "load_as_described",
    "load_ood",
    "long_tail_counts",
    "normalize",
    "parent",
    "source_of",
]
