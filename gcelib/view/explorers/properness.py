"""A loss's risk on the simplex: which prediction it rewards most."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from gcelib._check import choice, fail, number
from gcelib.losses import LOSSES, gce_log_ratio, make_loss
from gcelib.view.explorers.page import Answer, Explorer, Setting
from gcelib.view.styles import style

#: Where the exponent of flsd changes.
_FLSD_JUMP = 0.2


class PropernessExplorer(Explorer):
    """Move the truth q about the simplex; see which prediction p a loss rewards most.

    The surface is the risk ``sum_k q_k loss(p, k)`` of p; a loss is proper where the
    minimiser p* is q. GCE compares samples, so its risk (the paper's Eq. 4, truths for
    labels) needs a batch.

    Parameters
    ----------
    **settings
        What a reader can change, and Python too at any time: ``loss`` ("ce", "brier",
        "focal", "flsd", "dfl" or "gce"), ``truth`` (3 probabilities), ``gamma`` (of
        focal and dfl, in [0, 10]), ``weight`` (lambda of gce, in [0, 1]; 0 is ce),
        ``batch``. With "varied" there are three more samples, predicted right, whose
        truths span the classes (Theorem 1's rank condition). With "alike" there are
        copies with this q and this p, which GCE cannot tell apart, as it cannot with
        one sample alone.

    Raises
    ------
    ValueError, TypeError
        If a setting is malformed; the message begins with its name.

    Examples
    --------
    >>> [round(p, 3) for p in PropernessExplorer(loss="brier").answer["best"]]
    [0.6, 0.3, 0.1]
    """

    kind = "simplex"
    settings = ("loss", "truth", "gamma", "weight", "batch")
    _losses: ClassVar = tuple(
        name for name, row in LOSSES.items() if row.simplex_options is not None
    )
    _steps: ClassVar = 48
    loss = Setting("ce", lambda self, value: choice("loss", value, self._losses))
    truth = Setting((0.6, 0.3, 0.1), lambda self, value: self._check_truth(value))
    gamma = Setting(3.0, lambda self, value: number("gamma", value, 0, 10))
    weight = Setting(1.0, lambda self, value: number("weight", value, 0, 1))
    batch = Setting(
        "varied", lambda self, value: choice("batch", value, ("varied", "alike"))
    )

    def __init__(self, **settings: object) -> None:
        n = self._steps
        points = [(i, j, n - i - j) for i in range(n + 1) for j in range(n + 1 - i)]
        # Inside the rim, where risks are infinite, and off the lines of equal
        # probabilities, where dfl jumps.
        aside = torch.tensor([0.03, 0.05, 0.07], dtype=torch.float64)
        self._grid = (torch.tensor(points) + aside) / (n + 0.15)
        super().__init__(**settings)

    def _check_truth(self, truth: Iterable[object]) -> list[float]:
        """Three probabilities."""
        parts = [float(number("truth", part, 0, 1)) for part in truth]
        if len(parts) != 3 or abs(sum(parts) - 1) > 1e-6:
            problem = f"{parts} are not three probabilities with sum 1"
            fail("truth", problem, "pass e.g. [0.6, 0.3, 0.1]")
        return parts

    def _risk(self, probs: Tensor) -> Tensor:
        """Risk (G,) of each prediction in ``probs`` (G, 3)."""
        q = torch.tensor(self.truth, dtype=torch.float64)
        if self.loss == "gce":
            return self._risk_in_a_batch(probs.log(), q)
        takes = LOSSES[self.loss].simplex_options or ()
        options = {"gamma": self.gamma} if "gamma" in takes else {}
        loss = make_loss(self.loss, reduction="none", **options)
        classes = torch.arange(3).repeat(len(probs))
        losses: Tensor = loss(probs.log().repeat_interleave(3, 0), classes)
        return losses.view(-1, 3) @ q

    def _risk_in_a_batch(self, log_p: Tensor, q: Tensor) -> Tensor:
        """GCE's risk (G,) of each prediction beside the rest of the batch."""
        if self.batch == "alike":
            others = q[None]
            n_predicted = 2  # the copy moves with the sample
        else:
            others = 0.1 + 0.7 * torch.eye(3, dtype=torch.float64)
            n_predicted = 1
        truths = torch.cat((q[None], others))
        log_probs = truths.log()[:, None].repeat(1, len(log_p), 1)
        log_probs[:n_predicted] = log_p
        # Each column by itself.
        ratio = gce_log_ratio(log_probs.flatten(1), self.weight, None)
        shares = truths[:, None] * ratio.view_as(log_probs)
        return -shares.sum((0, 2)) / len(truths)

    def _minimiser(self, risk: Tensor) -> Tensor | None:
        """The best prediction (3,), ever finer; None if all are equal.

        Some losses jump: flsd where a probability passes 0.2, dfl where two change
        places. So the best point of each part between such lines is refined.
        """
        if risk.max() - risk.min() < 1e-9:
            return None
        order = self._grid.argsort(1) @ torch.tensor([9, 3, 1])
        below = (self._grid < _FLSD_JUMP).long() @ torch.tensor([4, 2, 1])
        parts = 8 * order + below
        firsts = [risk.argmin()]
        for part in sorted({*parts.tolist()}):
            firsts.append(risk.where(parts == part, torch.inf).argmin())
        best = self._grid[torch.stack(firsts)]
        steps = torch.linspace(-1, 1, 7, dtype=torch.float64) / self._steps
        first = steps.repeat_interleave(7)
        second = steps.repeat(7)
        around = torch.stack((first, second, -first - second), 1)
        for shrink in range(10):
            near = (best[:, None] + around / 3**shrink).clamp_min(1e-9)
            near = near / near.sum(2, keepdim=True)
            chosen = self._risk(near.view(-1, 3)).view(len(best), -1).argmin(1)
            best = near[torch.arange(len(best)), chosen]
        found = self._risk(best)
        lowest = int(found.argmin())
        # What refines the grid's best point to the same is no other minimum.
        return best[lowest if found[lowest] < found[0] - 1e-7 else 0]

    @property
    def answer(self) -> Answer:
        """The surface under the present settings, as the browser computes it.

        Returns
        -------
        dict
            ``question``: the settings. ``risk``: of every grid point, class 1 in i
            steps and class 2 in j at i (n + 1) - i (i - 1) / 2 + j. ``levels``: 13 for
            drawing. ``best``: the minimiser, None if all predictions are equal.
            ``risk_at_truth``, ``risk_at_best``.
        """
        risk = self._risk(self._grid)
        q = torch.tensor([self.truth], dtype=torch.float64).clamp_min(1e-9)
        q = q / q.sum()
        best = self._minimiser(risk)
        low = float(risk.min())
        span = 1.0 if best is None else float(risk.quantile(0.9)) - low
        # Narrow bands near the minimum.
        levels = low + span * (np.arange(1, 14) / 14) ** 2
        at_best = q if best is None else best[None]
        return {
            "question": self.question,
            "risk": risk.tolist(),
            "levels": levels.tolist(),
            "best": None if best is None else best.tolist(),
            "risk_at_truth": float(self._risk(q)),
            "risk_at_best": float(self._risk(at_best)),
        }

    def _colors(self) -> list[str]:
        """Fourteen bands from dark to light."""
        from matplotlib import colormaps, colors

        return [colors.to_hex(c) for c in colormaps["viridis"](np.linspace(0, 1, 14))]

    def _content(self, image_bytes: int) -> dict[str, object]:
        """The losses and how to draw."""
        losses = [(name, style(name).label) for name in self._losses]
        setup = {"losses": losses, "steps": self._steps, "colors": self._colors()}
        return {"setup": setup}

    def figure(self) -> Figure:
        """The present state as a matplotlib figure.

        Returns
        -------
        Figure
            The simplex with truth and minimiser.
        """
        answer = self.answer
        corners = np.array([[0, 0], [1, 0], [0.5, 0.75**0.5]])
        levels = answer["levels"]
        figure = Figure(figsize=(5.2, 4.8), layout="constrained")
        ax = figure.add_subplot(aspect="equal")
        name = style(self.loss).label
        details = ", ".join([*self._options(), "dark is low"])
        ax.set_title(f"Risk of every prediction under {name}\n({details})", pad=24)
        across, up = (self._grid.numpy() @ corners).T
        bounds = [levels[0] - 1e9, *levels, 1e9]
        ax.tricontourf(across, up, answer["risk"], levels=bounds, colors=self._colors())
        marked = [
            ("minimiser p*", answer["best"], "kD", "w"),
            ("truth q", self.truth, "wo", "k"),
        ]
        for what, p, mark, rim in marked:
            if p is not None:
                numbers = ", ".join(f"{value:.2f}" for value in p)
                x, y = np.array(p) @ corners
                label = f"{what} = ({numbers})"
                ax.plot(x, y, mark, ms=9, mec=rim, mew=1.5, label=label)
        for k, (left, top) in enumerate(corners):
            lift = 0.02 if k == 2 else -0.06
            ax.text(left, top + lift, f"class {k + 1}", ha="center")
        place = (0.5, -0.05)
        ax.legend(loc="upper center", bbox_to_anchor=place, ncols=2, frameon=False)
        ax.set_axis_off()
        return figure

    def _options(self) -> list[str]:
        """The options that the loss in view has, in words."""
        if self.loss == "gce":
            return [f"λ = {self.weight:g}", f"a batch of {self.batch} images"]
        takes = LOSSES[self.loss].simplex_options or ()
        return [f"γ = {self.gamma:g}"] if "gamma" in takes else []

    def _title(self) -> str:
        """The heading of a saved page."""
        return "Which prediction does a loss reward?"
