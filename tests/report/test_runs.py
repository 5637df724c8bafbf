"""A run folder is read while it is written, whatever it lacks."""

import json

import pytest

from charlstm.errors import UserError
from charlstm.report import runs


def line(step, **values):
    return json.dumps({"step": step} | values) + "\n"


def test_lines_are_read_as_they_come_and_each_once(tmp_path):
    path = tmp_path / "metrics.jsonl"
    tail = runs.MetricsTail(path)
    assert tail.lines() == []
    path.write_text(line(1) + line(2) + '{"step": 3')
    assert [values["step"] for values in tail.lines()] == [1, 2]
    with path.open("a") as file:
        file.write("}\n" + line(4))
    assert [values["step"] for values in tail.lines()] == [1, 2, 3, 4]


def test_a_file_written_anew_is_read_anew(tmp_path):
    """As a run does that goes on from a checkpoint."""
    path, draft = tmp_path / "metrics.jsonl", tmp_path / "draft"
    tail = runs.MetricsTail(path)
    path.write_text(line(1) + line(2) + line(3))
    tail.lines()
    draft.write_text(line(1) + line(2, valid_bits_per_byte=1.0) + line(4) + line(5))
    draft.replace(path)
    assert [values["step"] for values in tail.lines()] == [1, 2, 4, 5]


def test_lines_that_are_none_are_left_out(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("\x00\x00\n[1]\n{}\n" + line(2) + "nonsense\n")
    assert runs.MetricsTail(tmp_path / "metrics.jsonl").lines() == [{"step": 2}]


def test_a_run_may_lack_everything_but_its_configuration(tmp_path):
    (tmp_path / "config.json").write_text('{"training": {"num_updates": 9}}')
    (tmp_path / "about.json").write_text("[")
    (run,) = [reader.read() for reader in runs.readers([str(tmp_path)])]
    assert (run.step, run.num_updates, run.is_finished) == (0, 9, False)
    assert run.samples == [] and run.best() is None and run.about == {} and run.rate() is None


def test_a_diagnosis_is_no_line_of_figures(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    said = {"diagnosis": "overfitting", "message": "it learns by heart"}
    (tmp_path / "metrics.jsonl").write_text(line(5, goodput=0.5) + line(5, **said))
    (run,) = [reader.read() for reader in runs.readers([str(tmp_path)])]
    assert run.lines == [{"step": 5, "goodput": 0.5}]
    assert run.diagnoses == [{"step": 5} | said]


def test_samples_are_in_order_and_cut(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    folder = tmp_path / "samples"
    folder.mkdir()
    (folder / "00000010.txt").write_bytes(b"x" * (runs.LARGEST_SAMPLE + 1))
    (folder / "00000009.txt").write_bytes(b"\xff\x00")
    (folder / "notes.txt").write_text("of the user's own")
    (run,) = [reader.read() for reader in runs.readers([str(tmp_path)])]
    assert run.samples == [(9, b"\xff\x00"), (10, b"x" * runs.LARGEST_SAMPLE)]


def test_names_tell_runs_apart(tmp_path):
    for name in ("a/run", "b/run"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.json").write_text("{}")
    paths = [str(tmp_path / name) for name in ("a/run", "b/run")]
    assert [reader.read().name for reader in runs.readers(paths)] == paths
    assert [reader.read().name for reader in runs.readers(paths[:1])] == ["run"]
    with pytest.raises(UserError, match="named twice"):
        runs.readers([paths[0], paths[0]])
