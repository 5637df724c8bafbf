"""The loop over time steps: `jax.lax.scan`, whatever is done about bfloat16."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models import CUDA, TPU

from charlstm.model import time_loop
from charlstm.runtime.targets import Target

CPU = Target("cpu", "cpu")


def step(state, inputs):
    halves, singles, count = inputs
    state = state + halves.astype(jnp.float32) * singles
    return state, {"half": state.astype(jnp.bfloat16), "single": state, "count": count + 1}


@pytest.fixture
def inputs():
    rng = np.random.default_rng(0)
    # Small integers: sums and products are exact, in whatever order they are computed.
    floats = jnp.asarray(rng.integers(-4, 5, size=(2, 6, 5)), jnp.float32)
    return floats[0].astype(jnp.bfloat16), floats[1], jnp.arange(6)


@pytest.mark.parametrize("target", [CPU, CUDA], ids=lambda target: target.platform)
@pytest.mark.parametrize("reverse", [False, True])
def test_it_computes_what_jax_scan_computes(inputs, reverse, target):
    state = jnp.ones(5)
    found = jax.jit(lambda: time_loop.scan(target, step, state, inputs, reverse=reverse))()
    expected = jax.jit(lambda: jax.lax.scan(step, state, inputs, reverse=reverse))()
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for left, right in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="what is said of XLA's CPU backend")
def test_no_time_step_converts_the_whole_stack(inputs):
    def stacks(scan):
        def run(state, inputs):
            return scan(step, state, inputs)[1]["half"]

        program = jax.jit(run).lower(jnp.ones(5), inputs).compile().as_text()
        return "f32[6,5]{1,0} dynamic-update-slice" in program

    assert not stacks(partial(time_loop.scan, CPU))
    assert stacks(jax.lax.scan), (
        "XLA stores bfloat16 in place now: time_loop is not needed any more"
    )


def test_a_gpu_makes_several_time_steps_in_one_turn_of_the_loop(inputs):
    def turns(target):
        def run(state, inputs):
            return time_loop.scan(target, step, state, inputs)

        many = jax.tree.map(lambda array: jnp.concatenate([array] * 8), inputs)
        (loop,) = (
            equation
            for equation in jax.make_jaxpr(run)(jnp.ones(5), many).eqns
            if equation.primitive.name == "scan"
        )
        return loop.params["length"] // loop.params["unroll"]

    assert turns(CUDA) == 6 and turns(TPU) == 48
