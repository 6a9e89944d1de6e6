"""Anybody's logits from one file."""

import zipfile
from pathlib import Path

import numpy as np

from gcelib import _check
from gcelib._check import fail
from gcelib.study.parameters import BadParameter


def load_logits_file(path):
    """Anybody's logits from one file: ``{"val": (logits (N, K), labels (N,)), "test": ...}``, checked numpy arrays.

    ``.npz`` (``numpy.savez``): arrays val_logits, val_labels, test_logits, test_labels. ``.csv``: a line a sample, with
    the columns split ("val" or "test"), label, logit_0 ... logit_{K-1}, in this order. Logits are the floating-point
    scores before the softmax, labels whole numbers in [0, K). The test part may be missing. Nothing is unpickled.
    Raises BadParameter, a ValueError that names the file and what is wrong with it: a missing or unknown name, a hole,
    a truncated file, a wrong shape or dtype, NaN or infinity, test logits that are the validation logits again.
    """
    path = Path(path)
    try:
        if not path.is_file():
            fail(
                "logits",
                f"there is no such file, seen from {Path.cwd()}",
                "give its full path",
            )
        read = {".npz": _read_npz, ".csv": _read_csv}.get(path.suffix.lower())
        parts = (
            read(path)
            if read
            else fail(
                "logits", f"has the suffix {path.suffix!r}", "pass an .npz or .csv file"
            )
        )
        for split, (logits, labels) in parts.items():
            z, y = (
                _check.as_tensor(f"{split}_logits", logits),
                _check.as_tensor(f"{split}_labels", labels),
            )
            _check.check_logits(z, f"{split}_logits")
            if _check.are_probabilities(z):
                raise ValueError(f"{split}_logits: {_check.PROBABILITIES}")
            _check.check_labels(y, *z.shape, name=f"{split}_labels")
            parts[split] = z.numpy(), y.long().numpy()
        if "test" in parts and parts["test"][0].shape[1] != parts["val"][0].shape[1]:
            fail(
                "test_logits",
                "have another number of classes than val_logits",
                "pass logits of one model",
            )
        if "test" in parts and np.array_equal(parts["test"][0], parts["val"][0]):
            fail(
                "test_logits",
                "are val_logits again",
                "leave them out: what a calibrator has seen cannot test it",
            )
        return parts
    except (
        Exception
    ) as error:  # a damaged file makes numpy, zipfile and pandas raise all sorts
        raise BadParameter(f"{path}: {error}") from error


def _read_npz(path):
    if not zipfile.is_zipfile(path):
        fail(
            "logits",
            "is not a whole .npz file",
            "write it with numpy.savez(path, val_logits=..., val_labels=...)",
        )
    file = np.load(path, allow_pickle=False)
    with file:
        if (
            size := sum(m.file_size for m in file.zip.infolist())
        ) > 100 * path.stat().st_size + 2**26:
            fail(
                "logits",
                f"would expand to {size:,} bytes, over 100 times the file",
                "save them with numpy.savez",
            )
        names = [
            f"{split}_{kind}"
            for split in ("val", "test")
            for kind in ("logits", "labels")
        ]
        _check.known_keys("logits", file.files, names)
        for name in names[: 4 if {*names[2:]} & {*file.files} else 2]:
            if name not in file.files:
                fail(
                    name,
                    f"is missing, the file has {', '.join(file.files) or 'nothing'}",
                    "add this array",
                )
        arrays = {}
        for name in file.files:
            try:
                arrays[name] = file[name]
            except ValueError as error:
                if "Object arrays" not in str(error):
                    raise
                fail(
                    name,
                    "holds Python objects, which are never unpickled",
                    "save plain numbers (astype)",
                )
    return {
        name[:-7]: (arrays[name], arrays[f"{name[:-7]}_labels"])
        for name in arrays
        if name[-7:] == "_logits"
    }


def _read_csv(path):
    import pandas as pd

    content = path.read_bytes()
    if not content or content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        fail(
            "logits",
            "is in UTF-16" if content else "is empty",
            "write it as UTF-8 text",
        )
    if not content.endswith((b"\n", b"\r")):
        fail(
            "logits",
            "the last line does not end, as in a truncated file",
            "write the file again, or end the line",
        )
    table = pd.read_csv(path, encoding="utf-8-sig", skip_blank_lines=False)
    names = ["split", "label", *(f"logit_{k}" for k in range(table.shape[1] - 2))]
    if list(table) != names or not isinstance(table.index, pd.RangeIndex):
        fail(
            "columns",
            f"are {', '.join(map(str, table))}"[:200],
            "name them split,label,logit_0,logit_1,...",
        )
    for name, column in table.items():
        if column.isna().any():
            line = int(column.isna().argmax()) + 2
            fail(
                name,
                f"has a hole or NaN in line {line}",
                "fill it or leave the line out",
            )
        if name != "split" and column.dtype.kind not in "iuf":
            fail(
                name,
                f"holds what is not a number, read as {column.dtype}",
                "write plain numbers",
            )
    for split in table["split"].unique():
        _check.choice("split", split, ("val", "test"))
    if "val" not in set(table["split"]):
        fail(
            "split", "no line says val", "calibrators are fitted on validation samples"
        )
    groups = {split: table[table["split"] == split] for split in ("val", "test")}
    return {
        s: (g.iloc[:, 2:].to_numpy(float), g["label"].to_numpy())
        for s, g in groups.items()
        if len(g)
    }
