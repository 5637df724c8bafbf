"""The network against references written from the equations."""

import jax
import jax.numpy as jnp
import lstm_reference as reference
import numpy as np
import pytest

from charlstm.model import language_model
from charlstm.model.dropout import Dropped

RELATIVE = 1e-5
SCANS = ["scan", "scan_columns", "scan_recompute"]


def float32(tree):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), tree)


def loss_and_gradients(
    params, carry, inputs, targets, masks=None, compute_dtype=jnp.float32, name="scan"
):
    def loss(params):
        outputs, after = language_model.outputs_of(
            params,
            carry,
            inputs,
            None if masks is None else Dropped(between=masks),
            compute_dtype=compute_dtype,
            recurrence_name=name,
        )
        logits = language_model.logits_of(params, outputs)
        return jnp.mean(language_model.next_symbol_nats(logits, targets)[0]), after

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


@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("window", [1, 9])
@pytest.mark.parametrize("name", SCANS)
def test_loss_gradients_and_carry_agree_with_float64(num_layers, window, name):
    case = reference.random_case(num_layers, num_layers=num_layers, window=window)
    loss, gradients, after = reference.loss_and_gradients(*case)
    params, carry, inputs, targets = case
    found = loss_and_gradients(float32(params), float32(carry), inputs, targets, name=name)
    assert_close(found[0], loss)
    assert_close(found[1], gradients)
    assert_close(dict(found[2]), after)


@pytest.mark.parametrize("name", SCANS)
@pytest.mark.parametrize("steps", [1, 9], ids=["locked", "standard"])
def test_dropout_masks_act_between_layers_as_in_the_reference(steps, name):
    params, carry, inputs, targets = reference.random_case(5, num_layers=3)
    masks = np.random.default_rng(0).integers(0, 2, (2, steps, 4, 12)) * 2.0
    loss, gradients, after = reference.loss_and_gradients(params, carry, inputs, targets, masks)
    found = loss_and_gradients(
        float32(params), float32(carry), inputs, targets, jnp.asarray(masks, jnp.float32), name=name
    )
    assert_close(found[0], loss)
    assert_close(found[1], gradients)
    assert_close(dict(found[2]), after)


def test_gradient_reaches_the_carry():
    params, carry, inputs, targets = reference.random_case(3)

    def loss(h):
        logits, _ = language_model.apply(
            float32(params), {"h": h, "c": float32(carry["c"])}, inputs
        )
        return jnp.mean(language_model.next_symbol_nats(logits, targets)[0])

    found = jax.grad(loss)(float32(carry["h"]))
    step = np.zeros_like(carry["h"])
    step[1, 2, 3] = 1e-6

    def reference_loss(h):
        return reference.loss_and_gradients(params, {**carry, "h": h}, inputs, targets)[0]

    slope = (reference_loss(carry["h"] + step) - reference_loss(carry["h"] - step)) / 2e-6
    np.testing.assert_allclose(found[1, 2, 3], slope, rtol=1e-4)


@pytest.mark.parametrize("name", SCANS)
def test_bfloat16_is_near_float32_and_keeps_state_and_logits_in_float32(name):
    params, carry, inputs, targets = reference.random_case(7)
    loss, gradients, _ = reference.loss_and_gradients(params, carry, inputs, targets)
    found = loss_and_gradients(
        float32(params), float32(carry), inputs, targets, compute_dtype=jnp.bfloat16, name=name
    )
    assert_close(found[0], loss, relative=2e-2)
    assert_close(found[1], gradients, relative=5e-2)
    assert {leaf.dtype for leaf in jax.tree.leaves(found[1:])} == {jnp.dtype(jnp.float32)}


def test_two_windows_with_the_carry_equal_one_long_window():
    params, carry, inputs, _ = reference.random_case(9, window=10)
    params, carry = float32(params), float32(carry)
    whole, after = language_model.apply(params, carry, inputs)
    first, middle = language_model.apply(params, carry, inputs[:4])
    second, last = language_model.apply(params, middle, inputs[4:])
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


def test_initial_parameters_have_the_shapes_and_the_forget_bias_asked_for():
    params = language_model.init_params(
        jax.random.key(0), alphabet_size=84, num_layers=3, hidden_size=1024, forget_bias=1.0
    )
    # The size that the literature's 3 × LSTM(1024) over 84 symbols has with one bias a gate.
    assert language_model.num_parameters(params) == 21_413_972
    bias = params["layers"]["1"]["bias"]
    assert (bias[1024:2048] == 1).all() and (bias[:1024] == 0).all() and (bias[2048:] == 0).all()


def test_initial_weights_have_the_deviations_that_the_gain_says():
    params = language_model.init_params(
        jax.random.key(1), alphabet_size=256, num_layers=2, hidden_size=64, forget_bias=1.0
    )
    gain = language_model.INIT_GAIN
    lower, upper = params["layers"]["0"], params["layers"]["1"]
    np.testing.assert_allclose(jnp.std(lower["weight_ih"]), gain, rtol=0.02)
    np.testing.assert_allclose(jnp.std(upper["weight_ih"]), gain / 8, rtol=0.02)
    np.testing.assert_allclose(jnp.std(params["head"]["kernel"]), gain / 8, rtol=0.02)
    for gate in jnp.split(upper["weight_hh"], 4, axis=1):
        np.testing.assert_allclose(gate @ gate.T, np.eye(64), atol=1e-5)


@pytest.mark.parametrize("embedding_size", [0, 24])
def test_symbols_drive_the_gates_as_much_through_an_embedding(embedding_size):
    params = language_model.init_params(
        jax.random.key(2),
        alphabet_size=256,
        num_layers=1,
        hidden_size=64,
        forget_bias=1.0,
        embedding_size=embedding_size,
    )
    table = language_model.layers_of(params)[0]["weight_ih"]
    assert table.shape == (256, 256)
    np.testing.assert_allclose(jnp.std(table), language_model.INIT_GAIN, rtol=0.05)


def test_next_symbol_nats_and_hits():
    logits = jnp.log(jnp.array([[[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]]]))
    nats, correct = language_model.next_symbol_nats(logits, np.array([[0, 1]], np.uint8))
    np.testing.assert_allclose(nats, -np.log([[0.5, 0.2]]), rtol=1e-6)
    assert correct.tolist() == [[True, False]]
