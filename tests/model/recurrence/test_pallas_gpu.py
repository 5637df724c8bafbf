"""The recurrence of the GPU kernels: what it refuses, says, and leaves to the scan."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from compilers import BYTES
from models import CUDA
from processes import CHEAP

import charlstm
from charlstm.config import Config, ModelConfig
from charlstm.errors import UserError
from charlstm.model.compute import Compute
from charlstm.model.language_model import LanguageModel
from charlstm.model.network import Network
from charlstm.model.recurrence import OnChip, PallasGpu, Scan, pallas_gpu
from charlstm.runtime import meshes
from charlstm.runtime.targets import Target
from charlstm.training.program import Program

ROOT = Path(__file__).parents[3]


def network(chip=CUDA.chip, **fields):
    return Network.of(ModelConfig(recurrence="pallas_gpu", **fields), Target("cuda", chip))


@pytest.fixture
def new_enough(monkeypatch):
    """Takes this JAX for one that the kernels are written for."""
    monkeypatch.setattr(pallas_gpu, "OLDEST_JAX", (0, 10))


def script(code):
    """Runs Python in a process of its own, which must succeed."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    environment = os.environ | CHEAP | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": paths}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "chip",
    ["NVIDIA H100 80GB HBM3", "NVIDIA H100 NVL", "NVIDIA H200", "NVIDIA GH200 480GB"],
)
def test_a_hopper_chip_with_132_multiprocessors_takes_it(new_enough, chip):
    assert network(chip).recurrence == PallasGpu()


@pytest.mark.parametrize(
    "chip",
    [
        "NVIDIA A100-SXM4-80GB",
        "NVIDIA B200",
        "NVIDIA H20",
        "NVIDIA H100 PCIe",
        "NVIDIA H100 80GB HBM3 MIG 3g.40gb",
    ],
)
def test_a_gpu_with_other_multiprocessors_is_refused(new_enough, chip):
    with pytest.raises(UserError) as refusal:
        network(chip)
    assert str(refusal.value) == (
        "model.recurrence=pallas_gpu needs the 132 multiprocessors of an H100 (SXM or NVL), H200 "
        f"or GH200, and jax runs on {chip}: set model.recurrence=scan"
    )


def test_an_older_jax_is_refused_with_the_version_that_is_needed(monkeypatch):
    monkeypatch.setattr(pallas_gpu, "OLDEST_JAX", (99, 0))
    with pytest.raises(UserError) as refusal:
        network()
    assert str(refusal.value) == (
        f"model.recurrence=pallas_gpu needs jax 99.0 or newer, and this is {jax.__version__}: "
        "pip install 'jax[cuda13]>=99.0', or set model.recurrence=scan"
    )


NOT_BFLOAT16 = (
    "model.recurrence=pallas_gpu computes in bfloat16, not float32: set "
    "model.compute_dtype=bfloat16, or model.recurrence=scan"
)


def test_another_dtype_than_bfloat16_is_refused_by_the_configuration_and_by_the_kernels(new_enough):
    fields = {"model.recurrence": "pallas_gpu", "model.compute_dtype": "float32"}
    share, states = jnp.zeros((1, 64, 256)), jnp.zeros((64, 64))
    for refused in (
        lambda: Config().replace(fields),
        lambda: network(compute_dtype="float32"),
        lambda: pallas_gpu.pallas_gpu_layer((0, 0), share, jnp.zeros((64, 256)), states, states),
    ):
        with pytest.raises(UserError) as refusal:
            refused()
        assert str(refusal.value) == NOT_BFLOAT16


def test_a_hidden_size_that_does_not_fit_is_refused(new_enough):
    with pytest.raises(UserError, match=r"model.hidden_size=2048: choose a multiple of 64 up to"):
        network(hidden_size=2048)


@pytest.mark.parametrize("field", ["layer_norm", "residuals"])
def test_what_only_the_scan_can_do_is_refused_by_the_configuration(field):
    fields = {"layer_norm": True, "residuals": "state"}
    with pytest.raises(UserError, match=rf"pallas_gpu does not go with model.{field}="):
        Config().replace({"model.recurrence": "pallas_gpu", f"model.{field}": fields[field]})


def test_streams_that_do_not_fit_on_a_device_are_refused_before_anything_is_compiled(
    new_enough, monkeypatch
):
    monkeypatch.setattr(Target, "of_mesh", lambda mesh: CUDA)
    fields = {"model.recurrence": "pallas_gpu", "model.hidden_size": 1024}
    mesh = meshes.make_mesh(64, 1)
    for streams, says in ((64, None), (96, "cannot cut 96"), (1024, "set data.num_streams to 512")):
        config = Config().replace(fields | {"data.num_streams": streams})
        if says is None:
            assert Program(config, BYTES, mesh).network.recurrence == PallasGpu()
        else:
            with pytest.raises(UserError, match=says):
                Program(config, BYTES, mesh)


def test_a_model_is_evaluated_by_the_scan_which_takes_any_number_of_texts(new_enough):
    config = Config().replace({"model.recurrence": "pallas_gpu"})
    assert Network.of(config.model, CUDA).recurrence == PallasGpu()
    assert LanguageModel.of(config, BYTES, {}, CUDA).network.recurrence == Scan()


def test_it_reports_the_shared_memory_of_a_block_and_the_streams_that_it_walks_with():
    compute = Compute(jnp.dtype("bfloat16"), CUDA)
    found = PallasGpu().on_chip(compute, 128, 256, 1024)
    assert found == OnChip(128, 128, 225 * 1024, 227 * 1024)
    assert PallasGpu().on_chip(compute, 32, 64, 512) == OnChip(32, 64, 97 * 1024, 227 * 1024)


def test_a_run_is_told_once_what_is_not_known_of_its_recurrence(
    small_config, monkeypatch, caplog, tmp_path
):
    caplog.set_level("INFO", "absl")
    monkeypatch.setattr(Scan, "notice", PallasGpu.notice)
    charlstm.train(small_config.replace({"training.num_updates": 3}), tmp_path / "run")
    told = [line for line in caplog.messages if line == PallasGpu.notice]
    assert len(told) == 1 and "not yet been shown to be right or fast on a GPU" in told[0]


def test_the_package_is_imported_where_there_is_no_such_mosaic():
    script("""
import sys
for name in "jax.experimental.pallas.mosaic_gpu", "jax.experimental.mosaic.gpu":
    sys.modules[name] = None
import charlstm.training.program
from charlstm.model.recurrence import PallasGpu
PallasGpu().require_streams(64, 256)
""")


def test_streams_split_over_two_devices_give_the_same():
    """With a scan in the place of the kernels, which are given the streams of one device."""
    script("""
import jax
jax.config.update("jax_num_cpu_devices", 2)
import recurrence_checks as checks
from charlstm.model.cell import Lstm
from charlstm.model.compute import Compute
from charlstm.model.recurrence import PallasGpu, pallas_gpu
from charlstm.model.recurrence.scan import scan_layer
from charlstm.runtime.targets import Target
given = set()
def layer(clusters, share, weight_hh, h, c):
    given.add((clusters, share.shape[1]))
    compute = Compute(share.dtype, Target("cpu", "cpu"))
    return scan_layer(Lstm(), compute, share, weight_hh, (), h, c)
pallas_gpu.pallas_gpu_layer = layer
checks.assert_agrees_when_split(PallasGpu(clusters=(1, 2)))
assert given == {((1, 2), 4), ((1, 2), 2)}, given
""")
