"""A recurrence for one kind of device is refused elsewhere; a model is read anywhere."""

import jax
import planted
import pytest
from conftest import TINY
from models import CUDA, TPU

from charlstm.checkpoint import reading
from charlstm.config import ModelConfig
from charlstm.errors import UserError
from charlstm.model.language_model import LanguageModel
from charlstm.model.network import Network
from charlstm.model.recurrence import Cudnn, PallasTpu, Scan
from charlstm.runtime.targets import Target

ROCM = Target("rocm", "AMD Instinct MI300X")
CUDNN = {"recurrence": "cudnn", "num_layers": 2, "compute_dtype": "float32"}
PALLAS_TPU = {"recurrence": "pallas_tpu"}
PALLAS_GPU = {"recurrence": "pallas_gpu"}


@pytest.mark.parametrize(
    ("fields", "needed", "target"),
    [
        *((CUDNN, "an NVIDIA GPU", target) for target in (Target("cpu", "cpu"), TPU, ROCM)),
        *((PALLAS_GPU, "an NVIDIA GPU", target) for target in (Target("cpu", "cpu"), TPU, ROCM)),
        *((PALLAS_TPU, "a TPU", target) for target in (Target("cpu", "cpu"), CUDA, ROCM)),
    ],
)
def test_a_device_of_another_kind_is_named_with_the_cure(fields, needed, target):
    with pytest.raises(UserError) as refusal:
        Network.of(ModelConfig(**fields), target)
    assert str(refusal.value) == (
        f"model.recurrence={fields['recurrence']} needs {needed}, and jax runs on {target.chip}: "
        "set model.recurrence=scan"
    )


def test_its_own_device_takes_it():
    assert Network.of(ModelConfig(**CUDNN), CUDA).recurrence == Cudnn()
    assert Network.of(ModelConfig(**PALLAS_TPU), TPU).recurrence == PallasTpu()


def test_a_run_ends_before_anything_is_compiled(charlstm, environment, text_file, tmp_path):
    flags = (f"--corpus={text_file}", f"--workdir={tmp_path}/run", *TINY)
    environment = environment | {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled")}
    done = charlstm("train", *flags, "--config.model.recurrence=pallas_tpu", env=environment)
    assert done.returncode == 2
    assert "charlstm: model.recurrence=pallas_tpu needs a TPU" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.glob("compiled/*")) == []


def test_a_model_that_was_trained_on_a_tpu_is_read_elsewhere(tmp_path, monkeypatch):
    def config_with_kernels(*arguments, **options):
        config = planted_config(*arguments, **options)
        return config.replace({"model.recurrence": "pallas_tpu"})

    planted_config = planted.Config
    monkeypatch.setattr(planted, "Config", config_with_kernels)
    run = planted.make_run(tmp_path / "run")
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    _, model, metadata = reading.read_best(LanguageModel, run, device)
    assert metadata.config.model.recurrence == "pallas_tpu"
    assert model.network.recurrence == Scan()
