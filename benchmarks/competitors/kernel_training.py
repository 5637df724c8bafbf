"""Trains charlstm with another layer in the place of its scan: a kernel of `benchmarks.kernels`."""

import dataclasses
import tempfile
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from benchmarks.competitors import Competitor, charlstm_training
from benchmarks.kernels import layers
from benchmarks.kernels.layers import LayerFunction
from charlstm.config import Config
from charlstm.data.corpus import Alphabet
from charlstm.errors import UserError
from charlstm.model.cell import Layer
from charlstm.model.recurrence.base import LayerByLayer, Structure
from charlstm.model.stack import State
from charlstm.runtime.meshes import DATA_AXIS
from charlstm.training.program import Program


@dataclasses.dataclass(frozen=True)
class KernelRecurrence(LayerByLayer):
    """Runs the stack layer by layer, each as a kernel does.

    Attributes:
      layer: the kernel, with its gradient.
    """

    name: ClassVar[str] = "kernel"
    layer: LayerFunction

    def run_layer(
        self, network: Structure, layer: Layer, inputs: jax.Array, state: State
    ) -> tuple[jax.Array, State]:
        """See `LayerByLayer`.

        Raises:
          UserError: the compute dtype is not the kernels'.
        """
        if network.compute.dtype != jnp.bfloat16:
            raise UserError("the kernels compute in bfloat16: set model.compute_dtype=bfloat16")
        share = network.cell.project(network.compute, inputs, layer)
        # JAX cannot see how to split a kernel's streams over devices.
        window, states = jax.P(None, DATA_AXIS, None), jax.P(DATA_AXIS, None)
        run = jax.shard_map(
            self.layer,
            in_specs=(window, jax.P(None, None), states, states),
            out_specs=(window, states, states),
            check_vma=False,
        )
        outputs, h, c = run(share, layer["weight_hh"], *state)
        return outputs, (h, c)


def training(spec: dict[str, Any], layer: LayerFunction) -> charlstm_training.Training:
    """Returns charlstm's training with a layer; see `charlstm_training.Training` for the spec."""

    class KernelProgram(Program):
        """Computes the updates of a configuration with the layer."""

        def __init__(self, config: Config, alphabet: Alphabet, mesh: jax.sharding.Mesh):
            super().__init__(config, alphabet, mesh)
            self.network = self.network.replace(recurrence=KernelRecurrence(layer))

    return charlstm_training.Training(spec, KernelProgram)


def prepare(spec: dict[str, Any]) -> Competitor:
    """Prepares training; a run makes `count` updates.

    Args:
      spec: as for `charlstm_training.Training`; `kernel`, one of `layers.NAMES`; and optionally
        `clusters` (blocks of a cluster, forward and backward) and `build` (the folder of what is
        built; by default a temporary one).
    """
    clusters = spec.get("clusters", (0, 0))
    with tempfile.TemporaryDirectory() as folder:  # a library that is loaded needs no file
        build = Path(spec.get("build", folder))
        layer = layers.load(spec["kernel"], build, (clusters[0], clusters[1]))
    competitor = charlstm_training.competitor(training(spec, layer))
    return Competitor(competitor.run, competitor.info | {"recurrence": spec["kernel"]})
