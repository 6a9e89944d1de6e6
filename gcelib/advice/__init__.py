"""Which calibrator for these logits, and how sure: chosen by cross-validation."""

from gcelib import _check
from gcelib._check import Array
from gcelib.advice.copies import warn_of_copies, warn_of_tested_again
from gcelib.advice.differences import Difference, paired_differences
from gcelib.advice.forms import confidences_form, logits_form
from gcelib.advice.given import (
    checked_logits,
    checked_rule,
    refuse_few,
    refuse_half_a_test,
    warn_of_impossible,
    wrong_or_right,
)
from gcelib.advice.result import Advice, AdviceRow
from gcelib.advice.study import Study

__all__ = [
    "Advice",
    "AdviceRow",
    "Difference",
    "advise",
    "advise_confidences",
    "paired_differences",
]


def advise(
    val_logits: Array,
    val_labels: Array,
    test_logits: Array | None = None,
    test_labels: Array | None = None,
    *,
    choose_by: str = "nll",
    folds: int = 5,
    seed: int = 1,
    probabilities: bool = False,
) -> Advice:
    """Choose a calibrator by cross-validation on the validation samples.

    The rule is on the side of the simple. One temperature is taken if it is clearly
    better than nothing; another calibrator only if it is clearly better than that.
    *Clearly better by NLL* means: the interval of the difference lies below zero (95 %
    for the temperature; for the others 95 % for all of them together), the gain over
    all samples is at least log(tried / 0.025) nats, and at least ten errors were seen
    or expected by the reference. *By ECE*: the interval, the ten errors, and an ECE of
    the reference above what 97.5 of 100 calibrated models would show. What makes
    clearly more predictions wrong is not taken, but named. So below ten errors nothing
    is clear; a model that exaggerates twofold is mostly told so from about forty. How
    often honest models with few errors are told "clearly" all the same, and others in
    time, ``benchmarks/advice.py`` counts; its tables are in
    ``benchmarks/results/advice.md``. The test samples do not choose; they report.

    Parameters
    ----------
    val_logits : (N, K) tensor or array
        Scores before the softmax, of samples that the model was not trained on.
    val_labels : (N,) tensor or array of integers
        Class ids in [0, K).
    test_logits, test_labels : optional
        Further samples, for an honest report.
    choose_by : {"nll", "ece"}, default "nll"
        What decides. Both are always reported, and their disagreement is explained.
    folds : int, default 5
        Parts of the cross-validation.
    seed : int, default 1
        Of folds, resamples and simulations: the same seed, the same answer.
    probabilities : bool, default False
        True: ``val_logits`` and ``test_logits`` hold probabilities; rows that do not
        sum to 1 are refused. What is calibrated is ``logits_from_probabilities(p)``,
        and ``.usage(path, "probabilities")`` tells how to apply the answer.

    Returns
    -------
    Advice
        ``.name``, ``.calibrator``, ``.sentence``, ``.rows``, ``.save(path)``.

    Raises
    ------
    ValueError, TypeError
        If an argument is malformed; the message begins with its name.

    Examples
    --------
    >>> import torch
    >>> generator = torch.Generator().manual_seed(0)
    >>> truth = torch.randn(1000, 3, generator=generator)
    >>> labels = torch.multinomial(truth.softmax(1), 1, generator=generator)[:, 0]
    >>> advise(3 * truth, labels).name  # claims three times too much
    'ts_nll'
    """
    probabilities = _check.boolean("probabilities", probabilities)
    val = checked_logits("val", val_logits, val_labels, probabilities)
    choose_by, folds, seed = checked_rule(choose_by, folds, seed)
    refuse_few("val_logits", len(val.labels), folds)
    warn_of_copies("val_logits", val.logits, val.labels)
    test = None
    again: str | None = ""
    refuse_half_a_test(("test_logits", test_logits), ("test_labels", test_labels))
    if test_logits is not None and test_labels is not None:
        test = checked_logits("test", test_logits, test_labels, probabilities)
        n_classes, others = (part.logits.shape[1] for part in (val, test))
        if n_classes != others:
            problem = f"have {others} classes, val_logits {n_classes}"
            _check.fail("test_logits", problem, "pass logits of one model")
        both = ("val_logits", "test_logits")
        given = val_logits, test_logits
        _check.refuse_other_columns(*given, both)
        kinds = [
            _check.as_tensor(name, scores).dtype
            for name, scores in zip(both, given, strict=True)
        ]
        coarser = min(kinds, key=lambda kind: kind.itemsize)
        compared = val.logits.to(coarser), test.logits.to(coarser)
        again = warn_of_tested_again(both, val[:2], test[:2], compared)
    form = logits_form()
    study = Study(val, form, val.logits.shape[1], choose_by, folds, seed)
    return study.advice(test, again)


def advise_confidences(
    confidences: Array,
    correct: Array,
    test_confidences: Array | None = None,
    test_correct: Array | None = None,
    *,
    model_classes: int | None = None,
    choose_by: str = "nll",
    folds: int = 5,
    seed: int = 1,
) -> Advice:
    """Choose a calibrator where only the confidence of each prediction is known.

    The rule of ``advise``, among the calibrators that act on a confidence alone:
    those with ``CALIBRATORS[name].of_confidence``. The error is the share of wrong
    predictions, the ECE that of ``Reliability.from_confidences``, the NLL that of the
    two outcomes right and wrong.

    Parameters
    ----------
    confidences : (N,) tensor or array
        Probability of the predicted class, in [0, 1], of samples that the model was not
        trained on.
    correct : (N,) tensor or array
        Whether each prediction was right, as booleans or 0 and 1.
    test_confidences, test_correct : optional
        Further samples, for an honest report.
    model_classes : int, optional
        Number of classes of the model; with it, accuracy at chance is told.
    choose_by : {"nll", "ece"}, default "nll"
        What decides.
    folds : int, default 5
        Parts of the cross-validation.
    seed : int, default 1
        Of folds, resamples and simulations: the same seed, the same answer.

    Returns
    -------
    Advice
        ``.calibrator`` takes logits (N, 2) of *wrong* and *right*;
        ``print(advice.usage(path))`` gives the lines that apply it to confidences.

    Raises
    ------
    ValueError, TypeError
        If an argument is malformed; the message begins with its name.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> said = rng.uniform(0.2, 1, 2000)
    >>> advice = advise_confidences(said, rng.random(2000) < said**2)
    >>> advice.name, len(advice.rows)
    ('bias', 6)
    """
    if model_classes is not None:
        model_classes = _check.number("model_classes", model_classes, 2, integer=True)
    val = confidences, correct
    test = test_confidences, test_correct
    advice = advise_pairs(val, test, model_classes, choose_by, folds, seed)
    if model_classes is not None:
        warn_of_impossible(confidences, model_classes)
    return advice


def advise_pairs(
    val: tuple[Array, Array],
    test: tuple[Array | None, Array | None],
    n_classes: int | None,
    choose_by: str,
    folds: int,
    seed: int,
) -> Advice:
    """Advise on pairs (confidences, correct), where classes may be more than are known.

    As ``advise_confidences``, but for what only a sure number of classes can tell.
    """
    choose_by, folds, seed = checked_rule(choose_by, folds, seed)
    names = ("confidences", "correct")
    part = wrong_or_right(*val, names)
    refuse_few("confidences", len(part.labels), folds)
    warn_of_copies("confidences", part.logits, part.labels)
    test_part = None
    again: str | None = ""
    test_names = ("test_confidences", "test_correct")
    confidences, correct = test
    refuse_half_a_test((test_names[0], confidences), (test_names[1], correct))
    if confidences is not None and correct is not None:
        test_part = wrong_or_right(confidences, correct, test_names)
        both = (names[0], test_names[0])
        given = (
            _check.as_tensor(names[0], val[0]),
            _check.as_tensor(test_names[0], confidences),
        )
        again = warn_of_tested_again(both, part[:2], test_part[:2], given)
    study = Study(part, confidences_form(), n_classes, choose_by, folds, seed)
    return study.advice(test_part, again)
