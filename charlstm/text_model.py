"""The model that users hold: bytes in, bytes and figures out."""

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import jax
import numpy as np

from charlstm.checkpoint.reading import read_best
from charlstm.errors import UserError
from charlstm.evaluation.evaluator import Evaluator
from charlstm.model.language_model import LanguageModel
from charlstm.model.stack import Carry
from charlstm.runtime import meshes
from charlstm.sampling import prompts, texts
from charlstm.sampling.decode import Decoder, Prefix
from charlstm.sampling.settings import WHOLE, Settings, require

Text = bytes | str  # a str is encoded as UTF-8
State = Prefix

WINDOW_LENGTH = 256  # bytes of which the logits are computed in one call


class Model(LanguageModel):
    """A language model over bytes; see `charlstm.load` and `charlstm.train`.

    It works in scripts, notebooks and threads, on one device, and needs nothing set up. A method
    compiles when it is first called; later calls with the same settings do not.

    The attributes are those of `LanguageModel`: `params`, `alphabet`, `network`, `reset_every`.
    """

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Reads a model from a run folder (its best checkpoint) or from a checkpoint's folder.

        Or from a file of `charlstm export`, or by the name of a model that comes with charlstm.

        Raises:
          UserError: there is no such checkpoint, or it is damaged.
        """
        mesh = meshes.single_device_mesh()
        return read_best(cls, path, meshes.replicated(mesh))[1]

    def logits(self, data: Text) -> np.ndarray:
        """Returns the logits of the next symbol after each byte of a text.

        Args:
          data: N bytes, N ≥ 1; the state before the first of them is zero.

        Returns:
          float32 [N, V]; column v stands for the byte `alphabet.symbols[v]`.

        Raises:
          UserError: the text is empty, or has a byte that the model does not know.
        """
        symbols = self._encode(data)
        length = self.reset_every or WINDOW_LENGTH
        found = []
        with self._on_one_device() as (model, _):
            carry = _zero_carry(model)
            for begin in range(0, len(symbols), length):
                window = symbols[begin : begin + length]
                padded = np.pad(window, (0, length - len(window)))[:, None]
                logits, after = _apply(model, carry, padded)
                found.append(np.asarray(logits)[: len(window), 0])
                carry = _zero_carry(model) if self.reset_every else after
        return np.concatenate(found)

    def bits_per_byte(self, data: Text) -> float:
        """Returns the mean of -log2 of the probability of each byte of a text.

        It is what `charlstm evaluate --corpus` prints: the text begins as if after a line break
        (or the first byte of an alphabet without one), and the state is carried on, or reset, as in
        training.

        Args:
          data: N bytes, N ≥ 1.

        Raises:
          UserError: the text is empty, or has a byte that the model does not know.
        """
        self._encode(data)
        array = np.frombuffer(_as_bytes(data), np.uint8)
        with self._on_one_device() as (model, mesh):
            return Evaluator(model, array, 0, len(array), mesh)(model).bits_per_byte

    def read(self, data: Text, after: State | None = None, *, unknown: str = "error") -> State:
        """Returns the state after a text: a prompt that need not be read again.

        Args:
          data: N bytes, N ≥ 1.
          after: the state to go on from; None for a state of zeros.
          unknown: what becomes of each byte that the model does not know: `error` raises, `skip`
            leaves it out, and any other text takes its place.

        Raises:
          UserError: the text is empty, or has a byte that the model does not know.
        """
        require("unknown", unknown, (str,), lambda _: True, "error, skip or a text")
        symbols = prompts.encode(self.alphabet, _as_bytes(data), unknown)
        with self._on_one_device():
            return Decoder(1, Settings()).read(self._loaded, symbols, after)

    def stream(
        self,
        prompt: Text | State,
        num_bytes: int,
        *,
        temperature: float = 0.8,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int = 0,
        unknown: str = "error",
    ) -> Iterator[bytes]:
        """Yields what follows a prompt, piece by piece, as it is made.

        Args:
          prompt: at least one byte, or a state from `read`, which is left as it is.
          num_bytes: how many bytes to make.
          temperature: the logits are divided by it; 0 takes the likeliest byte each time.
          top_k: draws among the k likeliest bytes only; 0 for all.
          top_p: draws among the likeliest bytes of this total probability only.
          seed: the same seed gives the same text, the one that `charlstm sample` gives.
          unknown: see `read`.

        Raises:
          UserError: the prompt is empty or has a byte that the model does not know, or a setting
            is of the wrong type or out of range.
        """
        settings = Settings(temperature, top_k, top_p)
        require("num_bytes", num_bytes, WHOLE, lambda v: v >= 0, "a whole number of 0 or more")
        require("seed", seed, WHOLE, lambda v: 0 <= v < 2**32, f"a whole number below {2**32}")
        state = prompt if isinstance(prompt, Prefix) else self.read(prompt, unknown=unknown)
        return self._draw(state, num_bytes, settings, seed)

    def generate(self, prompt: Text | State, num_bytes: int, **settings: Any) -> bytes:
        """Returns the bytes that follow a prompt; the arguments are those of `stream`."""
        return b"".join(self.stream(prompt, num_bytes, **settings))

    def _draw(self, state: State, num_bytes: int, settings: Settings, seed: int) -> Iterator[bytes]:
        pieces = Decoder(1, settings).draw(self._loaded, state, num_bytes, seed)
        while True:
            # The mesh is in force while a piece is made, and not in the caller's own code.
            with self._on_one_device():
                piece = next(pieces, None)
            if piece is None:
                return
            yield self.alphabet.decode(piece[0])

    def _encode(self, data: Text) -> np.ndarray:
        return self.alphabet.encode(_as_bytes(data))

    @functools.cached_property
    def _placed(self) -> tuple[LanguageModel, jax.sharding.Mesh]:
        """The model with its parameters on one device, and the mesh of that device."""
        device = min(jax.tree.leaves(self.params)[0].devices(), key=lambda device: device.id)
        mesh = meshes.single_device_mesh(device)
        return self.put(meshes.replicated(mesh)), mesh

    @functools.cached_property
    def _loaded(self) -> texts.Loaded:
        with self._on_one_device() as (model, _):
            return texts.load(model)

    @contextlib.contextmanager
    def _on_one_device(self) -> Iterator[tuple[LanguageModel, jax.sharding.Mesh]]:
        model, mesh = self._placed
        with jax.set_mesh(mesh), jax.transfer_guard("allow"):
            yield model, mesh


jax.tree_util.register_dataclass(
    Model, data_fields=["params"], meta_fields=["alphabet", "network", "reset_every"]
)


load = Model.load


def _as_bytes(data: Text) -> bytes:
    try:
        found = data.encode() if isinstance(data, str) else bytes(memoryview(data))
    except TypeError as error:
        raise UserError(f"a text is bytes or a str, not {type(data).__name__}") from error
    if not found:
        raise UserError("the text is empty: give at least one byte, such as a line break")
    return found


@jax.jit
def _zero_carry(model: LanguageModel) -> Carry:
    return model.zero_carry(1)


@jax.jit
def _apply(model: LanguageModel, carry: Carry, symbols: jax.Array) -> tuple[jax.Array, Carry]:
    return model.apply(carry, symbols)
