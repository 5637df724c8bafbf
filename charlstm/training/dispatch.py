"""A dispatch: several updates in one jitted call that the host does not wait for."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from charlstm.data.mapped import release
from charlstm.data.streams import Streams, resident_bytes
from charlstm.runtime import coordination, meshes
from charlstm.training.host_windows import HostWindows
from charlstm.training.train_state import TrainState
from charlstm.training.update import Update, UpdateMetrics

# The most updates in one dispatch. Windows read on the host travel with each dispatch, so there
# it is fewer.
MAX_UPDATES_PER_DISPATCH = 256
MAX_UPDATES_PER_HOST_DISPATCH = 32


class CompiledDispatch:
    """A dispatch compiled ahead of time: other shapes are an error, not a new compilation."""

    def __init__(
        self,
        compiled: Any,
        max_updates: int,
        put_count: Callable[[int], jax.Array],
        inputs: Callable[[int, int], tuple[jax.Array, ...]],
    ):
        """Takes the compiled function, and what makes its arguments except the state."""
        self.max_updates = max_updates
        self.resident = not isinstance(inputs, HostWindows)
        self._compiled, self._put_count, self._inputs = compiled, put_count, inputs

    def __call__(
        self, state: TrainState, step: int, count: int
    ) -> tuple[TrainState, UpdateMetrics]:
        """Makes updates `step` … `step + count - 1` without waiting for them.

        Args:
          state: donated.
          step: the updates made before.
          count: at most `max_updates`.

        Returns:
          The state after them, and the metrics of each [max_updates], zero beyond `count`.
        """
        return self._compiled(state, self._put_count(count), *self._inputs(step, count))

    def input_seconds(self) -> float:
        """Returns the seconds so far for which calls waited for their text."""
        return self._inputs.seconds if isinstance(self._inputs, HostWindows) else 0.0

    def memory_analysis(self) -> Any:
        """Returns XLA's account of the memory that the program needs on one device, in bytes."""
        return self._compiled.memory_analysis()

    def as_text(self) -> str:
        """Returns the compiled program as text."""
        return str(self._compiled.as_text())


def compile_dispatch(
    update: Update,
    streams: Streams,
    text: np.ndarray,
    state: TrainState,
    mesh: jax.sharding.Mesh,
    resident: bool | None = None,
    check: Callable[[], None] = lambda: None,
) -> CompiledDispatch:
    """Compiles a dispatch.

    Args:
      update: the pure function of one update.
      streams: what an update reads.
      text: uint8 [N], the training split.
      state: read for its shapes and shardings.
      mesh: the devices.
      resident: True puts the text on every device whole, False reads its windows on the host for
        each dispatch; None decides by its size.
      check: called before the host reads windows, see `HostWindows`.
    """
    if resident is None:
        resident = coordination.broadcast_bool(lambda: len(text) <= resident_bytes())
    max_updates = max_updates_in(resident)
    compiled = lower_dispatch(update, streams, state, mesh, resident=resident).compile()
    whole = meshes.replicated(mesh)

    def put(number: int, dtype: Any = np.int32) -> jax.Array:
        return meshes.put(np.asarray(number, dtype), whole)

    if resident:
        by_stream = meshes.split_streams(mesh, axis=0, ndim=1)
        first = meshes.put(streams.first_places(), by_stream)
        on_device = meshes.put(np.ascontiguousarray(text), whole)
        release(text)

        def places(step: int, count: int) -> tuple[jax.Array, ...]:
            return put(streams.offset(step), np.uint32), first, on_device

        inputs: Callable[[int, int], tuple[jax.Array, ...]] = places
    else:
        inputs = HostWindows(streams, text, max_updates, mesh, check)
    return CompiledDispatch(compiled, max_updates, put, inputs)


def max_updates_in(resident: bool) -> int:
    """Returns the most updates of a dispatch, by whether the text is on the devices."""
    return MAX_UPDATES_PER_DISPATCH if resident else MAX_UPDATES_PER_HOST_DISPATCH


def lower_dispatch(
    update: Update,
    streams: Streams,
    state: TrainState,
    mesh: jax.sharding.Mesh,
    *,
    resident: bool,
) -> jax.stages.Lowered:
    """Lowers a dispatch for the devices of a mesh, which need not be this machine's.

    Args:
      update, streams, mesh: see `compile_dispatch`.
      state: arrays, or their shapes, dtypes and shardings.
      resident: True if the text is on every device, False if its windows come from the host.
    """
    max_updates = max_updates_in(resident)
    whole = meshes.replicated(mesh)

    def argument(
        shape: tuple[int, ...], dtype: Any, sharding: jax.NamedSharding
    ) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    if resident:
        by_stream = meshes.split_streams(mesh, axis=0, ndim=1)
        inputs = [
            argument((), np.uint32, whole),
            argument((streams.num_streams,), np.uint32, by_stream),
            argument((streams.num_bytes,), np.uint8, whole),
        ]
    else:
        by_stream = meshes.split_streams(mesh, axis=2, ndim=3)
        shape = (max_updates, streams.window_length + 1, streams.num_streams)
        inputs = [argument(shape, np.uint8, by_stream)]
    dispatch = make_dispatch(update, streams, max_updates, on_device=resident)
    return dispatch.lower(state, argument((), np.int32, whole), *inputs)


def make_dispatch(
    update: Update,
    streams: Streams,
    max_updates: int,
    *,
    on_device: bool,
) -> Any:
    """Returns a jitted function that makes `count` ≤ `max_updates` updates, the state donated.

    The count is an argument and no constant, so that one compiled program serves every length, and
    the parameters do not depend on how a run was cut into dispatches.

    Returns:
      With the text on the device: (state, count, offset, first_places, text uint8 [N]) →
      (state, metrics [K]); else (state, count, windows uint8 [K, T+1, B]) → the same. Metrics
      beyond `count` are zero.
    """

    def run(
        state: TrainState, count: jax.Array, window_of: Callable[[jax.Array], jax.Array]
    ) -> tuple[TrainState, UpdateMetrics]:
        def body(index: jax.Array, loop: tuple[TrainState, UpdateMetrics]) -> Any:
            state, buffers = loop
            state, metrics = update(state, window_of(index))
            return state, jax.tree.map(lambda b, m: b.at[index].set(m), buffers, metrics)

        buffers = UpdateMetrics(*(jnp.zeros(max_updates) for _ in UpdateMetrics._fields))
        return jax.lax.fori_loop(0, count, body, (state, buffers))

    def from_device(
        state: TrainState, count: jax.Array, offset: jax.Array, first: jax.Array, text: jax.Array
    ) -> tuple[TrainState, UpdateMetrics]:
        def window_of(index: jax.Array) -> jax.Array:
            moved = index.astype(jnp.uint32) * jnp.uint32(streams.window_length)
            return streams.window_on_device(text, (offset + moved) % streams.num_bytes, first)

        return run(state, count, window_of)

    def from_host(
        state: TrainState, count: jax.Array, windows: jax.Array
    ) -> tuple[TrainState, UpdateMetrics]:
        return run(state, count, lambda index: windows[index])

    return jax.jit(from_device if on_device else from_host, donate_argnums=0)
