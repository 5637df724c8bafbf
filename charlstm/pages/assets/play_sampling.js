// Draws symbols from logits as charlstm.sampling does.

// Below this temperature, rounding errors of the quotients would be felt in their exponentials.
const SMALL_TEMPERATURE = 0.1;
// A symbol of less weight, beside the likeliest's 1, has none in float32, and is never drawn.
const LEAST_WEIGHT = 2 ** -126;

/** Returns logits divided by a temperature above 0; a small one makes the largest of them 0. */
function divided(logits, temperature) {
  const most = temperature < SMALL_TEMPERATURE ? logits.reduce((a, b) => Math.max(a, b)) : 0;
  return Float64Array.from(logits, (logit) => (logit - most) / temperature);
}

/** Returns exp(x - max x). */
function weightsOf(logits) {
  const most = logits.reduce((a, b) => Math.max(a, b));
  return Float64Array.from(logits, (logit) => Math.exp(logit - most));
}

/**
 * Returns the logits of the smallest set of likeliest symbols whose probabilities reach `topP`;
 * those of the others are -Infinity.
 */
function filtered(logits, topP, temperature) {
  if (topP >= 1) return logits;
  const ranked = Float64Array.from(logits).sort().reverse();
  const weights = weightsOf(divided(ranked, temperature));
  const total = weights.reduce((a, b) => a + b);
  let [before, least] = [0, Infinity];
  for (const [rank, weight] of weights.entries()) {
    if (before / total >= topP) break;
    least = ranked[rank];
    before += weight;
  }
  return Float64Array.from(logits, (logit) => (logit < least ? -Infinity : logit));
}

/**
 * Draws a symbol by inversion of the distribution function.
 *
 * @param logits: of all symbols.
 * @param chance: uniform in [0, 1).
 */
function drawSymbol(logits, chance, temperature, topP) {
  if (temperature === 0) return logits.indexOf(logits.reduce((a, b) => Math.max(a, b)));
  const weights = weightsOf(divided(filtered(logits, topP, temperature), temperature));
  const place = chance * weights.reduce((a, b) => a + b);
  let [end, last] = [0, 0];
  for (const [symbol, weight] of weights.entries()) {
    if (weight < LEAST_WEIGHT) continue;
    end += weight;
    last = symbol;
    if (end > place) return symbol;
  }
  return last;
}

/** Returns the logarithm of a symbol's probability. */
function logprobOf(logits, symbol) {
  const most = logits.reduce((a, b) => Math.max(a, b));
  return logits[symbol] - most - Math.log(weightsOf(logits).reduce((a, b) => a + b));
}

/** Returns a function that returns numbers in [0, 1); the same seed gives the same (splitmix32). */
function generator(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x9e3779b9) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 16), 0x21f0aaad);
    mixed = Math.imul(mixed ^ (mixed >>> 15), 0x735a2d97);
    return ((mixed ^ (mixed >>> 15)) >>> 0) / 2 ** 32;
  };
}
