"""How each loss and each calibrator looks: one row each, the same in every figure.

The explorers' drawing and the notebooks' tables read these rows too. A name without a
row (a run of your own, a data set) takes the next of ``FALLBACK``, by modulus, so that
there is always another one.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from gcelib.calibration import CALIBRATORS
from gcelib.losses import LOSSES


@dataclass(frozen=True)
class Style:
    """A row of ``STYLES``.

    Attributes
    ----------
    label : str
        What legends and tables call it.
    color : str
        ``#rrggbb``; at least 3:1 against white and against #111111.
    dash : tuple of float
        Lengths of dashes and gaps in line widths; empty is a solid line.
    marker : str
        Matplotlib's letter; with the dash it says again what the colour says.
    """

    label: str
    color: str
    dash: tuple[float, ...] = ()
    marker: str = "o"


# Colours were searched for: 3:1 against white and against #111111 (WCAG 2.1, 1.4.11),
# the paper's seven losses as far apart as that allows with protanopia, deuteranopia and
# tritanopia, and calibrators unlike any loss.
STYLES: Mapping[str, Style] = {
    # losses
    "ce": Style("CE", "#696d72", (), "o"),
    "brier": Style("Brier", "#1a99fc", (6, 1.5), "s"),
    "mmce": Style("MMCE", "#6ea068", (3, 1.5), "^"),
    "flsd": Style("FLSD", "#88499c", (1, 1), "v"),
    "dfl": Style("DFL", "#e57700", (6, 2, 1, 2), "D"),
    "afl": Style("AFL", "#0952e7", (3, 1, 1, 1, 1, 1), "P"),
    "gce": Style("GCE", "#c11220", (), "X"),
    "focal": Style("Focal", "#e667ae", (8, 2), "<"),
    "ce_ls": Style("CE + LS", "#ca813f", (4, 3), "h"),
    "gce_ls": Style("GCE + LS", "#9d4444", (2, 2), "p"),
    "afl_gce": Style("AFL + GCE", "#cd3cd4", (8, 2, 2, 2), "d"),
    # calibrators, "raw" being none
    "raw": Style("before", "#53654d", (), "o"),
    "ts_nll": Style("TS (NLL)", "#0d9c9c", (6, 1.5), "s"),
    "ts_ece": Style("TS (ECE)", "#745f18", (3, 1.5), "^"),
    "ets": Style("ETS", "#802bfc", (1, 1), "v"),
    "spline": Style("Spline", "#74a102", (6, 2, 1, 2), "D"),
    "ats": Style("ATS", "#ed0472", (3, 1, 1, 1, 1, 1), "P"),
    "ats_converged": Style("ATS, converged", "#d367f1", (), "X"),
    "bias": Style("TS + bias", "#4a5da0", (8, 2), "<"),
    "vector": Style("Vector", "#e3705c", (4, 3), "h"),
    "isotonic": Style("Isotonic", "#9129c9", (2, 2), "p"),
    "sms": Style("SMS", "#b27fcb", (8, 2, 2, 2), "d"),
}

#: For names that have no row, in turn: unlike any loss.
FALLBACK: tuple[Style, ...] = (
    Style("", "#0d9c9c", (), "o"),
    Style("", "#745f18", (6, 1.5), "s"),
    Style("", "#802bfc", (3, 1.5), "^"),
    Style("", "#74a102", (1, 1), "v"),
    Style("", "#ed0472", (6, 2, 1, 2), "D"),
)


def style(name: object, index: int = 0) -> Style:
    """The look of ``name``.

    Parameters
    ----------
    name : str
        A key of ``STYLES``; anything else takes a fallback and is its own label.
    index : int, default 0
        Which fallback: any whole number, counted around.

    Returns
    -------
    Style

    Examples
    --------
    >>> style("gce").label
    'GCE'
    >>> style("mine", 7) == Style("mine", "#802bfc", (3, 1.5), "^")
    True
    """
    if isinstance(name, str) and name in STYLES:
        return STYLES[name]
    spare = FALLBACK[index % len(FALLBACK)]
    return Style(str(name), spare.color, spare.dash, spare.marker)


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
LOSS_COLORS: Mapping[str, str] = {
    name: style(name, index).color for index, name in enumerate(LOSSES)
}
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
