"""The kind of a device, as JAX describes it."""

from types import SimpleNamespace

import pytest

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
