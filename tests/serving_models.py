"""Models to serve, texts that an engine is asked for, and what they have to be, for tests."""

import threading

import jax
import numpy as np

from charlstm.checkpoint.reading import read_best
from charlstm.config import Config
from charlstm.data.corpus import Alphabet
from charlstm.model.language_model import LanguageModel
from charlstm.runtime import meshes
from charlstm.runtime.targets import Target
from charlstm.sampling import texts
from charlstm.sampling.decode import Decoder
from charlstm.sampling.settings import Settings
from charlstm.serving.sequences import Sequence, Wish

SYMBOLS = b"\n abcdefghijklmnopqrstuvwxyz"


def small_model(reset_every=0):
    """An untrained model over the letters, with weights large enough that it has preferences."""
    fields = {
        "model.num_layers": 2,
        "model.hidden_size": 16,
        "model.alphabet": "corpus",
        "model.compute_dtype": "float32",
    }
    config = Config().replace(fields)
    alphabet = Alphabet("corpus", SYMBOLS)
    model = LanguageModel.initialize(config, alphabet, Target.of_this_machine(), seed=3)
    params = jax.tree.map(lambda leaf: 3 * leaf, model.params)
    return model.replace(params=params, reset_every=reset_every)


def shipped_model():
    """The model that comes with charlstm, in bfloat16.

    It is so large that its texts have the same bits at any width, on a CPU with AMX.
    """
    one_device = meshes.replicated(meshes.single_device_mesh())
    _, model, _ = read_best(LanguageModel, "shakespeare", one_device)
    return model.in_dtype("bfloat16")


MODELS = {
    "float32": small_model,
    "resets": lambda: small_model(reset_every=7),
    "bfloat16": shipped_model,
}


class Asked:
    """A text that an engine was asked for.

    Attributes:
      text: the `Sequence`.
      pieces: what has come of it.
    """

    def __init__(self, engine, prompt, num_bytes, is_held_up=lambda: False, **wishes):
        self.pieces, self._ended = [], threading.Event()
        names = {"temperature", "top_k", "top_p"} & wishes.keys()
        settings = {name: wishes.pop(name) for name in names}
        alphabet = engine.model.alphabet
        if not isinstance(prompt, np.ndarray):
            prompt = alphabet.encode(prompt)
        wishes = {"seed": 0, "lane": 0, "is_exact": True} | wishes
        wish = Wish(prompt, Settings(**settings), max_tokens=num_bytes, **wishes)
        self.text = Sequence(wish, alphabet.decode_table, self._listen, is_held_up)

    def _listen(self, piece):
        self.pieces.append(piece)
        if piece.finish or piece.error:
            self._ended.set()

    @property
    def has_ended(self):
        return self._ended.is_set()

    def wait(self):
        """Waits for the end; returns the bytes that were made."""
        assert self._ended.wait(120), self.pieces
        return b"".join(piece.data for piece in self.pieces if not piece.is_prompt)

    @property
    def error(self):
        return self.pieces[-1].error

    def logits(self):
        """Those of the bytes that were made, float32 [n, V]."""
        return np.concatenate([piece.logits for piece in self.pieces if piece.logits is not None])


def ask(engine, prompt, num_bytes, **wishes):
    """Asks an engine for a text."""
    asked = Asked(engine, prompt, num_bytes, **wishes)
    assert engine.submit([asked.text])
    return asked


def sampled(model, prompt, num_bytes, seed=0, count=1, **settings):
    """What `charlstm sample` makes: `count` texts."""
    decoder, loaded = Decoder(count, Settings(**settings)), texts.load(model)
    pieces = decoder(loaded, model.alphabet.encode(prompt), num_bytes, seed)
    rows = np.concatenate(list(pieces), axis=1)
    return [model.alphabet.decode(row) for row in rows]
