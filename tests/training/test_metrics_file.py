"""`metrics.jsonl` holds figures and diagnoses, in the order of the updates."""

import json

from charlstm.training.metrics_file import MetricsFile, read_figures

SAID = {"diagnosis": "overfitting", "message": "the network learns its text by heart"}


def lines_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_figures_made_up_for_join_the_last_line_that_has_some(tmp_path):
    file = MetricsFile(tmp_path, 0)
    file.write({"step": 5, "seconds": 1})
    file.write({"step": 10, "seconds": 2})
    file.write({"step": 10} | SAID)
    file.merge({"step": 10, "valid_nats": 1.5})
    file.write({"step": 15, "seconds": 3})
    file.close()
    assert lines_of(tmp_path) == [
        {"step": 5, "seconds": 1},
        {"step": 10, "seconds": 2, "valid_nats": 1.5},
        {"step": 10} | SAID,
        {"step": 15, "seconds": 3},
    ]
    assert [line["step"] for line in read_figures(tmp_path)] == [5, 10, 15]


def test_figures_made_up_for_join_the_line_of_metrics_and_not_what_a_hook_said_behind_it(tmp_path):
    file = MetricsFile(tmp_path, 0)
    file.write({"step": 5, "seconds": 1})
    file.write({"step": 10, "seconds": 2})
    file.write({"step": 10, "of_a_hook": 3})
    file.merge({"step": 10, "valid_nats": 1.5})
    file.close()
    assert lines_of(tmp_path) == [
        {"step": 5, "seconds": 1},
        {"step": 10, "seconds": 2, "valid_nats": 1.5},
        {"step": 10, "of_a_hook": 3},
    ]


def test_figures_can_be_made_up_for_where_there_are_none(tmp_path):
    file = MetricsFile(tmp_path, 0)
    file.merge({"step": 10, "valid_nats": 1.5})
    file.close()
    assert lines_of(tmp_path) == [{"step": 10, "valid_nats": 1.5}]


def test_what_was_said_of_updates_that_are_made_again_is_dropped(tmp_path):
    file = MetricsFile(tmp_path, 0)
    for step in (5, 10, 15):
        file.write({"step": step})
        file.write({"step": step} | SAID)
    file.close()
    MetricsFile(tmp_path, 10).close()
    assert [line["step"] for line in lines_of(tmp_path)] == [5, 5, 10, 10]


def test_no_run_has_no_figures(tmp_path):
    assert read_figures(tmp_path) == []
