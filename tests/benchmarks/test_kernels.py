"""The persistent kernels as far as they can be known without a GPU, and what checks them on one."""

import functools
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from processes import CHEAP

from benchmarks import comparison
from benchmarks.gpu import parts
from benchmarks.kernels import layers
from benchmarks.kernels.checking import Checks
from benchmarks.kernels.cuda import build
from benchmarks.kernels.cuda import check as cuda_check
from benchmarks.kernels.cuda import layer as cuda
from benchmarks.kernels.layer_check import LayerCheck, Problem
from benchmarks.kernels.mosaic import check as mosaic_check
from charlstm.benchmark.shapes import Shape
from charlstm.errors import UserError
from charlstm.model.recurrence import pallas_gpu

ROOT = Path(__file__).parents[2]
SMALL = Shape(num_layers=1, hidden_size=16, num_streams=4, window_length=6)

needs_gxx = pytest.mark.skipif(not shutil.which("g++"), reason="no g++, which builds the emulation")
needs_nvcc = pytest.mark.skipif(not shutil.which("nvcc"), reason="no nvcc, which comes with CUDA")
needs_new_jax = pytest.mark.skipif(
    jax.__version_info__ < pallas_gpu.OLDEST_JAX, reason="the kernels are written for jax 0.11"
)
needs_compiler = pytest.mark.skipif(
    not importlib.util.find_spec("jax_cuda13_plugin"), reason="no charlstm[compile-gpu]"
)


def emulate(folder, *cases):
    """Builds the emulation and runs cases of it, in an order of threads that is always the same."""
    build.build(folder, ["emulate"])
    return subprocess.run([folder / "emulate", "1", *cases], capture_output=True, text=True)


@needs_gxx
def test_the_cuda_kernels_agree_with_float64_in_the_emulation(tmp_path):
    done = emulate(tmp_path, "1", "2", "4")
    assert done.returncode == 0, done.stdout
    assert [line[:2] for line in done.stdout.splitlines()] == ["ok"] * 3


@needs_gxx
def test_the_emulation_finds_a_kernel_that_waits_for_one_block_too_few(tmp_path, monkeypatch):
    source = shutil.copytree(build.HERE, tmp_path / "source") / "lstm.cuh"
    right = "(unsigned)t * (H / UNITS))"
    assert right in source.read_text()
    source.write_text(source.read_text().replace(right, "(unsigned)t * (H / UNITS) - 1)"))
    monkeypatch.setattr(build, "HERE", source.parent)
    done = emulate(tmp_path / "built", "1")
    assert done.returncode == 1
    assert done.stdout.startswith("FAIL")


@needs_nvcc
def test_the_cuda_kernels_compile_for_hopper_without_spills(tmp_path, monkeypatch):
    kernels = "forward<1024, 64, 1, 1, 4>(), backward<1024, 64, 1, 1, 8>()"
    (tmp_path / "few.h").write_text(f"#define KERNELS {kernels}\n")
    few = build.Product("lstm_test.cu", ("-include", str(tmp_path / "few.h")))
    monkeypatch.setitem(build.PRODUCTS, "few", few)
    build.build(tmp_path, ["few"])
    found = build.resources((tmp_path / "few.log").read_text())
    names = sorted(kernel.kernel for kernel in found)
    assert names == ["backward_kernel<1024, 64, 1, 1, 8>", "forward_kernel<1024, 64, 1, 1, 4>"]
    assert all(kernel.spill_bytes == 0 for kernel in found)
    listed = subprocess.check_output([tmp_path / "few", "list"], text=True)
    assert len(listed.splitlines()) == 2


class LibraryForTests:
    """Has a forward kernel for any sizes, with clusters of 4."""

    @staticmethod
    def LstmIsBuilt(backward, hidden_size, streams, cluster):
        return not backward and cluster in (0, 4)


@pytest.mark.parametrize(
    ("clusters", "missing"),
    [((4, 0), "no backward CUDA kernel"), ((2, 0), "no forward .* with clusters of 2")],
)
def test_sizes_that_no_cuda_kernel_is_built_for_are_refused(monkeypatch, clusters, missing):
    monkeypatch.setattr(cuda, "_library", LibraryForTests)
    with pytest.raises(UserError, match=f"{missing}.*: add it to KERNELS in benchmarks/"):
        cuda.layer(*Problem.random(SMALL, 0).arguments, clusters=clusters)


def test_registers_and_spills_are_read_from_what_ptxas_prints():
    log = """
ptxas info    : Compiling entry function '_Z4fillPfmj' for 'sm_90a'
ptxas info    : Function properties for _Z4fillPfmj
    0 bytes stack frame, 8 bytes spill stores, 8 bytes spill loads
ptxas info    : Used 24 registers, used 0 barriers
ptxas info    : Compiling entry function '_Z15backward_kernelILi512ELi4EEv8Backward' for 'sm_90a'
ptxas info    : Function properties for _Z15backward_kernelILi512ELi4EEv8Backward
    16 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 108 registers, used 16 barriers
"""
    (found,) = build.resources(log)
    assert str(found) == "backward_kernel<512, 4>: 108 registers, 16 bytes of spills"


def test_a_compiler_that_is_missing_is_named_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"built with nvcc, which is not on the PATH: install it"):
        build.build(tmp_path / "built", ["residency"])


@needs_gxx
def test_a_source_that_does_not_compile_is_named_with_the_compilers_message(tmp_path, monkeypatch):
    (tmp_path / "broken.cpp").write_text("int main() { return missing; }\n")
    monkeypatch.setattr(build, "HERE", tmp_path)
    monkeypatch.setitem(build.PRODUCTS, "broken", build.Product("broken.cpp", (), build.GXX))
    with pytest.raises(UserError, match=r"broken.cpp does not compile: .*missing.*: see .*log"):
        build.build(tmp_path / "built", ["broken"])


def test_a_check_that_hangs_is_killed_and_the_next_one_runs(capfd):
    checks = Checks(60.0)
    python = sys.executable, "-c"
    assert not checks.run("hanging", (*python, "import signal; signal.pause()"), 1.0)
    assert checks.run("next", (*python, "print('reached')"), 30.0)
    assert not checks.run("failing", (*python, "raise SystemExit(3)"), 30.0)
    with pytest.raises(SystemExit) as end:
        checks.end()
    assert end.value.code == 1
    lines = capfd.readouterr().out.splitlines()
    assert lines[:2] == ["== hanging: killed after 1 s", "reached"]
    assert lines[-2:] == ["-- hanging: killed after 1 s", "-- failing: exit code 3"]


def test_no_check_begins_when_the_time_is_over(capfd):
    assert not Checks(0.0).run("late", (sys.executable, "-c", "print('run')"), 30.0)
    assert capfd.readouterr().out == "== late: not begun: 0 s left\n"


@pytest.mark.parametrize("check", [cuda_check, mosaic_check])
def test_without_a_gpu_a_check_ends_with_one_line(check, monkeypatch, capsys):
    monkeypatch.setattr(comparison, "has_gpu", lambda: False)
    with pytest.raises(SystemExit) as end:
        check.main([])
    assert end.value.code == 2
    assert capsys.readouterr().err.splitlines() == [
        "the kernels are checked on an H100 or H200, and there is no NVIDIA GPU here"
    ]


def test_a_layer_is_checked_by_the_command_that_checks_kernels(tmp_path, monkeypatch, environment):
    for name, value in (environment | CHEAP).items():
        monkeypatch.setenv(name, value)
    assert Checks(120.0).layer("scan", "1x16-B4-T6", (0, 0), tmp_path)


def test_a_layer_is_right_if_it_is_near_the_scan_in_float32_and_wrong_if_it_is_not(capsys):
    def wrong_gradient(share, *rest):
        outputs, h, c = layers.scan(share, *rest)
        return outputs + 0.1 * (share - jax.lax.stop_gradient(share))[..., :16], h, c

    problem = Problem.random(SMALL, 0)
    assert LayerCheck("scan", layers.scan, problem).run()
    assert "WRONG" not in capsys.readouterr().out
    assert not LayerCheck("other", wrong_gradient, problem).run()
    lines = capsys.readouterr().out.splitlines()
    wrong = [line for line in lines if "WRONG" in line]
    assert [line[:20] for line in wrong] == ["other WRONG: d_share"]
    assert "other right: outputs" in lines[0]


def test_clusters_that_are_not_all_resident_are_made_smaller():
    assert tuple(mosaic_check.cases_that_fit({})) == mosaic_check.CASES
    fitting = list(mosaic_check.cases_that_fit({1: 132, 2: 132, 4: 128, 8: 120}))
    assert fitting[:3] == list(mosaic_check.CASES[:3])
    assert all(clusters == (0, 0) for _, clusters in fitting[:3])
    assert fitting[3:5] == [("1x1024-B64-T128", (1, 4)), ("1x1024-B64-T128", (2, 4))]
    assert len(set(fitting)) == len(fitting)
    assert all(max(clusters) <= 4 for _, clusters in fitting)


def test_without_nvcc_the_mosaic_kernels_are_checked_all_the_same(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert mosaic_check.resident_blocks(tmp_path / "built") == {}
    assert "not known" in capsys.readouterr().out


@pytest.mark.parametrize(
    "layer", [cuda.layer, functools.partial(pallas_gpu.pallas_gpu_layer, (0, 0))]
)
def test_a_kernel_refuses_another_dtype_than_bfloat16(layer):
    share, *rest = Problem.random(SMALL, 0).arguments
    with pytest.raises(UserError, match="computes in bfloat16, not float32"):
        layer(share.astype(jnp.float32), *rest)


def test_the_mosaic_kernel_names_the_version_of_jax_that_it_needs(monkeypatch, tmp_path):
    monkeypatch.setattr(pallas_gpu, "OLDEST_JAX", (99, 0))
    with pytest.raises(UserError, match=r"needs jax 99.0 or newer, and this is"):
        layers.load("mosaic", tmp_path)


@needs_new_jax
def test_the_mosaic_layer_is_that_of_the_package_with_clusters_of_its_own(monkeypatch, tmp_path):
    monkeypatch.setattr(pallas_gpu, "pallas_gpu_layer", lambda *given: given)
    assert layers.load("mosaic", tmp_path, (1, 8))("share", "weight") == ((1, 8), "share", "weight")


def test_on_a_gpu_the_kernels_that_may_hang_are_compared_last_and_measured_alone():
    settings = parts.Settings("3x1024", (64, 256), 128)
    variants = {part.name: part.variants(settings) for part in parts.PARTS}
    compared = [variant["recurrence"] for variant in variants["correctness"].values()]
    assert compared.index("pallas_gpu") == len(compared) - compared.count("pallas_gpu") > 0
    assert list(variants["tune-kernels"]) == ["B64 pallas_gpu", "B256 pallas_gpu"]
    assert not any("pallas_gpu" in name for name in variants["tune"])


SAME_UPDATES = """
from benchmarks.competitors import kernel_training
from benchmarks.competitors.charlstm_training import Training
from benchmarks.kernels import layers
from charlstm.benchmark.shapes import Shape
fields = {"model.compute_dtype": "bfloat16", "model.recurrence": "scan"}
spec = {"shape": Shape.parse("2x8-B4-T8").to_json(), "cpu_devices": 2, "fields": fields}
traced = []
def layer(*arguments):
    traced.append(arguments[0].shape)
    return layers.scan(*arguments)
for training in (Training(spec), kernel_training.training(spec, layer)):
    print(*(float(training.advance(count).nats[0]) for count in (1, 4, 4)))
print(set(traced))
"""


def test_training_through_a_layer_makes_the_same_updates_on_two_devices(environment):
    command = [sys.executable, "-c", SAME_UPDATES]
    output = subprocess.check_output(command, env=environment | CHEAP, cwd=ROOT, text=True)
    scan, kernel, traced = output.splitlines()
    numbers = [float(word) for word in scan.split()]
    assert [float(word) for word in kernel.split()] == pytest.approx(numbers, rel=1e-3)
    assert len(set(numbers)) == 3
    assert traced == "{(8, 2, 32)}"  # a device has two of the four streams


@needs_new_jax
@needs_compiler
@pytest.mark.gpu_compile
def test_the_mosaic_kernels_compile_for_a_hopper_gpu(environment):
    command = [sys.executable, "-m", "benchmarks.kernels.lowering", "--kernel=mosaic"]
    command += ["--sizes=1x512-B64-T8"]
    output = subprocess.check_output(command, env=environment, cwd=ROOT, text=True)
    assert "it calls mosaic_gpu_v2, mosaic_gpu_v2" in output
