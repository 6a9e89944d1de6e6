"""On a GPU everything says what it says on the CPU, whatever PyTorch was told to round.

Each right value is computed on the CPU, in float64 where that is the question. Skipped
where there is no CUDA device; what needs none is tested beside its module.
"""

import contextlib
import copy

import numpy as np
import pytest
import torch
from test_losses import CASES
from torch import nn

from gcelib import (
    CALIBRATORS,
    METRICS,
    CalibrationMeter,
    GCELoss,
    ReliabilityExplorer,
    TrainConfig,
    accumulated_backward,
    advise,
    data,
    entropy,
    evaluate,
    fit,
    logits_from_probabilities,
    make_calibrator,
    make_loss,
    make_model,
    metrics,
    ood_auroc,
    paired_differences,
    reliability,
    runs,
    sweeps,
    training,
)

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a CUDA device"
)
OF_LOGITS = [name for name in METRICS if hasattr(metrics, name)]
DTYPES = pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64]
)


@contextlib.contextmanager
def rounding():
    """A training script's surroundings: autocast to bf16, TF32 wherever it is had."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with (
            torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=True),
            torch.autocast("cuda", torch.bfloat16),
        ):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def sample(n=3000, k=12, seed=0, dtype=torch.float32):
    """Overconfident logits, some of them tied, and labels that mostly agree."""
    rng = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n, k, generator=rng, dtype=torch.float64)
    labels = torch.multinomial(logits.softmax(1), 1, generator=rng)[:, 0]
    logits = (1.7 * logits).to(dtype)
    logits[: n // 100] = logits[: n // 100].round()
    return logits, labels


# --- metrics --------------------------------------------------------------------------


@DTYPES
@pytest.mark.parametrize("probabilities", [False, True])
@pytest.mark.parametrize(("n", "k"), [(3000, 12), (700, 300)])
def test_evaluate_with_its_intervals(dtype, probabilities, n, k):
    logits, labels = sample(n, k, dtype=dtype)
    if probabilities:
        if dtype in (torch.float16, torch.bfloat16):
            pytest.skip("their rows do not sum to 1")
        logits = logits.softmax(1)
    options = {"bootstrap": 20, "probabilities": probabilities}
    expected = evaluate(logits, labels, 15, **options)
    with rounding():
        found = evaluate(logits.cuda(), labels.cuda(), 15, **options)
    assert found == pytest.approx(expected, abs=2e-6)


@DTYPES
@pytest.mark.parametrize("name", OF_LOGITS)
def test_a_metric_alone(dtype, name):
    logits, labels = sample(dtype=dtype)
    metric = getattr(metrics, name)
    with rounding():
        found = metric(logits.cuda(), labels.cuda())
    assert found == pytest.approx(metric(logits, labels), abs=2e-6)


def test_entropies_and_out_of_distribution_scores():
    logits, _ = sample()
    other = 0.3 * sample(seed=1)[0]
    with rounding():
        on_gpu = entropy(logits.cuda())
        auroc = ood_auroc(logits.cuda(), other.cuda())
    np.testing.assert_allclose(on_gpu, entropy(logits), rtol=1e-5, atol=1e-9)
    assert auroc == pytest.approx(ood_auroc(logits, other), abs=1e-6)


def test_bins_and_diagrams():
    logits, labels = sample()
    with rounding():
        found = reliability(logits.cuda(), labels.cuda(), 10)
        explorer = ReliabilityExplorer({"gpu": (logits.cuda(), labels.cuda())})
    expected = reliability(logits, labels, 10)
    np.testing.assert_array_equal(found.counts, expected.counts)
    np.testing.assert_allclose(found.accuracy, expected.accuracy)
    np.testing.assert_allclose(found.confidence, expected.confidence, rtol=1e-6)
    assert found.ece == pytest.approx(expected.ece, abs=1e-6)
    on_cpu = ReliabilityExplorer({"gpu": (logits, labels)})
    assert explorer.question == on_cpu.question


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_the_meter(dtype):
    logits, labels = sample(dtype=dtype)
    meter = CalibrationMeter(12)
    with rounding():
        for rows in torch.arange(len(labels)).split(256):
            meter.update(logits[rows].cuda(), labels[rows].cuda())
        found = meter.compute()
    expected = evaluate(logits, labels, meter.n_bins)
    assert found == pytest.approx({n: expected[n] for n in found}, abs=2e-6)
    again = copy.deepcopy(meter)
    assert again.compute() == found


def test_the_meter_tells_scores_that_are_not_finite():
    logits, labels = sample()
    logits[7, 3] = torch.nan
    meter = CalibrationMeter(12)
    meter.update(logits.cuda(), labels.cuda())
    with pytest.raises(ValueError, match="finite"):
        meter.compute()


@pytest.mark.parametrize("name", OF_LOGITS)
def test_a_metric_tells_what_it_cannot_measure(name):
    metric = getattr(metrics, name)
    logits, labels = sample()
    bad = logits.clone()
    bad[7, 3] = torch.nan
    with pytest.raises(ValueError, match=r"logits: contains NaN or infinity.* row 7"):
        metric(bad.cuda(), labels.cuda())
    shares = logits.softmax(1)
    shares[5] *= 0.9
    with pytest.raises(ValueError, match=r"logits: sum to 0.9 in row 5"):
        metric(shares.cuda(), labels.cuda(), probabilities=True)
    with pytest.warns(UserWarning, match="probabilities"):
        metric(logits.softmax(1).cuda(), labels.cuda())
    labels[3] = 12
    with pytest.raises(ValueError, match="labels: contains 12"):
        metric(logits.cuda(), labels.cuda())


def test_entropies_and_logarithms_tell_what_is_no_distribution():
    shares = sample()[0].softmax(1)
    shares[5] *= 0.9
    with pytest.raises(ValueError, match="row 5"):
        entropy(shares.cuda(), probabilities=True)
    with pytest.raises(ValueError, match="row 5"):
        logits_from_probabilities(shares.cuda())


def test_tensors_of_two_devices_are_told():
    logits, labels = sample()
    for pair in ((logits.cuda(), labels), (logits, labels.cuda())):
        with pytest.raises(ValueError, match="move both to one device"):
            evaluate(*pair)


# --- losses ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("shape", [(40, 12), (260, 400)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_loss_and_its_gradient(name, shape, dtype):
    logits, labels = sample(*shape, dtype=torch.float64)
    at_cpu = logits.clone().requires_grad_()
    expected = copy.deepcopy(CASES[name][0]).double()(at_cpu, labels)
    expected.backward()
    loss = copy.deepcopy(CASES[name][0]).cuda()
    at_gpu = logits.cuda().to(dtype).requires_grad_()
    with rounding():
        value = loss(at_gpu, labels.cuda())
    value.backward()
    rtol = 2e-5 if dtype == torch.float32 else 1e-9
    torch.testing.assert_close(
        value.cpu().double(), expected.detach(), rtol=rtol, atol=1e-12
    )
    scale = float(at_cpu.grad.abs().max())
    torch.testing.assert_close(
        at_gpu.grad.cpu().double(), at_cpu.grad, rtol=0, atol=10 * rtol * scale
    )


def test_gradients_with_a_scaler_and_half_precision():
    """The usual step in float16: what the scaler unscales is the gradient."""
    torch.manual_seed(0)
    model = nn.Linear(20, 12)
    inputs, labels = torch.randn(300, 20), sample(300)[1]
    GCELoss()(model(inputs), labels).backward()
    expected = model.weight.grad.clone()
    on_gpu = copy.deepcopy(model).cuda()
    on_gpu.zero_grad()
    optimizer = torch.optim.SGD(on_gpu.parameters(), 0.0)
    scaler = torch.amp.GradScaler("cuda")
    with torch.autocast("cuda", torch.float16):
        value = GCELoss()(on_gpu(inputs.cuda()), labels.cuda())
    scaler.scale(value).backward()
    scaler.unscale_(optimizer)
    error = (on_gpu.weight.grad.cpu() - expected).norm() / expected.norm()
    assert float(error) < 1e-2  # the network's products are in half precision


def test_compiled_gce_is_gce():
    logits, labels = sample(260, 100)
    compiled = torch.compile(GCELoss())
    one, two = (logits.cuda().requires_grad_() for _ in range(2))
    compiled(one, labels.cuda()).backward()
    GCELoss()(two, labels.cuda()).backward()
    torch.testing.assert_close(one.grad, two.grad, rtol=1e-4, atol=1e-8)


def test_an_accumulated_gradient_is_that_of_the_whole_batch_with_dropout():
    """Its second pass draws what the first drew, from the device's generator."""
    torch.manual_seed(3)
    masks = []

    class Recorded(nn.Dropout):
        def forward(self, x):
            y = super().forward(x)
            if torch.is_grad_enabled() and y.requires_grad:
                masks.append((y != 0).detach())
            return y

    model = nn.Sequential(nn.Linear(20, 64), Recorded(0.5), nn.Linear(64, 12)).cuda()
    model = model.double()
    inputs = torch.randn(120, 20).double().cuda()
    labels = sample(120)[1].cuda()
    value = accumulated_backward(model, GCELoss(), inputs, labels, 40)
    found = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    kept = torch.cat(masks[-3:])
    hidden = model[0](inputs) * kept / 0.5
    expected = GCELoss()(model[2](hidden), labels)
    expected.backward()
    torch.testing.assert_close(value, expected.detach())
    for got, parameter in zip(found, model.parameters(), strict=True):
        torch.testing.assert_close(got, parameter.grad)


def test_adafocal_keeps_its_state_on_the_device():
    logits, labels = sample()
    on_gpu, on_cpu = make_loss("afl").cuda(), make_loss("afl")
    for loss, z, y in (
        (on_gpu, logits.cuda(), labels.cuda()),
        (on_cpu, logits, labels),
    ):
        for _ in range(3):
            loss.update(z, y)
    for name, expected in on_cpu.state_dict().items():
        found = on_gpu.state_dict()[name]
        assert found.is_cuda
        torch.testing.assert_close(found.cpu(), expected, rtol=1e-4, atol=1e-5)


# --- calibrators ----------------------------------------------------------------------


@pytest.mark.parametrize("name", CALIBRATORS)
def test_a_calibrator_under_a_training_scripts_settings(name):
    logits, labels = sample(1500)
    expected = make_calibrator(name).fit(logits, labels)
    with rounding():
        found = make_calibrator(name).fit(logits.cuda(), labels.cuda())
        calibrated = found(logits.cuda())
    # sms is fitted in float32, by another library
    close = {"rtol": 1e-4, "atol": 2e-3 if name == "sms" else 2e-4}
    for key, value in expected.state_dict().items():
        assert found.state_dict()[key].is_cuda
        torch.testing.assert_close(found.state_dict()[key].cpu(), value, **close)
    assert calibrated.is_cuda
    torch.testing.assert_close(calibrated.cpu(), expected(logits), **close)


def test_advice_and_differences():
    val, test = sample(2000), sample(2000, seed=1)
    expected = advise(*val, *test)
    found = advise(*(t.cuda() for t in (*val, *test)))
    assert str(found) == str(expected)
    scores = {"a": test[0], "b": test[0] / 1.7}
    on_cpu = paired_differences(scores, test[1], "a", resamples=100)
    on_gpu = paired_differences(
        {name: z.cuda() for name, z in scores.items()},
        test[1].cuda(),
        "a",
        resamples=100,
    )
    assert on_gpu[0].nll == pytest.approx(on_cpu[0].nll, abs=1e-6)
    assert on_gpu[0].ece == pytest.approx(on_cpu[0].ece, abs=1e-6)


# --- training -------------------------------------------------------------------------


def forward_in_float64(config):
    """The logits of the stored network in float64 on the CPU: the right ones."""
    splits = data.load(config.dataset, config.seed)
    model = make_model(
        config.resolved().model, splits.n_classes, splits.input_shape
    ).double()
    state = torch.load(config.run_dir / "weights.pt", weights_only=True)
    model.load_state_dict(state)
    model.eval()
    images = splits.test[0]
    batches = (data.normalize(part, splits).double() for part in images.split(500))
    with torch.no_grad():
        return torch.cat([model(batch) for batch in batches]).numpy()


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_the_stored_logits_are_float32_true(tmp_path, precision):
    """Also after a training in TF32 or bf16, and where the caller allows both."""
    config = TrainConfig(
        "digits",
        "convnet",
        "gce",
        epochs=2,
        lr=0.01,
        precision=precision,
        keep_weights=True,
        runs_dir=tmp_path,
        device="cuda",
    )
    with rounding():
        records = list(fit(config))
    assert len(records) == 2
    logits, labels = runs.load_logits(config.run_dir, "test")
    expected = forward_in_float64(config)
    spread = expected.std()
    # TF32 keeps 10 bits of a factor, float32 23.
    assert np.abs(logits - expected).max() < 2e-5 * spread
    stored = runs.read_json(config.run_dir / "metrics.json")["results"]
    found = evaluate(logits, labels)
    assert stored["test_raw_nll"] == pytest.approx(found["nll"], abs=1e-6)


def test_a_stopped_run_goes_on(tmp_path):
    """Not to the bit, for cuDNN chooses its kernels by trial."""
    options = {
        "dataset": "digits",
        "model": "mlp",
        "loss": "afl",
        "precision": "fp32",
        "device": "cuda",
    }
    whole = TrainConfig(**options, epochs=4, runs_dir=tmp_path / "whole")
    list(fit(whole))
    broken = TrainConfig(**options, epochs=4, runs_dir=tmp_path / "broken")
    steps = fit(broken)
    next(steps)
    next(steps)
    steps.close()
    assert [record["epoch"] for record in fit(broken)][-1] == 4
    a, b = (runs.load_logits(c.run_dir, "test")[0] for c in (whole, broken))
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3 * a.std())


def test_a_run_on_the_device_ends_where_the_cpu_does(tmp_path):
    """Two epochs in float32: rounding apart, the same network comes out."""
    options = {"dataset": "digits", "model": "mlp", "precision": "fp32", "epochs": 2}
    found = {}
    for device in ("cpu", "cuda"):
        config = TrainConfig(**options, device=device, runs_dir=tmp_path / device)
        list(fit(config))
        found[device] = runs.load_logits(config.run_dir, "test")[0]
    difference = np.abs(found["cpu"] - found["cuda"]).max()
    assert difference < 1e-3 * found["cpu"].std()


def test_what_a_gpu_began_a_cpu_may_end(tmp_path):
    options = {"dataset": "digits", "model": "mlp", "epochs": 3, "precision": "fp32"}
    steps = fit(TrainConfig(**options, device="cuda", runs_dir=tmp_path))
    next(steps)
    steps.close()
    config = TrainConfig(**options, device="cpu", runs_dir=tmp_path)
    assert [record["epoch"] for record in fit(config)][-1] == 3


def test_the_name_of_the_card_is_kept(tmp_path):
    config = TrainConfig("digits", "mlp", epochs=1, device="cuda", runs_dir=tmp_path)
    list(fit(config))
    environment = runs.read_json(config.run_dir / "metrics.json")["environment"]
    assert torch.cuda.get_device_name() in environment["device"]
    assert training.environment(config.resolved())["device"] == environment["device"]


def test_a_sweep_shares_the_card(tmp_path):
    grid = {"dataset": "digits", "model": "mlp", "epochs": 1, "seed": [1, 2, 3]}
    records = list(sweeps.run(grid, runs_dir=tmp_path, workers_per_gpu=2))
    assert records[-1]["state"] == "done"
    assert sweeps.status(grid, tmp_path).state.eq("done").all()
