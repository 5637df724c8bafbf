"""charlstm's training with its options left out of the program, instead of switched off in it.

The time loop, head, loss, clipping, Adam and dispatch are charlstm's own. Nothing is there for
dropout, regularisation of activations, averages, normalisation, connections or embeddings, for an
alphabet or for shares of the optimizer's state; nor is an update skipped that is not finite.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from benchmarks.contestants import Contestant, charlstm_training
from charlstm.model import language_model, recurrence
from charlstm.training.optimizer import make_optimizer
from charlstm.training.program import Program, Update, dtype_of, recurrence_of
from charlstm.training.state import TrainState
from charlstm.training.step import UpdateMetrics


class BareTraining(charlstm_training.Training):
    """A run without options; its spec is `Training`'s, whose `fields` may ask for none."""

    def update(self, program: Program) -> Update:
        """The pure function of one update."""
        config = self.config
        optimizer, rate = make_optimizer(config.optimizer), config.optimizer.learning_rate
        run, dtype = recurrence.get(recurrence_of(config.model)), dtype_of(config.model)

        def loss(params: Any, carry: recurrence.Carry, window: jax.Array) -> Any:
            layers = [params["layers"][str(index)] for index in range(config.model.num_layers)]
            outputs, carry = run(layers, window[:-1], carry, None, dtype)
            logits = language_model.logits_of(params, outputs)
            nats, correct = language_model.next_symbol_nats(logits, window[1:])
            return jnp.mean(nats), (jnp.mean(correct.astype(jnp.float32)), carry)

        def update(state: TrainState, window: jax.Array) -> tuple[TrainState, UpdateMetrics]:
            (nats, (accuracy, carry)), gradients = jax.value_and_grad(loss, has_aux=True)(
                state.params, state.carry, window
            )
            direction, opt_state = optimizer.update(gradients, state.opt_state, state.params)
            params = jax.tree.map(lambda p, d: p - rate * d, state.params, direction)
            norm, zero = optax.tree.norm(gradients), jnp.float32(0)
            metrics = UpdateMetrics(nats, accuracy, norm, jnp.float32(rate), zero)
            after = TrainState(state.step + 1, params, opt_state, carry, state.key, state.average)
            return after, metrics

        return update


def prepare(spec: dict[str, Any]) -> Contestant:
    """A turn is `count` updates; see `BareTraining` for the spec."""
    return charlstm_training.contestant(BareTraining(spec))
