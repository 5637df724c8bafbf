"""Answers in the shapes of the OpenAI completions protocol.

A character that is cut in two by the end of a piece waits for its other half. Bytes that are no
UTF-8 are U+FFFD in the text, and exact among the log probabilities.
"""

import codecs
from typing import Any

import numpy as np

from charlstm.data.corpus import Alphabet
from charlstm.serving.sequences import Piece

_LOGPROB_LISTS = ("tokens", "token_logprobs", "top_logprobs", "text_offset", "bytes")


class Choice:
    """One text of an answer, as it comes.

    Args:
      index: its number in the answer.
      alphabet: of the model.
      logprobs: how many of the likeliest bytes to tell; None for no probabilities.
      has_cells: True if the states of cells are told.
      prompt: what the text begins with before any piece; its bytes have no probabilities.
    """

    def __init__(
        self,
        index: int,
        alphabet: Alphabet,
        logprobs: int | None,
        has_cells: bool,
        prompt: bytes = b"",
    ):
        self._index, self._alphabet = index, alphabet
        self._top, self._has_cells, self._prompt = logprobs, has_cells, prompt
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._waiting: dict[str, list[Any]] = {}  # told when the text of these bytes is whole
        self._length = 0  # of the text, in characters
        self._is_first = True

    def add(self, piece: Piece) -> dict[str, Any]:
        """Returns the choice as JSON values, with what is new of it."""
        begins, self._prompt = self._prompt, b""
        text = self._decoder.decode(begins)
        self._length += len(text)
        tells = self._top is not None or self._has_cells
        if tells:
            text += self._told(piece)
        else:
            text += self._decoder.decode(piece.data, final=bool(piece.finish))
        logprobs = None
        if tells:
            held = 0 if piece.finish else len(self._decoder.getstate()[0])
            logprobs = {name: rows[: len(rows) - held] for name, rows in self._waiting.items()}
            self._waiting = {name: rows[len(rows) - held :] for name, rows in self._waiting.items()}
        return {
            "text": text,
            "index": self._index,
            "logprobs": logprobs,
            "finish_reason": piece.finish or None,
        }

    def _told(self, piece: Piece) -> str:
        """Notes what is told of each byte; returns the text that is whole."""
        rows = self._waiting or {name: [] for name in _LOGPROB_LISTS}
        parts = []
        for byte in piece.data:
            rows["tokens"].append(token(byte))
            rows["text_offset"].append(self._length)
            rows["bytes"].append(byte)
            parts.append(self._decoder.decode(bytes([byte])))
            self._length += len(parts[-1])
        if piece.finish:
            parts.append(self._decoder.decode(b"", final=True))
        own, top = self._probabilities(piece)
        rows["token_logprobs"] += own
        rows["top_logprobs"] += top
        if self._has_cells:
            cells = np.zeros((0, 0)) if piece.cells is None else np.tanh(piece.cells)
            rows.setdefault("cells", []).extend(np.round(cells.astype(float), 4).tolist())
        self._waiting = rows
        return "".join(parts)

    def _probabilities(self, piece: Piece) -> tuple[list[float | None], list[Any]]:
        """Returns the log probability of each byte, and of the likeliest bytes at its place."""
        if not piece.data:
            return [], []
        if self._top is None or piece.logits is None:
            return [None] * len(piece.data), [None] * len(piece.data)
        logits = piece.logits.astype(np.float64)
        most = logits.max(axis=1, keepdims=True)
        found = logits - most - np.log(np.exp(logits - most).sum(axis=1, keepdims=True))
        symbols = self._alphabet.encode_table[np.frombuffer(piece.data, np.uint8)]
        chosen = np.take_along_axis(found, symbols[:, None].astype(int), axis=1)[:, 0]
        best = np.argsort(-found, axis=1, kind="stable")[:, : self._top]
        decode = self._alphabet.decode_table
        own: list[float | None] = np.round(chosen, 7).tolist()
        top: list[Any] = []
        for row, likeliest, symbol in zip(found, best, symbols, strict=True):
            told = dict.fromkeys([*likeliest.tolist(), int(symbol)])
            top.append({token(int(decode[one])): round(float(row[one]), 7) for one in told})
        if self._is_first and piece.is_prompt:  # nothing came before it
            own[0] = top[0] = None
        self._is_first = False
        return own, top


def token(byte: int) -> str:
    """Returns a byte as a text: a character of ASCII, or `bytes:` and its escape."""
    return chr(byte) if byte < 0x80 else rf"bytes:\x{byte:02x}"


def merged(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns a whole choice, of the parts that `Choice.add` returned."""
    whole = parts[-1] | {"text": "".join(part["text"] for part in parts)}
    if whole["logprobs"] is not None:
        names = dict.fromkeys(name for part in parts for name in part["logprobs"])
        whole["logprobs"] = {
            name: [row for part in parts for row in part["logprobs"].get(name, [])]
            for name in names
        }
    return whole


def usage(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    """Returns how many bytes were read and made."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }
