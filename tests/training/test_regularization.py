"""Options of network and loss, each with all others, against their formulas in float64."""

import dataclasses

import jax
import jax.numpy as jnp
import network_reference as reference
import numpy as np
import pytest
from models import float32, network_of
from recurrence_checks import assert_close

from charlstm.config import Config
from charlstm.data.corpus import Alphabet
from charlstm.model.dropout import Dropout, Dropped
from charlstm.model.recurrence import Columns, PallasTpu, Scan
from charlstm.runtime import meshes
from charlstm.training.program import Program
from charlstm.training.update import Objective

T, B, H, V, L = 5, 4, 6, 7, 3
WINDOW = np.random.default_rng(0).integers(0, V, (T + 1, B)).astype(np.uint8)


@dataclasses.dataclass(frozen=True)
class Fixed:
    """Stands where dropout draws its masks."""

    dropped: Dropped

    def draw(self, *_):
        return self.dropped


def fixed_masks(embedding, steps):
    """Masks of rate 1/2 as charlstm has them and as the reference does."""
    rng = np.random.default_rng(9)
    factors = lambda *shape: 2.0 * rng.integers(0, 2, shape)  # noqa: E731
    between, output = factors(L - 1, steps, B, H), factors(steps, B, H)
    weights = factors(L, H, 4 * H)
    ours = {"between": between, "output": output, "weights": list(weights)}
    theirs = {
        "between": np.broadcast_to(between, (L - 1, T, B, H)),
        "output": np.broadcast_to(output, (T, B, H)),
        "weights": weights,
    }
    if embedding:
        ours["input"] = factors(steps, B, embedding)
        theirs["input"] = np.broadcast_to(ours["input"], (T, B, embedding))
    else:
        kept = rng.integers(0, 2, (T, B)) > 0
        ours |= {"kept_symbols": kept, "symbol_scale": 2.0}
        theirs["input"] = np.repeat(2.0 * kept[..., None], V, axis=-1)
    return Dropped(**(float32(ours) | {"symbol_scale": ours.get("symbol_scale", 1.0)})), theirs


@pytest.mark.parametrize(
    ("recurrence", "layer_norm", "connections", "embedding", "steps"),
    [
        (Scan(), False, "plain", 5, 1),
        (Scan(), False, "plain", 0, T),
        (Columns(), False, "residual", 5, T),
        (Scan("state"), False, "skip", 0, 1),
        (PallasTpu(interpret=True), False, "residual", 0, T),
        (Scan(), True, "plain", 0, 1),
        (Scan(), True, "residual", 5, T),
    ],
    ids=str,
)
def test_loss_gradients_and_carry_agree_with_float64(
    recurrence, layer_norm, connections, embedding, steps
):
    params, carry = reference.random_params(
        1, hidden=H, symbols=V, embedding=embedding, layer_norm=layer_norm
    )
    dropped, masks = fixed_masks(embedding, steps)
    weights = {"activation_regularization": 0.7, "temporal_activation_regularization": 0.4}
    network = network_of(recurrence, layer_norm=layer_norm, connections=connections)
    objective = Objective(network, Fixed(dropped), None, **weights)
    run = jax.jit(jax.value_and_grad(objective.loss, has_aux=True))
    key = jax.random.key(0)
    (loss, (nats, _, after)), gradients = run(float32(params), float32(carry), WINDOW, key)
    with jax.enable_x64(True):
        options = {"alpha": 0.7, "beta": 0.4, "masks": masks, "connections": connections}

        def wanted(params):
            return reference.loss(params, carry, WINDOW[:-1], WINDOW[1:], **options)

        found = jax.value_and_grad(wanted, has_aux=True)(jax.tree.map(jnp.asarray, params))
        (wanted_loss, (wanted_nats, wanted_after)), wanted_gradients = jax.device_get(found)
    assert_close(loss, wanted_loss)
    assert_close(nats, wanted_nats)
    assert_close(dict(after), wanted_after)
    assert_close(gradients, wanted_gradients)


@pytest.mark.parametrize(
    "options", [{"connections": "residual"}, {"layer_norm": True}], ids=["residual", "layer norm"]
)
def test_bfloat16_is_near_float32(options):
    layer_norm = options.get("layer_norm", False)
    params, carry = reference.random_params(2, embedding=5, layer_norm=layer_norm, hidden=64)
    for layer in params["layers"].values():  # well conditioned, as trained weights are
        layer["weight_ih"] *= 0.3
        layer["weight_hh"] *= 0.3

    def gradients(dtype):
        objective = Objective(network_of(dtype=dtype, **options), Dropout(), None)
        run = jax.jit(jax.grad(objective.loss, has_aux=True))
        return run(float32(params), float32(carry), WINDOW, jax.random.key(0))

    (low, (_, _, after)), (high, _) = gradients(jnp.bfloat16), gradients(jnp.float32)
    assert {leaf.dtype for leaf in jax.tree.leaves((low, after))} == {jnp.dtype(jnp.float32)}
    norm = lambda tree: np.sqrt(sum(np.sum(x**2) for x in jax.tree.leaves(tree)))  # noqa: E731
    assert norm(jax.tree.map(jnp.subtract, low, high)) < 5e-2 * norm(high)


def test_without_options_the_loss_is_traced_to_the_plain_network_alone():
    params, carry = float32(reference.random_params(3))
    network = network_of(Scan())
    objective = Objective(network, Dropout(), None)

    def plain(params, carry, window, key):
        layers = [params["layers"][str(index)] for index in range(L)]
        inputs, targets = window[:-1], window[1:]
        outputs, carry = Scan()(network, layers, inputs, carry, None)
        kernel = params["head"]["kernel"].astype(jnp.float32)
        logits = jnp.einsum("tbh,hv->tbv", outputs, kernel, preferred_element_type=jnp.float32)
        logits = logits + params["head"]["bias"]
        is_target = targets[..., None].astype(jnp.int32) == jnp.arange(V)
        found = jnp.sum(logits, axis=-1, where=is_target)
        nats = jax.nn.logsumexp(logits, axis=-1) - found
        correct = found >= jnp.max(logits, axis=-1)
        mean, accuracy = jnp.mean(nats), jnp.mean(correct.astype(jnp.float32))
        return mean, (mean, accuracy, carry)

    arguments = params, carry, WINDOW, jax.random.key(0)
    assert str(jax.make_jaxpr(objective.loss)(*arguments)) == str(jax.make_jaxpr(plain)(*arguments))


def test_without_options_the_state_holds_no_more_arrays():
    program = Program(Config(), Alphabet.of("bytes", WINDOW), meshes.make_mesh(32))
    state = program.initialize(0)
    assert state.average == {} and state.weights is state.params
    assert sorted(state.params) == ["head", "layers"]
    assert all(
        sorted(layer) == ["bias", "weight_hh", "weight_ih"]
        for layer in state.params["layers"].values()
    )


@pytest.mark.parametrize("embedding", [0, 16])
def test_drawn_masks_drop_the_rates_and_hold_as_long_as_they_should(embedding):
    params, _ = reference.random_params(4, hidden=64, symbols=50, embedding=embedding, num_layers=2)
    symbols = np.random.default_rng(0).integers(0, 50, (40, 32)).astype(np.uint8)
    rates = {"input": 0.2, "between": 0.3, "output": 0.4, "weights": 0.5}
    params = float32(params)

    def draw(kind, seed=0):
        return Dropout(**rates, kind=kind).draw(jax.random.key(seed), params, symbols)

    for kind, steps in (("standard", 40), ("locked", 1)):
        found = draw(kind)
        shapes = {"between": (1, steps, 32, 64), "output": (steps, 32, 64)}
        shapes |= {"input": (steps, 32, 16)} if embedding else {}
        for name, shape in shapes.items():
            mask = np.asarray(getattr(found, name))
            assert mask.shape == shape
            kept = np.float32(1 / (1 - rates[name]))
            assert set(np.unique(mask)) == {0, kept}
            np.testing.assert_allclose(np.mean(mask == 0), rates[name], atol=0.05)
        assert [mask.shape for mask in found.weights] == [(64, 256)] * 2
        for mask in found.weights:
            assert set(np.unique(mask)) == {0, 2} and abs(np.mean(mask) - 1) < 0.02
        assert (found.weights[0] != found.weights[1]).any()
        if not embedding:
            kept = np.asarray(found.kept_symbols)
            np.testing.assert_allclose(kept.mean(), 0.8, atol=0.05)
            fates = {}  # of each symbol in each stream
            for (t, b), symbol in np.ndenumerate(symbols):
                fates.setdefault((b, symbol), set()).add(bool(kept[t, b]))
            assert all(len(fate) == 1 for fate in fates.values()) == (kind == "locked")
    one, other = draw("locked"), draw("locked", seed=1)
    assert (one.output != other.output).any()
    assert Dropout().draw(jax.random.key(0), params, symbols) is None
