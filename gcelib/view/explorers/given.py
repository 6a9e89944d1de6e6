"""What a reliability explorer is given: runs or logits, their samples, and images.

Here is refused, or told, what does not belong together.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sized
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gcelib import metrics
from gcelib._check import (
    as_meant,
    as_tensor,
    fail,
    logits_and_labels,
    refuse_other_columns,
    warn,
    warn_of_impossible_labels,
    warn_of_probabilities,
)
from gcelib.advice.copies import how_many_again
from gcelib.bins import check_confidences

if TYPE_CHECKING:
    from gcelib.study.data import Splits

#: Run folder, or logits (N, K) and labels (N,).
Run: TypeAlias = "str | os.PathLike[str] | tuple[Any, Any]"


def read_pair(name: str, pair: object, form: str = "logits") -> tuple[Tensor, Tensor]:
    """Checked logits, in float32 as they travel, and labels, on the CPU."""
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        problem = f"must hold pairs (logits, labels), got {type(pair).__name__}"
        fail(name, problem, "pass {'gce': (logits, labels)}")
    if form == "confidences":
        values, hits = check_confidences(pair[0], pair[1], (name, "correct"))
        logits = metrics.logits_from_confidences(as_meant(values).double())
        return logits.float(), (hits == 1).long()
    logits, labels = logits_and_labels(*pair)
    if form == "probabilities":
        logits = metrics.logits_from_probabilities(logits)
    else:
        warn_of_probabilities(logits, name)
    warn_of_impossible_labels(logits.cpu(), labels.cpu(), name)
    # Copies: the caller may write to this memory later.
    return _in_float32(logits).cpu().clone(), labels.cpu().clone()


def _in_float32(logits: Tensor) -> Tensor:
    """Logits in float32, which those of float64 are below zero: finest near it."""
    if logits.dtype == torch.float64:
        lowest = torch.finfo(torch.float32).min
        highest = logits.amax(1, keepdim=True)
        logits = (logits / 2 - highest / 2).clamp(min=lowest / 2) * 2
    return logits.float()


def stored_pair(
    name: str, run_dir: str | os.PathLike[str], split: str
) -> tuple[Tensor, Tensor]:
    """The checked logits and labels of a split that a run folder holds."""
    from gcelib.study.runs import load_logits

    return read_pair(name, load_logits(run_dir, split))


def data_of(
    name: str, run_dir: str | os.PathLike[str], labels: Tensor
) -> Splits | None:
    """The data on which a run was trained and tested; None if they are others now.

    ``labels`` are those of the test. Own data may have changed since, and their parts
    hang on the run's seed.
    """
    from gcelib.study import data
    from gcelib.study.runs import read_json

    settings = read_json(Path(run_dir) / "config.json")["settings"]
    dataset, seed = settings["dataset"], settings.get("seed", 1)
    splits = data.load(dataset, seed)
    fingerprint = data.source_of(dataset, seed).fingerprint
    same_data = fingerprint == settings.get("data_fingerprint")
    if same_data and torch.equal(splits.test[1], labels):
        return splits
    warn(
        f"runs: {dataset} has changed since {name!r} was tested on it, so that its "
        "pictures and the names of its classes are not shown; pass images and "
        "class_names if you have those of that time"
    )
    return None


def refuse_other_contents(runs: Mapping[str, Run]) -> None:
    """Refuse runs of one name's data whose content was another, by what they record."""
    from gcelib.study.data import own
    from gcelib.study.functions import is_function
    from gcelib.study.runs import read_json

    own_sets: dict[object, str] = {}
    contents: dict[str, dict[str, object]] = {}
    seen: dict[tuple[object, object], tuple[str, object]] = {}
    for name, run in runs.items():
        if not isinstance(run, (str, os.PathLike)):
            continue
        try:
            settings = read_json(Path(run) / "config.json")["settings"]
        except (OSError, ValueError, KeyError):
            continue  # told where it is needed: not if images and names are given
        place = settings.get("dataset"), settings.get("seed")
        content = settings.get("data_fingerprint")
        other, first = seen.setdefault(place, (name, content))
        if first != content:
            problem = f"{other!r} and {name!r} were tested on different contents of "
            problem += str(settings["dataset"])
            fail("runs", problem, "compare runs of one test set")
        if own.is_own(str(settings.get("dataset"))):
            own_sets.setdefault(content, str(settings["dataset"]))
        if is_function(str(settings.get("dataset"))):
            contents.setdefault(str(settings["dataset"]), {})[name] = content
    for dataset, of_runs in contents.items():
        if len({*of_runs.values()}) > 1:
            warn(
                f"runs: {', '.join(map(repr, of_runs))} have data of their own, by "
                f"their seeds, from {dataset}: if its test part hangs on the seed, the "
                "samples that are compared one by one are not the same"
            )
    of_one_name = any(len({*of_runs.values()}) > 1 for of_runs in contents.values())
    if len(own_sets) > 1 and not of_one_name:
        warn(
            f"runs: they are of other data ({', '.join(own_sets.values())}), taken for "
            "the same samples because the labels of the test are equal: those of folds "
            "in the order of classes are, too"
        )


def warn_of_one_set(
    val: Mapping[str, tuple[Tensor, Tensor]],
    test: Mapping[str, tuple[Tensor, Tensor]],
    given: Mapping[str, tuple[object, object]],
) -> None:
    """Warn if calibrators would be fitted on the very samples that are shown.

    All of them, or some, in any order, also rounded to half precision. ``given`` are
    the scores of both as they came, which have their own types.
    """
    for name in val:
        pairs = zip(val[name], test[name], strict=True)
        which = "are the samples that are shown"
        if not all(torch.equal(fitted, shown) for fitted, shown in pairs):
            fitted, shown = (_as_coarse(as_tensor("val", z)) for z in given[name])
            again = how_many_again(val[name], test[name], (fitted, shown))
            if not again:
                continue
            which = f"hold {again} of the {len(shown):,} samples that are shown"
        warn(
            f"val: those of {name!r} {which}, so that calibrators look better than "
            "they are; fit on other samples"
        )


def scores_of(given: object, stored: tuple[Tensor, Tensor]) -> object:
    """The scores of a pair as they came, or of a run's folder those that it holds."""
    scores: object = given[0] if isinstance(given, (tuple, list)) else stored[0]
    return scores


def _as_coarse(logits: Tensor) -> Tensor:
    """Logits in half precision if they were rounded to it before."""
    logits = logits.cpu()
    for kind in (torch.bfloat16, torch.float16):
        if torch.equal(logits.to(kind).to(logits.dtype), logits):
            return logits.to(kind)
    return logits


def refuse_columns_in_other_orders(
    runs: Mapping[str, object], val: Mapping[str, object]
) -> None:
    """Refuse tables whose columns are those of the first in another order."""
    tables = {
        f"{argument}[{name!r}]": pair[0]
        for argument, pairs in (("runs", runs), ("val", val))
        for name, pair in pairs.items()
        if isinstance(pair, (tuple, list))
    }
    first = next(iter(tables), "")
    for name, table in tables.items():
        refuse_other_columns(tables[first], table, (first, name))


def refuse_other_classes(
    val: Mapping[str, tuple[Tensor, Tensor]], test: Mapping[str, tuple[Tensor, Tensor]]
) -> None:
    """Refuse logits of validation that are of another number of classes."""
    for name in val:
        ours, theirs = (pair[name][0].shape[1] for pair in (val, test))
        if ours != theirs:
            problem = f"of {name!r} has {ours} classes, runs have {theirs}"
            fail("val", problem, "pass logits of one model")


def common_labels(test: Mapping[str, tuple[Tensor, Tensor]]) -> Tensor:
    """The labels of all runs, which must have been tested on the same samples."""
    first = next(iter(test))
    logits, labels = test[first]
    for name, (other_logits, other_labels) in test.items():
        same_shape = other_logits.shape == logits.shape
        if not same_shape or not torch.equal(other_labels, labels):
            problem = f"{first!r} and {name!r} were tested on different samples"
            fail("runs", problem, "compare runs of one test set")
    return labels


def refuse_other_length(name: str, values: Sized, n: int) -> None:
    """Refuse what does not go with the logits, one by one."""
    if len(values) != n:
        problem = f"are {len(values)}, the logits ask for {n}"
        fail(name, problem, "pass those of the tested data")


def checked_images(images: Any) -> npt.NDArray[np.uint8] | None:  # noqa: ANN401
    """Pixels that can be shown, or None for other inputs."""
    if images is None:
        return None
    if not hasattr(images, "ndim"):
        problem = f"must be a tensor or array, got {type(images).__name__}"
        fail("images", problem, "pass numpy.asarray(images)", TypeError)
    if images.ndim != 4:
        return None
    if "uint8" not in str(images.dtype):
        problem = f"have dtype {images.dtype}"
        fail("images", problem, "pass uint8 pixels from 0 to 255", TypeError)
    if images.shape[1] not in (1, 3):
        problem = f"have {images.shape[1]} channels"
        fail("images", problem, "pass (N, C, H, W) with C 1 or 3")
    return np.asarray(images).copy()  # its owner may write into it
