"""Whether a part of the user's data is in another unit than that for training.

One part that alone went through a ``StandardScaler``, or is in inches, trains and
evaluates without an error: only its numbers show it. A part may honestly lie elsewhere
than that for training; told is one of which at least half of the features do, and so
far away that another place or day hardly explains it.
"""

import numpy as np
import torch

from gcelib._check import warn
from gcelib.study.data.splits import Array

#: So many samples, and features or pixels of each, are looked at.
_ROWS = 1000
_COLUMNS = 500

#: Of fewer numbers that are not zero nobody knows which size is usual.
_FEW = 5

#: In one unit, what is usual in one part is not so many times that of another, ...
_TIMES_AS_LARGE = 10
#: ... the middle half of a feature is not so many times as wide, ...
_TIMES_AS_WIDE = 4
#: ... and its middle is not so many standard deviations away.
_DEVIATIONS_AWAY = 2

_QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
#: Of a normal distribution the middle half is so many standard deviations wide.
_WIDTH_OF_NORMAL = 1.349


def warn_of_other_unit(what: str, train: Array, part: Array) -> None:
    """Warn of a part that seems to be scaled in another way than that for training.

    Parameters
    ----------
    what : str
        The part, for the message.
    train, part : arrays
        Samples: images (N, C, H, W), or features (N, D).

    Warns
    -----
    UserWarning
        If numbers are usually ten times as large; or if at least half of the features
        are four times as wide in the middle, lie two standard deviations away, are
        centred where nothing is negative for training, or lack its zeros; also the
        other way round.

    Examples
    --------
    >>> rows = np.arange(40.0).reshape(20, 2)
    >>> warn_of_other_unit("test", rows, rows + 1)
    """
    is_image = train.ndim == 4
    train, part = _some(train), _some(part)
    if is_image:
        _warn_of_size(what, train.reshape(-1, 1), part.reshape(-1, 1))
    elif not _warn_of_size(what, train, part):
        _warn_of_place(what, train, part)


def _some(samples: Array) -> Array:
    """Some rows and columns of the samples, (n, d) in float64."""
    rows = samples[:: max(1, len(samples) // _ROWS)]
    flat = rows.reshape(len(rows), -1)
    # Not every so-manieth pixel, which might be those of a border.
    order = np.random.default_rng(0).permutation(flat.shape[1])
    return flat[:, np.sort(order[:_COLUMNS])].astype(np.float64)


def _warn_of_size(what: str, train: Array, part: Array) -> bool:
    """Warn of numbers that are usually ten times as large, or a tenth; tell if so."""
    usual, found = _usual_size(train), _usual_size(part)
    are_there = (usual > 0) & (found > 0)
    if not are_there.any():
        return False
    usual, found = usual[are_there], found[are_there]
    ratio = float(np.median(found / usual))
    if 1 / _TIMES_AS_LARGE < ratio < _TIMES_AS_LARGE:
        return False
    warn(
        f"dataset: numbers for {what} are {ratio:.3g} times as large as those for "
        f"train ({np.median(found):.3g} beside {np.median(usual):.3g}, medians "
        "without zeros); bring all parts to one unit, if they are not"
    )
    return True


def _usual_size(columns: Array) -> Array:
    """The median of each column without sign and zeros; 0 where nearly all are."""
    sizes = np.abs(columns)
    sizes[sizes == 0] = np.nan
    medians = torch.from_numpy(sizes).nanmedian(0).values.numpy()
    return np.where((~np.isnan(sizes)).sum(0) >= _FEW, medians, 0)


def _warn_of_place(what: str, train: Array, part: Array) -> None:
    """Warn of a part of which at least half of the features lie elsewhere."""
    varies = np.ptp(train, axis=0) > 0
    if not varies.any():
        return
    train, part = train[:, varies], part[:, varies]
    elsewhere = _lies_elsewhere(train, part)
    elsewhere |= _is_centred_alone(train, part) | _is_centred_alone(part, train)
    elsewhere |= _lacks_zeros(train, part) | _lacks_zeros(part, train)
    n, n_all = int(elsewhere.sum()), len(elsewhere)
    if n == 0 or n < n_all / 2 or n < min(2, n_all):
        return
    column = np.flatnonzero(elsewhere)[0]
    (low, high), (usual_low, usual_high) = (
        np.quantile(samples[:, column], (0.25, 0.75)) for samples in (part, train)
    )
    warn(
        f"dataset: numbers for {what} seem to be in another unit than those for train, "
        f"or standardised alone: {n} of {n_all} features lie elsewhere (half of the "
        f"samples from {low:.3g} to {high:.3g} beside {usual_low:.3g} to "
        f"{usual_high:.3g} in one); bring all parts to one unit, if they are not"
    )


def _lies_elsewhere(train: Array, part: Array) -> Array:
    """Tell of each feature whether it is far away, or far wider or narrower.

    By quantiles, none of which heavy tails move. Of rare events they are all alike.
    """
    usual, found = (np.quantile(x, _QUANTILES, axis=0) for x in (train, part))
    widths, usual_widths = (
        np.stack([q[-1] - q[0], q[-2] - q[1]]) for q in (found, usual)
    )
    is_dense: Array = (widths.min(0) > 0) & (usual_widths.min(0) > 0)
    ratios = widths[:, is_dense] / usual_widths[:, is_dense]
    ways = (found - usual)[1:-1, is_dense]
    # Quantiles of a few samples are rough.
    rough = 1 + 1.5 / np.sqrt(min(len(train), len(part)) * min(10, len(is_dense)))
    wide = _TIMES_AS_WIDE * rough
    far = _DEVIATIONS_AWAY * rough * usual_widths[1, is_dense] / _WIDTH_OF_NORMAL
    elsewhere = np.zeros(len(is_dense), np.bool_)
    elsewhere[is_dense] = (
        (ratios > wide).all(0)
        | (ratios < 1 / wide).all(0)
        | (ways > far).all(0)
        | (ways < -far).all(0)
    )
    return elsewhere


def _is_centred_alone(raw: Array, part: Array) -> Array:
    """Tell of each feature whether it is centred, though nothing is negative in raw."""
    allowed = 0.3 + 1 / np.sqrt(len(part))
    is_centred = np.abs(part.mean(0)) < allowed * part.std(0)
    has_both = ((part < 0).mean(0) > 0.2) & ((part > 0).mean(0) > 0.2)
    was_not = (raw < 0).mean(0) < 0.01
    alone: Array = was_not & is_centred & has_both
    return alone


def _lacks_zeros(raw: Array, part: Array) -> Array:
    """Tell of each feature whether it is never zero, though it mostly is in raw."""
    lacks: Array = ((raw == 0).mean(0) > 0.5) & ((part == 0).mean(0) < 0.01)
    return lacks
