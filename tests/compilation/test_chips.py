"""Every way to train, compiled for TPUs and NVIDIA GPUs that are not there.

What the compilers say is held against what a run relies on: that the state is overwritten in place,
that devices talk to each other only where they must, that products are in bfloat16, that little
memory is lost, and that a GPU starts few kernels.
"""

import pytest
from compilers import BYTES, FROM_HOST, GPU, TPU, machine, needs, report_on, small, told

from charlstm.compilation.compiling import resolved
from charlstm.model.parameters import abstract_params, num_parameters
from charlstm.runtime import meshes

ANYWHERE = {
    "plain": {},
    "layer norm": {"model.layer_norm": True},
    "layer norm, states kept": {"model.layer_norm": True, "model.residuals": "state"},
    "residual": {"model.connections": "residual", "model.num_layers": 3},
    "skip": {"model.connections": "skip", "model.num_layers": 3},
    "embedding": {"model.embedding_size": 32, "model.input_dropout": 0.1},
    "dropout": {"model.dropout": 0.2, "model.output_dropout": 0.1, "model.input_dropout": 0.1},
    "dropout held": {"model.dropout": 0.2, "model.dropout_kind": "locked"},
    "weights dropped": {"model.weight_dropout": 0.2},
    "averaged": {"optimizer.averaging": "ema"},
    "states kept": {"model.residuals": "state"},
    "float32": {"model.compute_dtype": "float32"},
    "one time step": {"data.window_length": 1},
    "wavefront": {"model.recurrence": "wavefront", "model.wavefront_chunk": 4},
    "columns": {"model.recurrence": "scan_columns"},
}
MESHES = {
    "4 x 1": {},
    "1 x 4": {"mesh.model": 4},
    "2 x 2": {"mesh.model": 2},
    "4 x 1, optimizer split": {"mesh.shard": "optimizer"},
    "4 x 1, parameters split": {"mesh.shard": "parameters"},
    "2 x 2, parameters split": {"mesh.model": 2, "mesh.shard": "parameters"},
}


def parameter_bytes(fields):
    """Returns the bytes of all parameters, float32."""
    return 4 * num_parameters(abstract_params(small(fields).model, BYTES.size))


def require_what_runs_rely_on(report, fields):
    memory = report.memory
    assert report.fits
    state = memory.parameters + memory.optimizer + memory.carry
    assert report.donated_bytes >= state
    # 8 MiB are XLA's own: tiles, constants, and buffers of a product.
    assert memory.scratch < 4 * memory.parameters + 2 * memory.activations + 2**23
    if fields.get("model.compute_dtype") != "float32":
        assert report.product_dtypes == {"bf16 x bf16"}
    # In the time loop, devices that share a layer exchange outputs and their gradients.
    in_loop = [each for each in report.collectives if each.in_time_loop]
    assert {each.axis for each in in_loop} == ({"model"} if report.mesh_shape[1] > 1 else set())
    config = small(fields)
    steps = config.data.window_length * config.model.num_layers
    assert sum(each.count for each in in_loop) == (2 * steps if in_loop else 0)
    streams = config.data.num_streams // report.mesh_shape[0]
    outputs = steps * streams * config.model.hidden_size
    assert sum(each.bytes for each in in_loop) <= (2 + 4) * outputs  # bfloat16 and float32
    if report.mesh_shape == (1, 1):
        assert report.collectives == []
    # Over the streams, gradients are added up once, and what is shared out is gathered once.
    over_data = [each for each in report.collectives if each.axis != "model"]
    reduced = sum(each.bytes for each in over_data if each.kind != "all-gather")
    gathered = sum(each.bytes for each in over_data if each.kind == "all-gather")
    whole = parameter_bytes(fields)
    assert reduced <= 1.1 * whole
    assert gathered <= 1.1 * whole * ("mesh.shard" in fields)


# NVIDIA's compiler takes seconds for each: what is like another is compiled by hand.
BY_HAND = {
    "layer norm, states kept", "residual", "skip", "embedding", "dropout held", "weights dropped",
    "averaged", "columns", "1 x 4", "4 x 1", "4 x 1, optimizer split", "2 x 2, parameters split",
}  # fmt: skip


def cases(chip, chips):
    """Returns everything that compiles anywhere, for one chip and for four."""
    by_hand = BY_HAND if chip == "h100:1" else set()
    return [
        pytest.param(topology, fields, id=name, marks=[pytest.mark.by_hand] * (name in by_hand))
        for topology, every in ((chip, ANYWHERE), (chips, MESHES))
        for name, fields in every.items()
    ]


class TestGpu:
    pytestmark = needs(GPU, "gpu_compile")

    @pytest.mark.parametrize(("topology", "fields"), cases("h100:1", "h100:4"))
    def test_it_compiles_to_what_runs_rely_on(self, topology, fields):
        report = report_on(topology, fields)
        require_what_runs_rely_on(report, fields)
        steps = report.kernels_per_time_step
        if fields == {}:
            # A product, one kernel for all else, and a share of those that stack.
            assert steps["forward"] < 3.5 and steps["backward"] < 3.7

    def test_windows_from_the_host(self):
        require_what_runs_rely_on(report_on("h100:1", {}, FROM_HOST), {})

    def test_gradients_are_added_up_once_and_outside_of_the_time_loop(self):
        report = report_on("h100:2x2", {})
        assert {each.kind for each in report.collectives} == {"all-reduce"}
        assert not any(each.in_time_loop for each in report.collectives)
        gradients = report.memory.parameters
        assert sum(each.bytes for each in report.collectives) == pytest.approx(gradients, rel=0.01)

    @pytest.mark.by_hand
    def test_the_largest_batch_that_fits_is_found(self):
        fields = {"model.hidden_size": 256}
        found = report_on("h100:1", fields, find_largest=True).largest_num_streams
        assert found > 1000
        largest = report_on("h100:1", fields | {"data.num_streams": found})
        available = largest.machine.available_bytes
        assert 0.8 * available < largest.memory.total <= available

    def test_automatic_choices_are_known_for_chips_elsewhere(self):
        config = resolved(small({}), machine("h100:4"))
        assert (config.model.compute_dtype, config.model.recurrence) == ("bfloat16", "scan")
        assert config.mesh.data == 4

    def test_scripts_get_one_object(self):
        found = told("h100:2x2", "--config.data.num_streams=32")
        assert found["fits"] is True and found["devices"] == 4
        assert set(found["kernels_per_time_step"]) == {"forward", "backward"}
        assert found["own_kernel"] is None


class TestTpu:
    pytestmark = needs(TPU, "tpu_compile")

    @pytest.mark.parametrize(("topology", "fields"), cases("v5e:1x1", "v5e:2x2"))
    def test_it_compiles_to_what_runs_rely_on(self, topology, fields):
        require_what_runs_rely_on(report_on(topology, fields), fields)

    @pytest.mark.parametrize("topology", ["v5e:1x1", "v5e:2x2", "v6e:1x1"])
    def test_the_kernel_compiles_to_what_runs_rely_on(self, topology):
        fields = {"model.recurrence": "pallas_tpu"}
        report = report_on(topology, fields)
        require_what_runs_rely_on(report, fields)
        found = report.on_chip
        assert found.streams <= 32 // report.mesh_shape[0] and 16 % found.time_steps == 0
        assert 0 < found.memory_bytes <= found.memory_limit

    def test_scripts_get_one_object(self):
        found = told("v5e:2x2", "--config.model.recurrence=pallas_tpu")
        assert found["fits"] is True and found["chip"] == "TPU v5 lite"
        assert [each["axis"] for each in found["collectives"]] == ["data"]
        assert set(found["own_kernel"]) == {
            "time_steps", "streams", "memory_bytes", "memory_limit"
        }  # fmt: skip
        assert found["kernels_per_time_step"] is None

    def test_windows_from_the_host(self):
        require_what_runs_rely_on(report_on("v5e:1x1", {}, FROM_HOST), {})

    @pytest.mark.parametrize("model", [2, 4, 8, 16])
    def test_a_slice_is_cut_into_meshes_that_none_of_its_own_axes_is_as_long_as(self, model):
        mesh = meshes.make_mesh(512, 0, model, machine("v5p:8x8x8").devices)
        assert mesh.devices.shape == (512 // model, model)

    def test_split_layers_have_their_collectives_in_the_time_loop_and_no_others(self):
        report = report_on("v5e:2x2", {"mesh.model": 2, "model.hidden_size": 256})
        in_loop = {(each.kind, each.axis) for each in report.collectives if each.in_time_loop}
        assert in_loop == {("all-gather", "model"), ("reduce-scatter", "model")}
