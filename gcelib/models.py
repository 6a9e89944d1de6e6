"""The paper's networks for small images, and two small ones for CPUs.

The four networks of the paper are built from torchvision's. They follow the public code
on which the paper builds (Mukhoti et al. 2020, ``Net/`` of
github.com/torrvision/focal_calibration) down to parameter counts and initial
distributions. torchvision is imported when one of them is built: it brings all of
torch's compiler with it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn

from gcelib import _check

__all__ = [
    "MODELS",
    "ModelRow",
    "convnet",
    "densenet121",
    "make_model",
    "mlp",
    "resnet50",
    "resnet110",
    "wrn_28_10",
]

#: The sizes of an input without its batch dimension: (C, H, W) or (D,).
Shape = tuple[int, ...]


def _stem(in_channels: int, width: int) -> nn.Conv2d:
    """A 3x3 convolution of stride 1: ImageNet's 7x7 one would lose too much."""
    return nn.Conv2d(in_channels, width, 3, padding=1, bias=False)


def _default_init(net: nn.Module) -> nn.Module:
    """Give layers PyTorch's default initialisation, which the reference code uses."""
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.reset_parameters()
    return net


def _fan_out_init(convolution: nn.Conv2d) -> None:
    """Kaiming's normal distribution, scaled by what leaves the layer."""
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")


def _resnet(layers: list[int], n_classes: int, input_shape: Shape) -> nn.Module:
    """Bottleneck ResNet with the small-image stem.

    From 64 pixels on, the reference's variant: that for Tiny-ImageNet pools to 2x2
    instead of 1x1 (8192 inputs to the last layer) and keeps torchvision's
    Kaiming-normal fan-out weights; the 32-pixel networks of the reference start from
    PyTorch's defaults.
    """
    from torchvision.models.resnet import Bottleneck, ResNet

    net: nn.Module = ResNet(Bottleneck, layers, n_classes)
    stem = _stem(input_shape[0], 64)
    net.conv1 = stem
    net.maxpool = nn.Identity()
    if min(input_shape[1:]) < 64:
        return _default_init(net)
    _fan_out_init(stem)
    net.avgpool = nn.AdaptiveAvgPool2d(2)
    net.fc = nn.Linear(4 * 512 * Bottleneck.expansion, n_classes)  # 2x2 of 2048
    return net


def resnet50(n_classes: int, input_shape: Shape) -> nn.Module:
    """ResNet-50: bottleneck blocks [3, 4, 6, 3], 23.5 M parameters.

    Parameters
    ----------
    n_classes : int
    input_shape : tuple of int
        (C, H, W); from 64 pixels on, the reference's Tiny-ImageNet variant.

    Returns
    -------
    nn.Module

    References
    ----------
    He, Zhang, Ren and Sun, *Deep Residual Learning for Image Recognition*, CVPR 2016.

    Examples
    --------
    >>> sum(p.numel() for p in resnet50(10, (3, 32, 32)).parameters())
    23520842
    """
    return _resnet([3, 4, 6, 3], n_classes, input_shape)


def resnet110(n_classes: int, input_shape: Shape) -> nn.Module:
    """The reference's "ResNet-110": bottleneck blocks [3, 4, 26, 3], 45.9 M parameters.

    Not He's CIFAR network of that name, which has 1.7 M.

    Parameters
    ----------
    n_classes : int
    input_shape : tuple of int
        (C, H, W); from 64 pixels on, the reference's Tiny-ImageNet variant.

    Returns
    -------
    nn.Module

    Examples
    --------
    >>> import torch
    >>> with torch.device("meta"):  # counted, not filled
    ...     net = resnet110(10, (3, 32, 32))
    >>> sum(p.numel() for p in net.parameters())
    45864522
    """
    return _resnet([3, 4, 26, 3], n_classes, input_shape)


def wrn_28_10(n_classes: int, input_shape: Shape) -> nn.Module:
    """The paper's WRN-28-10 as the reference builds it, 36.5 M parameters.

    Three groups of four basic blocks, 160, 320 and 640 channels, post-activation and
    without dropout. The reference counts this as depth 26 (it leaves out the
    projections); the original activates before each convolution.

    Parameters
    ----------
    n_classes : int
    input_shape : tuple of int
        (C, H, W).

    Returns
    -------
    nn.Module

    References
    ----------
    Zagoruyko and Komodakis, *Wide Residual Networks*, BMVC 2016.

    Examples
    --------
    >>> import torch
    >>> with torch.device("meta"):  # counted, not filled
    ...     net = wrn_28_10(10, (3, 32, 32))
    >>> sum(p.numel() for p in net.parameters())
    36481434
    """
    from torchvision.models.resnet import BasicBlock

    width = 16
    layers: list[nn.Module] = [
        _stem(input_shape[0], width),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
    ]
    for out, stride in ((160, 1), (320, 2), (640, 2)):
        projection = nn.Conv2d(width, out, 1, stride, bias=False)
        shortcut = nn.Sequential(projection, nn.BatchNorm2d(out))
        layers.append(BasicBlock(width, out, stride, shortcut))
        layers += [BasicBlock(out, out) for _ in range(3)]
        width = out
    net = nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, n_classes)
    )
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            _fan_out_init(module)
    return net


def densenet121(n_classes: int, input_shape: Shape) -> nn.Module:
    """DenseNet-121: growth 32, blocks [6, 12, 24, 16], 7.0 M parameters.

    Compression is 0.5. The stem is the bare convolution. torchvision appends new
    features after the old ones, the reference puts them before: the same network with
    its channels renumbered.

    Parameters
    ----------
    n_classes : int
    input_shape : tuple of int
        (C, H, W).

    Returns
    -------
    nn.Module

    References
    ----------
    Huang, Liu, van der Maaten and Weinberger, *Densely Connected Convolutional
    Networks*, CVPR 2017.

    Examples
    --------
    >>> sum(p.numel() for p in densenet121(10, (3, 32, 32)).parameters())
    6956298
    """
    from torchvision.models.densenet import DenseNet

    net = DenseNet(num_classes=n_classes)
    del net.features.norm0, net.features.relu0, net.features.pool0
    net.features.conv0 = _stem(input_shape[0], 64)
    return _default_init(net)


def mlp(n_classes: int, input_shape: Shape) -> nn.Module:
    """Two hidden layers of 128 ReLU units; images are flattened.

    The paper does not describe its MLP: this one is ours.

    Parameters
    ----------
    n_classes : int
    input_shape : tuple of int
        (C, H, W), or (D,) features.

    Returns
    -------
    nn.Module

    Examples
    --------
    >>> import torch
    >>> mlp(3, (68,))(torch.zeros(4, 68)).shape
    torch.Size([4, 3])
    """
    from torchvision.ops import MLP

    return nn.Sequential(
        nn.Flatten(), MLP(math.prod(input_shape), [128, 128, n_classes])
    )


def convnet(n_classes: int, input_shape: Shape) -> nn.Module:
    """The small default for CPUs: three 3x3 convolutions, then one linear layer.

    Stride 2 with batch norm, 16, 48 and 96 channels, 64,218 parameters for 28x28x1 and
    10 classes. Sized by measurement: on 5,000 images of Fashion-MNIST a dozen epochs
    reach about 86 % in seconds, and cross-entropy ends up clearly over-confident.

    Parameters
    ----------
    n_classes : int
    input_shape : tuple of int
        (C, H, W).

    Returns
    -------
    nn.Module

    Examples
    --------
    >>> sum(p.numel() for p in convnet(10, (1, 28, 28)).parameters())
    64218
    """
    width, height, breadth = input_shape
    layers: list[nn.Module] = []
    for out in (16, 48, 96):
        layers.append(nn.Conv2d(width, out, 3, stride=2, padding=1, bias=False))
        layers.append(nn.BatchNorm2d(out))
        layers.append(nn.ReLU(inplace=True))
        width = out
        height = math.ceil(height / 2)
        breadth = math.ceil(breadth / 2)
    head = nn.Linear(width * height * breadth, n_classes)
    return nn.Sequential(*layers, nn.Flatten(), head)


@dataclass(frozen=True)
class ModelRow:
    """What gcelib knows of a network: a row of ``MODELS``.

    Parameters
    ----------
    build : function of (n_classes, input_shape)
        Returns a freshly initialised ``nn.Module``.
    min_pixels : int, default 8
        The smallest height and width of an image.
    takes_features : bool, default False
        Does it take features (D,) too, and images of any size?
    in_paper : bool, default False
        Is it one of the paper's?

    Examples
    --------
    >>> MODELS["convnet"].takes((1, 28, 28)), MODELS["convnet"].takes((68,))
    (True, False)
    """

    build: Callable[[int, Shape], nn.Module]
    min_pixels: int = 8
    takes_features: bool = False
    in_paper: bool = False

    def takes(self, input_shape: Sequence[int]) -> bool:
        """Whether the network can be built for inputs of this shape.

        Parameters
        ----------
        input_shape : sequence of int
            (C, H, W) or (D,), without the batch dimension.

        Returns
        -------
        bool
        """
        if self.takes_features:
            return True
        return len(input_shape) == 3 and min(input_shape[1:]) >= self.min_pixels


#: Every network by its name in configurations, run folders and tables.
MODELS: dict[str, ModelRow] = {
    "resnet50": ModelRow(resnet50, in_paper=True),
    "resnet110": ModelRow(resnet110, in_paper=True),
    "wrn_28_10": ModelRow(wrn_28_10, in_paper=True),
    "densenet121": ModelRow(densenet121, in_paper=True),
    "mlp": ModelRow(mlp, takes_features=True, in_paper=True),
    "convnet": ModelRow(convnet),
}


def make_model(name: str, n_classes: int, input_shape: Sequence[int]) -> nn.Module:
    """A freshly initialised network.

    Parameters
    ----------
    name : str
        A key of ``MODELS``.
    n_classes : int
        K >= 2.
    input_shape : tuple or list of int
        (C, H, W) with H and W >= 8 pixels; or (D,) features, for ``mlp``.

    Returns
    -------
    nn.Module
        Maps inputs ``(N, *input_shape)`` to logits ``(N, n_classes)``. Weights are
        float32 on PyTorch's default device, drawn from its global generator: call
        ``torch.manual_seed`` first.

    Raises
    ------
    ValueError, TypeError
        If an argument is malformed, or the network does not take such inputs.

    Examples
    --------
    >>> import torch
    >>> make_model("convnet", 10, (1, 28, 28))(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """
    row = MODELS[_check.choice("name", name, MODELS)]
    n_classes = _check.number("n_classes", n_classes, 2, 1_000_000, integer=True)
    if not isinstance(input_shape, (tuple, list)) or len(input_shape) not in (1, 3):
        problem = f"expected (C, H, W) or (D,), got {input_shape!r}"
        _check.fail("input_shape", problem, "leave the batch dimension out")
    shape = tuple(
        _check.number("input_shape", size, 1, integer=True) for size in input_shape
    )
    if not row.takes(shape):
        pixels = f"{row.min_pixels}x{row.min_pixels}"
        problem = (
            f"{name!r} needs images (C, H, W) of at least {pixels} pixels, got {shape}"
        )
        others = [other for other, its in MODELS.items() if its.takes(shape)]
        _check.fail("input_shape", problem, f"use {' or '.join(map(repr, others))}")
    return row.build(n_classes, shape)
