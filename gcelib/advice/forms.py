"""What is calibrated: logits of all classes, or confidences alone."""

from dataclasses import dataclass

from gcelib.calibration import CALIBRATORS


@dataclass(frozen=True)
class Form:
    """What was given, and how the sentences speak of it.

    Parameters
    ----------
    name : str
        As in ``LINES_THAT_APPLY``.
    things : str
        What a calibrator changes.
    unrelated : str
        What is said where scores tell nothing of the labels.
    top : int or None
        The class whose probability is the confidence and that counts as predicted;
        None: the class with the largest logit.
    labels : dict of str to str
        Every calibrator that may be advised, and how it reads; ``"raw"`` is none.
    scale : str
        What a temperature divides.
    criteria : str
        How ECE and NLL differ.
    used : dict of str to str
        For whom each criterion is the right one.
    """

    name: str
    things: str
    unrelated: str
    top: int | None
    labels: dict[str, str]
    scale: str
    criteria: str
    used: dict[str, str]


def logits_form() -> Form:
    """Logits of all classes."""
    labels = {name: row.label for name, row in CALIBRATORS.items()}
    return Form(
        name="logits",
        things="logits",
        unrelated="the labels are no more probable than in any other order",
        top=None,
        labels={"raw": "the logits as they are", **labels},
        scale="one temperature",
        criteria=(
            "ECE asks only whether the top class's probability is right on average, "
            "NLL whether every sample's is"
        ),
        used={
            "ece": "the confidence is what you use",
            "nll": "every probability is what you use",
        },
    )


def confidences_form() -> Form:
    """Confidences c of predictions, as logits of *wrong* (1 - c) and *right* (c)."""
    labels = {
        name: row.of_confidence
        for name, row in CALIBRATORS.items()
        if row.of_confidence is not None
    }
    return Form(
        name="confidences",
        things="confidences",
        unrelated="the confidences would fit as well in any other order",
        top=1,
        labels={"raw": "the confidences as they are", **labels},
        scale="one temperature of the odds c / (1 - c)",
        criteria=(
            "ECE asks only whether the confidences of a bin are right on average, "
            "NLL whether each single one is"
        ),
        used={
            "ece": "averages over many samples are what you use",
            "nll": "single confidences are what you use",
        },
    )


#: How a loaded calibrator is applied to each form of scores.
LINES_THAT_APPLY = {
    "logits": (
        "calibrated = calibrator(logits)  # logits (N, K) of the same model\n"
        "probabilities = calibrated.softmax(1)"
    ),
    "probabilities": (
        "logits = logits_from_probabilities(probabilities)  # of the same model\n"
        "calibrated = calibrator(logits).softmax(1)"
    ),
    "confidences": (
        "logits = logits_from_confidences(confidences)  # (N,), of the same model\n"
        "calibrated = calibrator(logits).softmax(1)[:, 1]"
    ),
}
