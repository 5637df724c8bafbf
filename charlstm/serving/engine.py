"""The engine: texts join a batch and leave it between chunks; a thread of its own runs it."""

import dataclasses
import threading
import time
from collections.abc import Callable

import numpy as np
from absl import logging

from charlstm.model.language_model import LanguageModel
from charlstm.sampling.settings import Settings
from charlstm.sampling.texts import Draws, Given, Texts
from charlstm.serving.batches import MOST_CELLS, WIDTHS, Programs, nothing_given
from charlstm.serving.prompt_cache import Column, PromptCache
from charlstm.serving.sequences import Sequence

# How long a chunk takes; so long a new text may wait until it joins.
CHUNK_SECONDS = 0.04
# Among so few texts a chunk ends where one of them does, and the first bytes come at once.
FEW = 8
FIRST_BYTES = 4
# A text of fewer bytes is not worth remembering.
LEAST_REMEMBERED = 64
# Chunks that a batch must be too wide for before it is made narrower.
PATIENCE = 4
# Texts that are advanced each by itself, for they must be exact and share no batch.
MOST_ALONE = 8


@dataclasses.dataclass
class Counts:
    """What an engine has done, and does now; read by other threads."""

    bytes_read: int = 0  # of prompts
    bytes_remembered: int = 0  # of prompts, whose states were known
    bytes_made: int = 0
    chunks: int = 0
    chunk_seconds: float = 0.0
    active: int = 0
    width: int = 0
    cache_bytes: int = 0


class _Batch:
    """Texts that are advanced together, and how each of them is."""

    def __init__(self, width: int, placed: Texts):
        self.width, self.placed = width, placed
        self.num_too_wide = 0
        self.fill([])

    def fill(self, texts: list[Sequence]) -> None:
        """Gives the first columns to texts; the others are empty."""
        width = self.width
        self.num_too_wide = 0
        self.columns: list[Sequence | None] = [*texts, *[None] * (width - len(texts))]
        self.draws = Draws.alike(width, Settings(), 0)
        self.cells = np.zeros((MOST_CELLS, width), np.int32)
        for index, text in enumerate(texts):
            wish = text.wish
            own = Draws.alike(1, wish.settings, wish.seed)
            for array, value in zip(self.draws, own, strict=True):
                array[index] = value[0]
            self.draws.lane[index] = wish.lane
            self.cells[: len(wish.cells), index] = wish.cells

    @property
    def present(self) -> list[tuple[int, Sequence]]:
        """The texts with the indices of their columns."""
        return [(index, text) for index, text in enumerate(self.columns) if text is not None]

    def given(self, num_steps: int) -> Given:
        """Returns what the texts read in the next time steps."""
        given = nothing_given(self.width)
        for index, text in self.present:
            begin = text.num_read
            symbols = text.wish.prompt[begin : begin + num_steps]
            given.symbols[: len(symbols), index] = symbols
            given.count[index], given.num_drawn[index] = len(symbols), text.num_drawn
        return given


class Engine:
    """Makes texts with one model.

    Args:
      model: the model.
      max_batch: how many texts side by side, at most.
      cache_bytes: of the prompts' states that are kept.
    """

    def __init__(self, model: LanguageModel, *, max_batch: int, cache_bytes: int):
        self.model, self.counts = model, Counts()
        self._max_batch = max_batch
        self._cache = PromptCache(cache_bytes)
        self._waiting: list[Sequence] = []  # guarded by `_wake`
        self._left: list[Sequence] = []  # of those, for want of a place
        self._wake = threading.Condition()
        self._stops = False
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._compiler = threading.Thread(target=self._compile_others, name="compiler", daemon=True)
        self._batches: list[_Batch] = []  # the shared one first, then those of a single text
        self._is_exact = False
        self._step_seconds: dict[int, float] = {}

    def start(self, on_ready: Callable[[], None] = lambda: None) -> None:
        """Starts to compile; `on_ready` is called, in the engine's thread, when texts can come."""
        self._on_ready = on_ready
        self._thread.start()

    @property
    def is_ready(self) -> bool:
        """True once texts are made without a wait for compilation."""
        return self._ready.is_set()

    @property
    def has_failed(self) -> bool:
        """True if its thread has ended in an error."""
        return self._failure is not None

    @property
    def num_waiting(self) -> int:
        """How many texts wait for a place."""
        return len(self._waiting) + len(self._left)

    def submit(self, texts: list[Sequence]) -> None:
        """Takes texts to be made."""
        with self._wake:
            self._waiting.extend(texts)
            self._wake.notify()

    def stop(self) -> None:
        """Ends the thread when all texts are made."""
        with self._wake:
            self._stops = True
            self._wake.notify()

    def join(self) -> None:
        """Waits for the end of its threads: a process must not end while one of them compiles."""
        for thread in (self._thread, self._compiler):
            if thread.ident is not None:
                thread.join()

    def _run(self) -> None:
        try:
            self._prepare()
            while self._wait():
                self._admit()
                for batch in list(self._batches):
                    self._advance(batch)
        except BaseException as error:
            self._failure = error
            logging.exception("the engine has failed")
            for text in [*self._all_active(), *self._take_waiting()]:
                text.fail("the server has failed; its log says why")

    def _prepare(self) -> None:
        self._programs = Programs(self.model, self._max_batch)
        for width in self._programs.widths:
            self._programs.compile(width, records=False, filters=False)
            self._step_seconds[width] = self._programs.seconds_per_step(width)
        self._is_exact = self._programs.agree()
        first = self._programs.widths[0]
        self._batches = [_Batch(first, self._programs.place([], first))]
        self._ready.set()
        self._on_ready()
        self._compiler.start()

    def _compile_others(self) -> None:
        """Compiles what only some requests need, so that they need not wait for it."""
        for width in self._programs.widths:
            for records, filters in ((True, False), (False, True), (True, True)):
                if not self._stops:
                    self._programs.compile(width, records, filters)

    def _wait(self) -> bool:
        """Returns True when there is something to do, and False when all is done."""
        with self._wake:
            while not (self._waiting or self._left or self._all_active()):
                if self._stops:
                    return False
                self._wake.wait()
            return True

    def _all_active(self) -> list[Sequence]:
        return [text for batch in self._batches for _, text in batch.present]

    def _admit(self) -> None:
        """Gives waiting texts a place, as far as there are places."""
        shared, *others = self._batches
        for batch in self._batches:
            gone = [(index, text) for index, text in batch.present if self._has_gone(text)]
            self._remember(batch, gone)
            for index, _ in gone:
                batch.columns[index] = None
        self._batches = [shared, *(batch for batch in others if batch.present)]
        room = self._max_batch - len(shared.present)
        room_alone = MOST_ALONE - len(self._batches) + 1
        joining: list[Sequence] = []
        alone: list[Sequence] = []
        for text in self._take_waiting():
            if self._has_gone(text):
                continue
            if text.wish.is_exact and not self._is_exact:
                places, taken = alone, len(alone) < room_alone
            else:
                places, taken = joining, len(joining) < room
            (places if taken else self._left).append(text)
        for text in alone:
            batch = _Batch(1, self._programs.place([self._known(text)], 1))
            batch.fill([text])
            self._batches.append(batch)
        self._rearrange(shared, joining)

    def _take_waiting(self) -> list[Sequence]:
        with self._wake:
            taken = [*self._left, *self._waiting]
            self._left, self._waiting = [], []
        return taken

    def _known(self, text: Sequence) -> Column | None:
        """Returns what is known of a text's beginning, and marks that as read."""
        found = None if text.wish.of_prompt else self._cache.longest(text.wish.prompt)
        if found is None:
            return None
        text.num_read = text.remembered = found[0]
        self.counts.bytes_remembered += found[0]
        return found[1]

    def _rearrange(self, batch: _Batch, joining: list[Sequence]) -> None:
        """Gives a batch the width that its texts need, and a column to each new one."""
        present = batch.present
        width = self._programs.width_for(len(present) + len(joining))
        batch.num_too_wide = batch.num_too_wide + 1 if width < batch.width else 0
        if width < batch.width and present and batch.num_too_wide < PATIENCE:
            width = batch.width
        if width == batch.width and not joining:
            return
        columns: list[Column | None] = []
        if present:
            columns += self._programs.columns(batch.placed, [index for index, _ in present])
        columns += [self._known(text) for text in joining]
        batch.width, batch.placed = width, self._programs.place(columns, width)
        batch.fill([*(text for _, text in present), *joining])

    def _has_gone(self, text: Sequence) -> bool:
        if text.is_late and not text.is_cancelled:
            text.fail(
                f"the text was not finished within {text.wish.seconds:g} seconds: ask for fewer "
                "bytes, or at a quieter time"
            )
            text.cancel()
        return text.is_cancelled

    def _advance(self, batch: _Batch) -> None:
        """Runs a chunk of a batch, and hands on what came of it."""
        present = batch.present
        if not present:
            return
        texts = [text for _, text in present]
        num_steps = self._num_steps(batch.width, texts)
        records = any(text.records for text in texts)
        filters = any(text.wish.settings.filters for text in texts)
        self._programs.compile(batch.width, records, filters)
        begin = time.perf_counter()
        batch.placed, chunk = self._programs.advance(
            batch.placed,
            batch.width,
            batch.given(num_steps),
            batch.draws,
            num_steps,
            batch.cells if records else None,
            filters,
        )
        seconds = time.perf_counter() - begin
        before = sum(text.num_read for text in texts), sum(text.num_drawn for text in texts)
        ended = []
        remembered = []
        for index, text in present:
            length = text.length
            logits, cells = (
                None if part is None else part[..., index] for part in (chunk.logits, chunk.cells)
            )
            has_ended = text.take(chunk.read[:, index], logits, cells)
            if text.length == length + num_steps and (has_ended or text.has_just_read):
                remembered.append((index, text))
            if has_ended:
                ended.append(index)
        self._remember(batch, remembered)
        for index in ended:
            batch.columns[index] = None
        counts, average = self.counts, self._step_seconds
        average[batch.width] += 0.2 * (seconds / num_steps - average[batch.width])
        counts.bytes_read += sum(text.num_read for text in texts) - before[0]
        counts.bytes_made += sum(text.num_drawn for text in texts) - before[1]
        counts.chunks += 1
        counts.chunk_seconds += seconds
        counts.active, counts.width = len(self._all_active()), self._batches[0].width

    def _num_steps(self, width: int, texts: list[Sequence]) -> int:
        """Returns how many time steps the next chunk has."""
        wanted = round(CHUNK_SECONDS / self._step_seconds[width])
        if len(texts) > FEW:
            wanted = min(wanted, max(text.prompt_left + text.draws_left for text in texts))
        else:
            for text in texts:
                soon = max(FIRST_BYTES, text.num_drawn)
                wanted = min(wanted, text.prompt_left or min(text.draws_left, soon))
        return max(1, min(wanted, WIDTHS[width]))

    def _remember(self, batch: _Batch, texts: list[tuple[int, Sequence]]) -> None:
        """Keeps the states of texts, if enough of them is new."""
        new = [
            (index, text)
            for index, text in texts
            if text.length - text.remembered >= LEAST_REMEMBERED
        ]
        if not new:
            return
        columns = self._programs.columns(batch.placed, [index for index, _ in new])
        for (_, text), column in zip(new, columns, strict=True):
            text.remembered = text.length
            self._cache.put(text.symbols(), column)
        self.counts.cache_bytes = self._cache.num_bytes
