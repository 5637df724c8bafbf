// Finds the cells that follow a property of the page, or a pattern that the reader enters.

/** Returns all cells with their scores for property `index`: [{cell, rises, chosenBy, heldOut}]. */
function scoresOf(index, scores) {
  const found = [];
  const size = data.num_layers * data.cells_per_layer;
  for (let cell = 0; cell < size; cell++) {
    const at = 2 * (index * size + cell);
    found.push({
      cell,
      rises: scores[at] >= 0,
      chosenBy: Math.abs(scores[at]) / 32767,
      heldOut: scores[at + 1] / 32767,
    });
  }
  return found.sort((a, b) => b.chosenBy - a.chosenBy || a.cell - b.cell);
}

/**
 * Scores every cell for a regular expression, on the window that has all cells. As for the whole
 * text, the even blocks choose a cell and its direction, and the odd blocks give its score.
 *
 * @returns [{cell, rises, chosenBy, heldOut}], or a string that says why there are no scores.
 */
function search(pattern, text, valueAt) {
  let compiled;
  try {
    // The text is bytes, so a letter beyond ASCII becomes two bytes or more.
    compiled = new RegExp(String.fromCharCode(...new TextEncoder().encode(pattern)), 'gm');
  } catch (error) {
    return error.message;
  }
  const [start, stop] = data.window;
  const size = stop - start;
  let window = '';
  for (let place = start; place < stop; place++) window += String.fromCharCode(text[place]);
  const holds = new Uint8Array(size);
  for (const match of window.matchAll(compiled)) {
    holds.fill(1, match.index, match.index + match[0].length);
  }
  const classes = Uint8Array.from(
    holds,
    (held, place) => 2 * (Math.floor((place * data.num_blocks) / size) % 2) + held,
  );
  const totals = [0, 0, 0, 0];
  for (const which of classes) totals[which]++;
  if (Math.min(...totals) < data.least_bytes) {
    return `It matches ${totals[1]} and ${totals[3]} bytes in the two halves of the window. Each half needs `
      + `at least ${data.least_bytes} bytes that match and as many that do not.`;
  }
  const found = [];
  for (let cell = 0; cell < data.num_layers * data.cells_per_layer; cell++) {
    const histograms = new Float64Array(4 * 256);
    for (let place = 0; place < size; place++) {
      histograms[256 * classes[place] + valueAt(cell, start + place) + 128]++;
    }
    const [fit, other] = [0, 1].map((half) => area(histograms, 2 * half, totals));
    const rises = fit >= 0.5;
    found.push({
      cell,
      rises,
      chosenBy: rises ? fit : 1 - fit,
      heldOut: rises ? other : 1 - other,
    });
  }
  return found.sort((a, b) => b.chosenBy - a.chosenBy);
}

/** Returns the AUC between the histograms `which` (does not hold) and `which + 1` (holds). */
function area(histograms, which, totals) {
  let [below, wins] = [0, 0];
  for (let level = 0; level < 256; level++) {
    const negative = histograms[256 * which + level];
    wins += histograms[256 * (which + 1) + level] * (below + negative / 2);
    below += negative;
  }
  return wins / (totals[which] * totals[which + 1]);
}
