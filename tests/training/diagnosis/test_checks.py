"""A fault is named when it is sure, and once: checks of made-up statistics."""

import dataclasses
import json
import math

import pytest

from charlstm.data.ngrams import NgramLevel
from charlstm.training.diagnosis import checks
from charlstm.training.diagnosis.history import KEPT, History, validations_of
from charlstm.training.diagnosis.statistics import Block, Diagnosis, Setting, Validation

BITS = {0: 4.8, 1: 3.6, 2: 3.0, 3: 2.5}
LEVELS = [NgramLevel(order, bits, 0.3, 1000, 100) for order, bits in BITS.items()]
SETTING = Setting(
    num_updates=2000,
    warmup_updates=100,
    window_length=32,
    num_streams=16,
    stream_bytes=10_000,
    carry_state=True,
    learning_rate=2e-3,
    clip_norm=1.0,
    relative_update=1e-3,
    largest_rate=0.01,
    levels=LEVELS,
)


def setting(**changes):
    return dataclasses.replace(SETTING, **changes)


def blocks(losses, *, clipped=0.0, norm=0.5, skipped=0):
    """Blocks of 50 updates with these mean losses."""
    return [
        Block(
            updates=50,
            step=50 * (index + 1),
            bits=loss * (50 - skipped),
            norms=norm * (50 - skipped),
            clipped=round(clipped * 50),
            skipped=skipped,
        )
        for index, loss in enumerate(losses)
    ]


def is_said(verdict):
    return isinstance(verdict, Diagnosis)


class TestStreamsTooShort:
    @pytest.mark.parametrize(("stream_bytes", "said"), [(31, True), (127, True), (128, False)])
    def test_four_windows_are_enough(self, stream_bytes, said):
        assert is_said(checks.streams_too_short(setting(stream_bytes=stream_bytes))) == said

    def test_the_number_of_streams_it_names_cures_it(self):
        found = checks.streams_too_short(setting(num_streams=64, stream_bytes=40))
        assert "data.num_streams (to 20 or so)" in found.message
        cured = setting(num_streams=20, stream_bytes=64 * 40 // 20)
        assert checks.streams_too_short(cured) is False

    def test_nothing_is_to_be_lowered_that_is_1(self):
        said = checks.streams_too_short(setting(num_streams=1, stream_bytes=40)).message
        assert said.endswith("lower data.window_length")
        said = checks.streams_too_short(setting(window_length=1, stream_bytes=2)).message
        assert said.endswith("lower data.num_streams (to 8 or so)")
        shortest = setting(num_streams=1, window_length=1, stream_bytes=2)
        assert checks.streams_too_short(shortest).message.endswith("take a longer text")


class TestStateUnused:
    @pytest.mark.parametrize(
        ("bits", "carried", "zeroed", "verdict"),
        [
            (3.62, 3.60, 3.60, True),
            (3.62, 3.60, 3.604, True),
            (3.62, 3.60, 3.61, False),  # as the loss passes through the level
            (3.62, None, None, None),  # not measured
            (3.70, 3.60, 3.60, False),  # still on its way down
            (3.20, 3.60, 3.60, False),
        ],
    )
    def test_score_and_zeroed_state_decide(self, bits, carried, zeroed, verdict):
        found = checks.state_unused(LEVELS, False, bits, carried, zeroed)
        assert is_said(found) if verdict else found is verdict

    def test_the_line_names_level_and_cure(self):
        found = checks.state_unused(LEVELS, False, 3.62, 3.6, 3.6)
        assert found.message.startswith(
            "3.62 bpb is this text's bigram level (3.60): the network is not using its state"
        )
        assert "data.carry_state=true" in found.message

    def test_no_value_is_advised_that_may_be_the_one_that_is_set(self):
        found = checks.state_unused(LEVELS, True, 3.62, 3.6, 3.6)
        assert "longer windows" in found.message and "window_length=" not in found.message

    def test_without_levels_nothing_is_said(self):
        assert checks.state_unused([], True, 3.62, 3.6, 3.6) is False

    def test_a_carried_state_must_be_idle_twice(self):
        """As the loss comes down a state may be of no use yet."""
        history = History()
        assert history.update_validation(SETTING, 10, 3.62, 3.6, 3.6) == []
        assert [d.code for d in history.update_validation(SETTING, 20, 3.62, 3.6, 3.6)] == [
            "state_unused"
        ]
        passing = History()
        assert passing.update_validation(SETTING, 10, 3.62, 3.6, 3.6) == []
        assert passing.update_validation(SETTING, 20, 3.55, 3.5, 3.7) == []
        assert passing.update_validation(SETTING, 30, 3.62, 3.6, 3.6) == []

    def test_of_a_state_that_is_never_carried_once_is_enough(self):
        stateless = setting(carry_state=False, window_length=1)
        (found,) = History().update_validation(stateless, 10, 3.62, 3.6, 3.6)
        assert found.code == "state_unused"


class TestOverfitting:
    @staticmethod
    def curve(*pairs):
        return [Validation(10 * i, *pair) for i, pair in enumerate(pairs, 1)]

    def test_train_falls_and_valid_rises(self):
        found = checks.overfitting(
            self.curve((3.0, 3.0), (2.5, 2.4), (2.6, 2.2), (2.7, 2.0), (2.8, 1.8))
        )
        assert found.code == "overfitting"
        assert "best at update 20 (2.500 bpb)" in found.message and "2.800" in found.message

    @pytest.mark.parametrize(
        "curve",
        [
            [(3.0, 3.0), (2.5, 2.4), (2.6, 2.2)],  # too early to tell
            [(3.0, 3.0), (2.5, 2.4), (2.6, 2.2), (2.499, 2.0), (2.8, 1.8)],  # it recovered
            [(3.0, 3.0), (2.5, 2.4), (2.6, 2.5), (2.7, 2.6), (2.8, 2.7)],  # training rises as well
            [(3.0, 3.0), (2.5, 2.4), (2.52, 2.2), (2.52, 2.0), (2.52, 1.8)],  # it stays
            [(3.0, 3.0), (2.5, 2.4), (2.49, 2.2), (2.48, 2.0), (2.47, 1.8)],  # it falls
            [],
        ],
    )
    def test_all_else_is_not(self, curve):
        assert not is_said(checks.overfitting(self.curve(*curve)))

    def test_it_is_read_from_the_lines_of_metrics(self):
        lines = [
            {"step": 5, "train_bits_per_byte": 4.0},
            {"step": 10, "train_bits_per_byte": 3.0, "valid_bits_per_byte": 3.1},
            {"step": 15, "train_bits_per_byte": None},
            {"step": 20, "train_bits_per_byte": 2.0, "valid_bits_per_byte": 2.2},
            {"step": 30, "train_bits_per_byte": 1.0, "valid_bits_per_byte": 2.5},
        ]
        assert validations_of(lines, 20) == [Validation(10, 3.1, 3.5), Validation(20, 2.2, 2.0)]


class TestLearningRateTooHigh:
    @pytest.mark.parametrize(
        "seen",
        [
            blocks([5.0, 4.0], skipped=3),
            blocks([5, 4, 3, 2.9, 4, 4, 4]),
            blocks([5, 3, 2.9, 8, 12, 30]),
        ],
        ids=["not finite", "risen", "diverged"],
    )
    def test_updates_fail_or_the_loss_rises_and_stays(self, seen):
        found = checks.learning_rate_too_high(SETTING, seen)
        assert found.code == "learning_rate_too_high"
        assert "optimizer.learning_rate=0.002" in found.message

    @pytest.mark.parametrize(
        "seen",
        [
            [],
            blocks([5, 4, 3]),
            blocks([5, 4, 3, 2.9, 4, 4]),  # not for long enough
            blocks([5, 4, 3, 2.9, 4, 4, 3.0]),  # it came back
            blocks([5, 4, 3, 2.9, 3.2, 3.2, 3.2]),  # another part of the text
            blocks([4.85] * 9),  # stuck, but by no large steps
            blocks([5.0, 4.0], skipped=1),
        ],
    )
    def test_all_else_is_not(self, seen):
        assert not is_said(checks.learning_rate_too_high(SETTING, seen))

    @pytest.mark.parametrize("levels", [LEVELS, []], ids=["with levels", "without"])
    def test_a_hopeless_loss_is_said_at_once_and_holds_until_the_loss_is_sane(self, levels):
        diverged, history = setting(levels=levels, learning_rate=300.0), History()
        said = []
        for loss in (1.7e14, 6e26, 2e4, 1.9e4, 1.8e4, 1.7e4, 1.6e4, 120, 14, 9):
            (seen,) = blocks([loss], clipped=1, norm=6e12)
            seen.step = (history.blocks or [Block()])[-1].step + 50
            said += history.update(diverged, seen)
        (found,) = said  # no word of clipping, or of a rate too low
        assert found.code == "learning_rate_too_high" and "is 1.7e+14 bpb" in found.message
        assert history.active == ["learning_rate_too_high"]
        (seen,) = blocks([4.0])
        history.update(diverged, dataclasses.replace(seen, step=550))
        assert history.active == []

    @pytest.mark.parametrize(
        ("rate", "advised"), [(1000, "0.01"), (1e300, "0.01"), (2e-3, "0.0005")]
    )
    def test_no_rate_is_advised_beyond_what_is_usual(self, rate, advised):
        found = checks.learning_rate_too_high(setting(learning_rate=rate), blocks([9e9]))
        assert found.message.endswith(f"start again with a lower one, {advised} or so")

    def test_a_validation_that_is_not_finite_is_a_sign_and_no_validation(self):
        history = History()
        (seen,) = blocks([4.0])
        for number, bits in enumerate((math.nan, math.inf, -math.inf)):
            history.update(SETTING, seen)
            found = history.update_validation(SETTING, 10 + number, bits, None, None)
            assert [d.code for d in found] == ["learning_rate_too_high"]
            assert "validation at update 1" in found[0].message
            assert history.validations == [] and history.since_validation == Block()

    def test_large_steps_that_learn_little_more_than_frequencies(self):
        large = setting(relative_update=0.1)
        for stuck in (4.9, 4.5):
            seen = blocks([6, 5.2, *[stuck] * 6])
            assert is_said(checks.learning_rate_too_high(large, seen))
            assert not is_said(checks.learning_rate_too_high(SETTING, seen))
        nearer_to_bigrams, falling = [4.1] * 6, [4.7, 4.65, 4.6, 4.55, 4.5, 4.45]
        leaping = blocks([60, 55, 34, 38, 29, 33, 30])
        assert "above this text's byte frequencies (4.80)" in (
            checks.learning_rate_too_high(large, leaping).message
        )
        coming_down = blocks([40, 30, 24, 19, 15, 12, 9])
        healthy = [blocks([6, 5.2, *bits]) for bits in (nearer_to_bigrams, falling)]
        for seen in (*healthy, coming_down):
            assert not is_said(checks.learning_rate_too_high(large, seen))


class TestLearningRateTooLow:
    SMALL = setting(relative_update=1e-4)
    SLOW = blocks([8.5 - 0.05 * i for i in range(10)])

    def test_a_loss_that_falls_along_a_line_and_will_not_arrive(self):
        found = checks.learning_rate_too_low(self.SMALL, self.SLOW)
        assert found.code == "learning_rate_too_low"
        assert "1 in 1000" in found.message and "byte frequencies level (4.80)" in found.message

    @pytest.mark.parametrize(
        "seen",
        [
            blocks([8.5 - 0.05 * i for i in range(6)]),  # too early to tell
            blocks([8.5 - 0.3 * i for i in range(10)]),  # it will arrive
            blocks([6, 5, 4.5, 4.2, 4.05, 3.95, 3.9, 3.88, 3.87, 3.865]),  # ever more slowly
            blocks([4, 3.7, 3.5, 3.49, 3.48, 3.47, 3.46, 3.45, 3.44]),  # past the bigram level
        ],
    )
    def test_all_else_is_not(self, seen):
        assert not is_said(checks.learning_rate_too_low(self.SMALL, seen))

    def test_no_small_steps_no_small_rate(self):
        assert checks.learning_rate_too_low(SETTING, self.SLOW) is False

    def test_a_loss_that_stands_still_by_tiny_steps(self):
        found = checks.learning_rate_too_low(self.SMALL, blocks([8.5] * 10))
        assert is_said(found) and "training.num_updates" not in found.message

    @pytest.mark.parametrize(
        ("rate", "relative", "advised"),
        [
            (1e-5, 1e-4, "0.0001"),
            (1e-300, 1e-299, "0.0001"),
            (1e-5, 0.0, "0.01"),
            (3.0, 1e-9, None),
        ],
    )
    def test_a_rate_is_advised_that_is_larger_and_usual(self, rate, relative, advised):
        """The parameters of a run that goes on may have grown beyond all measure."""
        grown = setting(learning_rate=rate, relative_update=relative)
        message = checks.learning_rate_too_low(grown, self.SLOW).message
        assert ("raise optimizer.learning_rate" in message) == (advised is not None)
        assert advised is None or f"(to {advised} or so), or training.num_updates" in message
        still = checks.learning_rate_too_low(grown, blocks([8.5] * 10))
        assert is_said(still) == (advised is not None)


class TestGradientsClipped:
    @pytest.mark.parametrize(
        ("seen", "said"),
        [
            (blocks([4] * 6, clipped=1, norm=7), True),
            (blocks([4] * 5, clipped=1, norm=7), False),  # the warm-up and too little behind it
            (blocks([4] * 9, clipped=0.9), False),
            (blocks([4] * 9, clipped=1)[:5] + blocks([4] * 9)[5:], False),
        ],
    )
    def test_nearly_every_update_of_a_long_stretch(self, seen, said):
        found = checks.gradients_clipped(SETTING, seen)
        assert is_said(found) == said
        if said:
            assert (
                "100% of the last 200 updates" in found.message and "to 14 or so" in found.message
            )

    def test_no_norm_is_advised_that_only_grown_parameters_have(self):
        found = checks.gradients_clipped(SETTING, blocks([4] * 6, clipped=1, norm=6e12))
        assert "optimizer.clip_norm to" not in found.message
        assert "lower optimizer.learning_rate" in found.message

    def test_without_clipping_there_is_none(self):
        assert checks.gradients_clipped(setting(clip_norm=0), blocks([4] * 9)) is False


class TestHistory:
    def clipping(self, history, times, *, clipped):
        said = []
        for _ in range(times):
            (seen,) = blocks([3.0], clipped=clipped)
            seen.step = (history.blocks or [Block()])[-1].step + 50
            said += [found.code for found in history.update(SETTING, seen)]
        return said

    def test_a_fault_is_said_once_and_again_only_if_it_came_back(self):
        history = History()
        assert self.clipping(history, 20, clipped=1) == ["gradients_clipped"]
        assert self.clipping(history, 2, clipped=0) == []
        assert self.clipping(history, 10, clipped=1) == []  # it had not quite gone away
        assert self.clipping(history, 8, clipped=0) == []
        assert self.clipping(history, 20, clipped=1) == ["gradients_clipped"]

    def test_it_is_the_same_after_a_restart(self):
        whole, history = History(), History()
        for number in range(40):
            loss = 3.0 if number < 20 else 5.0
            (seen,) = blocks([loss], clipped=number % 2)
            seen.step = 50 * (number + 1)
            seen = dataclasses.replace(seen, updates=30, clipped=seen.clipped // 2)
            history = History.from_json(json.loads(json.dumps(history.to_json())))
            assert history.update(SETTING, seen) == whole.update(SETTING, seen)
            args = (SETTING, seen.step, 3.0 + number / 10, None, None)
            assert history.update_validation(*args) == whole.update_validation(*args)
        assert history == whole
        assert "learning_rate_too_high" in history.active
        assert len(history.blocks) == len(history.validations) == KEPT
        assert History.from_json({}) == History()

    def test_updates_are_joined_to_blocks_as_long_as_a_fortieth_of_the_run(self):
        history, long = History(), setting(num_updates=4000)
        (seen,) = blocks([4.0])
        for _ in range(5):
            history.update(long, seen)
        assert [block.updates for block in history.blocks] == [100, 100]
        assert history.blocks[0].mean_bits == 4 and history.pending.updates == 50
