"""What has reached the disk when a run says that it is saved, as the system's calls show it."""

import os
import re
import shutil
import sys

import pytest
from conftest import TINY

SYSTEM_CALLS = "openat,fsync,fdatasync,rename,renameat,renameat2,write"


@pytest.fixture
def strace():
    found = shutil.which("strace")
    if found is None:
        needed = "no strace: apt-get install -y strace"
        if os.environ.get("CHARLSTM_TESTS_NEED_CHROMIUM"):
            pytest.fail(needed)
        pytest.skip(needed)
    return found


def test_a_checkpoint_is_on_the_disk_before_it_has_its_name_and_before_the_run_says_so(
    charlstm, strace, text_file, tmp_path
):
    log, run = tmp_path / "calls", tmp_path / "run"
    prefix = (strace, "-f", "-y", "-qq", "-s", "200", "-e", f"trace={SYSTEM_CALLS}", "-o", log)
    flags = f"--corpus={text_file}", f"--workdir={run}", *TINY, "--stop_after=5"
    done = charlstm("train", *flags, prefix=prefix)
    assert done.returncode == 0, done.stderr
    calls = log.read_text(errors="replace").splitlines()

    def places(pattern):
        return [number for number, call in enumerate(calls) if re.search(pattern, call)]

    folder = f"{re.escape(str(run))}/checkpoints"
    (named,) = places(rf'rename.*"{folder}/\.5\.saving", .*"{folder}/5"')
    synced = {
        match[1]
        for call in calls[:named]
        if (match := re.search(rf"f(?:data)?sync\(\d+<{folder}/\.5\.saving(.*?)>", call))
    }
    checkpoint = run / "checkpoints" / "5"
    saved = [checkpoint, *checkpoint.rglob("*")]
    assert len(saved) > 10
    for path in saved:
        name = str(path.relative_to(checkpoint)).removeprefix(".")
        if name == "metadata/metadata":  # has its name by a rename of its own
            continue
        assert f"/{name}" in synced or (not name and "" in synced), name
    assert places(rf"sync\(\d+<{folder}/\.5\.saving/metadata/\.metadata\.\w+\.tmp>")[0] < named
    assert places(rf"sync\(\d+<{re.escape(str(run))}/metrics\.jsonl>")[0] < named
    remembered = [place for place in places(rf"sync\(\d+<{folder}>") if place > named]
    said = places(r'write\(2<.*"\d\d:\d\d:\d\d goodput')
    assert remembered and said and remembered[0] < said[0]


def test_a_file_that_is_replaced_is_on_the_disk_before_it_has_its_name(strace, charlstm, tmp_path):
    log, path = tmp_path / "calls", tmp_path / "page.html"
    code = f"from charlstm.runtime.files import *; replace_file(Path({str(path)!r}), 'new')"
    prefix = (strace, "-f", "-y", "-qq", "-e", f"trace={SYSTEM_CALLS}", "-o", log)
    done = charlstm(prefix=(*prefix, sys.executable, "-c", code, "--"))
    assert done.returncode == 0, done.stderr
    calls = [line for line in log.read_text().splitlines() if str(tmp_path) in line]
    kinds = [re.search(r"(\w+)\(", call)[1] for call in calls]
    assert kinds == ["openat", "write", "fsync", "rename", "openat", "fsync"]
    assert calls[-1].split("<")[1].startswith(f"{tmp_path}>")
