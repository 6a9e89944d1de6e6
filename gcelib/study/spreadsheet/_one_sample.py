"""Lines that are no samples, but classes of one: all, or the most probable ones."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pandas as pd

#: Samples from which a pattern is no chance.
_MANY = 20
#: Of a pattern so many samples may be exceptions: one that is there twice.
_NEARLY_ALL = 0.95
#: What a sum of rounded probabilities may be above 1.
_ROUNDED_SUM = 0.03
#: So many samples must have two lines that are right, if that were chance.
_BY_CHANCE = 10
#: So rarely two lines of one sample are right, beside what chance would give.
_RARER = 0.2

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Claims:
    """What the lines of a table of confidences say.

    Attributes
    ----------
    confidences : (N,) float64 array
    hits : (N,) boolean array
        Whether the prediction is right.
    labels, predictions : (N,) integer arrays or None
        Class ids, where they are known.
    """

    confidences: npt.NDArray[np.float64]
    hits: npt.NDArray[np.bool_]
    labels: Ids | None = None
    predictions: Ids | None = None

    def are_of_one_sample(self, samples: "pd.Series[Any]") -> bool:
        """Whether lines with one value here are classes of one sample.

        Then its label is one and the same, and either at most one line is right and no
        two predict one class, or what is predicted stands in all of its lines. Of the
        first kind are also lines of a hard task. So two of three must hold besides:
        confidences sum to at most 1; they fall from line to line; two lines are right
        more seldom than by chance. Of samples with one line, which are NaN here,
        nothing is asked.
        """
        import pandas as pd

        lines = pd.DataFrame({"confidence": self.confidences, "hit": self.hits})
        of_sample = lines.groupby(samples.to_numpy())
        sizes = of_sample.size()
        sums = of_sample.sum()
        if not _nearly_all(self._has_one(self.labels, samples)):
            return False
        at_most_1 = _nearly_all(sums["confidence"] <= 1 + _ROUNDED_SUM)
        at_most_1 = at_most_1 and sums["confidence"].median() <= 1.001
        if self._are_classes(samples, sizes, sums["hit"]):
            fall = self._fall(samples)
            are_exclusive = self._are_hits_exclusive(samples)
            return sum([at_most_1, fall, are_exclusive]) >= 2
        if self.predictions is None:
            return False
        are_several = of_sample["confidence"].nunique() > 1
        one_class = _nearly_all(self._has_one(self.predictions, samples))
        return bool(at_most_1 and one_class and are_several.mean() > 0.5)

    def are_in_groups(self) -> bool:
        """Whether lines without such a column stand in groups of one sample each.

        Lines of one label and of falling confidence that never predict a class twice,
        and of which two are right more seldom than by chance.
        """
        if self.labels is None or self.predictions is None:
            return False
        import pandas as pd

        goes_on = (self.labels[1:] == self.labels[:-1]) & (
            self.confidences[1:] <= self.confidences[:-1]
        )
        samples = pd.Series(np.concatenate([[0], (~goes_on).cumsum()]))
        sizes = samples.groupby(samples).size()
        several = sizes[sizes >= 2]
        if len(several) < _MANY or several.sum() < 0.8 * len(samples):
            return False
        n_predicted = self._n_values(self.predictions, samples)
        differ = _nearly_all(n_predicted[several.index] == several)
        return differ and self._are_hits_exclusive(samples)

    def _are_classes(
        self,
        samples: "pd.Series[Any]",
        sizes: "pd.Series[Any]",
        n_hits: "pd.Series[Any]",
    ) -> bool:
        """Whether at most one line of a sample is right, and no two predict one class.

        Without predictions the second is not known.
        """
        if not _nearly_all(n_hits <= 1):
            return False
        if self.predictions is None:
            return True
        return _nearly_all(self._n_values(self.predictions, samples) == sizes)

    @staticmethod
    def _n_values(ids: Ids, samples: "pd.Series[Any]") -> "pd.Series[Any]":
        """How many classes each sample has."""
        import pandas as pd

        return pd.Series(ids).groupby(samples.to_numpy()).nunique()

    def _has_one(self, ids: Ids | None, samples: "pd.Series[Any]") -> Iterable[bool]:
        """Whether each sample has one class alone, where they are known."""
        return [True] if ids is None else self._n_values(ids, samples) == 1

    def _fall(self, samples: "pd.Series[Any]") -> bool:
        """Whether the lines of a sample stand together, and in order of confidence."""
        import pandas as pd

        lines = pd.DataFrame({"c": self.confidences, "at": np.arange(len(self.hits))})
        of_sample = lines.groupby(samples.to_numpy())
        stand_together = of_sample["at"].diff().dropna() == 1
        steps = of_sample["c"].diff().dropna()
        are_in_order = _nearly_all(steps <= 0) or _nearly_all(steps >= 0)
        is_pattern = are_in_order and (steps != 0).sum() >= _MANY
        return bool(is_pattern and _nearly_all(stand_together))

    def _are_hits_exclusive(self, samples: "pd.Series[Any]") -> bool:
        """Whether two lines of one sample are right far less often than by chance.

        Nearly never are they where the surest of half of the samples is right.
        """
        import pandas as pd

        lines = pd.DataFrame({"confidence": self.confidences, "hit": self.hits})
        of_sample = lines.groupby(samples.to_numpy())
        sizes = of_sample.size()
        n_twice = int((of_sample["hit"].sum() > 1).sum())
        share = float(self.hits.mean())
        none_right = (1 - share) ** sizes
        one_right = sizes * share * (1 - share) ** (sizes - 1)
        by_chance = float((1 - none_right - one_right).sum())
        if by_chance >= _BY_CHANCE:
            return n_twice <= _RARER * by_chance
        surest = lines["hit"][of_sample["confidence"].idxmax()]
        n_several = int((sizes > 1).sum())
        is_easy = surest.mean() >= 0.5 and n_several >= _MANY
        return bool(is_easy and n_twice <= (1 - _NEARLY_ALL) * n_several)


def _nearly_all(flags: Iterable[bool]) -> bool:
    """Whether a pattern holds but for a few exceptions."""
    return bool(np.mean(np.asarray(flags)) >= _NEARLY_ALL)
