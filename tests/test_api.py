"""The library as a program uses it: `import charlstm`, and no command line."""

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest
from run_folders import checkpoints, metrics, numbers, parameters

import charlstm
from charlstm import Preempted, UserError

pytestmark = pytest.mark.usefixtures("own_cache")

FIELDS = {
    "model.num_layers": 1,
    "training.num_updates": 12,
    "training.log_every": 4,
    "training.evaluate_every": 0,
    "training.updates_per_dispatch": 3,
}
# 600 bytes that the tiny model knows, more than `logits` computes in one call.
TEXT = (b"some words and others " * 28)[:600]


@pytest.fixture(scope="module")
def config(small_config):
    return small_config.replace(FIELDS)


@pytest.fixture(scope="module")
def model(trained):
    return charlstm.load(trained)


def in_a_process(code):
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# What takes long to load, or starts something.
HEAVY = {"absl", "flax", "jax", "jaxlib", "numpy", "optax", "orbax", "tqdm", "vl_convert"}


class TestImport:
    def test_it_is_cheap(self):
        """Until a name that needs JAX is used; configurations and errors do not."""
        code = (
            "import sys, charlstm\n"
            "roots = lambda: print(*sorted({name.partition('.')[0] for name in sys.modules}))\n"
            "roots()\n"
            "charlstm.load_config('quickstart').replace({'model.hidden_size': '8'})\n"
            "charlstm.UserError, charlstm.Preempted, charlstm.Config\n"
            "roots()\n"
            "charlstm.load\n"
            "roots()\n"
        )
        first, configured, loaded = map(str.split, in_a_process(code).splitlines())
        assert "charlstm" in first and HEAVY.isdisjoint(first)
        assert HEAVY.isdisjoint(configured)
        assert {"jax", "numpy", "orbax"} <= set(loaded)

    def test_every_public_name_is_there(self):
        assert {"load", "train", "load_config", "Model", "Hook", "UserError"} <= {*charlstm.__all__}
        for name in charlstm.__all__:
            assert getattr(charlstm, name) is not None
            assert name in dir(charlstm)

    def test_a_star_brings_every_public_name(self):
        code = "from charlstm import *\nprint(load.__name__, train.__name__, Model.__name__)"
        assert in_a_process(code) == "load train Model\n"

    def test_a_name_that_is_none_is_refused_as_usual(self):
        with pytest.raises(AttributeError, match="module 'charlstm' has no attribute 'lod'"):
            charlstm.lod  # noqa: B018


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    """The folder of a run from its first to its last update, and the model that it returned."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    return folder, charlstm.train(config, folder)


class TestTrain:
    def test_it_returns_the_model_after_the_last_update(self, whole):
        folder, model = whole
        assert checkpoints(folder)[-1] == 12
        assert (numbers(model) == parameters(folder, 12)).all()
        loaded = charlstm.load(folder / "checkpoints" / "12")
        text = model.generate(b"a", 20, seed=3)
        assert len(text) == 20 and loaded.generate(b"a", 20, seed=3) == text

    def test_it_may_be_called_again_in_the_same_process(self, config, whole, tmp_path):
        again = charlstm.train(config, tmp_path)
        assert (numbers(again) == numbers(whole[1])).all()
        other = charlstm.train(config.replace({"training.seed": 1}), tmp_path / "other")
        assert (numbers(other) != numbers(again)).any()

    def test_a_run_that_is_finished_is_left_alone_and_its_model_returned(self, config, whole):
        folder, model = whole
        before = (folder / "metrics.jsonl").read_bytes()
        assert (numbers(charlstm.train(config, folder)) == numbers(model)).all()
        assert (folder / "metrics.jsonl").read_bytes() == before

    def test_it_may_be_called_from_a_thread(self, config, whole, tmp_path):
        found = []

        def work():
            model = charlstm.train(config, str(tmp_path))
            found.append((numbers(model), model.generate(b"a", 20, seed=3)))

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        ((params, text),) = found
        assert (params == numbers(whole[1])).all()
        # The model of one thread is used in another.
        assert whole[1].generate(b"a", 20, seed=3) == text

    def test_it_starts_from_the_weights_of_another_run(self, config, whole, tmp_path):
        with_rate = config.replace({"optimizer.learning_rate": 1e-12})
        model = charlstm.train(with_rate, tmp_path, init_from=whole[0], stop_after=1)
        best = charlstm.load(whole[0])
        np.testing.assert_allclose(numbers(model), numbers(best), rtol=1e-5, atol=1e-8)

    def test_a_budget_of_parameters_chooses_the_size(self, config, tmp_path):
        budgeted = config.replace({"model.parameter_budget": 6000})
        model = charlstm.train(budgeted, tmp_path, stop_after=1)
        (_, hidden_size), size = model.shape, model.alphabet.size
        assert model.num_parameters <= 6000 < count(hidden_size + 8, size)
        assert model.num_parameters == count(hidden_size, size)

    def test_bad_input_is_one_line(self, config, tmp_path):
        for bad, says in (
            ({"data.corpus": str(tmp_path / "absent.txt")}, "absent.txt"),
            ({"data.window_length": 20_000}, "data.window_length"),
        ):
            with pytest.raises(UserError, match=says) as caught:
                charlstm.train(config.replace(bad), tmp_path / "run")
            assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()


def count(hidden_size, symbols):
    """The parameters of one layer and the head."""
    gates = 4 * hidden_size * (symbols + hidden_size + 1)
    return gates + symbols * (hidden_size + 1)


class TestStop:
    def test_a_run_that_is_to_stop_at_once_begins_when_called_again(self, config, whole, tmp_path):
        with pytest.raises(Preempted, match="before an update was made") as caught:
            charlstm.train(config, tmp_path, stop=lambda: 75)
        assert caught.value.code == 75 and checkpoints(tmp_path) == []
        model = charlstm.train(config, tmp_path)
        assert (numbers(model) == numbers(whole[1])).all()

    @pytest.mark.parametrize("code", [75, 130, 0])
    def test_a_run_that_is_stopped_is_saved_and_goes_on_when_called_again(
        self, code, config, whole, tmp_path
    ):
        """With any code, 0 too, asked for once: between two lines of metrics."""
        answers = iter([None, None, None, code])  # of updates 0, 3, 4 and 7
        with pytest.raises(Preempted, match="saved at update 7;") as caught:
            charlstm.train(config, tmp_path, stop=lambda: next(answers, None))
        assert caught.value.code == code and checkpoints(tmp_path) == [7]
        assert [line["step"] for line in metrics(tmp_path)] == [4, 7]
        model = charlstm.train(config, tmp_path, stop=lambda: None)
        assert (numbers(model) == numbers(whole[1])).all()
        assert metrics(tmp_path)[-1]["valid_nats"] == metrics(whole[0])[-1]["valid_nats"]

    def test_what_stop_raises_is_the_callers(self, config, tmp_path):
        def stop():
            raise KeyError("mine")

        with pytest.raises(KeyError, match="mine"):
            charlstm.train(config, tmp_path, stop=stop)


class TestWriters:
    def test_a_writer_of_ones_own_is_told_what_the_run_folder_is(self, config, tmp_path):
        told = []

        class Writer:
            def __init__(self, run, step, config):
                told.append((run, step, config["model"]["hidden_size"]))

            def write(self, values):
                told.append(dict(values))

            def close(self):
                told.append("closed")

        charlstm.train(config, tmp_path, writers=[Writer], stop_after=5)
        assert told == [(tmp_path, 0, 8), *metrics(tmp_path), "closed"]


class TestGenerate:
    @pytest.mark.parametrize(
        "settings",
        [
            {"seed": 4, "temperature": 1.3, "top_k": 9},
            {"top_p": 0.7},
            {"temperature": 0},
        ],
        ids=str,
    )
    def test_it_gives_what_the_command_gives(self, charlstm, trained, model, settings):
        flags = [f"--{name}={value}" for name, value in settings.items()]
        shared = f"--checkpoint={trained}", "--prompt=some words", "--num_bytes=300"
        done = charlstm("sample", *shared, "--noecho", "--raw", *flags, text=False)
        assert done.returncode == 0, done.stderr
        assert model.generate(b"some words", 300, **settings) == done.stdout
        assert len(done.stdout) == 300

    def test_the_seed_decides_the_text(self, model):
        first = model.generate("the ", 50, seed=1)
        assert model.generate("the ", 50, seed=1) == first != model.generate("the ", 50, seed=2)

    def test_a_text_comes_in_pieces_that_make_up_the_whole(self, model):
        pieces = list(model.stream(b"the ", 300, seed=1))
        assert len(pieces) > 3 and all(pieces)
        assert b"".join(pieces) == model.generate(b"the ", 300, seed=1)
        assert list(model.stream(b"the ", 0)) == [] and model.generate(b"the ", 0) == b""

    def test_streams_may_be_read_side_by_side(self, model):
        wanted = [model.generate(b"the ", 100, seed=seed) for seed in (1, 2)]
        pairs = zip(*(model.stream(b"the ", 100, seed=seed) for seed in (1, 2)), strict=True)
        assert [b"".join(pieces) for pieces in zip(*pairs, strict=True)] == wanted

    def test_threads_may_share_a_model(self, trained, model):
        shared = charlstm.load(trained)  # nothing of it is made yet
        with ThreadPoolExecutor(4) as threads:
            texts = threads.map(lambda seed: shared.generate(b"the ", 100, seed=seed), range(8))
            assert list(texts) == [model.generate(b"the ", 100, seed=seed) for seed in range(8)]

    @pytest.mark.parametrize(("unknown", "read"), [("skip", b"the "), ("ab", b"abthababeab ")])
    def test_unknown_bytes_of_a_prompt_are_left_out_or_replaced(self, model, unknown, read):
        made = model.generate("RthX1e! ", 30, seed=1, unknown=unknown)
        assert made == model.generate(read, 30, seed=1)
        assert model.read("RthX1e! ", unknown=unknown).num_read == len(read)

    def test_a_text_in_unicode_is_read_as_utf_8(self, tmp_path, config):
        (tmp_path / "text.txt").write_text("né le désert à côté " * 40, encoding="utf-8")
        fields = {"data.corpus": str(tmp_path / "text.txt"), "data.num_streams": 1}
        model = charlstm.train(config.replace(fields), tmp_path / "run", stop_after=1)
        assert model.generate("né", 30) == model.generate("né".encode(), 30)
        assert model.bits_per_byte("côté") == model.bits_per_byte("côté".encode())
        assert len(model.logits("é")) == 2


class TestRead:
    def test_a_state_is_used_again_and_again(self, model):
        state = model.read(b"some words and ")
        wanted = model.generate(b"some words and ", 60, seed=1)
        for _ in range(3):
            assert model.generate(state, 60, seed=1) == wanted
        begun = model.stream(state, 60, seed=2)
        next(begun)
        assert model.generate(state, 60, seed=1) == wanted

    def test_reading_goes_on_from_a_state_and_leaves_it_as_it_was(self, model):
        first = model.read(b"some ")
        whole = model.generate(b"some words", 60, temperature=0)
        for _ in range(2):
            assert model.generate(model.read(b"words", first), 60, temperature=0) == whole
        assert model.generate(first, 60, seed=1) == model.generate(b"some ", 60, seed=1)
        assert model.read(b"words", first).num_read == 10

    def test_a_prompt_may_be_of_any_length(self, model):
        state = model.read(TEXT)
        assert state.num_read == 600
        assert model.generate(state, 20, temperature=0) == model.generate(TEXT, 20, temperature=0)


def bits_of(logits, text):
    """The mean of -log2 of the probabilities of the bytes, from logits in float64."""
    logits = np.asarray(logits, np.float64)
    shifted = logits - logits.max(-1, keepdims=True)
    chances = np.exp(shifted) / np.exp(shifted).sum(-1, keepdims=True)
    return -np.mean(np.log2(chances[np.arange(len(text)), text]))


class TestScores:
    @pytest.mark.parametrize("length", [1, 600])
    def test_bits_per_byte_are_those_of_the_command(
        self, charlstm, trained, model, length, tmp_path
    ):
        (tmp_path / "text.txt").write_bytes(TEXT[:length])
        flags = f"--checkpoint={trained}", f"--corpus={tmp_path / 'text.txt'}", "--json"
        done = charlstm("evaluate", *flags)
        assert done.returncode == 0, done.stderr
        assert model.bits_per_byte(TEXT[:length]) == json.loads(done.stdout)["bits_per_byte"]

    # Within one window, at its end, and over several: 256 are computed at a time.
    @pytest.mark.parametrize("length", [1, 20, 255, 256, 600])
    @pytest.mark.parametrize("reset_every", [0, 8])
    def test_logits_agree_with_bits_per_byte(self, model, length, reset_every):
        """A text is scored as if after a line break."""
        model = model.replace(reset_every=reset_every)
        text = TEXT[:length]
        logits = model.logits(b"\n" + text)
        assert logits.shape == (length + 1, model.alphabet.size) and logits.dtype == np.float32
        symbols = model.alphabet.encode(text)
        assert bits_of(logits[:-1], symbols) == pytest.approx(model.bits_per_byte(text), rel=1e-5)

    def test_logits_do_not_depend_on_what_follows(self, model):
        whole = model.logits(TEXT)
        for length in (1, 256, 257):
            np.testing.assert_allclose(model.logits(TEXT[:length]), whole[:length], rtol=1e-5)

    def test_the_likeliest_byte_by_the_logits_is_the_one_that_is_made(self, model):
        likeliest = int(np.argmax(model.logits(b"some words")[-1]))
        made = model.generate(b"some words", 1, temperature=0)
        assert model.alphabet.encode(made).tolist() == [likeliest]


class TestBadInput:
    CALLS = (
        lambda model, text: model.logits(text),
        lambda model, text: model.bits_per_byte(text),
        lambda model, text: model.read(text),
        lambda model, text: model.stream(text, 5),
        lambda model, text: model.generate(text, 5),
    )
    NAMES = ("logits", "bits_per_byte", "read", "stream", "generate")

    @pytest.mark.parametrize("call", CALLS, ids=NAMES)
    @pytest.mark.parametrize("text", [b"word ROMEO", "word ROMEO"], ids=["bytes", "str"])
    def test_a_byte_that_the_model_does_not_know_is_named(self, model, call, text):
        with pytest.raises(UserError, match=r"0x52.*offset 5") as caught:
            call(model, text)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("call", CALLS, ids=NAMES)
    @pytest.mark.parametrize("text", [b"", ""], ids=["bytes", "str"])
    def test_an_empty_text_is_refused(self, model, call, text):
        with pytest.raises(UserError, match="the text is empty: give at least one byte"):
            call(model, text)

    @pytest.mark.parametrize(
        "setting",
        [
            {"temperature": -1},
            {"temperature": float("nan")},
            {"temperature": float("inf")},
            {"temperature": "0.8"},
            {"top_k": -1},
            {"top_k": 2.5},
            {"top_p": 0},
            {"top_p": 1.5},
            {"top_p": float("nan")},
            {"seed": -1},
            {"seed": 2**32},
            {"seed": 0.5},
            {"unknown": None},
        ],
        ids=str,
    )
    def test_a_setting_out_of_range_is_named(self, model, setting):
        ((name, value),) = setting.items()
        with pytest.raises(UserError, match=f"{name}={value!r} must be") as caught:
            model.stream(b"word", 5, **setting)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("num_bytes", [-1, 5.0, "5", True])
    def test_a_number_of_bytes_that_is_none_is_named(self, model, num_bytes):
        with pytest.raises(UserError, match=f"num_bytes={num_bytes!r} must be a whole number"):
            model.generate(b"word", num_bytes)

    @pytest.mark.parametrize("call", CALLS, ids=NAMES)
    def test_what_is_no_text_is_named(self, model, call):
        with pytest.raises(UserError, match="a text is bytes or a str, not int"):
            call(model, 5)

    def test_a_folder_without_a_model_is_named(self, tmp_path):
        with pytest.raises(UserError, match="holds no checkpoint"):
            charlstm.load(tmp_path)
        with pytest.raises(UserError, match="no such checkpoint or run folder"):
            charlstm.load(tmp_path / "absent")


class TestLoad:
    def test_a_model_and_a_run_may_be_in_the_home_folder(
        self, config, whole, tmp_path, monkeypatch
    ):
        monkeypatch.setenv("HOME", str(tmp_path))
        (tmp_path / "whole").symlink_to(whole[0])
        assert (numbers(charlstm.load("~/whole")) == numbers(charlstm.load(whole[0]))).all()
        with pytest.raises(Preempted):
            charlstm.train(config, "~/run", init_from="~/whole", stop=lambda: 75)
        assert (tmp_path / "run" / "config.json").exists()

    def test_a_run_folder_means_its_best_checkpoint(self, trained, model):
        scores = {line["step"]: line.get("valid_nats", np.inf) for line in metrics(trained)}
        best = min(scores, key=scores.get)
        assert (numbers(model) == parameters(trained, best)).all()
        assert (numbers(charlstm.load(str(trained))) == numbers(model)).all()

    def test_a_model_is_a_pytree(self, model):
        doubled = jax.tree.map(lambda leaf: 2 * leaf, model)
        assert isinstance(doubled, charlstm.Model)
        assert (numbers(doubled) == 2 * numbers(model)).all()
        likeliest = jax.jit(lambda model: model.params["head"]["bias"].argmax())(model)
        assert 0 <= int(likeliest) < model.alphabet.size


def test_using_a_model_loads_nothing_of_training(trained):
    code = (
        "import sys, charlstm\n"
        f"model = charlstm.load({str(trained)!r})\n"
        "model.generate('words', 3), model.bits_per_byte('words'), model.logits('words')\n"
        "print([name for name in sys.modules if name.startswith('charlstm.training')])\n"
    )
    assert in_a_process(code).strip() == "[]"
