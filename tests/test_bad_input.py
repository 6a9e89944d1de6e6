"""Nothing bad is accepted: hypothesis spoils one argument of a good call at a time, for
every public function.

Each refusal must be a ValueError or TypeError that begins with the argument's name:
``<argument>: <problem>; <cure>``.
"""

import re
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from gcelib import TrainConfig, data, metrics as m, models, sweeps
from gcelib.calibration import CALIBRATORS, make_calibrator
from gcelib.losses import LOSSES, make_loss

SPLITS = data.load("digits")
LOGITS = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
LABELS = np.array([0, 1, 2, 3, 0, 1])
SOFT = (
    "ce",
    "ce_ls",
    "brier",
    "gce",
    "gce_ls",
)  # these losses take probabilities as labels, too
PAIR = {
    "ece": m.ece,
    "adaptive_ece": m.adaptive_ece,
    "classwise_ece": m.classwise_ece,
    "mce": m.mce,
    "nll": m.nll,
}
PAIR |= {
    "brier": m.brier,
    "error": m.error,
    "reliability": m.reliability,
    "evaluate": m.evaluate,
}
PAIR |= {"top_label": m.top_label, "binned_samples": m.binned_samples}
PAIR |= {
    f"{name}.fit": lambda z, y, name=name: make_calibrator(name).fit(z, y)
    for name in CALIBRATORS
}
FITTED = {name: make_calibrator(name).fit(LOGITS, LABELS) for name in CALIBRATORS}
PAIR |= {"afl.update": lambda z, y: make_loss("afl").update(z, y)}

# --------------------------------------------------------------------------------------
# Spoiled values: (words that tell them apart, value)

NONSENSE = [
    None,
    3,
    "logits",
    b"bytes",
    [],
    {},
    (1, 2),
    object,
    1j,
    True,
    [[0.5], [1, 2]],
    {"logits": 1},
]
nonsense = st.sampled_from(NONSENSE).map(lambda v: (repr(v), v))


def shaped(change, values):
    """Arrays of a wrong dtype or shape, and good ones with one bad value somewhere."""
    array = st.sampled_from(sorted(change)).map(lambda kind: (kind, change[kind]))
    return st.one_of(nonsense, array, array, values, values)


LOGITS_LIKE = {
    "whole numbers": LOGITS.astype(int),
    "bool": LOGITS > 0,
    "complex": LOGITS.astype(complex),
    "text": LOGITS.astype(str),
    "object": LOGITS.astype(object),
    "dates": np.zeros((6, 4), "M8[s]"),
    "vector": LOGITS[0],
    "cube": LOGITS[None],
    "no axis": LOGITS[0, 0].reshape(()),
    "one class": LOGITS[:, :1],
    "no class": LOGITS[:, :0],
    "no sample": LOGITS[:0],
    "holes": np.ma.masked_greater(LOGITS, 0.5),
    "sparse": torch.from_numpy(LOGITS).to_sparse(),
    "complex tensor": torch.from_numpy(LOGITS).to(torch.complex64),
    "eight bits": torch.from_numpy(LOGITS).to(torch.float8_e4m3fn),
    "torch integers": torch.from_numpy(LOGITS).long(),
}
LABELS_LIKE = {
    "column": LABELS[:, None],
    "row": LABELS[None],
    "no axis": LABELS[0].reshape(()),
    "float": LABELS.astype(float),
    "float16": LABELS.astype(np.float16),
    "bool": LABELS > 0,
    "complex": LABELS.astype(complex),
    "text": LABELS.astype(str),
    "object": LABELS.astype(object),
    "none": LABELS[:0],
    "holes": np.ma.masked_equal(LABELS, 3),
    "sparse": torch.from_numpy(LABELS).to_sparse(),
    "one-hot integers": np.eye(4, dtype=int)[LABELS],
    "huge": np.array([0, 1, 2, 3, 0, 2**64 - 1], np.uint64),
}


def put(array, at, value):
    array = array.copy()
    array[at] = value
    return array


def dtyped(array, dtype):
    return (
        torch.from_numpy(array.astype(np.float32)).bfloat16()
        if dtype == "bfloat16"
        else array.astype(dtype)
    )


bad_cell = st.tuples(
    st.tuples(st.integers(0, 5), st.integers(0, 3)),
    st.sampled_from([np.nan, np.inf, -np.inf]),
    st.sampled_from(["float16", "float32", "float64", "bfloat16"]),
).map(lambda t: (f"{t[1]} at {t[0]}, {t[2]}", dtyped(put(LOGITS, t[0], t[1]), t[2])))
more_labels = st.one_of(st.integers(1, 5), st.integers(7, 40)).map(
    lambda n: (f"{n} labels", np.resize(LABELS, n))
)
bad_label = st.tuples(
    st.integers(0, 5),
    st.one_of(
        st.integers(4, 2**40), st.integers(-(2**40), -1), st.sampled_from([-100, 4, -1])
    ),
).map(lambda t: (f"label {t[1]} at {t[0]}", put(LABELS, t[0], t[1])))
bad_logits = shaped(LOGITS_LIKE, bad_cell)
# A loss passes NaN on, as GradScaler needs it.
bad_shape = shaped(LOGITS_LIKE, st.nothing())
bad_labels = shaped(LABELS_LIKE, st.one_of(bad_label, more_labels))
no_probabilities = st.tuples(
    st.tuples(st.integers(0, 5), st.integers(0, 3)),
    st.sampled_from([np.nan, np.inf, -0.2, 0.9, 5.0]),
).map(lambda t: (f"soft target {t[1]} at {t[0]}", put(np.full((6, 4), 0.25), *t)))


def bad_number(low=-np.inf, high=np.inf, integer=False, none=False, open_low=False):
    """What is no number in [low, high], or (low, high]; None is good if ``none``."""
    wrong = [
        "3",
        "",
        b"3",
        True,
        False,
        [1],
        (),
        {},
        1j,
        np.array([1, 2]),
        object,
        float("nan"),
        np.nan,
        np.inf,
    ]
    wrong += [
        -np.inf,
        -(10**400),
        *([10**400] if high < np.inf or not integer else []),
        *([] if none else [None]),
        *([low] if open_low else []),
    ]
    options = [st.sampled_from(wrong)]
    if integer:
        options += [st.floats(-10, 10), st.floats(1e-3, 1e3).filter(lambda x: x % 1)]
    if low > -np.inf:
        options += [
            st.integers(-(10**30), int(np.ceil(low)) - 1),
            st.floats(max_value=low, exclude_max=True),
        ]
    if high < np.inf:
        options += [
            st.integers(int(high) + 1, 10**30),
            st.floats(min_value=high, exclude_min=True),
        ]
    return st.one_of(options).map(lambda v: (repr(v), v))


WRONG_NAMES = [None, 3, True, b"gce", ["gce"], ("gce",), {"gce": 1}, 1.5, object]


def bad_name(known, none=False):
    """What is no known name: other types, any text, and known names with a letter lost,
    doubled or exchanged."""
    known = list(known)
    near = st.tuples(
        st.sampled_from(known),
        st.integers(0, 20),
        st.sampled_from(["", "x", "_", " ", "É", "/"]),
    )
    near = near.map(lambda t: t[0][: t[1]] + t[2] + t[0][t[1] + 1 :])
    wrong = st.one_of(
        st.sampled_from(WRONG_NAMES[none:]), st.text(max_size=12), near, near
    )
    return wrong.filter(lambda v: not (isinstance(v, str) and v in known)).map(
        lambda v: (repr(v), v)
    )


no_boolean = st.sampled_from(["false", "True", 0, 1, 1.0, [], object]).map(
    lambda v: (repr(v), v)
)

# --------------------------------------------------------------------------------------
# Targets: (where, the argument that is spoiled, strategy of (words, spoiled value), a
# call with that value)

TORCH = torch.from_numpy(LOGITS), torch.from_numpy(LABELS)


def as_torch(pair):
    """What a loss is given: a tensor, where there can be one."""
    what, bad = pair
    return what, torch.from_numpy(bad) if type(
        bad
    ) is np.ndarray and bad.dtype.kind in "fiubc" else bad


TARGETS = []
for name, function in PAIR.items():
    TARGETS += [(name, "logits", bad_logits, lambda v, f=function: f(v, LABELS))]
    TARGETS += [(name, "labels", bad_labels, lambda v, f=function: f(LOGITS, v))]
for name in LOSSES:
    spoiled = st.one_of(bad_labels, no_probabilities) if name in SOFT else bad_labels
    TARGETS += [
        (
            name,
            "logits",
            bad_shape.map(as_torch),
            lambda v, n=name: make_loss(n)(v, TORCH[1]),
        )
    ]
    TARGETS += [
        (
            name,
            "labels",
            spoiled.map(as_torch),
            lambda v, n=name: make_loss(n)(TORCH[0], v),
        )
    ]
    TARGETS += [
        (
            name,
            "reduction",
            bad_name(["mean", "sum", "none"]),
            lambda v, n=name: make_loss(n, reduction=v),
        )
    ]
for name in CALIBRATORS:
    fitted = FITTED[name]
    classes = st.integers(5, 90).map(
        lambda k: (f"{k} classes", np.zeros((6, k), np.float32))
    )
    # No sample gives no sample.
    pool = st.one_of(bad_logits.filter(lambda p: p[0] != "no sample"), classes)
    TARGETS += [(name, "logits", pool, fitted)]
    good = st.integers(0, 6).map(lambda n: (f"not fitted, {n} samples", LOGITS[:n]))
    TARGETS += [(name, "calibrator", good, make_calibrator(name))]
TARGETS += [
    ("entropy", "logits", bad_logits, m.entropy),
    ("ood_auroc", "logits_in", bad_logits, lambda v: m.ood_auroc(v, LOGITS)),
    ("ood_auroc", "logits_ood", bad_logits, lambda v: m.ood_auroc(LOGITS, v)),
    ("make_loss", "loss", bad_name(LOSSES), make_loss),
    ("make_calibrator", "calibrator", bad_name(CALIBRATORS), make_calibrator),
    (
        "make_model",
        "name",
        bad_name(models.MODELS),
        lambda v: models.make_model(v, 3, (4,)),
    ),
    ("data.load", "name", bad_name(data.DATASETS), data.load),
    (
        "data.check_ood",
        "ood",
        bad_name([*data.DATASETS, "svhn", "noise", "cifar10_c"]),
        data.check_ood,
    ),
    ("data.load_ood", "like", nonsense, lambda v: data.load_ood("noise", v)),
    ("data.batches", "split", nonsense, lambda v: data.batches(v, 10, splits=SPLITS)),
]
misspelt = st.text(min_size=1, max_size=10).map(
    lambda v: (f"option no_{v}", {f"no_{v}": 1})
)
TARGETS += [
    (n, "loss_options", misspelt, lambda v, n=n: make_loss(n, **v)) for n in LOSSES
]
for name in CALIBRATORS:
    TARGETS += [
        (
            name,
            "calibrator_options",
            misspelt,
            lambda v, n=name: make_calibrator(n, **v),
        )
    ]
sizes = st.lists(st.integers(-3, 7), max_size=5)  # an image has eight pixels or more
pairs = bad_number(1e-4, 1).map(lambda p: (f"({p[0]}, 10)", (p[1], 10)))
pairs |= bad_number(1, 1e4).map(lambda p: (f"(1, {p[0]})", (1, p[1])))
for where, function, options in [
    *(
        (f.__name__, partial(f, LOGITS, LABELS), {"n_bins": bad_number(1, 1e4, True)})
        for f in (
            m.ece,
            m.adaptive_ece,
            m.classwise_ece,
            m.mce,
            m.reliability,
            m.evaluate,
            m.binned_samples,
        )
    ),
    (
        "evaluate",
        partial(m.evaluate, LOGITS, LABELS),
        {"bootstrap": bad_number(0, 1e6, True), "seed": bad_number(0, integer=True)},
    ),
    (
        "reliability",
        partial(m.reliability, LOGITS, LABELS),
        {
            "binning": bad_name(["width", "mass", "equal"]),
            "class_index": bad_number(0, 3, True, none=True),
        },
    ),
    ("ce", partial(make_loss, "ce"), {"label_smoothing": bad_number(0, 1)}),
    ("focal", partial(make_loss, "focal"), {"gamma": bad_number(0)}),
    ("dfl", partial(make_loss, "dfl"), {"gamma": bad_number(0)}),
    (
        "gce",
        partial(make_loss, "gce"),
        {
            "label_smoothing": bad_number(0, 1),
            "focal_gamma": bad_number(0),
            "regularizer_weight": bad_number(0, 1),
            "process_group": bad_name(["group"], none=True),
        },
    ),
    (
        "mmce",
        partial(make_loss, "mmce"),
        {"mmce_weight": bad_number(0), "reduction": bad_name(["mean", "sum"])},
    ),
    (
        "afl",
        partial(make_loss, "afl"),
        {"n_bins": bad_number(1, 1e4, True), "generative": no_boolean},
    ),
    (
        "ats",
        partial(make_calibrator, "ats"),
        {
            "n_bins": bad_number(1, 1e4, True),
            "rounds": bad_number(1, 1e6, True, none=True),
            "step": bad_number(0, open_low=True),
            "max_step": bad_number(0, open_low=True),
            "t_range": st.one_of(nonsense.filter(lambda p: p[0] != "(1, 2)"), pairs),
            "n_ece_bins": bad_number(1, 1e6, True),
        },
    ),
    (
        "ts_nll",
        partial(make_calibrator, "ts_nll"),
        {"criterion": bad_name(["nll", "ece"])},
    ),
    (
        "spline",
        partial(make_calibrator, "spline"),
        {"knots": bad_number(3, 1000, True)},
    ),
    (
        "make_model",
        partial(models.make_model, "mlp", input_shape=(4,)),
        {"n_classes": bad_number(2, 1e6, True)},
    ),
    (
        "make_model",
        partial(models.make_model, "convnet", 3),
        {"input_shape": st.one_of(nonsense, sizes.map(lambda v: (repr(v), v)))},
    ),
    (
        "data.load",
        partial(data.load, "digits"),
        {"seed": bad_number(0, 2**32 - 1, True)},
    ),
    (
        "data.batches",
        partial(data.batches, SPLITS.val, splits=SPLITS),
        {"batch_size": bad_number(1, integer=True)},
    ),
    (
        "data.batches",
        partial(data.batches, SPLITS.val, 10, splits=SPLITS),
        dict.fromkeys(["augment", "drop_single", "drop_last"], no_boolean),
    ),
]:
    TARGETS += [
        (where, k, values, lambda v, f=function, k=k: f(**{k: v}))
        for k, values in options.items()
    ]


def among(*values):
    return st.sampled_from(values).map(lambda v: (repr(v), v))


FIELDS = {
    "dataset": bad_name(data.DATASETS),
    "model": bad_name(models.MODELS, none=True),
    "loss": bad_name(LOSSES),
    "loss_options": among(
        3,
        "gamma=3",
        ["gamma"],
        {"gama": 3},
        {"name": "ce"},
        {3: 3},
        {None: 1},
        {"self": 1},
    )
    | among({"reduction": "none"}, {"reduction": "sum"}, {"process_group": None}),
    "recipe": bad_name(["paper", "published_code"]),
    "reduction": bad_name(["mean", "sum"], none=True),
    "precision": bad_name(["auto", "fp32", "tf32", "bf16"]),
    "device": among(
        None, "gpu", "meta", "cuda:99", "", "cpu ", "CPU", ["cpu"], 1.5, object, {}
    ),
    "seed": bad_number(0, 2**31 - 1, True),
    "epochs": bad_number(1, 1e5, True, none=True),
    "batch_size": bad_number(2, 1e6, True, none=True),
    "eval_every": bad_number(1, 1e5, True, none=True),
    "lr": bad_number(0, 1e3, none=True, open_low=True),
    "momentum": bad_number(0, 1, none=True),
    "weight_decay": bad_number(0, 1e3, none=True),
    "clip_norm": bad_number(0, 1e9, none=True, open_low=True),
    "max_hours": bad_number(0, 1e6, open_low=True),
    "milestones": among(
        "150",
        150,
        {150},
        [3, 3],
        [5, 3],
        [0],
        [1.5],
        ["3"],
        [None],
        [True],
        [-1, 2],
        {"a": 1},
    ),
    **dict.fromkeys(["drop_last", "augment", "compile", "keep_weights"], no_boolean),
    "variant": among(
        None,
        3,
        b"x",
        ["x"],
        "../x",
        "a/b",
        ".",
        "..",
        "x" * 300,
        "a b",
        "x\n",
        "\0",
        "-x",
        " ",
    ),
    "ood": among(
        3,
        "noise",
        {"noise"},
        ["noize"],
        [None],
        [3],
        ["cifar10_c:fog:9"],
        ["av1451"],
        ["noise", "noize"],
    ),
    "runs_dir": among(3, True, ["runs"], {"runs": 1}, b"runs", 1.5, object),
}
for name, values in FIELDS.items():
    TARGETS += [
        (
            "TrainConfig",
            name,
            values,
            lambda v, k=name: TrainConfig(**{"device": "cpu", k: v}),
        )
    ]
    grid = {"dataset": "digits", "device": "cpu"}
    TARGETS += [
        (
            "sweeps.expand",
            name,
            values,
            lambda v, k=name, grid=grid: sweeps.expand(grid | {k: [v]}),
        )
    ]
no_grid = among(
    3,
    None,
    [],
    {},
    [[]],
    "smok",
    [3],
    {"seed": []},
    {3: [1]},
    {None: 1},
    {("seed",): 1},
    {"los": "ce"},
)
TARGETS += [("sweeps.expand", "grid", no_grid, sweeps.expand)]


def refused(where, argument, values, call, seen):
    """Make the call with a few spoiled values, each of which must be refused by the
    argument's name."""

    @settings(derandomize=True, database=None, deadline=None, max_examples=4)
    @given(values)
    def is_refused(pair):
        what, bad = pair
        seen.add((where, argument, what))
        try:
            call(bad)
        except (ValueError, TypeError) as error:
            message = str(error)
        else:
            pytest.fail(f"{where} accepted {argument} = {what}")
        # a grid is one argument, whose parts are named in the sentence
        name = f"({argument}|grid)" if where == "sweeps.expand" else argument
        assert re.match(rf"{name}: .+; .+", message, re.S), (where, what, message)

    is_refused()


def test_nothing_bad_is_accepted_and_every_refusal_names_the_argument(
    monkeypatch, tmp_path
):
    monkeypatch.setenv("GCELIB_RUNS_DIR", str(tmp_path))
    seen = set()
    for target in TARGETS:
        refused(*target, seen)
    assert len(seen) >= 500
    assert len(TARGETS) > 150
    assert not list(tmp_path.iterdir())  # and nothing was written


def test_the_same_calls_are_accepted_while_nothing_is_spoiled():
    for call in PAIR.values():
        call(LOGITS, LABELS)
    for fitted in FITTED.values():
        assert fitted(LOGITS).shape == LOGITS.shape
    for name in LOSSES:
        assert make_loss(name)(*TORCH).isfinite()
    for name in SOFT:
        make_loss(name)(TORCH[0], torch.full((6, 4), 0.25))
    assert m.entropy(LOGITS).shape == (6,)
    assert m.ood_auroc(LOGITS, LOGITS) == 0.5
    assert models.make_model("mlp", 3, [4])(torch.zeros(2, 4)).shape == (2, 3)
    assert data.load_ood("noise", SPLITS).shape[0] == len(SPLITS.test[1])
    assert len(list(data.batches(SPLITS.val, 100, splits=SPLITS, drop_last=True))) == 3
    assert TrainConfig(
        device="cpu", loss="focal", loss_options={"gamma": 2}
    ).loss_options == {"gamma": 2}
    assert len(sweeps.expand({"dataset": "digits", "device": "cpu"})) == 1
