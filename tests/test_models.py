"""The networks: sizes as in the reference, shapes for every data set, initial weights,
refusals."""

import math

import pytest
import torch
from torch import nn

from gcelib.models import MODELS, make_model

PAPER_NETS = ["resnet50", "resnet110", "wrn_28_10", "densenet121"]
SHAPES = [(1, 28, 28), (3, 64, 64), (1, 8, 16)]

# Obtained by running the public reference code; the 64-pixel rows are its Tiny-ImageNet
# ResNets.
COUNTS = [
    ("resnet50", 32, 10, 23_520_842),
    ("resnet50", 32, 100, 23_705_252),
    ("resnet110", 32, 10, 45_864_522),
    ("resnet110", 32, 100, 46_048_932),
    ("wrn_28_10", 32, 10, 36_481_434),
    ("wrn_28_10", 32, 100, 36_539_124),
    ("densenet121", 32, 10, 6_956_298),
    ("densenet121", 32, 100, 7_048_548),
    ("resnet50", 64, 10, 23_582_282),
    ("resnet50", 64, 200, 25_138_952),
    ("resnet110", 64, 100, 46_663_332),
    ("resnet110", 64, 200, 47_482_632),
    ("densenet121", 64, 200, 7_151_048),
]


def on_meta(name, n_classes, shape):
    """The network without memory or arithmetic: shapes and counts only."""
    with torch.device("meta"):
        return make_model(name, n_classes, shape)


@pytest.mark.parametrize(("name", "pixels", "n_classes", "expected"), COUNTS)
def test_parameter_counts_are_the_references(name, pixels, n_classes, expected):
    assert (
        sum(
            p.numel()
            for p in on_meta(name, n_classes, (3, pixels, pixels)).parameters()
        )
        == expected
    )


@pytest.mark.parametrize(
    ("name", "shape"),
    # resnet110 is built by resnet50's function
    [
        (name, shape)
        for name, row in MODELS.items()
        if name != "resnet110"
        for shape in SHAPES
        if row.takes(shape)
    ]
    + [
        ("convnet", (3, 28, 28)),
        ("convnet", (1, 32, 32)),
        ("convnet", (1, 8, 8)),
        ("convnet", (3, 37, 53)),
    ],
    ids=str,
)
def test_logits_have_one_row_per_image_and_one_column_per_class(name, shape):
    assert on_meta(name, 7, shape)(torch.empty(3, *shape, device="meta")).shape == (
        3,
        7,
    )


def test_mlp_takes_features_and_lists():
    model = make_model("mlp", 3, [68])
    assert model(torch.zeros(4, 68)).shape == (4, 3)
    assert [m.out_features for m in model.modules() if isinstance(m, nn.Linear)] == [
        128,
        128,
        3,
    ]


@pytest.mark.parametrize("name", PAPER_NETS)
def test_the_stem_keeps_the_resolution(name):
    """3x3, stride 1, no bias, no pooling: the first block sees the full image."""
    model = on_meta(name, 10, (1, 32, 32))
    stem = next(m for m in model.modules() if isinstance(m, nn.Conv2d))
    assert (stem.in_channels, stem.kernel_size, stem.stride, stem.padding) == (
        1,
        (3, 3),
        (1, 1),
        (1, 1),
    )
    assert stem.bias is None
    assert not any(isinstance(m, nn.MaxPool2d) for m in model.modules())
    sizes = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(
                lambda m, args, out: sizes.append(out.shape[-1])
            )
    model(torch.empty(2, 1, 32, 32, device="meta"))
    assert sizes[:2] == [32, 32]
    assert sizes[-1] == (8 if name == "wrn_28_10" else 4)


def test_densenet_stem_is_the_bare_convolution():
    names = [
        name
        for name, _ in on_meta("densenet121", 10, (3, 32, 32)).features.named_children()
    ]
    assert names[:2] == ["conv0", "denseblock1"]
    assert "norm5" in names


def test_wide_resnet_activates_after_the_addition_and_has_no_dropout():
    model = on_meta("wrn_28_10", 10, (3, 32, 32))
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    # Stem, two in each of twelve blocks, three projections.
    assert len(convolutions) == 1 + 3 * 4 * 2 + 3
    assert [c.out_channels for c in convolutions][0::9] == [16, 160, 320, 640]
    assert not any(isinstance(m, nn.Dropout) for m in model.modules())


def test_resnet110_strides_on_the_3x3_convolution():
    model = on_meta("resnet110", 10, (3, 32, 32))
    strided = {
        m.kernel_size
        for name, m in model.named_modules()
        if isinstance(m, nn.Conv2d) and m.stride == (2, 2) and "downsample" not in name
    }
    assert strided == {(3, 3)}
    layers = [
        m
        for name, m in model.named_modules()
        if isinstance(m, (nn.Conv2d, nn.Linear)) and "downsample" not in name
    ]
    assert len(layers) == 110


def std_ratios(model, expected_std):
    """Sample over expected standard deviation of every large convolution."""
    weights = [
        m.weight
        for m in model.modules()
        if isinstance(m, nn.Conv2d) and m.weight.numel() > 10_000
    ]
    return [float(w.detach().std()) / expected_std(w) for w in weights]


def fan_out(weight):
    return math.sqrt(2 / (weight.shape[0] * weight[0, 0].numel()))


def torch_default(weight):
    return math.sqrt(1 / (3 * weight[0].numel()))


@pytest.mark.parametrize(
    ("name", "pixels", "expected_std"),
    [
        ("wrn_28_10", 32, fan_out),
        ("resnet50", 32, torch_default),
        ("resnet50", 64, fan_out),
        ("densenet121", 32, torch_default),
    ],
)
def test_initial_weights_follow_the_reference(name, pixels, expected_std):
    torch.manual_seed(0)
    model = make_model(name, 10, (3, pixels, pixels))
    ratios = std_ratios(model, expected_std)
    assert len(ratios) > 20
    assert ratios == pytest.approx([1.0] * len(ratios), abs=0.05)
    stem = next(m for m in model.modules() if isinstance(m, nn.Conv2d))
    assert float(stem.weight.detach().std()) == pytest.approx(
        expected_std(stem.weight), rel=0.15
    )
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    # No zero-gamma.
    assert all(bool((m.weight == 1).all()) and bool((m.bias == 0).all()) for m in norms)


@pytest.mark.parametrize("name", [name for name in MODELS if name != "resnet110"])
def test_gradient_reaches_every_parameter(name):
    torch.manual_seed(0)
    smallest = MODELS[name].min_pixels
    model = make_model(name, 4, (1, smallest, 2 * smallest))
    model(torch.randn(4, 1, smallest, 2 * smallest)).logsumexp(1).sum().backward()
    silent = [
        key
        for key, p in model.named_parameters()
        if p.grad is None or not bool(p.grad.abs().sum() > 0)
    ]
    assert silent == []


@pytest.mark.parametrize("name", ["convnet", "densenet121"])
def test_evaluation_is_deterministic_and_does_not_mix_samples(name):
    torch.manual_seed(0)
    model = make_model(name, 5, (3, 28, 28)).eval()
    images = torch.randn(4, 3, 28, 28)
    with torch.inference_mode():
        together, again = model(images), model(images)
        alone = torch.cat([model(image[None]) for image in images])
    assert torch.equal(together, again)
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["convnet", "mlp", "densenet121"])
def test_same_seed_same_weights(name):
    def draw(seed):
        torch.manual_seed(seed)
        return make_model(name, 3, (1, 28, 28)).state_dict()

    one, two, other = draw(1), draw(1), draw(2)
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)


def test_convnet_learns():
    """Noise with and without a bright square: the default net tells them apart after
    ten steps."""
    torch.manual_seed(0)
    labels = torch.arange(128) % 2
    images = torch.randn(128, 1, 28, 28) * 0.5
    images[labels == 1, :, 8:20, 8:20] += 1
    model = make_model("convnet", 2, (1, 28, 28))
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    for _ in range(10):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    assert float((model(images).argmax(1) == labels).float().mean()) > 0.95


@pytest.mark.parametrize(
    ("name", "n_classes", "shape", "error", "message"),
    [
        ("resnet5O", 10, (3, 32, 32), ValueError, "did you mean 'resnet50'"),
        (50, 10, (3, 32, 32), TypeError, "name: must be a string"),
        ("convnet", 1, (1, 28, 28), ValueError, "n_classes: 1 is outside"),
        ("convnet", 2.0, (1, 28, 28), TypeError, "n_classes: must be a whole number"),
        ("convnet", 10, (28, 28), ValueError, "input_shape: expected"),
        ("convnet", 10, 28, ValueError, "input_shape: expected"),
        (
            "convnet",
            10,
            (1, 28, 28.0),
            TypeError,
            "input_shape: must be a whole number",
        ),
        ("mlp", 10, (0,), ValueError, "input_shape: 0 is outside"),
        ("mlp", 10, (), ValueError, "input_shape: expected"),
        ("resnet50", 3, (68,), ValueError, "needs images"),
        ("densenet121", 10, (3, 32, 7), ValueError, "at least 8x8"),
    ],
)
def test_bad_input_is_refused(name, n_classes, shape, error, message):
    with pytest.raises(error, match=message):
        make_model(name, n_classes, shape)
