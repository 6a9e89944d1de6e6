"""Your own data: ``"folder:/path"``, ``"npz:/path.npz"`` or ``"module:function"``.

``folder:`` holds ``train/<class>/*.png`` (or jpg) and, if there, ``val/`` and ``test/``
with the same classes: class ids count these in the order of their names, or by value
if all are whole numbers (2 before 10). All images have one size; if any has colours,
all are read as RGB, and transparency is dropped.

``npz:`` (``numpy.savez``) holds ``train_images`` and ``train_labels`` and, better with
than without, ``val_images``, ``val_labels``, ``test_images``, ``test_labels``: uint8
(N, H, W), (N, H, W, C) or (N, C, H, W), or float features (N, D); labels are whole
numbers from 0. ``class_names`` may be there, too.

``module:function`` names a function that takes ``(seed)`` and returns ``Splits``.

A missing ``test`` is a fifth of the training samples, a missing ``val`` a tenth of
them, drawn by the seed. Everything is read and checked before any work; a fingerprint
of the content goes into a run's settings, so a file that changed is another result.
What seems to be meant and would not be read (another kind of image, a part called
``validation``) is refused; samples that are in two parts are told.
"""

import functools
import hashlib
import io
import os
import re
import unicodedata
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from gcelib._check import digests_of_rows, fail, warn
from gcelib.study import functions, places
from gcelib.study.data import download
from gcelib.study.data.sources import Constants, Size, Source
from gcelib.study.data.splits import Array, ArrayPair, Raw, Splits, divide
from gcelib.study.data.units import warn_of_other_unit
from gcelib.study.data.unread import (
    PARTS,
    SUFFIXES,
    is_hidden,
    meant_part,
    refuse_unread,
)

#: Samples in each part: a calibrator cannot be fitted, nor judged, on fewer.
_FEWEST = 10
_MOST_CLASSES = 2**31


@dataclass(frozen=True, eq=False)
class _Found:
    """Your data as it was read and checked, and the fingerprint of its content."""

    raw: Raw
    fingerprint: str
    constants: Constants | None = None
    augment: bool = False


def is_own(name: str) -> bool:
    """Tell whether a data set's name means the user's own data.

    Parameters
    ----------
    name : str
        Any name.

    Returns
    -------
    bool
        By its form alone; the data need not exist.

    Examples
    --------
    >>> is_own("npz:x.npz"), is_own("mine:load"), is_own("cifar10")
    (True, True, False)
    """
    return name.startswith(("folder:", "npz:")) or functions.is_function(name)


def full_name(name: str) -> str:
    """Write the name so that it means the same data in any folder of this machine.

    Parameters
    ----------
    name : str
        One of the three forms.

    Returns
    -------
    str
        With an absolute path.

    Raises
    ------
    ValueError
        If a module is not there.

    Examples
    --------
    >>> full_name("npz:/data/x.npz")
    'npz:/data/x.npz'
    """
    kind, _, place = name.partition(":")
    if kind not in _READERS:
        return functions.full_name("dataset", name)
    if not place:
        fail("dataset", f"{name!r} names no place", f"write {kind}:/path")
    return f"{kind}:{places.full_path(place)}"


def folder_name(name: str) -> str:
    """Name the run folders of your own data: readable, safe, and one for each place.

    Parameters
    ----------
    name : str
        One of the three forms.

    Returns
    -------
    str
        Kind, the last part of the place, and six digits that tell places apart.

    Examples
    --------
    >>> folder_name("npz:/data/my images.npz")
    'npz-my-images-d6437c'
    """
    return folder_of_full_name(full_name(name))


def folder_of_full_name(full: str) -> str:
    """Name the run folders of data that settings name; these need not be here.

    Parameters
    ----------
    full : str
        What ``full_name`` returned, on this machine or another.

    Returns
    -------
    str
        As ``folder_name``.

    Examples
    --------
    >>> folder_of_full_name("folder:/data/my images")
    'folder-my-images-19069d'
    """
    kind, _, place = full.partition(":")
    if kind not in _READERS:
        return functions.folder_name(full)
    return functions.folder_name(full, f"{kind}-{Path(place).stem}")


def source(name: str, seed: int) -> Source:
    """Read and check your own data, and describe it as a row of ``DATASETS`` does.

    Parameters
    ----------
    name : str
        One of the three forms.
    seed : int
        Draws the parts that are missing; handed to ``module:function``.

    Returns
    -------
    Source
        With ``fingerprint``, the SHA-256 of the content.

    Raises
    ------
    ValueError, TypeError
        If the data cannot be used; the message begins with ``dataset:``.
    """
    name = full_name(name)
    kind, _, place = name.partition(":")
    if kind in _READERS:
        found = _READERS[kind](place)
    else:
        found = _read_function(functions.load_function("dataset", name), name, seed)
    raw = _completed(found, seed, name)
    samples = raw.train[0]
    is_table = samples.ndim == 2
    size = Size(len(samples), tuple(samples.shape[1:]), len(raw.class_names))
    return Source(
        lambda folder, seed: raw,
        found.constants,
        augment=found.augment,
        ood=() if is_table else ("noise",),
        size=size,
        is_table=is_table,
        licence="yours",
        fingerprint=found.fingerprint,
    )


def draws_test(name: str) -> bool:
    """Tell whether your own data brings no test part, so that a seed draws it.

    Parameters
    ----------
    name : str
        One of the three forms.

    Returns
    -------
    bool
        False of a function, which gets the seed and returns all parts.
    """
    kind, _, place = full_name(name).partition(":")
    return kind in _READERS and _READERS[kind](place).raw.test is None


def _tell_lacking_classes(
    name: str, train: Array, test: Array | None, class_names: Sequence[str]
) -> None:
    """Warn of classes that the training or the test part has not, or neither.

    Without a test part, which is drawn from the training part then, only of the last.
    """
    n_classes = len(class_names)
    given = [train] if test is None else [train, test]
    together = np.concatenate(given)
    if together.min() < 0 or together.max() >= n_classes:
        return  # refused where labels are checked
    trained, *rest = (np.bincount(y, minlength=n_classes) > 0 for y in given)
    tested = rest[0] if rest else trained
    parts = "whole" if test is None else "training and the test part"
    triples = (
        ("test part", trained & ~tested, "no number is of them"),
        ("training part", tested & ~trained, "they can only be errors"),
        (parts, ~trained & ~tested, "they count among the classes for nothing"),
    )
    for part, lacking, so in triples:
        ids = np.flatnonzero(lacking)
        if len(ids):
            more = f" and of {len(ids) - 1} more" if len(ids) > 1 else ""
            warn(
                f"dataset: the {part} of {name} has no sample of class "
                f"{class_names[ids[0]]!r}{more}, so that {so}; look whether a copy was "
                "broken off"
            )


@functools.lru_cache(maxsize=1)
def _completed(found: _Found, seed: int, name: str) -> Raw:
    """Draw the parts that are missing and refuse parts that are too small."""
    raw = found.raw
    n_all = len(raw.train[1])
    train = raw.train
    test = raw.test
    val = raw.val
    _tell_lacking_classes(
        name, train[1], None if test is None else test[1], raw.class_names
    )
    if test is None:
        train, test = divide(train, n_all / 5, seed)
    if val is None:
        train, val = divide(train, max(n_all / 10, _FEWEST), seed)
    for part, (_, labels) in zip(PARTS, (train, val, test), strict=True):
        if len(labels) < _FEWEST:
            problem = f"{name} has {len(labels)} samples for {part}"
            fail(
                "dataset",
                problem,
                f"bring {_FEWEST} or more for each of train, val, test",
            )
    _warn_of_shared(name, {"train": train, "val": val, "test": test})
    for part, given in (("val", raw.val), ("test", raw.test)):
        if given is not None:
            warn_of_other_unit(f"{part} of {name}", train[0], given[0])
    return Raw(train, val, test, raw.class_names)


#: So many labels that would differ by chance, and do not, tell that samples are copies.
_TELLING = 7
_FEATURES_LOOKED_AT = 100
#: An image of so many different values is no blank one, which others are like.
_VALUES_OF_A_SCENE = 16


def _warn_of_shared(name: str, parts: dict[str, ArrayPair]) -> None:
    """Warn of samples that are in two parts, by their content."""
    for seen, part in (("train", "test"), ("train", "val"), ("val", "test")):
        n = len(parts[part][1])
        shared = _seen_before(parts[seen], parts[part])
        if shared:
            warn(
                f"dataset: {shared:,} of the {n:,} samples for {part} of {name} are "
                f"among those for {seen}, too; what was seen cannot judge"
            )


def _seen_before(seen: ArrayPair, part: ArrayPair) -> int:
    """Count samples of a part that are among those that were seen; 0 if by chance.

    Where most samples are there once, as images, those that are alike are the same.
    Else they are where their labels are, too: copies, as of a scarce class that was
    balanced before the parts were drawn. Of rows of a few values, labels differ; if no
    feature has many, so many must be alike that this would show. Images of many values
    are the same whatever two people called them.
    """
    labels_of: dict[bytes, set[int]] = {}
    pairs = zip(digests_of_rows(seen[0]), seen[1].tolist(), strict=True)
    for content, label in pairs:
        labels_of.setdefault(content, set()).add(label)
    contents = digests_of_rows(part[0])
    n = len(contents)
    known = [labels_of.get(content) for content in contents]
    found = sum(labels is not None for labels in known)
    has_few_values = _has_few_values(seen[0])
    if has_few_values or len({*contents}) < 0.9 * n:
        alike = found
        found = sum(
            labels == {label}
            for labels, label in zip(known, part[1].tolist(), strict=True)
        )
        shares = np.bincount(seen[1]) / len(seen[1])
        would_differ = alike * (1 - np.square(shares).sum())
        if found < 0.99 * alike or (has_few_values and would_differ < _TELLING):
            found = 0
        if part[0].ndim > 2:
            again = zip(part[0], known, strict=True)
            images = [image for image, labels in again if labels is not None]
            n_rich = sum(
                len(np.unique(image)) >= _VALUES_OF_A_SCENE for image in images
            )
            found = max(found, n_rich)
    return found if found > 0.01 * n else 0


def _has_few_values(samples: Array) -> bool:
    """Whether features are rounded so much that rows are alike by chance."""
    if samples.ndim != 2:
        return False
    most = max(len(np.unique(column)) for column in samples.T[:_FEATURES_LOOKED_AT])
    return most < 0.3 * len(samples)


def forget() -> None:
    """Ask the user's function anew at the next look: its files may have changed."""
    _read_function.cache_clear()


# --- folder: --------------------------------------------------------------------------


def _read_folder(place: str) -> _Found:
    """Read a folder of images, again only if a file changed."""
    root = Path(place)
    if not root.is_dir():
        fail(
            "dataset", f"there is no folder {root}", "give its full path after folder:"
        )
    if not (root / "train").is_dir():
        cure = f"put the folders of its classes into {root / 'train'}"
        fail("dataset", f"{root} has no folder train", cure + ": train/<class>/*.png")
    refuse_unread(root)
    files = sorted(
        path
        for part in PARTS
        for path in (root / part).glob("*/*")
        if path.suffix.lower() in SUFFIXES
        and path.is_file()
        and not is_hidden(path.name)
        and not is_hidden(path.parent.name)
    )
    signature = tuple(_version(path.stat()) for path in files)
    return _read_images(root, tuple(files), signature)


def _version(stat: os.stat_result) -> tuple[int, ...]:
    """What differs if a file was written anew, also in the same second."""
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino


@functools.lru_cache(maxsize=1)
def _read_images(root: Path, files: Sequence[Path], signature: object) -> _Found:
    """Decode every image; all in one shape."""
    there = {path.parent.name for path in files if path.parts[-3] == "train"}
    names = _numbered(there)
    _check_classes(str(root), names)
    _check_spellings(root, names)
    digest = hashlib.sha256()
    if names != sorted(there):  # class ids that another version numbered otherwise
        digest.update(b"classes by value\0")
    pictures: dict[str, list[Array]] = {part: [] for part in PARTS}
    labels: dict[str, list[int]] = {part: [] for part in PARTS}
    for path in files:
        part, class_name, _ = path.parts[-3:]
        if class_name not in names:
            problem = f"{path} is of class {class_name!r}, which {root / 'train'} lacks"
            fail("dataset", problem, "use the same class folders in every part")
        content = path.read_bytes()
        digest.update(str(path.relative_to(root)).encode() + b"\0")
        digest.update(hashlib.sha256(content).digest())
        pictures[part].append(_decode(path, content))
        labels[part].append(names.index(class_name))
    everything = [picture for part in PARTS for picture in pictures[part]]
    _check_sizes(files, everything)
    in_colour = any(picture.ndim == 3 for picture in everything)
    pairs = {}
    for part in PARTS:
        if pictures[part]:
            images = np.stack([_channels_first(p, in_colour) for p in pictures[part]])
            pairs[part] = images, np.array(labels[part], np.int64)
    raw = Raw(pairs["train"], pairs.get("val"), pairs.get("test"), names)
    return _Found(raw, digest.hexdigest())


def _check_spellings(root: Path, names: Sequence[str]) -> None:
    """Refuse one class in two folders, as after a merge; tell of capital letters."""
    written: dict[str, str] = {}
    plain: dict[str, str] = {}
    for name in names:
        composed = unicodedata.normalize("NFKC", name).strip()
        value = composed.lstrip("0") or "0" if composed.isdecimal() else composed
        other = written.setdefault(value, name)
        if other != name:
            problem = f"{root} has one class in the folders {other!r} and {name!r}"
            fail("dataset", problem, "put its images into one of them")
        other = plain.setdefault(value.casefold(), name)
        if other != name:
            warn(
                f"dataset: the folders {other!r} and {name!r} count as two classes; "
                "put their images into one of them if they are one"
            )


def _numbered(names: Iterable[str]) -> list[str]:
    """Return class names in the order of their ids: by value if all are numbers."""
    in_order = sorted(names)
    if all(re.fullmatch("[0-9]+", name) for name in in_order):
        in_order.sort(key=int)
    return in_order


def _decode(path: Path, content: bytes) -> Array:
    """Read one image: (H, W) if it is grey, (H, W, 3) if it has colours."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.mode.startswith(("I", "F")) or _has_16_bits(content):
                problem = f"{path} has more than 8 bits a channel (mode {image.mode})"
                fail("dataset", problem, "save 8-bit grey or RGB images")
            grey = image.mode in ("1", "L", "LA", "La")
            return np.asarray(image.convert("L" if grey else "RGB"))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        fail(
            "dataset",
            f"{path} cannot be read as an image ({error})",
            "mend or remove it",
        )


def _has_16_bits(content: bytes) -> bool:
    """Tell whether a PNG has 16 bits a channel; of colours PIL keeps eight."""
    # After the signature and the first chunk's length and name: width, height, depth.
    return content[:8] == b"\x89PNG\r\n\x1a\n" and content[24:25] == b"\x10"


def _check_sizes(files: Sequence[Path], pictures: Sequence[Array]) -> None:
    """Refuse images of different sizes, and more than memory should hold."""
    first = pictures[0].shape[:2]
    for path, picture in zip(files, pictures, strict=True):
        if picture.shape[:2] != first:
            here = "{} x {}".format(*picture.shape[:2])
            problem = (
                f"{path} has {here} pixels, {files[0]} has {first[0]} x {first[1]}"
            )
            fail("dataset", problem, "bring all images to one size")


def _channels_first(picture: Array, in_colour: bool) -> Array:
    """Return an image as (1, H, W), or (3, H, W) where any image has colours."""
    if picture.ndim == 3:
        return picture.transpose(2, 0, 1)
    return np.repeat(picture[None], 3 if in_colour else 1, axis=0)


# --- npz: -----------------------------------------------------------------------------


def _read_npz(place: str) -> _Found:
    """Read a file of arrays, again only if it changed."""
    path = Path(place)
    if not path.is_file():
        fail("dataset", f"there is no file {path}", "give its full path after npz:")
    return _read_arrays(path, _version(path.stat()))


@functools.lru_cache(maxsize=1)
def _read_arrays(path: Path, signature: object) -> _Found:
    """Read and check the arrays of one file."""
    arrays = _arrays(path)
    for name in ("train_images", "train_labels"):
        if name not in arrays:
            there = ", ".join(arrays) or "nothing"
            fail("dataset", f"{path} has no {name}, only {there}", "add this array")
    pairs = _pairs(arrays, path)
    _refuse_misnamed_parts(arrays, pairs, path)
    _tell_unread(arrays, pairs, path)
    names = _class_names(arrays.get("class_names"), pairs["train"][1], path)
    _check_parts_agree(pairs, len(names), path)
    raw = Raw(pairs["train"], pairs.get("val"), pairs.get("test"), names)
    with path.open("rb") as file:
        fingerprint = hashlib.file_digest(file, "sha256").hexdigest()
    return _Found(raw, fingerprint)


def _pairs(arrays: dict[str, Array], path: Path) -> dict[str, ArrayPair]:
    """Return the samples and labels of each part that is there, checked alone."""
    pairs: dict[str, ArrayPair] = {}
    for part in PARTS:
        images = arrays.get(f"{part}_images")
        labels = arrays.get(f"{part}_labels")
        if (images is None) != (labels is None):
            problem = f"{path} has only one of {part}_images and {part}_labels"
            fail("dataset", problem, "add the other, or leave both out")
        if images is not None and labels is not None:
            samples = _samples(f"{part}_images", images, path)
            pairs[part] = samples, _labels(f"{part}_labels", labels, len(samples), path)
    return pairs


def _refuse_misnamed_parts(
    arrays: dict[str, Array], pairs: dict[str, ArrayPair], path: Path
) -> None:
    """Refuse arrays that seem to be a part for which another one would be drawn."""
    for name in arrays:
        meant = meant_part(name)
        if meant is not None and meant not in pairs:
            cure = f"call them {meant}_images and {meant}_labels"
            fail("dataset", f"{name!r} in {path} is not read", cure)


def _tell_unread(
    arrays: dict[str, Array], pairs: dict[str, ArrayPair], path: Path
) -> None:
    """Warn of arrays that are not read and have the shape of samples: shards."""
    read = {f"{part}_images" for part in pairs}
    shape = arrays["train_images"].shape[1:]
    unread = [
        name
        for name, array in arrays.items()
        if name not in read and array.ndim > 1 and array.shape[1:] == shape
    ]
    if unread:
        shown = ", ".join(map(repr, unread[:3]))
        warn(
            f"dataset: {shown} in {path} have the shape of samples and are not read; "
            "join them to train_images or test_images (numpy.concatenate), labels too, "
            "if they are more of these"
        )


def _check_parts_agree(pairs: dict[str, ArrayPair], n_classes: int, path: Path) -> None:
    """Refuse parts whose samples have another shape, or labels other classes."""
    shape = pairs["train"][0].shape[1:]
    for part, (samples, labels) in pairs.items():
        if samples.shape[1:] != shape:
            problem = (
                f"{part}_images in {path} are {samples.shape[1:]}, train_images {shape}"
            )
            fail("dataset", problem, "bring all samples to one shape")
        if labels.max() >= n_classes:
            problem = (
                f"{part}_labels in {path} contain {labels.max()}, outside [0, "
                f"{n_classes})"
            )
            cure = "class ids count from 0, and train has samples of each"
            fail("dataset", problem, cure)


def _arrays(path: Path) -> dict[str, Array]:
    """Read every array; nothing is unpickled, and no file may expand for ever."""
    cure = "write it with numpy.savez(path, train_images=..., train_labels=...)"
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            names = [member.filename for member in members]
            size = sum(member.file_size for member in members)
        if len({*names}) < len(names):
            fail("dataset", f"{path} holds an array twice", "write each of them once")
        if size > download.MAX_BYTES:
            fail(
                "dataset",
                f"{path} would expand to {size:,} bytes",
                "use less than 4 GiB",
            )
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except Exception as error:  # a damaged file makes numpy and zipfile raise all sorts
        if str(error).startswith("dataset: "):
            raise
        if "Object arrays" in str(error):
            fail(
                "dataset", f"{path} holds Python objects", "save plain numbers (astype)"
            )
        fail("dataset", f"{path} is no whole .npz file ({error})", cure)


def _samples(name: str, images: Array, path: Path) -> Array:
    """Return uint8 images as (N, C, H, W), features as float32 (N, D)."""
    what = f"{name} in {path}"
    if images.ndim == 2 and images.dtype.kind in "fiu":
        return _features(what, images)
    if images.ndim not in (3, 4):
        forms = "(N, H, W), (N, H, W, C), (N, C, H, W) or features (N, D)"
        fail("dataset", f"{what} have shape {images.shape}", f"write {forms}")
    if images.dtype != np.uint8:
        cure = "write pixels from 0 to 255: astype(numpy.uint8) if they are, of floats "
        cure += "in [0, 1] (255 * x).round().astype(numpy.uint8)"
        fail("dataset", f"{what} have dtype {images.dtype}", cure)
    if images.ndim == 3:
        return images[:, None]
    _, a, b, c = images.shape
    if a < b and a < c:
        return images
    if c < a and c < b:
        return images.transpose(0, 3, 1, 2)
    problem = (
        f"{what} have shape {images.shape}, and no axis is clearly that of the channels"
    )
    fail(
        "dataset", problem, "write (N, C, H, W) with fewer channels than pixels a side"
    )


#: Beyond it squares of float32 would overflow.
_LARGEST = 1e18


def _features(what: str, values: Array) -> Array:
    """Return features as float32, if that keeps what there is to see in them."""
    bad = ~np.isfinite(values)
    if bad.any():
        row = int(np.argwhere(bad)[0, 0])
        problem = f"{what} contain NaN or infinity, first in row {row}"
        fail("dataset", problem, "fill the hole or leave the sample out")
    wide = values.astype(np.float64)
    largest = float(np.abs(wide).max(initial=0))
    if largest > _LARGEST:
        fail("dataset", f"{what} reach to {largest:.3g}", "divide them by a constant")
    features = values.astype(np.float32)
    if len(wide):
        spread = wide.std(0)
        varies = spread > 1e-12 * np.abs(wide).max(0)  # less is dust of float64
        rounding = np.abs(features - wide).max(0)
        coarse = np.flatnonzero(varies & (rounding > 0.01 * spread))
        if len(coarse):
            problem = f"{what} vary by less than float32 can tell in column {coarse[0]}"
            fail("dataset", problem, "subtract the mean of the column")
    return features


def _labels(name: str, labels: Array, n: int, path: Path) -> Array:
    """Return labels as int64 (N,), from 0 upwards."""
    what = f"{name} in {path}"
    if labels.dtype.kind not in "iu":
        cure = "write whole numbers from 0 (astype(int))"
        fail("dataset", f"{what} have dtype {labels.dtype}", cure)
    if labels.shape != (n,):
        problem = f"{what} have shape {labels.shape} for {n} samples"
        fail("dataset", problem, "write one label for each sample")
    if not n:
        fail("dataset", f"{what} are empty", "leave the part out, then it is drawn")
    bad = labels[(labels < 0) | (labels >= _MOST_CLASSES)]
    if len(bad):
        problem = f"{what} contain {bad[0]}"
        fail("dataset", problem, "class ids count from 0 to K - 1")
    return labels.astype(np.int64)


def _class_names(names: Array | None, labels: Array, path: Path) -> list[str]:
    """Return the classes' names; without any, their numbers, of which none may lack."""
    if names is not None:
        if names.ndim != 1 or names.dtype.kind != "U":
            problem = f"class_names in {path} are no list of texts"
            fail("dataset", problem, "write numpy.array(['cat', 'dog'])")
        found = [str(name) for name in names]
    else:
        there = np.unique(labels)
        if len(there) != there[-1] + 1:
            missing = next(k for k, found_k in enumerate([*there, -1]) if k != found_k)
            problem = (
                f"train_labels in {path} reach to {there[-1]} but lack class {missing}"
            )
            fail("dataset", problem, "number the classes from 0 without gaps")
        found = [str(k) for k in there]
    _check_classes(str(path), found)
    return found


def _check_classes(place: str, names: Sequence[str]) -> None:
    """Refuse fewer than two classes, and two of one name."""
    if len(names) < 2:
        only = f"only {names[0]!r}" if names else "none with an image in train"
        fail(
            "dataset",
            f"{place} has fewer than two classes, {only}",
            "bring two or more",
        )
    for name in names:
        if names.count(name) > 1:
            fail("dataset", f"{place} has two classes {name!r}", "name them apart")


# --- module:function ------------------------------------------------------------------


@functools.lru_cache(maxsize=1)
def _read_function(function: Callable[[int], object], name: str, seed: int) -> _Found:
    """Call the user's function and check what it returns."""
    splits = function(seed)
    if not isinstance(splits, Splits):
        problem = f"{name} returned {type(splits).__name__}"
        fail("dataset", problem, "return gcelib.data.Splits", TypeError)
    digest = hashlib.sha256(repr((splits.class_names, splits.augment)).encode())
    pairs = []
    for part in PARTS:
        samples, labels = getattr(splits, part)
        _check_part(f"{part} of {name}", samples, labels, splits)
        pairs.append((samples.numpy(), labels.numpy()))
        for array in pairs[-1]:
            digest.update(repr((array.shape, array.dtype.str)).encode())
            digest.update(np.ascontiguousarray(array).data)
    n_channels = splits.input_shape[0]
    constants = []
    for which in ("mean", "std"):
        values = torch.as_tensor(getattr(splits, which))
        if tuple(values.shape) != (n_channels,) or not bool(values.isfinite().all()):
            problem = f"{which} of {name} has shape {tuple(values.shape)}"
            fail("dataset", problem, f"give {n_channels} finite numbers")
        constants.append(tuple(values.tolist()))
    _check_constants(name, *constants, is_image=len(splits.input_shape) == 3)
    digest.update(repr(constants).encode())
    train, val, test = pairs
    raw = Raw(train, val, test, splits.class_names)
    return _Found(raw, digest.hexdigest(), Constants(*constants), bool(splits.augment))


def _check_constants(
    name: str, mean: Sequence[float], std: Sequence[float], *, is_image: bool
) -> None:
    """Refuse what divides by zero, or was measured on pixels that are not in [0, 1].

    A standard deviation of 1, twice the largest of such pixels, leaves them as wide as
    they are.
    """
    if min(std) <= 0:
        fail("dataset", f"std of {name} contains {min(std):g}", "give 1 to divide by")
    if is_image and (min(mean) < 0 or max(mean) > 1 or max(std) > 1):
        problem = f"mean and std of {name} reach to {max(*mean, *std):g}"
        if min(mean) < 0:
            problem = f"mean of {name} contains {min(mean):g}"
        cure = "give those of pixels in [0, 1], which they are scaled to: divide by 255"
        fail("dataset", problem, cure)


def _check_part(
    what: str, samples: torch.Tensor, labels: torch.Tensor, splits: Splits
) -> None:
    """Refuse a part that training could not use."""
    for tensor in (samples, labels):
        if not isinstance(tensor, torch.Tensor) or tensor.device.type != "cpu":
            fail(
                "dataset",
                f"{what} is no pair of CPU tensors",
                "return tensors",
                TypeError,
            )
    is_image = samples.dtype == torch.uint8 and samples.ndim == 4
    is_table = samples.dtype == torch.float32 and samples.ndim == 2
    if not is_image and not is_table:
        problem = f"{what} has samples of {samples.dtype}, shape {tuple(samples.shape)}"
        fail("dataset", problem, "return uint8 (N, C, H, W) or float32 (N, D)")
    if tuple(samples.shape[1:]) != tuple(splits.input_shape):
        problem = f"{what} has samples {tuple(samples.shape[1:])}, not input_shape"
        fail("dataset", problem, f"make them {tuple(splits.input_shape)}")
    if labels.dtype != torch.int64 or tuple(labels.shape) != (len(samples),):
        problem = f"{what} has labels of {labels.dtype}, shape {tuple(labels.shape)}"
        fail("dataset", problem, f"return int64 labels ({len(samples)},)")
    n_classes = len(splits.class_names)
    if splits.n_classes != n_classes or n_classes < 2:
        problem = f"{what}: {splits.n_classes} classes and {n_classes} class_names"
        fail("dataset", problem, "name each of two or more classes")
    if len(labels) and (int(labels.min()) < 0 or int(labels.max()) >= n_classes):
        problem = f"{what} has labels from {int(labels.min())} to {int(labels.max())}"
        fail("dataset", problem, f"class ids lie in [0, {n_classes})")
    if is_table and not bool(samples.isfinite().all()):
        fail("dataset", f"{what} contains NaN or infinity", "leave those samples out")


_READERS: dict[str, Callable[[str], _Found]] = {
    "folder": _read_folder,
    "npz": _read_npz,
}
