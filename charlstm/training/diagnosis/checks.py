"""Checks for what may be wrong with a run: pure functions of its statistics, without arrays.

A check gives a verdict only when it is sure. It returns a `Diagnosis` if something is wrong, False
if it is not, and None if the statistics do not decide: then the verdict before still holds.

Losses of training are taken in blocks of updates, long enough for their means to be compared.
"""

from collections.abc import Sequence
from itertools import pairwise

from charlstm.data.ngrams import NgramLevel, order_name
from charlstm.training.diagnosis.statistics import (
    Block,
    Diagnosis,
    Setting,
    Validation,
    Verdict,
    level_of,
    readable,
)

# Levels and losses are in bits per byte.

# A network without a state comes this near to the bigram table: 2 x 128 with its state zeroed was
# 0.047 above Shakespeare's after 5000 updates of 32 bytes, and 0.035 after 10000.
AT_LEVEL = 0.06
# The score with the state zeroed before every byte is "no worse" up to this. A network that carries
# its state loses 3.0 by it as its loss passes the level (2 x 128, one byte an update, update 500).
NO_WORSE = 0.005

# A stream of fewer windows is read in as many updates.
FEW_WINDOWS = 4

# Clipping that hardly ever stops sets the step size in the gradient's place.
CLIPPED_SHARE, RARELY_CLIPPED = 0.95, 0.5
CLIPPED_BLOCKS = 4
# A gradient of a larger norm comes of parameters that have grown, and no such norm is clipped to.
LARGEST_NORM = 100.0

# Validation has been worse than its best, by more than chance, this many times in a row.
WORSE_VALIDATIONS = 3
WORSE_BY = 0.01

# An update usually changes parameters by about a thousandth of their size (Karpathy's notes for
# CS231n, "Ratio of weights:updates"): of an adaptive optimizer that is the learning rate over the
# root mean square of the parameters. Only well off it is the rate itself suspect.
USUAL = 1e-3
SUSPICIOUSLY_LARGE, SUSPICIOUSLY_SMALL = 3e-3, 3e-4
RISEN_BY, RISEN_BLOCKS = 0.5, 3
STUCK_BLOCKS, STUCK_WITHIN = 4, 0.02
MOST_SKIPPED = 5  # of the updates of two blocks
# A loss so far above that of a mere guess needs no other sign.
GUESSED_BITS, HOPELESS_BITS = 8.0, 100.0
SLOW_BLOCKS = 4
LEAST_SHARE_MADE = 0.2  # of the updates, before a run is called slow


def streams_too_short(setting: Setting) -> Verdict:
    """Checks, before the first update, that each stream has several windows."""
    windows = setting.stream_bytes / setting.window_length
    if windows >= FEW_WINDOWS:
        return False
    fitting = max(1, int(setting.num_streams * windows / FEW_WINDOWS))
    cures = [f"data.num_streams (to {fitting} or so)"] if setting.num_streams > 1 else []
    cures += ["data.window_length"] if setting.window_length > 1 else []
    return Diagnosis(
        "streams_too_short",
        f"each of the {setting.num_streams} streams has {setting.stream_bytes} bytes, "
        f"{windows:.2g} windows of {setting.window_length}: the whole text is read in so few "
        f"updates, and hardly anything is carried from window to window; "
        + (f"lower {' or '.join(cures)}" if cures else "take a longer text"),
    )


def state_unused(
    levels: Sequence[NgramLevel],
    carry_state: bool,
    bits: float,
    carried: float | None,
    zeroed: float | None,
) -> Verdict:
    """Checks for a network that does not use its state, at the level of a table that has none.

    Args:
      levels: of the text.
      carry_state: True if windows go on from the state of the one before, in training.
      bits: the score, the state carried or not as in training.
      carried, zeroed: of one part of the text, the state as in training and zero before every byte.
    """
    bigram = level_of(levels, 1)
    if bigram is None or not near_bigram(levels, bits):
        return False
    if carried is None or zeroed is None:
        return None
    if zeroed > carried + NO_WORSE:
        return False
    cure = (
        "use longer windows (data.window_length; 64 is usual), or another learning rate"
        if carry_state
        else "set data.carry_state=true"
    )
    return Diagnosis(
        "state_unused",
        f"{bits:.2f} bpb is this text's bigram level ({bigram:.2f}): the network is not using its "
        f"state; with the state zeroed before every byte it does as well; {cure}",
    )


def near_bigram(levels: Sequence[NgramLevel], bits: float) -> bool:
    """Returns True for a score so near the bigram level that a lost state may be the cause."""
    bigram = level_of(levels, 1)
    return bigram is not None and abs(bits - bigram) <= AT_LEVEL


def overfitting(validations: Sequence[Validation]) -> Verdict:
    """Checks for a validation loss that rises while the training loss falls."""
    if not validations:
        return None
    best = min(validations, key=lambda v: v.valid)
    since = [v for v in validations if v.step > best.step]
    if not since:
        return False
    if len(since) < WORSE_VALIDATIONS or any(v.valid < best.valid + WORSE_BY for v in since):
        return None
    last = since[-1]
    rises = last.valid > since[0].valid + WORSE_BY / 2
    if not rises or not last.train < min(best.train, since[0].train) - WORSE_BY:
        return None
    return Diagnosis(
        "overfitting",
        f"validation was best at update {best.step} ({best.valid:.3f} bpb) and has risen to "
        f"{readable(last.valid, 3)} while training fell from {readable(best.train, 3)} to "
        f"{readable(last.train, 3)}: the "
        f"network learns its text by heart; that best checkpoint is kept and used; more text, "
        f"model.dropout, optimizer.weight_decay or a smaller model help",
    )


def learning_rate_too_high(setting: Setting, blocks: Sequence[Block]) -> Verdict:
    """Checks for updates that fail, or a loss that rises and stays, or never comes down."""
    if not blocks:
        return None
    recent = blocks[-1] if len(blocks) == 1 else blocks[-2].join(blocks[-1])
    if recent.skipped >= MOST_SKIPPED:
        return _too_high(
            setting,
            f"{recent.skipped} of the last {recent.updates} updates had a loss or gradient that "
            "was not finite",
        )
    if blocks[-1].mean_bits > HOPELESS_BITS:
        return _too_high(
            setting,
            f"the training loss is {readable(blocks[-1].mean_bits)} bpb, and a mere guess has "
            f"{GUESSED_BITS:g}",
        )
    settled = [block for block in blocks if block.step - block.updates >= setting.warmup_updates]
    last = settled[-RISEN_BLOCKS:]
    best = min(blocks, key=lambda block: block.mean_bits)
    after_best = [block for block in last if block.step > best.step]
    if len(after_best) == RISEN_BLOCKS and all(
        block.mean_bits > best.mean_bits + RISEN_BY for block in after_best
    ):
        return _too_high(
            setting,
            f"the training loss was {best.mean_bits:.2f} bpb at update {best.step}, has risen and "
            f"stays above {readable(min(block.mean_bits for block in after_best))}",
        )
    stuck = settled[-STUCK_BLOCKS:]
    frequencies, bigram = level_of(setting.levels, 0), level_of(setting.levels, 1)
    if frequencies is not None and bigram is not None and len(stuck) == STUCK_BLOCKS:
        lowest = min(block.mean_bits for block in stuck)
        falls = stuck[0].mean_bits - stuck[-1].mean_bits
        large = setting.relative_update > SUSPICIOUSLY_LARGE
        # Little more than the frequencies of the bytes was learned; or, in leaps, not even those.
        stays = lowest > (frequencies + bigram) / 2 and falls < STUCK_WITHIN
        rises = any(after.mean_bits > before.mean_bits for before, after in pairwise(stuck))
        leaps = lowest > frequencies + RISEN_BY and rises
        if large and (stays or leaps):
            return _too_high(
                setting,
                f"the training loss stays at {stuck[-1].mean_bits:.2f} bpb, nearer to this text's "
                f"byte frequencies ({frequencies:.2f}) than to its bigram level ({bigram:.2f})"
                if stays
                else f"the training loss leaps about at {lowest:.2f} bpb and more, above this "
                f"text's byte frequencies ({frequencies:.2f})",
            )
    sane = (GUESSED_BITS if frequencies is None else frequencies) + RISEN_BY
    if recent.skipped == 0 and blocks[-1].mean_bits < min(best.mean_bits + RISEN_BY / 2, sane):
        return False
    return None


def validation_not_finite(setting: Setting, step: int) -> Diagnosis:
    """Returns what a validation means whose score is not a finite number."""
    return _too_high(setting, f"the validation at update {step} is not finite")


def _too_high(setting: Setting, seen: str) -> Diagnosis:
    return Diagnosis(
        "learning_rate_too_high",
        f"{seen}: optimizer.learning_rate={setting.learning_rate:g} is too high; start again with "
        f"a lower one, {min(setting.learning_rate / 4, setting.largest_rate):.2g} or so",
    )


def learning_rate_too_low(setting: Setting, blocks: Sequence[Block]) -> Verdict:
    """Checks for a loss that falls too slowly to reach the next n-gram level within the run.

    A loss that falls at a fitting rate falls fast, then ever more slowly; one that falls as if
    along a line has hardly moved yet. It is judged above the bigram level only, for further down
    every curve is slow, and only where updates are small beside the parameters.
    """
    if setting.relative_update > SUSPICIOUSLY_SMALL:
        return False
    bigram = level_of(setting.levels, 1)
    settled = [block for block in blocks if block.step - block.updates >= setting.warmup_updates]
    if bigram is None or len(settled) <= SLOW_BLOCKS:
        return None
    *_, first, _, middle, _, last = settled
    if last.mean_bits <= bigram + AT_LEVEL:
        return False
    if last.step < LEAST_SHARE_MADE * setting.num_updates:
        return None
    early, late = first.mean_bits - middle.mean_bits, middle.mean_bits - last.mean_bits
    falls = early > 0 and late > early / 2
    still = abs(early) + abs(late) < STUCK_WITHIN
    if not falls and not still:
        return None
    left = setting.num_updates - last.step
    relative = setting.relative_update
    usual = setting.learning_rate * USUAL / relative if relative else setting.largest_rate
    usual = min(usual, setting.largest_rate)
    rate = f"optimizer.learning_rate={setting.learning_rate:g} (to {usual:.1g} or so)"
    cures = [rate] if usual > setting.learning_rate else []
    cures += ["training.num_updates"] if falls else []
    pace = max(0.0, late) / (last.step - middle.step)
    below = [level for level in setting.levels if level.bits_per_byte < last.mean_bits]
    following = max(below, key=lambda level: level.bits_per_byte)
    if last.mean_bits - pace * left <= following.bits_per_byte or not cures:
        return None
    return Diagnosis(
        "learning_rate_too_low",
        f"the training loss is {last.mean_bits:.2f} bpb after {last.step} updates and falls by "
        f"{1000 * pace:.2g} in 1000: the {left} that remain do not bring it to this text's "
        f"{order_name(following.order)} level ({following.bits_per_byte:.2f}); raise "
        f"{', or '.join(cures)}",
    )


def gradients_clipped(setting: Setting, blocks: Sequence[Block]) -> Verdict:
    """Checks for a long stretch after the warm-up in which nearly every update was clipped."""
    if not setting.clip_norm:
        return False
    settled = [block for block in blocks if block.step - block.updates >= setting.warmup_updates]
    if len(settled) < CLIPPED_BLOCKS:
        return None
    stretch = settled[-CLIPPED_BLOCKS]
    for block in settled[-CLIPPED_BLOCKS + 1 :]:
        stretch = stretch.join(block)
    share = stretch.clipped / max(1, stretch.counted)
    if share < RARELY_CLIPPED:
        return False
    if share < CLIPPED_SHARE:
        return None
    norm = stretch.norms / max(1, stretch.counted)
    cure = (
        f"clipping is meant for the exceptions; raise optimizer.clip_norm to {2 * norm:.2g} or so"
        if norm <= LARGEST_NORM
        else f"gradients this large come of parameters that have grown; start again with a lower "
        f"optimizer.learning_rate than {setting.learning_rate:g}"
    )
    return Diagnosis(
        "gradients_clipped",
        f"gradients were clipped at {share:.0%} of the last {stretch.counted} updates (their norm "
        f"is {norm:.2g} on average, optimizer.clip_norm={setting.clip_norm:g}): {cure}",
    )
