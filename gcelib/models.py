"""The paper's networks for small images, built from torchvision's, and two small ones for CPUs.

The four networks of the paper follow the public code on which it builds (Mukhoti et al. 2020, ``Net/`` of
github.com/torrvision/focal_calibration) down to parameter counts and initial distributions.
"""

import math

from torch import nn
from torchvision.models.densenet import DenseNet
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from torchvision.ops import MLP

from gcelib import _check as check


def _stem(in_channels, width):
    """A 3x3 convolution of stride 1: ImageNet's 7x7 stem of stride 2 would lose too much of a small image."""
    return nn.Conv2d(in_channels, width, 3, padding=1, bias=False)


def _default_init(net):
    """Give convolutions and linear layers PyTorch's default initialisation, which the reference code uses."""
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.reset_parameters()
    return net


def _resnet(layers, n_classes, input_shape):
    """Bottleneck ResNet with the small-image stem; from 64 px on, the reference's Tiny-ImageNet variant.

    That variant pools to 2x2 instead of 1x1 (8192 inputs to the last layer) and keeps torchvision's Kaiming-normal
    fan-out weights; the 32-pixel networks of the reference start from PyTorch's defaults.
    """
    net = ResNet(Bottleneck, layers, n_classes)
    net.conv1, net.maxpool = _stem(input_shape[0], 64), nn.Identity()
    if min(input_shape[1:]) < 64:
        return _default_init(net)
    nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")
    net.avgpool, net.fc = nn.AdaptiveAvgPool2d(2), nn.Linear(4 * net.fc.in_features, n_classes)
    return net


def resnet50(n_classes, input_shape):
    """ResNet-50 (He et al. 2016): bottleneck blocks [3, 4, 6, 3], 23.5 M parameters."""
    return _resnet([3, 4, 6, 3], n_classes, input_shape)


def resnet110(n_classes, input_shape):
    """The reference's "ResNet-110": bottleneck blocks [3, 4, 26, 3], 45.9 M parameters, not He's 1.7 M CIFAR net."""
    return _resnet([3, 4, 26, 3], n_classes, input_shape)


def wrn_28_10(n_classes, input_shape):
    """The paper's WRN-28-10 (Zagoruyko & Komodakis 2016) as the reference builds it, 36.5 M parameters.

    Three groups of four basic blocks, 160, 320 and 640 channels, post-activation and without dropout. The reference
    counts this as depth 26 (it leaves out the projections); the original activates before each convolution.
    """
    layers, width = [_stem(input_shape[0], 16), nn.BatchNorm2d(16), nn.ReLU(inplace=True)], 16
    for out, stride in ((160, 1), (320, 2), (640, 2)):
        shortcut = nn.Sequential(nn.Conv2d(width, out, 1, stride, bias=False), nn.BatchNorm2d(out))
        layers += [BasicBlock(width, out, stride, shortcut), *(BasicBlock(out, out) for _ in range(3))]
        width = out
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, n_classes))
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return net


def densenet121(n_classes, input_shape):
    """DenseNet-121 (Huang et al. 2017): growth 32, blocks [6, 12, 24, 16], compression 0.5, 7.0 M parameters.

    The stem is the bare convolution. torchvision appends new features after the old ones, the reference puts them
    before: the same network with its channels renumbered.
    """
    net = DenseNet(num_classes=n_classes)
    del net.features.norm0, net.features.relu0, net.features.pool0
    net.features.conv0 = _stem(input_shape[0], 64)
    return _default_init(net)


def mlp(n_classes, input_shape):
    """Two hidden layers of 128 ReLU units; images are flattened. The paper does not describe its MLP: this is ours."""
    return nn.Sequential(nn.Flatten(), MLP(math.prod(input_shape), [128, 128, n_classes]))


def convnet(n_classes, input_shape):
    """The small default for CPUs: three 3x3 convolutions of stride 2 with batch norm, then one linear layer.

    16, 48 and 96 channels, 64,218 parameters for 28x28x1 and 10 classes. Sized by measurement: on 5,000 images of
    Fashion-MNIST a dozen epochs reach about 86 % in seconds, and cross-entropy ends up clearly over-confident.
    """
    layers, width, (height, breadth) = [], input_shape[0], input_shape[1:]
    for out in (16, 48, 96):
        layers += [nn.Conv2d(width, out, 3, 2, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU(inplace=True)]
        width, height, breadth = out, -(-height // 2), -(-breadth // 2)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(width * height * breadth, n_classes))


MODELS = {f.__name__: f for f in (resnet50, resnet110, wrn_28_10, densenet121, mlp, convnet)}


def make_model(name, n_classes, input_shape):
    """A freshly initialised network that maps inputs ``(N, *input_shape)`` to logits ``(N, n_classes)``.

    name: a key of ``MODELS``.   n_classes: K >= 2.   input_shape: ``(C, H, W)`` with H, W >= 8 pixels, or ``(D,)``
    features for ``mlp``. Weights are float32 on PyTorch's default device, drawn from its global generator: call
    ``torch.manual_seed`` first. Raises ValueError or TypeError on anything else.
    """
    build = MODELS[check.choice("name", name, MODELS)]
    n_classes = check.number("n_classes", n_classes, 2, 1_000_000, integer=True)
    if not isinstance(input_shape, (tuple, list)) or len(input_shape) not in (1, 3):
        check.fail("input_shape", f"expected (C, H, W) or (D,), got {input_shape!r}", "leave the batch dimension out")
    shape = tuple(check.number("input_shape", size, 1, integer=True) for size in input_shape)
    if name != "mlp" and (len(shape) == 1 or min(shape[1:]) < 8):
        check.fail("input_shape", f"{name!r} needs images (C, H, W) of at least 8x8 pixels, got {shape}", "use 'mlp'")
    return build(n_classes, shape)
