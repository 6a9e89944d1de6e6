"""Numbers that are read from text are those of Python's ``float``."""

import io

import numpy as np
import pandas as pd
import pytest

from gcelib.study import decimals
from gcelib.study.logits_file import load_logits_file

#: What older pandas reads an ulp off, as 0, or by a twentieth too small.
AWKWARD = ("0.000000000000000000123456789", "0.00000000000000012345678901", "1.5E-07")


def texts_and_numbers(n=300):
    drawn = np.random.default_rng(0).random(n)
    texts = [*map(repr, drawn.tolist()), *(f"{p:.18f}" for p in drawn), *AWKWARD]
    return texts, [float(text) for text in texts]


@pytest.mark.parametrize("decimal", [".", ","])
def test_numbers_of_tables_are_read_to_the_last_digit(tmp_path, decimal):
    texts, numbers = texts_and_numbers()
    path = tmp_path / "mine.csv"
    lines = [f"{k % 2};{text.replace('.', decimal)}" for k, text in enumerate(texts)]
    path.write_text("\n".join(["correct;confidence", *lines, ""]))
    assert load_logits_file(path).parts["test"][0].tolist() == numbers
    rests = [repr(1 - number) for number in numbers]
    pairs = zip(texts, rests, strict=True)
    lines = [f"{k % 2};{p};{q}" for k, (p, q) in enumerate(pairs)]
    lines = [line.replace(".", decimal) for line in lines]
    path.write_text("\n".join(["label;prob_0;prob_1", *lines, ""]))
    scores = load_logits_file(path).parts["val"][0]
    assert scores.tolist() == [[p, 1 - p] for p in numbers]


def test_columns_of_text_become_the_same_numbers():
    texts, numbers = texts_and_numbers()
    assert decimals.to_numeric(pd.Series(texts)).tolist() == numbers
    mixed = pd.Series([texts[0], "none", 0.25, None, "1"], dtype=object)
    found = decimals.to_numeric(mixed, "coerce")
    np.testing.assert_array_equal(found, [numbers[0], np.nan, 0.25, np.nan, 1])


@pytest.mark.parametrize(("version", "asks"), [("2.3.3", True), ("3.1.1", False)])
def test_pandas_is_asked_for_exact_numbers_where_it_would_round(
    monkeypatch, version, asks
):
    asked = []
    monkeypatch.setattr(pd, "__version__", version)
    monkeypatch.setattr(pd, "read_csv", lambda source, **options: asked.append(options))
    decimals.read_csv(io.StringIO("p\n0.5"))
    assert asked == [{"float_precision": "round_trip"} if asks else {}]
    mixed = pd.Series(["0.1", "none", 0.25, None], dtype=object)
    found = decimals.to_numeric(mixed, "coerce")
    np.testing.assert_array_equal(found, [0.1, np.nan, 0.25, np.nan])
