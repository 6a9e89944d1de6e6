"""What a lesson asks its reader: questions that answer at once, checked exercises.

``ask`` needs no kernel: its answers unfold in a saved notebook and on a web page too,
by mouse or keyboard. ``check`` tells whether the answer of an exercise is right, and if
not, where to look. The values that it compares with are computed, not written down.
"""

import html
import math
import numbers
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
import torch

from gcelib import _check, metrics
from gcelib.calibration import TemperatureScaling
from gcelib.losses import GCELoss
from gcelib.study import data, runs, shipped

Array = npt.NDArray[np.generic]


@dataclass(frozen=True)
class Question:
    """A question with answers that unfold; a notebook shows it by itself.

    Attributes
    ----------
    text : str
        The question.
    answers : dict of str to str
        Each possible answer with the reply to it, which begins with "Right" or "No".
    """

    text: str
    answers: dict[str, str]

    def __repr__(self) -> str:
        lines = [f"Check yourself: {self.text}"]
        lines += [f"  ? {answer}" for answer in self.answers]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """Nested <details>: they need no script, and every browser's keyboard works."""
        parts = [f"<p><b>Check yourself.</b> {html.escape(self.text)}</p>"]
        for answer, reply in self.answers.items():
            parts.append(
                f"<details><summary>{html.escape(answer)}</summary>"
                f"<blockquote>{html.escape(reply)}</blockquote></details>"
            )
        return "\n".join(parts)


def ask(text: str, answers: Mapping[str, str]) -> Question:
    """Ask the reader; each answer unfolds to a reply that says right or no, and why.

    Parameters
    ----------
    text : str
        The question, as plain text.
    answers : mapping of str to str
        Two or more answers. Each reply begins with "Right" or "No"; one or more is
        right.

    Returns
    -------
    Question
        As a cell's last expression it is shown.

    Raises
    ------
    ValueError
        If there are fewer than two answers, a reply says neither, or none is right.

    Examples
    --------
    >>> ask("Is 2 even?", {"yes": "Right: 2 = 2 x 1.", "no": "No: divide it by 2."})
    Check yourself: Is 2 even?
      ? yes
      ? no
    """
    if len(answers) < 2:
        _check.fail("answers", f"are {len(answers)}", "offer two or more")
    for answer, reply in answers.items():
        if not reply.startswith(("Right", "No")):
            problem = f"the reply to {answer!r} says neither Right nor No"
            _check.fail("answers", problem, "begin it with one of them")
    if not any(reply.startswith("Right") for reply in answers.values()):
        _check.fail("answers", "none is right", "begin one reply with Right")
    return Question(text, dict(answers))


@dataclass(frozen=True, kw_only=True)
class Exercise:
    """One exercise whose answer is a number.

    Attributes
    ----------
    expected : callable
        Computes the right answer, in ``unit``.
    unit : str
        What the number counts, for messages: "%", "patients", ...
    tolerance : float
        How far an answer may be off, in ``unit``.
    hint : str
        Said to a wrong answer.
    why : str
        Said to a right one.
    """

    expected: Callable[[], float]
    unit: str
    tolerance: float
    hint: str
    why: str


#: An exercise's answer is computed with the parameters that a lesson comes with.
_OF_THE_LESSON = "(What is expected is the answer with the lesson's own parameters.)"


def check(exercise: str, answer: object) -> None:
    """Say whether ``answer`` is right, and if not, what to look at.

    Parameters
    ----------
    exercise : str
        A key of ``EXERCISES``: lesson and number, such as ``"00-1"``.
    answer : number, tensor or array of no dimension, or ``...``
        The reader's answer. Three dots mean: not yet answered.

    Raises
    ------
    ValueError
        If there is no such exercise.

    Examples
    --------
    >>> check("00-1", ...)
    00-1: write your answer in place of the three dots and run the cell again.
    >>> check("01-1", 0.56)
    01-1: right. A larger gamma pulls it further towards one half.
    """
    row = EXERCISES[_check.choice("exercise", exercise, EXERCISES)]
    if answer is ...:
        cure = "write your answer in place of the three dots and run the cell again."
        print(f"{exercise}: {cure}")
        return
    value = _number(answer)
    if value is None:
        print(f"{exercise}: give one number ({row.unit}), not {type(answer).__name__}.")
        return
    expected = row.expected()
    if abs(value - expected) <= row.tolerance:
        print(f"{exercise}: right. {row.why}")
    elif row.unit == "%" and abs(100 * value - expected) <= row.tolerance:
        print(f"{exercise}: right as a fraction; in percent it is {expected:.4g}.")
    elif row.unit == "probability" and abs(value / 100 - expected) <= row.tolerance:
        print(f"{exercise}: right in percent; as a probability it is {expected:.4g}.")
    else:
        print(f"{exercise}: not yet. {row.hint} {_OF_THE_LESSON}")


def _number(answer: object) -> float | None:
    """The answer as a float; None if it is not one real number."""
    if getattr(answer, "ndim", None) == 0 and hasattr(answer, "item"):
        answer = answer.item()  # a number in a tensor or an array
    if isinstance(answer, bool) or not isinstance(answer, numbers.Real):
        return None
    return float(answer)


# --- the answers ----------------------------------------------------------------------


def _fourth_doctor() -> float:
    """ECE (%) of the model that says 0.95 in group A and 0.45 in group B."""
    return 100 * metrics.ece(_doctor(0.95, 0.45), _PATIENTS)


def _pairs_without_ece() -> float:
    """How many pairs of the grid of lesson 00 have no ECE in three bins."""
    grid = np.round(np.arange(0.05, 1, 0.05), 2)
    eces = [metrics.ece(_doctor(a, b), _PATIENTS, 3) for a in grid for b in grid]
    return float(np.sum(np.array(eces) < 1e-8))


_PATIENTS: npt.NDArray[np.int64] = np.repeat([1, 0, 1, 0], [40, 10, 20, 30])


def _doctor(p_a: float, p_b: float) -> npt.NDArray[np.float64]:
    """Logits (100, 2) of a model that says "ill" with p_a in group A, p_b in B."""
    p = np.repeat([p_a, p_b], 50)
    logits: npt.NDArray[np.float64] = np.log(np.stack([1 - p, p], axis=1))
    return logits


def _focal_minimiser() -> float:
    """The prediction that the focal loss, gamma 3, likes best where 0.7 is true."""
    p = np.linspace(0.001, 0.999, 9981)
    risk = -0.7 * (1 - p) ** 3 * np.log(p) - 0.3 * p**3 * np.log(1 - p)
    return float(p[risk.argmin()])


def _free_class_sums() -> float:
    """How many class sums the fixed pairs of lesson 01 leave undetermined in all."""
    pairs = np.array(  # in tenths, which have the same rank
        [
            [[8, 1, 1], [2, 7, 1]],
            [[1, 3, 6], [5, 4, 1]],
            [[1, 5, 4], [3, 2, 5]],
        ]
    )
    return float(sum(3 - np.linalg.matrix_rank(pair) for pair in pairs))


def _share_with_a_weight() -> float:
    """The share (%) in lesson 01's absent class that lambda = 0.9 likes best."""
    labels = torch.tensor([0, 1, 0, 1])
    loss = GCELoss(regularizer_weight=0.9)
    certain = torch.eye(3, dtype=torch.float64)[labels]
    absent = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    values = {}
    for share in (0, 30, 60, 90):
        probabilities = (1 - share / 100) * certain + share / 100 * absent
        values[share] = float(loss(probabilities.clamp_min(1e-12).log(), labels))
    return float(min(values, key=values.__getitem__))


def _twice() -> float:
    """ECE (%) of the twelve samples of lesson 02, each written down twice."""
    hundredths = [
        [95, 3, 2],
        [93, 5, 2],
        [4, 88, 8],
        [84, 9, 7],
        [5, 13, 82],
        [10, 78, 12],
        [75, 15, 10],
        [22, 8, 70],
        [18, 64, 18],
        [57, 21, 22],
        [34, 55, 11],
        [42, 33, 25],
    ]
    p = np.array(hundredths) / 100
    labels = np.array([0, 0, 1, 2, 2, 1, 1, 2, 0, 0, 0, 1])
    return 100 * metrics.ece(np.log(np.tile(p, (2, 1))), np.tile(labels, 2), 5)


def _demo(dataset: str, loss: str, split: str = "test") -> tuple[Array, Array]:
    """Logits and labels of a run that comes with the project."""
    folder = shipped.demo_runs() / dataset / "convnet" / loss / "seed-01"
    return runs.load_logits(folder, split)


def _ece_difference() -> float:
    """ECE(CE) - ECE(GCE) (%) of the two networks of lesson 02."""
    ce = metrics.ece(*_demo("fashion_mini", "ce"))
    return 100 * (ce - metrics.ece(*_demo("fashion_mini", "gce")))


def _over_claim() -> float:
    """Mean confidence minus accuracy (%) of lesson 03's default run."""
    confidence, correct = metrics.top_label(*_demo("fashion_mini", "gce"))
    return float(100 * (confidence.mean() - correct.mean()))


def _doubled_batch() -> float:
    """How much GCE's loss grows from batches of 500 to 1,000 of lesson 03's run."""
    logits, labels = map(torch.from_numpy, _demo("fashion_mini", "gce"))
    loss = GCELoss()
    means = {}
    for n in (500, 1000):
        parts = [slice(start, start + n) for start in range(0, len(labels), n)]
        values = [float(loss(logits[part].double(), labels[part])) for part in parts]
        means[n] = sum(values) / len(values)
    return means[1000] - means[500]


def _five_seeds_that_disagree() -> float:
    """Choices of five of lesson 08's ten seeds whose mean has the other sign."""
    from gcelib.study import paper

    table = paper.committed_results()
    table = table[(table.dataset == "fashion_mini") & (table.variant == "")]
    error = table.pivot_table(index="seed", columns="loss", values="test_raw_error")
    difference = (error.gce - error.ce).to_numpy()
    means = [sum(five) / 5 for five in combinations(difference, 5)]
    other_sign = np.sign(means) != np.sign(difference.mean())
    return float(np.sum(other_sign))


def _long_tailed_error() -> float:
    """CE's error (%) on lesson 05's long-tailed test after the prior is taken out."""
    logits, labels = _demo("fashion_mini_lt100", "ce")
    train = data.load("fashion_mini_lt100").train[1].numpy()
    log_prior = np.log(np.bincount(train, minlength=10) / len(train))
    profile = data.long_tail_counts(400, 10, 100)
    parts = [np.flatnonzero(labels == k)[:n] for k, n in enumerate(profile)]
    rows = np.concatenate(parts)
    return 100 * metrics.error(logits[rows] - log_prior, labels[rows])


def _auroc_of_confidence() -> float:
    """AUROC (%) of one minus the confidence, CE's test pictures against digits."""
    scores = []
    for split in ("test", "digits"):
        logits, _ = _demo("fashion_mini", "ce", split)
        probabilities = torch.as_tensor(logits).double().softmax(1)
        scores.append(1 - probabilities.amax(1).numpy())
    inside = np.sort(scores[0])
    outside = scores[1]
    below = np.searchsorted(inside, outside, "left").mean()
    not_above = np.searchsorted(inside, outside, "right").mean()
    return float(100 * (below + not_above) / (2 * len(inside)))


def _pooled() -> float:
    """Isotonic accuracy (%) of the second of four samples that hit, miss, hit, hit."""
    hits = [1.0, 0.0, 1.0, 1.0]
    # The best rising fit: the least, over later ends, of the largest mean over starts.
    means = [[np.mean(hits[a:b]) for a in range(2)] for b in range(2, 5)]
    return float(100 * min(max(row) for row in means))


def _fewest_held_out() -> float:
    """Fewest scores n for which the 0.9 rank of conformal prediction is within n."""
    return float(next(n for n in range(1, 99) if math.ceil((n + 1) * 0.9) <= n))


def _temperature_again() -> float:
    """The temperature of CE's validation logits that were divided by theirs."""
    logits, labels = _demo("fashion_mini", "ce", "val")
    first = TemperatureScaling("nll").fit(logits, labels)
    again = TemperatureScaling("nll").fit(first(logits), labels)
    return float(again.temperature)


#: Every exercise that ``check`` knows, by lesson and number.
EXERCISES: dict[str, Exercise] = {
    "00-1": Exercise(
        expected=_fourth_doctor,
        unit="%",
        tolerance=0.05,
        hint="What does she claim in each group, what comes true? Gaps count "
        "without sign.",
        why="0.15 too much in A, 0.05 too little in B. ECE adds them; her mean "
        "hides one.",
    ),
    "00-2": Exercise(
        expected=_pairs_without_ece,
        unit="pairs",
        tolerance=0,
        hint="Call metrics.evaluate(model(a, b), labels, 3) for all pairs of the grid.",
        why="0.55 with 0.65 is the perverse one: it calls the healthier group the "
        "sicker.",
    ),
    "01-1": Exercise(
        expected=_focal_minimiser,
        unit="probability",
        tolerance=0.006,
        hint="Minimise 0.7 focal(p) + 0.3 focal(1 - p) over p, as risks_at does.",
        why="A larger gamma pulls it further towards one half.",
    ),
    "01-2": Exercise(
        expected=_free_class_sums,
        unit="numbers",
        tolerance=0,
        hint="A pair gives two equations, Q u = 1. How many class sums are in it?",
        why="Two equations for three sums leave one free in each of the three pairs.",
    ),
    "01-3": Exercise(
        expected=_share_with_a_weight,
        unit="%",
        tolerance=0,
        hint="In percent: 0, 30, 60 or 90. Compute the loss at each of the four.",
        why="A tenth of CE is enough: it wants the true class at 1, and nothing "
        "elsewhere.",
    ),
    "02-1": Exercise(
        expected=_twice,
        unit="%",
        tolerance=0.06,
        hint="What happens to each bin's mean confidence, its accuracy, its share?",
        why="Means stay what they are. Only the interval shrinks, wrongly.",
    ),
    "02-2": Exercise(
        expected=_ece_difference,
        unit="%",
        tolerance=0.02,
        hint="metrics.ece(*test['ce'], n_bins) of both, CE minus GCE, times 100.",
        why="Its interval holds zero: these pictures cannot say which is better.",
    ),
    "03-1": Exercise(
        expected=_over_claim,
        unit="%",
        tolerance=0.06,
        hint="probabilities.max(1) has the confidences and the predicted classes.",
        why="Positive: it claims too much. The ECE, which has no sign, would not tell.",
    ),
    "03-2": Exercise(
        expected=_doubled_batch,
        unit="nats",
        tolerance=0.02,
        hint="Twice as many images share each class: what does that do to every share?",
        why="log 2, whatever the network: each sum over the batch is twice as large.",
    ),
    "04-1": Exercise(
        expected=_temperature_again,
        unit="temperature",
        tolerance=0.01,
        hint="Which T has the lowest NLL for z / T0, if T0 has it for z?",
        why="What one temperature can mend, it has mended. ATS finds something "
        "left to do.",
    ),
    "05-1": Exercise(
        expected=_long_tailed_error,
        unit="%",
        tolerance=0.1,
        hint="rows = worlds['long-tailed test']; argmax of even['ce'][rows] "
        "against labels.",
        why="Higher than before: in that world the prior was true, and it was "
        "taken away.",
    ),
    "06-1": Exercise(
        expected=_auroc_of_confidence,
        unit="%",
        tolerance=0.1,
        hint="Score 1 - softmax(z).max(1); then count pairs as in section 3, ties "
        "half.",
        why="2.6 points less than entropy: it does not see the small probabilities.",
    ),
    "08-1": Exercise(
        expected=_five_seeds_that_disagree,
        unit="choices",
        tolerance=0,
        hint="itertools.combinations gives the choices; compare signs of means of "
        "GCE - CE.",
        why="So one choice of five seeds in seventeen tells the opposite of all ten.",
    ),
    "10-1": Exercise(
        expected=lambda: 1 - 0.1,
        unit="probability",
        tolerance=0.001,
        hint="Deciding costs 1 - p on average, asking costs c.",
        why="From 1 - c on a decision is no dearer than the question.",
    ),
    "10-2": Exercise(
        expected=lambda: 1 - (0.1 + 1 / 50),
        unit="probability",
        tolerance=0.001,
        hint="What does asking cost now, on average, mistakes of the human included?",
        why="Asking costs c plus the human's own mistakes.",
    ),
    "11-1": Exercise(
        expected=_pooled,
        unit="%",
        tolerance=0.1,
        hint="The first two are in the wrong order: pool them and take their mean.",
        why="The violators 1, 0 are pooled to their mean.",
    ),
    "12-1": Exercise(
        expected=lambda: 100 / (1 + math.exp(0.4 - 0.5 * 2)),
        unit="%",
        tolerance=0.5,
        hint="sigma(a s + b) with sigma(x) = 1 / (1 + exp(-x)).",
        why="A temperature alone would have said sigma(1), 73 %.",
    ),
    "13-1": Exercise(
        expected=lambda: 0.0,
        unit="%",
        tolerance=0,
        hint="Which class has the largest logit, before and after?",
        why="Not a single prediction changes; only the claims do.",
    ),
    "14-1": Exercise(
        expected=lambda: 200 * 0.05 * (0.97 - 0.94),
        unit="temperature",
        tolerance=0.001,
        hint="Each of 200 rounds adds alpha times the gap of confidence and accuracy.",
        why="So a bin that needs more than that does not get it.",
    ),
    "15-1": Exercise(
        expected=lambda: math.ceil((99 + 1) * (1 - 0.1)),
        unit="rank",
        tolerance=0,
        hint="The rank is (n + 1)(1 - alpha), rounded up.",
        why="A new score falls with equal chance into each of the 100 gaps that 99 "
        "scores leave; 90 of them end at or below the ninetieth.",
    ),
    "15-2": Exercise(
        expected=_fewest_held_out,
        unit="pictures",
        tolerance=0,
        hint="For which n is the rank (n + 1)(1 - alpha), rounded up, still at most n?",
        why="With fewer the only honest set is the set of all classes.",
    ),
}
