"""`charlstm sample` as users run it."""

import shutil

import pytest


@pytest.fixture
def sample(charlstm, trained):
    def run(*arguments, checkpoint=trained, **options):
        return charlstm("sample", f"--checkpoint={checkpoint}", *arguments, **options)

    return run


def test_standard_output_holds_the_text_alone(sample):
    done = sample("--num_bytes=200", "--seed=3", "--prompt=a", text=False)
    assert done.returncode == 0, done.stderr
    # The tiny model's alphabet is ASCII: a byte is a character. A line break ends the output.
    assert len(done.stdout) == 201 and done.stdout[-1:] == b"\n"
    assert set(done.stdout) <= set(b"abcdefghijklmnopqrstuvwxyz \n")


def test_the_seed_decides_the_text(sample):
    first = sample("--num_bytes=100", "--seed=3").stdout
    assert sample("--num_bytes=100", "--seed=3").stdout == first
    assert sample("--num_bytes=100", "--seed=4").stdout != first


def test_temperature_zero_is_greedy_whatever_the_seed(sample):
    first = sample("--num_bytes=60", "--temperature=0", "--seed=1").stdout
    assert sample("--num_bytes=60", "--temperature=0", "--seed=2").stdout == first


def test_a_checkpoint_stands_alone(sample, trained, tmp_path):
    """Moved elsewhere, without its run folder or its text, it gives the same bytes."""
    step = tmp_path / "elsewhere"
    shutil.copytree(trained / "checkpoints" / "40", step)
    wanted = sample("--num_bytes=50", checkpoint=trained / "checkpoints" / "40").stdout
    assert sample("--num_bytes=50", checkpoint=step).stdout == wanted


def test_several_samples_differ(sample):
    done = sample("--num_bytes=30", "--num_samples=3", "--prompt=the ", "--temperature=1.5")
    lines = done.stdout
    assert len(lines) == 3 * 31
    assert len({lines[:30], lines[31:61], lines[62:92]}) == 3


def test_prompt_file_and_raw(sample, tmp_path):
    (tmp_path / "prompt.txt").write_text("some words\n" * 40)
    done = sample(f"--prompt_file={tmp_path / 'prompt.txt'}", "--num_bytes=20", "--raw")
    assert done.returncode == 0 and len(done.stdout) == 20


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--prompt=ROMEO",), "0x52"),
        (("--prompt=",), "prompt is empty"),
        (("--prompt_file=/nowhere",), "/nowhere"),
        (("--temperature=-1",), "temperature"),
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
