"""Networks and language models around given parameters, for tests."""

import jax
import jax.numpy as jnp

from charlstm.data.corpus import Alphabet
from charlstm.model.cell import cell_for
from charlstm.model.compute import Compute
from charlstm.model.language_model import LanguageModel
from charlstm.model.network import Network
from charlstm.model.recurrence import Scan
from charlstm.runtime.targets import Target

CUDA = Target("cuda", "NVIDIA H100 80GB HBM3")
TPU = Target("tpu", "TPU v5e")


def float32(tree):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), tree)


def network_of(
    recurrence=None, *, dtype=jnp.float32, layer_norm=False, connections="plain", target=None
):
    """A network; without a recurrence a scan, without a target for this machine."""
    compute = Compute(jnp.dtype(dtype), target or Target.of_this_machine())
    return Network(cell_for(layer_norm), connections, recurrence or Scan(), compute)


def model_of(params, symbols, *, reset_every=0, **options):
    """A language model over the bytes `symbols`; the options are those of `network_of`."""
    alphabet = Alphabet("corpus", symbols)
    return LanguageModel(float32(params), alphabet, network_of(**options), reset_every)
