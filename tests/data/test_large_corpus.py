"""A corpus of a gigabyte trains from disk in little memory."""

import time

import numpy as np
import pytest
from processes import SMALL, Group
from run_folders import metrics

MEGABYTE = 10**6


@pytest.fixture(scope="module")
def gigabyte(tmp_path_factory):
    """1 GB: a megabyte of words again and again, one byte in a thousand of each changed."""
    rng = np.random.default_rng(0)
    words = rng.integers(97, 123, (1000, 5), np.uint8)
    words[:, 4] = 32
    block = words[rng.integers(0, 1000, MEGABYTE // 5)].ravel()
    path = tmp_path_factory.mktemp("gigabyte") / "text.txt"
    with path.open("wb") as file:
        for _ in range(1000):
            noisy = block.copy()
            noisy[rng.integers(0, MEGABYTE, 1000)] = rng.integers(97, 123, 1000)
            file.write(noisy)
    yield path
    path.unlink()


def peak_memory(group):
    """The most that each process had resident, and of that its own, in bytes, until they ended."""
    peaks = [{"VmHWM": 0, "RssAnon": 0} for _ in group.processes]
    while any(process.poll() is None for process in group.processes):
        for process, peak in zip(group.processes, peaks, strict=True):
            try:
                with open(f"/proc/{process.pid}/status") as file:
                    for line in file:
                        name, _, value = line.partition(":")
                        if name in peak:
                            peak[name] = max(peak[name], int(value.split()[0]) * 1024)
            except (FileNotFoundError, ProcessLookupError):
                pass
        time.sleep(0.02)
    return peaks


def test_a_gigabyte_trains_in_little_memory(gigabyte, text_file, environment, tmp_path):
    options = ("--config.data.valid_size=20000", "--config.data.test_size=0", "--num_cpu_devices=1")
    options += ("--config.model.alphabet=corpus",)
    small = Group(
        1,
        (
            f"--corpus={text_file}",
            f"--workdir={tmp_path / 'small'}",
            *SMALL,
            *options,
            "--config.data.valid_size=1000",
        ),
        environment,
        tmp_path,
    )
    (usual,) = peak_memory(small)
    assert small.wait() == [0], small.text()
    group = Group(
        2,
        (f"--corpus={gigabyte}", f"--workdir={tmp_path / 'large'}", *SMALL, *options),
        environment,
        tmp_path,
    )
    peaks = peak_memory(group)
    assert group.wait() == [0, 0], group.text()
    assert len(metrics(tmp_path / "large")) == 50
    print(usual, peaks)
    for peak in peaks:
        for name, value in peak.items():
            assert value - usual[name] < 300 * MEGABYTE, (name, value, usual)
