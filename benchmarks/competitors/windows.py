"""Delivers windows of text to the device, and trains nothing on them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import workloads
from benchmarks.competitors import Competitor, versions_of
from charlstm.benchmark import shapes
from charlstm.data.streams import Streams
from charlstm.training.dispatch import MAX_UPDATES_PER_DISPATCH


def prepare(spec: dict[str, Any]) -> Competitor:
    """Prepares the delivery of windows; a run delivers `count` of them.

    Args:
      spec: `shape`; `source`: `device` gathers from a text on the device in one jitted loop, `host`
        reads a memory-mapped file and puts windows on the device, many at a time; `mapped_bytes`,
        the size of the mapped file; `path`, a file to map instead.
    """
    shape = shapes.Shape(**spec["shape"])
    run = _device(shape) if spec["source"] == "device" else _host(shape, spec)
    info = {
        "versions": versions_of("charlstm", "jax", "jaxlib", "numpy"),
        "device": jax.devices()[0].device_kind,
    }
    return Competitor(run, info)


def _device(shape: shapes.Shape) -> Any:
    text = jnp.asarray(shapes.make_text())
    streams = Streams(len(text), shape.num_streams, shape.window_length)
    first = jnp.asarray(streams.first_places())

    @jax.jit
    def gather(count: jax.Array, text: jax.Array, first: jax.Array) -> jax.Array:
        def body(index: jax.Array, seen: jax.Array) -> jax.Array:
            offset = index.astype(jnp.uint32) * jnp.uint32(streams.window_length)
            # Each window depends on the one before it, so XLA cannot skip or reorder any.
            offset = (offset + seen[0, 0] % 2) % streams.num_bytes
            return streams.window_on_device(text, offset, first)

        window = streams.window_on_device(text, jnp.uint32(0), first)
        return jax.lax.fori_loop(0, count, body, window)

    def run(count: int) -> dict[str, float]:
        gather(np.int32(count), text, first).block_until_ready()
        return {}

    return run


def _host(shape: shapes.Shape, spec: dict[str, Any]) -> Any:
    text = workloads.mapped_text(spec)
    streams = Streams(len(text), shape.num_streams, shape.window_length)
    step = 0

    def run(count: int) -> dict[str, float]:
        nonlocal step
        last = None
        for begin in range(0, count, MAX_UPDATES_PER_DISPATCH):
            size = min(MAX_UPDATES_PER_DISPATCH, count - begin)
            windows = streams.read(text, step, size, slice(None))
            last = jax.device_put(windows)
            step += size
        jax.block_until_ready(last)
        return {}

    return run
