"""Answers in the shapes of the OpenAI completions protocol.

A character that is cut in two by the end of a piece waits for its other half. Bytes that are no
UTF-8 are U+FFFD in the text, and exact among the log probabilities.
"""

import codecs
import json
from collections.abc import Sequence
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
        names = (*_LOGPROB_LISTS, "cells") if has_cells else _LOGPROB_LISTS
        self._told: dict[str, list[Any]] = {name: [] for name in names}
        self._length = 0  # of the text, in characters
        self._is_first = True

    def add(self, piece: Piece) -> dict[str, Any]:
        """Returns the choice as JSON values, with what is new of it."""
        begins, self._prompt = self._prompt, b""
        text = self._decode(begins)
        logprobs = None
        if self._top is None and not self._has_cells:
            text += self._decode(piece.data, bool(piece.finish))
        else:
            text += self._tell(piece)
            logprobs = self._whole(bool(piece.finish))
        return {
            "text": text,
            "index": self._index,
            "logprobs": logprobs,
            "finish_reason": piece.finish or None,
        }

    def _decode(self, data: bytes, final: bool = False) -> str:
        text = self._decoder.decode(data, final)
        self._length += len(text)
        return text

    @property
    def _cut(self) -> bytes:
        """The bytes that wait for the rest of their character."""
        return self._decoder.getstate()[0]

    def _tell(self, piece: Piece) -> str:
        """Notes what is told of each byte; returns the text that is whole."""
        told, parts = self._told, []
        for byte in piece.data:
            # Its character is the last one of the text that ends with it.
            behind = (self._cut + bytes([byte])).decode(errors="replace")
            told["text_offset"].append(self._length + len(behind) - 1)
            told["tokens"].append(token(byte))
            told["bytes"].append(byte)
            parts.append(self._decode(bytes([byte])))
        if piece.finish:
            parts.append(self._decode(b"", final=True))
        own, top = self._probabilities(piece)
        told["token_logprobs"] += own
        told["top_logprobs"] += top
        if piece.cells is not None:
            told["cells"] += np.round(np.tanh(piece.cells).astype(float), 4).tolist()
        return "".join(parts)

    def _whole(self, is_end: bool) -> dict[str, list[Any]]:
        """Returns what was noted of the bytes whose characters are whole, and forgets it."""
        count = len(self._told["bytes"]) - (0 if is_end else len(self._cut))
        whole = {name: rows[:count] for name, rows in self._told.items()}
        self._told = {name: rows[count:] for name, rows in self._told.items()}
        return whole

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
        best = _likeliest(found, self._top)
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


class Whole:
    """One text of an answer that is sent at once.

    What is told of its bytes is kept as JSON: as Python objects it would take ten times as much.
    """

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._lists: dict[str, list[str]] = {}
        self._last: dict[str, Any] = {}

    def add(self, part: dict[str, Any]) -> None:
        """Takes what `Choice.add` returned."""
        self._texts.append(part["text"])
        for name, rows in (part["logprobs"] or {}).items():
            known = self._lists.setdefault(name, [])
            if rows:
                known.append(json.dumps(rows)[1:-1])
        self._last = part

    def json(self) -> str:
        """Returns the whole choice as JSON."""
        whole = self._last | {"text": "".join(self._texts)}
        if not self._lists:
            return json.dumps(whole)
        del whole["logprobs"]
        lists = (f'"{name}": [{", ".join(parts)}]' for name, parts in self._lists.items())
        return f'{json.dumps(whole)[:-1]}, "logprobs": {{{", ".join(lists)}}}}}'


def _likeliest(values: np.ndarray, count: int) -> np.ndarray:
    """Returns the columns of the largest values of each row, [n, count], the largest first."""
    if count < values.shape[1]:
        columns = np.argpartition(values, -count - 1, axis=1)[:, values.shape[1] - count :]
    else:
        columns = np.tile(np.arange(values.shape[1]), (len(values), 1))
    order = np.argsort(-np.take_along_axis(values, columns, axis=1), axis=1, kind="stable")
    return np.take_along_axis(columns, order, axis=1)


def token(byte: int) -> str:
    """Returns a byte as a text: a character of ASCII, or `bytes:` and its escape."""
    return chr(byte) if byte < 0x80 else rf"bytes:\x{byte:02x}"


def whole_answer(head: dict[str, Any], choices: Sequence[Whole], usage: dict[str, int]) -> bytes:
    """Returns an answer that is sent at once, as JSON."""
    parts = ", ".join(choice.json() for choice in choices)
    begin = json.dumps(head)[:-1]
    return f'{begin}, "choices": [{parts}], "usage": {json.dumps(usage)}}}'.encode()


def usage(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    """Returns how many bytes were read and made."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }
