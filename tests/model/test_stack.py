"""The walk over the layers: what each reads, and what the head reads."""

import numpy as np
import pytest

from charlstm.model import stack

# What three layers and the head read, of the layers' outputs a, b and c and the masks m and n.
READ = {
    "plain": lambda a, b, c, m, n: (a * m, b * n, c),
    "residual": lambda a, b, c, m, n: (a * m, (a + b) * n, a + b + c),
    "skip": lambda a, b, c, m, n: (a * m, b * n, a + b + c),
}


@pytest.mark.parametrize("masked", [False, True], ids=["kept", "dropped"])
@pytest.mark.parametrize("connections", READ)
def test_connections_add_up_undropped_outputs_and_masks_act_on_what_is_read(connections, masked):
    rng = np.random.default_rng(0)
    outputs = rng.normal(size=(3, 4, 2))
    masks = 2.0 * rng.integers(0, 2, (2, 4, 2)) if masked else None
    inputs, read = object(), []

    def run_layer(index, inputs, state):
        read.append(inputs)
        return outputs[index], (f"h{index} after {state[0]}", f"c{index} after {state[1]}")

    states = [(f"h{index}", f"c{index}") for index in range(3)]
    head, after = stack.walk(run_layer, inputs, states, masks, connections)
    factors = masks if masked else np.ones((2, 4, 2))
    second, third, wanted = READ[connections](*outputs, *factors)
    assert read[0] is inputs and len(read) == 3
    np.testing.assert_allclose(read[1], second, rtol=1e-15)
    np.testing.assert_allclose(read[2], third, rtol=1e-15)
    np.testing.assert_allclose(head, wanted, rtol=1e-15)
    assert after == [(f"h{i} after h{i}", f"c{i} after c{i}") for i in range(3)]


@pytest.mark.parametrize("connections", READ)
def test_a_single_layer_is_all_that_the_head_reads(connections):
    head, after = stack.walk(lambda *_: (3.0, ("h", "c")), 1.0, [(0, 0)], None, connections)
    assert head == 3.0 and after == [("h", "c")]


def test_a_carry_is_taken_apart_by_layer_and_put_together_again():
    rng = np.random.default_rng(1)
    carry = {name: rng.normal(size=(3, 4, 2)).astype(np.float32) for name in "hc"}
    states = stack.unstack(carry)
    for index, (h, c) in enumerate(states):
        np.testing.assert_array_equal(h, carry["h"][index])
        np.testing.assert_array_equal(c, carry["c"][index])
    again = stack.restack(states)
    assert sorted(again) == ["c", "h"]
    for name, state in carry.items():
        np.testing.assert_array_equal(again[name], state)
