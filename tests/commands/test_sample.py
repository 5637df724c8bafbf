"""`charlstm sample` as users run it."""

import os
import shutil
import subprocess
import sys

import jax
import pytest
from planted import make_run

import charlstm as library
from charlstm.checkpoint.metadata import Metadata
from charlstm.checkpoint.writing import Checkpoints
from charlstm.data.corpus import Alphabet
from charlstm.model.parameters import init_params


@pytest.fixture
def sample(charlstm, trained):
    def run(*arguments, checkpoint=trained, **options):
        return charlstm("sample", f"--checkpoint={checkpoint}", *arguments, **options)

    return run


@pytest.fixture(scope="module")
def all_bytes(tmp_path_factory):
    """A run folder whose model knows all 256 bytes."""
    return make_run(tmp_path_factory.mktemp("bytes") / "run")


def test_without_echo_standard_output_holds_what_was_made_alone(sample):
    done = sample("--num_bytes=200", "--seed=3", "--prompt=a", "--noecho", text=False)
    assert done.returncode == 0, done.stderr
    # The tiny model's alphabet is ASCII: a byte is a character. A line break ends the output.
    assert len(done.stdout) == 201 and done.stdout[-1:] == b"\n"
    assert set(done.stdout) <= set(b"abcdefghijklmnopqrstuvwxyz \n")


def test_the_seed_decides_the_text(sample):
    first = sample("--num_bytes=100", "--seed=3", "--noecho").stdout
    assert sample("--num_bytes=100", "--seed=3", "--noecho").stdout == first
    assert sample("--num_bytes=100", "--seed=4", "--noecho").stdout != first


def test_temperature_zero_is_greedy_whatever_the_seed(sample):
    greedy = "--num_bytes=60", "--temperature=0", "--noecho"
    assert sample(*greedy, "--seed=2").stdout == sample(*greedy, "--seed=1").stdout != ""


def test_the_dtype_of_products_can_be_chosen(sample, trained):
    flags = "--num_bytes=300", "--seed=5", "--prompt=a", "--noecho"
    texts = {}
    for dtype in ("float32", "bfloat16"):
        found = sample(*flags, f"--compute_dtype={dtype}")
        model = library.load(trained).in_dtype(dtype)
        wanted = model.generate("a", 300, seed=5, temperature=0.8)
        assert found.stdout.encode() == wanted + b"\n"
        texts[dtype] = wanted
    assert texts["float32"] != texts["bfloat16"]


def test_a_checkpoint_stands_alone(sample, trained, tmp_path):
    """Moved elsewhere, without its run folder or its text, it gives the same bytes."""
    step = tmp_path / "elsewhere"
    shutil.copytree(trained / "checkpoints" / "40", step)
    flags = "--num_bytes=50", "--noecho"
    wanted = sample(*flags, checkpoint=trained / "checkpoints" / "40").stdout
    assert len(wanted) == 51 and sample(*flags, checkpoint=step).stdout == wanted


def test_prompt_file_and_raw(sample, tmp_path):
    (tmp_path / "prompt.txt").write_text("some words\n" * 40)
    prompt = f"--prompt_file={tmp_path / 'prompt.txt'}"
    done = sample(prompt, "--num_bytes=20", "--raw", "--noecho")
    assert done.returncode == 0 and len(done.stdout) == 20
    assert sample(prompt, "--num_bytes=20", "--raw").stdout == "some words\n" * 40 + done.stdout


@pytest.mark.parametrize(
    ("num_samples", "after", "raw"),
    [(1, "\n", ()), (3, "\n", ()), (3, "", ("--raw",))],
    ids=["text", "texts", "raw"],
)
def test_the_prompt_stands_before_each_text_and_all_texts_differ(sample, num_samples, after, raw):
    """A line break follows each text, unless its bytes are wanted as they are."""
    flags = "--num_bytes=30", f"--num_samples={num_samples}", "--prompt=the ", "--seed=5", *raw
    echoed, alone = sample(*flags), sample(*flags, "--noecho")
    assert echoed.returncode == alone.returncode == 0, echoed.stderr + alone.stderr
    length = 30 + len(after)
    texts = [alone.stdout[n * length : (n + 1) * length] for n in range(num_samples)]
    assert all(len(text) == length and text.endswith(after) for text in texts)
    assert len(set(texts)) == num_samples and len(alone.stdout) == num_samples * length
    assert echoed.stdout == "".join("the " + text for text in texts)


@pytest.mark.parametrize("is_completed", [True, False])
def test_a_character_may_begin_in_the_prompt_and_end_in_what_follows(
    sample, all_bytes, is_completed
):
    """It is shown as the character that both make, or as one broken sequence."""
    prompt = "café".encode()[:-1]
    model = library.load(all_bytes)
    drawn = ((seed, model.generate(prompt, 20, seed=seed)) for seed in range(1000))
    seed, made = next((s, m) for s, m in drawn if (0x80 <= m[0] < 0xC0) == is_completed)
    flags = f"--prompt={os.fsdecode(prompt)}", "--num_bytes=20", f"--seed={seed}"
    raw = sample(*flags, "--raw", checkpoint=all_bytes, text=False)
    assert raw.returncode == 0 and raw.stdout == prompt + made, raw.stderr
    shown = sample(*flags, checkpoint=all_bytes, text=False).stdout.decode()
    assert shown == (prompt + made).decode(errors="replace") + "\n"
    assert shown.startswith("caf") and (shown[3] == "\ufffd") == (not is_completed)


@pytest.fixture(scope="module")
def without_line_break(tmp_path_factory):
    """A run folder whose model knows nine letters and the space alone."""
    folder = tmp_path_factory.mktemp("flat") / "run"
    config = library.Config().replace({"model.num_layers": 1, "model.hidden_size": 8})
    alphabet = Alphabet("corpus", b" abcdefghi")
    corpus = {"name": "nothing", "sha256": "0" * 64, "num_bytes": 1}
    metadata = Metadata(config, alphabet, corpus, {"seconds": 0.0, "skipped": 0}, {}, {})
    checkpoints = Checkpoints(folder, keep_last=1, keep_every=0)
    params = init_params(jax.random.key(0), config.model, alphabet.size)
    checkpoints.save(7, {"params": params}, metadata)
    checkpoints.close()
    return folder


def test_without_a_prompt_a_model_begins_with_a_byte_that_it_knows(sample, without_line_break):
    done = sample("--num_bytes=20", "--raw", checkpoint=without_line_break)
    assert done.returncode == 0, done.stderr
    assert done.stdout[0] == " " and set(done.stdout) <= set(" abcdefghi")
    given = sample("--num_bytes=20", "--raw", "--prompt= ", checkpoint=without_line_break)
    assert len(done.stdout) == 21 and given.stdout == done.stdout


def test_the_prompt_is_written_as_it_was_read(sample):
    """Unknown bytes left out or replaced; a line says how many."""
    flags = "--num_bytes=20", "--raw", "--prompt=some words, ROMEO"
    wanted = sample(*flags[:2], "--prompt=some wordsx xxxxx").stdout
    done = sample(*flags, "--unknown=x")
    assert done.stdout == wanted and "6 of 17 bytes are unknown and replaced by 'x'" in done.stderr
    assert "--unknown=skip" in sample(*flags).stderr


# Runs the command, which gets a real SIGINT when three pieces of text have been made.
INTERRUPTED = """
import os, signal, sys
from charlstm.__main__ import run
from charlstm.sampling.decode import Decoder

# Whoever starts a process in the background may have it ignore SIGINT.
signal.signal(signal.SIGINT, signal.default_int_handler)
draw = Decoder.draw

def interrupted(*arguments):
    for number, piece in enumerate(draw(*arguments)):
        if number == 3:
            os.kill(os.getpid(), signal.SIGINT)
        yield piece

Decoder.draw = interrupted
run()
"""


@pytest.mark.parametrize("num_samples", [1, 2])
def test_an_interrupt_keeps_what_was_made(sample, trained, environment, num_samples):
    flags = f"--checkpoint={trained}", f"--num_samples={num_samples}", "--prompt=the "
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, "sample", *flags, "--num_bytes=1000"],
        # Without huge pages, for the sake of which a command starts itself again.
        env=environment | {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 130
    # Pieces of 4, 8 and 16 bytes: the fourth was under way.
    whole = sample(*flags[1:], "--num_bytes=28").stdout
    assert done.stdout == (whole if num_samples > 1 else whole.removesuffix("\n"))
    assert done.stderr.splitlines()[-1] == "charlstm: interrupted"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--prompt=ROMEO",), "0x52"),
        (("--prompt=",), "prompt is empty"),
        (("--prompt_file=/nowhere",), "/nowhere"),
        (("--temperature=-1",), "temperature"),
        (("--temperature=nan",), "--temperature=nan: it must be finite"),
        (("--unknown=?",), "--unknown=?"),
        (("--top_p=0",), "top_p"),
        (("extra",), "extra"),
    ],
)
def test_bad_input_is_refused_with_one_line(sample, arguments, says):
    done = sample(*arguments)
    assert done.returncode == 2 and done.stdout == ""
    assert says in done.stderr and len(done.stderr.splitlines()) <= 2


def test_folders_without_checkpoint_are_refused(sample, charlstm, tmp_path):
    for path, says in ((tmp_path, "holds no checkpoint"), (tmp_path / "absent", "no such")):
        done = sample(checkpoint=path)
        assert done.returncode == 2 and says in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert "--checkpoint" in charlstm("sample").stderr
