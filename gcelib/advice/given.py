"""What ``advise`` is given: checked, and told where it would mislead."""

import torch
from torch import Tensor

from gcelib import _check
from gcelib._check import Array
from gcelib.advice.judging import Part
from gcelib.bins import check_confidences
from gcelib.blocks import rounding_of
from gcelib.metrics import logits_from_confidences, logits_from_probabilities

#: Confidences that were rounded to two digits may be so far below 1/K, relative; and so
#: many may be lower for other reasons.
_ROUNDED = 0.05
_FEW_IMPOSSIBLE = 0.01


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


def warn_of_impossible(confidences: Array, model_classes: int) -> None:
    """Say so if many confidences are lower than the largest of K probabilities is."""
    values = _check.as_tensor("confidences", confidences)
    lowest = (1 - _ROUNDED) / model_classes
    share = float((values < lowest).double().mean())
    if share > _FEW_IMPOSSIBLE:
        _check.warn(
            f"confidences: {share:.0%} are below 1/{model_classes}, and the largest of "
            f"{model_classes} probabilities is not; pass that one, and no margin, "
            "entropy or probability of another class, unless the model has more "
            "classes or they were calibrated since"
        )


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
    z = z.cpu()
    y = y.cpu()
    _check.warn_of_tables(logits, labels, z, y, (name, labels_name))
    _check.check_logits(z, name)
    _check.check_labels(y, z.shape[0], z.shape[1], labels_name)
    tolerance = rounding_of(z, probabilities=probabilities)
    if probabilities:
        _check.check_probabilities(z, name)
        z = logits_from_probabilities(z)
    else:
        _check.warn_of_probabilities(z, name)
    return Part(z.to(_dtype_of_study(z)), y.long(), tolerance)
