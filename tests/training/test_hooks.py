"""Hooks: a user's own, given to `charlstm.train`, and the profile."""

import json
import sys
import types

import jax
import numpy as np
import pytest
from processes import CHEAP, run_together
from run_folders import checkpoints, metrics, numbers, parameters

import charlstm
from charlstm.errors import UserError
from charlstm.training.profile import Profile

FIELDS = {
    "model.num_layers": 2,
    "model.dropout": 0.2,
    "training.num_updates": 20,
    "training.log_every": 5,
    "training.evaluate_every": 10,
    "training.keep_last": 100,
}


@pytest.fixture(scope="module")
def config(small_config):
    return small_config.replace(FIELDS)


class Watch:
    """What a user may write: keeps the number of updates, a model, and a text of it."""

    def __init__(self, every=4, calls=None):
        self.every = every
        self.updates, self.models, self.texts = [], [], []
        self.calls = calls if calls is not None else []

    def __call__(self, run):
        model = run.model()
        self.updates.append(run.updates)
        self.calls.append((run.updates, self))
        self.models.append(model)
        self.texts.append(model.generate(b"a", 12, temperature=1.0, seed=run.updates))
        run.log({"bits_of_a_word": model.bits_per_byte(b"abc")})


def logged(folder, name="bits_of_a_word"):
    """The updates and values of a figure in `metrics.jsonl`."""
    return [(line["step"], line[name]) for line in metrics(folder) if name in line]


@pytest.fixture(scope="module")
def plain(config, tmp_path_factory):
    """The folder of a run without hooks of a user's."""
    folder = tmp_path_factory.mktemp("plain") / "run"
    charlstm.train(config, folder)
    return folder


@pytest.fixture(scope="module")
def watched(config, tmp_path_factory):
    """The folder of a run with hooks, the hooks, and the model that `train` returned."""
    folder = tmp_path_factory.mktemp("watched") / "run"
    calls = []
    hooks = [Watch(4, calls), Watch(7, calls), Watch(0, calls), Watch(10, calls)]
    model = charlstm.train(config, folder, hooks=hooks)
    return folder, hooks, model


def test_a_hook_is_called_after_every_so_many_updates(watched):
    _, hooks, _ = watched
    assert [hook.updates for hook in hooks] == [[4, 8, 12, 16, 20], [7, 14], [], [10, 20]]


def test_hooks_of_one_update_are_called_in_the_order_in_which_they_were_given(watched):
    _, (four, seven, _, ten), _ = watched
    assert four.calls == [
        (4, four),
        (7, seven),
        (8, four),
        (10, ten),
        (12, four),
        (14, seven),
        (16, four),
        (20, four),
        (20, ten),
    ]


def test_hooks_change_nothing_about_the_run(watched, plain):
    folder, _, _ = watched
    assert (parameters(folder, 20) == parameters(plain, 20)).all()
    names = ("step", "train_bits_per_byte", "valid_bits_per_byte")
    lines = [line for line in metrics(folder) if "train_bits_per_byte" in line]
    found, wanted = ([[line.get(n) for n in names] for line in s] for s in (lines, metrics(plain)))
    assert found == wanted and len(wanted) == 4


def test_the_model_that_a_hook_has_taken_stays_as_it_was(watched, config, tmp_path):
    folder, (four, seven, _, ten), last = watched
    charlstm.train(config, tmp_path / "run", stop_after=4)
    assert (numbers(four.models[0]) == parameters(tmp_path / "run", 4)).all()
    assert (numbers(ten.models[0]) == parameters(folder, 10)).all()
    assert (numbers(four.models[-1]) == numbers(last)).all()
    assert (numbers(four.models[0]) != numbers(last)).any()
    for hook in (four, seven, ten):
        for updates, model, text in zip(hook.updates, hook.models, hook.texts, strict=True):
            assert len(text) == 12
            assert model.generate(b"a", 12, temperature=1.0, seed=updates) == text


def test_figures_of_a_hook_are_in_the_metrics_under_the_update_of_their_own(watched):
    """Whether or not a line of metrics is due there."""
    folder, hooks, _ = watched
    wanted = [
        (updates, model.bits_per_byte(b"abc"))
        for hook in hooks
        for updates, model in zip(hook.updates, hook.models, strict=True)
    ]
    assert sorted(logged(folder)) == sorted(wanted)
    steps = [line["step"] for line in metrics(folder)]
    assert steps == sorted(steps)


def test_the_time_of_a_hook_is_lost_under_the_name_of_its_class(watched, plain):
    folder, _, _ = watched
    lines = [line for line in metrics(folder) if "lost_seconds" in line]
    spent = [line["lost_seconds"].get("Watch", 0.0) for line in lines]
    assert [line["step"] for line in lines] == [5, 10, 15, 20]
    assert 0 < spent[0] < spent[1] < spent[2] < spent[3]
    assert all("Watch" not in line["lost_seconds"] for line in metrics(plain))


@pytest.mark.parametrize("stop", [10, 13, 16])
def test_a_run_with_a_hook_that_is_stopped_and_goes_on_equals_one_that_is_not(
    stop, config, watched, plain, tmp_path
):
    """Stopped with a validation, between two calls, and with a call."""
    first, second = Watch(4), Watch(4)
    charlstm.train(config, tmp_path, hooks=[first], stop_after=stop)
    before = [step for step, _ in logged(tmp_path)]
    model = charlstm.train(config, tmp_path, hooks=[second])
    assert first.updates == before == [u for u in (4, 8, 12, 16) if u <= stop]
    assert first.updates + second.updates == [4, 8, 12, 16, 20]
    assert (numbers(model) == parameters(plain, 20)).all()
    assert (parameters(tmp_path, 20) == parameters(plain, 20)).all()
    _, (four, *_), _ = watched
    wanted = [model.bits_per_byte(b"abc") for model in four.models]
    assert logged(tmp_path) == list(zip(four.updates, wanted, strict=True))
    lost = [line["lost_seconds"]["Watch"] for line in metrics(tmp_path) if "goodput" in line][1:]
    assert lost == sorted(lost) and lost[0] > 0


class Breaks(Watch):
    """Fails once, after it has logged."""

    def __call__(self, run):
        super().__call__(run)
        if run.updates == 12:
            raise ZeroDivisionError("a slip of the user's")


def test_an_error_in_a_hook_is_the_callers_and_the_run_goes_on_from_its_checkpoint(
    config, plain, tmp_path
):
    with pytest.raises(ZeroDivisionError, match="a slip of the user's"):
        charlstm.train(config, tmp_path, hooks=[Breaks()])
    assert checkpoints(tmp_path) == [10]
    assert [step for step, _ in logged(tmp_path)] == [4, 8, 12]
    again = Watch()
    charlstm.train(config, tmp_path, hooks=[again])
    assert again.updates == [12, 16, 20]
    assert [step for step, _ in logged(tmp_path)] == [4, 8, 12, 16, 20]
    assert (parameters(tmp_path, 20) == parameters(plain, 20)).all()


class LogsArrays:
    every = 10

    def __call__(self, run):
        bias = run.model().params["head"]["bias"]
        run.log({"of_numpy": np.float32(1.5), "of_jax": abs(bias[0]), "none": np.float64("nan")})


def test_figures_may_be_scalars_of_numpy_and_jax_and_need_not_be_finite(config, tmp_path):
    charlstm.train(config, tmp_path, hooks=[LogsArrays()], stop_after=10)
    (line,) = [line for line in metrics(tmp_path) if "of_numpy" in line]
    assert line["step"] == 10 and line["of_numpy"] == 1.5
    assert line["of_jax"] > 0 and line["none"] is None


class Begins(charlstm.Hook):
    """A hook that knows where a run begins and ends, and books its time as it likes."""

    every = 10
    cause = "looking"

    def __init__(self):
        self.told = []

    def start(self, run):
        self.told.append(("start", run.updates))

    def __call__(self, run):
        self.told.append(("call", run.updates, sorted(run.validation)))

    def close(self):
        self.told.append("close")


def test_a_hook_of_the_librarys_class_is_told_of_start_and_end(config, tmp_path):
    hook = Begins()
    charlstm.train(config, tmp_path, hooks=[hook])
    figures = ["valid_accuracy", "valid_bits_per_byte", "valid_nats"]
    calls = [("call", 10, figures), ("call", 20, figures)]
    assert hook.told == [("start", 0), *calls, "close"]
    assert metrics(tmp_path)[-1]["lost_seconds"]["looking"] >= 0
    charlstm.train(config, tmp_path, hooks=[hook])  # nothing is left to do
    assert hook.told == [("start", 0), *calls, "close"]


class StopsAtTwenty:
    """Asks for the end as the evaluation of the last update is about to begin."""

    every = 1

    def __init__(self):
        self.code = None

    def __call__(self, run):
        if run.updates == 19:
            self.code = 75
        if run.updates == 20:
            run.log({"seen": 20})


def test_an_evaluation_made_up_for_joins_the_line_of_its_update_and_not_that_of_a_hook(
    config, plain, tmp_path
):
    hook = StopsAtTwenty()

    # Update 20 has begun when it is asked the next time: in the evaluation.
    asked = []

    def stop():
        asked.append(hook.code)
        return 75 if asked.count(75) > 1 else None

    with pytest.raises(charlstm.Preempted, match="saved at update 20"):
        charlstm.train(config, tmp_path, hooks=[hook], stop=stop)
    assert all("valid_nats" not in line for line in metrics(tmp_path) if line["step"] == 20)
    charlstm.train(config, tmp_path, hooks=[hook])
    last = [line for line in metrics(tmp_path) if line["step"] == 20]
    assert [sorted({"seen", "valid_nats", "train_accuracy"} & set(line)) for line in last] == [
        ["train_accuracy", "valid_nats"],
        ["seen"],
    ]
    assert last[0]["valid_nats"] == metrics(plain)[-1]["valid_nats"]


def test_a_report_shows_goodput_though_the_last_line_is_a_hooks(watched):
    from charlstm.report.page import render
    from charlstm.report.runs import readers

    folder, _, _ = watched
    assert "goodput" not in metrics(folder)[-1]
    (reader,) = readers([str(folder)])
    page = render([reader.read()], folder / "report.html")
    assert "Where the time went" in page and "<td>Watch</td>" in page


SHARED = """
import json, sys
from charlstm.runtime import distributed, meshes
meshes.set_cpu_devices(2)
distributed.initialize()
import charlstm

# A file of one's own: Gloo's threads write to standard output, in the middle of lines too.
told = open(sys.argv[3], "w")

class Watch:
    every = 10

    def __call__(self, run):
        model = run.model()
        run.log({"bits_of_a_word": model.bits_per_byte(b"abc")})
        print(run.updates, model.generate(b"a", 12, seed=1), file=told)

config = charlstm.Config.from_json(json.loads(sys.argv[1]))
model = charlstm.train(config, sys.argv[2], hooks=[Watch()])
print("end", model.generate(b"a", 12, seed=1), file=told)
"""


def test_a_hook_has_the_whole_model_in_every_process_and_on_one_device(
    config, watched, environment, free_port, tmp_path
):
    config = config.replace({"mesh.shard": "parameters"})
    command = [sys.executable, "-c", SHARED, json.dumps(config.to_json()), str(tmp_path / "run")]
    address = f"127.0.0.1:{free_port()}"
    place = {"JAX_COORDINATOR_ADDRESS": address, "NUM_PROCESSES": "2"}
    told = [tmp_path / f"told{process}" for process in range(2)]
    both = run_together(
        [[*command, file] for file in told],
        [environment | CHEAP | place | {"PROCESS_ID": str(process)} for process in range(2)],
    )
    assert [code for code, _, _ in both] == [0, 0], both
    lines = [file.read_text().splitlines() for file in told]
    assert lines[0] == lines[1]
    first, last, end = lines[0]
    assert first.startswith("10 b'") and last.replace("20", "end") == end
    # The figures are written once, and those of one process on one device.
    _, (_, _, _, ten), _ = watched
    wanted = [model.bits_per_byte(b"abc") for model in ten.models]
    found = logged(tmp_path / "run")
    assert [step for step, _ in found] == [10, 20]
    np.testing.assert_allclose([bits for _, bits in found], wanted, rtol=1e-5)


class FullDisk:
    """Exchanges the run's file of metrics for one that takes no bytes."""

    every = 8

    def __call__(self, run):
        run.writers._writers[0]._file.close()
        run.writers._writers[0]._file = open("/dev/full", "ab")  # noqa: SIM115
        run.log({"figure": 1})


def test_a_run_on_a_full_disk_ends_in_one_line_and_goes_on_when_there_is_room(config, tmp_path):
    with pytest.raises(charlstm.UserError, match=r"could not write to .*No space left"):
        charlstm.train(config, tmp_path / "run", hooks=[FullDisk()])
    charlstm.train(config, tmp_path / "run")
    assert metrics(tmp_path / "run")[-1]["step"] == 20


def test_a_profile_that_cannot_be_written_does_not_end_the_run(
    config, tmp_path, monkeypatch, caplog
):
    def stop():
        stop_trace()
        raise OSError(28, "No space left on device")

    stop_trace = jax.profiler.stop_trace
    monkeypatch.setattr(jax.profiler, "stop_trace", stop)
    charlstm.train(config, tmp_path / "run", hooks=[Profile.parse("4:8")])
    assert metrics(tmp_path / "run")[-1]["step"] == 20
    assert "the profile is not written to" in caplog.text


class Without:
    def __call__(self, run):
        raise AssertionError("not to be called")


class Fraction(Without):
    every = 2.5


class Negative(Without):
    every = -1


class NotCallable:
    every = 1


class Fine(Without):
    every = 1000


@pytest.mark.parametrize(
    "hook",
    [Without(), Fraction(), Negative(), NotCallable(), Fine, print],
    ids=["no every", "a fraction", "negative", "not callable", "a class", "a function"],
)
def test_what_is_no_hook_is_refused_with_one_line_before_anything_is_made(hook, config, tmp_path):
    with pytest.raises(UserError, match=r"`every`.*`__call__\(run\)`") as caught:
        charlstm.train(config, tmp_path / "run", hooks=[Fine(), hook])
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()


def run_of(first=0, num_updates=40):
    """What a profile reads of a run."""
    training = types.SimpleNamespace(num_updates=num_updates)
    return types.SimpleNamespace(first=first, config=types.SimpleNamespace(training=training))


@pytest.mark.parametrize("span", ["5", "a:b", "9:3", "0:41", "5:5", ":"])
def test_a_span_that_is_none_is_refused(span):
    with pytest.raises(UserError, match="must be START:STOP"):
        Profile.parse(span).check(run_of())


def test_a_span_of_updates_already_made_is_refused():
    with pytest.raises(UserError, match="in the past"):
        Profile.parse("5:9").check(run_of(first=6))


def test_a_span_that_is_still_to_be_made_is_taken():
    Profile.parse("5:9").check(run_of(first=5))
    Profile.parse("0:40").check(run_of())
