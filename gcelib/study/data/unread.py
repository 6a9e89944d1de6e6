"""What in a folder of the user's would not be read, though it seems to be meant.

``train/<class>/*.png`` (or jpg), ``val/`` and ``test/`` are read. Images that lie
elsewhere, or are of another kind, are refused: to leave them out in silence would lose
samples, or draw a test from those for training. Text files and what file managers leave
behind are nobody's sample.
"""

import re
from pathlib import Path

from gcelib._check import fail, warn

PARTS = ("train", "val", "test")
#: Of images that are read.
SUFFIXES = (".png", ".jpg", ".jpeg")
#: Images that are text, or of which a short one may look like it.
_IMAGES_LIKE_TEXT = (".bmp", ".gif", ".ppm", ".pgm", ".pbm", ".xbm", ".svg", ".tga")
#: Files beside images that are not text and no images either.
_NO_IMAGES = (
    *(".txt", ".csv", ".tsv", ".json", ".xml", ".md", ".yaml", ".yml", ".log"),
    *(".xls", ".xlsx", ".ods", ".doc", ".docx", ".pdf", ".db", ".ini"),
)
#: What people call the parts, when the word stands alone or before one of `_OF_A_PART`.
_MEANT = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
    "holdout": "test",
}
#: Endings of files that may hold a part which was not unpacked.
_PACKED = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar")
_OF_A_PART = "(s|set|sets|data|image|images|img|imgs|split|part|folder)?"


def meant_part(name: str) -> str | None:
    """Tell which part a name seems to mean.

    Parameters
    ----------
    name : str
        Of a folder or an array.

    Returns
    -------
    "train", "val", "test" or None

    Examples
    --------
    >>> meant_part("Test set"), meant_part("val_images2"), meant_part("hold-out")
    ('test', 'val', 'test')
    >>> meant_part("values"), meant_part("devices")
    (None, None)
    """
    joined = re.sub("hold[-_ ]out", "holdout", name.casefold())
    for word in re.split(r"[^a-z]+", joined):
        for start, part in _MEANT.items():
            if re.fullmatch(start + _OF_A_PART, word):
                return part
    return None


def is_hidden(name: str) -> bool:
    """Tell whether a name is one that programs keep for themselves.

    Parameters
    ----------
    name : str
        Of a file or folder.

    Returns
    -------
    bool

    Examples
    --------
    >>> is_hidden(".DS_Store")
    True
    """
    return name.startswith((".", "__MACOSX"))


def refuse_unread(root: Path) -> None:
    """Refuse what seems to be a part, a class or an image, and would not be read.

    Parameters
    ----------
    root : Path
        The folder that holds ``train``.

    Raises
    ------
    ValueError
        If an image would be left out, or a part that is there is empty, or a part or a
        class is a link to nothing or an archive.

    Warns
    -----
    UserWarning
        If other folders with images lie beside the parts, and may be one of them.
    """
    _refuse_other_parts(root)
    for part in PARTS:
        if not (root / part).is_dir():
            continue
        for entry in _shown(root / part):
            _refuse_lost_link(entry)
            if entry.is_dir():
                _refuse_unread_images(entry, is_train=part == "train")
            elif _may_be_image(entry):
                cure = f"put it into {root / part}/<class>, or move it away"
                fail("dataset", f"{entry} lies in no folder of a class", cure)
        if part != "train" and not _holds_images(root / part):
            cure = "fill it, or remove it, and it is drawn from train"
            fail("dataset", f"{root / part} holds no png or jpg", cure)


def _shown(folder: Path) -> list[Path]:
    """What is in a folder, but for what programs keep for themselves, in order."""
    return sorted(path for path in folder.iterdir() if not is_hidden(path.name))


def _refuse_other_parts(root: Path) -> None:
    """Refuse a folder that seems to be a missing part, and tell of other images."""
    told = []
    for entry in _shown(root):
        if not entry.is_dir():
            _refuse_part_that_is_a_file(entry)
            continue
        if entry.name in PARTS:
            continue
        name = entry.name.casefold()
        meant = meant_part(name)
        is_exactly_one = name in PARTS or name in _MEANT
        if not is_exactly_one and not _holds_images(entry):
            continue
        if meant and (is_exactly_one or not (root / meant).is_dir()):
            cure = f"call it {meant}, or move it away"
            fail("dataset", f"{entry} is not read", cure)
        if meant or not (root / "test").is_dir():
            told.append(entry.name)
    if told:
        names = ", ".join(told[:4])
        warn(
            f"dataset: folders with images beside {root / 'train'} are not read: "
            f"{names}; the parts are called train, val and test"
        )


def _refuse_part_that_is_a_file(entry: Path) -> None:
    """Refuse a link to nothing, or a file, where a part is missing that it seems to be.

    Another part would be drawn from train in its place.
    """
    name = entry.name.casefold()
    plain = name
    while plain.endswith(_PACKED):
        plain = plain.rpartition(".")[0]
    meant = _MEANT.get(plain)
    if name != plain or entry.is_symlink():
        meant = meant_part(plain)
    if meant is None or (entry.parent / meant).is_dir():
        return
    _refuse_lost_link(entry)
    cure = f"make it the folder {meant}, or move it away"
    fail("dataset", f"{entry} is no folder", cure)


def _refuse_lost_link(entry: Path) -> None:
    """Refuse a link that leads nowhere, also one that was written down as text."""
    cure = "mend the link, or remove it"
    if entry.is_symlink() and not entry.exists():
        fail("dataset", f"{entry} is a link to nothing that can be read", cure)
    if entry.suffix or not entry.is_file() or entry.stat().st_size > 4096:
        return
    words = entry.read_bytes().decode("utf-8", "replace").split()
    if len(words) == 1 and "/" in words[0]:
        fail("dataset", f"{entry} is a file that holds a path, as of a link", cure)


def _holds_images(folder: Path) -> bool:
    """Tell whether a folder, or one in it, holds an image of any kind."""
    for path in _shown(folder):
        inside = _shown(path) if path.is_dir() else [path]
        if any(not file.is_dir() and _may_be_image(file) for file in inside):
            return True
    return False


def _refuse_unread_images(folder: Path, is_train: bool) -> None:
    """Refuse a class's folder of which some or all images would be left out."""
    there = _shown(folder)
    for path in there:
        if path.is_dir():
            cure = f"put its images into {folder}, or move it away"
            fail("dataset", f"{path} is a folder in the folder of a class", cure)
        if path.suffix.lower() in SUFFIXES:
            if not path.is_file():
                fail("dataset", f"{path} cannot be read as a file", "mend its link")
        elif _may_be_image(path):
            cure = "convert such images to png, or move them away"
            fail("dataset", f"{path} is neither png nor jpg", cure)
    if is_train and not any(path.suffix.lower() in SUFFIXES for path in there):
        fail("dataset", f"{folder} holds no png or jpg", "fill or remove it")


def _may_be_image(path: Path) -> bool:
    """Tell whether a file may be an image of any kind: all that is not text may."""
    suffix = path.suffix.lower()
    if suffix in _NO_IMAGES:
        return False
    if suffix in (*SUFFIXES, *_IMAGES_LIKE_TEXT):
        return True
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return b"\0" in file.read(4096)
