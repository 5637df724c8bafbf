"""charlstm's training with its options left out of the loss, instead of switched off in it.

The time loop, head, clipping, Adam, the check for finite numbers and the dispatch are charlstm's
own. Nothing is there for dropout, regularisation of activations, normalisation, connections or
embeddings, for an alphabet or a state that is not carried, for averages of the parameters or shares
of the optimizer's state.
"""

from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.contestants import Contestant, charlstm_training
from charlstm.model import language_model, recurrence
from charlstm.model.dropout import Dropout
from charlstm.model.language_model import Params
from charlstm.training.optimizer import make_schedule
from charlstm.training.program import Program, Update, dtype_of, training_recurrence_of
from charlstm.training.step import Forward, make_update


class BareForward(Forward):
    """How a window is run through a network without options."""

    def loss(
        self, params: Params, carry: recurrence.Carry, window: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array, recurrence.Carry]]:
        """See `Forward.loss`; the key is not used."""
        del key
        layers = [params["layers"][str(index)] for index in range(len(params["layers"]))]
        run = recurrence.get(self.recurrence_name)
        outputs, carry = run(layers, window[:-1], carry, None, self.compute_dtype)
        logits = language_model.logits_of(params, outputs)
        nats, correct = language_model.next_symbol_nats(logits, window[1:])
        mean, accuracy = jnp.mean(nats), jnp.mean(correct.astype(jnp.float32))
        return mean, (mean, accuracy, carry)


class BareProgram(Program):
    """The computation of a configuration that asks for no option."""

    def update(self) -> Update:
        """The pure function of one update."""
        model = self._config.model
        forward = BareForward(
            dtype_of(model), training_recurrence_of(self._config), Dropout(), None
        )
        schedule = make_schedule(self._config.optimizer, self._config.training.num_updates)
        return make_update(forward, self.optimizer, schedule)


def prepare(spec: dict[str, Any]) -> Contestant:
    """A turn is `count` updates; see `Training` for the spec."""
    return charlstm_training.contestant(charlstm_training.Training(spec, BareProgram))
