"""The printed numbers are the paper's, statistics are exact, blanks stay blank."""

import importlib.util
import io
import itertools
import json
import math
import re
import shutil
import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch
from hypothesis import given, settings, strategies as st

import gcelib
from gcelib import calibration, data, losses, metrics, paper, runs, sweeps
from gcelib.study.alike import unlike_recipe
from gcelib.study.paper import report
from gcelib.study.paper.numbers import tell_other_recipes
from gcelib.study.stored import write_record

SEVEN = ["ce", "brier", "mmce", "flsd", "dfl", "afl", "gce"]
KEYS = ["dataset", "model", "loss"]


def runs_of(values, seeds=10, spread=1e-4, **columns):
    """A results table around ``values``: (dataset, model, loss) to {metric: mean}."""
    scatter = spread * np.resize([1, -1, 0.5, -0.5], seeds)
    rows = [
        {"dataset": d, "model": m, "loss": loss, "variant": "", "seed": seed + 1}
        | {
            name: value + scatter[seed] * (1 + 0.1 * k)
            for name, value in numbers.items()
        }
        | columns
        for k, ((d, m, loss), numbers) in enumerate(values.items())
        for seed in range(seeds)
    ]
    return pd.DataFrame(rows)


def as_runs(numbers, **options):
    """Runs whose means are the paper's own ``numbers``."""
    numbers = numbers[numbers.unit == "%"].dropna(subset="mean")
    groups = numbers.groupby(KEYS)
    return runs_of(
        {key: dict(zip(g.metric, g["mean"] / 100, strict=True)) for key, g in groups},
        **options,
    )


@pytest.fixture(scope="module")
def copied():
    """Ten synthetic seeds around everything that the paper prints, Table 9 aside."""
    numbers = paper.published()
    return as_runs(numbers[numbers.table != 9])


def verdicts(results, *ids):
    claims = paper.CLAIMS[paper.CLAIMS.id.isin(ids)] if ids else paper.CLAIMS
    return paper.check_claims(results, claims=claims).set_index("id")


# --- the printed numbers --------------------------------------------------------------


def test_every_table_is_whole():
    numbers = paper.published()
    assert numbers.groupby("table").size().to_dict() == {
        1: 77,
        2: 154,
        3: 56,
        4: 112,
        5: 56,
        6: 14,
        7: 154,
        8: 154,
        9: 24,
        10: 105,
    }
    assert not numbers.duplicated(["table", *KEYS, "metric"]).any()
    blank = numbers[numbers["mean"].isna()]
    assert len(blank) == 1
    assert blank.doubt.str.contains("unreadable").all()
    assert numbers["mean"].dropna().between(0, 100).all()
    assert set(numbers.table[numbers["std"].notna()]) == {1, 3, 6, 9}
    assert set(numbers.loc[numbers.n.isna(), "table"]) == {5, 6}


def test_fifteen_bins_of_table_10_are_tables_2_7_and_8():
    ten = paper.published(10)
    ten = ten[ten.metric.str.contains("ats15")]
    others = pd.concat([paper.published(k) for k in (2, 7, 8)])
    others = others.assign(metric=others.metric.str.replace("_ats_", "_ats15_"))
    both = ten.merge(others, on=[*KEYS, "metric"])
    assert len(both) == 21
    assert (both.mean_x == both.mean_y).all()


def test_gce_is_best_in_8_of_11_and_beats_ce_in_9():
    errors = paper.published(1).pivot(
        index=["dataset", "model"], columns="loss", values="mean"
    )
    assert len(errors) == 11
    assert (errors.idxmin(axis=1) == "gce").sum() == 8
    assert (errors.gce < errors.ce).sum() == 9
    auroc = paper.published(5).pivot(
        index=["model", "metric"], columns="loss", values="mean"
    )
    assert (auroc.idxmax(axis=1) == "afl").sum() == 7


def test_numbers_that_contradict_another_table_are_marked():
    """ECE and AdaECE of the same runs agree within 0.45 points, or a doubt says so."""
    two, seven = (
        paper.published(k)[lambda t: t.metric.str.contains("_raw_")] for k in (2, 7)
    )
    both = two.merge(seven, on=KEYS)
    far = both[(both.mean_x - both.mean_y).abs().gt(0.45) & (both.dataset != "av1451")]
    assert len(far) == 5
    assert (far.doubt_x != "").all()


def test_what_the_readme_says_of_av1451():
    """Errors of 108 samples cannot average to six of the seven printed means."""
    means = paper.published(1).query("dataset == 'av1451'")["mean"]
    reachable = {round(100 * wrong / 1080, 2) for wrong in range(1081)}
    assert sum(mean not in reachable for mean in means) == 6
    assert 100 * paper.binomial_se(0.37, 108) == pytest.approx(4.6, abs=0.05)


def test_published_refuses_a_table_that_does_not_exist():
    with pytest.raises(ValueError, match="table: 11"):
        paper.published(11)


# --- statistics -----------------------------------------------------------------------


def brute_force(d):
    """All 2^n sign flips, with Pratt's ranks."""
    ranks = scipy.stats.rankdata(np.abs(d))
    observed = ranks[d > 0].sum()
    signs = itertools.product(*[(0, 1) if x else (0,) for x in d])
    sums = [float(np.dot(s, ranks)) for s in signs]
    return sum(s >= observed - 1e-9 for s in sums) / len(sums)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.integers(-4, 4), min_size=1, max_size=10))
def test_wilcoxon_counts_every_sign_flip_also_with_ties_and_zeros(steps):
    d = np.array(steps) / 10_000
    assert paper.wilcoxon(d) == pytest.approx(brute_force(d), abs=1e-12)


@pytest.mark.parametrize("n", [2, 5, 10, 15, 25])
def test_wilcoxon_is_scipys_where_nothing_ties(n):
    d = np.random.default_rng(n).normal(0.3, 1, n)
    theirs = scipy.stats.wilcoxon(d, alternative="greater", method="exact").pvalue
    assert paper.wilcoxon(d) == pytest.approx(theirs, rel=1e-12)


def test_wilcoxon_is_scipys_permutation_test_with_ties():
    d = np.array([1, 1, -1, 2, 0, 3, 3, -2, 1, 0]) / 1000
    every = scipy.stats.PermutationMethod(n_resamples=np.inf)
    theirs = scipy.stats.wilcoxon(
        d, alternative="greater", zero_method="pratt", method=every
    ).pvalue
    assert paper.wilcoxon(d) == pytest.approx(theirs, rel=1e-12)


def test_wilcoxon_extremes():
    many = np.random.default_rng(0).normal(size=300)
    theirs = scipy.stats.wilcoxon(many, alternative="greater").pvalue
    assert paper.wilcoxon(many) == pytest.approx(theirs, abs=1e-3)
    assert paper.wilcoxon(np.arange(1, 11)) == 1 / 1024
    assert paper.wilcoxon(-np.arange(1, 11)) == 1
    assert paper.wilcoxon(np.zeros(4)) == 1


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.lists(
        st.tuples(st.integers(900, 1000), st.integers(-3, 3)), min_size=2, max_size=9
    )
)
def test_wilcoxon_ties_survive_rounding(wrong):
    """0.0963 - 0.0962 and 0.0952 - 0.0951 differ as floats, not as errors."""
    theirs, more = np.array(wrong).T
    assert paper.wilcoxon((theirs + more) / 10_000 - theirs / 10_000) == pytest.approx(
        brute_force(more), abs=1e-12
    )


@pytest.mark.parametrize("n_test", [497, 1000, 4000, 4096, 10_000])
@pytest.mark.parametrize("share", [0.02, 0.05])
def test_wilcoxon_ties_survive_float32(n_test, share):
    """As ``(prediction != label).float().mean().item()`` gives errors."""
    rng = np.random.default_rng(n_test)
    for _ in range(12):
        more = rng.integers(-3, 5, 9)
        theirs = rng.integers(int(0.9 * share * n_test), int(share * n_test), 9)
        other, one = (
            k.astype(np.float32) / np.float32(n_test) for k in (theirs, theirs + more)
        )
        expected = pytest.approx(brute_force(more), abs=1e-12)
        assert paper.wilcoxon(one - other) == expected
        assert paper.wilcoxon(one.astype(float) - other.astype(float)) == expected
        errors = np.concatenate([one, other]).astype(float)
        names = {"dataset": "d", "model": "m", "loss": ["ce"] * 9 + ["gce"] * 9}
        table = pd.DataFrame(
            names | {"seed": [*range(9)] * 2, "test_raw_error": errors}
        )
        assert paper.compare(table).p.item() == expected


def test_small_differences_that_are_exact_do_not_tie():
    """Binary fractions, whole numbers and short decimals are no float32."""
    more = np.array([1, -2, 3, 4, -5, 6, 7])
    for unit in (1, 1 / 4096, 1 / 65_536, 1e-6, 1e-9, 2.0**-38):
        assert paper.wilcoxon(unit * more) == pytest.approx(brute_force(more))
    of_pixels = np.array([7, -5, 16, 27, 69, 100, -47, 108, 35, 4])
    for n_pixels in (2**20, 2**21, 2**22, 2**23, 2**20 + 1):
        p = paper.wilcoxon(of_pixels / n_pixels)
        assert p == pytest.approx(brute_force(of_pixels)), n_pixels


@pytest.mark.parametrize("bad", [[], [np.nan, 1], [[1.0, 2.0]]])
def test_wilcoxon_refuses(bad):
    with pytest.raises(ValueError, match="differences"):
        paper.wilcoxon(bad)


def test_interval_is_students():
    d = np.random.default_rng(0).normal(size=10)
    low, high = scipy.stats.t.interval(0.9, 9, d.mean(), scipy.stats.sem(d))
    assert paper.interval(d, 0.9) == pytest.approx((d.mean(), low, high))
    assert np.isnan(paper.interval([1.0])[1:]).all()
    assert np.isnan(paper.interval([])).all()
    with pytest.raises(ValueError, match="confidence: 95 is outside"):
        paper.interval(d, 95)
    for wrong in (np.ones((3, 2)), 1.0):  # it was the spread of six numbers over three
        with pytest.raises(ValueError, match="differences: have shape"):
            paper.interval(wrong)


def test_seeds_that_all_say_the_same_show_nothing_by_that():
    # One sample more of 30, by chance for either loss: two of four draws are alike.
    in_float32 = (np.float32([4, 8]) / np.float32(30)).astype(float)
    in_float32 -= np.float32([3, 7]) / np.float32(30)
    assert in_float32[0] != in_float32[1]
    for alike in ([1 / 30, 1 / 30], [-0.1 - 0.2, -0.3], in_float32):
        mean, low, high = paper.interval(alike)
        assert mean == pytest.approx(alike[0])
        assert np.isnan([low, high]).all()
        claim = pd.Series({"op": ">" if mean > 0 else "<", "quotes": "means"})
        gaps = pd.Series(alike)
        assert paper.evidence_for(claim, gaps, "here to there").answer == "open"
    assert paper.interval([0.0, 0.0]) == (0, 0, 0)  # the same predictions
    # 2 of 2^5 patterns of signs, 6.25 %, are all alike; of six 3.1 %.
    assert np.isnan(paper.interval([0.25] * 5).low)
    assert paper.interval([0.25] * 6).low == 0.25
    assert paper.interval([0.25] * 5, 0.9).low == 0.25


def test_a_variant_without_runs_and_a_column_that_is_there_twice_are_told():
    table = _trained()
    with pytest.warns(UserWarning, match=r"no run of variant 'lng', but of \[''\]"):
        assert paper.compare(table, variant="lng").empty
    twice = pd.concat([table, table[["epochs"]]], axis=1)
    with pytest.raises(ValueError, match=r"hold columns twice: \['epochs'\]"):
        paper.compare(twice)
    with pytest.raises(ValueError, match=r"export_to: .* is a file"):
        paper.export({"table": table}, __file__)


@pytest.mark.parametrize("name", ["dataset", "model", "loss", "seed"])
def test_runs_without_a_name_are_refused_not_left_out(name):
    rows = [
        {
            "dataset": "d",
            "model": "m",
            "loss": loss,
            "seed": seed,
            "test_raw_error": 0.1,
        }
        for loss in ("ce", "gce")
        for seed in (1, 2)
    ]
    table = pd.DataFrame(rows)
    table[name] = table[name].astype(object).mask(table["seed"] == 1)
    with pytest.raises(ValueError, match=r"results: have no .* in 2 rows"):
        paper.compare(table)


def _trained():
    """Runs of two losses with three seeds, and what load_results says of them."""
    means = {("d", "m", loss): {"test_raw_error": 0.1} for loss in ("ce", "gce")}
    usual = {
        "recipe": "paper",
        "epochs": 12,
        "lr": 0.1,
        "momentum": 0.9,
        "clip_norm": None,
    }
    table = runs_of(means, seeds=3, **usual | {"data_fingerprint": None})
    return table.astype({"clip_norm": object, "data_fingerprint": object})


@pytest.mark.parametrize(
    ("column", "rows", "value", "told"),
    [
        ("epochs", [2], 3, r"seeds of ce on d m in epochs \(12, 3\)"),
        ("epochs", [0, 1, 2], 3, r"losses on d m in epochs \(3, 12\)"),
        ("lr", [0, 5], 0.2, "seeds of ce on d m in lr .*, seeds of gce on d m in lr"),
        ("clip_norm", [1], 2.0, r"in clip_norm \(none, 2\)"),
        ("recipe", [3, 4, 5], "published_code", r"losses on d m in recipe \(paper, p"),
        ("momentum", [0, 1, 2], 0.5, r"losses on d m in momentum \(0.5, 0.9\)"),
        ("dataset", [0, 1, 2, 3, 4, 5], "npz:/x.npz", "npz:/x.npz m in the data"),
        ("dataset", [0, 1, 2, 3, 4, 5], "av1451", "av1451 m in the data"),
        ("data_fingerprint", [1], "new", None),  # a function may read by the seed
    ],
)
def test_runs_that_were_not_trained_alike_are_told(column, rows, value, told):
    table = _trained()
    table["data_fingerprint"] = ["a", "b", "c"] * 2
    table.loc[rows, column] = value
    if told is None:
        told = "runs on d m in the data"
    with pytest.warns(UserWarning, match=f"not trained alike are .*{told}"):
        paper.Study(table)


def test_a_function_that_gave_some_seeds_one_content_and_others_another_is_told():
    """It does not read by the seed, so that what it reads has changed in between."""
    table = _trained()
    table["data_fingerprint"] = ["a", "a", "b"] * 2
    with pytest.warns(UserWarning, match="runs on d m in the data"):
        paper.Study(table)


def test_runs_that_were_trained_alike_are_not_told(recwarn):
    table = _trained()
    table["data_fingerprint"] = ["a", "b", "c"] * 2
    paper.Study(table)
    other_kind = table.astype({"epochs": object, "lr": object})
    other_kind.loc[:1, ["epochs", "lr"]] = [12.0, float(np.float32(0.1))]
    paper.Study(other_kind)
    published = table.assign(recipe="published_code", loss=["brier"] * 3 + ["gce"] * 3)
    published["dataset"] = "tiny_imagenet"  # where it treats the Brier loss apart
    published["data_fingerprint"] = None
    published.loc[:2, "lr"] = 0.035
    paper.Study(published)
    results = paper.committed_results()
    for variant in results.variant.unique():
        paper.Study(results, variant)
    assert not len(recwarn)


def test_runs_in_the_papers_place_that_are_shorter_are_told(recwarn):
    means = {("cifar10", "resnet50", "gce"): {"test_raw_error": 0.05}}
    long_enough = runs_of(means, seeds=2, epochs=350, recipe="paper")
    paper.table(1, long_enough)
    assert not len(recwarn)
    short = long_enough.assign(epochs=35)
    named = short.assign(variant="short")
    one = paper.CLAIMS.head(1)
    for look in (
        lambda: paper.table(1, short),
        lambda: paper.check_claims(short, claims=one),
        lambda: paper.table(1, named, "short"),
        lambda: paper.check_claims(named, claims=one, variant="short"),
    ):
        with pytest.warns(UserWarning, match="gce on cifar10 resnet50 has epochs 35 f"):
            look()


@pytest.mark.parametrize("loss", gcelib.LOSSES)
def test_no_run_as_its_recipe_gives_it_is_told(loss, recwarn):
    """On tails, too, whose options and milestones are those of the whole data set."""
    places = paper.published()[["dataset", "model"]].drop_duplicates()
    rows = [
        gcelib.TrainConfig(*place, loss, device="cpu", ood=[]).settings()
        for place in places.itertuples(index=False, name=None)
        if place[0] != "av1451"  # which is not here
    ]
    tell_other_recipes(paper.Study(pd.DataFrame(rows)))
    assert not any("by its recipe" in str(told.message) for told in recwarn)


VARIANTS = {
    "published_code": {"recipe": "published_code"},
    "lambda0.9": {"loss_options": {"regularizer_weight": 0.9}},
}


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("kept", ["all", "no recipe", "few"])
def test_a_variant_is_measured_by_its_own_recipe(name, kept, recwarn):
    dropped = {"all": [], "no recipe": ["recipe"]}
    dropped["few"] = ["recipe", "loss_options", "milestones", "clip_norm"]
    rows = []
    for dataset, model in (("cifar10", "wrn_28_10"), ("tiny_imagenet", "resnet50")):
        for loss in ("ce", "brier", "gce"):
            options = (
                VARIANTS[name] if loss == "gce" or "recipe" in VARIANTS[name] else {}
            )
            config = gcelib.TrainConfig(
                dataset, model, loss, device="cpu", variant=name, ood=[], **options
            )
            rows.append(config.settings() | {"test_raw_error": 0.05})
    table = pd.DataFrame(rows).drop(columns=dropped[kept])
    paper.table(1, table, name)
    assert not any("by its recipe" in str(told.message) for told in recwarn)
    with pytest.warns(UserWarning, match=f"lr 0.7 for .* training of '{name}'"):
        paper.table(1, table.assign(lr=0.7), name)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("weight_decay", 0),
        ("momentum", 0),
        ("augment", False),
        ("milestones", ()),
        ("reduction", "sum"),
        ("clip_norm", 1),
        ("drop_last", True),
        ("loss_options", {"regularizer_weight": 0.5}),
    ],
)
def test_any_setting_that_is_not_the_papers_is_told_of_a_run_in_its_place(name, value):
    config = gcelib.TrainConfig("cifar10", loss="gce", device="cpu")
    run = {**config.settings(), "test_raw_error": 0.05}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        paper.table(1, pd.DataFrame([run]))
    with pytest.warns(UserWarning, match=f"gce on cifar10 resnet50 has {name} "):
        paper.table(1, pd.DataFrame([run | {name: value}]))


@pytest.mark.parametrize(
    ("column", "name", "meant"),
    [
        ("loss", "GCE", "gce"),
        ("loss", "ce ", "ce"),
        ("dataset", "CIFAR10_LT10", "cifar10_lt10"),
        ("model", "ResNet50", "resnet50"),
    ],
)
def test_names_in_another_spelling_are_refused(column, name, meant):
    table = _trained()
    table[column] = table[column].replace(table[column].iloc[-1], name)
    with pytest.raises(ValueError, match=rf"^results: call the {column} '{meant}' '"):
        paper.Study(table)


@pytest.mark.parametrize(
    "column",
    ["test_raw_error", "test_ts_nll_ece", "test_raw_error_class3", "svhn_raw_auroc"],
)
def test_percent_in_the_place_of_shares_is_refused(column):
    table = _trained().assign(**{column: [99.5, *[0.5] * (len(_trained()) - 1)]})
    with pytest.raises(ValueError, match=rf"^results: hold 99.5 in {column}, a share"):
        paper.compare(table, "gce")
    paper.Study(table.assign(**{column: 1.0}))


def test_a_report_says_which_of_several_variants_it_shows(monkeypatch, recwarn):
    table = _trained().assign(variant="a")
    monkeypatch.setattr(report, "collect", lambda folder: table.copy())
    with pytest.warns(UserWarning, match=r"^variant: no run is .* those of 'a'$"):
        assert len(report.open_report("runs")[1].runs) == 6
    assert len(report.open_report("runs", "a")[1].runs) == 6
    assert not len(recwarn)
    table.loc[table.seed == 3, "variant"] = "b"
    with pytest.warns(UserWarning, match=r"^variant: .*'a', of \['a', 'b'\]"):
        _, study = report.open_report("runs")
    assert set(study.runs.variant) == {"a"}
    assert len(report.open_report("runs", "b")[1].runs) == 2


@pytest.mark.parametrize("name", ["mean", "std", "25%", "average", "mean ± std"])
def test_rows_of_statistics_below_the_seeds_are_refused(name, tmp_path):
    table = _trained()
    last = table[table.seed == table.seed.max()].assign(seed=name)
    pd.concat([table, last]).to_csv(tmp_path / "runs.csv", index=False)
    message = rf"hold {re.escape(repr(name))} as a seed beside '1'"
    with pytest.raises(ValueError, match=message):
        paper.compare(pd.read_csv(tmp_path / "runs.csv"))
    named = table.assign(seed=table.seed.map("fold{}".format))
    assert len(paper.compare(named)) == len(paper.compare(table))


def test_seeds_that_cannot_be_paired_are_told():
    table = _trained()
    mixed = table.astype({"seed": object})
    mixed.loc[:2, "seed"] = mixed.loc[:2, "seed"].map(str)
    with pytest.raises(ValueError, match="hold seeds as numbers and as text"):
        paper.compare(mixed)
    table.loc[:2, "seed"] += 10
    with pytest.warns(UserWarning, match="gce has no seed in common with ce on d m"):
        assert paper.compare(table).empty


def test_a_summary_says_where_fewer_seeds_have_a_number():
    table = _trained().assign(test_raw_ece=0.25, loss=["ce"] * 3 + ["mine"] * 3)
    table.loc[2, "test_raw_ece"] = np.nan
    table["test_ats_ece"] = ["0.5", "0.25", "0.75"] * 2  # as another program wrote it
    row, mine = paper.summary(table).to_dict("records")
    assert (row["n"], row["ECE"]) == (3, "25.00 ± 0.00 (n = 2)")
    assert (mine["loss"], mine["ECE, ATS"]) == ("mine", "50.00 ± 25.00")
    with pytest.raises(ValueError, match="hold text in test_ats_ece"):
        paper.summary(table.assign(test_ats_ece="0,5"))


@pytest.mark.parametrize("form", ["fillna", "read_csv"])
def test_blank_cells_of_a_table_are_missing_however_they_are_written(form):
    table = _trained().assign(variant="")
    table["test_ats_ece"] = [0.5, 0.25, 0.75, 0.5, np.nan, np.nan]
    table["cifar10_c_raw_auroc"] = [0.5, 0.75, np.nan, np.nan, np.nan, np.nan]
    table["cifar10_c:gaussian_noise:5_raw_auroc"] = [np.nan] * 2 + [1.0] * 4
    table["epochs"] = [np.nan, 5, 5, 5, 5, 5]
    table["lr"] = [np.nan] + [5e-2] * 5
    if form == "fillna":
        blank = table.astype(object).fillna("")
    else:
        blank = pd.read_csv(io.StringIO(table.to_csv()), keep_default_na=False)
    study = paper.Study(blank)
    for metric, loss, expected in (
        ("test_ats_ece", "ce", {1: 0.5, 2: 0.25, 3: 0.75}),
        ("test_ats_ece", "gce", {1: 0.5}),
        ("cifar10_c_raw_auroc", "ce", {1: 0.5, 2: 0.75, 3: 1.0}),
    ):
        assert study.numbers("d", "m", loss, metric).to_dict() == expected
    compared = paper.compare(blank, metric="test_ats_ece")
    assert compared.n.tolist() == [1]
    short = paper.derived(blank)["cifar10_c_raw_auroc"]
    assert short.tolist() == [0.5, 0.75, 1, 1, 1, 1]


def test_the_worst_class_is_of_all_classes_of_a_table():
    def derived_of(n_classes):
        errors = {f"test_raw_error_class{k}": [k / 100] for k in range(n_classes)}
        return paper.derived(pd.DataFrame(errors)).iloc[0]

    assert derived_of(3).test_raw_worst_class_error == 0.02
    assert "test_raw_scarce_error" not in derived_of(3)
    ten = derived_of(10)
    assert ten.test_raw_worst_class_error == 0.09
    assert ten.test_raw_scarce_error == pytest.approx(0.08)
    hundred = derived_of(100)
    assert hundred.test_raw_worst_class_error == 0.99
    assert math.isnan(hundred.test_raw_scarce_error)
    assert math.isnan(hundred.test_raw_other_error)


def test_a_users_own_means_of_classes_are_kept():
    errors = {f"test_raw_error_class{k}": [k / 100, k / 100] for k in range(10)}
    table = pd.DataFrame({**errors, "test_raw_scarce_error": [0.5, np.nan]})
    for dataset in ("cifar10", "npz:mine.npz"):
        found = paper.derived(table.assign(dataset=dataset)).test_raw_scarce_error
        assert found[0] == 0.5
    assert paper.derived(table).test_raw_scarce_error[1] == pytest.approx(0.08)


@pytest.mark.parametrize("backend", ["numpy_nullable", "pyarrow"])
@pytest.mark.filterwarnings("error")
def test_the_missing_numbers_of_other_kinds_of_columns(backend):
    if backend == "pyarrow":
        pytest.importorskip("pyarrow")
    table = pd.DataFrame(
        {
            **{f"test_raw_error_class{k}": [k / 100, 0.5] for k in range(10)},
            "test_raw_worst_class_error": [None, 0.75],
            "test_raw_scarce_error": [0.25, None],
            "dataset": "cifar10",
        }
    )
    found = paper.derived(table.convert_dtypes(dtype_backend=backend))
    assert found.test_raw_worst_class_error.tolist() == [0.09, 0.75]
    assert found.test_raw_scarce_error.tolist() == [0.25, 0.5]
    assert found.test_raw_other_error.tolist() == pytest.approx([0.03, 0.5])


OTHER_IMAGES = ["svhn", "noise", "cifar10_c", "cifar10_c:fog", "cifar10_c:fog:3"]
OTHER_IMAGES += [name for name, source in data.DATASETS.items() if not source.is_table]


@pytest.mark.parametrize("name", OTHER_IMAGES)
def test_each_set_of_other_images_is_evidence(name):
    claims = paper.printed_claims().set_index("id")
    for claim in ("ood_vs_ce", "ood_behind_afl"):
        assert re.fullmatch(claims.metric[claim], f"{name}_raw_auroc")
    row = {"dataset": "digits", "model": "mlp", "loss": "gce", "seed": 1}
    table = pd.DataFrame([row | {f"{name}_raw_auroc": 0.9}])
    cells = paper.table(5, table, tidy=True)
    assert cells[cells.our_n > 0].our_mean.tolist() == [90]


@pytest.mark.parametrize("name", ["test", "train", "mean", "errors", "all_ood"])
def test_an_auroc_of_another_meaning_is_no_evidence_of_other_images(name):
    ours = paper.committed_results().query("dataset == 'digit_pairs' and variant == ''")
    more = ours.assign(**{f"{name}_raw_auroc": 0.99 - 0.05 * ours.test_raw_error})
    claims = [paper.check_claims(table).set_index("id") for table in (ours, more)]
    for claim in ("ood_vs_ce", "ood_behind_afl"):
        assert claims[0].loc[claim].our_data == claims[1].loc[claim].our_data
    tables = [str(paper.table(5, table)) for table in (ours, more)]
    assert f"{name}_raw" not in tables[1]


def test_a_blank_setting_is_not_known():
    run = {"dataset": "cifar10", "model": "resnet50", "loss": "ce", "momentum": 0.5}
    assert unlike_recipe({**run, "epochs": "", "lr": " "}) == ["momentum 0.5 for 0.9"]


def test_own_data_whose_name_ends_like_a_tail_is_no_tail():
    means = {("npz:/my_lt9.npz", "m", "gce"): {"test_raw_error": 0.05}}
    ours = runs_of(means, seeds=2)
    there = [number for number in (1, 3) if "npz" in str(paper.table(number, ours))]
    assert there == [1]


def test_whole_numbers_are_exported_in_full():
    frame = pd.DataFrame({"seed": [20261126, 1], "n": [123456.0, np.nan], "x": 1 / 3})
    lines = paper.to_markdown(frame).splitlines()
    assert lines[2:] == ["| 20261126 | 123456 | 0.3333 |", "| 1 |  | 0.3333 |"]
    assert "<td>123456</td>" in paper.to_html(frame)


def test_binomial_se_is_the_spread_over_test_sets():
    drawn = np.random.default_rng(0).binomial(400, 0.1, 20_000) / 400
    assert paper.binomial_se(0.1, 400) == pytest.approx(drawn.std(), rel=0.02)
    with pytest.raises(ValueError, match="error"):
        paper.binomial_se(10.0, 400)


def test_compare_pairs_by_seed():
    rng = np.random.default_rng(1)
    # Shared by the losses of a seed: pairing removes it.
    difficulty = rng.normal(0.1, 0.02, 10)
    results = pd.concat(
        pd.DataFrame(
            {
                "dataset": "fashion_mini",
                "model": "convnet",
                "loss": loss,
                "seed": range(10),
                "test_raw_error": difficulty + shift,
            }
        )
        for loss, shift in [("ce", 0.003), ("gce", 0.0), ("afl", -0.001)]
    )
    table = paper.compare(results.sample(frac=1, random_state=0)).set_index("loss")
    assert table.difference.to_dict() == pytest.approx({"ce": -0.003, "afl": 0.001})
    assert table.high["ce"] < -0.0029
    assert table.p.to_dict() == {"ce": 1 / 1024, "afl": 1.0}
    assert (table.p_min == 1 / 1024).all()
    assert table.p_holm.to_dict() == {"ce": 2 / 1024, "afl": 1.0}
    fewer = results[(results.loss != "gce") | (results.seed < 4)]
    assert (paper.compare(fewer).n == 4).all()
    with pytest.warns(UserWarning, match="no run of gce, of afl, ce only"):
        assert paper.compare(fewer[fewer.loss != "gce"]).empty
    with pytest.warns(UserWarning, match="no run of another loss than gce"):
        assert paper.compare(fewer[fewer.loss == "gce"]).empty


def test_differences_pair_a_seed_with_that_of_its_own_network():
    """Also where a run is missing, as in a sweep that has not finished."""
    mixed = {"mlp": {1: 0.3, 2: 0.5, 3: 0.4}, "convnet": {1: 0.9, 2: 0.8, 3: 0.6}}
    plain = {"mlp": {1: 0.2, 2: 0.2, 3: 0.2}, "convnet": {1: 0.7, 2: 0.4}}
    studies = [
        paper.Study(
            pd.DataFrame(
                {"dataset": "d", "model": m, "loss": loss, "seed": seed, "ece": value}
                for m, by_seed in values.items()
                for seed, value in by_seed.items()
            )
        )
        for loss, values in (("gce", mixed), ("ce", plain))
    ]
    table = paper.differences(*studies, ("gce", "ce"), "ece").set_index("model")
    assert table.n.to_dict() == {"mlp": 3, "convnet": 2}
    assert table.difference.to_dict() == pytest.approx({"mlp": 0.2, "convnet": 0.3})
    # Student's t with one degree of freedom: 12.7062; 0.2 and 0.4 have s = 0.1 sqrt(2).
    assert table.low["convnet"] == pytest.approx(0.3 - 12.7062 * 0.1, abs=1e-4)
    assert paper.differences(*studies, ("ce", "gce"), "ece").empty


def test_variants_named_after_their_batch_size_are_told_from_others_with_a_b():
    sizes = {"b16": 16, "b32": 32.0, "b2": 64, "bf16": 16, "big": 16, "b32-x": 32}
    table = pd.DataFrame({"variant": sizes.keys(), "batch_size": sizes.values()})
    assert paper.runs_by_batch_size(table).variant.tolist() == ["b16", "b32"]


def all_seeds_agree(settings):
    """GCE better than six baselines with every one of ten seeds: each p is 1/1024."""
    values = {
        (*setting, loss): {"test_raw_error": 0.2 + 0.01 * (loss != "gce")}
        for setting in settings
        for loss in SEVEN
    }
    return runs_of(values)


def test_holm_lets_the_papers_appendix_pass_and_stops_all_its_settings_together():
    """Appendix C has 8 settings x 6 baselines; all settings of the paper have 116."""
    networks = ["resnet50", "resnet110", "wrn_28_10", "densenet121"]
    cifar = [(d, m) for d in ("cifar10", "cifar100") for m in networks]
    appendix = paper.compare(all_seeds_agree(cifar))
    assert len(appendix) == 48
    assert (appendix.p == 1 / 1024).all()
    assert (appendix.p_holm == 48 / 1024).all()
    assert 48 / 1024 < 0.05
    many = all_seeds_agree([(f"set{k}", "net") for k in range(19)])
    assert (paper.compare(many).p_holm == 114 / 1024).all()
    one_set = paper.compare(many, family="setting")
    assert (one_set.p_holm == 6 / 1024).all()
    assert (one_set.comparisons == 6).all()
    assert (paper.compare(many, family="rival").p_holm == 19 / 1024).all()
    with pytest.raises(ValueError, match="family: unknown 'all'"):
        paper.compare(many, family="all")


def test_holm_is_statsmodels_formula_spelt_out():
    p = np.array([0.04, 0.001, 0.03, 0.2, 0.001])
    order = np.argsort(p, kind="stable")
    slow = np.empty(5)
    running = 0.0
    for position, index in enumerate(order):
        running = max(running, min(1.0, p[index] * (5 - position)))
        slow[index] = running
    assert paper.holm(p).tolist() == pytest.approx(slow.tolist())
    for wrong in ([1.5, 0.1], [-0.2]):
        with pytest.raises(ValueError, match=r"p_values: lie in \["):
            paper.holm(wrong)


@pytest.mark.parametrize("metric", ["svhn_raw_auroc", "my_accuracy"])
def test_compare_knows_that_a_high_auroc_is_good(metric):
    values = {
        ("cifar10", "resnet50", loss): {metric: 0.9 + 0.05 * (loss == "gce")}
        for loss in ("ce", "gce")
    }
    assert paper.compare(runs_of(values), metric=metric).p.item() == 1 / 1024


@pytest.mark.parametrize("names", ["loss", "dataset", ["loss", "seed"]])
def test_a_table_with_its_keys_in_the_index_is_refused_by_what_to_do(names):
    values = {("d", "m", loss): {"test_raw_error": 0.1} for loss in ("ce", "gce")}
    table = runs_of(values)
    for make in (paper.compare, paper.summary, paper.Study):
        with pytest.raises(ValueError, match=r"^results: .*reset_index\(drop=True\)$"):
            make(table.set_index(names, drop=False))
        with pytest.raises(ValueError, match=r"^results: lack .*reset_index\(\)$"):
            make(table.set_index(names))
    by_number = table.rename_axis("run")  # a name of nothing here
    assert paper.compare(by_number).equals(paper.compare(table))


def test_variants_are_kept_apart_and_twins_are_refused():
    values = {
        ("digit_pairs", "convnet", loss): {"test_raw_error": e}
        for loss, e in [("ce", 0.2), ("gce", 0.1)]
    }
    results = pd.concat(
        [runs_of(values), runs_of(values, variant="b1024").assign(test_raw_error=0.3)]
    )
    assert paper.compare(results).difference.item() == pytest.approx(-0.1, abs=1e-3)
    assert paper.compare(results, variant="b1024").difference.item() == 0
    with pytest.raises(ValueError, match="two runs of one seed"):
        paper.compare(pd.concat([runs_of(values)] * 2))
    with pytest.raises(ValueError, match="lack the columns"):
        paper.compare(runs_of(values).drop(columns="seed"))
    with pytest.raises(ValueError, match="did you mean 'test_raw_error'"):
        paper.compare(runs_of(values), metric="test_raw_eror")


# --- claims ---------------------------------------------------------------------------


def test_claims_are_well_formed():
    claims = paper.CLAIMS
    assert claims.id.is_unique
    assert set(claims.quotes) == {"means", "tests", "words"}
    tested = claims[claims.metric != ""]
    assert set(tested.op) <= {"<", ">", ">=", "=="}
    assert set(tested.quantifier) <= {"all", "any"}
    assert (tested.need <= tested.settings).all()
    assert (tested.need > 0).all()
    argued = claims[claims.metric == ""]
    assert argued.answer.isin(["holds", "does not hold", "not shown"]).all()
    assert (argued.note != "").all()


def test_a_lesson_that_a_claim_names_exists():
    notebooks = runs.PROJECT / "notebooks"
    for note in paper.CLAIMS.note:
        for number in re.findall(r"lesson (\d\d)", note):
            assert list(notebooks.glob(f"{number}_*.ipynb")), note
        for grid in re.findall(r"grid: ([\w, ]+)", note):
            for name in grid.split(", "):
                assert (notebooks / "grids" / f"{name}.yaml").exists(), note


def test_every_claim_has_a_verdict_or_says_why_not():
    claims = verdicts(None)
    silent = (claims.verdict == "not tested") & (claims.evidence == "")
    assert not silent.any()


def test_printed_tables_are_judged_as_they_read():
    claims = verdicts(None)
    needs_runs = (paper.CLAIMS.metric != "").to_numpy()
    assert (claims.verdict[needs_runs] == "not tested").all()
    assert (claims.our_data == "not tested").all()
    for claim in (
        "error_vs_ce_count",
        "error_best_count",
        "error_best_cifar100",
        "ood_behind_afl",
        "ats_bins",
        "time_gce",
    ):
        assert claims.printed[claim] == "holds", claim
    # the paper's text says more than its tables
    for claim in (
        "error_vs_ce",
        "ece_vs_ce_ats",
        "ats_calibrates",
        "tail_error_best",
        "hybrid",
    ):
        assert claims.printed[claim] == "does not hold", claim
    assert claims.printed_evidence["error_best_count"].startswith(
        "8 of 11 (needs 8 of 11)"
    )
    assert claims.printed_evidence["error_vs_ce"].startswith("9 of 11 (needs 11 of 11)")
    # ResNet-50 on CIFAR-10 ties: 0.66 and 0.66.
    assert claims.printed_evidence["ece_vs_ce_ats"].startswith("8 of 11")
    # 16.65 - 1.05 x 16.47.
    assert (
        "resnet50 gce seconds_per_epoch: -0.64 to ce"
        in claims.printed_evidence["time_gce"]
    )
    # Where a tie is no improvement.
    assert claims.printed_evidence["hybrid"].startswith("6 of 8")
    # the weakest setting comes first, and in it the nearest rival
    assert (
        ": tiny_imagenet/resnet110 gce test_raw_error: +1.30 to ce;"
        in claims.printed_evidence["error_vs_ce"]
    )
    assert (
        ": cifar100/resnet110 gce test_raw_error: -0.09 to flsd;"
        in claims.printed_evidence["error_best_cifar100"]
    )
    assert (claims.printed_evidence[claims.printed == "not tested"] == "").all()
    # The paper prints no NLL.
    assert claims.printed["nll_overfits_less"] == "not tested"
    # one cell of Table 2 is unreadable: its setting is left out, not guessed
    assert claims.printed_evidence["focal_calibrates"].startswith(
        "29 of 32 (needs 33 of 33)"
    )


def test_runs_that_repeat_the_paper_get_the_papers_verdicts(copied):
    """Ten seeds with hardly any spread: what the means say is shown, ties are not."""
    claims = verdicts(copied)
    tested = claims[(claims.printed != "not tested") & (claims.verdict != "not tested")]
    tested = tested.drop("ece_competitive_ats")  # 0.66 and 0.67 drown in this spread
    assert len(tested) > 20
    agree = tested.verdict == tested.printed
    tied = (tested.printed == "does not hold") & (tested.verdict == "not shown")
    assert (agree | tied).all(), tested[~(agree | tied)][["printed", "verdict"]]
    assert claims.verdict["ece_vs_ce"] == "holds"
    assert "n = 10" in claims.evidence["ece_vs_ce"]
    significant = claims.evidence["error_significant"]  # with WRN CE is better
    assert significant.startswith(
        "7 of 8 (needs 8 of 8), by means alone 7, other way 1"
    )
    assert "n = 10: cifar10/wrn_28_10 gce test_raw_error: +0.04 to ce" in significant


@pytest.mark.parametrize(
    "claim",
    [
        "error_best_count",
        "error_best_cifar100",
        "ece_vs_ce",
        "ood_vs_ce",
        "tail_gain_grows",
    ],
)
def test_verdicts_flip_with_the_numbers(copied, claim):
    """Swapping the names of GCE and CE turns what held around."""
    swapped = copied.assign(loss=copied.loss.replace({"gce": "ce", "ce": "gce"}))
    assert verdicts(copied, claim).verdict.item() == "holds"
    assert verdicts(swapped, claim).verdict.item() == "does not hold"


def test_a_difference_within_the_noise_does_not_hold():
    values = {
        ("fashion_mini", "convnet", "gce"): {"test_raw_error": 0.100},
        ("fashion_mini", "convnet", "ce"): {"test_raw_error": 0.101},
    }
    clear = runs_of(values, spread=1e-4)
    noisy = runs_of(values, spread=0.05)
    ids = "error_vs_ce", "error_vs_ce_count"
    assert verdicts(clear, *ids).our_data.to_list() == ["holds", "holds"]
    # Our data never answer for the paper's.
    assert (verdicts(clear, *ids).verdict == "not tested").all()
    # the paper counts means in the second claim; a claim has to be shown all the same
    judged = verdicts(noisy, *ids)
    assert judged.our_data.to_list() == ["not shown", "not shown"]
    assert judged.our_data_evidence.str.contains("by means alone 1").all()
    # one seed has no interval
    alone = verdicts(clear[clear.seed == 1], *ids)
    assert alone.our_data.to_list() == ["not tested", "not tested"]


def test_a_count_is_judged_only_when_it_is_settled(copied):
    """8 of 11: five that hold leave it open; "on all": one failure is enough."""
    some = verdicts(
        copied[copied.dataset.isin(["cifar100", "av1451"])], "error_best_count"
    )
    assert some.verdict.item() == "not tested"
    assert some.evidence.item().startswith("5 of 5 (needs 8 of 11), by means alone 5")
    worse = copied[copied.dataset.isin(["tiny_imagenet", "cifar10"])]
    assert verdicts(worse, "error_vs_ce").verdict.item() == "does not hold"
    still_open = verdicts(worse, "error_best_count")
    assert still_open.verdict.item() == "not tested"
    assert still_open.evidence.item().startswith("3 of 6 (needs 8 of 11)")


def test_a_count_on_our_data_keeps_the_papers_share():
    """9 of 11 settings are more than 1 of 2."""
    values = {
        (d, "convnet", "gce"): {"test_raw_error": e}
        for d, e in [("fashion_mini", 0.09), ("digit_pairs", 0.11)]
    }
    values |= {
        (d, "convnet", "ce"): {"test_raw_error": 0.1}
        for d in ("fashion_mini", "digit_pairs")
    }
    judged = verdicts(runs_of(values), "error_vs_ce_count")
    assert judged.our_data.item() == "does not hold"
    evidence = judged.our_data_evidence.item()
    assert evidence.startswith("1 of 2 (needs 2 of 2), by means alone 1, other way 1")
    assert "n = 10: digit_pairs/convnet" in evidence


def test_a_missing_loss_leaves_the_comparison_with_all_untested(copied):
    claims = verdicts(
        copied[copied.loss != "brier"], "error_best_cifar100", "error_vs_ce_count"
    )
    assert claims.verdict["error_best_cifar100"] == "not tested"
    assert claims.verdict["error_vs_ce_count"] == "holds"


def test_ats_that_changes_a_prediction_is_noticed():
    values = {
        ("fashion_mini", "convnet", loss): {
            "test_raw_error": 0.1,
            "test_ats_error": 0.1,
        }
        for loss in SEVEN
    }
    results = runs_of(values)
    assert verdicts(results, "ats_keeps_accuracy").our_data.item() == "holds"
    results.loc[3, "test_ats_error"] += 1e-4
    assert verdicts(results, "ats_keeps_accuracy").our_data.item() == "does not hold"


# --- tables ---------------------------------------------------------------------------


@pytest.mark.parametrize("grid", sorted(set(paper.published().grid)))
def test_the_grid_that_a_number_names_runs_it(grid, tmp_path):
    numbers = paper.published()
    wanted = numbers.loc[numbers.grid == grid, ["dataset", "model", "loss"]].itertuples(
        index=False, name=None
    )
    assert {
        (c.dataset, c.model, c.loss) for _, c in sweeps.expand(grid, tmp_path).values()
    } >= set(wanted)


@pytest.mark.parametrize("number", range(1, 11))
def test_without_runs_every_number_of_ours_is_blank_and_names_its_grid(number):
    tidy = paper.table(number, tidy=True)
    shown = paper.table(number)
    assert tidy[["our_mean", "our_std", "our_n"]].isna().all(axis=None)
    assert len(tidy) == len(paper.published(number))
    ours = shown[shown.source == "ours"]
    assert (ours[paper.published(number).loss.unique()] == "").all(axis=None)
    assert set(ours.grid) == set(paper.published(number).grid)
    assert (shown.grid[shown.source == "paper"] == "").all()


def test_our_numbers_stand_beside_the_papers(copied):
    some = copied[
        (copied.dataset != "cifar10") | (copied.loss != "afl") | (copied.seed <= 3)
    ]
    tidy = paper.table(2, some, tidy=True)
    readable = tidy.dropna(subset="mean")
    np.testing.assert_allclose(readable.our_mean, readable["mean"], atol=0.02)
    # a row compares losses, so it uses the seeds that all of them have
    assert set(tidy.our_n[tidy.dataset == "cifar10"]) == {3}
    assert set(tidy.our_n[tidy.dataset == "cifar100"].dropna()) == {10}
    shown = paper.table(2, some).set_index(["dataset", "model", "source"])
    assert shown.loc[("cifar10", "resnet50", "paper"), "ce"] == "0.66 (4.25)"
    assert shown.loc[("cifar10", "densenet121", "paper"), "afl"] == "0.73 (0.10?)"
    assert shown.loc[("cifar100", "resnet50", "paper"), "flsd"] == "1.69 (?)"
    assert re.fullmatch(
        r"0\.6\d ± 0\.\d\d \(4\.2\d ± 0\.\d\d\)",
        shown.loc[("cifar10", "resnet50", "ours"), "ce"],
    )
    assert shown.loc[("cifar10", "resnet50", "ours"), "n"] == 3
    assert shown.loc[("cifar10", "resnet50", "ours"), "grid"] == ""


def test_a_single_seed_has_no_spread():
    results = runs_of(
        {("cifar10", "resnet50", "ce"): {"test_raw_error": 0.05}}, seeds=1, spread=0
    )
    row = (
        paper.table(1, results)
        .set_index(["dataset", "model", "source"])
        .loc[("cifar10", "resnet50", "ours")]
    )
    assert (row.ce, row.n, row.gce, row.grid) == ("5.00", 1, "", "cifar")


def test_our_own_data_get_the_same_layout():
    metrics = {
        "test_raw_error": 0.1,
        "test_raw_ece": 0.03,
        "test_ats_ece": 0.01,
        "test_ats_classwise_ece": 0.01,
        "digits_raw_auroc": 0.9,
        "digits_ats_auroc": 0.8,
    }
    data = [("fashion_mini", "convnet"), ("fashion_mini_lt100", "convnet")]
    values = {
        (*pair, loss): metrics
        for pair in data
        for loss in [*SEVEN, "focal"]
        if loss != "dfl"
    }
    results = runs_of(values, seconds_per_epoch=2.0)
    last = {k: paper.table(k, results).iloc[-1] for k in range(1, 7)}
    assert last[1].dataset == last[2].dataset == last[6].dataset == "fashion_mini"
    assert last[3].dataset == last[4].dataset == "fashion_mini_lt100"
    assert last[1].ce.startswith("10.00 ± ")
    assert (last[1].dfl, last[1].grid) == ("", "demo")
    assert "focal" not in last[1]
    assert last[6].ce == "2.00 ± 0.00"  # seconds an epoch
    assert [*paper.table(5, results).metric[-2:]] == [
        "digits_ats_auroc",
        "digits_raw_auroc",
    ]
    assert not paper.table(1, results).dataset.str.contains("->").any()


def test_odd_input_is_refused_and_said(copied):
    for use in (
        paper.compare,
        paper.check_claims,
        paper.summary,
        lambda results: paper.table(1, results),
    ):
        with pytest.raises(TypeError, match="results: cannot be 'runs'"):
            use("runs")
    with pytest.raises(
        ValueError, match=r"baseline: unknown 'gcee'; did you mean 'gce'\?"
    ):
        paper.compare(copied, "gcee")
    assert (
        paper.to_markdown(pd.DataFrame({"a": ["one\ntwo"]})).splitlines()[2]
        == "| one two |"
    )


def test_tables_survive_csv_and_markdown(copied):
    for frame in (
        paper.table(1, copied),
        paper.table(2, copied, tidy=True),
        paper.check_claims(copied, claims=paper.CLAIMS[::6]),
        paper.compare(copied),
    ):
        back = pd.read_csv(
            io.StringIO(frame.to_csv(index=False)),
            keep_default_na=False,
            na_values={c: [""] for c in frame.select_dtypes("number")},
        )
        pd.testing.assert_frame_equal(back, frame, check_dtype=False)
        lines = paper.to_markdown(frame).splitlines()
        cells = [
            [
                c.strip().replace("\\|", "|")
                for c in line[1:-1].replace("\\|", "\0").split("|")
            ]
            for line in lines
        ]
        cells = [[c.replace("\0", "|") for c in row] for row in cells]
        assert cells[0] == list(frame.columns)
        assert len(lines) == len(frame) + 2
        for row, values in zip(cells[2:], frame.to_numpy(), strict=True):
            for cell, value in zip(row, values, strict=True):
                if isinstance(value, float):
                    assert (cell == "") == np.isnan(value)
                    assert np.isnan(value) or float(cell) == pytest.approx(
                        value, rel=1e-3
                    )
                else:
                    assert cell == str(value).strip()


# --- one validation set for everything ------------------------------------------------


def overconfident(n, seed, factor):
    """Logits (n, 5) of a classifier that is calibrated when divided by ``factor``."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (n, 5))
    cumulative = (np.exp(logits) / np.exp(logits).sum(1, keepdims=True)).cumsum(1)
    return factor * logits, (rng.random((n, 1)) > cumulative).sum(1).clip(max=4)


def test_split_half_sees_nothing_where_nothing_was_shared():
    """Averaged over draws: in one draw, validation itself may be lucky."""
    draws = [
        (overconfident(400, 2 * k, 2.0), overconfident(2000, 2 * k + 1, 2.0))
        for k in range(6)
    ]
    # Flexible: shines where fitted.
    tables = [paper.split_half(*draw, "ats_converged", repeats=3) for draw in draws]
    means = pd.DataFrame([table.mean() for table in tables]).mean()
    assert abs(means.seen - means.unseen) < 0.02
    assert means.half > means.full
    assert tables[0].shape == (3, 4)
    assert tables[0].full.nunique() == 1
    pd.testing.assert_frame_equal(
        tables[0], paper.split_half(*draws[0], "ats_converged", repeats=3)
    )


def test_split_half_sees_a_model_that_was_tuned_on_validation():
    """Confidence that fits validation but not test: seen stays low, unseen does not."""
    table = paper.split_half(
        overconfident(1000, 1, 1.0), overconfident(2000, 2, 2.0), "ats", repeats=3
    )
    assert table.unseen.mean() > table.seen.mean() + 0.03


def test_split_half_refuses_bad_input():
    with pytest.raises(ValueError, match="repeats"):
        paper.split_half(
            overconfident(20, 1, 1.0), overconfident(20, 2, 1.0), repeats=0
        )
    with pytest.raises(ValueError, match="tts_nll"):
        paper.split_half(
            overconfident(20, 1, 1.0), overconfident(20, 2, 1.0), "tts_nll"
        )


# --- what needs run folders -----------------------------------------------------------


@pytest.fixture(scope="module")
def collected(tmp_path_factory):
    """Two finished runs of the committed demo: one of CE, one of AFL."""
    folder = tmp_path_factory.mktemp("collected") / "runs"  # nothing else beside it
    demo = runs.PROJECT / "data" / "demo" / "fashion_mini" / "convnet"
    for loss in ("ce", "afl"):
        run_dir = folder / "fashion_mini" / "convnet" / loss / "seed-01"
        shutil.copytree(demo / loss / "seed-01", run_dir)
        for split in ("val", "test"):  # every fourth sample: quicker
            logits, labels = runs.load_logits(run_dir, split)
            runs.save_logits(run_dir, split, logits[::4], labels[::4])
    return folder, paper.collect(folder)


def test_collect_adds_what_only_logits_tell(collected):
    folder, table = collected
    plain = runs.load_results(folder)
    pd.testing.assert_frame_equal(table[plain.columns], plain)
    row = table[table.loss == "ce"].iloc[0]
    val, test = (runs.load_logits(row.run_dir, split) for split in ("val", "test"))
    five = calibration.AdaptiveTemperatureScaling(n_bins=5).fit(*val)
    assert row.test_ats5_classwise_ece == metrics.classwise_ece(five(test[0]), test[1])
    by_class = [row[f"test_raw_error_class{k}"] for k in range(10)]
    assert row.test_raw_worst_class_error == max(by_class)
    sizes = np.bincount(test[1])
    assert np.average(by_class, weights=sizes) == pytest.approx(metrics.error(*test))
    history = runs.load_history(row.run_dir)
    assert row.early_val_error == history.val_error[:7].mean()  # milestones (7, 10)
    of_class_6 = metrics.error(*(part[test[1] == 6] for part in test))
    assert row.test_raw_error_class6 == pytest.approx(of_class_6)
    temperature = calibration.TemperatureScaling("nll").fit(*val).temperature
    assert row.ts_nll_temperature == temperature.item()
    control = paper.split_half(val, test, repeats=5).mean()
    assert row.half_seen_ece == control.seen
    assert row.half_unseen_ece == control.unseen
    assert table.set_index("loss").half_seen_ece.notna().to_dict() == {
        "ce": True,
        "afl": True,
    }
    assert table.day.str.fullmatch(r"\d{4}-\d\d-\d\d").all()
    ten = paper.table(10, table, tidy=True).query(
        "dataset == 'fashion_mini' and metric == 'test_ats5_ece'"
    )
    assert set(ten.loss[ten.our_n > 0]) == {"ce", "afl"}


def test_a_run_stores_what_collect_measures_of_older_runs(tmp_path, monkeypatch):
    from gcelib import TrainConfig, fit
    from gcelib.study.paper import collecting

    options = {"epochs": 1, "ood": [], "device": "cpu", "runs_dir": str(tmp_path)}
    config = TrainConfig("digits", loss="ce", **options)
    list(fit(config))
    stored = paper.collect(tmp_path).iloc[0]
    folder = config.resolved().run_dir
    today = runs.read_result(folder)
    further = {"ts_nll_temperature", "half_unseen_ece", "test_ats25_adaptive_ece"}
    further |= {"test_raw_error_class9", "test_raw_worst_class_error"}
    assert further <= today.results.keys()
    assert today.results["test_ats15_ece"] == today.results["test_ats_ece"]

    before = {
        name: value
        for name, value in today.results.items()
        if not re.match(
            r"ts_nll_temp|half_|test_ats\d|test_raw_(error|worst)_class", name
        )
    }
    older = runs.Record(today.settings, today.environment, before)
    write_record(folder / "metrics.json", older)
    measured = paper.collect(tmp_path).iloc[0]
    assert set(stored.index) == set(measured.index)
    pd.testing.assert_series_equal(measured[stored.index], stored)

    monkeypatch.setattr(collecting, "measure_further", None)  # not a second time
    again = paper.collect(tmp_path).iloc[0]
    pd.testing.assert_series_equal(again, measured)


@pytest.mark.parametrize("spelling", ["cifar10_c", "cifar10_c:gaussian_noise:5"])
def test_table_5_knows_the_papers_corruption_by_each_of_its_names(spelling):
    row = {"dataset": "cifar10", "model": "resnet50", "loss": "gce", "seed": 1}
    table = pd.DataFrame([row | {f"{spelling}_raw_auroc": 0.9}])
    cells = paper.table(5, table, tidy=True)
    ours = cells[cells.our_n > 0]
    assert ours.metric.tolist() == ["cifar10_c_raw_auroc"]
    assert ours.our_mean.tolist() == [90]
    assert ours["mean"].notna().all()


def better(settings, by):
    """Runs in which GCE is better than CE by so much in each setting."""
    values = {}
    for (dataset, model), gain in zip(settings, by, strict=True):
        values[dataset, model, "ce"] = {"test_raw_error": 0.3}
        values[dataset, model, "gce"] = {"test_raw_error": 0.3 - gain}
    return runs_of(values)


def test_networks_that_the_paper_does_not_have_count_for_no_claim():
    numbers = paper.published(1)
    settings = sorted({*zip(numbers.dataset, numbers.model, strict=True)})
    assert len(settings) == 11
    others = [("cifar10", "convnet"), ("cifar100", "mlp"), ("tiny_imagenet", "mlp")]

    def verdict(settings, by):
        return paper.check_claims(better(settings, by)).set_index("id").verdict

    assert verdict(settings, [0.02] * 11)["error_vs_ce"] == "holds"
    told = pytest.warns(UserWarning, match="cifar10 convnet, .* are no settings of the")
    with told:
        found = verdict(settings + others, [0.02] * 11 + [-0.02] * 3)
    assert found["error_vs_ce"] == "holds"
    with told:
        found = verdict(settings[:10] + others, [0.02] * 13)
    assert found["error_vs_ce"] == "not tested"
    with told:
        assert verdict(others, [0.02] * 3)["error_vs_ce"] == "not tested"


@pytest.mark.parametrize(("need", "settings"), [(29, 35), (7, 25), (9, 11), (3, 3)])
def test_a_share_of_settings_is_rounded_up_exactly(need, settings):
    claim = claim_like("error_vs_ce", need=need, settings=settings, datasets="d.*")
    places = [(f"d{i}", "m") for i in range(settings)]
    table = better(places, [0.02] * settings)
    claims = pd.DataFrame([claim])
    found = paper.check_claims(table, claims=claims).iloc[0]
    assert f"(needs {need} of {settings})" in found.evidence


def test_collect_of_nothing_is_empty(tmp_path):
    assert paper.collect(tmp_path).empty


@pytest.mark.parametrize("below", ["..", "fashion_mini", "fashion_mini/convnet"])
def test_a_folder_above_or_below_that_of_all_runs_is_told(collected, below):
    folder, _ = collected
    with pytest.warns(UserWarning, match="is no folder of runs; pass .*runs"):
        assert runs.load_results(folder / below).empty


def test_summary_is_mean_and_spread_of_the_seeds():
    table = pd.DataFrame(
        [
            {"dataset": "d", "model": "m", "loss": loss, "variant": "", "seed": seed}
            | {
                f"test_{name}": 0.1 * seed
                for name in ("raw_error", "raw_ece", "ts_nll_ece", "ats_ece")
            }
            | {"test_ats_converged_ece": 0.01}
            for loss, seeds in (("gce", 2), ("ce", 1))
            for seed in range(1, seeds + 1)
        ]
    )
    summary = paper.summary(table)
    assert summary.loss.tolist() == ["ce", "gce"]  # the paper's order
    assert summary.n.tolist() == [1, 2]
    assert summary["error"].tolist() == ["10.00", "15.00 ± 7.07"]
    assert summary["ECE, ATS converged"].tolist() == ["1.00", "1.00 ± 0.00"]
    assert paper.summary(None).empty
    assert paper.summary(table, variant="b16").empty


FOLDER = runs.PROJECT / "data" / "results"
#: data/results/README.md says so, too.
WITH_THE_FIRST_SPLINE = ("demo", "demo_lt10", "batch_size")
RESULTS = [name for name in paper.RESULT_GRIDS if (FOLDER / f"{name}.csv").exists()]


@pytest.mark.parametrize("name", RESULTS)
def test_committed_results_are_whole_and_agree_with_the_demo_runs(name):
    path = FOLDER / f"{name}.csv"
    table = pd.read_csv(path, dtype={"variant": "str"})
    grid = sweeps.expand(path.stem, "elsewhere").values()
    key = ["dataset", "model", "loss", "variant", "seed"]
    asked = sorted(tuple(getattr(config, name) for name in key) for _, config in grid)
    assert sorted(table[key].fillna("").itertuples(index=False, name=None)) == asked
    demo = runs.load_results(runs.PROJECT / "data" / "demo")
    both = table.fillna({"variant": ""}).merge(demo, on=key, suffixes=("", "_demo"))
    for name in [
        name for name in table if f"{name}_demo" in both and name.startswith("test_")
    ]:
        if "spline" in name and path.stem not in WITH_THE_FIRST_SPLINE:
            continue  # the demo runs hold what the first version made
        # Six digits.
        assert np.allclose(both[name], both[f"{name}_demo"], rtol=1e-5), name
    for fit in ("ts_nll", "ts_ece", "ats", "ats_converged"):
        assert (table[f"test_{fit}_error"] == table.test_raw_error).all()


# --- the rule -------------------------------------------------------------------------


def claim_like(name, **changes):
    row = paper.CLAIMS[paper.CLAIMS.id == name].iloc[0].copy()
    for key, value in changes.items():
        row[key] = value
    return row


def test_a_mean_alone_shows_nothing():
    """-0.01 points with an interval of ±0.09 is no lowest error."""
    noise = pd.Series(np.random.default_rng(3).normal(-1e-4, 12e-4, 10))
    assert noise.mean() < 0
    found = paper.evidence_for(claim_like("tail_classwise_best"), noise, "here to ce")
    assert found.answer == "open"
    assert found.low < 0 < found.high


@pytest.mark.parametrize(
    ("op", "shift", "answer"),
    [
        ("<", -1, "shown"),
        ("<", +1, "other way"),
        (">", +1, "shown"),
        (">", -1, "other way"),
        (">=", +1, "shown"),
        (">=", -1, "other way"),
    ],
)
def test_evidence_knows_its_sides(op, shift, answer):
    gaps = pd.Series(np.linspace(-0.1, 0.1, 10) + shift)
    claim = claim_like("error_vs_ce", op=op)
    found = paper.evidence_for(claim, gaps, "here to ce")
    assert found.answer == answer
    assert (found.in_favour > 0) == (answer == "shown")


def test_evidence_of_none_and_of_one():
    claim = claim_like("error_vs_ce")
    for gaps in ([], [-0.5]):
        found = paper.evidence_for(claim, pd.Series(gaps, dtype=float), "here to ce")
        assert found.answer == "missing"


def test_combine_is_a_truth_table():
    assert paper.combine(["shown", "shown"], "all") == "shown"
    assert paper.combine(["shown", "open"], "all") == "open"
    assert paper.combine(["shown", "missing"], "all") == "missing"
    assert paper.combine(["other way", "missing"], "all") == "other way"
    assert paper.combine(["shown", "other way", "missing"], "any") == "shown"
    assert paper.combine(["other way", "other way"], "any") == "other way"
    assert paper.combine(["other way", "open"], "any") == "open"
    assert paper.combine([], "all") == "missing"


@pytest.mark.parametrize("total", [1, 2, 3, 4])
def test_the_verdict_is_what_every_completion_of_the_missing_runs_agrees_on(total):
    """Settled only if no outcome of the missing settings could change it."""
    words = ("shown", "other way", "open")
    for needed in range(1, total + 1):
        for answers in itertools.product((*words, "missing"), repeat=total):
            blanks = answers.count("missing")
            if blanks == total:
                assert paper.verdict(answers, needed, total) == "not tested"
                continue
            known = [answer for answer in answers if answer != "missing"]
            could = set()
            for rest in itertools.product(words, repeat=blanks):
                full = [*known, *rest]
                holds = full.count("shown") >= needed
                fails = full.count("other way") > total - needed
                could.add("holds" if holds else "does not hold" if fails else "open")
            said = paper.verdict(answers, needed, total)
            if said in ("holds", "does not hold"):
                assert could == {said}
            elif said == "not shown":
                assert "holds" not in could
            else:
                assert "holds" in could
                assert len(could) > 1


@pytest.mark.parametrize(
    ("needed", "total", "rivals", "quantifier"),
    [(1, 4, 1, "all"), (3, 4, 2, "all"), (4, 4, 2, "all"), (1, 1, 3, "any")],
)
def test_luck_alone_gives_a_verdict_in_one_of_twenty_cases_at_most(
    needed, total, rivals, quantifier
):
    """No loss differs from another: a verdict, either way, is a false alarm."""
    rng = np.random.default_rng(0)
    claim = claim_like("error_vs_ce")
    chances = paper.chances_of_luck(needed, total, rivals, quantifier)
    trials = 300
    alarms = 0
    for study in rng.normal(size=(trials, total, rivals, 6)):
        answers = [
            paper.combine(
                [
                    paper.evidence_for(
                        claim, pd.Series(gaps), "here to ce", chances=chances
                    ).answer
                    for gaps in setting
                ],
                quantifier,
            )
            for setting in study
        ]
        alarms += paper.verdict(answers, needed, total) != "not shown"
    # two verdicts, each at 5 % at most; two-sided intervals halve that
    assert alarms <= 0.05 * trials + 3 * np.sqrt(0.05 * 0.95 * trials)


def test_changes_between_data_sets_are_asked_for_by_name():
    values = {
        (dataset, "convnet", loss): {"ts_nll_temperature": t, "test_raw_error": t / 10}
        for dataset, shift in (("fashion_mini", 0), ("fashion_mini_lt10", 1))
        for loss, t in (("gce", 1.0 + shift), ("ce", 1.5 + 2 * shift))
    }
    judged = verdicts(runs_of(values), "less_overconfident", "tail_gain_over_ce")
    assert "2 of 2" in judged.our_data_evidence["less_overconfident"]
    assert (
        "fashion_mini->fashion_mini_lt10"
        in judged.our_data_evidence["tail_gain_over_ce"]
    )


# --- what the tables must not mix -----------------------------------------------------


def test_table_9_compares_common_seeds():
    """Parents with ten seeds beside a hybrid with five: five of each."""
    ten = {
        ("tiny_imagenet", "resnet50", k): {"test_raw_error": 0.5}
        for k in ("afl", "gce")
    }
    five = {("tiny_imagenet", "resnet50", "afl_gce"): {"test_raw_error": 0.5}}
    parents = runs_of(ten)
    parents.loc[parents.seed > 5, "test_raw_error"] = 0.9
    tidy = paper.table(9, pd.concat([parents, runs_of(five, seeds=5)]), tidy=True)
    row = tidy[(tidy.model == "resnet50") & (tidy.metric == "test_raw_error")]
    assert row.our_n.tolist() == [5, 5, 5]
    assert row.our_mean.tolist() == pytest.approx([50, 50, 50], abs=0.1)


def test_seeds_that_no_loss_shares_are_shown_all_the_same():
    values = {("cifar10", "resnet50", "ce"): {"test_raw_error": 0.05}}
    other = {("cifar10", "resnet50", "gce"): {"test_raw_error": 0.04}}
    shifted = runs_of(other, seeds=2)
    shifted["seed"] += 7
    tidy = paper.table(1, pd.concat([runs_of(values, seeds=3), shifted]), tidy=True)
    row = tidy[tidy.our_n > 0].set_index("loss").our_n
    assert row.to_dict() == {"ce": 3, "gce": 2}


def test_a_blank_of_our_own_data_names_the_grid_that_runs_it():
    pair = [
        ("fashion_mini", "gce"),
        ("fashion_mini", "afl"),
        ("fashion_mini_lt10", "gce"),
    ]
    values = {(d, "convnet", loss): {"test_raw_error": 0.1} for d, loss in pair}
    results = runs_of(values)
    assert paper.table(9, results).iloc[-1].grid == "afl_gce"
    assert paper.table(3, results).iloc[-1].grid == "demo_lt10"
    assert paper.own_grid("somebody_elses", "ce") == ""


@pytest.mark.parametrize("loss", [*SEVEN, "afl_gce"])
@pytest.mark.parametrize(
    "dataset",
    [
        "fashion_mini",
        "fashion_mini_lt10",
        "fashion_mini_lt100",
        "digit_pairs",
        "fashion_mnist",
    ],
)
def test_the_grid_that_own_grid_names_runs_it(dataset, loss):
    grid = paper.own_grid(dataset, loss)
    parts = sweeps.load_grid(grid)
    found = False
    for part in parts:
        datasets = np.atleast_1d(part["dataset"])
        losses = np.atleast_1d(part["loss"])
        found |= dataset in datasets and loss in losses and "variant" not in part
    assert found or (dataset, loss) == ("fashion_mnist", "afl_gce")


def history_of(seconds, looks):
    return "".join(
        json.dumps(
            {"epoch": k + 1, "lr": 0.1 if k < 2 else 0.01, "seconds": s}
            | ({"val_error": 0.5 - 0.1 * k, "test_error": 0.4} if look else {})
        )
        + "\n"
        for k, (s, look) in enumerate(zip(seconds, looks, strict=True))
    )


@pytest.mark.parametrize("sharing", [1, 2, None])
def test_table_6_counts_quiet_epochs_of_runs_that_were_alone(tmp_path, sharing):
    from gcelib.study.paper.collecting import _from_history

    looks = [True, False, False, True]
    (tmp_path / "history.jsonl").write_text(history_of([9, 2, 4, 9], looks))
    environment = {"sharing": sharing}
    found = _from_history(tmp_path, environment)
    assert found.get("seconds_per_epoch") == (3 if sharing == 1 else None)
    assert found["early_val_error"] == pytest.approx(0.5)  # the looks at the first rate


@pytest.mark.parametrize(
    ("earlier", "counts"),
    [
        ([], True),
        ([{"sharing": 1, "threads": 2, "device": "cpu", "torch": "3.0"}], True),
        ([{"sharing": 4, "threads": 2, "device": "cpu"}], False),
        ([{"sharing": 1, "threads": 1, "device": "cpu"}], False),
        ([{"sharing": 1, "threads": 2, "device": "cuda"}], False),
    ],
)
def test_table_6_leaves_out_runs_whose_epochs_had_different_places(
    tmp_path, earlier, counts
):
    from gcelib.study.paper.collecting import _from_history

    (tmp_path / "history.jsonl").write_text(history_of([9, 2, 4, 9], [True, 0, 0, 1]))
    now = {"sharing": 1, "threads": 2, "device": "cpu", "earlier": earlier}
    found = _from_history(tmp_path, now)
    assert found.get("seconds_per_epoch") == (3 if counts else None)


def test_differences_of_runs_on_other_contents_are_told(recwarn):
    table = _trained().assign(data_fingerprint="a", variant="")
    later = table.assign(variant="wd0")
    both = ("gce", "gce")

    def compared(other):
        studies = paper.Study(other, "wd0"), paper.Study(table)
        return paper.differences(*studies, both, "test_raw_error")

    assert compared(later).n.tolist() == [3]
    assert not len(recwarn)
    with pytest.warns(
        UserWarning, match="of 3 of 3 seeds on d m the two runs saw diff"
    ):
        compared(later.assign(data_fingerprint="b"))


def test_an_export_beside_other_tables_is_told(tmp_path, recwarn):
    table = pd.DataFrame({"a": [1]})
    paper.export({"one": table, "two": table}, tmp_path)
    paper.export({"two": table, "one": table}, tmp_path)
    assert not len(recwarn)
    with pytest.warns(
        UserWarning, match="holds 1 other tables, such as two; of an ear"
    ):
        paper.export({"one": table}, tmp_path)


def test_an_index_is_exported_and_one_that_counts_the_rows_is_not(
    tmp_path,
):
    numbers = pd.DataFrame({"loss": ["ce", "gce"], "seed": [1, 1], "ece": [0.25, 0.5]})
    tables = {
        "texts": pd.DataFrame({"ece": [0.25, 0.5]}, index=["raw", "ats"]),
        "grouped": numbers.groupby(["loss", "seed"])[["ece"]].mean(),
        "kept": numbers.set_index("loss", drop=False),
        "seeds": numbers.set_index("seed"),
        "filtered": numbers[numbers["ece"] > 0.3],
        "bins": pd.DataFrame({"ece": [0.1, 0.2]}, index=[5, 10]).rename_axis("n_bins"),
        "half": pd.concat({"a": numbers[["ece"]], "b": numbers[["ece"]]}, names=["x"]),
    }
    paper.export(tables, tmp_path)
    first_lines = {
        name: (tmp_path / f"{name}.csv").read_text().splitlines()[0] for name in tables
    }
    assert first_lines == {
        "texts": "index,ece",
        "grouped": "loss,seed,ece",
        "kept": "loss,seed,ece",
        "seeds": "seed,loss,ece",
        "filtered": "loss,seed,ece",
        "bins": "n_bins,ece",
        "half": "x,level_1,ece",
    }
    assert "| raw | 0.25 |" in (tmp_path / "texts.md").read_text()
    assert "<td>raw</td>" in paper.to_html(tables["texts"])
    counts = numbers.groupby("loss").agg({"loss": "count", "ece": "mean"})
    with pytest.raises(
        ValueError, match=r"^table: has an index and a column 'loss' of"
    ):
        paper.export({"counts": counts}, tmp_path / "no")
    with pytest.raises(TypeError, match=r"^table: must be a DataFrame, got Series"):
        paper.export({"one": numbers["ece"]}, tmp_path / "no")
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("order", [1, -1])
def test_new_corrections_leave_those_of_other_runs(tmp_path, order):
    spec = importlib.util.spec_from_file_location(
        "make_results", runs.PROJECT / "data" / "make_results.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    committed = runs.PROJECT / "data" / "results" / "corrections.csv"
    path = tmp_path / "corrections.csv"
    path.write_bytes(committed.read_bytes())
    table = pd.read_csv(path).fillna({"variant": ""})
    some = table[table.dataset == "fashion_mini_lt10"][::order]
    module.write(path, module.beside_others(some.assign(commit="new"), path))
    found = pd.read_csv(path).fillna({"variant": ""})
    renewed = table.dataset == "fashion_mini_lt10"
    pd.testing.assert_frame_equal(
        found, table.assign(commit=table["commit"].mask(renewed, "new"))
    )


def test_lessons_tell_of_runs_that_were_not_trained_alike(tmp_path):
    from gcelib import TrainConfig, fit, shipped

    def trained(loss, **settings):
        options = {"epochs": 1, "ood": [], "device": "cpu", "runs_dir": str(tmp_path)}
        list(fit(TrainConfig("digits", loss=loss, **options | settings)))

    trained("ce")
    trained("brier")
    trained("gce", variant="slow", lr=0.001)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert shipped.demo_runs(tmp_path) == tmp_path
        shipped.demo_runs(shipped.demo_runs())
    trained("gce", lr=0.01)
    told = r"not trained alike .* in lr \(0\.01 of gce on digits, seed 1, else 0\.05\);"
    with pytest.warns(UserWarning, match=told):
        shipped.demo_runs(tmp_path)
    trained("gce", variant="short", epochs=2)
    with pytest.warns(
        UserWarning, match=r"epochs \(2 of gce on digits, seed 1, short,"
    ):
        shipped.demo_runs(tmp_path)


def test_a_relative_folder_of_runs_is_that_of_the_tables(tmp_path, monkeypatch):
    """Lesson 06 looks for its networks in the table of all runs."""
    from gcelib import TrainConfig, fit, shipped

    monkeypatch.chdir(tmp_path)
    config = TrainConfig("digits", epochs=1, ood=[], device="cpu", runs_dir="mine")
    list(fit(config))
    root = shipped.demo_runs("mine")
    (run_dir,) = root.glob("digits/*/*/seed-01")
    assert runs.load_results(root)["run_dir"].tolist() == [str(run_dir)]


# --- Theorem 1, step by step ----------------------------------------------------------


def entropy_of(p, q):
    return -np.sum(p * np.log(q))


@pytest.fixture
def world():
    """Targets and predictions (N, K): rows sum to one. The paper transposes them."""
    rng = np.random.default_rng(5)
    return rng.dirichlet(np.ones(3), 7), rng.dirichlet(np.ones(3), 7)


def risk(q, p):
    """Eq. 10."""
    return -np.sum(q * np.log(p / p.sum(0)))


def test_equation_11_the_risk_is_a_sum_of_cross_entropies_of_columns(world):
    q, p = world
    n, s = q.sum(0), p.sum(0)
    columns = [n[k] * entropy_of(q[:, k] / n[k], p[:, k] / s[k]) for k in range(3)]
    assert risk(q, p) == pytest.approx(sum(columns))


def test_equations_12_and_13_the_bound_is_met_by_proportional_columns_only(world):
    q, p = world
    n = q.sum(0)
    bound = sum(n[k] * entropy_of(q[:, k] / n[k], q[:, k] / n[k]) for k in range(3))
    assert risk(q, p) > bound + 1e-3
    assert risk(q, q) == pytest.approx(bound)
    assert risk(q, q * [0.5, 2.0, 1.3]) == pytest.approx(bound)  # any column sums s_k


def test_equations_14_and_15_full_rank_leaves_the_truth_alone(world):
    q, _ = world
    n = q.sum(0)
    system = q / n  # a row an image: sum_k q_ik s_k / n_k = 1
    assert np.linalg.matrix_rank(q) == 3
    s, _, rank, _ = np.linalg.lstsq(system, np.ones(7), rcond=None)
    assert rank == 3
    assert s == pytest.approx(n)
    poor = np.column_stack([q[:, 0], (1 - q[:, 0]) / 3, 2 * (1 - q[:, 0]) / 3])
    assert np.linalg.matrix_rank(poor) == 2
    line = np.array([0.0, 2.0, -1.0]) * poor.sum(0) / 10  # u_2 + 2 u_3 stays 3
    other = poor / poor.sum(0) * (poor.sum(0) + line)
    assert other.sum(1) == pytest.approx(np.ones(7))
    assert risk(poor, other) == pytest.approx(risk(poor, poor))


def test_equation_7_splits_gce_into_ce_and_a_class_term(world):
    _, p = world
    labels = np.array([0, 1, 2, 0, 1, 2, 0])
    gce = losses.GCELoss()(torch.from_numpy(np.log(p)), torch.from_numpy(labels)).item()
    ce = -np.log(p[np.arange(7), labels]).mean()
    term = np.sum(np.bincount(labels) * np.log(p.sum(0))) / 7
    assert gce == pytest.approx(ce + term)


def test_a_page_looks_into_the_first_run_of_each_loss_and_leaves_out_who_has_none():
    table = runs_of(
        {("d", "m", loss): {"test_raw_error": 0.2} for loss in ("ce", "gce")}
    )
    folders = [f"runs/{row.loss}/seed-{row.seed:02}" for row in table.itertuples()]
    shuffled = table.assign(run_dir=folders).sample(frac=1, random_state=1)
    found = paper.runs_to_look_at(paper.Study(shuffled), ["gce", "afl", "ce"])
    assert {loss: path.name for loss, path in found.items()} == {
        "gce": "seed-01",
        "ce": "seed-01",
    }
    assert found["gce"].parent.name == "gce"
    committed = paper.runs_to_look_at(paper.Study(table), ["ce", "no_loss"])
    assert [path.parts[-4] for path in committed.values()] == ["fashion_mini_lt100"]


def test_a_table_on_a_page_makes_bold_and_shows_every_other_mark_as_it_is():
    table = pd.DataFrame(
        {"name": ["<b>-1.2</b> ± 0.1", "<script>alert(1)</script>"], "metric": "ece"}
    )
    html = paper.to_html(table, "a note")
    assert "<b>-1.2</b>&nbsp;±&nbsp;0.1" in html
    assert "<script>" not in html
    assert "metric" not in html
    assert "metric" in paper.to_html(table.assign(metric=["ece", "nll"]))
    assert html.endswith("a note")


def test_own_data_keep_their_own_scarcest_classes_and_paths():
    """Which classes are rare there is not known; a path may hold an arrow."""
    rng = np.random.default_rng(0)
    names = [f"test_raw_error_class{k}" for k in range(10)]
    rows = pd.DataFrame(rng.random((2, 10)), columns=names)
    rows["dataset"] = ["fashion_mini_lt10", "npz:/x/a->b.npz"]
    rows[["model", "loss", "seed"]] = ["mlp", "ce", 1]
    study = paper.Study(rows)
    scarce = study.runs["test_raw_scarce_error"]
    assert scarce[0] == pytest.approx(rows.loc[0, names[7:]].mean())
    assert np.isnan(scarce[1])
    found = study.numbers("npz:/x/a->b.npz", "mlp", "ce", names[0])
    assert found.tolist() == [rows.loc[1, names[0]]]
    assert study.losses("npz:/x/a->b.npz", "mlp") == ["ce"]


@pytest.mark.parametrize(
    ("metric", "condition", "values"),
    [
        ("early_val_error", "eval_every", [1, 4]),
        ("seconds_per_epoch", "device", ["cuda (H100)", "cuda (A100)"]),
    ],
)
def test_numbers_that_were_measured_otherwise_are_told(metric, condition, values):
    rows = pd.DataFrame({"loss": ["gce", "ce"], metric: [0.5, 0.25]})
    rows[["dataset", "model", "seed"]] = ["digits", "mlp", 1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        paper.Study(rows.assign(**{condition: values[0]}))
    with pytest.warns(UserWarning, match=f"{metric} of digits mlp .* in {condition}"):
        paper.Study(rows.assign(**{condition: values}))
    with pytest.warns(UserWarning, match="losses on digits mlp in precision"):
        paper.Study(rows.assign(precision=["fp32", "bf16"]))


def test_a_study_is_not_asked_for_another_variant():
    table = _trained().assign(variant="a")
    study = paper.Study(table, "a")
    assert paper.compare(study, variant="a").equals(paper.compare(table, variant="a"))
    assert paper.compare(study).equals(paper.compare(study, variant="a"))
    with pytest.raises(ValueError, match="variant: is 'b', and the study is that of"):
        paper.compare(study, variant="b")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("op", ""),
        ("op", "≥"),
        ("op", " >"),
        ("quantifier", "ANY"),
        ("quotes", "test"),
        ("losses", "gec"),
        ("versus", "ce|brier|mmc"),
        ("metric", "test_raw_eec"),
    ],
)
def test_a_claim_in_unknown_words_is_refused(name, value):
    claim = paper.CLAIMS[:1].assign(**{name: value})
    with pytest.raises(ValueError, match=f"claims: {name} .* of 'error_vs_ce' is unkn"):
        paper.check_claims(_trained(), claims=claim)
    assert len(paper.check_claims(_trained(), claims=paper.CLAIMS[:2])) == 2


def _chance(seed=0, losses=tuple(SEVEN), n_seeds=6):
    """Runs on own data of losses that do not differ."""
    rng = np.random.default_rng(seed)
    rows = [("mine", "net", loss, i) for loss in losses for i in range(n_seeds)]
    table = pd.DataFrame(rows, columns=["dataset", "model", "loss", "seed"])
    for metric in ("test_ats_ece", "test_ts_nll_ece", "test_ts_ece_nll"):
        table[metric] = 0.2 + 0.01 * rng.normal(size=len(table))
    return table


def _own_claim(**cells):
    """A claim about the runs of ``_chance``."""
    own = {"ours": "mine/.*", "datasets": "", "settings": 1, "need": 1}
    return claim_like("ece_vs_ce_ats", **{**own, **cells}).to_frame().T


def _judged_here(claim, table):
    return paper.check_claims(table, claims=claim).iloc[0]


@pytest.mark.parametrize("pattern", ["[^g].*", "(?!gce).*", "(ce|afl)|(brier|mmce).*"])
def test_a_pattern_of_rivals_is_corrected_for_as_many_as_it_matches(pattern):
    table = _chance()
    rivals = [name for name in SEVEN if re.fullmatch(pattern, name)]
    assert len(rivals) >= 4
    claim = {"quotes": "means", "quantifier": "any"}
    by_pattern = _judged_here(_own_claim(versus=pattern, **claim), table)
    listed = _judged_here(_own_claim(versus="|".join(rivals), **claim), table)
    assert by_pattern.our_data_evidence == listed.our_data_evidence
    mine = table[table.loss == "gce"].set_index("seed").test_ats_ece
    gaps = {
        loss: mine - table[table.loss == loss].set_index("seed").test_ats_ece
        for loss in rivals
    }
    best = min(gaps, key=lambda loss: gaps[loss].mean())
    error = scipy.stats.sem(gaps[best])
    half = scipy.stats.t.ppf(1 - 0.05 / len(rivals) / 2, 5) * error
    mean = gaps[best].mean()
    shown = f"{100 * mean:+.2f} to {best} [{100 * (mean - half):+.2f}, "
    assert shown in by_pattern.our_data_evidence


def test_differences_are_shown_in_the_unit_of_the_metric_at_the_names_end():
    table = _chance(losses=("gce", "ce"))
    table["test_raw_error_class3"] = 0.5
    table.loc[table.loss == "gce", ["test_raw_error_class3", "test_ts_ece_nll"]] -= 0.2
    claim = _own_claim(metric="test_ts_ece_nll|test_raw_error_class3", settings=2)
    evidence = _judged_here(claim, table).our_data_evidence
    nats = table.groupby("loss").test_ts_ece_nll.mean()
    assert f"test_ts_ece_nll: {nats.gce - nats.ce:+.2f} to ce" in evidence
    assert "test_raw_error_class3: -20.00 to ce" in evidence


@pytest.mark.parametrize("quantifier", ["all", "any"])
def test_rivals_at_several_metrics_are_all_compared(quantifier):
    table = _chance(losses=("gce", "ce", "afl"))
    table.loc[table.loss == "gce", "test_ats_ece"] -= 0.1
    claim = _own_claim(
        versus="ce|afl",
        versus_metric="test_ats_ece|test_ts_nll_ece",
        quantifier=quantifier,
    )
    judged = _judged_here(claim, table)
    assert judged.our_data == "holds"
    assert re.search(r"to (ce|afl) test_\w+_ece \[", judged.our_data_evidence)
    lacking = _own_claim(versus="ce|afl|dfl", versus_metric="test_ats_ece")
    assert _judged_here(lacking, table).our_data == "not tested"


def test_a_pattern_with_a_group_is_one_and_one_that_is_none_is_refused():
    table = _chance(losses=("gce", "ce", "afl"))
    table["test_raw_error_class3"] = table["test_raw_error_class5"] = 0.1
    claim = _own_claim(metric="test_raw_error_class(3|5)", versus="c[e|]|a(f|x)l")
    assert _judged_here(claim, table).our_data == "not shown"
    with pytest.raises(ValueError, match=r"claims: versus '\(ce' .* is no pattern"):
        paper.check_claims(table, claims=_own_claim(versus="(ce"))


def test_numbers_in_columns_of_objects_are_compared():
    table = _chance(losses=("gce", "ce"))
    as_objects = table.astype(object)
    compared = paper.compare(as_objects, metric="test_ats_ece")
    pd.testing.assert_frame_equal(compared, paper.compare(table, metric="test_ats_ece"))
    as_objects.loc[0, "test_ats_ece"] = "high"
    with pytest.raises(ValueError, match="results: hold text in test_ats_ece"):
        paper.compare(as_objects, metric="test_ats_ece")
    with pytest.raises(
        ValueError, match=r"metric: unknown 'test_ats_eec'.*test_ats_ece"
    ):
        paper.compare(table, metric="test_ats_eec")


def test_options_are_read_alike_from_a_table_and_from_its_csv(tmp_path):
    run = {"dataset": "cifar10", "model": "resnet50", "loss": "gce"}
    run["loss_options"] = {"regularizer_weight": 0.5}
    pd.DataFrame([run]).to_csv(tmp_path / "table.csv", index=False)
    (again,) = pd.read_csv(tmp_path / "table.csv").to_dict("records")
    assert isinstance(again["loss_options"], str)
    told = ["loss_options regularizer_weight 0.5 for 1"]
    assert unlike_recipe(again) == unlike_recipe(run) == told


def test_times_of_other_numbers_of_threads_are_told():
    table = _trained()
    table["seconds_per_epoch"] = 0.5
    table["threads"] = np.where(table.loss == "ce", 1, 2)
    with pytest.warns(UserWarning, match="seconds_per_epoch .* differ in threads"):
        paper.Study(table)


def test_a_spread_divides_by_n_minus_1_whatever_holds_the_numbers():
    for numbers in ([1.0, 2.0], np.array([1.0, 2.0]), pd.Series([1.0, 2.0])):
        assert paper.mean_and_spread(numbers) == "1.50 ± 0.71"
    assert paper.mean_and_spread([1.0, np.nan]) == "1.00"
    assert paper.mean_and_spread([np.nan]) == ""
    masked = np.ma.array([1.0, 2.0, 99.0], mask=[False, False, True])
    for function in (paper.mean_and_spread, paper.interval, paper.wilcoxon):
        with pytest.raises(TypeError, match=r": is a masked array; pass values.comp"):
            function(masked)


@pytest.mark.parametrize(
    ("logits", "labels"),
    [
        (np.eye(10), np.arange(1, 11)),
        (np.full((2, 2), np.nan), np.array([0, 1])),
        (np.eye(3), np.array([0, -1, 2])),
    ],
)
def test_errors_by_class_are_measured_of_true_classes_alone(logits, labels):
    with pytest.raises(ValueError, match=r"^(labels|logits): contains"):
        paper.class_errors(logits, labels)


def test_a_table_whose_decimal_commas_were_read_as_text_is_refused():
    results = paper.committed_results()
    text = results.to_csv(sep=";", decimal=",", index=False)
    with pytest.raises(ValueError, match=r"results: hold text in .*decimal=\",\""):
        paper.summary(pd.read_csv(io.StringIO(text), sep=";"))
    read = pd.read_csv(io.StringIO(text), sep=";", decimal=",")
    pd.testing.assert_frame_equal(paper.summary(read), paper.summary(results))
