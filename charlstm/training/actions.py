"""What a run does between its updates: validate, show a sample, save."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from charlstm import coordination
from charlstm.config import Config
from charlstm.data.corpus import Alphabet, Corpus
from charlstm.data.ngrams import NgramLevel, describe_position
from charlstm.errors import TrainingFailed
from charlstm.evaluation.evaluator import Evaluation
from charlstm.model.language_model import Params
from charlstm.sampling.decode import Decoder, Settings
from charlstm.sampling.text import printable
from charlstm.training.about import versions
from charlstm.training.checkpoint import Checkpoints, Metadata
from charlstm.training.conductor import Conductor
from charlstm.training.loop import Actions
from charlstm.training.metrics import Writer
from charlstm.training.program import Program, dtype_of
from charlstm.training.progress import Progress
from charlstm.training.state import TrainState

SAMPLE_BYTES = 300
SAMPLE_TEMPERATURE = 0.8


def make_actions(
    config: Config,
    writer: Writer,
    corpus: Corpus,
    alphabet: Alphabet,
    levels: Sequence[NgramLevel],
    checkpoints: Checkpoints,
    progress: Progress,
    program: Program,
    conductor: Conductor,
) -> Actions:
    """What the loop does between dispatches; `levels` are those of the validation split."""
    compute_dtype = dtype_of(config.model)
    evaluator = program.evaluator_of(corpus.data)(
        *corpus.bounds.valid, reset_every=config.data.reset_every
    )
    settings = Settings(temperature=SAMPLE_TEMPERATURE, reset_every=config.data.reset_every)
    decoder = Decoder(1, settings, compute_dtype, connections=config.model.connections)
    # Samples follow the text's own first byte: a prompt that every corpus has.
    prompt = alphabet.encode(corpus.data[:1])

    def evaluate(params: Params) -> Evaluation | None:
        return evaluator.unless(params, conductor.leaving)

    def sample(params: Params, step: int) -> str | None:
        # Every process draws the same; process 0 alone writes it down.
        pieces = []
        with jax.transfer_guard("allow"):
            model = decoder.load(program.whole(params))
            for piece in decoder(model, prompt, SAMPLE_BYTES, config.training.seed):
                pieces.append(piece[0])
                if conductor.leaving():
                    return None
        if not coordination.is_first():
            return ""
        drawn = alphabet.decode(np.concatenate(pieces))
        writer.sample(step, drawn)
        return f"sample at update {step}:\n{printable(drawn)}\n"

    all_finite = jax.jit(
        lambda params: jnp.all(
            jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(params)])
        )
    )

    def save(state: TrainState, step: int, metrics: dict[str, float]) -> None:
        if not jax.device_get(all_finite(state.params)):
            raise TrainingFailed(
                f"the parameters are not finite at update {step}: the run ends and its checkpoints "
                "are as they were; lower optimizer.learning_rate and start from the last one"
            )
        metadata = Metadata(
            config=config,
            alphabet=alphabet,
            corpus={
                "name": corpus.name,
                "sha256": corpus.sha256,
                "num_bytes": len(corpus.data),
            },
            clock=progress.to_json(),
            metrics=metrics,
            versions=versions(),
        )
        with jax.transfer_guard("allow"):
            checkpoints.save(state, step, metadata)

    def reference(bits: float) -> str:
        if not levels:
            return ""
        counted = levels[0].fit_bytes
        sampled = counted < corpus.bounds.train[1]
        return describe_position(bits, levels) + (f" of {counted:,} bytes" if sampled else "")

    return Actions(
        evaluate=evaluate,
        sample=sample,
        save=save,
        reference=reference,
    )
