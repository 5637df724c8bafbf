"""The engine: texts join a batch and leave it between chunks; a thread of its own runs it."""

import dataclasses
import threading
import time

import numpy as np
from absl import logging

from charlstm.model.language_model import LanguageModel
from charlstm.serving.batches import WIDTHS, Batch, Programs
from charlstm.serving.memory import Memory
from charlstm.serving.prompt_cache import LEAST_LENGTH, Column
from charlstm.serving.sequences import Sequence

# How long a chunk takes; so long a new text may wait until it joins.
CHUNK_SECONDS = 0.04
# Among so few texts the first bytes of a stream come at once, and the states of prompts are kept.
FEW = 8
FIRST_BYTES = 4
# What a chunk costs beside its time steps.
CHUNK_COST_SECONDS = 0.002
# Chunks that a batch must be too wide for before it is made narrower.
PATIENCE = 4
# Texts that are advanced each by itself, for they must be exact and share no batch.
MOST_ALONE = 8
# How often texts are looked at of which too much is unread.
LOOK_AGAIN_SECONDS = 0.05


@dataclasses.dataclass
class Counts:
    """Counts what an engine has done, and what it does now; other threads read it."""

    bytes_read: int = 0  # of prompts
    bytes_remembered: int = 0  # of prompts, whose states were known
    bytes_made: int = 0
    chunks: int = 0
    chunk_seconds: float = 0.0
    active: int = 0
    width: int = 0
    cache_bytes: int = 0


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
        self._memory = Memory(cache_bytes)
        self._wake = threading.Condition()
        self._waiting: list[Sequence] = []  # handed in since the last chunk; guarded by `_wake`
        self._left: list[Sequence] = []  # of those before, without a place
        self._unfinished: set[Sequence] = set()  # these, and those that have a place
        self._stops = False
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._compiler = threading.Thread(target=self._compile_others, name="compiler", daemon=True)
        self._batches: list[Batch] = []  # the shared one first, then those of a single text
        self._step_seconds: dict[int, float] = {}
        self.is_exact = False

    def start(self) -> None:
        """Starts to compile."""
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
        """The number of texts that have no place."""
        return len(self._waiting) + len(self._left)

    def submit(self, texts: list[Sequence]) -> bool:
        """Takes texts to be made; returns False if it takes no more."""
        with self._wake:
            if self._stops or self._failure is not None:
                return False
            self._waiting.extend(texts)
            self._wake.notify()
            return True

    def stop(self) -> None:
        """Takes no more texts, and ends the thread when all are made."""
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
                self.counts.active = len(self._present())
                self.counts.width = self._batches[0].width
        except BaseException as error:
            logging.exception("the engine has failed")
            with self._wake:
                self._failure = error
                failed = [*self._unfinished, *self._waiting]
                self._waiting, self._left = [], []
            self.counts.active = 0
            for text in failed:
                text.fail("the model has failed: the server's log says why")

    def _prepare(self) -> None:
        self._programs = Programs(self.model, self._max_batch)
        for width in self._programs.widths:
            if self._stops:
                return
            self._programs.compile(width, records=False, filters=False)
            self._step_seconds[width] = self._programs.seconds_per_step(width)
        self.is_exact = self._programs.agree()
        first = self._programs.widths[0]
        self._batches = [Batch(first, self._programs.place({}, first))]
        self._ready.set()
        self._compiler.start()

    def _compile_others(self) -> None:
        """Compiles what only some requests need, so that they need not wait for it."""
        for width in self._programs.widths:
            for records, filters in ((True, False), (False, True), (True, True)):
                if not self._stops:
                    self._programs.compile(width, records, filters)

    def _wait(self) -> bool:
        """Returns True when there may be something to do, and False when all is done."""
        with self._wake:
            if not self._waiting and not self._present():
                if self._stops and not self._left:
                    return False
                self._wake.wait(LOOK_AGAIN_SECONDS if self._left else None)
            return True

    def _present(self) -> list[Sequence]:
        """Returns the texts that have a place."""
        return [text for batch in self._batches for _, text in batch.present]

    def _admit(self) -> None:
        """Gives texts that wait a place, as far as there are places."""
        for batch in self._batches:
            self._vacate(batch)
        shared, *others = self._batches
        self._batches = [shared, *(batch for batch in others if batch.present)]
        readers = {id(text.wish.prompt): text for text in self._present() if _reads(text)}
        room = self._max_batch - len(shared.present)
        room_alone = MOST_ALONE - len(self._batches) + 1
        joining: list[tuple[Sequence, Column | None]] = []
        alone: list[tuple[Sequence, Column | None]] = []
        for text in self._take_waiting():
            if self._has_gone(text):
                continue
            places, size = (alone, room_alone) if self._is_alone(text) else (joining, room)
            reader = readers.get(id(text.wish.prompt)) if self._memory.helps(text) else None
            if len(places) >= size or reader or text.is_held_up():
                self._left.append(text)
            else:
                places.append((text, self._known(text)))
                if _reads(text):
                    readers[id(text.wish.prompt)] = text
            if reader:
                reader.is_awaited = True
        for text, column in alone:
            batch = Batch(1, self._programs.place({}, 1))
            batch.join({text: column}, self._programs)
            self._batches.append(batch)
        self._rearrange(shared, joining)

    def _vacate(self, batch: Batch) -> None:
        """Takes texts out of a batch that are given up, or of which too much is unread."""
        gone = [(index, text) for index, text in batch.present if self._has_gone(text)]
        held_up = [one for one in batch.present if one not in gone and one[1].is_held_up()]
        leaving = [*gone, *held_up]
        if not leaving:
            return
        columns = self._programs.columns(batch.placed, [index for index, _ in leaving])
        for (index, text), column in zip(leaving, columns, strict=True):
            batch.columns[index] = None
            self._keep(text, column)
            text.column = column
        self._left += [text for _, text in held_up]

    def _take_waiting(self) -> list[Sequence]:
        with self._wake:
            taken = [*self._left, *self._waiting]
            self._left, self._waiting = [], []
        self._unfinished.update(taken)
        return taken

    def _is_alone(self, text: Sequence) -> bool:
        """Returns True if a text must not share a batch, for it would not be exact there."""
        return text.wish.is_exact and not self.is_exact

    def _known(self, text: Sequence) -> Column | None:
        before = text.num_read
        column = self._memory.known(text, self._is_alone(text))
        self.counts.bytes_remembered += text.num_read - before
        return column

    def _keep(self, text: Sequence, column: Column) -> None:
        self._memory.keep(text, column, self._is_alone(text))
        self.counts.cache_bytes = self._memory.num_bytes

    def _rearrange(self, batch: Batch, joining: list[tuple[Sequence, Column | None]]) -> None:
        """Gives a batch the width that its texts need, and a column to each new one."""
        present = batch.present
        width = self._programs.width_for(len(present) + len(joining))
        batch.num_too_wide = batch.num_too_wide + 1 if width < batch.width else 0
        if width < batch.width and present and batch.num_too_wide < PATIENCE:
            width = batch.width
        if width == batch.width and not joining:
            return
        if width == batch.width:
            batch.join(dict(joining), self._programs)
        else:
            batch.move(dict(joining), width, self._programs)

    def _has_gone(self, text: Sequence) -> bool:
        if text.is_late and not text.is_cancelled:
            text.fail(
                f"the text was not finished within {text.wish.seconds:g} seconds: ask for fewer "
                "bytes, or at a quieter time",
                is_late=True,
            )
            text.cancel()
        if text.is_cancelled:
            self._unfinished.discard(text)
        return text.is_cancelled

    def _advance(self, batch: Batch) -> None:
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
        worth_keeping = []
        for index, text in present:
            length = text.length
            logits, cells = (
                None if part is None else part[..., index] for part in (chunk.logits, chunk.cells)
            )
            has_ended = text.take(chunk.read[:, index], logits, cells)
            is_whole = text.length == length + num_steps  # nothing was read behind its end
            if is_whole and self._memory.wants(text, has_ended):
                worth_keeping.append((index, text))
            if has_ended:
                batch.columns[index] = None
                self._unfinished.discard(text)
        if worth_keeping:
            columns = self._programs.columns(batch.placed, [index for index, _ in worth_keeping])
            for (_, text), column in zip(worth_keeping, columns, strict=True):
                self._keep(text, column)
        counts, average = self.counts, self._step_seconds
        average[batch.width] += 0.2 * (seconds / num_steps - average[batch.width])
        counts.bytes_read += sum(text.num_read for text in texts) - before[0]
        counts.bytes_made += sum(text.num_drawn for text in texts) - before[1]
        counts.chunks += 1
        counts.chunk_seconds += seconds

    def _num_steps(self, width: int, texts: list[Sequence]) -> int:
        """Returns how many time steps the next chunk has.

        It ends where texts do, if enough of them end there: what a chunk costs by itself is weighed
        against columns without a text.
        """
        is_few = len(texts) <= FEW
        hurried = [text for text in texts if is_few or (text.is_awaited and text.prompt_left)]
        most = min(
            WIDTHS[width],
            round(CHUNK_SECONDS / self._step_seconds[width]),
            *(_soon(text) for text in hurried),
        )
        left = np.array([text.prompt_left + text.draws_left for text in texts])
        ends = np.unique(left.clip(1, max(1, most)))
        done = np.minimum(left[:, None], ends).sum(axis=0)
        own_cost = CHUNK_COST_SECONDS / self._step_seconds[width]
        return int(ends[np.argmax(done / (ends + own_cost))])


def _reads(text: Sequence) -> bool:
    """Returns True if a text has much of its prompt still to read."""
    return text.prompt_left >= LEAST_LENGTH


def _soon(text: Sequence) -> int:
    """Returns after how many time steps something of a text is wanted."""
    if _reads(text) or (text.is_awaited and text.prompt_left):
        return text.prompt_left  # its state is to be kept
    if text.wish.streams:
        return text.prompt_left + max(FIRST_BYTES, text.num_drawn)
    return max(WIDTHS.values())
