"""The paper's ten tables with ours under each row, and comparisons of losses."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from gcelib import _check
from gcelib.losses import LOSSES
from gcelib.study.alike import setting_as_text
from gcelib.study.data.long_tails import split_name
from gcelib.study.data.ood import is_ood
from gcelib.study.paper.numbers import KEYS, Study, published, tell_other_recipes
from gcelib.study.paper.statistics import holm, interval, numbers_in, wilcoxon

#: Which comparisons are one family for Holm's correction, by the columns they share.
FAMILIES: dict[str, list[str]] = {
    "table": [],
    "dataset": ["dataset"],
    "setting": ["dataset", "model"],
    "rival": ["loss"],
}

# What is special about single tables of the paper.
_WITH_BOTH = (2, 4, 7, 8)  # after ATS, and in brackets before it
_OF_LONG_TAILS = (3, 4)
_OF_AUROC = 5
_OF_SECONDS = 6

#: Our own data: which grid of ``notebooks/grids`` runs a loss there.
_OWN_GRIDS = (
    ("afl_gce", "fashion_mini.*|digit_pairs", "afl_gce"),
    ("demo", "fashion_mini|fashion_mini_lt100|digit_pairs", ".*"),
    ("demo_lt10", "fashion_mini_lt10", ".*"),
    ("fashion_mnist_gpu", "fashion_mnist", ".*"),
)


def own_grid(dataset: str, loss: str) -> str:
    """The grid that runs a loss on data that the paper does not have.

    Parameters
    ----------
    dataset, loss : str

    Returns
    -------
    str
        A name in ``notebooks/grids``; "" if no grid does, and your own would.

    Examples
    --------
    >>> own_grid("fashion_mini", "afl_gce"), own_grid("fashion_mini_lt10", "ce")
    ('afl_gce', 'demo_lt10')
    """
    for grid, datasets, losses in _OWN_GRIDS:
        if re.fullmatch(datasets, dataset) and re.fullmatch(losses, loss):
            return grid
    return ""


def compare(
    results: Study | pd.DataFrame | None,
    baseline: str = "gce",
    metric: str = "test_raw_error",
    variant: str = "",
    confidence: float = 0.95,
    family: str = "table",
) -> pd.DataFrame:
    """One loss against each other in each setting, paired by seed: a row a comparison.

    Parameters
    ----------
    results : Study or DataFrame
        Our runs.
    baseline : str, default "gce"
        The loss that is compared with the others.
    metric : str, default "test_raw_error"
        A column of ``results``. Lower is better, but in columns that end in ``auroc``
        or ``accuracy``; of temperatures p is that the baseline's are lower.
    variant : str, default ""
        Which runs.
    confidence : float, default 0.95
        Of the intervals.
    family : str, default "table"
        Which comparisons ``p_holm`` is corrected for: all of this "table", those of one
        "dataset", of one "setting" (data set and network), or of one "rival" loss. A
        family of more than 51 tests cannot pass 0.05 with ten seeds: the paper's own,
        Appendix C on CIFAR, has 48; all settings of the paper together have 116.

    Returns
    -------
    DataFrame
        dataset, model, loss, metric; n; difference, low, high: the mean of baseline
        minus loss and its interval (fractions, nats); p: exact one-sided Wilcoxon that
        the baseline is better; p_min: the smallest that n seeds allow; comparisons:
        tests in the family; p_holm: p corrected for them.

    Raises
    ------
    ValueError, TypeError
        If a name is misspelt, or ``results`` is no table of runs.

    Examples
    --------
    >>> table = pd.DataFrame({"dataset": "d", "model": "m", "loss": ["gce", "ce"] * 2,
    ...     "seed": [1, 1, 2, 2], "test_raw_error": [0.1, 0.2, 0.2, 0.3]})
    >>> row = compare(table).iloc[0]
    >>> print(row.loss, round(row.difference, 3), row.p)
    ce -0.1 0.25
    """
    study = Study.of(results, variant)
    _check.choice("baseline", baseline, LOSSES)
    shared = FAMILIES[_check.choice("family", family, FAMILIES)]
    if len(study.runs):
        numeric = study.runs.select_dtypes("number").columns
        known = [name for name in numeric if name != "seed"]
        # Numbers that came as text, as from a table that was read so, are read below.
        if metric in study.runs and metric not in KEYS:
            known.append(metric)
        _check.choice("metric", metric, known)
    better = 1 if metric.endswith(("auroc", "accuracy")) else -1
    rows = []
    alone: list[str] = []
    for dataset, model in study.settings:
        mine = study.numbers(dataset, model, baseline, metric)
        for loss in sorted(study.losses(dataset, model)):
            theirs = study.numbers(dataset, model, loss, metric)
            differences = (mine - theirs).dropna()
            if loss == baseline:
                continue
            if differences.empty:
                if len(mine) and len(theirs):
                    alone.append(f"{loss} on {dataset} {model}")
                continue
            spread = interval(differences, confidence)
            p = wilcoxon(better * differences)
            rows.append([dataset, model, loss, metric, len(differences), *spread, p])
    if not rows and not alone and len(study.runs):
        _tell_of_nothing_to_compare(study, baseline, metric)
    if alone:
        shown = ", ".join(alone[:4])
        _check.warn(f"results: {baseline} has no seed in common with {shown}: left out")
    columns = ["dataset", "model", "loss", "metric"]
    columns += ["n", "difference", "low", "high", "p"]
    table = pd.DataFrame(rows, columns=columns)
    table = table.sort_values(["dataset", "model"], kind="stable", ignore_index=True)
    return _with_holm(table, shared)


def _tell_of_nothing_to_compare(study: Study, baseline: str, metric: str) -> None:
    """Warn that a table is empty, and why."""
    losses = sorted(set(study.runs["loss"].astype(str)))
    if baseline not in losses:
        problem = (
            f"no run of {baseline}, of {', '.join(losses)} only; pass another baseline"
        )
    elif losses == [baseline]:
        problem = f"no run of another loss than {baseline}"
    else:
        problem = f"no {metric} of {baseline} and another loss in one setting"
    _check.warn(f"results: {problem}; the table is empty")


def differences(
    one: Study, other: Study, losses: tuple[str, str], metric: str
) -> pd.DataFrame:
    """One loss of a study minus a loss of another, seed by seed: a row a setting.

    Parameters
    ----------
    one, other : Study
        May be one: then two losses of one variant are compared.
    losses : (str, str)
        The first one's and the other's; may be alike in two studies.
    metric : str
        A column of the runs.

    Returns
    -------
    DataFrame
        dataset, model; n, the seeds that both have; difference, low, high: the mean of
        the differences and its 95 % interval, in the metric's unit. Settings where no
        seed is common are left out.

    Warns
    -----
    UserWarning
        If a seed's two runs saw different contents of the data.

    Examples
    --------
    >>> table = pd.DataFrame({"dataset": "d", "model": "m", "loss": ["gce", "ce"] * 2,
    ...     "seed": [1, 1, 2, 2], "test_raw_error": [0.1, 0.2, 0.2, 0.3]})
    >>> study = Study(table)
    >>> row = differences(study, study, ("gce", "ce"), "test_raw_error").iloc[0]
    >>> print(row.dataset, row.model, row.n, round(row.difference, 3))
    d m 2 -0.1
    """
    rows = []
    for setting in one.settings:
        mine = one.numbers(*setting, losses[0], metric)
        theirs = other.numbers(*setting, losses[1], metric)
        gaps = (mine - theirs).dropna()
        if len(gaps):
            rows.append([*setting, len(gaps), *interval(gaps)])
            contents = _contents(one, setting, losses[0])
            others = _contents(other, setting, losses[1])
            n_unlike = int(
                (contents != others.reindex(contents.index))[gaps.index].sum()
            )
            if n_unlike:
                _check.warn(
                    f"differences: of {n_unlike} of {len(gaps)} seeds on "
                    f"{' '.join(setting)} the two runs saw different contents of the "
                    "data, which the difference is of as well; train both on one"
                )
    columns = ["dataset", "model", "n", "difference", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def _contents(study: Study, setting: tuple[str, str], loss: str) -> pd.Series[str]:
    """What each seed's run saw: its data's fingerprint, "" where there is none."""
    runs = study.runs
    dataset, model = setting
    rows = (runs.dataset == dataset) & (runs.model == model) & (runs.loss == loss)
    mine = runs[rows].set_index("seed")
    if "data_fingerprint" not in mine:
        return pd.Series("", mine.index)
    return mine["data_fingerprint"].fillna("").astype(str)


def runs_by_batch_size(results: pd.DataFrame) -> pd.DataFrame:
    """The runs that differ in their batch size alone: their variant is its name.

    Parameters
    ----------
    results : DataFrame
        A row a run.

    Returns
    -------
    DataFrame
        The rows of variant ``b64`` that have batches of 64, and so on, as the grid
        ``batch_size`` names them.

    Examples
    --------
    >>> table = pd.DataFrame({"variant": ["b16", "b2", "big", ""], "batch_size": 16})
    >>> runs_by_batch_size(table)["variant"].tolist()
    ['b16']
    """
    sizes = results["batch_size"].map(lambda size: f"b{setting_as_text(size)}")
    rows: pd.DataFrame = results[results["variant"] == sizes]
    return rows


def _with_holm(table: pd.DataFrame, shared: list[str]) -> pd.DataFrame:
    """``table`` with p_min, comparisons and p_holm; a family shares these columns."""
    groups = [group for _, group in table.groupby(shared)] if shared else [table]
    corrected = pd.Series(np.nan, table.index, dtype="float64")
    sizes = pd.Series(len(table), table.index, dtype="int64")
    for group in groups:
        corrected[group.index] = holm(group.p)
        sizes[group.index] = len(group)
    return table.assign(p_min=0.5**table.n, comparisons=sizes, p_holm=corrected)


_SUMMARY = {
    "error": "test_raw_error",
    "ECE": "test_raw_ece",
    "ECE, TS": "test_ts_nll_ece",
    "ECE, ATS": "test_ats_ece",
    "ECE, ATS converged": "test_ats_converged_ece",
}


def summary(results: Study | pd.DataFrame | None, variant: str = "") -> pd.DataFrame:
    """The outcome in one table: percent, mean ± standard deviation over the seeds.

    Parameters
    ----------
    results : Study or DataFrame
        Our runs.
    variant : str, default ""
        Which of them.

    Returns
    -------
    DataFrame
        dataset, model, loss, n (seeds), error, ECE, and the ECE after one temperature
        fitted by NLL, after ATS at the paper's settings and after converged ATS: text.
        A number that fewer seeds have says so. The standard deviation divides by n - 1.

    Raises
    ------
    ValueError, TypeError
        If ``results`` is no table of runs.

    Examples
    --------
    >>> summary(None).empty
    True
    """
    study = Study.of(results, variant)
    rows = []
    for dataset, model in sorted(study.settings):
        there = study.losses(dataset, model)
        known = [name for name in LOSSES if name in there]
        for loss in known + sorted(set(there) - set(known)):
            values = [
                100 * study.numbers(dataset, model, loss, metric)
                for metric in _SUMMARY.values()
            ]
            n = max(len(column) for column in values)
            texts = []
            for column in values:
                fewer = f" (n = {len(column)})" if 0 < len(column) < n else ""
                texts.append(mean_and_spread(column) + fewer)
            rows.append([dataset, model, loss, n, *texts])
    return pd.DataFrame(rows, columns=["dataset", "model", "loss", "n", *_SUMMARY])


def mean_and_spread(values: ArrayLike) -> str:
    """``"12.34 ± 0.56"``: mean and standard deviation (divided by n - 1).

    Parameters
    ----------
    values : (n,) array-like of float
        Missing ones are left out.

    Returns
    -------
    str
        "" of nothing; without a spread for one value.

    Raises
    ------
    TypeError
        Of a masked array.

    Examples
    --------
    >>> mean_and_spread(pd.Series([1.0, 2.0])), mean_and_spread(pd.Series([1.0]))
    ('1.50 ± 0.71', '1.00')
    """
    numbers = pd.Series(numbers_in("values", values)).dropna()
    if not len(numbers):
        return ""
    spread = f" ± {numbers.std():.2f}" if len(numbers) > 1 else ""
    return f"{numbers.mean():.2f}{spread}"


def table(
    number: int,
    results: Study | pd.DataFrame | None = None,
    variant: str = "",
    tidy: bool = False,
) -> pd.DataFrame:
    """The paper's table with ours under each of its rows, then our own data.

    Our numbers of one row come from the seeds that all its losses have, so that a row
    compares like with like (where no seed is common: each loss's own).

    Parameters
    ----------
    number : int
        1 to 10.
    results : Study or DataFrame, optional
        Our runs.
    variant : str, default ""
        Which of them.
    tidy : bool, default False
        A row a number instead of the paper's layout.

    Returns
    -------
    DataFrame
        In the paper's layout: dataset, model, metric, source ("paper" or "ours"), n
        (the fewest runs of the row), a column a loss with "mean ± std" and, in Tables
        2, 4, 7 and 8, before ATS in brackets ("?": the paper's number is in doubt),
        grid: what fills a blank of ours. Percent; Table 6 seconds. Tidy: dataset,
        model, loss, metric, the paper's mean, std, n, grid, doubt, then our_mean,
        our_std, our_n.
        Table 10 reads test_ats5_ece and its like, Table 6 seconds_per_epoch: see
        :func:`collect`.

    Raises
    ------
    ValueError, TypeError
        If there is no such table, or ``results`` is no table of runs.

    Warns
    -----
    UserWarning
        If runs of the paper's settings were trained with other epochs, batches or
        learning rates than its recipe says.

    Examples
    --------
    >>> table(1).query("dataset == 'av1451'")[["source", "gce", "grid"]].values.tolist()
    [['paper', '36.44 ± 0.87', ''], ['ours', '', 'av1451']]
    """
    study = Study.of(results, variant)
    tell_other_recipes(study)
    columns = ["dataset", "model", "loss", "metric"]
    columns += ["mean", "std", "n", "grid", "doubt"]
    paper = published(number)[columns].reset_index(drop=True)
    scale = 1 if number == _OF_SECONDS else 100
    ours = pd.DataFrame(_ours(study, number, paper, scale))
    cells = paper.assign(order=paper.index)
    keys = ["dataset", "model", "loss", "metric"]
    if ours.empty:
        cells = cells.assign(our_mean=np.nan, our_std=np.nan, our_n=np.nan)
    else:
        cells = cells.merge(ours, "outer", keys)
        cells = cells.sort_values("order", kind="stable", ignore_index=True)
    cells = cells.drop(columns="order")
    missing = cells.grid.isna()
    if missing.any():
        named = [
            own_grid(cell["dataset"], cell["loss"])
            for cell in cells[missing].to_dict("records")
        ]
        cells.loc[missing, "grid"] = named
    cells["doubt"] = cells.doubt.fillna("")
    return cells if tidy else _layout(cells, number, list(paper.loss.unique()))


def _ours(
    study: Study, number: int, paper: pd.DataFrame, scale: float
) -> list[dict[str, Any]]:
    """Our numbers for one table, a dict each: the paper's settings and our own data."""
    metrics = list(paper.metric.unique())
    if number == _OF_AUROC:  # our runs may have met other sets than the paper's
        named = [re.fullmatch(r"(.+)_(raw|ats)_auroc", str(n)) for n in study.runs]
        # A user may have added a column of another meaning, such as a mean over sets.
        metrics = [name[0] for name in named if name and is_ood(name[1])]
    rows = []
    for dataset, model in study.settings:
        if not _belongs(dataset, model, number, paper):
            continue
        here = study.losses(dataset, model)
        losses = [loss for loss in paper.loss.unique() if loss in here]
        for metric in metrics:
            columns = {
                loss: study.numbers(dataset, model, loss, metric) for loss in losses
            }
            for loss, values in _common_seeds(columns).items():
                rows.append(
                    {
                        "dataset": dataset,
                        "model": model,
                        "loss": loss,
                        "metric": metric,
                        "our_mean": scale * values.mean(),
                        "our_std": scale * values.std(),
                        "our_n": len(values),
                    }
                )
    return rows


def _belongs(dataset: str, model: str, number: int, paper: pd.DataFrame) -> bool:
    """Whether a table has this setting: of the paper's data its own, of others all."""
    is_own = ":" in dataset
    has_tail = not is_own and split_name(dataset)[1] is not None
    if has_tail != (number in _OF_LONG_TAILS):
        return False
    if dataset not in set(published().dataset):
        return True
    return (dataset, model) in set(zip(paper.dataset, paper.model, strict=True))


def _common_seeds(columns: dict[str, pd.Series]) -> dict[str, pd.Series]:
    """Each loss's numbers of the seeds that all have; of its own if none is common."""
    filled = {loss: values for loss, values in columns.items() if len(values)}
    seeds = [set(values.index) for values in filled.values()]
    common = sorted(set.intersection(*seeds)) if seeds else []
    if not common:
        return filled
    return {loss: values[common] for loss, values in filled.items()}


def _layout(cells: pd.DataFrame, number: int, losses: list[str]) -> pd.DataFrame:
    """The paper's layout of tidy ``cells``: two lines a row, "paper" and "ours"."""
    lines: dict[tuple[str, ...], dict[str, Any]] = {}
    for cell in cells.to_dict("records"):
        _write_cell(lines, cell, number, losses)
    papers_data = set(published().dataset)
    for (dataset, _, _, source), line in lines.items():
        blanks = [loss for loss in losses if not line[loss]]
        if source == "paper" or not blanks:
            line["grid"] = ""
        elif dataset not in papers_data:
            line["grid"] = _own_grids(dataset, blanks)
    layout = pd.DataFrame.from_dict(lines, orient="index")
    layout = layout.rename_axis(["dataset", "model", "metric", "source"]).reset_index()
    has_numbers = (layout[losses] != "").any(axis=1)
    kept = (layout.source == "ours") | has_numbers
    return layout[kept].reset_index(drop=True)


def _write_cell(
    lines: dict[tuple[str, ...], dict[str, Any]],
    cell: Mapping[Hashable, Any],
    number: int,
    losses: list[str],
) -> None:
    """Put a tidy cell into the lines of its row, which are made where missing.

    Where a table has numbers before and after ATS, those before stand in brackets.
    """
    metric = cell["metric"]
    row = metric
    if number in _WITH_BOTH:
        row = metric.replace("_raw_", "_ats_")
    is_before_ats = row != metric
    printed = _cell_text(cell["mean"], cell["std"])
    if cell["doubt"]:
        printed += "?"
    measured = _cell_text(cell["our_mean"], cell["our_std"])
    sources = [("paper", printed, cell["n"]), ("ours", measured, cell["our_n"])]
    for source, text, n in sources:
        blank = dict.fromkeys(["n", *losses, "grid"], "")
        place = (cell["dataset"], cell["model"], row, source)
        line = lines.setdefault(place, blank)
        in_brackets = f" ({text})" if text else ""
        line[cell["loss"]] += in_brackets if is_before_ats else text
        if not np.isnan(n):
            line["n"] = int(min(n, line["n"] or n))
        line["grid"] = cell["grid"]


def _own_grids(dataset: str, losses: list[str]) -> str:
    """The grids that run these losses on data of our own, each once."""
    grids = dict.fromkeys(own_grid(dataset, loss) for loss in losses)
    return ", ".join(grid for grid in grids if grid)


def _cell_text(mean: float, std: float) -> str:
    """One number of a table; "" if there is none."""
    if np.isnan(mean):
        return ""
    return f"{mean:.2f}" if np.isnan(std) else f"{mean:.2f} ± {std:.2f}"


def number_text(value: float) -> str:
    """A number of a table in text: four significant digits, a whole number in full.

    Parameters
    ----------
    value : float

    Returns
    -------
    str

    Examples
    --------
    >>> number_text(0.123456), number_text(20261126.0)
    ('0.1235', '20261126')
    """
    is_whole = float(value).is_integer() and abs(value) < 2**53
    return f"{value:.0f}" if is_whole else f"{value:.4g}"


def to_markdown(frame: pd.DataFrame) -> str:
    """A table in Markdown.

    Parameters
    ----------
    frame : DataFrame
        An index that names the rows becomes columns; one that counts them is left out.

    Returns
    -------
    str
        Four significant digits, whole numbers in full; NaN is blank, a line break a
        space.

    Examples
    --------
    >>> print(to_markdown(pd.DataFrame({"loss": ["ce"], "error": [0.25]})), end="")
    | loss | error |
    | --- | --- |
    | ce | 0.25 |
    """
    frame = with_row_names(frame)
    header = [_markdown_cell(str(name)) for name in frame]
    rule = ["---"] * frame.shape[1]
    # Row by row: an array of all would make whole numbers fractions.
    rows = [
        [_markdown_cell(value) for value in row]
        for row in frame.itertuples(index=False, name=None)
    ]
    lines = [" | ".join(cells) for cells in [header, rule, *rows]]
    return "".join(f"| {line} |\n" for line in lines)


def with_row_names(table: pd.DataFrame) -> pd.DataFrame:
    """A table whose rows have no names but in columns, first of all.

    Parameters
    ----------
    table : DataFrame

    Returns
    -------
    DataFrame
        With a column for each level of an index that has names or holds texts, as
        ``runs.summary`` and ``groupby`` make them. One of whole numbers without a name
        is left as it is: it counts or numbers the rows, also of a filtered table; name
        it (``rename_axis``) if they mean something.

    Raises
    ------
    ValueError, TypeError
        If it is no DataFrame, or a level and a column have one name and differ.

    Examples
    --------
    >>> table = pd.DataFrame({"ece": [0.1, 0.2]}, index=["raw", "ats"])
    >>> with_row_names(table).columns.tolist()
    ['index', 'ece']
    """
    if not isinstance(table, pd.DataFrame):
        problem = f"must be a DataFrame, got {type(table).__name__}"
        _check.fail("table", problem, "make one of it (to_frame())", TypeError)
    index = table.index
    has_names = any(name is not None for name in index.names)
    is_text = not pd.api.types.is_integer_dtype(index.dtype)
    if not has_names and not (is_text and len(table)):
        return table
    known = [i for i, name in enumerate(index.names) if name in table.columns]
    for i in known:
        name = index.names[i]
        if not index.get_level_values(i).equals(pd.Index(table[name])):
            problem = f"has an index and a column {name!r} of other content"
            _check.fail("table", problem, "rename one of them")
    if len(known) == index.nlevels:
        return table.reset_index(drop=True)
    return table.reset_index(known, drop=True).reset_index()


def _markdown_cell(value: object) -> str:
    """One cell: a bar would end it and a line break the row."""
    if value is None or value is pd.NA or value != value:  # NaN is not itself
        return ""
    text = number_text(value) if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")
