"""The input alone: windows of text made ready on the device, and nothing trained on them."""

import tempfile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import workloads
from benchmarks.contestants import Contestant, versions_of
from charlstm.data.streams import Streams
from charlstm.training.program import MAX_UPDATES_PER_DISPATCH


def prepare(spec: dict[str, Any]) -> Contestant:
    """A turn makes `count` windows ready.

    Args:
      spec: `shape`; `source`: `device` gathers from a text on the device in one jitted loop, `host`
        reads a memory-mapped file and puts windows on the device, many at a time; `text_bytes`, the
        size of the mapped file; `path`, a file to map instead.
    """
    shape = workloads.Shape(**spec["shape"])
    turn = _device(shape) if spec["source"] == "device" else _host(shape, spec)
    info = {
        "versions": versions_of("charlstm", "jax", "jaxlib", "numpy"),
        "device": jax.devices()[0].device_kind,
    }
    return Contestant(turn, info)


def _device(shape: workloads.Shape) -> Any:
    text = jnp.asarray(workloads.make_text())
    streams = Streams(len(text), shape.num_streams, shape.window_length)
    first = jnp.asarray(streams.first_places())

    @jax.jit
    def gather(count: jax.Array, text: jax.Array, first: jax.Array) -> jax.Array:
        def body(index: jax.Array, seen: jax.Array) -> jax.Array:
            offset = index.astype(jnp.uint32) * jnp.uint32(streams.window_length)
            # A window that depends on the one before it cannot be left out or moved.
            offset = (offset + seen[0, 0] % 2) % streams.num_bytes
            return streams.window_on_device(text, offset, first)

        window = streams.window_on_device(text, jnp.uint32(0), first)
        return jax.lax.fori_loop(0, count, body, window)

    def turn(count: int) -> dict[str, float]:
        gather(np.int32(count), text, first).block_until_ready()
        return {}

    return turn


def _host(shape: workloads.Shape, spec: dict[str, Any]) -> Any:
    if "path" in spec:
        text = np.memmap(spec["path"], np.uint8, mode="r")
    else:
        with tempfile.NamedTemporaryFile() as file:  # stays mapped though its name is gone
            part = workloads.make_text().tobytes()
            for _ in range(max(1, spec["text_bytes"] // len(part))):
                file.write(part)
            file.flush()
            text = np.memmap(file.name, np.uint8, mode="r")
    streams = Streams(len(text), shape.num_streams, shape.window_length)
    step = 0

    def turn(count: int) -> dict[str, float]:
        nonlocal step
        last = None
        for begin in range(0, count, MAX_UPDATES_PER_DISPATCH):
            size = min(MAX_UPDATES_PER_DISPATCH, count - begin)
            windows = np.stack([streams.window(text, step + index) for index in range(size)])
            last = jax.device_put(windows)
            step += size
        jax.block_until_ready(last)
        return {}

    return turn
