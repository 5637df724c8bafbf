"""One text that a server is asked for: its prompt, how it goes on, and what has come of it."""

import dataclasses
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from charlstm.sampling.settings import Settings
from charlstm.serving.prompt_cache import Column

LENGTH, STOP = "length", "stop"  # the reasons why a text ends, in the protocol's words


class Piece(NamedTuple):
    """Holds what is new of a text.

    Attributes:
      data: its bytes.
      logits: [n, V] float32, before each byte; None if they are not wanted.
      cells: [n, M] float32, the states c of the wanted cells after each byte; None if there are
        none.
      is_prompt: True if these are bytes of the prompt.
      finish: why the text ends here: `length` or `stop`; empty if it goes on.
      error: why the text could not be finished; empty if all is well.
      is_late: True if that is for want of time.
    """

    data: bytes
    logits: np.ndarray | None = None
    cells: np.ndarray | None = None
    is_prompt: bool = False
    finish: str = ""
    error: str = ""
    is_late: bool = False

    @property
    def num_bytes(self) -> int:
        """Its size in memory."""
        arrays = [part for part in (self.logits, self.cells) if part is not None]
        return len(self.data) + sum(array.nbytes for array in arrays)


@dataclasses.dataclass(frozen=True)
class Wish:
    """Says what is wanted of a text.

    Attributes:
      prompt: uint8 [P], symbols; P ≥ 1. Texts that begin alike had best share one array.
      settings: how symbols are drawn.
      seed: of the random numbers.
      lane: which of the texts of this seed it is.
      max_tokens: how many bytes to make.
      stops: byte strings that end the text; they are left out.
      cells: the cells to record, counted through all layers.
      logits: True if they are wanted.
      of_prompt: True if logits and cells of the prompt's bytes are wanted too.
      is_exact: True if the same seed has to give the same text.
      streams: True if it is sent as it is made, so that the first bytes are wanted soon.
      seconds: after which it is given up.
    """

    prompt: np.ndarray
    settings: Settings
    seed: int
    lane: int
    max_tokens: int
    stops: tuple[bytes, ...] = ()
    cells: tuple[int, ...] = ()
    logits: bool = False
    of_prompt: bool = False
    is_exact: bool = False
    streams: bool = False
    seconds: float = 600.0


class Sequence:
    """A text in the making; it belongs to the engine's thread but for `cancel`.

    Args:
      wish: what is wanted.
      alphabet: symbols to bytes, uint8 [V].
      listener: is called with each `Piece`, in the engine's thread.
      is_held_up: returns True while too much of it is unread: then it is not advanced.
    """

    def __init__(
        self,
        wish: Wish,
        alphabet: np.ndarray,
        listener: Callable[[Piece], None],
        is_held_up: Callable[[], bool] = lambda: False,
    ):
        self.wish = wish
        self.asked_at = time.monotonic()
        self.num_read = 0  # of the prompt
        self.num_drawn = 0
        self.remembered = 0  # the length of what was last put into the prompt cache
        self.column: Column | None = None  # what the model knows of it, while it has no place
        self.is_awaited = False  # True if others wait until its prompt was read
        self.is_cancelled = False
        self.is_held_up = is_held_up
        self._alphabet, self._listener = alphabet, listener
        self._symbols: list[np.ndarray] = []
        self._text = bytearray()  # what was made
        self._sent = 0  # of it
        self._records: list[tuple[np.ndarray, ...]] = []  # of what was not sent yet
        self._longest_stop = max(map(len, wish.stops), default=0)

    @property
    def prompt_left(self) -> int:
        """The number of bytes of the prompt that are unread."""
        return len(self.wish.prompt) - self.num_read

    @property
    def draws_left(self) -> int:
        """The number of bytes that are still to be made."""
        return self.wish.max_tokens - self.num_drawn

    @property
    def is_late(self) -> bool:
        """True if it has taken longer than its wish allows."""
        return time.monotonic() > self.asked_at + self.wish.seconds

    @property
    def records(self) -> bool:
        """True if the next time steps are to be recorded."""
        return self.wish.logits or bool(self.wish.cells)

    @property
    def length(self) -> int:
        """The number of symbols that the model has read of it."""
        return self.num_read + self.num_drawn

    def cancel(self) -> None:
        """Gives the text up: its place is free from the next chunk on."""
        self.is_cancelled = True

    def fail(self, reason: str, is_late: bool = False) -> None:
        """Tells the listener that there will be no more; see `Piece`."""
        self._listener(Piece(b"", error=reason, is_late=is_late))

    def symbols(self) -> np.ndarray:
        """Returns all symbols that the model has read of this text, uint8."""
        return np.concatenate([self.wish.prompt[: self.num_read], *self._symbols])

    def take(self, read: np.ndarray, logits: np.ndarray | None, cells: np.ndarray | None) -> bool:
        """Takes what the model has read in a chunk; returns True if the text has ended.

        Args:
          read: uint8 [n], symbols: first those of the prompt, then those drawn.
          logits, cells: of these time steps, [n, V] and [n, M], if they were recorded.
        """
        of_prompt = min(self.prompt_left, len(read))
        self.num_read += of_prompt
        if of_prompt and self.wish.of_prompt:
            kept = self._kept(slice(0, of_prompt), logits, cells)
            self._listener(Piece(self._decode(read[:of_prompt]), *kept, is_prompt=True))
        drawn = read[of_prompt : of_prompt + self.draws_left]
        if len(drawn):
            place = slice(of_prompt, of_prompt + len(drawn))
            if self._take_drawn(drawn, *self._kept(place, logits, cells)):
                return True
        if self.prompt_left == 0 and self.draws_left == 0:
            self._send(len(self._text), LENGTH)
            return True
        self._send(len(self._text) - self._held(), "")
        return False

    def _take_drawn(
        self, drawn: np.ndarray, logits: np.ndarray | None, cells: np.ndarray | None
    ) -> bool:
        """Takes symbols that were drawn; returns True if they have a stop, which ends the text."""
        self.num_drawn += len(drawn)
        self._symbols.append(drawn.copy())  # a view would keep the whole chunk
        self._text += self._decode(drawn)
        parts = [part for part in (logits, cells) if part is not None]
        self._records += list(zip(*parts, strict=True))
        stopped_at = self._stopped_at(len(drawn))
        if stopped_at < 0:
            return False
        del self._text[stopped_at:]
        self._send(len(self._text), STOP)
        return True

    def _kept(
        self, place: slice, logits: np.ndarray | None, cells: np.ndarray | None
    ) -> tuple[np.ndarray | None, np.ndarray | None]:
        wish = self.wish
        return (
            logits[place].copy() if wish.logits and logits is not None else None,
            cells[place, : len(wish.cells)].copy() if wish.cells and cells is not None else None,
        )

    def _decode(self, symbols: np.ndarray) -> bytes:
        return self._alphabet[symbols].tobytes()

    def _stopped_at(self, num_new: int) -> int:
        """Returns where the stop begins that is complete first, the longest if there are several.

        That is how it would be if the bytes came one by one. It is -1 if what is new has none.
        """
        begin = max(0, len(self._text) - num_new - self._longest_stop + 1)
        found = [
            (place + len(stop), place)
            for stop in self.wish.stops
            if (place := self._text.find(stop, begin)) >= 0
        ]
        return min(found)[1] if found else -1

    def _held(self) -> int:
        """Returns how many bytes at the end may be the beginning of a stop."""
        longest = 0
        for stop in self.wish.stops:
            tail = bytes(self._text[max(self._sent, len(self._text) - len(stop) + 1) :])
            begin = tail.find(stop[:1])  # only there can a stop begin
            while begin >= 0 and not stop.startswith(tail[begin:]):
                begin = tail.find(stop[:1], begin + 1)
            longest = max(longest, len(tail) - begin if begin >= 0 else 0)
        return longest

    def _send(self, until: int, finish: str) -> None:
        data = bytes(self._text[self._sent : until])
        if not data and not finish:
            return
        rows, self._records = self._records[: len(data)], self._records[len(data) :]
        self._sent = until
        parts = iter(np.stack(part) for part in zip(*rows, strict=True))
        logits = next(parts, None) if self.wish.logits else None
        cells = next(parts, None) if self.wish.cells else None
        self._listener(Piece(data, logits, cells, finish=finish))
