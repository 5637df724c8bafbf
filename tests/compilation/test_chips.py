"""Every way to train, compiled for TPUs and NVIDIA GPUs that are not there.

What the compilers say is held against what a run relies on: that the state is overwritten in place,
that devices talk to each other only where they must, that products are in bfloat16, that little
memory is lost, and that a GPU starts few kernels.
"""

import functools

import pytest

from charlstm.compilation import topologies
from charlstm.compilation.compiling import Machine, Subject, compile_for
from charlstm.compilation.topologies import Topology
from charlstm.config import Config
from charlstm.data.corpus import Alphabet

GPU = ("jax-cuda13-pjrt", "jax-cuda12-pjrt")
TPU = ("libtpu",)
RESIDENT, FROM_HOST = 2**20, 2**40  # bytes of text: on the devices, or its windows from the host

SMALL = {
    "model.num_layers": 2,
    "model.hidden_size": 128,
    "data.num_streams": 32,
    "data.window_length": 16,
    "optimizer.name": "adam",
}
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


def needs(packages, marker):
    found = any(topologies._is_installed(package) for package in packages)
    skip = pytest.mark.skipif(not found, reason=f"none of {', '.join(packages)} is installed")
    return [skip, getattr(pytest.mark, marker)]


@functools.cache
def machine(topology):
    return Machine.of(Topology.parse(topology))


def report_on(topology, fields, num_bytes=RESIDENT):
    config = Config().replace(SMALL | fields)
    subject = Subject(config, Alphabet("bytes", bytes(range(256))), num_bytes)
    return compile_for(subject, machine(topology), find_largest=False)


def require_what_runs_rely_on(report, fields):
    memory = report.memory
    assert report.fits
    state = memory.parameters + memory.optimizer + memory.carry
    assert report.donated_bytes >= state
    # 8 MiB are XLA's own: tiles, constants, and buffers of a product.
    assert memory.scratch < 4 * memory.parameters + 2 * memory.activations + 2**23
    if fields.get("model.compute_dtype") != "float32":
        assert "f32 x f32" not in report.product_dtypes
    splits_layers = report.mesh_shape[1] > 1
    in_loop = {each.axis for each in report.collectives if each.in_time_loop}
    assert in_loop == ({"model"} if splits_layers else set())
    if report.mesh_shape == (1, 1):
        assert report.collectives == []


GPU_CASES = [
    pytest.param("h100:1", fields, id=f"h100, {name}") for name, fields in ANYWHERE.items()
]
GPU_CASES += [
    pytest.param("h100:4", fields, id=f"4 h100, {name}") for name, fields in MESHES.items()
]
TPU_CASES = [
    pytest.param("v5e:1x1", fields, id=f"v5e, {name}") for name, fields in ANYWHERE.items()
]
TPU_CASES += [
    pytest.param("v5e:2x2", fields, id=f"4 v5e, {name}") for name, fields in MESHES.items()
]
TPU_CASES += [
    pytest.param(chip, {"model.recurrence": "pallas_tpu"}, id=f"{chip}, pallas_tpu")
    for chip in ("v5e:1x1", "v5e:2x2", "v6e:1x1")
]


class TestGpu:
    pytestmark = needs(GPU, "gpu_compile")

    @pytest.mark.parametrize(("topology", "fields"), GPU_CASES)
    def test_it_compiles_to_what_runs_rely_on(self, topology, fields):
        report = report_on(topology, fields)
        require_what_runs_rely_on(report, fields)
        steps = report.kernels_per_time_step
        if fields == {}:
            # A product, one kernel for all else, and a share of those that stack.
            assert steps["forward"] < 3.5 and steps["backward"] < 3.7

    def test_windows_from_the_host(self):
        require_what_runs_rely_on(report_on("h100:1", {}, FROM_HOST), {})


class TestTpu:
    pytestmark = needs(TPU, "tpu_compile")

    @pytest.mark.parametrize(("topology", "fields"), TPU_CASES)
    def test_it_compiles_to_what_runs_rely_on(self, topology, fields):
        require_what_runs_rely_on(report_on(topology, fields), fields)

    def test_windows_from_the_host(self):
        require_what_runs_rely_on(report_on("v5e:1x1", {}, FROM_HOST), {})
