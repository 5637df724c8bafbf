"""Trains charlstm with its options absent from the loss, instead of switched off in it.

The time loop, head, clipping, Adam, the check for finite numbers and the dispatch are charlstm's
own. There is no code for dropout, regularization of activations, normalization, connections or
embeddings, or for an alphabet or a state that is not carried. Averages of the parameters and a
shared optimizer state are charlstm's own too: while they are off, nothing of them is traced.
"""

from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.competitors import Competitor, charlstm_training
from charlstm.model.dropout import Dropout
from charlstm.model.network import next_symbol_nats
from charlstm.model.parameters import Params
from charlstm.model.stack import Carry
from charlstm.training.program import Program
from charlstm.training.update import Objective


class BareObjective(Objective):
    """Computes the loss of a window without any option."""

    def loss(
        self, params: Params, carry: Carry, window: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array, Carry]]:
        """Returns what `Objective.loss` returns; the key is not used."""
        del key
        network = self.network
        layers = [params["layers"][str(index)] for index in range(len(params["layers"]))]
        outputs, carry = network.recurrence(network, layers, window[:-1], carry, None)
        nats, correct = next_symbol_nats(network.logits(params, outputs), window[1:])
        mean, accuracy = jnp.mean(nats), jnp.mean(correct.astype(jnp.float32))
        return mean, (mean, accuracy, carry)


class BareProgram(Program):
    """Computes the updates of a configuration that asks for no option."""

    def objective(self) -> Objective:
        """Returns the loss of a window without any option."""
        return BareObjective(self.network, Dropout(), encode_table=None)


def prepare(spec: dict[str, Any]) -> Competitor:
    """Prepares training, with `count` updates in a run; see `Training` for the spec."""
    return charlstm_training.competitor(charlstm_training.Training(spec, BareProgram))
