"""Scores how well each cell predicts where a property holds, by the area under the ROC curve (AUC).

The AUC is the probability that the cell is higher at a byte where the property holds than at one
where it does not; equal values count half (Mann & Whitney 1947). 1/2 is guessing. A cell that is
lower where the property holds predicts it as well, so 1 minus its AUC counts.

The best of hundreds of cells looks good by chance. So the text is cut into blocks: the even blocks
choose the cell and its direction, and the odd blocks give its score.
"""

import dataclasses

import numpy as np
from tqdm import tqdm

from charlstm.inspection.properties import Property

NUM_BLOCKS = 32
# To be scored, a property must hold, and not hold, at this many bytes in each half.
LEAST_BYTES = 20
_LEVELS = 256  # different values of a squashed cell state


@dataclasses.dataclass(frozen=True)
class Scores:
    """Holds the scores of C cells for a property.

    Attributes:
      property: the property.
      is_scored: False if the property holds, or does not hold, at too few bytes; then the arrays
        are NaN.
      rises: bool [C], True if the cell is higher where the property holds, in the choosing half.
      chosen_by: float32 [C], the AUC in the choosing half, at least 1/2.
      held_out: float32 [C], the AUC in the other half, in the direction of the choosing half.
    """

    property: Property
    is_scored: bool
    rises: np.ndarray
    chosen_by: np.ndarray
    held_out: np.ndarray

    def best(self, count: int) -> list[int]:
        """Returns the best cells by the choosing half; none if the property was not scored."""
        if not self.is_scored:
            return []
        return np.argsort(-self.chosen_by, kind="stable")[:count].tolist()


def is_held_out(num_bytes: int) -> np.ndarray:
    """Returns which bytes are in the half that gives the score: bool [N]."""
    block = np.arange(num_bytes) * NUM_BLOCKS // max(1, num_bytes)
    return block % 2 == 1


def score(cells: np.ndarray, properties: list[Property]) -> list[Scores]:
    """Scores every cell for every property.

    Args:
      cells: int8 [C, N], squashed cell states; only the order of the values counts.
      properties: the properties of the same N bytes.
    """
    num_bytes = cells.shape[1]
    half = is_held_out(num_bytes)
    # Bytes with the same half and properties form a class. There are few classes, so one histogram
    # of a cell by class serves all properties.
    alike, class_of = _classes(
        [half, *(p.holds for p in properties), *(p.among for p in properties)]
    )
    count = len(properties)
    in_half, holds, among = alike[:, 0], alike[:, 1 : 1 + count], alike[:, 1 + count :]
    masks = np.stack(
        [
            among[:, p] & (holds[:, p] == wanted) & (in_half == side)
            for p in range(count)
            for side in (False, True)
            for wanted in (False, True)
        ]
    ).astype(np.int64)
    offsets = class_of * _LEVELS + _LEVELS // 2
    areas = np.empty((len(cells), count, 2))
    totals = (masks @ np.bincount(class_of, minlength=len(alike))).reshape(count, 4)
    for index in tqdm(range(len(cells)), "scoring", unit="cell", leave=False, disable=None):
        histogram = np.bincount(offsets + cells[index], minlength=len(alike) * _LEVELS)
        split = masks @ histogram.reshape(len(alike), _LEVELS)
        areas[index] = _area(*np.moveaxis(split.reshape(count, 2, 2, _LEVELS), 2, 0))
    scores = []
    for index, prop in enumerate(properties):
        is_scored = bool(totals[index].min() >= LEAST_BYTES)
        fit, other = np.where(is_scored, areas[:, index], np.nan).astype(np.float32).T
        rises = ~(fit < 0.5)
        chosen_by, held_out = np.where(rises, fit, 1 - fit), np.where(rises, other, 1 - other)
        scores.append(Scores(prop, is_scored, rises, chosen_by, held_out))
    return scores


def _classes(masks: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the combinations, bool [K, M], of M masks [N], and which one each byte has, [N]."""
    class_of = np.zeros(len(masks[0]), np.int64)
    found = np.zeros((1, 0), bool)
    for mask in masks:  # numbered anew after each mask, so that numbers stay small
        keys, class_of = np.unique(2 * class_of + mask, return_inverse=True)
        found = np.column_stack([found[keys // 2], keys % 2 == 1])
    return found, class_of


def _area(negative: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Returns the AUC of histograms [..., levels] over ascending values; NaN if one is empty."""
    below = np.cumsum(negative, axis=-1) - negative / 2
    pairs = positive.sum(-1, dtype=np.float64) * negative.sum(-1)
    wins = (positive * below).sum(-1)
    return np.divide(wins, pairs, out=np.full(pairs.shape, np.nan), where=pairs > 0)
