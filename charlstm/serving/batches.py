"""Batches of texts on the devices: columns put in and taken out, and advanced in chunks.

There are a few widths, so that a lone text is not slowed down by empty columns, and a few compiled
programs serve any load.
"""

import time
from collections.abc import Mapping
from collections.abc import Sequence as Values
from typing import Any, NamedTuple

import jax
import numpy as np

from charlstm.model.decode_step import DecodeState
from charlstm.model.language_model import LanguageModel
from charlstm.runtime import meshes
from charlstm.sampling import texts
from charlstm.sampling.settings import Settings
from charlstm.sampling.texts import Draws, Given, Loaded, Texts
from charlstm.serving.prompt_cache import Column
from charlstm.serving.sequences import Sequence

# The widths, and the most time steps of a chunk of each: what is drawn beyond a text's end is lost.
WIDTHS = {1: 128, 8: 128, 64: 64, 512: 16}
# The cells that a text may have recorded.
MOST_CELLS = 64
# From this width on the columns are split over the devices.
SPLIT_FROM = 64
# Time steps of the program that is looked at by `agree`.
_CHECKED_STEPS = 16


class Chunk(NamedTuple):
    """Holds what a batch read and drew in one call; see `texts.advance`.

    Attributes:
      read: uint8 [n, B].
      logits: float32 [n, V, B], or None.
      cells: float32 [n, 64, B], or None.
    """

    read: np.ndarray
    logits: np.ndarray | None
    cells: np.ndarray | None


class Programs:
    """The compiled programs of one model, and its weights on the devices.

    Args:
      model: the model.
      most: how many texts the largest width has to hold.
    """

    def __init__(self, model: LanguageModel, most: int):
        self.model = model
        self.widths = [width for width in WIDTHS if width < most]
        self.widths.append(next(width for width in WIDTHS if width >= most))
        devices = jax.local_devices()
        count = len(devices) if devices[0].platform == "cpu" else 1
        alone = meshes.single_device_mesh(devices[0])
        wide = meshes.make_mesh(count, devices=devices[:count])
        self._compiled: dict[tuple[int, bool, bool], Any] = {}
        self._meshes: dict[int, jax.sharding.Mesh] = {}
        self._loaded: dict[jax.sharding.Mesh, Loaded] = {}
        for width in self.widths:
            is_split = width >= SPLIT_FROM and width % count == 0 and count > 1
            mesh = wide if is_split else alone
            self._meshes[width] = mesh
            if mesh not in self._loaded:
                with jax.set_mesh(mesh):
                    self._loaded[mesh] = texts.load(model.put(meshes.replicated(mesh)))

    def width_for(self, count: int) -> int:
        """Returns the smallest width that holds `count` texts."""
        return next(width for width in self.widths if width >= count)

    def place(
        self, columns: Mapping[int, Column | None], width: int, among: Texts | None = None
    ) -> Texts:
        """Puts columns on the devices.

        Args:
          columns: by their indices; None is a text of which nothing was read.
          width: how many columns there are.
          among: the others, of the same width; None for new texts.
        """
        num_layers, hidden_size = self.model.shape
        host: Any
        if among is None:
            h, c = np.zeros((2, num_layers, hidden_size, width), np.float32)
            logits = np.zeros((self.model.alphabet.size, width), np.float32)
            host = Texts(DecodeState([*h], [*c]), logits, np.zeros(width, np.int32))  # type: ignore
        else:
            host = jax.tree.map(np.array, jax.device_get(among))
        for index, column in columns.items():
            for layer in range(num_layers):
                host.state.h[layer][:, index] = 0 if column is None else column.h[layer]
                host.state.c[layer][:, index] = 0 if column is None else column.c[layer]
            host.logits[:, index] = 0 if column is None else column.logits
            host.num_read[index] = 0 if column is None else column.num_read
        if self._meshes[width].size > 1:
            return self._split(host, width)
        return jax.device_put(host, meshes.replicated(self._meshes[width]))

    def columns(self, placed: Texts, indices: Values[int]) -> list[Column]:
        """Returns columns of texts, on the host."""
        host = jax.device_get(placed)
        return [
            Column(
                [layer[:, index].copy() for layer in host.state.h],
                [layer[:, index].copy() for layer in host.state.c],
                host.logits[:, index].copy(),
                int(host.num_read[index]),
            )
            for index in indices
        ]

    def advance(
        self,
        placed: Texts,
        width: int,
        given: Given,
        draws: Draws,
        num_steps: int,
        cells: np.ndarray | None,
        filters: bool,
    ) -> tuple[Texts, Chunk]:
        """Advances a batch; the arguments are those of `texts.advance`, which uses `placed` up."""
        run = self.compile(width, cells is not None, filters)
        loaded = self._loaded[self._meshes[width]]
        # What is compiled splits the host's arrays itself, in less time than `_split` takes.
        placed, read, record = run(loaded, placed, given, draws, np.int32(num_steps), cells)
        read, record = jax.device_get((read, record))  # one wait for all of it
        part = slice(num_steps)
        if record is None:
            return placed, Chunk(read[part], None, None)
        return placed, Chunk(read[part], record.logits[part], record.cells[part])

    def compile(self, width: int, records: bool, filters: bool) -> Any:
        """Returns one of the programs, compiled if it was not; any thread may ask."""
        program = width, records, filters
        if program not in self._compiled:
            cells = np.zeros((MOST_CELLS, width), np.int32) if records else None
            draws = Draws.alike(width, Settings(), 0)
            given, draws, cells = self._split((nothing_given(width), draws, cells), width)
            mesh = self._meshes[width]
            with jax.set_mesh(mesh):
                arguments = self._loaded[mesh], self.place({}, width), given, draws
                lowered = texts.advance.lower(*arguments, np.int32(1), cells, filters=filters)
                self._compiled[program] = lowered.compile()
        return self._compiled[program]

    def agree(self) -> bool:
        """Returns True if a text comes out the same, bit for bit, in a batch of any width.

        It is a matter of the order in which products are added up, which depends on shapes alone.
        So one text shows it.
        """
        symbols = np.random.default_rng(0).integers(0, self.model.alphabet.size, _CHECKED_STEPS)
        found = []
        for width in self.widths:
            given = nothing_given(width)
            given.symbols[:_CHECKED_STEPS] = symbols[:, None]
            given.count[:] = _CHECKED_STEPS // 2
            draws = Draws.alike(width, Settings(), 0)
            draws.lane[:] = 0
            placed = self.place({}, width)
            placed, chunk = self.advance(placed, width, given, draws, _CHECKED_STEPS, None, False)
            places = 0, width - 1
            for place, column in zip(places, self.columns(placed, places), strict=True):
                parts = (chunk.read[:, place], *column.h, *column.c, column.logits)
                found.append([part.tobytes() for part in parts])
        return all(one == found[0] for one in found)

    def seconds_per_step(self, width: int) -> float:
        """Returns how long a time step takes: of two chunks, the faster one."""
        placed, draws, taken = self.place({}, width), Draws.alike(width, Settings(), 0), []
        for _ in range(2):
            begin = time.perf_counter()
            placed, _ = self.advance(placed, width, nothing_given(width), draws, 16, None, False)
            taken.append((time.perf_counter() - begin) / 16)
        return min(taken)

    def _split(self, arrays: Any, width: int) -> Any:
        """Splits arrays over the devices of a width, by their last dimension."""
        mesh = self._meshes[width]
        if mesh.size == 1:
            return arrays
        shardings = jax.tree.map(
            lambda array: meshes.split_streams(mesh, axis=array.ndim - 1, ndim=array.ndim), arrays
        )
        return jax.device_put(arrays, shardings)


def nothing_given(width: int) -> Given:
    """Returns that no text of a batch has anything to read."""
    count, num_drawn = np.zeros((2, width), np.int32)
    symbols = np.zeros((WIDTHS[width], width), np.uint8)
    return Given(symbols, count, num_drawn, np.zeros(width, bool))


class Batch:
    """Texts that are advanced together: where each stands, and how its symbols are drawn.

    Args:
      width: how many columns there are; all are empty.
      placed: what the model knows of them; see `Programs.place`.

    Attributes:
      num_too_wide: how many chunks it has been wider than its texts need.
    """

    def __init__(self, width: int, placed: Texts):
        self._begin(width, placed)

    def _begin(self, width: int, placed: Texts) -> None:
        self.width, self.placed, self.num_too_wide = width, placed, 0
        self.columns: list[Sequence | None] = [None] * width
        self.draws = Draws.alike(width, Settings(), 0)
        self.cells = np.zeros((MOST_CELLS, width), np.int32)
        self._begins = np.zeros(width, bool)

    def join(self, texts: Mapping[Sequence, Column | None], programs: Programs) -> None:
        """Gives empty columns to texts, with what is known of each."""
        empty = [index for index, text in enumerate(self.columns) if text is None]
        places = dict(zip(empty, texts.values(), strict=False))
        known = {index: column for index, column in places.items() if column is not None}
        if known:
            self.placed = programs.place(known, self.width, self.placed)
        for index, text in zip(empty, texts, strict=False):
            self._put(index, text)
            self._begins[index] = index not in known

    def move(self, texts: Mapping[Sequence, Column | None], width: int, programs: Programs) -> None:
        """Takes another width, and texts beside those that it has."""
        present = self.present
        columns = programs.columns(self.placed, [index for index, _ in present]) if present else []
        known: list[Column | None] = [*columns, *texts.values()]
        self._begin(width, programs.place(dict(enumerate(known)), width))
        for index, text in enumerate([*(text for _, text in present), *texts]):
            self._put(index, text)

    def _put(self, index: int, text: Sequence) -> None:
        wish = text.wish
        self.columns[index] = text
        own = Draws.alike(1, wish.settings, wish.seed)
        for array, value in zip(self.draws, own, strict=True):
            array[index] = value[0]
        self.draws.lane[index] = wish.lane
        self.cells[:, index] = 0
        self.cells[: len(wish.cells), index] = wish.cells

    @property
    def present(self) -> list[tuple[int, Sequence]]:
        """The texts with the indices of their columns."""
        return [(index, text) for index, text in enumerate(self.columns) if text is not None]

    def given(self, num_steps: int) -> Given:
        """Returns what the texts read in the next time steps; it counts on them being run."""
        given = nothing_given(self.width)._replace(begins=self._begins)
        self._begins = np.zeros(self.width, bool)
        for index, text in self.present:
            begin = text.num_read
            symbols = text.wish.prompt[begin : begin + num_steps]
            given.symbols[: len(symbols), index] = symbols
            given.count[index], given.num_drawn[index] = len(symbols), text.num_drawn
        return given
