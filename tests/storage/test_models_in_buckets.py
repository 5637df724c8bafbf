"""Models in one file, written to a bucket and read from it."""

import pytest


@pytest.fixture
def online(charlstm, environment, gcs):
    """Runs a command that reaches the store."""

    def run(*arguments):
        return charlstm(*arguments, env=environment | gcs.environment())

    return run


def test_a_model_is_exported_to_a_bucket_and_sampled_from_there(
    online, charlstm, trained, gcs, folder, address, tmp_path
):
    model = f"{address}/words.safetensors"
    done = online("export", trained, f"--output={model}")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1].endswith(f"wrote {model}")
    assert gcs.names(folder) == ["words.safetensors"]
    charlstm("export", trained, f"--output={tmp_path / 'words.safetensors'}")
    content = gcs.read(f"{folder}/words.safetensors")
    assert content == (tmp_path / "words.safetensors").read_bytes()
    # What else is there is not fetched: it could not even be stored under these names.
    gcs.put(f"{folder}/words.safetensors/below", b"another's")
    flags = "--num_bytes=40", "--prompt=a"
    done = online("sample", f"--checkpoint={model}", *flags)
    assert done.returncode == 0, done.stderr
    assert f"checkpoint: {model}" in done.stderr
    assert done.stdout == charlstm("sample", f"--checkpoint={trained}", *flags).stdout
    done = online("export", model, f"--output={address}/again.onnx")
    assert done.returncode == 0 and "again.onnx" in gcs.names(folder), done.stderr


def test_a_model_that_is_not_in_the_bucket_or_damaged_is_one_line_with_its_address(
    online, gcs, folder, address
):
    model = f"{address}/words.safetensors"
    done = online("sample", f"--checkpoint={model}")
    assert done.returncode == 2
    assert done.stderr == f"charlstm: no such checkpoint or run folder: {model}\n"
    gcs.put(f"{folder}/words.safetensors", b"no model of ours, but a text")
    done = online("sample", f"--checkpoint={model}")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert f"the checkpoint {model} is damaged" in done.stderr


def test_a_run_begins_with_the_weights_of_a_model_in_a_bucket(
    online, trained, text_file, address, tmp_path
):
    model = f"{address}/words.safetensors"
    assert online("export", trained, f"--output={model}").returncode == 0
    flags = (
        f"--corpus={text_file}",
        f"--workdir={tmp_path / 'run'}",
        f"--init_from={model}",
        f"--config={trained / 'config.json'}",
    )
    done = online("train", *flags, "--stop_after=1")
    assert done.returncode == 0 and f"starting from the weights of {model}" in done.stderr
    done = online("train", *flags, "--stop_after=2")
    assert done.returncode == 0 and "going on from update 1" in done.stderr


def test_a_model_in_a_bucket_is_imported_into_a_run_in_a_bucket(
    online, trained, text_file, gcs, folder, address
):
    model, run = f"{address}/words.safetensors", f"{address}/run"
    assert online("export", trained, f"--output={model}").returncode == 0
    done = online("import", model, f"--output={run}")
    assert done.returncode == 0 and f"wrote {run}" in done.stderr, done.stderr
    names = gcs.names(f"{folder}/run")
    assert {"config.json", "imported.json", "checkpoints/0/metadata/metadata"} <= set(names)
    done = online("import", model, f"--output={run}")
    assert done.returncode == 2 and f"--output={run} is there already" in done.stderr
    flags = f"--workdir={run}", f"--corpus={text_file}"
    done = online("train", *flags, "--stop_after=2")
    assert done.returncode == 0 and f"starting from the weights of {model}" in done.stderr
    assert "checkpoints/2/metadata/metadata" in gcs.names(f"{folder}/run")
    done = online("train", *flags, "--stop_after=3")
    assert done.returncode == 0 and "going on from update 2" in done.stderr, done.stderr
