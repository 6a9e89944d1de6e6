"""What people call the columns of a table, and what they write into its cells."""

import difflib
import math
import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import NamedTuple

from gcelib.study import files

#: Names of a column, written small with "_" for spaces; the first one is ours.
NAMES = {
    "split": ("split", "subset", "partition"),
    "label": (
        "label",
        "labels",
        "true_label",
        "true_class",
        "target",
        "targets",
        "y_true",
        "y",
        "truth",
        "ground_truth",
        "actual",
    ),
    "prediction": (
        "prediction",
        "predictions",
        "pred",
        "preds",
        "pred_label",
        "predicted",
        "predicted_label",
        "predicted_class",
        "pred_class",
        "y_pred",
    ),
    "confidence": (
        "confidence",
        "confidences",
        "conf",
        "score",
        "probability",
        "prob",
        "max_prob",
        "max_probability",
        "confidence_score",
    ),
    "correct": ("correct", "is_correct", "hit", "right"),
}
ROLE_OF = {name: role for role, names in NAMES.items() for name in names}
#: Names that could be two columns, and how to tell which.
TWOFOLD = {
    "class": "name it label (the true class) or prediction",
    "category": "name it label (the true class) or prediction",
    "outcome": "name it label (the true class) or correct",
}
#: Beginnings of the names of score columns, and what such scores are. ``score`` is no
#: key: it does not say it, and is refused.
KINDS = {
    "logit": "logits",
    "prob": "probabilities",
    "probability": "probabilities",
    "p": "probabilities",
}
_SCORES = re.compile(
    r"(?P<start>logit|prob|probability|p|score)s?_(?P<ending>.+)"
    r"|(?P<bare_start>logit|prob)s?(?P<number>\d+)"
)
#: What stands where nothing is known.
NOTHING = {
    *("", "?", "-", ".", "na", "n/a", "#n/a", "nan", "none", "null", "missing"),
    *("n.a.", "n. a.", "k.a.", "k. a.", "keine angabe", "s/d"),
    r"\n",  # of MySQL, written small
}
#: What of it no class is called.
NEVER_A_CLASS = NOTHING - {"none", "missing"}
#: What a spreadsheet shows where a formula failed, in any language: ``#REF!``,
#: ``#NAME?``, ``#DIV/0!``, LibreOffice's ``Err:502``.
ERROR_VALUE = re.compile(
    r"#[^\s#]+[!?]|#n/[ad]|#nv|#getting_data|err:\d{3}", re.IGNORECASE
)
#: Words for no class without marks: nobody has named it, or a model has not answered.
NO_CLASS_WORDS = {
    *("unlabelled", "unlabeled", "notlabelled", "notlabeled", "nolabel", "unannotated"),
    *("unknown", "unk", "void", "ignore", "ignored", "ignoreindex", "dontcare"),
    *("undefined", "unclassified", "unassigned", "noclass", "noprediction"),
    *("unsure", "notsure", "uncertain", "undecided", "unclear", "indeterminate"),
    *("abstain", "abstained", "abstention", "reject", "rejected", "refuse", "refused"),
    *(
        "refusal",
        "noanswer",
        "unanswered",
        "dontknow",
        "idontknow",
        "idk",
        "cannottell",
    ),
    *("canttell", "cannotsay", "cannotanswer", "skip", "skipped", "invalid", "error"),
    *("failed", "failure", "timeout", "parseerror", "unparsable", "unparseable"),
}
SPLITS = {
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "cal": "val",
    "calib": "val",
    "calibration": "val",
    "test": "test",
}
YES_OR_NO = {
    "true": True,
    "false": False,
    "yes": True,
    "no": False,
    "1": True,
    "0": False,
    "t": True,
    "f": False,
    "y": True,
    "n": False,
    "1.0": True,
    "0.0": False,
}
#: Names of a column that says when in its training a model said this.
EPOCHS = {"epoch", "step", "global_step", "iteration", "iter"}
#: Names of a column that says which model a line is from.
MODELS = {
    *("model", "method", "network", "checkpoint", "ckpt", "run", "seed", "prompt"),
    *("variant", "experiment", "loss", "algorithm", "system"),
}
#: Names of a column that numbers the classes of one sample by their probability.
RANKS = {"rank", "k", "topk", "top_k", "top", "nth", "place"}
#: Parts of a name: numbers, with marks of thousands or decimals, and other characters.
#: ``(1,100)`` is a pair.
_NUMBERS = re.compile(
    r"(?<![(\[{\d])[1-9]\d{0,2}(?:[,'\u2019\u00a0\u202f]\d{3})+(?!\d)(?:\.\d+)?"
    r"|[1-9]\d{0,2}(?:\.\d{3}){2,}(?!\d)|\d*\.\d+|\d+|\D",
    re.ASCII,
)
_MARKS = re.compile("[,'\u2019\u00a0\u202f]")
_POINTS_OF_THOUSANDS = re.compile(r"[1-9]\d{0,2}(\.\d{3})+")
#: Whole numbers of fewer digits may stand beside three decimals.
_LEAST_BESIDE_THOUSANDS = 100
#: Curved apostrophes, and dashes that are no hyphen.
_STRAIGHT = str.maketrans("\u2018\u2019\u02bc\u2010\u2011\u2013\u2014", "'''----")


class ScoreName(NamedTuple):
    """The name of a column of scores, taken apart: ``prob_cat`` is of class ``cat``."""

    start: str
    ending: str


def score_name(plain: str) -> ScoreName | None:
    """The parts of a plain name, if it is one of a column of scores."""
    found = _SCORES.fullmatch(plain)
    if found is None:
        return None
    if found["start"]:
        return ScoreName(found["start"], found["ending"])
    return ScoreName(found["bare_start"], found["number"])


def is_like_scores(plain: str) -> bool:
    """Tell whether a plain name looks like that of a column of scores, misspelt."""
    if re.match(r"(logit|prob)(s|abilit(y|ies))?(?![a-z])", plain):
        return True
    numbered = re.sub(r"\d+", "0", plain[:40])
    known = ("logit_0", "logits_0", "prob_0", "probs_0")
    return bool(difflib.get_close_matches(numbered, known, 1, 0.75))


def plain_name(name: str) -> str:
    """A name as ``cased_name`` has it, written small."""
    return cased_name(name).casefold()


def cased_name(name: str) -> str:
    """A name with "_" for spaces and hyphens.

    Letters that look alike are alike: composed or not, wide or not, with soft hyphens
    and marks without width or without.
    """
    alike = unicodedata.normalize("NFKC", name)
    visible = "".join(c for c in alike if unicodedata.category(c) != "Cf")
    straight = visible.translate(_STRAIGHT)
    return re.sub(r"[\s\-]+", "_", straight.strip())


def plain_cell(value: object) -> str:
    """A cell as text, written small; whole numbers without a point."""
    return str(value).strip().casefold().removesuffix(".0")


def bare_name(name: str) -> str:
    """A name without blanks and marks, all of which ``C++`` and ``+`` have."""
    return re.sub(r"[\W_]+", "", plain_name(name))


def words_of(name: str) -> set[str]:
    """The words in a name: of ``The answer is A`` ``a``, too."""
    return {*re.findall(r"[^\W_]+", name.casefold())}


def number_in(name: str) -> float | None:
    """The number that a name is, if it is one."""
    try:
        value = float(name)
    except ValueError:
        return None
    return value if math.isfinite(value) else None  # "nan" is a name


def number_or_plain(name: str) -> float | str:
    """What two spellings of one name have in common."""
    value = number_in(name)
    return plain_name(name) if value is None else value


def ids_by_spelling(names: Sequence[str]) -> Callable[[str], int | None]:
    """What gives the id of a name as it is written, or plain where only one is so.

    Where ``A`` and ``a`` are two classes, another spelling of ``a`` is neither.
    """
    exactly = {name: label for label, name in enumerate(names)}
    plain: dict[str, int | None] = {}
    for label, name in enumerate(names):
        alike = plain_name(name)
        plain[alike] = None if alike in plain else label
    return lambda written: exactly.get(written, plain.get(plain_name(written)))


def counts_down(before: str, after: str) -> bool:
    """Whether the first numbers in which two names differ fall: ``10-19``, ``3-9``.

    Also with decimals, ``10.0`` and ``2.5``, and marks of thousands, ``1,000`` and
    ``500``.
    """
    parts = [_NUMBERS.findall(name) for name in (before, after)]
    for one, other in zip(*parts, strict=False):
        if one != other:
            first, second = _value_beside(one, other), _value_beside(other, one)
            return first is not None and second is not None and first > second
    return False


def _value_beside(token: str, other: str) -> float | None:
    """The number that a part of a name is, if it is one.

    ``1.000`` is a thousand beside 500, whose writer writes no three decimals.
    """
    digits = _MARKS.sub("", token)
    is_short = other.isdecimal() and int(other) >= _LEAST_BESIDE_THOUSANDS
    if is_short and _POINTS_OF_THOUSANDS.fullmatch(token):
        digits = token.replace(".", "")
    try:
        return float(digits)
    except ValueError:
        return None


def safe(name: str) -> str:
    """A name that is short and can be printed."""
    shown = files.shown(name)
    kept = "".join(c if c.isprintable() else "?" for c in shown[:60])
    return kept + ("..." if len(shown) > 60 else "")


def quoted(name: str) -> str:
    """A name in quotes."""
    return f"'{safe(name)}'"


def listed(names: Sequence[str]) -> str:
    """The first names."""
    return ", ".join(safe(name) for name in names[:8])


def shown_name(name: str, at: int) -> str:
    """A column's name, quoted, or its place."""
    return quoted(name) if name else f"column {at + 1}, without a name"
