"""Several devices compute what one does."""

import json

import pytest
from conftest import TINY

from charlstm.distributed import cpu_devices_for


@pytest.mark.parametrize("dropout_kind", ["standard", "locked"])
def test_loss_curve_does_not_depend_on_the_number_of_devices(
    charlstm, text_file, tmp_path, dropout_kind
):
    curves = []
    for count in (1, 2, 4):
        folder = tmp_path / str(count)
        done = charlstm(
            "train",
            f"--corpus={text_file}",
            f"--workdir={folder}",
            f"--num_cpu_devices={count}",
            *TINY,
            f"--config.model.dropout_kind={dropout_kind}",
        )
        assert done.returncode == 0, done.stderr
        assert f"devices: {count} × cpu" in done.stderr
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        curves.append([json.loads(line)["train_bits_per_byte"] for line in lines])
    assert curves[1] == pytest.approx(curves[0], rel=1e-5)
    assert curves[2] == pytest.approx(curves[0], rel=1e-5)


def test_streams_that_cannot_be_shared_out_are_refused(charlstm, text_file, tmp_path):
    done = charlstm(
        "train",
        f"--corpus={text_file}",
        f"--workdir={tmp_path}",
        *TINY,
        "--num_cpu_devices=3",
    )
    assert done.returncode == 2
    assert "data.num_streams=4" in done.stderr.splitlines()[-1]


def test_cpu_devices_share_the_streams_out_evenly(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(6)), raising=False)
    assert cpu_devices_for(128, 32) == 4
    assert cpu_devices_for(128, 7) == 1
    assert cpu_devices_for(1024, 32) == 1
