"""Renders an inspection as one page: the text, the scores, and as many cell states as fit.

The states of all cells on a whole text would be a hundred times as large as the text. So the page
has the states of the best cells of every property on the whole text, and of all cells on one window
of it.
"""

import dataclasses
from typing import Any

import numpy as np

from charlstm.inspection.recording import (
    GATES,
    SURPRISE_STEPS_PER_BIT,
    Recording,
)
from charlstm.inspection.scoring import LEAST_BYTES, NUM_BLOCKS, Scores
from charlstm.pages import charts, html

SCRIPTS = ("bytes.js", "text_view.js", "finder.js", "inspect.js")
# The approximate size in bytes of the cell states on the page, before compression: of all cells on
# a window, and of the best cells on the whole text.
WINDOW_CELL_BYTES = 2**22
TRACED_CELL_BYTES = 12 * 2**20
BEST_OF_A_PROPERTY = 3
# Rounded states compress well, and look the same.
CELL_STEP = 4  # of 127
PROBABILITY_STEPS = 63
SURPRISE_STEP = 2  # of `SURPRISE_STEPS_PER_BIT`
MOST_POINTS = 512  # of a layer in the saturation chart


@dataclasses.dataclass(frozen=True)
class Subject:
    """Describes what was inspected."""

    name: str  # the name of the run or checkpoint
    checkpoint: str
    step: int
    corpus: str
    corpus_bytes: int  # the size of the whole corpus
    first_byte: int  # where the inspected text starts in the corpus
    versions: dict[str, str]


def window_of(num_bytes: int, num_cells: int, start: int) -> tuple[int, int]:
    """Returns the window for which a page has all cells; it starts at `start` if possible."""
    size = min(num_bytes, max(1024, WINDOW_CELL_BYTES // num_cells))
    start = max(0, min(start, num_bytes - size))
    return start, start + size


def render(
    subject: Subject,
    text: np.ndarray,
    recording: Recording,
    scores: list[Scores],
    window_start: int = 0,
) -> str:
    """Renders the page.

    Args:
      subject: what was inspected.
      text: uint8 [N].
      recording: the recording of that text.
      scores: the scores of the recording's cells, one item for each property.
      window_start: where the window with all cells starts, if possible.
    """
    num_layers, _, _, cells_per_layer = recording.saturation.shape
    num_cells = len(recording.cells)
    window = window_of(len(text), num_cells, window_start)
    traced = _traced(scores, len(text), window)
    properties = [_property(found, cells_per_layer) for found in scores]
    scored = [index for index, found in enumerate(properties) if found["is_scored"]]
    first = max(scored, key=lambda index: properties[index]["auc"], default=None)
    data = {
        "num_bytes": len(text),
        "num_layers": num_layers,
        "cells_per_layer": cells_per_layer,
        "window": window,
        "traced": traced,
        "properties": properties,
        "first_property": first,
        "cell_step": CELL_STEP,
        "probability_steps": PROBABILITY_STEPS,
        "surprise_steps_per_bit": SURPRISE_STEPS_PER_BIT / SURPRISE_STEP,
        "num_blocks": NUM_BLOCKS,
        "least_bytes": LEAST_BYTES,
        "saturation": [_saturation_chart(layer, recording) for layer in range(num_layers)],
    }
    blobs = {
        "text": text,
        "surprise": recording.surprise // SURPRISE_STEP,
        "likeliest": recording.likeliest,
        "probabilities": np.round(recording.probabilities * (PROBABILITY_STEPS / 255)).astype(
            np.uint8
        ),
        "traced": _rounded(recording.cells[traced]),
        "window": _rounded(recording.cells[:, slice(*window)]),
        "scores": _packed_scores(scores),
    }
    best = None if first is None else properties[first]
    whole = subject.corpus_bytes == len(text)
    of_all = "" if whole else f" from byte {subject.first_byte:,} of {subject.corpus_bytes:,}"
    return html.render(
        "inspect.html",
        scripts=SCRIPTS,
        data=data,
        blobs={name: np.ascontiguousarray(content).tobytes() for name, content in blobs.items()},
        name=subject.name,
        corpus=subject.corpus,
        checkpoint=subject.checkpoint,
        step=f"{subject.step:,}",
        num_bytes=f"{len(text):,}",
        of_all=of_all,
        bits_per_byte=recording.bits_per_byte,
        best=best and {"auc": best["auc"], "cell": best["best"], "property": best["name"]},
        window=[f"{place:,}" for place in (window[0], window[1] - 1)],
        num_blocks=NUM_BLOCKS,
        gates=GATES,
        saturation_means=recording.saturation.mean(axis=-1).tolist(),
        versions=", ".join(f"{name} {version}" for name, version in subject.versions.items()),
    )


def cell_name(cell: int, cells_per_layer: int) -> str:
    """Returns `LAYER:CELL`, both counted from 0, for the index of a cell in the whole stack."""
    return f"{cell // cells_per_layer}:{cell % cells_per_layer}"


def _traced(scores: list[Scores], num_bytes: int, window: tuple[int, int]) -> list[int]:
    """Chooses the cells that the page has for the whole text, from each property by turns."""
    if window == (0, num_bytes):
        return []
    room = max(1, TRACED_CELL_BYTES // num_bytes)
    ranks = [found.best(BEST_OF_A_PROPERTY) for found in scores if found.is_scored]
    by_turns = (rank[turn] for turn in range(BEST_OF_A_PROPERTY) for rank in ranks)
    return list(dict.fromkeys(by_turns))[:room]


def _rounded(cells: np.ndarray) -> np.ndarray:
    most = 127 // CELL_STEP
    return np.clip(np.round(cells / np.float32(CELL_STEP)), -most, most).astype(np.int8)


def _packed_scores(scores: list[Scores]) -> np.ndarray:
    """Packs AUCs as int16 [P, C, 2]; in the choosing half, negative for cells that fall."""
    packed = np.zeros((len(scores), len(scores[0].rises), 2), np.int16)
    for index, found in enumerate(scores):
        if found.is_scored:
            sign = np.where(found.rises, 1, -1)
            packed[index, :, 0] = np.round(found.chosen_by * 32767) * sign
            packed[index, :, 1] = np.round(found.held_out * 32767)
    return packed


def _property(found: Scores, cells_per_layer: int) -> dict[str, Any]:
    described: dict[str, Any] = {
        "name": found.property.name,
        "meaning": found.property.meaning,
        "count": int(found.property.holds.sum()),
        "is_scored": found.is_scored,
    }
    for cell in found.best(1):
        described |= {
            "best": cell_name(cell, cells_per_layer),
            "auc": float(found.held_out[cell]),
            "chosen_by": float(found.chosen_by[cell]),
        }
    return described


def _saturation_chart(layer: int, recording: Recording) -> dict[str, Any]:
    shares = np.round(recording.saturation[layer], 4)
    cells_per_layer = shares.shape[-1]
    step = -(-cells_per_layer // MOST_POINTS)
    points = [
        {
            "gate": f"{gate} gate",
            "cell": layer * cells_per_layer + cell,
            "name": f"{layer}:{cell}",
            "left": float(shares[index, 0, cell]),
            "right": float(shares[index, 1, cell]),
        }
        for index, gate in enumerate(GATES)
        for cell in range(0, cells_per_layer, step)
    ]
    return charts.saturation(points)
