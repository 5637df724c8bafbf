"""Positions are arithmetic: the same bytes on host and device, and the text read in a circle."""

import jax.numpy as jnp
import numpy as np
import pytest

from charlstm.data.streams import DEVICE_RESIDENT_BYTES, Streams
from charlstm.errors import UserError

TEXT = np.random.default_rng(0).integers(0, 256, 1009).astype(np.uint8)


def by_definition(text, num_streams, window_length, step):
    """Stream b at update s starts at (b·⌊N/B⌋ + s·T) mod N."""
    size = len(text)
    rows = []
    for t in range(window_length + 1):
        row = [
            text[(b * (size // num_streams) + step * window_length + t) % size]
            for b in range(num_streams)
        ]
        rows.append(row)
    return np.array(rows, np.uint8)


@pytest.mark.parametrize("step", [0, 1, 7, 126, 10**6, 10**12])
def test_window_is_what_the_contract_says(step):
    streams = Streams(len(TEXT), num_streams=6, window_length=16)
    wanted = by_definition(TEXT, 6, 16, step)
    assert (streams.window(TEXT, step) == wanted).all()
    on_device = streams.window_on_device(
        jnp.asarray(TEXT), jnp.uint32(streams.offset(step)), jnp.asarray(streams.first_places())
    )
    assert on_device.dtype == jnp.uint8
    assert (np.asarray(on_device) == wanted).all()


@pytest.mark.parametrize("step", [0, 7, 126, 10**6])
def test_a_process_reads_the_same_windows_of_its_own_streams(step):
    streams = Streams(len(TEXT), num_streams=6, window_length=16)
    for own in slice(0, 6), slice(2, 4), slice(5, 6):
        windows = streams.read(TEXT, step, 100, own)  # longer than the text
        for index in range(100):
            assert (windows[index] == streams.window(TEXT, step + index)[:, own]).all()


def test_streams_never_jump():
    streams = Streams(len(TEXT), num_streams=4, window_length=10)
    for step in range(300):
        before, after = streams.window(TEXT, step), streams.window(TEXT, step + 1)
        assert (before[-1] == after[0]).all()


def test_every_stream_reads_the_whole_text():
    streams = Streams(len(TEXT), num_streams=4, window_length=1)
    read = np.concatenate([streams.window(TEXT, step)[:1] for step in range(len(TEXT))])
    for stream in range(4):
        assert (np.sort(read[:, stream]) == np.sort(TEXT)).all()


def test_places_do_not_overflow_in_the_largest_text_a_device_holds():
    size = DEVICE_RESIDENT_BYTES
    streams = Streams(size, num_streams=3, window_length=8)
    step = (size - 4) // 8  # the last stream wraps, the others are far into the text
    text = np.zeros(size, np.uint8)
    text[streams.first_places()] = 7
    places = (np.arange(3) * (size // 3) + step * 8 + np.arange(9)[:, None]) % size
    text[places] = np.arange(27).reshape(9, 3)
    window = streams.window_on_device(
        jnp.asarray(text), jnp.uint32(streams.offset(step)), jnp.asarray(streams.first_places())
    )
    assert (np.asarray(window) == np.arange(27).reshape(9, 3)).all()


@pytest.mark.parametrize(
    ("size", "num_streams", "window", "field"),
    [(64, 2, 64, "data.window_length"), (10, 11, 4, "data.num_streams")],
)
def test_text_too_short_is_an_error_that_names_the_field(size, num_streams, window, field):
    with pytest.raises(UserError, match=field):
        Streams(size, num_streams, window)
