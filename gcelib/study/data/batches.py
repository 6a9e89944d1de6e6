"""An epoch of batches: normalised, shuffled, augmented on the device of the data."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F

from gcelib._check import as_tensor, boolean, fail, number
from gcelib.study.data.splits import Splits, TensorPair

_PADDING = 4  # pixels, as in the published recipe


def normalize(images: torch.Tensor, splits: Splits) -> torch.Tensor:
    """Turn stored samples into network input.

    Parameters
    ----------
    images : uint8 (N, C, H, W) or float (N, D) tensor
        Samples in the shape of ``splits``.
    splits : Splits
        Whose ``mean`` and ``std`` are used.

    Returns
    -------
    float32 tensor of the same shape
        (pixels / 255 - mean) / std of images, (features - mean) / std of features.

    Raises
    ------
    ValueError, TypeError
        If the shape is another one, or images are no uint8.

    Examples
    --------
    >>> from gcelib import data
    >>> splits = data.load("digits")
    >>> normalize(splits.test[0], splits).shape
    torch.Size([497, 1, 8, 8])
    """
    n_dimensions = len(splits.input_shape) + 1
    if images.ndim != n_dimensions or images.shape[1] != len(splits.mean):
        shape = (
            f"shape {tuple(images.shape)}, {splits.name} has (N, *{splits.input_shape})"
        )
        fail("images", shape, "convert them")
    if images.ndim == 4 and images.dtype != torch.uint8:
        kind = str(images.dtype).removeprefix("torch.")
        cure = "pass pixels of 0 to 255: of floats in [0, 1] (255 * x).round().byte()"
        fail("images", f"must be uint8 and not normalised, got {kind}", cure, TypeError)
    mean = splits.mean.to(images.device)
    std = splits.std.to(images.device)
    if images.ndim == 4:
        mean = 255 * mean[:, None, None]
        std = 255 * std[:, None, None]
    return (images - mean) / std


#: A mean and a spread hang on chance in fewer samples.
_ENOUGH_SAMPLES = 30
#: How far, in spreads, training has to be from what normalised samples are.
_CLEARLY_RAW = 1.0
#: So many of the features that can tell have to say so.
_MOST = 0.8


def are_normalized(features: torch.Tensor, splits: Splits) -> bool:
    """Tell whether samples of a table seem to be what ``normalize`` made of them.

    Most of those features whose mean or spread in training is far from 0 or 1 have
    means near 0 and spreads near 1, and are not like training.

    Parameters
    ----------
    features : float (N, D) tensor
        Of fewer than 30 samples nothing can be told.
    splits : Splits
        Whose ``mean`` and ``std`` are those of training.

    Returns
    -------
    bool

    Examples
    --------
    >>> from gcelib import data
    >>> splits = data.load("digits")  # as a table
    >>> pixels = splits.train[0].flatten(1).float()[:, 20:30]
    >>> table = replace(
    ...     splits, mean=pixels.mean(0), std=pixels.std(0), input_shape=(10,)
    ... )
    >>> are_normalized(normalize(pixels, table), table), are_normalized(pixels, table)
    (True, False)
    """
    if features.ndim != 2 or len(features) < _ENOUGH_SAMPLES:
        return False
    mean, std = splits.mean.double(), splits.std.double()
    can_tell = _distance_to_normal(mean, std) > _CLEARLY_RAW
    if not can_tell.any():
        return False
    there = features.detach().cpu().double()[:, can_tell]
    of_samples = there.mean(0), there.std(0)
    as_given = _distance_to_normal(*of_samples)
    if_raw = _distance_to_normal(
        (of_samples[0] - mean[can_tell]) / std[can_tell],
        of_samples[1] / std[can_tell],
    )
    says_so = (as_given < _CLEARLY_RAW / 2) & (if_raw > _CLEARLY_RAW)
    return bool(says_so.double().mean() >= _MOST)


def _distance_to_normal(mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """How far features are from a mean of 0 and a spread of 1."""
    return mean.abs() + std.log().abs()


def crop_and_flip(
    images: torch.Tensor, draws: torch.Tensor, padding: int = _PADDING
) -> torch.Tensor:
    """Shift each image, and perhaps mirror it, by its own draw.

    Parameters
    ----------
    images : (N, C, H, W) tensor
        Before normalisation, as in the published recipe: what comes in at the rim is 0.
    draws : int64 (N, 3) tensor on the same device
        Row and column offset in [0, 2 padding], and 1 to mirror or 0.
    padding : int, default 4
        The largest shift, in pixels.

    Returns
    -------
    (N, C, H, W) tensor
        The shifted images.

    Examples
    --------
    >>> image = torch.tensor([[[[1, 2], [3, 4]]]])
    >>> crop_and_flip(image, torch.tensor([[4, 4, 1]])).tolist()
    [[[[2, 1], [4, 3]]]]
    """
    n, channels, height, width = images.shape
    rows = torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device)
    down, right, flip = draws[:, :, None].unbind(1)
    columns = torch.where(flip == 1, columns.flip(0), columns) + right
    padded_width = width + 2 * padding
    pixels = (rows + down)[:, :, None] * padded_width + columns[:, None]
    index = pixels.view(n, 1, height * width).expand(-1, channels, -1)
    return F.pad(images, [padding] * 4).flatten(2).gather(2, index).view_as(images)


def batches(
    split: TensorPair,
    batch_size: int,
    *,
    splits: Splits,
    generator: torch.Generator | None = None,
    augment: bool = False,
    drop_single: bool = True,
    drop_last: bool = False,
) -> Iterator[TensorPair]:
    """Make one epoch of normalised batches, on the device of the split's tensors.

    Parameters
    ----------
    split : pair of tensors
        ``splits.train`` or another part.
    batch_size : int
        Samples in a batch, >= 1.
    splits : Splits
        Tells how to normalise.
    generator : torch.Generator, optional
        Draws the order, and the crop and mirroring of every sample, for the whole epoch
        before the first batch, so that no batch waits for the device. A CPU generator
        gives the same data on every device. None: the stored order.
    augment : bool, default False
        Random crops after padding by 4 pixels, and horizontal flips; features pass
        unchanged.
    drop_single : bool, default True
        In random order, leave out a trailing batch of one sample, with which batch norm
        and GCE can do nothing.
    drop_last : bool, default False
        Leave out any incomplete batch.

    Returns
    -------
    iterator of (inputs, labels)
        Float32 inputs and int64 labels.

    Raises
    ------
    ValueError, TypeError
        At once, not at the first batch, if an argument is malformed.

    Examples
    --------
    >>> from gcelib import data
    >>> splits = data.load("digits")
    >>> inputs, labels = next(batches(splits.train, 32, splits=splits))
    >>> inputs.shape, labels.shape
    (torch.Size([32, 1, 8, 8]), torch.Size([32]))
    """
    images, labels = _checked_pair(split)
    size = number("batch_size", batch_size, 1, integer=True)
    n = len(labels)
    augment = boolean("augment", augment) and images.ndim == 4
    drop_single = boolean("drop_single", drop_single) and generator is not None
    drop_last = boolean("drop_last", drop_last)
    if augment and generator is None:
        cure = "pass generator=torch.Generator().manual_seed(seed)"
        fail("augment", "needs random numbers", cure)
    order = None
    draws = None
    if generator is not None:
        order = torch.randperm(n, generator=generator, device=generator.device)
        order = order.to(labels.device)
        if augment:
            draws = _draws(n, generator).to(labels.device)
    if drop_last or (drop_single and n % size == 1):
        n -= n % size
    there = labels.device
    splits = replace(splits, mean=splits.mean.to(there), std=splits.std.to(there))

    def epoch() -> Iterator[TensorPair]:
        for start in range(0, n, size):
            rows: slice | torch.Tensor = slice(start, start + size)
            if order is not None:
                rows = order[rows]
            x = images[rows]
            if draws is not None:
                x = crop_and_flip(x, draws[rows])
            yield normalize(x, splits), labels[rows]

    return epoch()


def _checked_pair(split: TensorPair) -> TensorPair:
    """Refuse anything but samples and as many labels."""
    is_pair = isinstance(split, (tuple, list)) and len(split) == 2
    if not is_pair or np.shape(split[0])[:1] != np.shape(split[1]):
        problem = "is not a pair of images and as many labels"
        fail("split", problem, "pass splits.train or another part", TypeError)
    return as_tensor("split", split[0]), as_tensor("split", split[1])


def _draws(n: int, generator: torch.Generator) -> torch.Tensor:
    """Draw the offsets and the mirroring of every sample of an epoch."""
    offsets = 2 * _PADDING + 1
    columns = [
        torch.randint(high, (n, 1), generator=generator, device=generator.device)
        for high in (offsets, offsets, 2)
    ]
    return torch.cat(columns, 1)
