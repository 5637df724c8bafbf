"""An inspection: from a checkpoint and a text to a page."""

from collections.abc import Sequence
from pathlib import Path

import jax

from charlstm.checkpoint.reading import name_of, read_best, updates_of
from charlstm.data.corpus import Corpus, load_corpus
from charlstm.data.recorded import open_recorded
from charlstm.errors import UserError
from charlstm.inspection import page, properties, recording, scoring
from charlstm.model.language_model import LanguageModel
from charlstm.pages import html
from charlstm.storage import paths


def inspect(
    checkpoint_path: str,
    corpus: str | None,
    *,
    patterns: Sequence[str],
    max_bytes: int,
    window_start: int,
    output: Path,
) -> list[str]:
    """Writes the page.

    Args:
      checkpoint_path: a run, or one checkpoint.
      corpus: what to read; None for the validation split of the model's own text.
      patterns: regular expressions whose matches cells are searched for.
      max_bytes: read no more than this from the text's start.
      window_start: where the part starts of which the page holds all cells.
      output: the page's file.

    Returns:
      What was found, a line for each property.

    Raises:
      UserError: bad input.
    """
    one_device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    folder, model, metadata = read_best(LanguageModel, checkpoint_path, one_device)
    data = metadata.config.data
    if not data.carry_state:
        raise UserError(
            f"{folder} was trained with data.carry_state=false: its cells forget everything every "
            f"{data.window_length} bytes, and there is nothing to follow; inspect a run that "
            "carries its state"
        )
    if corpus is None:
        opened = open_recorded(data.corpus, metadata.corpus)
        source = Corpus.of(opened, data.valid_size, data.test_size)
        start, stop = source.bounds_of("valid")
    else:  # of a text of one's own nothing is held out, however short it is
        source = load_corpus(corpus, 0, 0)
        start, stop = source.bounds_of("all")
    text = source.data[start : min(stop, start + max_bytes)]
    wanted = properties.properties_of(text, patterns)  # raises for a bad pattern, before long work
    recorded = recording.record(model, text)
    scores = scoring.score(recorded.cells, wanted)
    subject = page.Subject(
        name=name_of(folder),
        checkpoint=paths.shown(folder),
        step=updates_of(folder, metadata),
        corpus=source.name,
        corpus_bytes=len(source.data),
        first_byte=start,
        versions=metadata.versions,
    )
    html.write(output, page.render(subject, text, recorded, scores, window_start - start))
    return [_line(found, model.shape[1]) for found in scores]


def _line(found: scoring.Scores, cells_per_layer: int) -> str:
    name = f"{found.property.name:<18}"
    for cell in found.best(1):
        return (
            f"{name} cell {page.cell_name(cell, cells_per_layer):<8} "
            f"AUC {found.held_out[cell]:.3f} held out"
        )
    return f"{name} too few bytes in the text to tell"
