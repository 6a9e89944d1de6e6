"""One run: the recipe it follows, what it refuses, and that it ends with the same bits
however often it is killed.
"""

import contextlib
import copy
import dataclasses
import functools
import json
import math
import multiprocessing
import os
import re
import shutil
import signal
import warnings

import numpy as np
import pytest
import torch

from gcelib import data, losses, metrics, runs, training
from gcelib.isolation import torch_defaults
from gcelib.study import environment, networks
from gcelib.study.trainer import RECIPES, TrainConfig, fit, recipe


def small(tmp_path, **changed):
    options = {
        "dataset": "digits",
        "loss": "gce",
        "epochs": 3,
        "runs_dir": str(tmp_path),
        "ood": (),
        "device": "cpu",
    }
    return TrainConfig(**options | changed)


# --- settings -------------------------------------------------------------------------


def test_cifar_recipe_is_the_papers():
    for dataset in ("cifar10", "cifar100", "cifar10_lt100"):
        config = TrainConfig(dataset=dataset, model="wrn_28_10", device="cpu")
        assert (config.epochs, config.batch_size, config.lr) == (350, 128, 0.1)
        assert (config.momentum, config.weight_decay, config.augment) == (
            0.9,
            5e-4,
            True,
        )
        assert (config.reduction, config.clip_norm, config.drop_last) == (
            "mean",
            None,
            False,
        )
        rates = [config.learning_rate(e) for e in range(350)]
        assert np.allclose(sorted(set(rates), reverse=True), [0.1, 0.01, 0.001])
        assert [int(np.isclose(rates, r).sum()) for r in (0.1, 0.01, 0.001)] == [
            150,
            100,
            100,
        ]
    tiny = TrainConfig(dataset="tiny_imagenet", device="cpu")
    rates = [tiny.learning_rate(e) for e in range(tiny.epochs)]
    assert [int(np.isclose(rates, r).sum()) for r in (0.1, 0.01, 0.001)] == [40, 20, 40]
    assert tiny.batch_size == 128


@pytest.mark.parametrize("name", ["paper", "published_code"])
def test_a_misspelt_loss_is_refused_by_every_recipe(name):
    with pytest.raises(ValueError, match="loss: unknown 'gcee'"):
        TrainConfig("digits", loss="gcee", recipe=name)
    with pytest.raises(ValueError, match="loss: unknown 'gcee'"):
        recipe("digits", loss="gcee", name=name)


@pytest.mark.parametrize("clip_norm", [math.inf, 2.0, 0.5])
@pytest.mark.parametrize("name", ["paper", "published_code"])
def test_stored_settings_given_back_are_the_same_run(name, clip_norm):
    """JSON has no infinity: no limit is stored as null, which asked is the recipe's."""
    config = TrainConfig("digits", recipe=name, clip_norm=clip_norm, device="cpu")
    stored = json.loads(json.dumps(config.settings()))
    rebuild = functools.partial(TrainConfig.from_variables, stored | {"device": "cpu"})
    if (name, clip_norm) == ("published_code", math.inf):
        with pytest.warns(UserWarning, match="clip_norm: None beside all other set"):
            again = rebuild()
        assert again.clip_norm == math.inf
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            again = rebuild()
    assert again.settings() == config.settings()


def test_a_limit_that_is_left_open_beside_other_settings_is_the_recipes(recwarn):
    """Of those of another run, too, as long as anything else is left open."""
    stored = TrainConfig("digits", device="cpu").settings()
    del stored["batch_size"]
    given = stored | {"recipe": "published_code", "device": "cpu"}
    assert TrainConfig.from_variables(given).clip_norm == 2.0
    assert not len(recwarn)


def test_published_code_recipe_is_named_and_recorded():
    config = TrainConfig(
        dataset="cifar10",
        model="wrn_28_10",
        loss="brier",
        recipe="published_code",
        device="cpu",
    )
    assert (config.reduction, config.clip_norm, config.epochs, config.milestones) == (
        "mean",
        2.0,
        550,
        (149, 249),
    )
    assert recipe("cifar10", "resnet50", "gce", "published_code")["reduction"] == "sum"
    assert recipe("cifar100", "resnet110", "brier", "published_code")["epochs"] == 430
    assert recipe("tiny_imagenet", None, "brier", "published_code")["lr"] == 0.035
    assert recipe("tiny_imagenet", None, "ce", "published_code")["batch_size"] == 64
    assert config.settings()["recipe"] == "published_code"


def test_what_is_given_wins_and_a_shortened_run_keeps_its_shape():
    config = TrainConfig(
        dataset="cifar10",
        epochs=35,
        lr=0.3,
        recipe="published_code",
        clip_norm=1,
        device="cpu",
    )
    assert (config.lr, config.clip_norm, config.milestones) == (0.3, 1.0, (15, 25))
    assert TrainConfig(dataset="cifar10", epochs=1, device="cpu").milestones == ()


def test_every_recipe_is_complete():
    for dataset in data.DATASETS:
        config = TrainConfig(dataset=dataset, device="cpu")
        allowed_none = {"clip_norm"}
        assert {k for k, v in config.settings().items() if v is None} <= allowed_none
    assert set(RECIPES) <= set(data.DATASETS)


def test_a_data_set_without_a_recipe_is_trained_by_what_its_samples_are(monkeypatch):
    monkeypatch.delitem(RECIPES, "fashion_mini")
    config = TrainConfig(dataset="fashion_mini", device="cpu")
    assert (config.model, config.epochs, config.augment) == ("convnet", 20, True)
    row = dataclasses.replace(data.DATASETS["digits"], is_table=True, ood=())
    monkeypatch.setitem(data.DATASETS, "wine", row)
    config = TrainConfig(dataset="wine", device="cpu")
    assert (config.model, config.lr, config.augment) == ("mlp", 0.01, False)


def test_dual_focal_gamma_follows_its_authors_table():
    config = TrainConfig(
        dataset="cifar100", model="densenet121", loss="dfl", device="cpu"
    )
    assert (
        config.loss_options
        == {"gamma": losses.DFL_GAMMA["cifar100", "densenet121"]}
        == {"gamma": 3.4}
    )
    assert (
        TrainConfig(
            dataset="cifar10_lt10", model="wrn_28_10", loss="dfl", device="cpu"
        ).loss_options["gamma"]
        == 2.6
    )
    assert (
        TrainConfig(loss="dfl", loss_options={"gamma": 1.5}, device="cpu").loss_options[
            "gamma"
        ]
        == 1.5
    )


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"loss": "gcee"}, r"loss: unknown 'gcee'; did you mean 'gce'"),
        ({"dataset": "cifar11"}, r"dataset: unknown 'cifar11'; did you mean 'cifar10"),
        ({"dataset": "digits_lt"}, r"dataset: unknown"),
        ({"model": "resnet51"}, r"model: unknown 'resnet51'; did you mean 'resnet50'"),
        ({"recipe": "papers"}, r"recipe: unknown .* 'paper'"),
        ({"epochs": -3}, r"epochs: -3 is outside"),
        ({"epochs": 2.5}, r"epochs: must be a whole number"),
        ({"seed": "one"}, r"seed: must be a whole number, got str 'one'"),
        ({"seed": True}, r"seed: must be a whole number"),
        ({"batch_size": 1}, r"batch_size: 1 is outside"),
        ({"lr": 0}, r"lr: 0 is outside"),
        ({"lr": float("nan")}, r"lr: nan is outside"),
        ({"momentum": 1.0}, r"momentum: 1\.0 is outside"),
        ({"weight_decay": -1e-4}, r"weight_decay: -0\.0001 is outside"),
        ({"clip_norm": 0}, r"clip_norm: 0 is outside"),
        ({"milestones": [5, 3]}, r"milestones: .* do not increase"),
        ({"milestones": 3}, r"milestones: must be a list"),
        ({"augment": "false"}, r"augment: must be True or False, got str 'false'"),
        ({"reduction": "none"}, r"reduction: unknown 'none'"),
        ({"precision": "fp16"}, r"precision: unknown 'fp16'"),
        ({"variant": "../../etc"}, r"variant: .* cannot name a folder"),
        ({"variant": 3}, r"variant: 3 cannot name a folder"),
        *[
            ({"variant": word}, f"variant: '{word}' is read as no variant")
            for word in ("NA", "NULL", "NaN", "None", "nan", "null")
        ],
        (
            {"loss_options": {"gama": 3}, "loss": "focal"},
            r"loss_options: unknown key 'gama'; did you mean 'gamma'",
        ),
        ({"loss_options": "gamma=3"}, r"loss_options: must be a mapping"),
        ({"loss_options": {"label_smoothing": 2}}, r"label_smoothing: 2 is outside"),
        ({"ood": ["digitz"]}, r"ood: unknown 'digitz'; did you mean 'digits'"),
        ({"ood": 3}, r"ood: must be a list"),
        ({"ood": ["digits"]}, r"ood: 'digits' is the data set of the run"),
        (
            {"dataset": "fashion_mini_lt9", "ood": ["fashion_mnist"]},
            "ood: 'fashion_mnist' and 'fashion_mini' are images of one",
        ),
        ({"ood": ["noise", "noise"]}, r"ood: 'noise' is there twice"),
        ({"device": "cuda:99"}, r"device: 'cuda:99' cannot be used"),
        ({"device": "gpu"}, r"device: 'gpu' cannot be used"),
        ({"max_hours": 0}, r"max_hours: 0 is outside"),
        ({"dataset": "av1451", "model": "resnet50"}, r"model: 'resnet50' needs images"),
        (
            {"dataset": "av1451", "model": "mlp", "ood": ["noise"]},
            r"ood: \['noise'\] are images",
        ),
        ({"runs_dir": __file__}, r"runs_dir: '.*' is a file; name a folder"),
        ({"variant": "\u8a9e" * 90}, r"cannot name a folder"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_written(
    tmp_path, changed, message
):
    with pytest.raises((ValueError, TypeError), match=message):
        small(tmp_path, **changed)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"milestones": [2, 3, 5]}, r"milestones: \[3, 5\] never come in 3 epochs"),
        ({"milestones": [2]}, None),
        ({"augment": True}, None),
        ({"dataset": "table", "augment": True}, "augment: .* is a table, of which"),
        ({"dataset": "table"}, None),
    ],
)
def test_settings_that_would_do_nothing_are_told(tmp_path, changed, told):
    if "dataset" in changed:
        labels = np.arange(60) % 2
        samples = np.random.default_rng(0).normal(size=(60, 4)) + labels[:, None]
        np.savez(tmp_path / "x.npz", train_images=samples, train_labels=labels)
        changed = changed | {"dataset": f"npz:{tmp_path / 'x.npz'}", "model": "mlp"}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        training.prepare(small(tmp_path, **changed))
    said = [str(warning.message) for warning in caught]
    assert len(said) == (told is not None)
    assert told is None or re.match(told, said[0])


def test_a_misspelt_name_in_a_mapping_is_told_and_a_notebooks_are_left_alone(recwarn):
    names = {"dataset": "digits", "device": "cpu", "seeds": [1, 2], "seed": 2}
    TrainConfig.from_variables(names | {"unrelated": 1})
    TrainConfig.from_variables({"__builtins__": {}} | names | {"epoch": 3})
    assert not len(recwarn)
    with pytest.warns(UserWarning, match="'epoch' is no setting; did you mean 'epochs"):
        TrainConfig.from_variables(names | {"epoch": 3})
    for given, meant in (("learning_rate", "lr"), ("LR", "lr"), ("wd", "weight_decay")):
        with pytest.warns(UserWarning, match=f"'{given}' is no .* mean '{meant}'"):
            TrainConfig.from_variables(names | {given: 3})


def test_a_relative_folder_of_runs_stays_where_it_was_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = TrainConfig("digits", device="cpu", runs_dir="mine")
    monkeypatch.chdir("/")
    assert config.run_dir.parts[: len(tmp_path.parts)] == tmp_path.parts


def test_days_of_work_are_refused_before_a_download(tmp_path):
    config = TrainConfig(
        "cifar10", "convnet", runs_dir=tmp_path, device="cpu", max_hours=1e-9
    )
    refusal = (
        r"convnet on cifar10 for 350 epochs would take about .* hours on cpu.*max_hours"
    )
    with pytest.raises(ValueError, match=refusal):
        next(fit(config))
    assert not list(tmp_path.iterdir())


# --- the loop -------------------------------------------------------------------------


def test_a_run_leaves_everything_a_reader_needs(tmp_path):
    config = small(tmp_path, ood=("noise",), keep_weights=True, epochs=4)
    records = list(fit(config))
    assert [r["epoch"] for r in records] == [1, 2, 3, 4]
    assert config.run_dir == tmp_path / "digits" / "convnet" / "gce" / "seed-01"
    files = {
        p.relative_to(config.run_dir).as_posix()
        for p in config.run_dir.rglob("*")
        if p.is_file()
    }
    wanted = {"config.json", "history.jsonl", "metrics.json", "weights.pt"} | {
        f"logits/{s}.npz" for s in ("val", "test", "noise")
    }
    assert files - {".lock"} == wanted
    splits = data.load("digits", 1)
    logits, labels = runs.load_logits(config.run_dir, "test")
    assert logits.shape == (len(splits.test[1]), 10)
    np.testing.assert_array_equal(labels, splits.test[1])
    results = runs.read_json(config.run_dir / "metrics.json")["results"]
    assert results["test_raw_ece"] == pytest.approx(
        metrics.ece(logits, labels), rel=1e-9
    )
    assert results["test_raw_error"] == pytest.approx(
        metrics.error(logits, labels), rel=1e-9
    )
    assert results["test_raw_error"] < 0.2  # it has learnt something
    assert (
        results["test_ats_error"]
        == results["test_ts_nll_error"]
        == results["test_raw_error"]
    )
    noise, no_labels = runs.load_logits(config.run_dir, "noise")
    assert set(no_labels) == {-1}
    assert results["noise_raw_auroc"] == pytest.approx(
        metrics.ood_auroc(logits, noise), rel=1e-9
    )
    history = runs.load_history(config.run_dir)
    assert list(history["epoch"]) == [1, 2, 3, 4]
    assert history["test_nll"].iloc[-1] == pytest.approx(
        results["test_raw_nll"], rel=1e-6
    )
    table = runs.load_results(tmp_path)
    assert table.loc[0, ["dataset", "loss", "seed", "test_raw_ece"]].tolist() == [
        "digits",
        "gce",
        1,
        results["test_raw_ece"],
    ]
    weights = torch.load(config.run_dir / "weights.pt", weights_only=True)
    assert sum(v.numel() for v in weights.values()) > 20_000


def test_a_run_records_every_environment_that_it_was_trained_in(tmp_path, monkeypatch):
    config = small(tmp_path)
    for sharing in ("4", "1", "1"):
        monkeypatch.setenv("GCELIB_SHARING", sharing)
        records = iter(fit(config))
        next(records)
        records.close()
    list(fit(config))
    environment = runs.read_json(config.run_dir / "metrics.json")["environment"]
    assert environment["sharing"] == 1
    assert [one["sharing"] for one in environment["earlier"]] == [4]


def test_a_run_of_one_place_has_no_earlier_ones(tmp_path):
    config = small(tmp_path)
    records = iter(fit(config))
    next(records)
    records.close()
    list(fit(config))
    environment = runs.read_json(config.run_dir / "metrics.json")["environment"]
    assert "earlier" not in environment


def test_a_finished_run_returns_at_once_and_another_result_is_refused(tmp_path):
    list(fit(small(tmp_path)))
    before = (tmp_path / "digits/convnet/gce/seed-01/metrics.json").read_bytes()
    assert list(fit(small(tmp_path))) == []
    refusal = r"another result, which differs in lr \(0\.05 there, 0\.01 asked\)"
    with pytest.raises(ValueError, match=refusal + r".*variant='lr_0\.01'"):
        list(fit(small(tmp_path, lr=0.01)))
    assert (tmp_path / "digits/convnet/gce/seed-01/metrics.json").read_bytes() == before
    assert len(list(fit(small(tmp_path, lr=0.01, variant="lr_0.01")))) == 3


def test_same_seed_same_bits_and_another_seed_another_split(tmp_path):
    logits = {}
    for place, seed in (("a", 1), ("b", 1), ("c", 2)):
        config = small(tmp_path / place, seed=seed, epochs=1)
        list(fit(config))
        logits[place] = runs.load_logits(config.run_dir, "test")[0]
    np.testing.assert_array_equal(logits["a"], logits["b"])
    assert (logits["a"] != logits["c"]).any()


WITH_DROPOUT = """
from torch import nn
def build(k, shape):
    hidden = nn.Sequential(nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU())
    return nn.Sequential(nn.Flatten(), hidden, nn.Dropout(0.5), Head(16, k))
class Head(nn.Linear):  # learns only after it was told to train, as merged ones do
    def train(self, mode=True):
        self.weight.requires_grad_(mode)
        return super().train(mode)
"""


def test_predictions_within_an_epoch_leave_the_training_as_it_was(tmp_path):
    """They switch dropout and the statistics of batches off, and on again."""
    (tmp_path / "nets.py").write_text(WITH_DROPOUT)
    model = f"{tmp_path / 'nets.py'}:build"
    logits = {}
    for looks in (False, True):
        config = small(tmp_path / str(looks), model=model, epochs=2)
        job = training.prepare(config)
        seen = []

        asked = []

        def look(_, job=job, asked=asked, seen=seen):
            seen.extend(trained.predict(job.splits.val[0]) for trained in asked)

        trained = training.Trainer(job, on_batch=look)
        asked += [trained] if looks else []
        list(trained)
        assert bool(seen) == looks
        assert not trained.model.training  # as whoever uses it afterwards expects
        logits[looks] = runs.load_logits(config.run_dir, "test")[0]
    np.testing.assert_array_equal(logits[True], logits[False])


def test_a_trainer_that_has_not_read_what_was_trained_predicts_nothing(tmp_path):
    config = small(tmp_path, model="mlp", epochs=2)
    job = training.prepare(config)
    early = training.Trainer(job)
    inputs = job.splits.val[0]
    untrained = early.predict(inputs)  # of the seed's weights, which nobody has trained
    next(iter(fit(config)))  # and stopped
    stopped = training.Trainer(training.prepare(config))
    for trained in (early, stopped):
        with pytest.raises(ValueError, match=r"^trainer: has not read yet what was tr"):
            trained.predict(inputs)
    list(stopped)
    done = training.Trainer(training.prepare(config))
    with pytest.raises(ValueError, match=r"^trainer: has no network: the run in"):
        done.predict(inputs)
    after = stopped.predict(inputs)
    assert (after != untrained).any()
    np.testing.assert_array_equal(after, runs.load_logits(config.run_dir, "val")[0])


def test_the_global_random_state_is_left_alone(tmp_path):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    list(fit(small(tmp_path, epochs=1)))
    assert torch.equal(torch.rand(3), expected)


def test_sum_reduction_with_a_scaled_rate_is_the_mean(tmp_path):
    """The sum is n times the mean: with n times less learning rate, no decay and full
    batches, the same run.
    """
    common = {"epochs": 1, "batch_size": 50, "weight_decay": 0.0, "drop_last": True}
    results = []
    for change in ({"lr": 0.05}, {"lr": 0.001, "reduction": "sum", "variant": "sum"}):
        config = small(tmp_path, **common, **change)
        list(fit(config))
        results.append(runs.load_logits(config.run_dir, "test")[0])
    np.testing.assert_allclose(results[0], results[1], atol=2e-3)


def test_clipping_bounds_the_step(tmp_path):
    config = small(tmp_path, clip_norm=1e-9, momentum=0.0, weight_decay=0.0, epochs=1)
    trainer = training.Trainer(training.prepare(config))
    before = [p.clone() for p in trainer.model.parameters()]
    trainer.train_epoch(0)
    after = trainer.model.parameters()
    moved = sum(
        (a - b).detach().norm().item() for a, b in zip(before, after, strict=True)
    )
    assert moved < 1e-5


@pytest.mark.parametrize("loss", list(losses.LOSSES))
def test_every_loss_trains(tmp_path, loss):
    config = small(tmp_path, loss=loss, epochs=2, eval_every=2)
    records = list(fit(config))
    assert records[-1]["test_error"] < 0.6  # chance is 0.9
    assert "test_error" not in records[0]
    assert np.isfinite(records[-1]["train_loss"])


def test_bf16_follows_fp32(tmp_path):
    """Also guards against weights that autocast cached before a step changed them."""
    nll = {}
    for precision in ("fp32", "bf16"):
        config = small(tmp_path, precision=precision, epochs=1, variant=precision)
        trainer = training.Trainer(training.prepare(config))
        images, labels = trainer.splits.train
        # Five steps: slow where the processor has no bf16.
        few = (images[:320], labels[:320])
        nll[precision] = trainer.train_epoch(0, few)["train_nll"]
    assert nll["bf16"] == pytest.approx(nll["fp32"], rel=0.05)


def test_cudnn_stays_on_and_only_fp32_forbids_tf32(tmp_path, monkeypatch):
    """``torch.backends.cudnn.flags`` turns off whatever it is not asked to leave on."""
    for precision in ("fp32", "tf32"):
        seen = []

        class Watching(torch.nn.Module):
            def __init__(self, seen=seen):
                super().__init__()
                self.linear = torch.nn.Linear(64, 10)
                self.seen = seen

            def forward(self, x):
                cudnn = torch.backends.cudnn
                self.seen.append((cudnn.enabled, cudnn.benchmark, cudnn.allow_tf32))
                return self.linear(x.flatten(1))

        monkeypatch.setattr(networks, "build", lambda *_: Watching())
        trainer = training.Trainer(
            training.prepare(small(tmp_path, precision=precision))
        )
        seen.clear()
        trainer.train_epoch(0)
        assert {*seen} == {(True, True, precision == "tf32")}
        seen.clear()
        trainer.predict(trainer.splits.test[0])
        assert {*seen} == {(True, True, False)}


@pytest.mark.filterwarnings("ignore:all samples are classified right")
def test_features_train_with_the_mlp(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    labels = torch.from_numpy(rng.integers(0, 3, 300))
    features = torch.from_numpy(rng.normal(size=(300, 68))).float()
    features[:, 0] += 3 * labels
    part = (features, labels)
    splits = data.Splits(
        "av1451",
        part,
        part,
        part,
        3,
        features.mean(0),
        features.std(0),
        ("a", "b", "c"),
        (68,),
        False,
    )
    monkeypatch.setattr(data, "load_as_described", lambda *_: splits)
    config = small(tmp_path, dataset="av1451", epochs=20, lr=0.1)
    assert list(fit(config))[-1]["test_error"] < 0.3


def test_samples_of_a_table_that_are_normalised_already_are_told(tmp_path):
    rng = np.random.default_rng(0)
    raw = rng.normal(50, 5, (300, 4)).astype(np.float32)
    path = tmp_path / "table.npz"
    np.savez(path, train_images=raw, train_labels=np.arange(300) % 3)
    config = small(tmp_path, dataset=f"npz:{path}", epochs=1)
    trainer = training.Trainer(training.prepare(config))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trainer.predict(torch.from_numpy(raw))
    again = data.normalize(torch.from_numpy(raw), trainer.splits)
    with pytest.warns(UserWarning, match="inputs: have means near 0 and spreads near"):
        trainer.predict(again)


def test_nan_stops_at_once_says_where_and_keeps_the_last_checkpoint(
    tmp_path, monkeypatch
):
    config = small(tmp_path)
    run = fit(config)
    next(run)
    real, calls = losses.GCELoss.forward, []

    def breaks(self, logits, labels):
        calls.append(1)
        value = real(self, logits, labels)
        return value * float("nan") if len(calls) == 5 else value

    monkeypatch.setattr(losses.GCELoss, "forward", breaks)
    with pytest.raises(
        FloatingPointError, match=r"epoch 2, step 5 .*checkpoint before it is kept"
    ):
        next(run)
    assert len(calls) == 5
    monkeypatch.undo()
    assert len(runs.load_checkpoint(config.run_dir)["history"]) == 1
    assert [r["epoch"] for r in fit(config)] == [2, 3]


def test_weights_that_the_last_step_of_an_epoch_spoils_are_not_kept(tmp_path):
    # One step an epoch.
    run = fit(small(tmp_path, lr=1000.0, batch_size=2000, epochs=30, eval_every=30))
    with pytest.raises(
        FloatingPointError, match=r"weights stopped being finite in epoch \d+, step 1 "
    ):
        list(run)
    kept = runs.load_checkpoint(tmp_path / "digits/convnet/gce/seed-01")
    assert kept["history"]
    assert all(values.isfinite().all() for values in kept["model"].values())


def test_an_epoch_without_a_batch_is_refused(tmp_path):
    with pytest.raises(
        ValueError,
        match=r"batch_size: 2000 with drop_last leaves no batch of \d+ samples",
    ):
        list(fit(small(tmp_path, batch_size=2000, drop_last=True)))


def test_settings_of_numpys_types_are_settings(tmp_path):
    options = {"n_bins": np.int64(5)}
    config = small(
        tmp_path,
        loss="afl",
        loss_options=options,
        augment=np.bool_(False),
        seed=np.int64(1),
    )
    assert json.loads(json.dumps(config.settings()))["loss_options"] == {"n_bins": 5}
    assert isinstance(options["n_bins"], np.int64)  # what the caller gave is left alone


def test_a_home_folder_is_found(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert TrainConfig(dataset="digits", runs_dir="~/mine").run_dir.is_relative_to(
        tmp_path / "mine"
    )


def test_weights_asked_of_a_finished_run_are_not_silently_missing(tmp_path):
    list(fit(small(tmp_path, epochs=1)))
    with pytest.warns(UserWarning, match="without keeping its weights"):
        assert not list(fit(small(tmp_path, epochs=1, keep_weights=True)))


def test_weights_that_a_finished_run_did_not_keep_are_not_taken_for_its_own(tmp_path):
    """Such as those of an earlier run in the folder."""
    config = small(tmp_path, model="mlp", epochs=1, keep_weights=True)
    list(fit(config))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not list(fit(config))
    (config.run_dir / "metrics.json").unlink()
    with pytest.warns(UserWarning, match=r"weights\.pt there are an earlier one's"):
        list(fit(small(tmp_path, model="mlp", epochs=2)))
    asked = small(tmp_path, model="mlp", epochs=2, keep_weights=True)
    with pytest.warns(UserWarning, match="without keeping its weights; for"):
        assert not list(fit(asked))
    aside = config.run_dir / "weights.pt.earlier"
    aside.rename(config.run_dir / "weights.pt")  # by somebody who has not read that
    with pytest.warns(UserWarning, match="not known to be its own"):
        assert not list(fit(asked))


def set_fp32_precision(stack, setting, value):
    """Set one of PyTorch's newer precisions, and what it was when the stack closes."""
    stack.callback(setattr, setting, "fp32_precision", setting.fp32_precision)
    setting.fp32_precision = value


def fp32_precisions():
    """What everything, each backend and each kind of operation in it is set to."""
    backends = torch.backends
    cudnn, mkldnn = backends.cudnn, backends.mkldnn
    on_cuda = (backends.cuda.matmul, cudnn, cudnn.conv, cudnn.rnn)
    elsewhere = (backends, mkldnn, mkldnn.matmul, mkldnn.conv, mkldnn.rnn)
    return [setting.fp32_precision for setting in (*on_cuda, *elsewhere)]


def older_matmul_precision():
    """The older setting, or that PyTorch refuses to tell it beside the newer ones."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return "not told"


GLOBALS = {
    "default dtype": lambda s: (
        s.callback(torch.set_default_dtype, torch.get_default_dtype()),
        torch.set_default_dtype(torch.float64),
    ),
    "autocast": lambda s: s.enter_context(torch.autocast("cpu", torch.bfloat16)),
    "no grad": lambda s: s.enter_context(torch.no_grad()),
    "inference mode": lambda s: s.enter_context(torch.inference_mode()),
    "default device": lambda s: s.enter_context(torch.device("meta")),
    "deterministic": lambda s: (
        s.callback(torch.use_deterministic_algorithms, False),
        torch.use_deterministic_algorithms(True),
    ),
    "matmul precision": lambda s: (
        s.callback(torch.set_float32_matmul_precision, "highest"),
        torch.set_float32_matmul_precision("medium"),
    ),
    "fp32_precision of all": lambda s: set_fp32_precision(s, torch.backends, "tf32"),
    "no mkldnn": lambda s: s.enter_context(torch.backends.mkldnn.flags(enabled=False)),
}


FINER = {
    "fp32_precision of cuDNN's convolutions": lambda s: set_fp32_precision(
        s, torch.backends.cudnn.conv, "ieee"
    ),
    "fp32_precision of matrix products": lambda s: set_fp32_precision(
        s, torch.backends.mkldnn.matmul, "bf16"
    ),
    "fp32_precision of convolutions": lambda s: set_fp32_precision(
        s, torch.backends.mkldnn.conv, "bf16"
    ),
    "fp32_precision of CUDA's matrix products": lambda s: set_fp32_precision(
        s, torch.backends.cuda.matmul, "tf32"
    ),
}


def global_state():
    """What a caller may have set, and will want to find again."""
    return (
        torch.get_default_dtype(),
        torch.is_autocast_enabled("cpu"),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.get_default_device(),
        torch.are_deterministic_algorithms_enabled(),
        older_matmul_precision(),
        *fp32_precisions(),
        torch.backends.mkldnn.enabled,
    )


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The logits of a run under torch's defaults."""
    config = small(tmp_path_factory.mktemp("plain"), model="mlp", loss="afl", epochs=2)
    list(fit(config))
    return runs.load_logits(config.run_dir, "test")[0]


@pytest.mark.parametrize("name", [*GLOBALS, *FINER])
def test_inside_products_are_exact_and_afterwards_all_is_as_before(name):
    with contextlib.ExitStack() as stack:
        (GLOBALS | FINER)[name](stack)
        before = global_state()
        with torch_defaults():
            # Networks, torch.compile and others may ask for the older settings.
            assert torch.get_float32_matmul_precision() == "highest"
            assert not torch.backends.cudnn.allow_tf32
            assert {*fp32_precisions()} == {"ieee"}
        assert global_state() == before
    # What a caller sets back is as if nothing had been.
    assert torch.get_float32_matmul_precision() == "highest"
    assert torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("name", GLOBALS)
def test_the_numbers_do_not_hang_on_torchs_global_state(tmp_path, plain, name):
    with contextlib.ExitStack() as stack:
        GLOBALS[name](stack)
        before = global_state()
        config = small(tmp_path, model="mlp", loss="afl", epochs=2)
        for _ in fit(config):
            assert global_state() == before  # nothing leaks between two epochs
        assert global_state() == before
    np.testing.assert_array_equal(runs.load_logits(config.run_dir, "test")[0], plain)


def test_blocks_that_overlap_leave_no_trace_of_each_other():
    """As in two threads: the first that enters is the first that leaves."""
    with contextlib.ExitStack() as stack:
        for name in ("default dtype", "deterministic", "matmul precision", "no mkldnn"):
            GLOBALS[name](stack)
        before = global_state()
        first, second = torch_defaults(), torch_defaults()
        first.__enter__()
        inside = global_state()
        second.__enter__()
        first.__exit__(None, None, None)
        assert global_state() == inside != before  # the second is still at work
        second.__exit__(None, None, None)
        assert global_state() == before


CHANGES = {
    "weights": lambda t: t.model.load_state_dict(
        {k: v * 2 for k, v in t.model.state_dict().items()}
    ),
    "a layer": lambda t: setattr(t.model, "extra", torch.nn.Parameter(torch.zeros(1))),
    "network": lambda t: setattr(t, "model", torch.nn.Linear(64, 10)),
    "loss": lambda t: setattr(t, "criterion", losses.make_loss("brier")),
    "optimiser": lambda t: setattr(
        t, "optimizer", torch.optim.Adam(t.model.parameters())
    ),
    "an option of the loss": lambda t: setattr(t.criterion, "label_smoothing", 0.1),
    "a frozen layer": lambda t: next(t.model.parameters()).requires_grad_(False),
    "weight decay": lambda t: t.optimizer.param_groups[0].update(weight_decay=0.1),
}


@pytest.mark.parametrize("what", CHANGES)
def test_no_run_is_stored_that_its_settings_did_not_make(tmp_path, what):
    trainer = training.Trainer(training.prepare(small(tmp_path, model="mlp")))
    CHANGES[what](trainer)
    with pytest.raises(ValueError, match=r"^trainer: .* was changed since it was made"):
        next(iter(trainer))


class Learning(losses.Loss):
    """Cross-entropy weighted by what it has seen, as a loss of one's own may be."""

    def __init__(self, reduction="mean", *, ignore_index=None):
        super().__init__(reduction, ignore_index=ignore_index)
        self.begin()

    def begin(self):
        pass

    def weight(self):
        return 1.0

    def per_sample(self, log_probs, labels):
        nll = torch.nn.functional.nll_loss(log_probs, labels, reduction="none")
        return self.weight() * nll


class InBuffer(Learning):
    def begin(self):
        self.register_buffer("scale", torch.ones(()))

    def weight(self):
        return self.scale.mul_(0.99).clone()


class InUnsavedBuffer(InBuffer):
    def begin(self):
        self.register_buffer("scale", torch.ones(()), persistent=False)


class InTensor(InBuffer):
    def begin(self):
        self.scale = torch.ones(())


class InDataOfTensor(InTensor):
    def weight(self):
        self.scale.data.mul_(0.99)
        return self.scale.clone()


class InNumber(Learning):
    n = 0

    def weight(self):
        self.n += 1
        return 1 / (1 + 0.02 * self.n)


class InNumpyNumber(InNumber):
    def begin(self):
        self.n = np.int64(0)


class InNumpyArray(Learning):
    def begin(self):
        self.scale = np.ones(3)

    def weight(self):
        self.scale *= 0.99
        return float(self.scale.mean())


class InList(Learning):
    def begin(self):
        self.seen = []

    def weight(self):
        self.seen.append(0.99)
        return float(np.prod(self.seen))


class InDict(Learning):
    def begin(self):
        self.kept = {"scale": 1.0}

    def weight(self):
        self.kept["scale"] *= 0.99
        return self.kept["scale"]


class InInnerModule(Learning):
    def begin(self):
        self.inner = InNumber()

    def weight(self):
        return self.inner.weight()


class InGenerator(Learning):
    def begin(self):
        self.generator = torch.Generator().manual_seed(0)

    def weight(self):
        return float(torch.rand((), generator=self.generator))


class InGradientAlone(InNumber):
    """Its value is cross-entropy's; what it has seen scales the gradient."""

    def per_sample(self, log_probs, labels):
        nll = torch.nn.functional.nll_loss(log_probs, labels, reduction="none")
        return nll.detach() + self.weight() * (nll - nll.detach())


class InUpdate(Learning):
    """An adaptive loss that keeps the epoch's weight beside its state."""

    scale = 1.0

    def weight(self):
        return self.scale

    def update(self, val_logits, val_labels):
        self.scale *= 0.9


class AfterWarmUp(Learning):
    """It counts from the start, but acts on that in the second epoch alone."""

    n = 0

    def weight(self):
        self.n += 1
        return 1.0 if self.n < 30 else 2.0


FORGETFUL = [
    InUnsavedBuffer,
    InTensor,
    InDataOfTensor,
    InNumber,
    InNumpyNumber,
    InNumpyArray,
    InList,
    InDict,
    InInnerModule,
    InGenerator,
    InGradientAlone,
    InUpdate,
]


class InExtraState(InNumber):
    def get_extra_state(self):
        return torch.tensor(self.n)

    def set_extra_state(self, state):
        self.n = int(state)


class CountsItsCalls(InNumber):
    def weight(self):
        super().weight()
        return 1.0


class KeepsItsLastValue(Learning):
    """For a log: a tensor with a gradient, which cannot be copied."""

    def forward(self, logits, labels):
        self.last = super().forward(logits, labels)
        return self.last


class MakesATableOnce(Learning):
    table = None

    def per_sample(self, log_probs, labels):
        if self.table is None:
            self.table = 1 / torch.arange(1.0, 1.0 + log_probs.shape[1])
        return super().per_sample(log_probs, labels) * self.table[labels]


class SumsAnEpoch(Learning):
    """An adaptive loss: ``update`` uses up what the epoch has left in a list."""

    def begin(self):
        self.register_buffer("scale", torch.ones(()))
        self.sizes = []

    def weight(self):
        return self.scale.clone()

    def per_sample(self, log_probs, labels):
        self.sizes.append(len(labels))
        return super().per_sample(log_probs, labels)

    def update(self, val_logits, val_labels):
        self.scale.mul_(1 / (1 + sum(self.sizes) / 10_000))
        self.sizes.clear()


class Draws(Learning):
    def weight(self):
        return torch.rand(())


def of_loss(tmp_path, monkeypatch, build, **options):
    monkeypatch.setitem(losses.LOSSES, "learning", losses.LossRow(build))
    options = {"epochs": 3, "eval_every": 3, "ood": []} | options
    return small(tmp_path, model="mlp", loss="learning", **options)


@pytest.mark.parametrize("build", FORGETFUL)
def test_a_loss_that_no_checkpoint_has_is_refused_before_the_run(
    tmp_path, monkeypatch, build
):
    config = of_loss(tmp_path, monkeypatch, build)
    with pytest.raises(ValueError, match=r"^loss: keeps something beside its state_"):
        next(fit(config))
    assert not config.run_dir.exists()


def test_a_loss_that_begins_to_forget_later_is_refused_then(tmp_path, monkeypatch):
    config = of_loss(tmp_path, monkeypatch, AfterWarmUp)
    epochs = fit(config)
    next(epochs)
    with pytest.raises(ValueError, match=r"^loss: keeps something beside its state_"):
        next(epochs)


def test_a_loss_with_weights_is_refused(tmp_path, monkeypatch):
    class Weighted(Learning):
        def begin(self):
            self.scale = torch.nn.Parameter(torch.ones(()))

    config = of_loss(tmp_path, monkeypatch, Weighted)
    with pytest.raises(ValueError, match=r"^loss: 'learning' has weights of its own"):
        next(fit(config))


def test_a_loss_that_does_not_take_its_own_state_is_refused(tmp_path, monkeypatch):
    class Late(Learning):
        def weight(self):
            self.register_buffer("late", torch.ones(()))
            return 1.0

    config = of_loss(tmp_path, monkeypatch, Late)
    with pytest.raises(ValueError, match=r"^loss: made anew, it does not take its own"):
        next(fit(config))


OF_WHOLE_STATE = [InBuffer, InExtraState, CountsItsCalls, MakesATableOnce]
OF_WHOLE_STATE += [SumsAnEpoch, Draws]


@pytest.mark.parametrize("build", [*OF_WHOLE_STATE, KeepsItsLastValue])
@pytest.mark.filterwarnings("ignore:loss. cannot be copied")
def test_a_stopped_run_of_a_loss_of_ones_own_ends_alike(tmp_path, monkeypatch, build):
    whole = of_loss(tmp_path / "whole", monkeypatch, build)
    expected = list(fit(whole))[-1]
    stopped = of_loss(tmp_path / "stopped", monkeypatch, build)
    epochs = fit(stopped)
    next(epochs)
    epochs.close()
    found = list(fit(stopped))[-1]
    for name in ("train_loss", "train_nll", "val_nll", "test_nll"):
        assert found[name] == expected[name]


def test_nobody_sees_what_cannot_be_copied(tmp_path, monkeypatch):
    config = of_loss(tmp_path, monkeypatch, KeepsItsLastValue, epochs=1)
    with pytest.warns(UserWarning, match="^loss: cannot be copied") as told:
        list(fit(config))
    assert sum("cannot be copied" in str(one.message) for one in told) == 1


def test_looking_at_a_loss_leaves_the_one_that_trains_alone(tmp_path, monkeypatch):
    """No call is added to those of the steps, nor a number drawn."""
    config = of_loss(tmp_path, monkeypatch, CountsItsCalls, epochs=2)
    trainer = training.Trainer(training.prepare(config))
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    list(trainer)
    n_steps = 2 * (-(-len(trainer.splits.train[1]) // config.resolved().batch_size))
    assert trainer.criterion.n == n_steps
    assert torch.equal(torch.get_rng_state(), before[0])
    numpy_state = np.random.get_state()[1]  # noqa: NPY002
    np.testing.assert_array_equal(numpy_state, before[1])


@pytest.mark.parametrize("what", ["optimiser", "weight decay"])
def test_what_is_changed_between_two_epochs_is_refused(tmp_path, what):
    trainer = training.Trainer(training.prepare(small(tmp_path, model="mlp")))
    epochs = iter(trainer)
    next(epochs)
    CHANGES[what](trainer)
    with pytest.raises(ValueError, match="trainer: its network, loss or optimiser"):
        next(epochs)


OF_STEPS = ["loss", "optimiser", "weight decay", "a layer"]


@pytest.mark.parametrize("epochs", [1, 2])
@pytest.mark.parametrize("what", OF_STEPS)
def test_what_on_batch_changes_in_the_last_epoch_is_refused(tmp_path, what, epochs):
    config = small(tmp_path, model="mlp", epochs=epochs)

    def change(progress):
        if progress.epoch == epochs and progress.step == progress.steps:
            CHANGES[what](trainer)

    trainer = training.Trainer(training.prepare(config), change)
    with pytest.raises(ValueError, match="trainer: its network, loss or optimiser"):
        list(trainer)
    assert not runs.is_done(config.run_dir)


def test_a_learning_rate_that_no_setting_names_is_refused(tmp_path):
    def set_rate(*_):
        trainer.optimizer.param_groups[0]["lr"] *= 0.1

    message = "trainer: its learning rate was set to 0.005 where its settings say 0.05"
    config = small(tmp_path, model="mlp", milestones=[1])
    trainer = training.Trainer(training.prepare(config), set_rate)
    with pytest.raises(ValueError, match=message):
        next(iter(trainer))
    trainer = training.Trainer(training.prepare(config))
    epochs = iter(trainer)
    next(epochs)
    set_rate()
    with pytest.raises(ValueError, match=message):
        next(epochs)
    rates = [record["lr"] for record in trainer]
    np.testing.assert_allclose(rates, [0.005, 0.005])


def weights_of(trainer, factor):
    return {k: v * factor for k, v in trainer.model.state_dict().items()}


def average(trainer):
    trainer.model.load_state_dict(weights_of(trainer, 0.5))


OF_WEIGHTS = {
    "an average": average,
    "another state": lambda t: t.load_state_dict(
        t.state_dict() | {"model": weights_of(t, 2)}
    ),
    "data that no version counts": lambda t: next(t.model.parameters()).data.mul_(2),
}


@pytest.mark.parametrize("epochs", [1, 2])
@pytest.mark.parametrize("what", OF_WEIGHTS)
def test_weights_that_no_step_made_are_refused(tmp_path, what, epochs):
    """After the last record, too: logits and weights.pt were of two networks."""
    config = small(tmp_path, model="mlp", epochs=2)
    trainer = training.Trainer(training.prepare(config))
    records = iter(trainer)
    for _ in range(epochs):
        next(records)
    OF_WEIGHTS[what](trainer)
    with pytest.raises(ValueError, match="trainer: its weights were changed after an"):
        next(records)
    assert not (config.run_dir / "logits").exists()


def update_again(trainer):
    samples, labels = trainer.splits.val
    trainer.criterion.update(trainer.predict(samples), labels)


def halve_momentum(trainer):
    for state in trainer.optimizer.state.values():
        state["momentum_buffer"].mul_(0.5)


OF_STATES = {
    "an update of an adaptive loss": (update_again, "loss"),
    "no momentum": (lambda t: t.optimizer.state.clear(), "optimiser"),
    "half the momentum": (halve_momentum, "optimiser"),
}


@pytest.mark.parametrize("epochs", [1, 2])
@pytest.mark.parametrize("what", OF_STATES)
def test_a_state_that_the_trainer_did_not_leave_is_refused(tmp_path, what, epochs):
    """Of the loss and the optimiser: the result would be stored as the plain run's."""
    change, part = OF_STATES[what]
    config = small(tmp_path, model="mlp", loss="afl", epochs=2)
    trainer = training.Trainer(training.prepare(config))
    records = iter(trainer)
    for _ in range(epochs):
        next(records)
    change(trainer)
    with pytest.raises(ValueError, match=f"trainer: the state of its {part} was chan"):
        next(records)
    assert not (config.run_dir / "logits").exists()


def test_after_a_refusal_the_run_goes_on_from_what_its_last_epoch_left(tmp_path, plain):
    config = small(tmp_path, model="mlp", loss="afl", epochs=2)
    trainer = training.Trainer(training.prepare(config))
    records = iter(trainer)
    assert [next(records)["epoch"] for _ in range(2)] == [1, 2]
    average(trainer)
    with pytest.raises(ValueError, match="iterate again, and the run goes on from"):
        next(records)
    assert list(trainer) == []
    np.testing.assert_array_equal(runs.load_logits(config.run_dir, "test")[0], plain)


def test_weights_that_are_put_back_between_two_epochs_are_no_change(tmp_path):
    config = small(tmp_path, model="mlp", epochs=2)
    trainer = training.Trainer(training.prepare(config))
    for _ in trainer:
        left = copy.deepcopy(trainer.state_dict())
        trainer.load_state_dict(left | {"model": weights_of(trainer, 2)})
        trainer.predict(trainer.splits.test[0][:5])
        trainer.load_state_dict(left)
    assert runs.is_done(config.run_dir)


def test_an_earlier_state_is_a_copy_that_training_leaves_alone(tmp_path):
    trainer = training.Trainer(training.prepare(small(tmp_path, model="mlp", epochs=3)))
    inputs = trainer.splits.test[0]
    states, seen = [], []
    for _ in trainer:
        states.append(trainer.state_dict())
        seen.append(trainer.predict(inputs))
    assert not torch.equal(seen[0], seen[-1])
    for state, logits in zip(states, seen, strict=True):
        trainer.load_state_dict(state)
        assert torch.equal(trainer.predict(inputs), logits)


def test_a_trainer_whose_run_another_has_finished_predicts_nothing(tmp_path):
    config = small(tmp_path, model="mlp", epochs=3)
    trainer = training.Trainer(training.prepare(config))
    inputs = trainer.splits.test[0]
    next(iter(trainer))
    list(fit(config))
    assert list(trainer) == []
    with pytest.raises(ValueError, match="which another trainer has finished"):
        trainer.predict(inputs)


def test_samples_that_no_step_saw_are_not_in_the_pace(tmp_path, monkeypatch):
    """Of 1,000 digits drop_last leaves out 400; here every epoch takes as long."""
    ticks = iter(range(0, 10**6, 2))
    monkeypatch.setattr("time.perf_counter", lambda: float(next(ticks)))
    asked = small(tmp_path, model="mlp", epochs=1, batch_size=600, drop_last=True)
    record = next(fit(asked))
    whole = next(fit(dataclasses.replace(asked, drop_last=False, variant="whole")))
    assert record["images_per_second"] / whole["images_per_second"] == 0.6


def test_a_checkpoint_of_a_gpu_goes_on_on_a_cpu(tmp_path, monkeypatch):
    """There the optimiser is a fused one, and says so in its state."""
    config = small(tmp_path, model="mlp", epochs=2)
    of_cpu = training.Trainer.state_dict

    def of_gpu(trainer):
        state = copy.deepcopy(of_cpu(trainer))
        state["optimizer"]["param_groups"][0]["fused"] = True
        return state

    with monkeypatch.context() as there:
        there.setattr(training.Trainer, "state_dict", of_gpu)
        epochs = fit(config)
        next(epochs)
        epochs.close()
    assert [record["epoch"] for record in fit(config)] == [2]


def test_a_network_may_freeze_layers_itself(tmp_path, monkeypatch):
    class Freezing(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first = torch.nn.Linear(64, 16)
            self.last = torch.nn.Linear(16, 10)

        def train(self, mode=True):
            self.first.requires_grad_(False)
            return super().train(mode)

        def forward(self, x):
            return self.last(self.first(x.flatten(1)).relu())

    monkeypatch.setattr(networks, "build", lambda *_: Freezing())
    assert len(list(fit(small(tmp_path, epochs=2)))) == 2


def test_images_of_another_size_are_no_input(tmp_path):
    """Most networks would take them, and say something."""
    trainer = training.Trainer(training.prepare(small(tmp_path)))
    images = trainer.splits.test[0]
    with pytest.raises(
        ValueError, match=r"inputs: have the shape \(1, 4, 4\), those of"
    ):
        trainer.predict(images[:2, :, :4, :4])


def test_a_state_that_a_run_does_not_go_on_from_is_told(tmp_path, plain):
    config = small(tmp_path, model="mlp", loss="afl", epochs=2)
    trainer = training.Trainer(training.prepare(config))
    state = copy.deepcopy(trainer.state_dict())
    for values in state["model"].values():
        values.add_(1)
    trainer.load_state_dict(state)
    with pytest.warns(UserWarning, match="load_state_dict gave is not used"):
        list(trainer)
    np.testing.assert_array_equal(runs.load_logits(config.run_dir, "test")[0], plain)


def test_after_a_training_in_bf16_the_stored_logits_are_float32_true(tmp_path):
    config = small(tmp_path, model="mlp", precision="bf16", epochs=1)
    list(fit(config))
    logits, _ = runs.load_logits(config.run_dir, "test")
    rounded = torch.from_numpy(logits).bfloat16().float().numpy()
    assert (logits != rounded).mean() > 0.9
    largest = np.sort(logits, 1)
    assert (largest[:, -1] > largest[:, -2]).all()  # no ties


def test_inside_an_epoch_each_step_can_be_shown(tmp_path):
    seen = []
    config = small(tmp_path, model="mlp", epochs=2, batch_size=300)
    list(fit(config, on_batch=seen.append))
    steps = [(p.epoch, p.epochs, p.step, p.steps) for p in seen]
    assert steps == [(e, 2, s, 4) for e in (1, 2) for s in (1, 2, 3, 4)]
    assert all(p.seconds >= 0 for p in seen)


def test_prepare_writes_nothing_and_trainer_goes_on_from_it(tmp_path):
    job = training.prepare(small(tmp_path, model="mlp"))
    assert not list(tmp_path.iterdir())
    assert [record["epoch"] for record in training.Trainer(job)] == [1, 2, 3]
    assert training.prepare(small(tmp_path, model="mlp")).done


@pytest.mark.parametrize("when", ["in epoch 1", "in epoch 2", "after the end"])
def test_a_trainer_that_is_iterated_again_trains_nothing_twice(tmp_path, when):
    config = small(tmp_path / "again", model="mlp", loss="afl", epochs=2)
    plain = small(tmp_path / "plain", model="mlp", loss="afl", epochs=2)
    stop_at = {"in epoch 1": 5, "in epoch 2": 20, "after the end": 10**6}[when]
    steps = []

    def interrupt(progress):
        steps.append(progress)
        if len(steps) == stop_at:
            raise KeyboardInterrupt

    trainer = training.Trainer(training.prepare(config), interrupt)
    with contextlib.suppress(KeyboardInterrupt):
        list(trainer)
    if when == "after the end":
        shutil.rmtree(config.run_dir)
    list(trainer)
    list(fit(plain))
    for split in ("val", "test"):
        logits, _ = runs.load_logits(config.run_dir, split)
        assert np.array_equal(logits, runs.load_logits(plain.run_dir, split)[0])


def test_a_run_that_was_removed_after_prepare_is_done_again_as_a_whole(tmp_path):
    config = small(tmp_path, model="mlp", epochs=1, ood=("noise",))
    list(fit(config))
    job = training.prepare(config)
    first = runs.read_result(config.run_dir)
    shutil.rmtree(config.run_dir)
    list(training.Trainer(job))
    again = runs.read_result(config.run_dir)
    assert again.logits == first.logits
    assert again.results.keys() == first.results.keys()


def test_the_cure_that_a_refusal_names_is_accepted(tmp_path):
    """A run that ended at step 0 left nothing behind that would refuse the next one."""
    with pytest.raises(ValueError, match="max_hours"):
        next(fit(small(tmp_path, max_hours=1e-9)))
    assert not list(tmp_path.iterdir())
    options = {"model": "mlp", "epochs": 1}
    with pytest.raises(FloatingPointError, match="smaller lr"):
        list(fit(small(tmp_path, lr=1000.0, weight_decay=1000.0, **options)))
    assert len(list(fit(small(tmp_path, lr=0.01, **options)))) == 1


# --- killed and resumed ---------------------------------------------------------------


def run_until_killed(options, call, name):
    """Train in a process that kills itself with signal 9 at the ``call``-th use of
    ``os.<name>``.
    """
    torch.set_num_threads(1)
    real, calls = getattr(os, name), []

    def counted(*args, **kwargs):
        calls.append(1)
        if len(calls) == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)

    setattr(os, name, counted)
    list(fit(TrainConfig(**options)))


def in_child(*args):
    # Forked from a process that has imported PyTorch and computed nothing.
    context = multiprocessing.get_context("forkserver")
    child = context.Process(target=run_until_killed, args=args)
    child.start()
    child.join(300)
    assert child.exitcode is not None, "the child hangs"
    return child.exitcode


@pytest.mark.skipif(os.name == "nt", reason="Windows has no signal 9")
def test_killed_again_and_again_it_ends_with_the_same_bits(tmp_path):
    options = {
        "dataset": "digits",
        "loss": "afl",
        "epochs": 3,
        "ood": (),
        "device": "cpu",
    }
    assert in_child(options | {"runs_dir": str(tmp_path / "whole")}, 0, "replace") == 0
    broken = options | {"runs_dir": str(tmp_path / "broken")}
    deaths = [
        in_child(broken, call, name)
        for call, name in ((2, "replace"), (3, "replace"), (2, "fsync"), (4, "replace"))
    ]
    assert deaths == [-signal.SIGKILL] * len(deaths)
    assert in_child(broken, 0, "replace") == 0
    whole, resumed = (
        TrainConfig(**options, runs_dir=str(tmp_path / p)).run_dir
        for p in ("whole", "broken")
    )
    for split in ("val", "test"):
        a, b = (
            np.load(d / "logits" / f"{split}.npz")["logits"] for d in (whole, resumed)
        )
        assert a.tobytes() == b.tobytes()
    timed = {"train_seconds"}
    a, b = (runs.read_json(d / "metrics.json")["results"] for d in (whole, resumed))
    assert {k: v for k, v in a.items() if k not in timed} == {
        k: v for k, v in b.items() if k not in timed
    }
    lines = [
        json.loads(line)
        for line in (resumed / "history.jsonl").read_text().splitlines()
    ]
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert not list(resumed.glob("*checkpoint*"))


def test_a_commit_that_came_after_the_import_is_not_said_to_have_run(monkeypatch):
    settings = TrainConfig("digits", device="cpu").resolved()
    commit = training.environment(settings)["commit"]
    if commit is None:
        pytest.skip("needs a checkout")
    file, time_written = next(iter(environment._WRITTEN_AT_IMPORT.items()))
    written = {**environment._WRITTEN_AT_IMPORT, file: time_written - 1}
    monkeypatch.setattr(environment, "_WRITTEN_AT_IMPORT", written)
    after = training.environment(settings)["commit"]
    assert after == commit.removesuffix("-dirty") + "-dirty"
