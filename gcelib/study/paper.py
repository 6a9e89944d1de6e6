"""The paper's tables and claims as data (``data/paper/``), our runs beside them, and statistics that know their limits.

``results`` is the table of ``runs.load_results``, a row a run. Spread over seeds holds initialisation, data order and
train/validation split, but not the sampling of the test set, which all seeds share: ``binomial_se`` gives that. AFL's
gamma, temperature scaling and ATS all look at the one validation set: ``split_half`` is the control for it.
"""

import re
from functools import partial
from math import ceil, sqrt

import numpy as np
import pandas as pd
from scipy.special import stdtrit
from scipy.stats import rankdata

from gcelib import _check, calibration, metrics
from gcelib.losses import LOSSES
from gcelib.study import runs

KEYS = ["dataset", "model", "loss", "metric"]
_read = partial(pd.read_csv, keep_default_na=False, na_values={name: [""] for name in ("mean", "std", "n")})

#: A row a claim: id, where, claim (our words) and its test; names are regular expressions. In a setting (data set and
#: network, one of ``losses``, ``metric``) the value is ``op`` ``factor`` times that of all | any of ``versus`` (blank:
#: the same loss) at ``versus_metric`` (blank: the same), judged ``by`` mean, 95 % interval or Wilcoxon (p < 0.05). The
#: claim holds if ``need`` of the paper's ``settings`` do. Without a metric no run can test it.
CLAIMS = _read(runs.PROJECT / "data" / "paper" / "claims.csv")


def published(table=None):
    """The numbers that the paper prints in ``table`` (1 to 10; None: all): a row a number, in percent where it does.

    Columns: table, dataset, model, loss, metric (``_raw_``: before, ``_ats_``: after ATS), mean, std, n (runs), unit,
    grid (which of ``notebooks/grids`` runs it), doubt (why it is uncertain, else ""), note (what our text reads).
    """
    numbers = _read(runs.PROJECT / "data" / "paper" / "tables.csv")
    return numbers if table is None else numbers[numbers.table == _check.number("table", table, 1, 10, integer=True)]


def wilcoxon(differences):
    """One-sided p of Wilcoxon's signed-rank test that paired ``differences`` (n,) tend to be positive.

    Exact over the 2^n sign flips for any n, also where test errors tie: equal sizes (to 1e-12) share their mean rank,
    zeros take ranks but no side (Pratt 1959). scipy's ``method="exact"`` knows no ties. The smallest p is 1/2^n.
    """
    d = np.round(np.asarray(differences, dtype=float), 12)
    if d.ndim != 1 or not d.size or not np.isfinite(d).all():
        _check.fail("differences", f"expected n >= 1 finite numbers, got shape {d.shape}", "drop what is missing")
    ranks, ways = (2 * rankdata(abs(d))).astype(int), np.ones(1)  # doubled mean ranks are whole
    for rank in ranks[d != 0]:  # ways[s]: part of sign flips whose positive ranks sum to s
        ways = np.pad(ways, (0, rank)) / 2 + np.pad(ways, (rank, 0)) / 2
    return float(ways[ranks[d > 0].sum() :].sum())


def interval(differences, confidence=0.95):
    """(mean, low, high) of ``differences`` (n,) by Student's t: the bootstrap of five to ten seeds is too narrow.

    nan is what n is too small for: the bounds of one difference, all three of none.
    """
    d, n = np.asarray(differences, dtype=float), len(differences)
    confidence = _check.number("confidence", confidence, 0, 1)
    if not n:
        return np.nan, np.nan, np.nan
    half = stdtrit(n - 1, 0.5 + confidence / 2) * d.std(ddof=1) / sqrt(n) if n > 1 else np.nan
    return d.mean(), d.mean() - half, d.mean() + half


def binomial_se(error, n_test):
    """Standard error of a test ``error`` (fraction) from drawing its ``n_test`` samples, however many seeds."""
    error = _check.number("error", error, 0, 1)
    return sqrt(error * (1 - error) / _check.number("n_test", n_test, 1, integer=True))


def _long(results, variant=""):
    """A row a number; data set "a->b": the change from a to its version b with another tail; place: dataset/model."""
    if not isinstance(results, pd.DataFrame | None):
        _check.fail("results", f"cannot be {results!r:.40}", "pass the table of runs.load_results", TypeError)
    if results is None or results.empty:
        return pd.DataFrame({key: pd.Series(dtype="str") for key in [*KEYS, "place"]} | {"seed": [], "value": []})
    ids = [*KEYS[:3], "seed"]
    if lacking := {*ids} - {*results}:
        _check.fail("results", f"lack the columns {sorted(lacking)}", "pass the table of runs.load_results")
    kept = results[results["variant"].astype(object).fillna("") == variant] if "variant" in results else results
    if kept.duplicated(ids).any():
        _check.fail("results", f"hold two runs of one seed (variant {variant!r})", "keep one of them")
    if {"train_seconds", "epochs"} <= {*kept}:
        kept = kept.assign(seconds_per_epoch=kept.train_seconds / kept.epochs)
    long = kept.melt(ids, kept.select_dtypes("number").columns.difference(ids), "metric").dropna(subset="value")
    both = long.assign(parent=long.dataset.str.split("_lt").str[0])
    both = both.merge(both, on=["parent", *KEYS[1:], "seed"]).query("dataset_x != dataset_y")
    both = both.assign(dataset=both.dataset_x + "->" + both.dataset_y, value=both.value_y - both.value_x)
    long = pd.concat([long, both[long.columns]])
    return long.assign(place=long.dataset + "/" + long.model)


def _match(column, pattern):
    return column.isin([name for name in column.unique() if re.fullmatch(pattern, name)])


def _differences(long, losses, metric, versus="", versus_metric="", factor=1.0):
    """Seed-paired value - factor x other value, grouped by (dataset, model, loss, metric, other, other_metric)."""
    left = long[_match(long.loss, losses) & _match(long.metric, metric)]
    right = long[_match(long.loss, versus or losses) & _match(long.metric, versus_metric or metric)]
    right = right.rename(columns={"loss": "other", "metric": "other_metric"})
    both = left.merge(right, on=["dataset", "model", "seed"])
    both = both[(both.loss == both.other) == (not versus)]
    both = both[bool(versus_metric) | (both.metric == both.other_metric)]
    return (both.value_x - factor * both.value_y).groupby([both[name] for name in [*KEYS, "other", "other_metric"]])


def compare(results, baseline="gce", metric="test_raw_error", variant="", confidence=0.95):
    """``baseline`` against each other loss in each data set and network, paired by seed: a row a comparison.

    difference, low, high: mean of baseline - loss (a fraction) and its interval. p: exact one-sided Wilcoxon that
    ``baseline`` is better (lower; for AUROC higher). p_min: the smallest p that n seeds allow. comparisons: tests in
    this table. p_holm: p corrected for them, at best comparisons x p_min: 66 tests of ten seeds never reach 0.05.
    """
    long, sign, rows = _long(results, variant), 1 if metric.endswith("auroc") else -1, []
    _check.choice("baseline", baseline, LOSSES)
    if len(long):
        _check.choice("metric", metric, long.metric.unique())
    for (dataset, model, _, _, loss, _), d in _differences(long, baseline, metric, ".*"):
        if "->" not in dataset:
            rows.append([dataset, model, loss, metric, len(d), *interval(d, confidence), wilcoxon(sign * d)])
    table = pd.DataFrame(rows, columns=[*KEYS, "n", "difference", "low", "high", "p"])
    holm = (table.p.sort_values() * np.arange(len(rows), 0, -1)).cummax().clip(upper=1)
    return table.assign(p_min=0.5**table.n, comparisons=len(rows), p_holm=holm)


def _judge(claim, long, where, by, total=None):
    """(verdict, evidence) in the settings whose data set/network match ``where``: ``total`` of them, or those found."""
    here, sign = long[_match(long.place, where)], 1 if claim.op[:1] == ">" else -1
    settings, found, any_will_do = {}, [], claim.quantifier == "any"
    test = claim[["losses", "metric", "versus", "versus_metric", "factor"]]
    for key, d in _differences(here, *test) if len(here) and claim.metric else ():
        mean, low, high = interval(d)
        margin = sign * (mean if by == "mean" else low if sign > 0 else high)
        margin = 0.05 - wilcoxon(sign * d) if by == "wilcoxon" else margin
        answer = (d == 0).all() if claim.op == "==" else round(margin, 12) >= (0 if claim.op == ">=" else 1e-12)
        scale = 100 if re.search("error|ece|auroc", key[3]) else 1
        text = f"{key[0]}/{key[1]} {key[2]} {key[3]}: {scale * mean:+.2f} to {key[4] if claim.versus else key[5]}"
        text += f" [{scale * low:+.2f}, {scale * high:+.2f}]" if len(d) > 1 else ""
        answer = bool(answer) if by == "mean" or len(d) > 1 else None
        settings.setdefault(key[:4], []).append((answer, sign * mean, len(d), text))
    asked = (claim.versus.count("|") + 1) * (claim.versus_metric.count("|") + 1)
    for pairs in settings.values():
        answers = [answer for answer, *_ in pairs] + [None] * (asked - len(pairs))
        answer = any_will_do if any_will_do in answers else None if None in answers else not any_will_do
        if answer is not None:
            found.append(min(pair for pair in pairs if pair[0] is answer))
    if not found:
        return "not tested", claim.note
    holding, total, n = sum(pair[0] for pair in found), total or len(found), min(pair[2] for pair in found)
    need = ceil(claim.need / claim.settings * total)
    verdict = "holds" if holding >= need else "does not hold" if len(found) - holding > total - need else "not tested"
    shown = "; ".join(text for *_, text in sorted(found)[:4])  # what fails first, then what barely holds
    return verdict, f"{holding} of {len(found)} (needs {need} of {total}), n = {n}: {shown}"


def check_claims(results=None, variant="", claims=CLAIMS):
    """Each claim of the paper judged by its own tables, by our runs of its settings and by our own data: a row a claim.

    claims: rows of ``CLAIMS``. Returns id, where, claim; printed, verdict, our_data, each with evidence: "holds", "does
    not hold" (also where noise hides it) or "not tested" (runs or seeds lack). Printed means have no seeds, so there
    means decide. Evidence: differences in points (seconds, nats) with intervals, the weakest four settings; n: the
    fewest seeds. Our data are other data than the paper's: they can support or weaken a claim, not settle it.
    """
    ours, rows, index = _long(results, variant), [], [*KEYS[:3], "seed"]
    numbers = published().assign(seed=0, value=lambda frame: frame["mean"] / np.where(frame.unit == "%", 100, 1))
    parts = (numbers[numbers.table != 9], numbers[numbers.table == 9])  # Table 9 repeats some of 1 and 2, five runs
    printed = [_long(part.pivot(index=index, columns="metric", values="value").reset_index()) for part in parts]
    for _, claim in claims.iterrows():
        row = _judge(claim, printed["afl_gce" in claim.losses], claim.datasets, "mean", claim.settings)
        row = (row[0], row[1].replace(", n = 1:", ":") * (row[0] != "not tested"))
        row += _judge(claim, ours, claim.datasets, claim.by, claim.settings) + _judge(claim, ours, claim.ours, claim.by)
        rows.append([*claim[["id", "where", "claim"]], *row])
    columns = "id where claim printed printed_evidence verdict evidence our_data our_data_evidence"
    return pd.DataFrame(rows, columns=columns.split())


def summary(results, variant=""):
    """The outcome in one table: percent, mean ± standard deviation over seeds; a row a data set, network and loss.

    Columns: dataset, model, loss, n (seeds), error, ECE, and the ECE after one temperature (fitted by NLL), after ATS
    at the paper's settings and after converged ATS. results: of ``runs.load_results`` or ``collect``.
    """
    columns = {"error": "raw_error", "ECE": "raw_ece", "ECE, TS": "ts_nll_ece", "ECE, ATS": "ats_ece"}
    columns |= {"ECE, ATS converged": "ats_converged_ece"}
    long, rows = _long(results, variant), []
    for (dataset, model), here in long.groupby(KEYS[:2], sort=False):
        for loss in (name for name in LOSSES if name in set(here.loss)) if "->" not in dataset else ():
            values = [100 * here.value[(here.loss == loss) & (here.metric == f"test_{c}")] for c in columns.values()]
            texts = [f"{v.mean():.2f}" + (f" ± {v.std():.2f}" if len(v) > 1 else "") for v in values]
            rows.append([dataset, model, loss, len(values[0]), *texts])
    return pd.DataFrame(rows, columns=[*KEYS[:3], "n", *columns])


def table(number, results=None, variant="", tidy=False):
    """The paper's table ``number`` with ours under each of its rows, then our own data; percent (Table 6: seconds).

    Text in the paper's layout: a column a loss, "mean ± std", before ATS in brackets, "?" where the paper's number is
    in doubt; n: the fewest runs; grid: what fills a blank of ours. With ``tidy``, a row a number: dataset, model, loss,
    metric, the paper's mean, std, n, grid, doubt, then our_mean, our_std, our_n. Table 10 reads test_ats5_ece etc.
    """
    paper, rows = published(number)[[*KEYS, "mean", "std", "n", "grid", "doubt"]].reset_index(drop=True), {}
    long = _long(results, variant)
    auroc = _match(long.metric, ".*_(raw|ats)_auroc") & (number == 5)
    tail = long.dataset.str.contains("_lt") == (number in (3, 4))
    long = long[long.loss.isin(paper.loss) & (long.metric.isin(paper.metric) | auroc) & tail]
    ours = (long.value * (1 if number == 6 else 100)).groupby([long[key] for key in KEYS])
    ours = ours.agg(our_mean="mean", our_std="std", our_n="count").reset_index().query("~dataset.str.contains('->')")
    cells = paper.reset_index().merge(ours, "outer", KEYS).sort_values("index", kind="stable", ignore_index=True)
    cells = cells.drop(columns="index").fillna({"grid": "demo", "doubt": ""})
    if tidy:
        return cells
    losses = [*paper.loss.unique()]
    for cell in cells.itertuples():
        row = cell.metric.replace("_raw_", "_ats_") if number in (2, 4, 7, 8) else cell.metric
        for source, mark in (("paper", "?" * bool(cell.doubt)), ("ours", "")):
            mean, std, n = cell[5:8] if source == "paper" else cell[10:13]
            text = ("" if np.isnan(mean) else f"{mean:.2f}") + ("" if np.isnan(std) else f" ± {std:.2f}") + mark
            line = rows.setdefault((cell.dataset, cell.model, row, source), dict.fromkeys(["n", *losses, "grid"], ""))
            line[cell.loss] += text if row == cell.metric or not text else f" ({text})"
            line["n"] = line["n"] if np.isnan(n) else int(min(n, line["n"] or n))
            line["grid"] = cell.grid * (source == "ours" and "" in [line[loss] for loss in losses])
    layout = pd.DataFrame.from_dict(rows, "index").rename_axis(["dataset", "model", "metric", "source"]).reset_index()
    return layout[(layout.source == "ours") | (layout[losses] != "").any(axis=1)].reset_index(drop=True)


def to_markdown(frame):
    """``frame`` as a Markdown table without its index; NaN is blank, a line break a space."""
    cells = frame.map(lambda v: "" if pd.isna(v) else f"{v:.4g}" if isinstance(v, float) else str(v)).to_numpy()
    rows = [map(str, frame), ["---"] * frame.shape[1], *cells]
    mend = str.maketrans({"|": "\\|", "\n": " "})
    return "".join("| " + " | ".join(text.translate(mend) for text in row) + " |\n" for row in rows)


def split_half(val, test, calibrator="ats", repeats=20, seed=0, **options):
    """Does sharing the validation set flatter a calibrator? Its ECE from fits on random halves: a row a repeat.

    val, test: pairs (logits (N, K), labels (N,)). full: fitted on all of validation, measured on test. half: fitted on
    half A, on test. seen: on A, on half B; unseen: on A, on as many test samples. Training that looked at validation
    (AFL) makes seen lower than unseen. One run's gap is mostly the luck of its validation draw, and in long tails the
    two differ anyway: average over seeds and compare with CE, which never looked.
    """
    (logits, labels), (z, y) = _check.logits_and_labels(*val), _check.logits_and_labels(*test)
    rng, size, rows = np.random.default_rng(seed), min(len(labels) // 2, len(y)), []
    whole = calibration.make_calibrator(calibrator, **options).fit(logits, labels)
    for _ in range(_check.number("repeats", repeats, 1, integer=True)):
        a, b = np.split(rng.permutation(len(labels))[: 2 * size], 2)
        c = rng.choice(len(y), size, replace=False)
        half = calibration.make_calibrator(calibrator, **options).fit(logits[a], labels[a])
        parts = (whole, z, y), (half, z, y), (half, logits[b], labels[b]), (half, z[c], y[c])
        rows.append([metrics.ece(calibrate(inputs), targets) for calibrate, inputs, targets in parts])
    return pd.DataFrame(rows, columns=["full", "half", "seen", "unseen"])


def collect(runs_dir=None):
    """``runs.load_results`` of finished runs with what only their logits and environments tell: a row a run.

    Adds test_ats{5, 10, 15, 20, 25}_<metric> (Table 10); test_raw_error_class<k> if K <= 10; means of five
    ``split_half`` as half_<fit>_ece for CE and AFL; ts_nll_temperature (above 1: the network claimed too much); the
    versions of torch and gcelib's commit, and the day. About a second a run of 10,000 x 100 logits.
    """
    rows = []
    for row in runs.load_results(runs_dir).to_dict("records"):
        val, test = (runs.load_logits(row["run_dir"], split) for split in ("val", "test"))
        for n_bins in (5, 10, 15, 20, 25):
            calibrate = calibration.AdaptiveTemperatureScaling(n_bins=n_bins).fit(*val)
            numbers = metrics.evaluate(calibrate(test[0]), test[1])
            row |= {f"test_ats{n_bins}_{name}": numbers[name] for name in ("ece", "adaptive_ece", "classwise_ece")}
        if test[0].shape[1] <= 10:
            wrong = pd.Series(test[0].argmax(1) != test[1]).groupby(test[1]).mean()
            row |= wrong.add_prefix("test_raw_error_class").to_dict()
        if row["loss"] in ("ce", "afl"):
            row |= split_half(val, test, repeats=5).mean().add_prefix("half_").add_suffix("_ece").to_dict()
        row["ts_nll_temperature"] = calibration.TemperatureScaling("nll").fit(*val).temperature.item()
        environment = runs.read_metrics(row["run_dir"])[1]
        row |= {name: environment.get(name) for name in ("torch", "commit")}
        rows.append(row | {"day": environment.get("started", "")[:10]})
    return pd.DataFrame(rows)
