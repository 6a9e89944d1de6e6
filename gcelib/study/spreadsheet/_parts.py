"""Columns that say which samples a model has seen, in whatever words people use."""

import re
from collections.abc import Collection
from typing import Literal

from gcelib.study.spreadsheet._words import YES_OR_NO, plain_name

#: How sure it is that a column says it.
Evidence = Literal["sure", "perhaps", "none"]

#: Columns of so few values may say which part a sample belongs to.
_MOST_PARTS = 10
_ENDINGS = (
    r"(test|set|data|samples?|part|out|cohort|group|split|fold|phase|period|stichprobe"
    r"|\d)*"
)
#: What people call the part that a model has seen, and the others; without marks.
_SEEN = re.compile(
    rf"(train\w*|trn|insample|derivation|pretrain\w*|finetune\w*){_ENDINGS}"
)
_UNSEEN = re.compile(
    r"(test\w*|val|valid|validate|validation|validierung|cal|calib|calibration"
    rf"|kalibrierung|dev|tst|eval|evaluation|holdout|heldout|oos|ood|outofsample)"
    rf"{_ENDINGS}"
)
#: Words that may mean something else, too.
_PERHAPS_SEEN = re.compile(
    r"(tr|ins|fit|fitting|seen|learn|learning|lern|internal|discovery|estimation|build"
    r"|modell?ing|development|labeled|entrenamiento|treino|apprentissage"
    rf"|addestramento){_ENDINGS}"
)
_PERHAPS_UNSEEN = re.compile(
    r"(te|oot|hold|unseen|external|replication|publictest|privatetest|prueba|teste"
    rf"|prova){_ENDINGS}"
)
_PART = (
    r"(?:train|training|trained|trn|test|testing|tst|val|validation|dev|cal|calib"
    r"|calibration|eval|evaluation|hold_?out|held_?out|oof|in_?sample|memori[sz]ed)"
    r"(?:_?(?:set|data|samples?|on|split|part|fold|row))?"
)
#: Names of a column that says of each sample whether it is in a part.
_IN_PART = re.compile(
    rf"(?:(?:is|in|of|for|used|was|split|set|dataset)_?)+{_PART}"
    r"|training|trained_on|(?:in|out_of)_?bag|oob|oof|hold_?out|held_?out"
    r"|(?:test|val|dev|eval)_?(?:set|split|part|fold|row|mask|flag|idx|ind)"
    r"|(?:.+_)?(?:train|training|trn|holdout|oos)_.+"
    r"|.+_(?:train|training|trn|holdout|oos)"
)
_PERHAPS_IN_PART = re.compile(
    r"(?:is_?)?(?:valid|member|seen|unseen|fit|fitted|trained|external|development)"
    r"|test|(?:has_)?train"
)
_OF_TRAINING = re.compile(
    r"train|trn|in_?sample|in_?bag|memori[sz]ed|(?<!un)seen|fit|member"
)
_PATH = re.compile(r"[/\\]|\.\w{1,5}$")


def evidence(name: str, values: Collection[str], *, has_holes: bool) -> Evidence:
    """How sure it is that a column tells training samples from others.

    ``values`` are those that occur, written small. With two parts in it, as ``train``
    and ``cal`` beside any others, it is sure; a single word, as in ``control`` and
    ``test``, may mean another thing. A column of one value parts nothing, unless all
    has been seen.
    """
    if not values:
        return "none"
    if {*values} <= {*YES_OR_NO, "x"}:
        return _by_name(plain_name(name), values, has_holes)
    if len(values) <= _MOST_PARTS:
        found = _by_words(values, has_holes)
        if found != "none":
            return found
    return "sure" if _are_in_parts(values) else "none"


def says_seen(name: str, value: str) -> bool:
    """Whether a cell of such a column says that the model has seen the sample."""
    if value in YES_OR_NO or value == "x":
        is_of_training = _OF_TRAINING.search(plain_name(name)) is not None
        return is_of_training and YES_OR_NO.get(value, True)
    word = re.sub(r"[\W_]+", "", value)
    if _SEEN.fullmatch(word) or _PERHAPS_SEEN.fullmatch(word):
        return True
    return _place(value) == (True, False)


def _by_name(plain: str, values: Collection[str], has_holes: bool) -> Evidence:
    """What a column of yes and no says by its name."""
    is_mixed = len(values) > 1 or has_holes
    if not is_mixed:
        (value,) = values
        if not YES_OR_NO.get(value, True) or "train" not in plain:
            return "none"
    plain = re.sub(r"\W+", "_", plain).strip("_")
    if _PERHAPS_IN_PART.fullmatch(plain):
        return "perhaps" if is_mixed else "none"
    return "sure" if _IN_PART.fullmatch(plain) else "none"


def _by_words(values: Collection[str], has_holes: bool) -> Evidence:
    """What a column of a few words says."""
    words = [re.sub(r"[\W_]+", "", value) for value in values]
    n_seen, n_unseen, n_perhaps_seen, n_perhaps_unseen = (
        sum(pattern.fullmatch(word) is not None for word in words)
        for pattern in (_SEEN, _UNSEEN, _PERHAPS_SEEN, _PERHAPS_UNSEEN)
    )
    if len(words) == 1 and not has_holes:
        return "sure" if n_seen else "none"
    is_other = n_unseen or n_perhaps_unseen or has_holes
    if (n_seen and is_other) or (n_perhaps_seen and n_unseen):
        return "sure"
    if n_unseen >= 2 or (n_unseen and has_holes):
        return "sure"
    if _are_in_parts(values, are_texts=False):
        return "sure"
    if len(words) == 2 and (n_seen or n_unseen):
        return "perhaps"
    return "perhaps" if n_perhaps_seen and n_perhaps_unseen else "none"


def _are_in_parts(values: Collection[str], *, are_texts: bool = True) -> bool:
    """Whether paths and names lead into parts: ``train/7.png``, ``test-00003``.

    A text of several words may hold such words by chance.
    """
    kinds = set()
    for value in values:
        if are_texts and " " in value.strip() and not _PATH.search(value):
            return False
        kinds.add(_place(value))
    return {(True, False), (False, True)} <= kinds


def _place(value: str) -> tuple[bool, bool]:
    """Whether a path or name leads to samples of training, and to others."""
    words = re.findall(r"[^\W\d_]+", value)
    is_seen = any(word.startswith("train") or word == "trn" for word in words)
    others = ("test", "valid", "holdout")
    is_other = any(w.startswith(others) or w in ("val", "dev", "eval") for w in words)
    return is_seen, is_other
