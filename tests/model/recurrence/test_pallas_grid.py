"""A window is cut into blocks that fit into a TPU's VMEM."""

import jax.numpy as jnp

from charlstm.model.recurrence.pallas_grid import VMEM_BYTES, Blocks


def test_as_many_streams_share_a_block_as_fit_beside_the_weights():
    assert Blocks.choose(128, 64, 1024, jnp.bfloat16) == Blocks(steps=1, streams=64)
    assert Blocks.choose(128, 256, 1024, jnp.bfloat16) == Blocks(steps=1, streams=64)
    assert Blocks.choose(128, 64, 256, jnp.bfloat16) == Blocks(steps=8, streams=64)
    for hidden_size in (128, 512, 1024):
        blocks = Blocks.choose(96, 512, hidden_size, jnp.bfloat16)
        assert blocks.vmem_bytes(hidden_size, jnp.bfloat16) <= VMEM_BYTES
        assert 512 % blocks.streams == 0 and 96 % blocks.steps == 0
