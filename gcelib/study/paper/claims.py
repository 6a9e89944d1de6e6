"""The paper's claims, each judged by one rule.

**The rule, in words.** Two losses are compared in one setting, a data set and a
network, by the differences of their runs with the same seed.

1. A difference is *shown* where its interval over the seeds (Student's t, two-sided,
   95 %) leaves out zero on the claimed side, and *shown the other way* where it leaves
   out zero on the other. A mean alone shows nothing.
2. A claim that needs k of m settings *holds* if the difference is shown in k of them;
   it *does not hold* if it is shown the other way in so many that k cannot be reached;
   it is *not shown* if the runs are there and noise, or the lack of any difference,
   decides; it is *not tested* if runs that are missing could still decide.
3. Luck gets no second chance. What needs k of m has m - k + 1 chances to hold by luck
   and k to fail by luck (times the number of rivals, where one of them is enough), so
   its intervals are widened by that number, as Bonferroni does: 95 % become
   1 - 0.05 / chances. "Better than all, everywhere" has one chance to hold: its 95 %
   stay 95 %.
4. The family of a correction is the claim's own comparisons. The paper's Appendix C
   tests CIFAR alone: eight settings, six baselines, 48 comparisons. Its test,
   Wilcoxon's, replaces the interval in the claim about it. Ten seeds allow p = 1/1024
   at best, and 48/1024 = 0.047, so that family can pass.
5. The paper's printed tables have no seeds, so its own numbers are judged by their
   means, as its text quotes them. Column ``quotes`` says which claims quote means, or
   tests, or neither. Where there are runs no claim is judged by means; the evidence
   only says what means alone would have said.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import pandas as pd

from gcelib import _check
from gcelib.losses import LOSSES
from gcelib.metrics import METRICS
from gcelib.study.data.long_tails import split_name
from gcelib.study.paper.numbers import (
    FOLDER,
    Study,
    published,
    read_csv,
    tell_other_recipes,
)
from gcelib.study.paper.statistics import interval, wilcoxon


@cache
def printed_claims() -> pd.DataFrame:
    """The paper's claims, ``paper.CLAIMS``: read on first use, a wheel lacks the file.

    Returns
    -------
    DataFrame
        A row a claim: id, where, claim (our words), quotes (means | tests | words) and
        the comparison. Names are regular expressions; "a|b" are two. In a setting (data
        set and network, one of ``losses``, ``metric``) the value is ``op`` ``factor``
        times that of all | any of ``versus`` (blank: the same loss) at
        ``versus_metric`` (blank: the same metric). ``need`` of the paper's ``settings``
        must show it. ``datasets`` matches the paper's "dataset/model", ``ours`` our
        stand-ins. Without a metric no run can tell: then ``answer`` is the verdict and
        ``note`` the reason. It is read once: copy it before you change it.

    Raises
    ------
    FileNotFoundError
        Outside a checkout of the project.

    Examples
    --------
    >>> "error_vs_ce" in set(printed_claims()["id"])
    True
    """
    return read_csv(FOLDER / "claims.csv", [])


#: What one comparison, or one setting, says about a claim.
Answer = Literal["shown", "other way", "open", "missing"]
#: What settings together say.
Verdict = Literal["holds", "does not hold", "not shown", "not tested"]

_ALPHA = 0.05


@dataclass(frozen=True)
class Evidence:
    """One comparison: its differences, and what they say about the claim.

    Attributes
    ----------
    answer : str
        "shown", "other way", "open" or "missing".
    mean, low, high : float
        Of the differences, value minus ``factor`` times the other; fractions, nats or
        seconds. The interval is the one that ``shown`` asks for.
    n : int
        Seeds that both have.
    in_favour : float
        The mean, positive on the claimed side.
    label : str
        What was compared with what.
    """

    answer: Answer
    mean: float
    low: float
    high: float
    n: int
    in_favour: float
    label: str

    def text(self, scale: float) -> str:
        """The comparison in words.

        Parameters
        ----------
        scale : float
            100 to show fractions as points.

        Returns
        -------
        str
            Such as ``cifar10/resnet50 gce test_raw_error: -0.07 to ce [-0.2, 0.1]``.
        """
        setting, rival = self.label.rsplit(" to ", 1)
        words = f"{setting}: {scale * self.mean:+.2f} to {rival}"
        if np.isnan(self.low):
            return words
        return f"{words} [{scale * self.low:+.2f}, {scale * self.high:+.2f}]"


def evidence_for(
    claim: pd.Series,
    differences: pd.Series,
    label: str,
    *,
    chances: tuple[int, int] = (1, 1),
    by_means: bool = False,
) -> Evidence:
    """First question: what do the differences of one comparison say.

    Parameters
    ----------
    claim : Series
        A row of ``CLAIMS``; read are ``op`` and ``quotes``.
    differences : (n,) Series of float
        Value minus ``factor`` times the other, a seed each.
    label : str
        "<setting> to <rival>", for the text.
    chances : (int, int), default (1, 1)
        How many comparisons could hold, or fail, by luck; they share the 5 %.
    by_means : bool, default False
        True for printed numbers, which have no seeds.

    Returns
    -------
    Evidence

    Examples
    --------
    >>> better = pd.Series([-0.03, -0.02, -0.04])
    >>> evidence_for(printed_claims().iloc[0], better, "here to there").answer
    'shown'
    """
    sign = 1 if claim.op.startswith(">") else -1
    for_luck, against_luck = chances
    mean, low, high = interval(differences, 1 - _ALPHA / for_luck)
    n = len(differences)
    if n == 0:
        answer: Answer = "missing"
    elif claim.op == "==":
        answer = "shown" if (differences == 0).all() else "other way"
    elif by_means:
        answer = "shown" if _beyond_zero(sign * mean, claim.op) else "other way"
    elif n == 1:
        answer = "missing"  # one seed has no interval
    elif claim.quotes == "tests":
        answer = _by_wilcoxon(sign * differences, for_luck, against_luck)
    else:
        answer = _by_interval(sign * differences, claim.op, for_luck, against_luck)
    return Evidence(answer, mean, low, high, n, sign * mean, label)


def _beyond_zero(margin: float, op: str) -> bool:
    """True if a margin is above zero; a tie is enough for ``>=``."""
    rounded = round(margin, 12)
    return bool(rounded >= 0 if op == ">=" else rounded > 0)


def _by_interval(
    in_favour: pd.Series, op: str, for_luck: int, against_luck: int
) -> Answer:
    """The answer by the differences' intervals, one for each kind of luck."""
    if _beyond_zero(interval(in_favour, 1 - _ALPHA / for_luck).low, op):
        return "shown"
    if interval(in_favour, 1 - _ALPHA / against_luck).high < 0:
        return "other way"
    return "open"


def _by_wilcoxon(in_favour: pd.Series, for_luck: int, against_luck: int) -> Answer:
    """The answer by the paper's own test, one-sided and exact."""
    if wilcoxon(in_favour) < _ALPHA / for_luck:
        return "shown"
    if wilcoxon(-in_favour) < _ALPHA / against_luck:
        return "other way"
    return "open"


def combine(answers: Sequence[Answer], quantifier: str) -> Answer:
    """Second question: what do the comparisons with all rivals say of one setting.

    Parameters
    ----------
    answers : sequence of str
        One for each rival.
    quantifier : str
        "all": the claim is about every rival; "any": one is enough.

    Returns
    -------
    str
        "shown", "other way", "open" or "missing".

    Examples
    --------
    >>> combine(["shown", "open"], "all"), combine(["shown", "missing"], "any")
    ('open', 'shown')
    """
    decisive: Answer = "shown" if quantifier == "any" else "other way"
    unanimous: Answer = "other way" if quantifier == "any" else "shown"
    if decisive in answers:
        return decisive
    if "missing" in answers or not answers:
        return "missing"
    return unanimous if set(answers) == {unanimous} else "open"


def verdict(answers: Sequence[Answer], needed: int, total: int) -> Verdict:
    """Third question: what do the settings together say of the claim.

    Parameters
    ----------
    answers : sequence of str
        One for each setting that has runs.
    needed : int
        Settings that must show it.
    total : int
        Settings that there are, with runs or without.

    Returns
    -------
    str
        "holds", "does not hold", "not shown" or "not tested".

    Examples
    --------
    >>> verdict(["shown", "open"], 1, 2), verdict(["shown", "open"], 2, 2)
    ('holds', 'not shown')
    """
    shown = answers.count("shown")
    reversed_ = answers.count("other way")
    tested = len(answers) - answers.count("missing")
    if tested == 0:
        return "not tested"
    if shown >= needed:
        return "holds"
    if reversed_ > total - needed:
        return "does not hold"
    untested = total - tested
    return "not tested" if shown + untested >= needed else "not shown"


def chances_of_luck(
    needed: int, total: int, rivals: int, quantifier: str
) -> tuple[int, int]:
    """How many comparisons could make a claim hold, or fail, by luck alone.

    If the claim is false, at least total - needed + 1 settings do not have it, and one
    of them must be shown by luck; if it is true, one of the settings that have it must
    be shown the other way.

    Parameters
    ----------
    needed, total : int
        Settings that must show the claim, of how many.
    rivals : int
        Comparisons in one setting.
    quantifier : str
        "all" or "any" of the rivals.

    Returns
    -------
    (int, int)
        Chances to hold, and to fail; 5 % are shared among them.

    Examples
    --------
    >>> chances_of_luck(11, 11, 6, "all"), chances_of_luck(8, 11, 3, "any")
    ((1, 66), (12, 8))
    """
    any_rival = quantifier == "any"
    to_hold = (total - needed + 1) * (rivals if any_rival else 1)
    to_fail = needed * (1 if any_rival else rivals)
    return to_hold, to_fail


def _alternatives(pattern: str, names: Sequence[str]) -> list[str]:
    """The ``names`` that a regular expression matches whole."""
    return [name for name in names if re.fullmatch(pattern, name)]


#: Of a regular expression what holds a bar that separates nothing, or one character.
_PART = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]])*\]|.", re.DOTALL)


def _split(pattern: str) -> list[str]:
    """A regular expression at its bars, but for those in groups and in classes."""
    parts = [""]
    depth = 0
    for piece in _PART.findall(pattern):
        depth += (piece == "(") - (piece == ")")
        if piece == "|" and depth == 0:
            parts.append("")
        else:
            parts[-1] += piece
    return parts


def _named(pattern: str, names: Sequence[str]) -> list[str]:
    """What a pattern names: what it matches, and parts of it that match nothing."""
    absent = [part for part in _split(pattern) if not _alternatives(part, names)]
    return _alternatives(pattern, names) + absent


def _comparisons(
    claim: pd.Series, study: Study, setting: tuple[str, str], loss: str, metric: str
) -> dict[str, pd.Series]:
    """Seed-paired differences of one loss in one setting, by the name of the rival."""
    dataset, model = setting
    here = study.losses(dataset, model)
    columns = [name for name in study.runs if isinstance(name, str)]
    losses = _named(claim.versus, here) if claim.versus else [loss]
    metrics = _named(claim.versus_metric, columns) if claim.versus_metric else [metric]
    mine = study.numbers(dataset, model, loss, metric)
    found = {}
    for other in losses:
        for other_metric in metrics:
            if (other, other_metric) == (loss, metric):
                continue
            theirs = study.numbers(dataset, model, other, other_metric)
            names = (other, other_metric) if len(metrics) > 1 else (other,)
            name = " ".join(names) if claim.versus else other_metric
            found[name] = (mine - float(claim.factor) * theirs).dropna()
    return found


@dataclass(frozen=True)
class _Judged:
    """A claim's verdict in some settings, and the words for it."""

    verdict: Verdict
    evidence: str


def _judge(
    claim: pd.Series, study: Study, where: str, total: int = 0, by_means: bool = False
) -> _Judged:
    """The verdict where "dataset/model" matches ``where``.

    ``total`` is the number of the paper's settings, which alone count then; 0: all that
    are found count.
    """
    cases = _cases(claim, study, where, of_the_paper=total > 0)
    if not cases:
        return _Judged("not tested", claim.note)
    total = total or len(cases)
    needed = -(-int(claim.need) * total // int(claim.settings))  # rounded up
    rivals = max(1, *(len(found) for found in cases.values()))
    chances = chances_of_luck(needed, total, rivals, claim.quantifier)
    answers: list[Answer] = []
    decisive: list[Evidence] = []
    for name, differences in cases.items():
        items = [
            evidence_for(
                claim, gaps, f"{name} to {rival}", chances=chances, by_means=by_means
            )
            for rival, gaps in differences.items()
        ]
        answer = combine([item.answer for item in items], claim.quantifier)
        answers.append(answer)
        if answer != "missing":
            decisive.append(_decisive(items, claim.quantifier))
    words = _words(claim, answers, decisive, needed, total, by_means)
    return _Judged(verdict(answers, needed, total), words)


def _decisive(items: Sequence[Evidence], quantifier: str) -> Evidence:
    """The comparison of one setting on which it hangs.

    Against all rivals that is the one that supports the claim least; where any rival
    will do, the one that supports it most.
    """
    told = [item for item in items if item.answer != "missing"]
    choose = max if quantifier == "any" else min
    return choose(told, key=lambda item: item.in_favour)


def _cases(
    claim: pd.Series, study: Study, where: str, of_the_paper: bool
) -> dict[str, dict[str, pd.Series]]:
    """Every comparison that a claim asks for, by setting, loss and metric."""
    cases: dict[str, dict[str, pd.Series]] = {}
    if not claim.metric or not where:
        return cases
    columns = [name for name in study.runs if isinstance(name, str)]
    metrics = _alternatives(claim.metric, columns)
    # A data set's name with ".*" in it does not mean the changes between data sets.
    for setting in study.changes() if "->" in where else study.settings:
        place = "/".join(setting)
        if not re.fullmatch(where, place):
            continue
        if of_the_paper and _is_beside_the_paper(*setting):
            continue
        for loss in _alternatives(claim.losses, study.losses(*setting)):
            for metric in metrics:
                if len(study.numbers(*setting, loss, metric)):
                    found = _comparisons(claim, study, setting, loss, metric)
                    cases[f"{place} {loss} {metric}"] = found
    return cases


def _is_beside_the_paper(dataset: str, model: str) -> bool:
    """Whether a data set of the paper is there with a network, or tail, that is not.

    Of a change "a->b" both ends count. Own data are no data set of the paper.
    """
    settings = _settings_of_the_paper()
    parents = {split_name(name)[0] for name, _ in settings}
    ends = dataset.split("->") if ":" not in dataset else [dataset]
    return any(
        split_name(end)[0] in parents and (end, model) not in settings for end in ends
    )


@cache
def _settings_of_the_paper() -> frozenset[tuple[str, str]]:
    """Its data sets with their networks."""
    numbers = published()
    return frozenset(zip(numbers.dataset, numbers.model, strict=True))


def _tell_beside_the_paper(study: Study) -> None:
    """Warn of runs on the paper's data that no claim counts."""
    beside = [
        " ".join(setting)
        for setting in study.settings
        if _is_beside_the_paper(*setting)
    ]
    if beside:
        _check.warn(
            f"results: {', '.join(beside[:4])} are no settings of the paper, whose "
            "claims and tables leave them out; judge them by claims of your own, whose "
            "'ours' names them"
        )


def _words(
    claim: pd.Series,
    answers: Sequence[Answer],
    decisive: Sequence[Evidence],
    needed: int,
    total: int,
    by_means: bool,
) -> str:
    """One line: counts, then the four settings that support the claim least."""
    if not decisive:
        return str(claim.note)
    ordered = sorted(
        decisive, key=lambda item: (item.answer == "shown", item.in_favour)
    )
    weakest = "; ".join(item.text(_scale(item)) for item in ordered[:4])
    n_shown = answers.count("shown")
    head = f"{n_shown} of {len(decisive)} (needs {needed} of {total})"
    if by_means:
        return f"{head}: {weakest}"
    by_mean = sum(_beyond_zero(item.in_favour, claim.op) for item in decisive)
    if claim.op == "==":
        by_mean = n_shown
    seeds = min(item.n for item in decisive)
    other = answers.count("other way")
    counts = f"by means alone {by_mean}, other way {other}, n = {seeds}"
    return f"{head}, {counts}: {weakest}"


def _scale(item: Evidence) -> int:
    """100 where a comparison is of fractions, which are shown as points; else 1."""
    metric = item.label.rsplit(" to ", 1)[0].rsplit(" ", 1)[-1]
    of_all = re.sub(r"_class\d+$", "", metric)
    known = [name for name in METRICS if f"_{of_all}".endswith(f"_{name}")]
    if known:
        return 100 if METRICS[max(known, key=len)].percent else 1
    return 100 if metric.endswith(("auroc", "accuracy")) else 1


def check_claims(
    results: Study | pd.DataFrame | None = None,
    variant: str = "",
    claims: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Each claim of the paper, judged three times by one rule: a row a claim.

    The rule stands in words at the head of ``gcelib.study.paper.claims``.

    Parameters
    ----------
    results : Study or DataFrame, optional
        Our runs.
    variant : str, default ""
        Which of them.
    claims : DataFrame, optional
        Rows of the form of ``CLAIMS``, which is the default; your own are welcome.

    Returns
    -------
    DataFrame
        id, where, claim, quotes; then three judges, each with its evidence. printed: do
        the paper's tables agree with its text? verdict: do our runs of the paper's
        settings? our_data: do our own data, which are other data and can support or
        weaken a claim, not settle it? Each is "holds", "does not hold", "not shown" or
        "not tested". Evidence: in how many settings, the fewest seeds, and the
        differences in points (seconds, nats) of the four that support it least. Where
        no run can tell, ``verdict`` is the answer of an argument or of a lesson.

    Raises
    ------
    TypeError, ValueError
        If ``results`` is no table of runs, or a claim of yours has a word that no rule,
        loss or metric knows.

    Warns
    -----
    UserWarning
        As :func:`table`; and if there are runs of the paper's data with networks that
        it does not have, which count as no setting of it.

    Examples
    --------
    >>> check_claims().set_index("id").printed["error_vs_ce"]
    'does not hold'
    """
    ours = Study.of(results, variant)
    if claims is None:
        claims = printed_claims()
    else:
        _refuse_unknown_words(claims, ours)
    tell_other_recipes(ours)
    _tell_beside_the_paper(ours)
    # Table 9 repeats settings of Tables 1 and 2, with five runs: a study of its own.
    printed = _printed_study(repeated=False)
    printed_again = _printed_study(repeated=True)
    rows = []
    for _, claim in claims.iterrows():
        source = printed_again if "afl_gce" in claim.losses else printed
        total = int(claim.settings)
        paper = _judge(claim, source, claim.datasets, total, by_means=True)
        runs_there = _judge(claim, ours, claim.datasets, total)
        runs_here = _judge(claim, ours, claim.ours)
        if not claim.metric:
            runs_there = _Judged(claim.answer or "not tested", claim.note)
        rows.append(
            {
                "id": claim["id"],
                "where": claim["where"],
                "claim": claim["claim"],
                "quotes": claim["quotes"],
                "printed": paper.verdict,
                "printed_evidence": (
                    "" if paper.verdict == "not tested" else paper.evidence
                ),
                "verdict": runs_there.verdict,
                "evidence": runs_there.evidence,
                "our_data": runs_here.verdict,
                "our_data_evidence": runs_here.evidence,
            }
        )
    return pd.DataFrame(rows)


_PATTERNS = ("losses", "versus", "metric", "versus_metric", "datasets", "ours")
_WORDS = {
    "op": ("", "<", ">", ">=", "=="),
    "quantifier": ("", "all", "any"),
    "quotes": ("means", "tests", "words"),
}


def _refuse_unknown_words(claims: pd.DataFrame, ours: Study) -> None:
    """Refuse claims that could be judged by another rule, or never, unnoticed."""
    metrics = {*map(str, ours.runs), *map(str, _printed_study(False).runs)}
    of_the_papers = printed_claims()
    for cell in [*of_the_papers.metric, *of_the_papers.versus_metric]:
        metrics.update(cell.split("|"))
    losses = {*LOSSES, *(str(loss) for loss in ours.runs.get("loss", ()))}
    known = {"losses": losses, "versus": losses}
    known |= {"metric": metrics, "versus_metric": metrics} if len(ours.runs) else {}
    for _, claim in claims.iterrows():
        for name in _PATTERNS:
            try:
                re.compile(str(claim[name]))
            except re.error as error:
                problem = f"{name} {claim[name]!r} of {claim['id']!r} is no pattern"
                cure = f"{error}: see the module re of Python"
                _check.fail("claims", problem, cure)
        for name, words in _WORDS.items():
            if name == "op" and claim.metric:
                words = words[1:]  # not blank
            if claim[name] not in words:
                problem = f"{name} {claim[name]!r} of {claim['id']!r} is unknown"
                _check.fail("claims", problem, f"choose one of {words}")
        for name, there in known.items():
            for pattern in _split(str(claim[name])):
                if pattern and not _alternatives(pattern, [*there]):
                    problem = f"{name} {pattern!r} of {claim['id']!r} is unknown"
                    cure = _check.did_you_mean(pattern, sorted(there))
                    _check.fail("claims", problem, cure)


@cache
def _printed_study(repeated: bool) -> Study:
    """The paper's tables as if they were runs with one seed."""
    numbers = published()
    numbers = numbers[(numbers.table == 9) == repeated]
    unit = np.where(numbers.unit == "%", 100, 1)
    wide = numbers.assign(seed=0, value=numbers["mean"] / unit).pivot_table(
        index=["dataset", "model", "loss", "seed"], columns="metric", values="value"
    )
    return Study(wide.reset_index())
