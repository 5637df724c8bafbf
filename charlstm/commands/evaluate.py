"""Bits per byte of a text under a checkpoint, next to the text's n-gram levels.

charlstm evaluate --checkpoint=runs/quickstart --split=test
charlstm evaluate --checkpoint=runs/quickstart --corpus=my.txt
charlstm evaluate --checkpoint=runs/quickstart --temperature=fit --dynamic
"""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from absl import flags, logging

from charlstm.commands import _checkpoint, _flags, _shared
from charlstm.data.corpora import open_corpus
from charlstm.data.corpus import Corpus
from charlstm.data.ngrams import NgramLevel, cached_ngram_levels, order_name
from charlstm.data.recorded import open_recorded
from charlstm.errors import UserError
from charlstm.runtime.names import printable
from charlstm.storage import paths

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
_TEMPERATURE = flags.DEFINE_string(
    "temperature", None, "Divides the logits; fit: as suits the validation split best."
)
_WARM_UP = flags.DEFINE_integer(
    "warm_up", None, "Bytes that are read, unscored, before each part of the text; 256 by default."
)
_JSON = flags.DEFINE_boolean("json", False, "Print one JSON object.")

_DYNAMIC = flags.DEFINE_boolean(
    "dynamic", False, "Score the text by dynamic evaluation too: learning from it as it is read."
)
_DYNAMIC_RULE = flags.DEFINE_enum(
    "dynamic_rule",
    "rms",
    ["rms", "sgd"],
    "How it learns (Krause et al. 2018).",
)
_DYNAMIC_SEGMENT = flags.DEFINE_integer("dynamic_segment", None, "Bytes between gradient steps.")
_DYNAMIC_LEARNING_RATE = _flags.define_number(
    "dynamic_learning_rate", None, "Step size; 1e-3 for rms and 0.1 for sgd by default."
)
_DYNAMIC_DECAY = _flags.define_number(
    "dynamic_decay", None, "Pull towards the trained weights, at each step; 1e-3 by default."
)
_DYNAMIC_EPSILON = _flags.define_number(
    "dynamic_epsilon", None, "rms: what is added to its gradient sizes, as a share of their mean."
)


STATIC, DYNAMIC = "charlstm", "charlstm, dynamic"


@dataclasses.dataclass(frozen=True)
class Result:
    """The scores of a part of a text.

    Attributes:
      checkpoint: the folder of the model.
      corpus: the name of the text.
      split: the part of it.
      scores: a `Tempered` for each way of scoring.
      levels: n-gram levels to hold them against.
      levels_of: in words, how the levels came about.
      diagnoses: what is wrong with the model.
      rule: of dynamic evaluation, where that is one of the ways.
    """

    checkpoint: Path
    corpus: str
    split: str
    scores: dict[str, Any]
    levels: list[NgramLevel]
    levels_of: str
    diagnoses: list[Any]
    rule: Any

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON values."""
        static = self.scores[STATIC]
        found = {
            "checkpoint": paths.shown(self.checkpoint),
            "corpus": self.corpus,
            "split": self.split,
            **static.to_json(),
            "num_bytes": static.score.num_bytes,
            "ngram_levels": [dataclasses.asdict(level) for level in self.levels],
            "ngram_levels_of": self.levels_of,
            "diagnoses": [diagnosis.to_json() for diagnosis in self.diagnoses],
        }
        if DYNAMIC in self.scores:
            rule = {"rule": dataclasses.asdict(self.rule)}
            found["dynamic"] = self.scores[DYNAMIC].to_json() | rule
        return found

    def lines(self) -> Iterator[str]:
        """Yields lines for people to read."""
        num_bytes = self.scores[STATIC].score.num_bytes
        checkpoint = paths.shown(self.checkpoint)
        yield f"{self.corpus}, {self.split}: {num_bytes:,} bytes, checkpoint {checkpoint}"
        yield f"{'':<26}{'bits/byte':>10}{'nats':>8}{'accuracy':>10}"
        rows: list[tuple[str, Any]] = []
        for name, scored in self.scores.items():
            rows.append((name, scored.plain))
            if scored.temperature != 1:
                rows.append((f"  temperature {scored.temperature:g}", scored.score))
        rows += [(order_name(level.order), level) for level in self.levels]
        for name, row in rows:
            yield f"{name:<26}{row.bits_per_byte:>10.4f}{row.nats:>8.4f}{row.accuracy:>10.1%}"
        for name, scored in self.scores.items():
            if scored.on_valid is not None:
                yield (
                    f"{name}: temperature {scored.temperature:g} chosen on valid, where it reaches "
                    f"{scored.on_valid:.4f} bits per byte"
                )
        yield f"n-gram levels: {self.levels_of}"
        for diagnosis in self.diagnoses:
            yield f"diagnosis: {diagnosis.code}: {diagnosis.message}"


def main(argv: Sequence[str]) -> None:
    """Evaluates as the flags say."""
    _shared.no_more_arguments(argv)
    checkpoint_path = _checkpoint.required()
    if _WARM_UP.value is not None and _WARM_UP.value < 0:
        raise UserError(f"--warm_up={_WARM_UP.value} must be 0 or more")
    import jax

    from charlstm.checkpoint.reading import read_best
    from charlstm.evaluation import temperature
    from charlstm.evaluation.evaluator import Evaluation, Evaluator
    from charlstm.evaluation.rows import WARM_UP
    from charlstm.model.language_model import LanguageModel
    from charlstm.runtime import meshes
    from charlstm.training.diagnosis.probing import make_probe, overfitted, unused
    from charlstm.training.metrics_file import plain

    wanted = temperature.parse(_TEMPERATURE.value or "1")  # None: to be found
    warm_up = WARM_UP if _WARM_UP.value is None else _WARM_UP.value
    mesh = meshes.make_mesh(jax.device_count())
    folder, model, metadata = read_best(LanguageModel, checkpoint_path, meshes.replicated(mesh))
    corpus, is_own = _corpus(metadata)
    split = _SPLIT.value or ("valid" if is_own else "all")
    bounds = corpus.bounds_of(split)
    if model.reset_every and (_DYNAMIC.value or _WARM_UP.value is not None):
        flag = "--dynamic" if _DYNAMIC.value else "--warm_up"
        raise UserError(f"{flag} carries a state on and {folder} has data.carry_state=false")
    rule = _rule() if _DYNAMIC.value else None
    levels, levels_of = _levels(corpus, split)

    valid = corpus.bounds_of("valid") if wanted is None else bounds
    scores: dict[str, temperature.Tempered] = {}

    def score(name: str, scorer: temperature.Scorer) -> None:
        scores[name] = temperature.tempered(scorer, bounds, valid, wanted)

    with jax.set_mesh(mesh):

        def static(bounds: tuple[int, int], temperatures: Sequence[float]) -> list[Evaluation]:
            evaluator = Evaluator(model, corpus.data, *bounds, mesh, warm_up=warm_up)
            return evaluator.at_temperatures(model, temperatures)

        score(STATIC, static)
        bits = scores[STATIC].plain.bits_per_byte
        probe = make_probe(model, corpus.data, bounds, mesh)
        diagnoses = [*unused(levels, bits, probe, model), *overfitted(folder)]
    if rule is not None:
        learner = _learner(rule, model, metadata, corpus if is_own else None)
        score(
            DYNAMIC,
            lambda bounds, temperatures: learner(corpus.data, *bounds, temperatures, warm_up),
        )
    result = Result(folder, corpus.name, split, scores, levels, levels_of, diagnoses, rule)
    lines = "\n".join(result.lines())
    print(json.dumps(plain(result.to_json())) if _JSON.value else printable(lines))


def _corpus(metadata: Any) -> tuple[Corpus, bool]:
    """Returns the text to evaluate, and True if it is the one that the model was trained on."""
    data, recorded = metadata.config.data, metadata.corpus
    if _CORPUS.value is None:
        return _own_corpus(metadata), True
    source = open_corpus(_CORPUS.value)
    if source.sha256 == recorded["sha256"]:  # the very splits that the model was trained with
        return Corpus.of(source, data.valid_size, data.test_size), True
    if source.path and source.path == recorded.get("source"):
        logging.warning("%s has changed since the model was trained on it", source.name)
    return Corpus.of(source, _OTHER_TEXT_SPLIT, _OTHER_TEXT_SPLIT), False


def _own_corpus(metadata: Any) -> Corpus:
    """Returns the text that the model was trained on."""
    data = metadata.config.data
    source = open_recorded(data.corpus, metadata.corpus)
    return Corpus.of(source, data.valid_size, data.test_size)


def _rule() -> Any:
    """Returns the rule of dynamic evaluation that the flags ask for."""
    from charlstm.evaluation.dynamic import DEFAULTS

    given = {
        "segment": _DYNAMIC_SEGMENT.value,
        "learning_rate": _DYNAMIC_LEARNING_RATE.value,
        "decay": _DYNAMIC_DECAY.value,
        "epsilon": _DYNAMIC_EPSILON.value,
    }
    given = {name: value for name, value in given.items() if value is not None}
    return dataclasses.replace(DEFAULTS[_DYNAMIC_RULE.value], **given)


def _learner(rule: Any, model: Any, metadata: Any, own: Corpus | None) -> Any:
    """Returns what scores while it learns.

    Args:
      rule: of `_rule`.
      model: the trained one.
      metadata: of its checkpoint.
      own: the text that it was trained on, if it is at hand.
    """
    import jax

    from charlstm.evaluation.dynamic import DynamicEvaluator

    if own is None and rule.kind == "rms":
        try:
            own = _own_corpus(metadata)
        except UserError as error:
            raise UserError(
                f"--dynamic_rule=rms needs {metadata.corpus['name']}, the text that the model was "
                "trained on, and it is not found: bring it back, or use --dynamic_rule=sgd"
            ) from error
    training = None if own is None else own.split("train")
    one_device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return DynamicEvaluator(model.put(one_device), rule, training)


def _levels(corpus: Corpus, split: str) -> tuple[list[NgramLevel], str]:
    """Returns n-gram levels to compare a score with, and in words how they came about."""
    scored = split if split in ("valid", "test") else "valid"
    if corpus.bounds.valid[0] == corpus.bounds.valid[1]:
        return [], "none, the text is too short"
    levels = cached_ngram_levels(corpus, scored)
    part = ""
    if levels[0].fit_bytes < corpus.bounds.train[1]:
        part = f"{levels[0].fit_bytes:,} bytes of "
    return levels, f"counted on {part}its training split, scored on {scored}"
