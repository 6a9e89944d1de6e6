"""Numbers in the shape that every table and claim reads: by data set, network, loss."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gcelib import _check
from gcelib.losses import LOSSES
from gcelib.models import MODELS
from gcelib.study import decimals, runs
from gcelib.study.alike import (
    OF_TRAINING,
    as_other_losses,
    setting_as_text,
    unlike_recipe,
)
from gcelib.study.config import RECIPE_NAMES
from gcelib.study.data.long_tails import split_name
from gcelib.study.data.sources import DATASETS

#: What names a run, apart from its variant.
KEYS = ["dataset", "model", "loss", "seed"]
#: Where the paper's numbers and claims lie.
FOLDER = runs.PROJECT / "data" / "paper"
#: What numbers hang on that are not of the training.
_CONDITIONS = (
    ("early_val_error", "eval_every"),
    ("seconds_per_epoch", "device"),
    ("seconds_per_epoch", "threads"),
)
#: What ``cifar10_c`` means when nothing more is said: see ``data.check_ood``.
_PAPERS_CORRUPTION = re.compile("cifar10_c:gaussian_noise(:5)?_")

_A_NUMBER = re.compile(r"\s*[+-]?\d+([.,]0*)?\s*")
_OF_CLASS = re.compile(r"test_raw_error_class\d+")

#: Columns of a results table whose numbers are shares between 0 and 1.
_SHARE = re.compile(
    r"((test|val|half)_\w*(error|ece)(_class\d+)?|early_val_error|\w+_auroc)"
)


def read_csv(path: str | os.PathLike[str], numeric: Iterable[str]) -> pd.DataFrame:
    """A CSV file in which a blank is "", but NaN in the ``numeric`` columns."""
    if not Path(path).is_file():
        problem = f"{path} is not here: the paper's numbers are no part of a wheel"
        _check.fail("paper", problem, "work in a checkout", FileNotFoundError)
    blanks = {name: [""] for name in numeric}
    return decimals.read_csv(path, keep_default_na=False, na_values=blanks)


@cache
def _printed() -> pd.DataFrame:
    """All numbers of the paper's tables; who hands them out copies them."""
    return read_csv(FOLDER / "tables.csv", ["mean", "std", "n"])


def published(table: int | None = None) -> pd.DataFrame:
    """The numbers that the paper prints, a row a number.

    Parameters
    ----------
    table : int, optional
        1 to 10; left out: all of them.

    Returns
    -------
    DataFrame
        table, dataset, model, loss, metric (``_raw_``: before, ``_ats_``: after ATS),
        mean, std, n (runs), unit ("%" or seconds), grid (which of ``notebooks/grids``
        runs it), doubt (why it is uncertain, else ""), note (what our text reads).

    Raises
    ------
    ValueError, TypeError
        If there is no such table.

    References
    ----------
    Zhan, Zhou, Shen, arXiv 2604.06689v1; ``data/paper/README.md`` says how it was read.

    Examples
    --------
    >>> published(1).query("dataset == 'cifar10' and loss == 'gce'")["mean"].tolist()
    [4.75, 4.98, 4.1, 4.93]
    """
    numbers = _printed().copy()
    if table is None:
        return numbers
    number = _check.number("table", table, 1, 10, integer=True)
    rows: pd.DataFrame = numbers[numbers.table == number]
    return rows


class Study:
    """Finished runs of one variant, indexed once; every table and claim reads it.

    Parameters
    ----------
    results : DataFrame, optional
        A row a run, as ``runs.load_results``, :func:`collect` or
        :func:`committed_results` return it; blank text is missing, but for the variant.
        None or an empty table: no runs.
    variant : str, default ""
        Which runs count; "" are the losses as they are.

    Attributes
    ----------
    runs : DataFrame
        The rows that count, with what :func:`derived` adds.
    settings : list of (dataset, model)
        In the order of their first run.
    variant : str
        Which runs these are.

    Raises
    ------
    TypeError, ValueError
        If ``results`` is something else, lacks columns, holds a seed twice, seeds as
        text beside seeds as numbers, which would be no pairs, rows called "mean" or the
        like beside numbered seeds, names of gcelib in
        another spelling (``GCE``), or shares (errors, ECEs, AUROCs) above 1.

    Warns
    -----
    UserWarning
        If seeds of one loss, or losses of one setting, were not trained alike, or not
        on the same data of the user's; if errors early in training were looked at, or
        times were taken, in another way.

    Examples
    --------
    >>> table = pd.DataFrame({"dataset": ["d"], "model": ["m"], "loss": ["ce"],
    ...                       "seed": [1], "test_raw_error": [0.25]})
    >>> Study(table).numbers("d", "m", "ce", "test_raw_error").tolist()
    [0.25]
    """

    def __init__(self, results: pd.DataFrame | None = None, variant: str = "") -> None:
        kept = _one_variant(results, variant)
        _tell_mixed(kept)
        _tell_other_conditions(kept)
        self.runs = derived(kept)
        self.variant = variant
        self._cells: dict[tuple[str, str, str], pd.DataFrame] = {}
        for key, rows in self.runs.groupby(KEYS[:3], sort=False):
            dataset, model, loss = (str(part) for part in key)
            self._cells[dataset, model, loss] = rows.set_index("seed")
        self.settings = list(dict.fromkeys(key[:2] for key in self._cells))

    @staticmethod
    def of(results: Study | pd.DataFrame | None, variant: str = "") -> Study:
        """``results`` if it is a study already, else the study of its ``variant``.

        Parameters
        ----------
        results : Study, DataFrame or None
        variant : str, default ""
            Of a table. A study has its variant, and another one is refused.

        Returns
        -------
        Study

        Raises
        ------
        ValueError
            If a study of one variant is asked for another.
        """
        if not isinstance(results, Study):
            return Study(results, variant)
        if variant not in ("", results.variant):
            problem = f"is {variant!r}, and the study is that of {results.variant!r}"
            _check.fail("variant", problem, "pass the table of all runs in its place")
        return results

    def losses(self, dataset: str, model: str) -> list[str]:
        """The losses with runs in one setting, in the order of their first run.

        Parameters
        ----------
        dataset, model : str
            A data set may be a change, "a->b": losses with runs on both.

        Returns
        -------
        list of str
        """
        needed = _ends_of_change(dataset) or [dataset]
        known = dict.fromkeys(loss for _, _, loss in self._cells)
        found = []
        for loss in known:
            if all((name, model, loss) in self._cells for name in needed):
                found.append(loss)
        return found

    def numbers(self, dataset: str, model: str, loss: str, metric: str) -> pd.Series:
        """One metric of one loss in one setting, by seed.

        Parameters
        ----------
        dataset : str
            A data set, or a change between two: "a->b" is b's number minus a's.
        model, loss, metric : str

        Returns
        -------
        Series of float, indexed by seed
            Without what is missing; empty where nothing was run.

        Raises
        ------
        ValueError
            If the column holds text that is no number.
        """
        ends = _ends_of_change(dataset)
        if ends:
            before, after = ends
            change = self.numbers(after, model, loss, metric)
            return (change - self.numbers(before, model, loss, metric)).dropna()
        rows = self._cells.get((dataset, model, loss))
        if rows is None or metric not in rows:
            return pd.Series(dtype="float64")
        return _as_numbers(rows[metric].dropna())

    def changes(self) -> list[tuple[str, str]]:
        """The settings "a->b" between versions of a data set that differ in their tail.

        Returns
        -------
        list of (str, str)
            Names of changes and their network.
        """
        found = []
        for one, other in itertools.permutations(self.settings, 2):
            before, model = one
            after, other_model = other
            same_data = split_name(before)[0] == split_name(after)[0]
            if same_data and model == other_model:
                found.append((f"{before}->{after}", model))
        return found


def _as_numbers(values: pd.Series) -> pd.Series:
    """A column as numbers, which a file with decimal commas gives as text."""
    if pd.api.types.is_numeric_dtype(values):
        has_own_missing = pd.api.types.is_extension_array_dtype(values)
        return values.astype(float) if has_own_missing else values
    try:
        return decimals.to_numeric(values)
    except (ValueError, TypeError) as error:
        problem = f"hold text in {values.name} ({error})"
        cure = 'write numbers (of decimal commas: pandas.read_csv(..., decimal=","))'
        _check.fail("results", problem, cure)


def _ends_of_change(dataset: str) -> list[str]:
    """Both data sets of a change "a->b"; of own data, whose path may hold it, none."""
    is_change = "->" in dataset and ":" not in dataset
    return dataset.split("->") if is_change else []


def _without_blanks(results: pd.DataFrame) -> pd.DataFrame:
    """A table in which blank text is NaN, and a column of numbers besides is numbers.

    As ``fillna("")`` and ``read_csv(keep_default_na=False)`` leave what was not
    measured. A blank variant is a value.
    """
    if not results.columns.is_unique:  # refused where it matters
        return results
    cleaned = results.copy(deep=False)
    for name in results.columns:
        column = results[name]
        if name == "variant" or pd.api.types.is_numeric_dtype(column):
            continue
        is_blank = column.map(lambda cell: isinstance(cell, str) and not cell.strip())
        is_blank = is_blank.astype(bool)
        if not is_blank.any():
            continue
        known = column.astype(object).mask(is_blank, np.nan)
        if name not in KEYS:
            with contextlib.suppress(ValueError, TypeError):
                known = decimals.to_numeric(known)
        cleaned[name] = known
    return cleaned


def _one_variant(results: pd.DataFrame | None, variant: str) -> pd.DataFrame:
    """The rows of one variant after every check; an empty table has the key columns."""
    advice = "pass the table of runs.load_results"
    if results is not None and not isinstance(results, pd.DataFrame):
        _check.fail("results", f"cannot be {results!r:.40}", advice, TypeError)
    if results is None or results.empty:
        return pd.DataFrame({key: pd.Series(dtype="object") for key in KEYS})
    in_index = {str(name) for name in results.index.names} & {*KEYS, "variant"}
    lacking = sorted(set(KEYS) - set(results.columns))
    if lacking:
        if in_index.issuperset(lacking):
            advice = "these are in the index: pass results.reset_index()"
        _check.fail("results", f"lack the columns {lacking}", advice)
    twice = sorted(in_index & set(results.columns))
    if twice:  # ambiguous to pandas, and the two may differ
        problem = f"have {twice} in the index and as columns"
        _check.fail("results", problem, "pass results.reset_index(drop=True)")
    if not results.columns.is_unique:
        double = sorted(set(map(str, results.columns[results.columns.duplicated()])))
        _check.fail("results", f"hold columns twice: {double[:4]}", "keep one of each")
    kept = results = _without_blanks(results)
    if "variant" in results:
        variants = results["variant"].astype(object).fillna("")
        kept = results[variants == variant]
        if kept.empty:
            there = sorted(set(map(str, variants)))
            _check.warn(f"results: hold no run of variant {variant!r}, but of {there}")
    nameless = kept[KEYS].isna().any(axis=1)
    if nameless.any():  # pandas would leave them out of every group, or pair them
        problem = f"have no data set, network, loss or seed in {nameless.sum()} rows"
        _check.fail("results", problem, "fill them in, or drop these rows")
    if kept["seed"].map(lambda seed: isinstance(seed, str)).nunique() > 1:
        cure = "write them in one way: results['seed'].astype(int)"
        _check.fail("results", "hold seeds as numbers and as text", cure)
    _refuse_rows_of_statistics(kept["seed"])
    if kept.duplicated(KEYS).any():
        problem = f"hold two runs of one seed (variant {variant!r})"
        _check.fail("results", problem, "keep one of them")
    _refuse_other_spellings(kept)
    _refuse_percent(kept)
    return kept


def _refuse_rows_of_statistics(seeds: pd.Series) -> None:
    """Refuse "mean" or "std" below the seeds, which would be runs like the others."""
    names = list(dict.fromkeys(map(str, seeds)))
    others = [name for name in names if not _A_NUMBER.fullmatch(name)]
    if 0 < len(others) < len(names):
        problem = f"hold {others[0]!r} as a seed beside {names[0]!r} and others"
        cure = "drop rows that are no runs (means, spreads), or number the seeds"
        _check.fail("results", problem, cure)


def _refuse_other_spellings(table: pd.DataFrame) -> None:
    """Refuse ``GCE`` for ``gce``: every table here would be blank without a word."""
    names = (set(DATASETS), set(MODELS), set(LOSSES))
    for column, known in zip(KEYS[:3], names, strict=True):
        for name in map(str, table[column].unique()):
            meant = name.strip().casefold()
            without_tail = split_name(meant)[0]
            if name != meant and without_tail in known:
                problem = f"call the {column} {meant!r} {name!r}"
                cure = f"results[{column!r}].str.strip().str.lower()"
                _check.fail("results", problem, f"write {cure}")


def _refuse_percent(table: pd.DataFrame) -> None:
    """Refuse errors and the like that are no shares: differences would be off."""
    for name in filter(_SHARE.fullmatch, map(str, table.columns)):
        values = decimals.to_numeric(table[name], errors="coerce").abs()
        if (values > 1).any():
            problem = f"hold {values.max():g} in {name}, a share between 0 and 1"
            _check.fail("results", problem, "divide percent by 100")


def _tell_mixed(table: pd.DataFrame) -> None:
    """Warn where numbers are put side by side that no seed and no loss sets apart."""
    told = []
    settings = table[KEYS[:2]].drop_duplicates().itertuples(index=False, name=None)
    for dataset, model in settings:
        here = table[(table["dataset"] == dataset) & (table["model"] == model)]
        place = f"{dataset} {model}"
        mixed: list[str] = []
        for loss, rows in here.groupby("loss", sort=False):
            own = _differing(rows, [*OF_TRAINING, "loss_options"])
            told += [f"seeds of {loss} on {place} in {shown}" for shown in own.values()]
            mixed += own
        apart = _differing_by_loss(here)
        told += [
            f"losses on {place} in {shown}"
            for name, shown in apart.items()
            if name not in mixed
        ]
        if _on_other_data(str(dataset), here):
            told.append(
                f"runs on {place} in the data, whose content is not one and the "
                "same (folds that the seed chooses are no fault)"
            )
    if told:
        more = f", and {len(told) - 4} more" if len(told) > 4 else ""
        _check.warn(
            f"results: not trained alike are {', '.join(told[:4])}{more}; a mean or a "
            "difference of such runs mixes experiments: keep those that belong "
            "together, or give each recipe a variant"
        )


def _tell_other_conditions(table: pd.DataFrame) -> None:
    """Warn of numbers that hang on how often, or on what, they were measured."""
    for metric, condition in _CONDITIONS:
        if not {metric, condition} <= set(table.columns):
            continue
        measured = table[table[metric].notna()]
        for (dataset, model), rows in measured.groupby(KEYS[:2], sort=False):
            found = _differing(rows, [condition])
            if found:
                _check.warn(
                    f"results: {metric} of {dataset} {model} cannot be compared, since "
                    f"runs differ in {found[condition]}, on which it hangs"
                )


def _differing_by_loss(rows: pd.DataFrame) -> dict[str, str]:
    """What losses differ in, but for what their recipe gives to one of them alone."""
    apart = _differing(rows, OF_TRAINING)
    if not apart:
        return {}
    there = rows[[name for name in rows if name in {*KEYS, *OF_TRAINING}]]
    alike = [as_other_losses(run) for run in there.to_dict("records")]
    in_spite = _differing(pd.DataFrame(alike, index=rows.index), apart)
    return {name: shown for name, shown in apart.items() if name in in_spite}


def tell_other_recipes(study: Study) -> None:
    """Warn of runs in the place of the paper's that were trained by another recipe.

    Parameters
    ----------
    study : Study
        Of a variant it is not told what its name promises to be other: the loss's
        options, and the recipe itself.
    """
    printed = published()
    papers = set(zip(printed.dataset, printed.model, strict=True))
    told: dict[str, None] = {}  # each once, in order
    read = {*KEYS[:3], *OF_TRAINING, "loss_options", "variant"}
    table = study.runs[[name for name in study.runs if name in read]]
    for run in table.to_dict("records"):
        place = (str(run["dataset"]), str(run["model"]))
        if place not in papers or run["loss"] not in LOSSES:
            continue
        unlike = _unlike_of_variant(run) if run.get("variant") else unlike_recipe(run)
        for what in unlike:
            told[f"{run['loss']} on {' '.join(place)} has {what}"] = None
    if told:
        more = f", and {len(told) - 4} more" if len(told) > 4 else ""
        cure = "give such runs a variant"
        if study.variant:
            cure = f"what is compared then is this training of {study.variant!r}, too"
        _check.warn(
            f"results: runs stand for the paper's that are not by its recipe: "
            f"{', '.join([*told][:4])}{more}; {cure}"
        )


def _unlike_of_variant(run: Mapping[Any, Any]) -> list[str]:
    """Say what a variant's run has otherwise than its recipe trains.

    Of a table that does not record the recipe it is the one that fits best.
    """
    is_recorded = run.get("recipe") in RECIPE_NAMES
    tried = [run]
    if not is_recorded:
        tried = [{**run, "recipe": name} for name in RECIPE_NAMES]
    unlike = min(map(unlike_recipe, tried), key=len)
    return [what for what in unlike if not what.startswith("loss_options")]


def _differing(rows: pd.DataFrame, names: Iterable[str]) -> dict[str, str]:
    """The columns of these names in which runs differ, each with its values."""
    found = {}
    for name in names:
        if name not in rows:
            continue
        values = rows[name]
        if name == "clip_norm":  # None is a value, where a run recorded its settings
            values = values.astype(object).where(values.notna(), "none")
            values = values[rows["recipe"].notna()] if "recipe" in rows else values
        there = list(dict.fromkeys(values.dropna().map(setting_as_text)))
        if len(there) > 1:
            shown = "" if "fingerprint" in name else f" ({', '.join(there[:3])})"
            found[name] = f"{name}{shown}"
    return found


def _on_other_data(dataset: str, rows: pd.DataFrame) -> bool:
    """Whether runs saw different contents under one name.

    A function of the user's may give each seed its own data; a file may not, nor what
    gave several seeds the same.
    """
    if "data_fingerprint" not in rows:
        return False
    seeds_of = rows.groupby("data_fingerprint")["seed"].nunique()
    if len(seeds_of) > 1 and seeds_of.max() > 1:
        return True
    by_name = split_name(dataset)[0] in DATASETS
    if by_name or dataset.startswith(("npz:", "folder:")):
        return bool(rows["data_fingerprint"].nunique() > 1)
    return bool((rows.groupby("seed")["data_fingerprint"].nunique() > 1).any())


def derived(results: pd.DataFrame) -> pd.DataFrame:
    """A results table with the columns that follow from others.

    Parameters
    ----------
    results : DataFrame
        A row a run.

    Returns
    -------
    DataFrame
        With, where their sources are there: ``test_raw_worst_class_error``, the largest
        ``test_raw_error_class<k>``; of ten classes ``test_raw_scarce_error`` and
        ``test_raw_other_error``, the means of classes 7 to 9 (the scarcest three of a
        long tail) and of the other seven; of the user's own data, whose scarcest may be
        others, neither. What was measured on
        ``cifar10_c:gaussian_noise:5`` is called ``cifar10_c``, which is the same.

    Raises
    ------
    ValueError
        If one of these columns holds text that is no number.

    Examples
    --------
    >>> row = {f"test_raw_error_class{k}": [k / 10] for k in range(10)}
    >>> table = derived(pd.DataFrame(row))
    >>> [round(value, 3) for value in table.iloc[0, -3:]]
    [0.9, 0.8, 0.3]
    """
    results = _by_short_names(_without_blanks(results))
    n_classes = sum(_OF_CLASS.fullmatch(str(name)) is not None for name in results)
    of_class = [f"test_raw_error_class{k}" for k in range(n_classes)]
    if not of_class or not set(of_class) <= set(results.columns):
        return results.copy()
    by_class = results[of_class].apply(_as_numbers)
    # Not overwritten where it was counted from more classes than the table shows.
    worst = results.get("test_raw_worst_class_error", pd.Series(np.nan, results.index))
    columns = {
        "test_raw_worst_class_error": _as_numbers(worst).fillna(by_class.max(axis=1))
    }
    if n_classes >= 10:
        has_more_classes = by_class[of_class[10:]].notna().any(axis=1)
        is_left_out = has_more_classes
        if "dataset" in results:  # of own data the scarcest may be others
            is_left_out |= results["dataset"].astype(str).str.contains(":")
        groups = {"scarce": of_class[7:10], "other": of_class[:7]}
        for group, names in groups.items():
            mean = by_class[names].mean(axis=1, skipna=False)
            name = f"test_raw_{group}_error"
            # Whose column it is already chose the classes, perhaps others.
            own = results.get(name, pd.Series(np.nan, results.index))
            columns[name] = _as_numbers(own).fillna(mean.mask(is_left_out))
    fresh = results.drop(columns=list(columns), errors="ignore")
    return pd.concat([fresh, pd.DataFrame(columns, index=results.index)], axis=1)


def _by_short_names(results: pd.DataFrame) -> pd.DataFrame:
    """CIFAR-10-C as in the paper goes by one name, however a run spelt it out."""
    for name in [column for column in map(str, results) if "auroc" in column]:
        spelt_out = _PAPERS_CORRUPTION.match(name)
        if spelt_out is None:
            continue
        short = f"cifar10_c_{name[spelt_out.end() :]}"
        values = results[name]
        if short in results:
            values = results[short].fillna(values)
        results = results.drop(columns=name).assign(**{short: values})
    return results


#: Files of ``data/results`` that hold runs: each is named after the grid that made it.
RESULT_GRIDS = (
    "demo",
    "demo_lt10",
    "batch_size",
    "regularizer",
    "afl_gce",
    "published_code_demo",
    "batch_regularizer",
    "fashion_mnist_gpu",
)


def committed_results() -> pd.DataFrame:
    """The runs that come with the project, a row a run.

    Returns
    -------
    DataFrame
        The files of ``data/results`` named in ``RESULT_GRIDS``, one below the other,
        and beside each run what ``corrections.csv`` adds to it: log-prior and bias,
        worst class, early validation error. ``data/results/README.md`` explains the
        columns. ``variant`` is "" for the losses as they are.

    Examples
    --------
    >>> results = committed_results()
    >>> int(((results.loss == "gce") & (results.dataset == "fashion_mini")
    ...      & (results.variant == "")).sum())
    10
    """
    folder = runs.PROJECT / "data" / "results"
    paths = [folder / f"{name}.csv" for name in RESULT_GRIDS]
    text = {"variant": "str"}
    parts = [decimals.read_csv(path, dtype=text) for path in paths if path.exists()]
    results = pd.concat(parts, ignore_index=True).fillna({"variant": ""})
    corrections = folder / "corrections.csv"
    if corrections.exists():
        extra = decimals.read_csv(corrections, dtype=text).fillna({"variant": ""})
        results = _filled(results, extra, [*KEYS, "variant"])
    return results


def _filled(results: pd.DataFrame, extra: pd.DataFrame, key: list[str]) -> pd.DataFrame:
    """Return ``results`` with what ``extra`` adds: columns, and numbers for blanks."""
    runs_here = pd.MultiIndex.from_frame(results[key])
    aligned = extra.set_index(key).reindex(runs_here).set_index(results.index)
    own = [name for name in aligned if name in results]
    fresh = aligned.drop(columns=own)
    filled = results[own].combine_first(aligned[own])
    return pd.concat([results.drop(columns=own), filled[own], fresh], axis=1)
