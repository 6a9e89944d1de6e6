"""What ``advise`` is given: checked, and told where it would mislead."""

import torch
from torch import Tensor

from gcelib import _check
from gcelib._check import Array
from gcelib.advice.judging import Part
from gcelib.bins import check_confidences
from gcelib.blocks import rounding_of
from gcelib.metrics import logits_from_confidences, logits_from_probabilities

#: So many labels of rows that are there twice, expected to differ and alike all the
#: same, tell that these rows are copies: by chance this happens once in 1,000 sets.
_DOUBTS = 7
#: So many rows of rounded numbers are alike by chance, also of a small set.
_FEW_ROWS = 10
#: So many confidences below 0.5 tell whether they are those of the prediction.
_MANY_BELOW_HALF = 50


def checked_rule(choose_by: str, folds: int, seed: int) -> tuple[str, int, int]:
    """The options of both kinds of advice, checked."""
    _check.choice("choose_by", choose_by, ("nll", "ece"))
    folds = _check.number("folds", folds, 2, 1000, integer=True)
    seed = _check.number("seed", seed, 0, 2**31, integer=True)
    return choose_by, folds, seed


def refuse_few(name: str, n_samples: int, folds: int) -> None:
    """Refuse fewer than two samples a fold."""
    if n_samples < 2 * folds:
        cure = f"{folds} folds want {2 * folds} at the least"
        _check.fail(name, f"has {n_samples} samples", cure)


def refuse_half_a_test(first: tuple[str, object], second: tuple[str, object]) -> None:
    """Refuse one of two arguments that go together, each a name and a value."""
    if (first[1] is None) != (second[1] is None):
        _check.fail(first[0], f"and {second[0]} go together", "pass both or none")


def wrong_or_right(confidences: Array, correct: Array, names: tuple[str, str]) -> Part:
    """Logits (N, 2) of wrong and right, and 1 where right."""
    values, hits = check_confidences(confidences, correct, names)
    tolerance = rounding_of(values, probabilities=True)
    return Part(logits_from_confidences(values), (hits == 1).long(), tolerance)


def _dtype_of_study(scores: Tensor) -> torch.dtype:
    """The type that advice computes in: the given one, at least float32."""
    return torch.promote_types(scores.dtype, torch.float32)


def warn_of_one_class(confidences: Tensor, hits: Tensor) -> None:
    """Say so if confidences seem to be the probability of one of two classes.

    Then, below 0.5, the other class is predicted: right more often than not, and the
    more often the lower the number is.
    """
    low = confidences < 0.5
    n_low = int(low.sum())
    if n_low < _MANY_BELOW_HALF:
        return
    x = confidences[low] - confidences[low].mean()
    y = hits[low].double() - hits[low].double().mean()
    spread = float((x.square().mean() * y.square().mean()).sqrt())
    falls = spread > 0 and float((x * y).mean()) / spread < -4 / n_low**0.5
    right = float(hits[low].double().mean())
    if falls and right > 0.5:
        _check.warn(
            f"confidences: of {n_low:,} below 0.5 {right:.0%} are right, the more the "
            "lower they are, as where they are the probability of one of two classes; "
            "pass that of the predicted class, max(p, 1 - p)"
        )


def warn_of_copies(name: str, logits: Tensor, labels: Tensor) -> None:
    """Say so if samples are there twice: each would judge a fit that has seen it.

    Rows of coarse scores are alike, too, but then their labels differ as often as the
    scores say, so that ``_DOUBTS`` of them would not all agree.
    """
    first: dict[bytes, int] = {}
    copies = []
    originals = []
    for i, row in enumerate(_check.digests_of_rows(logits)):
        before = first.setdefault(row, i)
        if before != i:
            copies.append(i)
            originals.append(before)
    if not copies or not torch.equal(labels[copies], labels[originals]):
        if not _is_one_set_twice(logits, labels):
            return
        copies = list(range(len(labels) // 2))
    doubts = 1 - logits[copies].double().softmax(1).amax(1)
    if float(doubts.sum()) > _DOUBTS:
        _check.warn(
            f"{name}: {len(copies):,} of {len(logits):,} rows copy others, "
            "with the same labels, so that cross-validation judges calibrators by "
            "samples they were fitted on; pass each sample once"
        )


def _is_one_set_twice(logits: Tensor, labels: Tensor) -> bool:
    """Tell whether the second half of the samples is the first, line by line."""
    half, rest = divmod(len(labels), 2)
    alike = torch.equal(logits[:half], logits[half:]) if rest == 0 else False
    return alike and torch.equal(labels[:half], labels[half:])


def warn_of_tested_again(
    names: tuple[str, str],
    val: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    given: tuple[Tensor, Tensor] | None = None,
) -> None:
    """Say so if validation samples are tested: rows and labels that are there again.

    ``given``: the confidences from which ``val`` and ``test`` were made.
    """
    n_again = n_tested_again(val, test, given)
    if n_again:
        _check.warn(
            f"{names[1]}: {n_again:,} of {len(test[1]):,} rows are rows of "
            f"{names[0]}, on which the calibrators are fitted; pass samples that had "
            "no say"
        )


def n_tested_again(
    val: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    given: tuple[Tensor, Tensor] | None = None,
) -> int:
    """Count test samples that are validation samples; 0 where that may be chance.

    Rows are compared in the coarser of their two types. Equal ones may be no more than
    rounded, but then their labels differ as often as they say, so that ``_DOUBTS`` of
    them would not all agree. Rows of a fine type are nobody else's, but for as many as
    validation has twice, as it has of votes; of confidences alone all may be alike.

    Parameters
    ----------
    val, test : pairs of (N, K) logits and (N,) labels
        On the CPU.
    given : pair of (N, K) or (N,) tensors, optional
        From which the logits were made: these are compared. (N,): confidences.

    Returns
    -------
    int
    """
    compared = (val[0], test[0]) if given is None else given
    coarser = min((rows.dtype for rows in compared), key=lambda kind: kind.itemsize)
    in_val, in_test = (_check.digests_of_rows(rows.to(coarser)) for rows in compared)
    labels: dict[bytes, list[int]] = {}
    for row, label in zip(in_val, val[1].tolist(), strict=True):
        labels.setdefault(row, []).append(label)
    repeated = sum(len(known) for known in labels.values() if len(known) > 1)
    once = 0
    again = []
    agree = True
    for i, (row, label) in enumerate(zip(in_test, test[1].tolist(), strict=True)):
        known = labels.get(row, [])
        once += len(known) == 1
        if len({*known}) == 1:
            again.append(i)
            agree = agree and label in known
    doubts = 1 - test[0][again].double().softmax(1).amax(1)
    surely = agree and float(doubts.sum()) > _DOUBTS
    is_fine = compared[0].ndim == 2 and coarser.itemsize >= 4
    few = max(0.02 * len(test[1]), min(_FEW_ROWS, 0.2 * len(test[1])))
    by_chance = few + 2 * repeated / len(val[1]) * len(test[1])
    is_told = (is_fine and once > by_chance) or (surely and len(again) > few)
    return len(again) if is_told else 0


def checked_logits(
    split: str, logits: Array, labels: Array, probabilities: bool
) -> Part:
    """Logits in at least float32 and labels, on the CPU."""
    name = f"{split}_logits"
    labels_name = f"{split}_labels"
    z = _check.as_tensor(name, logits)
    y = _check.as_tensor(labels_name, labels)
    _check.check_has_values(name, z)
    _check.check_has_values(labels_name, y)
    _check.warn_of_tables(logits, labels, z, y, (name, labels_name))
    z = z.cpu()
    y = y.cpu()
    _check.check_logits(z, name)
    _check.check_labels(y, z.shape[0], z.shape[1], labels_name)
    tolerance = rounding_of(z, probabilities=probabilities)
    if probabilities:
        _check.check_probabilities(z, name)
        z = logits_from_probabilities(z)
    else:
        _check.warn_of_probabilities(z, name)
    return Part(z.to(_dtype_of_study(z)), y.long(), tolerance)
