"""Optimizers and learning-rate schedules, assembled from optax."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from charlstm.config import OptimizerConfig


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """Turns gradients into directions; an update is minus the learning rate times a direction.

    Gradients are clipped to a global norm first. Weight decay is decoupled from the gradient for
    adamw (Loshchilov & Hutter 2019) and part of it for sgd; biases, having one dimension, are
    spared. The learning rate is left to the caller, who knows the update's number.
    """
    decay = optax.add_decayed_weights(config.weight_decay, mask=_is_matrix)
    adam = optax.scale_by_adam(b1=config.b1, b2=config.b2, eps=config.epsilon)
    chains = {
        "adam": [adam],
        "adamw": [adam, decay],
        "rmsprop": [optax.scale_by_rms(decay=config.b2, eps=config.epsilon)],
        "sgd": [decay, optax.trace(decay=config.momentum)],
    }
    clip = [_clip_by_global_norm(config.clip_norm)] if config.clip_norm > 0 else []
    return optax.chain(*clip, *chains[config.name])


def make_schedule(config: OptimizerConfig, num_updates: int) -> optax.Schedule:
    """Returns the learning rate as a function of the update's number, from 0.

    A linear rise over the warm-up, the first update's rate above 0, then the schedule proper,
    which cosine and linear end with update `num_updates`.
    """
    peak, warmup = config.learning_rate, config.warmup_updates
    remaining = num_updates - warmup
    if config.schedule == "constant":
        main = optax.constant_schedule(peak)
    elif config.schedule == "cosine":
        main = optax.cosine_decay_schedule(peak, remaining, alpha=config.final_fraction)
    elif config.schedule == "linear":
        main = optax.linear_schedule(peak, peak * config.final_fraction, remaining)
    else:
        main = optax.exponential_decay(
            peak,
            transition_steps=config.step_updates,
            decay_rate=config.step_factor,
            transition_begin=config.step_start,
            staircase=True,
        )
    rise = optax.linear_schedule(peak / (warmup + 1), peak, warmup)
    return optax.join_schedules([rise, main], [warmup]) if warmup else main


def _is_matrix(params: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def _clip_by_global_norm(max_norm: float) -> optax.GradientTransformation:
    """`optax.clip_by_global_norm`, with one division for all parameters.

    One for each would keep XLA's CPU backend from fusing it with what comes after.
    """

    def clip(updates: Any, params: Any) -> Any:
        factor = jnp.minimum(1.0, max_norm / optax.tree.norm(updates))
        return jax.tree.map(lambda update: update * factor.astype(update.dtype), updates)

    return optax.stateless(clip)
