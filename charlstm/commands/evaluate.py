"""Bits per byte of a text under a checkpoint, next to the text's n-gram levels.

charlstm evaluate --checkpoint=runs/quickstart --split=test
charlstm evaluate --checkpoint=runs/quickstart --corpus=my.txt
"""

import dataclasses
import json
from collections.abc import Sequence

from absl import flags, logging

from charlstm.commands import _shared
from charlstm.data.corpus import Corpus, load_corpus, split_bounds
from charlstm.data.ngrams import NgramLevel, cached_ngram_levels, order_name

_CORPUS = flags.DEFINE_string(
    "corpus", None, "Text to evaluate; if not given, the one that the model was trained on."
)
_SPLIT = flags.DEFINE_enum(
    "split",
    None,
    ["train", "valid", "test", "all"],
    "Part of the text; valid if not given, and all of a --corpus of your own.",
)
# How a text that the model was not trained on is split, for its n-gram levels.
_OTHER_TEXT_SPLIT = 0.05
_JSON = flags.DEFINE_boolean("json", False, "Print one JSON object.")


def main(argv: Sequence[str]) -> None:
    """Evaluates as the flags say."""
    _shared.no_more_arguments(argv)
    checkpoint_path = _shared.require_checkpoint()
    import jax

    from charlstm import distributed
    from charlstm.training import checkpoint
    from charlstm.training.evaluation import Evaluator
    from charlstm.training.program import dtype_of, recurrence_of

    folder = checkpoint.resolve(checkpoint_path)
    metadata = checkpoint.read_metadata(folder)
    config = metadata.config
    sizes = _OTHER_TEXT_SPLIT, _OTHER_TEXT_SPLIT
    corpus = load_corpus(_CORPUS.value or config.data.corpus, *sizes)
    is_own = corpus.sha256 == metadata.corpus["sha256"]
    if is_own:  # the very splits that the model was trained with
        data = config.data
        bounds = split_bounds(len(corpus.data), data.valid_size, data.test_size)
        corpus = dataclasses.replace(corpus, bounds=bounds)
    elif _CORPUS.value is None:
        logging.warning("the text has changed since the model was trained on it")
    split = _SPLIT.value or ("valid" if is_own else "all")
    start, stop = corpus.bounds_of(split)

    mesh = distributed.make_mesh(jax.device_count())
    with jax.set_mesh(mesh):
        evaluator = Evaluator(
            corpus.data,
            start,
            stop,
            metadata.alphabet,
            mesh,
            compute_dtype=dtype_of(config.model),
            recurrence_name=recurrence_of(config.model),
            reset_every=config.data.reset_every,
        )
        params = checkpoint.read_params(folder, metadata, distributed.replicated(mesh))
        result = evaluator(params)
    levels, how = _levels(corpus, split)
    if _JSON.value:
        print(
            json.dumps(
                {
                    "checkpoint": str(folder),
                    "corpus": corpus.name,
                    "split": split,
                    "bits_per_byte": result.bits_per_byte,
                    "nats": result.nats,
                    "accuracy": result.accuracy,
                    "num_bytes": result.num_bytes,
                    "ngram_levels": [dataclasses.asdict(level) for level in levels],
                    "ngram_levels_of": how,
                }
            )
        )
        return
    print(f"{corpus.name}, {split}: {result.num_bytes:,} bytes, checkpoint {folder}")
    rows = [(f"{order_name(level.order)}", level) for level in levels]
    print(f"{'':<18}{'bits/byte':>10}{'nats':>8}{'accuracy':>10}")
    print(
        f"{'charlstm':<18}{result.bits_per_byte:>10.4f}{result.nats:>8.4f}{result.accuracy:>10.1%}"
    )
    for name, level in rows:
        print(f"{name:<18}{level.bits_per_byte:>10.4f}{level.nats:>8.4f}{level.accuracy:>10.1%}")
    print(f"n-gram levels: {how}")


def _levels(corpus: Corpus, split: str) -> tuple[list[NgramLevel], str]:
    """N-gram levels to hold a score against, and in words how they came about."""
    scored = split if split in ("valid", "test") else "valid"
    if corpus.bounds.valid[0] == corpus.bounds.valid[1]:
        return [], "none, the text is too short"
    levels = cached_ngram_levels(corpus, scored)
    part = ""
    if levels[0].fit_bytes < corpus.bounds.train[1]:
        part = f"{levels[0].fit_bytes:,} bytes of "
    return levels, f"counted on {part}its training split, scored on {scored}"
