"""Trains a Keras script's model and lets charlstm score it: bits per byte against seconds.

The script trains in its own interpreter and saves its weights from time to time. They are read as
charlstm's parameters and scored on the whole validation split, like any model.
"""

import dataclasses
import tempfile
from pathlib import Path
from typing import Literal

import jax
import numpy as np

from benchmarks import common
from benchmarks.interleaved import Entry, Outcome, run_interleaved
from charlstm.benchmark.shapes import Shape
from charlstm.config import ModelConfig
from charlstm.data.corpus import Alphabet, Corpus
from charlstm.evaluation.evaluator import Evaluator
from charlstm.model.language_model import LanguageModel
from charlstm.model.network import Network
from charlstm.model.parameters import Params
from charlstm.runtime import meshes
from charlstm.runtime.targets import Target

# Points of (seconds, bits per byte).
Curve = list[tuple[float, float]]


def train(
    entry: Entry,
    shape: Shape,
    kind: Literal["bytes", "corpus"],
    corpus: Corpus,
    num_runs: int,
    run_seconds: int,
) -> tuple[Outcome, Curve]:
    """Trains a script and scores it after each run.

    Args:
      entry: the script.
      shape: the shape of its model; the size of the alphabet is taken from the corpus.
      kind: the kind of its alphabet.
      corpus: the text that it is trained on.
      num_runs: how often it is scored, at least 2.
      run_seconds: the length of a run.
    """
    alphabet = Alphabet.of(kind, corpus.data)
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "symbols"
        text.write_bytes(alphabet.encode(corpus.split("train")).tobytes())
        spec = entry.spec | {
            "shape": dataclasses.replace(shape, num_symbols=alphabet.size).to_json(),
            "text": str(text),
            "snapshots": folder,
        }
        entry = dataclasses.replace(entry, spec=spec, count=run_seconds, warm_up=0)
        # The first run is a warm-up that is not counted, but it trains like the others.
        (outcome,) = run_interleaved([entry], num_runs - 1, 0.0, common.say)
        if not outcome.ok:
            return outcome, []
        kept = sorted(Path(folder).glob("*.npz"), key=lambda path: float(path.stem))
        started = outcome.info["first_update_seconds"]
        params = [params_of(dict(np.load(path))) for path in kept]
        sizes = ModelConfig(num_layers=shape.num_layers, hidden_size=shape.hidden_size)
        bits = _score(params, sizes, corpus, alphabet)
        return outcome, [(started + float(p.stem), b) for p, b in zip(kept, bits, strict=True)]


def params_of(weights: dict[str, np.ndarray]) -> Params:
    """Converts a script's weights to charlstm's parameters.

    Keras orders the gates i, f, c, o, which is charlstm's order too.
    """
    *layers, kernel, bias = weights.values()
    names = ("weight_ih", "weight_hh", "bias")
    stack = {
        str(index): dict(zip(names, layers[3 * index : 3 * index + 3], strict=True))
        for index in range(len(layers) // 3)
    }
    return {"layers": stack, "head": {"kernel": kernel, "bias": bias}}


def _score(
    params: list[Params], sizes: ModelConfig, corpus: Corpus, alphabet: Alphabet
) -> list[float]:
    """Returns the bits per byte of the validation split for each set of parameters."""
    mesh = meshes.make_mesh(jax.device_count())
    network = Network.of(sizes, Target.of_mesh(mesh))
    models = [LanguageModel(each, alphabet, network) for each in params]
    start, stop = corpus.bounds.valid
    with jax.set_mesh(mesh):
        evaluate = Evaluator(models[0], corpus.data, start, stop, mesh)
        whole = meshes.replicated(mesh)
        return [evaluate(model.put(whole)).bits_per_byte for model in models]
