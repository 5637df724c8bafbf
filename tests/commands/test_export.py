"""`charlstm export`, and every command that reads a checkpoint, with a file in its place."""

import json
import os

import pytest


@pytest.fixture(scope="module")
def file(charlstm, trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "words.safetensors"
    done = charlstm("export", trained, f"--output={path}")
    assert done.returncode == 0 and done.stdout == "", done.stderr
    assert done.stderr.splitlines()[-1].endswith(f"wrote {path}")
    return path


def test_samples_are_those_of_the_run(charlstm, trained, file):
    flags = "--num_bytes=60", "--seed=3", "--prompt=a"
    of_run = charlstm("sample", f"--checkpoint={trained}", *flags)
    of_file = charlstm("sample", f"--checkpoint={file}", *flags)
    assert of_file.returncode == 0 and of_file.stdout == of_run.stdout
    assert f"checkpoint: {file}" in of_file.stderr


def test_scores_are_those_of_the_run_on_its_own_text_and_on_another(
    charlstm, trained, file, tmp_path
):
    def scored(checkpoint, *flags):
        done = charlstm("evaluate", f"--checkpoint={checkpoint}", "--json", *flags)
        assert done.returncode == 0, done.stderr
        return {k: v for k, v in json.loads(done.stdout).items() if k != "checkpoint"}

    # Beside the file lie figures of a run, which are not its own.
    (file.parent / "metrics.jsonl").write_text('{"step": 1, "valid_bits_per_byte": 0.1}\n')
    assert scored(file, "--split=test") == scored(trained, "--split=test")
    (tmp_path / "other.txt").write_text("some other words\n" * 99)
    other = f"--corpus={tmp_path / 'other.txt'}"
    assert scored(file, other) == scored(trained, other)


def test_it_is_inspected_under_its_name_and_updates(charlstm, file, tmp_path):
    done = charlstm("inspect", file, f"--output={tmp_path / 'page.html'}")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "page.html").read_text()
    assert "words</" in page and "update 40<" in page and str(file) in page


def test_a_new_run_begins_with_its_weights(charlstm, file, text_file, tmp_path):
    flags = (
        f"--corpus={text_file}",
        "--config.model.hidden_size=16",
        "--config.model.alphabet=corpus",
        "--config.data.num_streams=4",
        "--config.data.window_length=8",
        f"--workdir={tmp_path / 'run'}",
        f"--init_from={file}",
    )
    done = charlstm("train", *flags, "--config.model.num_layers=2", "--stop_after=2")
    assert done.returncode == 0, done.stderr
    assert f"starting from the weights of {file}" in done.stderr
    done = charlstm("train", *flags, "--config.model.num_layers=2", "--stop_after=3")
    assert done.returncode == 0 and "going on from update 2" in done.stderr
    done = charlstm("train", *flags[:-2], f"--workdir={tmp_path / 'other'}", flags[-1])
    assert done.returncode == 2
    assert f"{file} has model.num_layers=2, this run 1" in done.stderr


def test_what_was_there_is_replaced_only_by_a_whole_file(charlstm, trained, tmp_path):
    output = tmp_path / "model.safetensors"
    output.write_bytes(b"what was there")
    assert charlstm("export", tmp_path, f"--output={output}").returncode == 2
    assert output.read_bytes() == b"what was there"
    done = charlstm("export", trained, f"--output={output}", "--dtype=bfloat16")
    assert done.returncode == 0 and os.listdir(tmp_path) == ["model.safetensors"]
    done = charlstm("sample", f"--checkpoint={output}", "--num_bytes=5", "--noecho")
    assert done.returncode == 0 and len(done.stdout) == 6


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "--output=FILE is missing"),
        (("--output=model.bin",), "tells no format"),
        (("--output=model.bin", "--format=safetensors"), "writes files named *.safetensors"),
        (("--output=m.safetensors", "--format=safetensor"), "did you mean safetensors?"),
        (("--output=m.safetensors", "--dtype=float16"), "in float32 or bfloat16, not float16"),
        (("--output=/nowhere/m.safetensors",), "there is no folder /nowhere"),
        (("--output=m.safetensors", "another"), "unexpected argument 'another'"),
    ],
)
def test_bad_input_is_refused_with_one_line(charlstm, trained, arguments, says, tmp_path):
    done = charlstm("export", trained, *arguments, cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == "" and os.listdir(tmp_path) == []
    assert says in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_damaged_file_ends_every_command_with_one_line(charlstm, file, text_file, tmp_path):
    damaged = tmp_path / "model.safetensors"
    damaged.write_bytes(file.read_bytes()[:-1])
    for command in (
        ("sample", f"--checkpoint={damaged}"),
        ("evaluate", f"--checkpoint={damaged}"),
        ("inspect", damaged, f"--output={tmp_path / 'page.html'}"),
        ("export", damaged, f"--output={tmp_path / 'other.safetensors'}"),
        ("train", f"--init_from={damaged}", f"--corpus={text_file}", f"--workdir={tmp_path}/run"),
    ):
        done = charlstm(*command)
        assert done.returncode == 2 and done.stdout == ""
        assert "it is cut off" in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr
    assert not list(tmp_path.glob("run/checkpoints/*")) and not (tmp_path / "page.html").exists()


def test_a_suffix_chooses_the_format(charlstm, trained, tmp_path):
    done = charlstm("export", trained, f"--output={tmp_path / 'model.onnx'}")
    assert done.returncode == 0, done.stderr
    import onnx

    assert onnx.load(tmp_path / "model.onnx").producer_name == "charlstm"


@pytest.mark.parametrize("kind", ["onnx", "stablehlo"])
def test_a_missing_library_is_named_with_the_command_that_installs_it(
    charlstm, environment, trained, tmp_path, kind
):
    """Behind a folder in which the library cannot be imported."""
    library = {"onnx": "onnx", "stablehlo": "flatbuffers"}[kind]
    (tmp_path / f"{library}.py").write_text("raise ImportError('not here')")
    places = [str(tmp_path), os.getcwd(), environment.get("PYTHONPATH", "")]
    without = environment | {"PYTHONPATH": os.pathsep.join(places)}
    output = tmp_path / f"model.{kind}"
    done = charlstm("export", trained, f"--output={output}", env=without)
    assert done.returncode == 2 and not output.exists()
    complaint = f"charlstm: --format={kind} needs an extra: pip install 'charlstm[{kind}]'\n"
    assert done.stderr == complaint
