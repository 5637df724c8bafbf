"""The kind of a device, as JAX describes it."""

from types import SimpleNamespace

import pytest

from charlstm.runtime import targets
from charlstm.runtime.targets import Target


@pytest.mark.parametrize(
    ("platform", "version", "wanted"),
    [
        ("gpu", "PJRT C API\ncuda 13000", "cuda"),
        # A chip that is compiled for and not there.
        ("gpu", "PJRT C API\nNVIDIA H100 80GB HBM3", "cuda"),
        ("gpu", "PJRT C API\nrocm 70100", "rocm"),
        ("tpu", "PJRT C API\nTFRT TPU v5e", "tpu"),
    ],
)
def test_the_maker_of_a_gpu_is_known_by_the_version_of_its_platform(platform, version, wanted):
    client = SimpleNamespace(platform_version=version)
    device = SimpleNamespace(platform=platform, device_kind="a chip", client=client)
    assert Target.of(device) == Target(wanted, "a chip")


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        ("fpu avx512f avx512_bf16 amx_bf16 amx_tile amx_int8", True),
        # A virtual machine that passes on no tiles.
        ("fpu avx512f avx512_bf16 amx_bf16", False),
        ("fpu avx2 fma", False),
    ],
)
def test_what_a_processor_multiplies_is_read_from_linux(tmp_path, flags, wanted):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\nflags\t\t: {flags}\nbugs\t\t: spectre_v1\n\n")
    assert targets._has_amx(str(cpuinfo)) is wanted


def test_a_processor_that_says_nothing_has_no_tiles(tmp_path):
    (tmp_path / "arm").write_text("processor\t: 0\nFeatures\t: fp asimd bf16\n")
    assert not targets._has_amx(str(tmp_path / "arm"))
    assert not targets._has_amx(str(tmp_path / "missing"))


def test_only_a_processor_is_asked_for_tiles(monkeypatch):
    monkeypatch.setattr(targets, "_has_amx", lambda: True)
    cpu = SimpleNamespace(platform="cpu", device_kind="cpu")
    tpu = SimpleNamespace(platform="tpu", device_kind="TPU v5 lite")
    assert Target.of(cpu) == Target("cpu", "cpu", has_amx=True)
    assert not Target.of(tpu).has_amx
