"""A batch that cannot fit ends a run before it begins, and the largest that would is named."""

import re

import jax
import numpy as np
import pytest
from models import network_of

from charlstm.config import Config, ModelConfig
from charlstm.errors import UserError
from charlstm.model import parameters
from charlstm.model.network import next_symbol_nats
from charlstm.model.recurrence import Scan
from charlstm.training import memory
from charlstm.training.trainer import train


def told(caught):
    return int(re.search(r"the largest that fits is data.num_streams=(\d+)", str(caught.value))[1])


@pytest.mark.parametrize("available", [1_000, 5_555, 63_999])
@pytest.mark.parametrize("multiple", [1, 8])
def test_the_largest_batch_of_a_linear_need_is_found_exactly(available, multiple):
    with pytest.raises(UserError) as caught:
        memory.require_fit(1024, multiple, available, lambda streams: 100 + 63 * streams)
    assert told(caught) == (available - 100) // 63 // multiple * multiple


def test_a_need_that_grows_in_steps_is_never_told_to_fit_where_it_does_not():
    def needed(streams):
        return 4096 * -(-streams * 7 // 64)

    with pytest.raises(UserError) as caught:
        memory.require_fit(4096, 2, 1_000_000, needed)
    assert 0.9 * 1_000_000 < needed(told(caught)) <= 1_000_000


def test_the_largest_batch_is_found_though_a_small_one_is_kept_on_the_chip():
    """What a batch too large needs is not known there either: the compiler refuses it."""
    kept, on_the_chip, available = 1000, 10**6, 10**9

    def needed(num_streams):
        total = num_streams * (kept if num_streams * kept > on_the_chip else 0)
        return total if total <= available else None

    table = memory.MemoryTable(0, 0, 0, 0, 0, 0)
    largest = memory.largest_batch(32, 4, 10**9, available, table, 32 * kept, needed)
    assert largest == available // kept // 512 * 512


def test_large_batches_are_tried_in_whole_tiles_of_a_tpu():
    """libtpu takes minutes for any other large batch."""
    tried = []

    def needed(num_streams):
        tried.append(num_streams)
        return 1000 + 300 * num_streams

    table = memory.MemoryTable(0, 0, 0, 0, 0, needed(4) // 2)
    memory.largest_batch(4, 4, 10**9, 10**8 + 12_345, table, 0, needed)
    assert tried[1:]
    assert all(num_streams % (4 * 128) == 0 for num_streams in tried[1:])


def test_where_nothing_fits_the_message_says_so():
    with pytest.raises(UserError, match="not even the smallest fits"):
        memory.require_fit(64, 2, 10, lambda streams: 1000 + streams)


def test_what_fits_or_cannot_be_known_is_let_through():
    assert memory.require_fit(64, 1, 100, lambda streams: streams) == 64
    assert memory.require_fit(64, 1, None, lambda streams: streams) == 64


def test_a_run_whose_batch_does_not_fit_names_one_that_does(tmp_path, monkeypatch):
    text = tmp_path / "text.txt"
    text.write_bytes(bytes(np.random.default_rng(0).integers(97, 123, 40_000, np.uint8)))
    config = Config().replace(
        {
            "data.corpus": str(text),
            "data.num_streams": 512,
            "data.window_length": 16,
            "model.hidden_size": 16,
            "training.num_updates": 2,
            "optimizer.warmup_updates": 0,
        }
    )
    limit = 4_000_000
    monkeypatch.setattr(memory, "available_bytes", lambda: limit)
    with pytest.raises(UserError, match=r"data.num_streams=512 does not fit") as caught:
        train(config, tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists() or not any(
        (tmp_path / "run" / "checkpoints").iterdir()
    )
    largest = told(caught)
    assert 1 <= largest < 512 and largest % jax.device_count() == 0
    train(config.replace({"data.num_streams": largest}), tmp_path / "other")


def test_keeping_the_state_alone_needs_less_memory():
    """As XLA accounts for it: at least three numbers less for every cell and time step."""
    model = ModelConfig(num_layers=4, hidden_size=64)
    params = parameters.abstract_params(model, 64)
    carry = jax.eval_shape(lambda: parameters.zero_carry(params, 32))
    symbols = jax.ShapeDtypeStruct((256, 32), np.uint8)

    def temporary(keep):
        network = network_of(Scan(keep))

        def loss(params, carry, symbols):
            logits, _ = network.apply(params, carry, symbols)
            return next_symbol_nats(logits, symbols)[0].mean()

        compiled = jax.jit(jax.grad(loss)).lower(params, carry, symbols).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    cells = 4 * 256 * 32 * 64
    assert temporary("gates") - temporary("state") >= 3 * 4 * cells
