"""A run folder is read while it is written, whatever it lacks."""

import json
import os

import pytest
from absl import logging

from charlstm.errors import UserError
from charlstm.pages import html
from charlstm.report import runs
from charlstm.report.page import render


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


def test_lines_that_are_none_are_counted_once(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(logging, "warning", lambda text, *values: said.append(text % values))
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(line(1).encode() + b'42\n\xff\xfe\x80\n{"step": "x"}\n{"step": 2')
    tail = runs.MetricsTail(path)
    assert tail.lines() == tail.lines() == [{"step": 1}]
    (notice,) = said
    assert "3 line(s) that are no figures" in notice


def test_a_folder_in_place_of_the_metrics_is_one_line(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "metrics.jsonl").mkdir()
    (reader,) = runs.readers([str(tmp_path)])
    with pytest.raises(UserError, match=r"cannot read .*metrics\.jsonl"):
        reader.read()


def test_a_file_is_no_run_folder_also_where_a_run_is_waited_for(tmp_path):
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(UserError, match=r"a\.txt is a file and no run folder"):
        runs.readers([str(tmp_path / "a.txt")])
    (reader,) = runs.readers([str(tmp_path)])
    with pytest.raises(UserError, match="is no run folder"):
        reader.read()


def test_a_page_is_whole_whatever_the_numbers_are(tmp_path):
    """Null, not finite, or beyond a float: as another program may have written them."""
    (tmp_path / "config.json").write_text("{}")
    lines = [
        line(5, seconds=1, train_bits_per_byte=2.5, gradient_norm=None, valid_bits_per_byte=None),
        line(10, seconds=float("nan"), train_bits_per_byte=float("inf"), goodput=None),
        line(15, seconds=10**400, valid_bits_per_byte=float("nan"), learning_rate=10**400),
        line(20, seconds=2, valid_bits_per_byte=3.5, valid_nats=None, lost_seconds={"save": None}),
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(lines))
    about = {"ngram_levels": [dict.fromkeys(LEVEL, "x")], "num_parameters": "many", "changes": [3]}
    (tmp_path / "about.json").write_text(json.dumps(about))
    (reader,) = runs.readers([str(tmp_path)])
    run = reader.read()
    assert run.best() == run.last_validated() == json.loads(lines[-1])
    page = render([run], tmp_path / "report.html")
    data = page.partition('<script type="application/json" id="data">')[2].partition("<")[0]
    (bits, *_) = json.loads(data, parse_constant=pytest.fail)["charts"]
    assert [point["value"] for point in bits["data"]["values"]] == [2.5, 3.5]


LEVEL = ("order", "bits_per_byte", "accuracy", "fit_bytes", "scored_bytes")


@pytest.mark.skipif(os.name == "nt", reason="names are not bytes there")
def test_names_that_are_no_utf_8_are_shown_as_far_as_they_can_be(tmp_path):
    folder = tmp_path / os.fsdecode(b"caf\xe9#1")
    trace = folder / "profile" / "perfetto_trace.json.gz"
    trace.parent.mkdir(parents=True)
    trace.touch()
    name = os.fsdecode(b"caf\xe9.txt")
    (folder / "config.json").write_text(json.dumps({"data": {"corpus": name}}))
    (folder / "about.json").write_text(json.dumps({"corpus": {"name": name, "num_bytes": 5}}))
    (reader,) = runs.readers([str(folder)])
    output = tmp_path / os.fsdecode(b"page\xe9.html")
    html.write(output, render([reader.read()], output))
    page = output.read_text(encoding="utf-8")
    assert page.count("caf\\xe9.txt") == 2 and "<h1>caf\\xe9#1</h1>" in page
    assert 'href="caf%E9%231/profile/perfetto_trace.json.gz"' in page


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
