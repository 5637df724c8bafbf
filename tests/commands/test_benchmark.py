"""`charlstm benchmark`: real processes that measure tiny shapes; nothing is said of time."""

import json

import pytest
from processes import CHEAP

from charlstm.benchmark.shapes import Shape

SHAPE = Shape.parse("1x8-B4-T8")
# Its activations take more than a hundred times the memory of any machine that this runs on.
TOO_LARGE = "1x64-B1048576-T65536"


@pytest.fixture(scope="module")
def measured(charlstm, environment, tmp_path_factory):
    """The finished process for one tiny shape, and the folder that was all its own."""
    folder = tmp_path_factory.mktemp("benchmark")
    own = {name: str(folder) for name in ("HOME", "XDG_CACHE_HOME", "JAX_COMPILATION_CACHE_DIR")}
    flags = (f"--shapes={SHAPE}", "--seconds=2", "--json")
    done = charlstm("benchmark", *flags, env=environment | CHEAP | own, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done, folder


@pytest.fixture(scope="module")
def found(measured):
    """What the command says to scripts."""
    return json.loads(measured[0].stdout)


def test_training_is_measured_and_compared_with_products_of_the_same_seconds(found):
    (row,) = found["training"]
    assert (row["shape"], row["status"]) == (str(SHAPE), "ok")
    lowest, highest = row["bytes_per_second_range"]
    assert 0 < lowest <= row["bytes_per_second"] <= highest
    seconds = SHAPE.bytes_per_update / row["bytes_per_second"]
    assert row["ms_per_update"] == pytest.approx(1e3 * seconds)
    flops = row["bytes_per_second"] * SHAPE.training_flops_per_byte
    assert row["flops_per_second"] == pytest.approx(flops)
    assert row["product_flops_per_second"] != found["product_flops_per_second"]
    share = flops / row["product_flops_per_second"]
    assert row["share_of_product_rate"] == pytest.approx(share)
    assert row["memory_bytes"] > 2**21  # the text alone
    assert row["compile_seconds"] > 0 and row["ceiling_bytes_per_second"] is None


def test_sampling_is_measured_at_batch_1_and_64_or_named_as_not_reached(found):
    rows = found["sampling"]
    assert rows and all(row["status"] == "ok" for row in rows)
    for row in rows:
        step = 1e6 * row["batch"] / row["bytes_per_second"]
        assert row["us_per_step"] == pytest.approx(step)
    names = [f"sampling {row['model']}, batch {row['batch']}" for row in rows]
    assert names + found["not_reached"] == ["sampling 1x8, batch 1", "sampling 1x8, batch 64"]


def test_it_says_what_was_measured_on(found):
    assert found["versions"].keys() == {"charlstm", "jax", "jaxlib", "python"}
    assert found["platform"] == "cpu" and found["num_devices"] >= 1
    assert found["date"] and found["device_kind"] and found["compute_dtype"] == "float32"


def test_progress_is_on_standard_error_only(measured):
    done, _ = measured
    assert len(done.stdout.splitlines()) == 1
    assert f"training {SHAPE}" in done.stderr


def test_nothing_is_written_to_disk(measured):
    _, folder = measured
    assert list(folder.iterdir()) == []


def test_a_shape_that_does_not_fit_is_a_row_of_the_table_and_the_others_go_on(
    charlstm, environment
):
    flags = (f"--shapes={TOO_LARGE},{SHAPE}", "--seconds=1", "--dtype=bfloat16")
    done = charlstm("benchmark", *flags, env=environment | CHEAP)
    assert done.returncode == 0, done.stderr
    rows = {line.split("|")[1].strip(): line for line in done.stdout.splitlines() if "|" in line}
    assert "does not fit: an update needs" in rows[f"training {TOO_LARGE}"]
    assert "ms/update" in rows[f"training {SHAPE}"] and "n/a" in rows[f"training {SHAPE}"]
    assert "large products, bfloat16" in done.stdout
    assert "jaxlib" in done.stdout.splitlines()[0]


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--shapes=3x512", "3x512-B64-T64"),
        (f"--shapes={SHAPE},1x8-B4194304-T8", "1x8-B4194304-T8 has more streams"),
        ("--dtype=float16", "float32"),
        ("--recurrence=scanned", "scan_columns"),
        ("--seconds=0", "seconds"),
        ("--seconds=inf", "finite"),
        ("--config.model.hidden_size=8", "--shapes"),
        ("--config.model.no_such_field=8", "no_such_field"),
        ("everything", "everything"),
    ],
)
def test_a_bad_flag_is_one_line_and_exit_code_2(charlstm, flag, said):
    done = charlstm("benchmark", flag)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_field_that_is_given_twice_is_refused(charlstm):
    done = charlstm("benchmark", "--dtype=bfloat16", "--config.model.compute_dtype=float32")
    assert done.returncode == 2 and "differ" in done.stderr
