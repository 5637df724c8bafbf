"""`charlstm import`: what comes out is a run folder like any other."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from exported_models import header_of, make_model, with_fields
from run_folders import checkpoints, metrics, numbers

import charlstm as library
from charlstm import importing
from charlstm.checkpoint import exported, reading
from charlstm.data.corpus import Alphabet
from charlstm.importing import run

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture(scope="module")
def file(charlstm, trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "words.safetensors"
    assert charlstm("export", trained, f"--output={path}").returncode == 0
    return path


@pytest.fixture
def imported(charlstm, file, tmp_path):
    done = charlstm("import", file, f"--output={tmp_path / 'run'}")
    assert done.returncode == 0 and done.stdout == "", done.stderr
    assert f"charlstm train --workdir={tmp_path / 'run'} goes on from it" in done.stderr
    return tmp_path / "run"


@pytest.fixture
def other_text(tmp_path):
    """A text of fewer different bytes than the model knows."""
    rng = np.random.default_rng(1)
    words = ["".join(rng.choice(list("abcdefg"), 4)) for _ in range(20)]
    path = tmp_path / "other.txt"
    path.write_text(" ".join(rng.choice(words, 2000)))
    return path


def test_the_parameters_have_the_same_bits_as_before_export(imported, trained):
    was, now = library.load(trained), library.load(imported)
    assert numbers(now).tobytes() == numbers(was).tobytes()
    assert now.alphabet == was.alphabet
    step = reading.resolve(imported)
    assert step.name == "0" and reading.read_metadata(step).metrics == {}


@pytest.mark.parametrize("averaging", ["ema", "triggered"])
def test_a_model_of_averaged_parameters_comes_back_too(averaging, tmp_path):
    model, metadata = make_model("skip")
    metadata = with_fields(metadata, {"optimizer.averaging": averaging, "mesh.model": 4})
    path = tmp_path / "model.safetensors"
    path.write_bytes(exported.encoded(model.params, metadata, np.float32))
    folder = run.write(importing.read(str(path)), str(tmp_path / "run"))
    assert numbers(library.load(folder)).tobytes() == numbers(model).tobytes()
    # Nobody needs the four devices that it was trained on.
    assert library.load_config(str(folder / "config.json")).mesh.model == 1


def test_it_is_sampled_evaluated_inspected_reported_and_exported(
    charlstm, imported, trained, tmp_path
):
    flags = "--num_bytes=30", "--prompt=a"
    of_run = charlstm("sample", f"--checkpoint={trained}", *flags)
    assert charlstm("sample", f"--checkpoint={imported}", *flags).stdout == of_run.stdout

    def score(checkpoint):
        done = charlstm("evaluate", f"--checkpoint={checkpoint}", "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)["bits_per_byte"]

    assert score(imported) == score(trained)
    for command in (
        ("inspect", imported, f"--output={tmp_path / 'page.html'}"),
        ("report", imported),
        ("export", imported, f"--output={tmp_path / 'again.safetensors'}"),
    ):
        done = charlstm(*command)
        assert done.returncode == 0, done.stderr
    assert header_of(tmp_path / "again.safetensors")["config"] == json.dumps(
        library.load_config(str(imported / "config.json")).to_json()
    )


def test_it_is_trained_on_with_another_text_without_a_word_of_its_configuration(
    charlstm, imported, trained, other_text
):
    """Also with other streams, and again after an end; the alphabet stays that of the model."""
    flags = (
        f"--workdir={imported}",
        f"--corpus={other_text}",
        "--config.data.num_streams=2",
        "--config.training.log_every=1",
    )
    done = charlstm("train", *flags, "--stop_after=10")
    assert done.returncode == 0, done.stderr
    assert "starting from the weights of" in done.stderr and "2 streams" in done.stderr
    alphabet = Alphabet.of("corpus", np.frombuffer(other_text.read_bytes(), np.uint8))
    saved = reading.read_metadata(imported / "checkpoints" / "10")
    assert saved.alphabet == library.load(trained).alphabet != alphabet
    assert saved.corpus["name"] == "other.txt" and not saved.is_imported
    lines = metrics(imported)
    assert lines[-1]["train_bits_per_byte"] < lines[0]["train_bits_per_byte"]
    # From then on it is a run like any other: the same command, or less, goes on.
    done = charlstm("train", f"--workdir={imported}", "--stop_after=12")
    assert done.returncode == 0 and "going on from update 10" in done.stderr, done.stderr
    assert checkpoints(imported)[-1] == 12
    done = charlstm("train", f"--workdir={imported}", "--config.data.num_streams=4")
    assert done.returncode == 2 and "data.num_streams was 2 and is now 4" in done.stderr


def test_its_first_update_is_that_of_a_run_with_its_weights(
    charlstm, imported, file, text_file, tmp_path
):
    """A run that was imported and one that begins with --init_from are the same to the last bit."""
    config = library.load_config(str(imported / "config.json"))
    ours = library.train(config, imported, stop_after=7)
    theirs = library.train(config, tmp_path / "other", init_from=file, stop_after=7)
    assert numbers(ours).tobytes() == numbers(theirs).tobytes()
    # It may be said again what it began with.
    library.train(config, imported, init_from=file, stop_after=8)
    with pytest.raises(library.UserError, match="did not begin with the weights of"):
        library.train(config, imported, init_from=tmp_path / "other")


def test_another_run_begins_with_its_weights(imported, trained, tmp_path):
    config = library.load_config(str(trained / "config.json"))
    ours = library.train(config, tmp_path / "a", init_from=imported, stop_after=2)
    theirs = library.train(config, tmp_path / "b", init_from=trained, stop_after=2)
    assert numbers(ours).tobytes() == numbers(theirs).tobytes()


def test_a_run_that_was_killed_before_its_first_save_begins_again(
    imported, charlstm, environment, text_file
):
    flags = f"--workdir={imported}", "--config.training.checkpoint_every=0"
    process = subprocess.Popen(
        [sys.executable, "-m", "charlstm", "train", *flags, "--config.training.num_updates=10000"],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in process.stderr:
        if "/10000 loss" in line:
            break
    process.kill()
    process.wait()
    process.stderr.close()
    assert checkpoints(imported) == [0]
    done = charlstm("train", *flags, "--stop_after=3")
    assert done.returncode == 0 and "starting from the weights of" in done.stderr, done.stderr
    assert checkpoints(imported) == [0, 3]


def test_texts_and_fields_that_do_not_fit_are_refused_and_nothing_is_lost(
    charlstm, imported, text_file, tmp_path
):
    (tmp_path / "upper.txt").write_text("SOME WORDS " * 500)
    before = (imported / "config.json").read_bytes()
    for flags, says in (
        (("--corpus=upper.txt",), "has bytes that the imported model of 28 symbols does not know"),
        (("--config.model.hidden_size=8",), "has model.hidden_size=16, this run 8: set --config"),
        (("--config.model.alphabet=bytes",), "has model.alphabet=corpus, this run bytes"),
        (("--config=quickstart", f"--corpus={text_file}"), "set --config.model.num_layers=2"),
    ):
        done = charlstm("train", f"--workdir={imported}", *flags, cwd=tmp_path,
                        env=os.environ | {"PYTHONPATH": os.getcwd()})  # fmt: skip
        assert done.returncode == 2 and says in done.stderr.splitlines()[-1], done.stderr
    assert checkpoints(imported) == [0] and (imported / "config.json").read_bytes() == before


def test_what_is_there_is_never_overwritten(charlstm, file, trained, tmp_path):
    before = (trained / "config.json").read_bytes()
    done = charlstm("import", file, f"--output={trained}")
    assert done.returncode == 2 and (trained / "config.json").read_bytes() == before
    assert done.stderr == (
        f"charlstm: --output={trained} is there already: choose another folder, for nothing is "
        "overwritten\n"
    )
    (tmp_path / "empty").mkdir()
    assert charlstm("import", file, f"--output={tmp_path / 'empty'}").returncode == 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "no file is named"),
        (("FILE",), "--output=RUN is missing"),
        (("FILE", "another", "--output=run"), "unexpected argument 'another'"),
        (("TEXT", "--output=run"), "no safetensors file"),
        (("FILE", "--output=run", "--config.model.hidden_size=9"), "has model.hidden_size=16"),
        (("FILE", "--output=/proc/run"), "cannot write to the run folder /proc/run"),
    ],
)
def test_bad_input_is_refused_with_one_line_and_makes_nothing(
    charlstm, environment, file, text_file, tmp_path, arguments, says
):
    names = {"FILE": str(file), "TEXT": str(text_file)}
    given = [names.get(argument, argument) for argument in arguments]
    done = charlstm("import", *given, cwd=tmp_path, env=environment | {"PYTHONPATH": os.getcwd()})
    assert done.returncode == 2 and done.stdout == "" and os.listdir(tmp_path) == []
    assert says in done.stderr and len(done.stderr.splitlines()) == 1


def test_what_is_no_file_of_a_model_is_refused(file, trained, text_file):
    for arguments, says in (
        (("none.safetensors",), "no such file: none.safetensors"),
        ((str(trained),), "is a folder, and an import takes a .safetensors file"),
        ((str(file), str(text_file)), "has its alphabet in it: leave --alphabet_of out"),
        ((str(file), None, {"model.hidden": "9"}), "no configuration field 'model.hidden'"),
    ):
        with pytest.raises(library.UserError, match=says):
            importing.read(*arguments)


def test_without_its_text_a_model_of_pytorchs_layout_asks_for_one(charlstm, tmp_path, text_file):
    import safetensors.numpy

    rng = np.random.default_rng(0)
    shapes = {"weight_ih_l0": (32, 256), "weight_hh_l0": (32, 8), "out.weight": (256, 8)}
    tensors = {name: rng.normal(size=s).astype(np.float32) for name, s in shapes.items()}
    safetensors.numpy.save_file(tensors, tmp_path / "model.safetensors")
    run = tmp_path / "run"
    done = charlstm("import", tmp_path / "model.safetensors", f"--output={run}")
    assert done.returncode == 0 and f"--workdir={run} --corpus=TEXT goes on" in done.stderr
    for command in (
        ("evaluate", f"--checkpoint={run}"),
        ("train", f"--workdir={run}"),
        ("inspect", run, f"--output={tmp_path / 'page.html'}"),
    ):
        done = charlstm(*command)
        assert done.returncode == 2
        complaint = done.stderr.splitlines()[-1]
        assert "its text is not known: give one with --corpus=PATH" in complaint
    done = charlstm("evaluate", f"--checkpoint={run}", f"--corpus={text_file}")
    assert done.returncode == 0, done.stderr
    done = charlstm("train", f"--workdir={run}", f"--corpus={text_file}", "--stop_after=1",
                    "--config.data.num_streams=4")  # fmt: skip
    assert done.returncode == 0, done.stderr
