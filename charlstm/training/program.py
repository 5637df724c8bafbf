"""The computation of a configuration: the state it starts from, and its update."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from charlstm.config import Config
from charlstm.data.corpus import Alphabet
from charlstm.data.streams import Streams
from charlstm.model import parameters
from charlstm.model.dropout import Dropout
from charlstm.model.language_model import LanguageModel
from charlstm.model.network import Network
from charlstm.model.parameters import Params
from charlstm.runtime import meshes
from charlstm.runtime.targets import Target
from charlstm.training.averaging import Averaging
from charlstm.training.dispatch import CompiledDispatch, compile_dispatch, lower_dispatch
from charlstm.training.layout import Layout
from charlstm.training.optimizer import make_optimizer, make_schedule
from charlstm.training.train_state import TrainState, keys
from charlstm.training.update import Objective, Update, make_update


class Program:
    """The computation of a configuration on a mesh.

    Args:
      config: the experiment.
      alphabet: of the model.
      mesh: the devices, in force as `jax.set_mesh`.

    Attributes:
      mesh: as given.
      target: the kind of its devices.
      network, optimizer, layout, averaging: what the configuration says.
    """

    def __init__(self, config: Config, alphabet: Alphabet, mesh: jax.sharding.Mesh):
        self._config, self._alphabet, self.mesh = config, alphabet, mesh
        self.target = Target.of_mesh(mesh)
        self.network = Network.of(
            config.model,
            self.target,
            num_streams=config.data.num_streams,
            model_devices=config.mesh.model,
        )
        self.network.recurrence.require_streams(
            config.data.num_streams // mesh.shape[meshes.DATA_AXIS], config.model.hidden_size
        )
        self.optimizer: optax.GradientTransformation = make_optimizer(config.optimizer)
        self.layout = Layout(mesh, config.mesh.shard)
        self.averaging = Averaging.of(config.optimizer)
        self._initialize = jax.jit(self._initial_state)
        self._for_computing = jax.jit(self.layout.for_computing)
        self._gather = jax.jit(self.layout.gather)

    def initialize(self, seed: int | jax.Array) -> TrainState:
        """Returns the state before the first update, from a seed below 2³²."""
        return self._initialize(np.uint32(seed))

    def _initial_state(self, seed: jax.Array) -> TrainState:
        init_key, key = keys(seed)
        params = parameters.init_params(init_key, self._config.model, self._alphabet.size)
        num_streams = self._config.data.num_streams
        state = TrainState(
            step=jnp.int32(0),
            params=params,
            opt_state=self.optimizer.init(params),
            carry=parameters.zero_carry(params, num_streams, meshes.DATA_AXIS),
            key=key,
            average=self.averaging.start(params),
        )
        return self.layout.store(state)

    def start_from(self, params: Params, state: TrainState) -> TrainState:
        """Returns a new run's state with other weights, which are replicated and stay valid."""

        def replaced(params: Params, state: TrainState) -> TrainState:
            opt_state, average = self.optimizer.init(params), self.averaging.start(params)
            return self.layout.store(
                TrainState(state.step, params, opt_state, state.carry, state.key, average)
            )

        return jax.jit(replaced)(params, state)

    def evaluation_model(self, state: TrainState) -> LanguageModel:
        """Returns the model as this mesh evaluates it; it is valid until the state is donated."""
        params = state.weights
        if self.layout.splits_weights:
            params = self._for_computing(params)
        return self._model(params, self._config.mesh.model)

    def whole_model(self, state: TrainState) -> LanguageModel:
        """Returns the model whole on every device; it is valid until the state is donated."""
        params = state.weights
        if self.layout.splits_weights:
            params = self._gather(params)
        return self._model(params, 1)

    def _model(self, params: Params, model_devices: int) -> LanguageModel:
        return LanguageModel.of(
            self._config, self._alphabet, params, self.target, model_devices=model_devices
        )

    def abstract_state(self) -> TrainState:
        """Returns the shapes, dtypes and shardings of the state, without numbers."""
        shapes = jax.eval_shape(self._initialize, jax.ShapeDtypeStruct((), jnp.uint32))

        def on_devices(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
            spec = jax.P() if leaf.sharding is None else leaf.sharding.spec
            sharding = jax.NamedSharding(self.mesh, spec)
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

        return jax.tree.map(on_devices, shapes)

    def update(self) -> Update:
        """Returns the pure function of one update."""
        schedule = make_schedule(self._config.optimizer, self._config.training.num_updates)
        return make_update(self.objective(), self.optimizer, schedule, self.layout, self.averaging)

    def objective(self) -> Objective:
        """Returns the loss of a window."""
        model, alphabet, training = self._config.model, self._alphabet, self._config.training
        return Objective(
            network=self.network,
            dropout=Dropout(
                input=model.input_dropout,
                between=model.dropout,
                output=model.output_dropout,
                weights=model.weight_dropout,
                kind=model.dropout_kind,
            ),
            encode_table=None if alphabet.kind == "bytes" else alphabet.encode_table,
            carry_state=self._config.data.carry_state,
            activation_regularization=training.activation_regularization,
            temporal_activation_regularization=training.temporal_activation_regularization,
        )

    def kept_for_the_gradient(self) -> list[jax.ShapeDtypeStruct]:
        """Returns the shapes of what the forward pass of a window keeps, parameters left out."""
        state, objective = self.abstract_state(), self.objective()
        data = self._config.data
        window = jax.ShapeDtypeStruct(
            (data.window_length + 1, data.num_streams),
            jnp.uint8,
            sharding=meshes.split_streams(self.mesh, axis=1, ndim=2),
        )

        def backward(params: Params, carry: Any, key: jax.Array, window: jax.Array) -> Any:
            params = self.layout.for_computing(params)
            key = jax.random.wrap_key_data(key)
            loss = partial(objective.loss, carry=carry, window=window, key=key)
            return jax.vjp(loss, params, has_aux=True)[1]

        kept = jax.eval_shape(backward, state.params, state.carry, state.key, window)
        given = Counter((leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(state.params))
        found = []
        for leaf in jax.tree.leaves(kept):
            if given[leaf.shape, leaf.dtype]:
                given[leaf.shape, leaf.dtype] -= 1
            else:
                found.append(leaf)
        return found

    def lower(self, streams: Streams, *, resident: bool) -> jax.stages.Lowered:
        """Lowers the dispatch from shapes alone; see `lower_dispatch`."""
        return lower_dispatch(
            self.update(), streams, self.abstract_state(), self.mesh, resident=resident
        )

    def compile(
        self,
        streams: Streams,
        text: np.ndarray,
        state: TrainState,
        resident: bool | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> CompiledDispatch:
        """Compiles the dispatch for this state; see `compile_dispatch`."""
        return compile_dispatch(self.update(), streams, text, state, self.mesh, resident, check)
