"""How each loss and each calibrator looks: one row each, the same in every figure.

The explorers' drawing and the notebooks' tables read these rows too. What a loss or a
calibrator is called stands in its own row, in ``LOSSES`` or ``ALL_CALIBRATORS``; one
that has no row here takes one of ``NEUTRAL``, by its name. Any other name (a run of
your own, a data set) takes the next of ``FALLBACK``, by modulus, so that there is
always another one.
"""

import dataclasses
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from gcelib.calibration import ALL_CALIBRATORS, CALIBRATORS
from gcelib.losses import LOSSES


@dataclass(frozen=True)
class Style:
    """A row of ``STYLES``.

    Attributes
    ----------
    color : str
        ``#rrggbb``; at least 3:1 against white and against #111111.
    dash : tuple of float
        Lengths of dashes and gaps in line widths; empty is a solid line.
    marker : str
        Matplotlib's letter; with the dash it says again what the colour says.
    label : str
        What legends and tables call it; a loss or calibrator has it from its row.
    """

    color: str
    dash: tuple[float, ...] = ()
    marker: str = "o"
    label: str = ""


def _label(name: str) -> str:
    """What the row of a loss or calibrator says; other names are their own label."""
    if name in LOSSES:
        return LOSSES[name].label or name
    if name in ALL_CALIBRATORS:
        return ALL_CALIBRATORS[name].label
    return name


def _labelled(look: Style, name: str) -> Style:
    """The look with a label, its own or that of the loss or calibrator."""
    return dataclasses.replace(look, label=look.label or _label(name))


# Colours were searched for: 3:1 against white and against #111111 (WCAG 2.1, 1.4.11),
# the paper's seven losses as far apart as that allows with protanopia, deuteranopia and
# tritanopia, and calibrators unlike any loss.
_LOOKS = {
    # losses
    "ce": Style("#696d72", (), "o"),
    "brier": Style("#1a99fc", (6, 1.5), "s"),
    "mmce": Style("#6ea068", (3, 1.5), "^"),
    "flsd": Style("#88499c", (1, 1), "v"),
    "dfl": Style("#e57700", (6, 2, 1, 2), "D"),
    "afl": Style("#0952e7", (3, 1, 1, 1, 1, 1), "P"),
    "gce": Style("#c11220", (), "X"),
    "focal": Style("#e667ae", (8, 2), "<"),
    "ce_ls": Style("#ca813f", (4, 3), "h"),
    "gce_ls": Style("#9d4444", (2, 2), "p"),
    "afl_gce": Style("#cd3cd4", (8, 2, 2, 2), "d"),
    # calibrators, "raw" being none
    "raw": Style("#53654d", (), "o", label="before"),
    "ts_nll": Style("#0d9c9c", (6, 1.5), "s"),
    "ts_ece": Style("#745f18", (3, 1.5), "^"),
    "ets": Style("#802bfc", (1, 1), "v"),
    "spline": Style("#74a102", (6, 2, 1, 2), "D"),
    "ats": Style("#ed0472", (3, 1, 1, 1, 1, 1), "P"),
    "ats_converged": Style("#d367f1", (), "X"),
    "bias": Style("#4a5da0", (8, 2), "<"),
    "vector": Style("#e3705c", (4, 3), "h"),
    "isotonic": Style("#9129c9", (2, 2), "p"),
    "sms": Style("#b27fcb", (8, 2, 2, 2), "d"),
}

#: The looks above, with their labels.
STYLES: Mapping[str, Style] = {
    name: _labelled(look, name) for name, look in _LOOKS.items()
}

#: For losses and calibrators without a row: dull, and none like another or a row.
NEUTRAL: tuple[Style, ...] = (
    Style("#5a668a", (9, 3), ">"),
    Style("#90968a", (1, 3), "*"),
    Style("#5a846c", (5, 1, 1, 1, 1, 1), "8"),
    Style("#3c7e8a", (4, 1), "H"),
    Style("#6c96b4", (2, 4), "."),
)

#: For names that have no row, in turn: unlike any loss.
FALLBACK: tuple[Style, ...] = (
    Style("#0d9c9c", (), "o"),
    Style("#745f18", (6, 1.5), "s"),
    Style("#802bfc", (3, 1.5), "^"),
    Style("#74a102", (1, 1), "v"),
    Style("#ed0472", (6, 2, 1, 2), "D"),
)


def _neutral_styles() -> dict[str, Style]:
    """One of ``NEUTRAL`` for each loss and calibrator without a row.

    Its name says which. If an earlier one has that already, it is the next: where one
    stands in a figure never matters. More than there are share them.
    """
    found: dict[str, Style] = {}
    for name in (*LOSSES, *ALL_CALIBRATORS):
        if name in STYLES:
            continue
        first = zlib.crc32(name.encode()) % len(NEUTRAL)
        in_turn = [*NEUTRAL[first:], *NEUTRAL[:first]]
        taken = {look.marker for look in found.values()}
        free = [look for look in in_turn if look.marker not in taken]
        look = free[0] if free else in_turn[0]
        found[name] = _labelled(look, name)
    return found


def style(name: object, index: int = 0) -> Style:
    """The look of ``name``.

    Parameters
    ----------
    name : str
        A key of ``STYLES``, or another loss or calibrator, which has a neutral look
        of its own; anything else takes a fallback and is its own label.
    index : int, default 0
        Which fallback: any whole number, counted around.

    Returns
    -------
    Style

    Examples
    --------
    >>> style("gce").label
    'GCE'
    >>> style("mine", 7) == Style("#802bfc", (3, 1.5), "^", label="mine")
    True
    """
    if isinstance(name, str) and name in STYLES:
        return STYLES[name]
    if isinstance(name, str) and (name in LOSSES or name in ALL_CALIBRATORS):
        return _neutral_styles()[name]
    spare = FALLBACK[index % len(FALLBACK)]
    return dataclasses.replace(spare, label=str(name))


class Labels(dict[str, str]):
    """Labels by name, where a name without a row is its own label."""

    def __missing__(self, name: str) -> str:
        """The name itself."""
        return str(name)


#: Labels of losses, in the order of ``LOSSES``; then of everything that has a row.
LOSS_LABELS: Mapping[str, str] = Labels((name, style(name).label) for name in LOSSES)
LABELS: Mapping[str, str] = Labels(
    (name, style(name).label)
    for name in dict.fromkeys((*LOSSES, "raw", *CALIBRATORS, *STYLES))
)
#: Colours of losses, and those for what has no row.
LOSS_COLORS: Mapping[str, str] = {name: style(name).color for name in LOSSES}
OTHER_COLORS: tuple[str, ...] = tuple(spare.color for spare in FALLBACK)


def loss_color(name: object, index: int = 0) -> str:
    """The colour of a loss or calibrator, else the ``index``-th of ``OTHER_COLORS``.

    Parameters
    ----------
    name : str
        A key of ``STYLES``, or any other name.
    index : int, default 0
        Which colour such another name takes; counted around.

    Returns
    -------
    str
        ``#rrggbb``.

    Examples
    --------
    >>> loss_color("gce")
    '#c11220'
    """
    return style(name, index).color


def drawable(name: object) -> str:
    r"""A name as matplotlib can write it: not as TeX, not hidden, no lone surrogates.

    Parameters
    ----------
    name : object
        Whatever somebody called a run, a class or a data set.

    Returns
    -------
    str
        Dollar signs stand for themselves, what is no character becomes ``?`` or a
        space, and a leading underscore no longer hides a line from the legend.

    Examples
    --------
    >>> drawable("$^$")
    '\\$^\\$'
    """
    text = str(name).encode("utf-8", "replace").decode()
    text = "".join(letter if letter.isprintable() else " " for letter in text)
    text = text.replace("$", r"\$")
    hidden = text.startswith("_") or not text.strip()
    return f"\N{ZERO WIDTH SPACE}{text}" if hidden else text
