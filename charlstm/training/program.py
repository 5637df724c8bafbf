"""What a configuration computes: the state it starts from and the compiled dispatch."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax

from charlstm import coordination, distributed
from charlstm.config import Config, ModelConfig
from charlstm.data.corpus import Alphabet
from charlstm.data.mapped import release
from charlstm.data.streams import Streams, resident_bytes
from charlstm.evaluation.evaluator import Evaluator
from charlstm.model import recurrence
from charlstm.model.dropout import Dropout
from charlstm.model.language_model import Params
from charlstm.training.averaging import Averaging
from charlstm.training.host_windows import HostWindows
from charlstm.training.layout import Layout
from charlstm.training.optimizer import make_optimizer, make_schedule
from charlstm.training.state import TrainState, init_state
from charlstm.training.step import Forward, UpdateMetrics, make_dispatch, make_update

# The most updates in one dispatch. Windows read on the host travel with each dispatch, so there
# it is fewer.
MAX_UPDATES_PER_DISPATCH = 256
MAX_UPDATES_PER_HOST_DISPATCH = 32

Update = Callable[[TrainState, jax.Array], tuple[TrainState, UpdateMetrics]]


class Dispatch(Protocol):
    """Several updates in one call that does not wait for them."""

    max_updates: int

    def __call__(
        self, state: TrainState, step: int, count: int
    ) -> tuple[TrainState, UpdateMetrics]:
        """Makes updates `step` … `step + count - 1`.

        Args:
          state: donated.
          step: the updates made before.
          count: at most `max_updates`.

        Returns:
          The state after them, and the metrics of each [max_updates], zero beyond `count`.
        """


class Program:
    """The computation of a configuration on a mesh.

    Args:
      config: the experiment.
      alphabet: of the model.
      mesh: the devices, in force as `jax.set_mesh`.
    """

    def __init__(self, config: Config, alphabet: Alphabet, mesh: jax.sharding.Mesh):
        self._config, self._alphabet, self._mesh = config, alphabet, mesh
        self.optimizer: optax.GradientTransformation = make_optimizer(config.optimizer)
        self.layout = Layout(mesh, config.mesh.shard)
        self._averaging = Averaging.of(config.optimizer)
        self._initialise = jax.jit(self._initial_state)

    def initialise(self, seed: int | jax.Array) -> TrainState:
        """The state before the first update, from a seed below 2³²."""
        return self._initialise(np.uint32(seed))

    def _initial_state(self, seed: jax.Array) -> TrainState:
        state = init_state(
            self._config.model,
            self._alphabet.size,
            self._config.data.num_streams,
            self.optimizer,
            seed,
            axis=distributed.DATA_AXIS,
        )
        average = self._averaging.start(state.params)
        return self.layout.store(dataclasses.replace(state, average=average))

    def start_from(self, params: Params, state: TrainState) -> TrainState:
        """A new run's state with other weights, which are replicated and stay as they are."""

        def replaced(params: Params, state: TrainState) -> TrainState:
            opt_state, average = self.optimizer.init(params), self._averaging.start(params)
            return self.layout.store(
                TrainState(state.step, params, opt_state, state.carry, state.key, average)
            )

        return jax.jit(replaced)(params, state)

    def whole(self, params: Params) -> Params:
        """The parameters on every device whole, for sampling."""
        return jax.jit(self.layout.gather)(params) if self.layout.splits_weights else params

    def evaluator_of(self, data: np.ndarray) -> Callable[..., Evaluator]:
        """Makes an `Evaluator` of a corpus between two bounds, with a `reset_every`."""
        make = evaluator_of(
            self._config.model, data, self._alphabet, self._mesh, self._config.mesh.model
        )
        return functools.partial(make, gather=self.layout.for_computing)

    def abstract_state(self) -> TrainState:
        """The shapes, dtypes and shardings of the state, and none of its numbers."""
        shapes = jax.eval_shape(self._initialise, jax.ShapeDtypeStruct((), jnp.uint32))

        def on_devices(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
            spec = jax.P() if leaf.sharding is None else leaf.sharding.spec
            sharding = jax.NamedSharding(self._mesh, spec)
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

        return jax.tree.map(on_devices, shapes)

    def update(self) -> Update:
        """The pure function of one update."""
        model, alphabet, training = self._config.model, self._alphabet, self._config.training
        forward = Forward(
            compute_dtype=dtype_of(model),
            recurrence_name=training_recurrence_of(self._config),
            dropout=Dropout(
                input=model.input_dropout,
                between=model.dropout,
                output=model.output_dropout,
                weights=model.weight_dropout,
                kind=model.dropout_kind,
            ),
            encode_table=None if alphabet.kind == "bytes" else jnp.asarray(alphabet.encode_table),
            carry_state=self._config.data.carry_state,
            activation_regularization=training.activation_regularization,
            temporal_activation_regularization=training.temporal_activation_regularization,
        )
        schedule = make_schedule(self._config.optimizer, self._config.training.num_updates)
        return make_update(forward, self.optimizer, schedule, self.layout, self._averaging)

    def compile(
        self, streams: Streams, text: np.ndarray, state: TrainState, resident: bool | None = None
    ) -> "CompiledDispatch":
        """The dispatch, compiled for this state; see `compile_dispatch`."""
        return compile_dispatch(self.update(), streams, text, state, self._mesh, resident)


class CompiledDispatch:
    """A dispatch compiled ahead of time: other shapes are an error and no new compilation."""

    def __init__(
        self,
        compiled: Any,
        max_updates: int,
        put_count: Callable[[int], jax.Array],
        inputs: Callable[[int, int], tuple[jax.Array, ...]],
    ):
        """Takes the compiled function, and what makes its arguments behind the state."""
        self.max_updates = max_updates
        self._compiled, self._put_count, self._inputs = compiled, put_count, inputs

    def __call__(
        self, state: TrainState, step: int, count: int
    ) -> tuple[TrainState, UpdateMetrics]:
        """See `Dispatch`."""
        return self._compiled(state, self._put_count(count), *self._inputs(step, count))

    def input_seconds(self) -> float:
        """Seconds so far for which a call waited for its text."""
        return self._inputs.seconds if isinstance(self._inputs, HostWindows) else 0.0

    def memory_analysis(self) -> Any:
        """XLA's account of the memory that the program needs on one device, in bytes."""
        return self._compiled.memory_analysis()


def compile_dispatch(
    update: Update,
    streams: Streams,
    text: np.ndarray,
    state: TrainState,
    mesh: jax.sharding.Mesh,
    resident: bool | None = None,
) -> CompiledDispatch:
    """Compiles a dispatch.

    Args:
      update: the pure function of one update.
      streams: what an update reads.
      text: uint8 [N], the training split.
      state: read for its shapes and shardings.
      mesh: the devices.
      resident: whether the text is put on every device whole, or its windows are read on the
        host for each dispatch; None decides by its size.
    """
    whole = distributed.replicated(mesh)
    if resident is None:
        fits = coordination.from_first(lambda: str(len(text) <= resident_bytes()))
        resident = fits == "True"
    max_updates = MAX_UPDATES_PER_DISPATCH if resident else MAX_UPDATES_PER_HOST_DISPATCH
    dispatch = make_dispatch(update, streams, max_updates, on_device=resident)

    def put(number: int, dtype: Any = np.int32) -> jax.Array:
        return distributed.put(np.asarray(number, dtype), whole)

    if resident:
        by_stream = distributed.split_streams(mesh, axis=0, ndim=1)
        first = distributed.put(streams.first_places(), by_stream)
        on_device = distributed.put(np.ascontiguousarray(text), whole)
        release(text)

        def places(step: int, count: int) -> tuple[jax.Array, ...]:
            return put(streams.offset(step), np.uint32), first, on_device

        inputs: Callable[[int, int], tuple[jax.Array, ...]] = places
    else:
        inputs = HostWindows(streams, text, max_updates, mesh)
    compiled = dispatch.lower(state, put(0), *inputs(0, 0)).compile()
    return CompiledDispatch(compiled, max_updates, put, inputs)


def dtype_of(model: ModelConfig) -> Any:
    """The compute dtype that `model.compute_dtype` stands for on this machine."""
    if model.compute_dtype == "auto":
        return jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
    return jnp.dtype(model.compute_dtype)


def evaluator_of(
    model: ModelConfig,
    data: np.ndarray,
    alphabet: Alphabet,
    mesh: jax.sharding.Mesh,
    model_devices: int = 1,
) -> Callable[..., Evaluator]:
    """Makes an `Evaluator` of a corpus between two bounds, computing as a model does."""
    return functools.partial(
        Evaluator,
        data,
        alphabet=alphabet,
        mesh=mesh,
        compute_dtype=dtype_of(model),
        recurrence_name=recurrence_of(model, model_devices),
    )


def training_recurrence_of(config: Config) -> str:
    """The full name of the recurrence that a run of this configuration trains with."""
    return recurrence_of(config.model, config.mesh.model, config.data.num_streams)


def recurrence_of(model: ModelConfig, model_devices: int = 1, num_streams: int = 1) -> str:
    """The full name of the recurrence that `model.recurrence` stands for on this machine.

    Args:
      model: the network.
      model_devices: how many devices share each layer, `mesh.model`.
      num_streams: that are trained on side by side, on all devices together; without them `auto`
        chooses as for one.
    """
    plain = (
        "split"
        if model_devices > 1
        else recurrence.resolve(
            model.recurrence,
            model.hidden_size,
            model.wavefront_chunk,
            model.residuals,
            num_streams,
        )
    )
    return recurrence.with_structure(
        plain, layer_norm=model.layer_norm, connections=model.connections
    )


def one_device() -> jax.sharding.Sharding:
    """Where a model lives that is not being trained."""
    return jax.sharding.SingleDeviceSharding(jax.devices()[0])
