"""The network against references written from the equations."""

import jax
import jax.numpy as jnp
import lstm_reference as reference
import numpy as np
import pytest
from models import float32, network_of

from charlstm.model.dropout import Dropped
from charlstm.model.network import next_symbol_nats
from charlstm.model.recurrence import Columns, Scan

RELATIVE = 1e-5
SCANS = [Scan(), Columns(), Scan("state")]


def loss_and_gradients(
    params, carry, inputs, targets, masks=None, dtype=jnp.float32, recurrence=SCANS[0]
):
    network = network_of(recurrence, dtype=dtype)

    def loss(params):
        dropped = None if masks is None else Dropped(between=masks)
        outputs, after = network.outputs(params, carry, inputs, dropped)
        logits = network.logits(params, outputs)
        return jnp.mean(next_symbol_nats(logits, targets)[0]), after

    (value, after), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    return value, gradients, after


def assert_close(found, wanted, relative=RELATIVE):
    """Every array within `relative` of the reference, by its norm."""
    jax.tree.map(
        lambda f, w: np.testing.assert_array_less(
            np.linalg.norm(np.asarray(f, np.float64) - w), relative * np.linalg.norm(w)
        ),
        found,
        wanted,
    )


# Each number of layers and each recurrence with both windows.
@pytest.mark.parametrize(
    ("num_layers", "window", "recurrence"),
    [
        (num_layers, (1, 9)[(num_layers + place) % 2], recurrence)
        for num_layers in (1, 2, 3)
        for place, recurrence in enumerate(SCANS)
    ],
    ids=str,
)
def test_loss_gradients_and_carry_agree_with_float64(num_layers, window, recurrence):
    case = reference.random_case(num_layers, num_layers=num_layers, window=window)
    loss, gradients, after = reference.loss_and_gradients(*case)
    params, carry, inputs, targets = case
    found = loss_and_gradients(
        float32(params), float32(carry), inputs, targets, recurrence=recurrence
    )
    assert_close(found[0], loss)
    assert_close(found[1], gradients)
    assert_close(dict(found[2]), after)


@pytest.mark.parametrize("recurrence", SCANS, ids=str)
@pytest.mark.parametrize("steps", [1, 9], ids=["locked", "standard"])
def test_dropout_masks_act_between_layers_as_in_the_reference(steps, recurrence):
    params, carry, inputs, targets = reference.random_case(5, num_layers=3)
    masks = np.random.default_rng(0).integers(0, 2, (2, steps, 4, 12)) * 2.0
    loss, gradients, after = reference.loss_and_gradients(params, carry, inputs, targets, masks)
    case = float32(params), float32(carry), inputs, targets, float32(masks)
    found = loss_and_gradients(*case, recurrence=recurrence)
    assert_close(found[0], loss)
    assert_close(found[1], gradients)
    assert_close(dict(found[2]), after)


def test_gradient_reaches_the_carry():
    params, carry, inputs, targets = reference.random_case(3)

    def loss(h):
        carry_before = {"h": h, "c": float32(carry["c"])}
        logits, _ = network_of().apply(float32(params), carry_before, inputs)
        return jnp.mean(next_symbol_nats(logits, targets)[0])

    found = jax.jit(jax.grad(loss))(float32(carry["h"]))
    step = np.zeros_like(carry["h"])
    step[1, 2, 3] = 1e-6

    def reference_loss(h):
        return reference.loss_and_gradients(params, {**carry, "h": h}, inputs, targets)[0]

    slope = (reference_loss(carry["h"] + step) - reference_loss(carry["h"] - step)) / 2e-6
    np.testing.assert_allclose(found[1, 2, 3], slope, rtol=1e-4)


@pytest.mark.parametrize("recurrence", SCANS, ids=str)
def test_bfloat16_is_near_float32_and_keeps_state_and_logits_in_float32(recurrence):
    params, carry, inputs, targets = reference.random_case(7)
    loss, gradients, _ = reference.loss_and_gradients(params, carry, inputs, targets)
    case = float32(params), float32(carry), inputs, targets
    found = loss_and_gradients(*case, dtype=jnp.bfloat16, recurrence=recurrence)
    assert_close(found[0], loss, relative=2e-2)
    assert_close(found[1], gradients, relative=5e-2)
    assert {leaf.dtype for leaf in jax.tree.leaves(found[1:])} == {jnp.dtype(jnp.float32)}


def test_two_windows_with_the_carry_equal_one_long_window():
    params, carry, inputs, _ = reference.random_case(9, window=10)
    params, carry = float32(params), float32(carry)
    apply = jax.jit(network_of().apply)
    whole, after = apply(params, carry, inputs)
    first, middle = apply(params, carry, inputs[:5])
    second, last = apply(params, middle, inputs[5:])
    np.testing.assert_allclose(jnp.concatenate([first, second]), whole, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(last["c"], after["c"], rtol=1e-5, atol=1e-6)


def test_agrees_with_pytorch():
    torch = pytest.importorskip("torch")
    params, carry, inputs, targets = reference.random_case(11, num_layers=3)
    hidden, symbols = params["head"]["kernel"].shape
    lstm = torch.nn.LSTM(symbols, hidden, num_layers=3).double()
    with torch.no_grad():
        for index in range(3):
            layer = params["layers"][str(index)]
            getattr(lstm, f"weight_ih_l{index}").copy_(torch.tensor(layer["weight_ih"].T))
            getattr(lstm, f"weight_hh_l{index}").copy_(torch.tensor(layer["weight_hh"].T))
            getattr(lstm, f"bias_ih_l{index}").copy_(torch.tensor(layer["bias"]))
            getattr(lstm, f"bias_hh_l{index}").zero_()
    one_hot = torch.eye(symbols, dtype=torch.float64)[torch.tensor(inputs.astype(np.int64))]
    outputs, _ = lstm(one_hot, (torch.tensor(carry["h"]), torch.tensor(carry["c"])))
    kernel = torch.tensor(params["head"]["kernel"], requires_grad=True)
    logits = outputs @ kernel + torch.tensor(params["head"]["bias"])
    loss = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), torch.tensor(targets.astype(np.int64)).flatten()
    )
    loss.backward()
    value, gradients, _ = loss_and_gradients(float32(params), float32(carry), inputs, targets)
    assert_close(value, loss.item())
    assert_close(gradients["head"]["kernel"], kernel.grad.numpy())
    for index in range(3):
        for ours, theirs in (("weight_ih", "weight_ih"), ("weight_hh", "weight_hh")):
            wanted = getattr(lstm, f"{theirs}_l{index}").grad.numpy().T
            assert_close(gradients["layers"][str(index)][ours], wanted)
        assert_close(
            gradients["layers"][str(index)]["bias"], getattr(lstm, f"bias_ih_l{index}").grad.numpy()
        )


def test_each_next_symbol_costs_its_negative_log_likelihood():
    logits = jnp.log(jnp.array([[[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]]]))
    nats, correct = next_symbol_nats(logits, np.array([[0, 1]], np.uint8))
    np.testing.assert_allclose(nats, -np.log([[0.5, 0.2]]), rtol=1e-6)
    assert correct.tolist() == [[True, False]]


def dot_operands(jaxpr):
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            yield {variable.aval.dtype for variable in equation.invars}
        for value in equation.params.values():
            for inner in value if isinstance(value, (list, tuple)) else [value]:
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from dot_operands(inner)


def test_with_products_in_bfloat16_no_product_of_an_update_takes_float32():
    params, carry, inputs, targets = reference.random_case(0)[:4]
    network = network_of(dtype=jnp.bfloat16)

    def loss(params):
        logits, _ = network.apply(params, float32(carry), jnp.asarray(inputs))
        return jnp.mean(next_symbol_nats(logits, jnp.asarray(targets))[0])

    found = list(dot_operands(jax.make_jaxpr(jax.grad(loss))(float32(params)).jaxpr))
    assert len(found) > 8
    assert all(dtypes == {jnp.dtype(jnp.bfloat16)} for dtypes in found)
