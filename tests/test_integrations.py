"""docs/integrations.md: its blocks run, and their numbers are those of a plain loop.

Each section of the page is run once, in the order of its blocks, after the block that
all share. Libraries that are not installed (``pip install 'gcelib[integrations]'``)
skip their section.
"""

import os
import re
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from gcelib import GCELoss, calibration, make_calibrator, make_loss, nll

PAGE = Path(__file__).resolve().parents[1] / "docs" / "integrations.md"


def sections():
    """The blocks of each section, and those before the first under ''."""
    title = ""
    found = {}
    for part in re.split(r"^## (.+)$", PAGE.read_text(encoding="utf-8"), flags=re.M):
        blocks = re.findall(r"^```python\n(.*?)^```$", part, flags=re.M | re.S)
        if "\n" not in part:
            title = part
        else:
            found[title] = blocks
    return found


BLOCKS = sections()


@pytest.fixture(scope="module")
def names_of():
    """The names that a section leaves, by its title."""
    return {}


@pytest.fixture
def run(tmp_path, monkeypatch, names_of):
    """Run a section in an empty folder, once for all tests; returns its names."""
    monkeypatch.chdir(tmp_path)

    def section(title, *libraries):
        for library in libraries:
            pytest.importorskip(library, reason="pip install 'gcelib[integrations]'")
        if title not in names_of:
            names = {"__name__": "integrations"}
            for block in BLOCKS[""] + BLOCKS[title]:
                exec(compile(block, f"{PAGE.name}: {title}", "exec"), names)
            names_of[title] = names
        return names_of[title]

    return section


def one_step(names, criterion=None):
    """The shared network after one step of SGD on the whole training set."""
    model = names["network"]()
    x, y = names["train_set"].tensors
    (criterion or GCELoss())(model(x), y).backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= 0.1 * parameter.grad
    return model


def assert_same_weights(found, expected, **tolerance):
    pairs = zip(found.parameters(), expected.parameters(), strict=True)
    for ours, theirs in pairs:
        torch.testing.assert_close(ours.detach().cpu(), theirs.detach(), **tolerance)


def test_every_section_has_a_test():
    source = Path(__file__).read_text(encoding="utf-8")
    for title in BLOCKS:
        assert not title or f'run("{title}"' in source, title


def test_plain_torch(run):
    names = run("Plain torch, with accumulated gradients")
    assert_same_weights(names["model"], one_step(names))
    x, y = names["batch"], names["batch_labels"]
    with torch.no_grad():
        each = GCELoss(reduction="none")(names["model"](x), y)
        padded = torch.cat([names["model"](x), torch.randn(3, 3)])
        marks = torch.cat([y, torch.full((3,), -100)])
        kept = GCELoss(ignore_index=-100)(padded, marks)
        torch.testing.assert_close(kept, GCELoss()(names["model"](x), y))
    assert names["weighted"].isfinite()
    assert each.shape == y.shape
    assert names["weights"].tolist() == [[1.0, 2.0, 1.0][k] for k in y]
    expected = np.average(names["losses"].detach(), weights=names["weights"])
    assert names["weighted"].item() == pytest.approx(expected, rel=1e-5)


def test_lightning(run):
    names = run("Lightning", "lightning")
    expected = one_step(names)
    assert_same_weights(names["module"].model, expected)
    logits = names["module"].model(names["inputs"][32:]).detach()
    measured = names["module"].trainer.callback_metrics
    assert measured["val_nll"] == pytest.approx(nll(logits, names["labels"][32:]))
    pieces = names["in_pieces"].model
    whole = names["module"].model
    for ours, theirs in zip(pieces.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
    metered = names["metered"].trainer.callback_metrics
    for name in ("val_nll", "val_ece"):
        assert float(metered[name]) == pytest.approx(float(measured[name]), rel=1e-5)
    lines = {"logits": logits}
    exec(names["advice"].usage("calibrator.pt"), lines)
    expected = names["advice"].calibrator(logits).softmax(1)
    torch.testing.assert_close(lines["probabilities"], expected)


@pytest.mark.parametrize("name", ["Classifier", "Metered"])
def test_lightning_s_modules_log_each_number_once_and_for_all_processes(run, name):
    """Logged twice, and one time for one process alone, it is refused on several."""
    names = run("Lightning", "lightning")
    logged = []

    class Listening(names[name]):
        def log(self, what, value, **options):
            logged.append((what, options["sync_dist"]))
            super().log(what, value, **options)

    loader = names["DataLoader"](names["val_set"], 32)
    names["trainer"]().validate(Listening(), loader, verbose=False)
    assert logged == [("val_nll", True), ("val_ece", True)]


@pytest.mark.parametrize("name", ["Classifier", "Metered"])
def test_lightning_s_modules_forget_a_validation_that_was_broken_off(run, name):
    names = run("Lightning", "lightning")

    class Stopping(names[name]):
        stops = True

        def validation_step(self, batch, batch_index):
            super().validation_step(batch, batch_index)
            if self.stops:
                raise RuntimeError("broken off")

    module = Stopping()
    loader = names["DataLoader"](names["val_set"], 32)
    with pytest.raises(RuntimeError, match="broken off"):
        names["trainer"]().validate(module, loader, verbose=False)
    module.stops = False
    with torch.no_grad():
        for weight in module.model.parameters():
            weight.mul_(0.5)
    (found,) = names["trainer"]().validate(module, loader, verbose=False)
    logits = module.model(names["inputs"][32:]).detach()
    assert found["val_nll"] == pytest.approx(nll(logits, names["labels"][32:]))


def test_lightning_s_validation_alone_leaves_adafocal_as_it_is(run):
    names = run("Lightning", "lightning")
    module = names["Classifier"]()
    module.criterion = make_loss("afl", process_group="world")
    before = module.criterion.gamma.clone()
    loader = names["DataLoader"](names["val_set"], 32)
    names["trainer"]().validate(module, loader, verbose=False)
    torch.testing.assert_close(module.criterion.gamma, before)
    names["trainer"]().fit(module, names["DataLoader"](names["train_set"], 32), loader)
    assert not torch.equal(module.criterion.gamma, before)


def test_lightning_s_small_pieces_refuse_several_processes(run):
    names = run("Lightning", "lightning")
    module = names["InSmallPieces"]()
    module._trainer = types.SimpleNamespace(world_size=2)
    with pytest.raises(RuntimeError, match="one device"):
        module.on_fit_start()


def kept_after_training(names, path):
    """A callback that hands what a process is left with to the one that started it."""

    class Keep(names["L"].Callback):
        def on_train_end(self, trainer, module):
            state = {
                "processes": trainer.world_size,
                "model": module.model.state_dict(),
                "criterion": module.criterion.state_dict(),
                "nll": trainer.callback_metrics["val_nll"],
            }
            if trainer.is_global_zero:
                torch.save(state, path)

    return Keep()


@pytest.mark.skipif(
    not torch.distributed.is_available() or not hasattr(os, "fork"),
    reason="needs torch.distributed and fork",
)
@pytest.mark.parametrize("loss", ["gce", "afl_gce"])
def test_lightning_on_two_processes_is_one_process_on_the_whole_batch(
    run, loss, tmp_path
):
    names = run("Lightning", "lightning")
    loader, (train, val) = names["DataLoader"], (names["train_set"], names["val_set"])
    module = names["Classifier"]()
    module.criterion = make_loss(loss, process_group="world")
    path = tmp_path / "after.pt"
    # Processes by fork, which starts faster; "ddp" starts the script again.
    callbacks = [kept_after_training(names, path)]
    trainer = names["trainer"](devices=2, strategy="ddp_fork", callbacks=callbacks)
    trainer.fit(module, loader(train, 16), loader(val, 16))
    after = torch.load(path)
    assert after["processes"] == 2
    alone = names["network"]()
    expected = one_step(names, make_loss(loss))
    alone.load_state_dict(after["model"])
    assert_same_weights(alone, expected, rtol=1e-5, atol=1e-6)
    logits = alone(val.tensors[0]).detach()
    labels = val.tensors[1]
    assert after["nll"] == pytest.approx(nll(logits, labels), rel=1e-5)
    if loss == "afl_gce":
        adapted = make_loss(loss)
        adapted.update(logits, labels)
        torch.testing.assert_close(after["criterion"]["gamma"], adapted.gamma)


def test_hugging_face_trainer(run):
    names = run("Hugging Face Trainer", "transformers", "accelerate")
    assert_same_weights(names["hf"].model.net, one_step(names))
    logits = names["hf"].model.net(names["inputs"][32:]).detach()
    found = names["hf"].evaluate()["eval_nll"]
    assert found == pytest.approx(nll(logits, names["labels"][32:]), rel=1e-5)
    assert names["hf"].state.best_metric == pytest.approx(found)


def test_hugging_face_accumulation_is_the_mean_over_all_small_batches(run):
    """Each sample once, with the class sums of its own small batch."""
    names = run("Hugging Face Trainer", "transformers", "accelerate")
    trainer = names["hf_trainer"]("accumulated", accumulation=4, data_seed=3)
    batches = []
    step = trainer.compute_loss

    def remembered(model, inputs, *rest, **named):
        batches.append((inputs["features"].clone(), inputs["labels"].clone()))
        return step(model, inputs, *rest, **named)

    trainer.compute_loss = remembered
    trainer.train()
    model = names["network"]()
    for features, labels in batches[:4]:  # the others are the evaluation's
        (GCELoss(reduction="sum")(model(features), labels) / 32).backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= 0.1 * parameter.grad
    assert_same_weights(trainer.model.net, model)


def test_accelerate(run):
    names = run("accelerate", "accelerate")
    assert_same_weights(names["model"], one_step(names))


def test_timm_with_mixup(run):
    names = run("timm, with Mixup", "timm")
    targets = names["targets"]
    logits = names["model"](names["mixed"])
    assert targets.shape == (8, 3)
    ratio = F.log_softmax(logits, 1).log_softmax(0)
    expected = -(targets * ratio).sum(1).mean()
    torch.testing.assert_close(names["loss"], expected)
    for name in ("ce", "brier", "gce"):  # which the page says take soft targets
        assert make_loss(name)(logits, targets).isfinite()
    with pytest.raises((TypeError, ValueError), match=r"^labels: "):
        make_loss("focal")(logits, targets)


def test_skorch(run):
    names = run("skorch", "skorch")
    np.testing.assert_allclose(names["probabilities"].sum(1), 1, rtol=1e-5)
    logits = names["classifier"].module_(names["inputs"]).detach()
    np.testing.assert_allclose(names["probabilities"], logits.softmax(1), rtol=1e-5)
    bare = names["NeuralNetClassifier"](
        names["network"], criterion=GCELoss, max_epochs=1, batch_size=32, verbose=0
    )
    bare.fit(names["inputs"].numpy(), names["labels"].numpy())
    rows = bare.predict_proba(names["inputs"].numpy())
    raw = bare.module_(names["inputs"]).detach()
    np.testing.assert_allclose(rows, raw, rtol=1e-5)  # logits, as the page warns


def nll_and_ece_by_hand(p, y, n_bins=20):
    """Both from probabilities, one bin after another."""
    confidence, correct = p.max(1), p.argmax(1) == y
    total = 0.0
    for b in range(n_bins):
        inside = (confidence > b / n_bins) & (confidence <= (b + 1) / n_bins)
        total += abs((confidence - correct)[inside].sum())
    return -np.log(p[np.arange(len(y)), y]).mean(), total / len(y)


def test_labels_may_be_names(run):
    names = run("scikit-learn", "sklearn")
    words = np.array(["cat", "dog", "emu"])[names["y"]]
    model = names["LogisticRegression"]().fit(names["X"][:32], words[:32])
    by_name = names["Calibrated"](model, names["X"][32:], words[32:])
    np.testing.assert_allclose(
        by_name.predict_proba(names["X"]), names["probabilities"], rtol=1e-6
    )


def test_a_forest_that_calls_labels_impossible_is_calibrated_by_the_page(run):
    """Nine of the 2,000 labels have a probability of 0; silently T would be 161."""
    ensemble = pytest.importorskip("sklearn.ensemble")
    datasets = pytest.importorskip("sklearn.datasets")
    names = run("scikit-learn", "sklearn")
    X, y = datasets.make_classification(
        6000, 20, n_informative=8, n_classes=4, random_state=0
    )
    forest = ensemble.RandomForestClassifier(20, random_state=0).fit(X[:2000], y[:2000])
    p = forest.predict_proba(X[2000:4000])
    assert (p[np.arange(2000), y[2000:4000]] == 0).any()
    calibrated = names["Calibrated"](forest, X[2000:4000], y[2000:4000])
    before = nll_and_ece_by_hand(forest.predict_proba(X[4000:]), y[4000:])[1]
    after = nll_and_ece_by_hand(calibrated.predict_proba(X[4000:]), y[4000:])[1]
    assert after < before / 3


def test_scikit_learn(run):
    names = run("scikit-learn", "sklearn")
    assert names["scores"].shape == (2,)
    folds = pytest.importorskip("sklearn.model_selection").StratifiedKFold(2)
    X, y = names["X"], names["y"]
    by_hand = []
    for rest, part in folds.split(X, y):
        p = names["LogisticRegression"]().fit(X[rest], y[rest]).predict_proba(X[part])
        by_hand.append(nll_and_ece_by_hand(p, y[part])[1])
    np.testing.assert_allclose(names["scores"], by_hand, atol=1e-9)
    few = names["LogisticRegression"]().fit(X[y > 0], y[y > 0])
    found = names["minus_ece"](few, X[y > 0], y[y > 0])
    p = few.predict_proba(X[y > 0])
    assert -found == pytest.approx(nll_and_ece_by_hand(p, y[y > 0] - 1)[1], abs=1e-6)
    with pytest.raises(ValueError, match="the training part has no sample of"):
        names["minus_ece"](few, X, y)
    np.testing.assert_allclose(names["probabilities"].sum(1), 1, rtol=1e-6)
    fitted, calibrated = names["fitted"], names["calibrated"]
    given = fitted.predict_proba(names["X"])
    before = 0.999 * given + 0.001 / given.shape[1]
    temperature = calibrated.calibrator.temperature.item()
    expected = torch.as_tensor(np.log(before) / temperature).softmax(1)
    np.testing.assert_allclose(names["probabilities"], expected, rtol=1e-6)


def test_onnx(run):
    names = run("ONNX", "onnx", "onnxscript", "onnxruntime")
    with torch.no_grad():
        expected = names["deployed"](names["inputs"])
    np.testing.assert_allclose(names["probabilities"], expected, rtol=1e-4, atol=1e-6)


#: One name of each class: the others differ in how they are fitted.
ONE_OF_EACH = {row.build: name for name, row in calibration.CALIBRATORS.items()}


@pytest.mark.parametrize("name", ONE_OF_EACH.values())
def test_every_calibrator_goes_through_onnx(run, name):
    if not calibration.CALIBRATORS[name].available:
        pytest.skip(f"pip install {calibration.CALIBRATORS[name].needs}")
    names = run("ONNX", "onnx", "onnxscript", "onnxruntime")
    calibrator = make_calibrator(name).fit(names["val_logits"], names["labels"][32:])
    deployed, session = names["exported"](calibrator, f"{name}.onnx")
    for rows in (names["inputs"], names["inputs"][:5]):
        (found,) = session.run(None, {"inputs": rows.numpy()})
        with torch.no_grad():
            expected = deployed(rows)
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


def test_isotonic_in_onnx_is_finite_at_what_it_was_fitted_on(tmp_path):
    """There its lines begin: a width of 0, which a float32 constant did not guard."""
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    logits = 3 * torch.randn(400, 4)
    labels = torch.multinomial((logits / 2).softmax(1), 1)[:, 0]
    calibrator = make_calibrator("isotonic").fit(logits, labels)
    path = str(tmp_path / "isotonic.onnx")
    rows = {0: torch.export.Dim("batch")}
    torch.onnx.export(
        torch.nn.Sequential(calibrator),
        (logits[:2],),
        path,
        input_names=["logits"],
        dynamic_shapes=[rows],
        verbose=False,
    )
    session = onnxruntime.InferenceSession(path)
    (found,) = session.run(None, {"logits": logits.numpy()})
    np.testing.assert_allclose(found, calibrator(logits), rtol=1e-3, atol=1e-5)


def test_torch_export(run):
    names = run("torch.export")
    with torch.no_grad():
        expected = names["deployed"](names["inputs"])
    torch.testing.assert_close(names["logits"], expected)
    probe = torch.randn(5, 3)
    assert torch.equal(names["loaded"](probe), names["calibrator"](probe))


def test_serving(run):
    names = run("Serving: rows that are not numbers")
    answer, rows = names["answer"], [0, 2, 3]
    assert answer[1].isnan().all()
    expected = names["serve"](names["inputs"][:4])[rows]
    torch.testing.assert_close(answer[rows], expected)
    with pytest.raises(ValueError, match="first in row 1"):
        names["calibrator"](names["model"](names["request"]))
    exported = run("torch.export")["program"].module()
    found = exported(names["request"])  # which looks at no value
    assert found.isnan().any(1).tolist() == [False, True, False, False]
