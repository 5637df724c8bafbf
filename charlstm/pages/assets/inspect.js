// Runs the inspection page: choosing a cell recolours the text.

const $ = (id) => document.getElementById(id);
const names = ['text', 'surprise', 'likeliest', 'probabilities', 'traced', 'window', 'scores'];
const [text, surprise, likeliest, probabilities, traced, inWindow, packedScores] = await Promise.all(
  names.map(blob),
);
const scores = new Int16Array(packedScores.buffer);
const [tracedCells, windowCells] = [new Int8Array(traced.buffer), new Int8Array(inWindow.buffer)];
const windowSize = data.window[1] - data.window[0];
const numCells = data.num_layers * data.cells_per_layer;
const state = { colour: 'cell', cell: 0 };

const label = (cell) => `${Math.floor(cell / data.cells_per_layer)}:${cell % data.cells_per_layer}`;
const traceOf = new Map(data.traced.map((cell, index) => [cell, index]));

/** Returns the squashed state of a cell after byte `place`; undefined if the page lacks it. */
function valueAt(cell, place) {
  if (traceOf.has(cell)) return tracedCells[traceOf.get(cell) * text.length + place];
  if (place < data.window[0] || place >= data.window[1]) return undefined;
  return windowCells[cell * windowSize + place - data.window[0]];
}

/** Returns the cell state c of a squashed one. */
function unsquashed(value) {
  const x = (value * data.cell_step) / 127;
  return x / (1 - Math.abs(x));
}

const bitsAt = (place) => surprise[place] / data.surprise_steps_per_bit;

function paint(place) {
  if (state.colour === 'surprise') {
    return `rgb(var(--surprise) / ${Math.min(0.9, bitsAt(place) / 9).toFixed(2)})`;
  }
  if (state.colour === 'nothing') return 'transparent';
  const value = valueAt(state.cell, place);
  if (value === undefined) return null;
  const strength = Math.tanh(unsquashed(value));
  return `rgb(var(${strength < 0 ? '--low' : '--high'}) / ${(0.85 * Math.abs(strength)).toFixed(2)})`;
}

const guesses = (place) => Array.from({ length: 5 }, (_, rank) => ({
  byte: likeliest[5 * place + rank],
  probability: probabilities[5 * place + rank] / data.probability_steps,
}));

const view = new TextView($('text'), text, paint, guesses);

/** Colours the text by a cell. */
function choose(cell) {
  state.cell = ((cell % numCells) + numCells) % numCells;
  $('layer').value = Math.floor(state.cell / data.cells_per_layer);
  $('cell').value = state.cell % data.cells_per_layer;
  $('partly').hidden = traceOf.has(state.cell) || windowSize === text.length;
  colourBy('cell');
  for (const button of document.querySelectorAll('[data-cell]')) {
    button.setAttribute('aria-pressed', Number(button.dataset.cell) === state.cell);
  }
  document.querySelector('#chosen').textContent = `cell ${label(state.cell)}`;
}

function colourBy(colour) {
  state.colour = colour;
  for (const button of document.querySelectorAll('[data-colour]')) {
    button.setAttribute('aria-pressed', button.dataset.colour === colour);
  }
  $('legend-cell').hidden = colour !== 'cell';
  $('legend-surprise').hidden = colour !== 'surprise';
  if (colour !== 'cell') $('partly').hidden = true;
  view.draw();
}

/** Lists the cells that predict a property best. */
function list(title, meaning, found) {
  $('property-name').textContent = title;
  $('property-meaning').textContent = meaning;
  $('found').replaceChildren(...found.slice(0, 12).map(({ cell, rises, chosenBy, heldOut }) => {
    const button = element('button');
    button.dataset.cell = cell;
    button.title = `AUC ${chosenBy.toFixed(3)} in the half that chose it`;
    button.append(element('span', '', `${label(cell)} ${rises ? '▲' : '▼'}`));
    button.append(element('span', 'score', `AUC ${heldOut.toFixed(3)}`));
    button.addEventListener('click', () => choose(cell));
    const item = element('li');
    item.append(button);
    return item;
  }));
  if (found.length) choose(found[0].cell);
}

function chooseProperty(index) {
  const property = data.properties[index];
  for (const button of document.querySelectorAll('[data-property]')) {
    button.setAttribute('aria-pressed', Number(button.dataset.property) === index);
  }
  list(property.name, property.meaning, property.is_scored ? scoresOf(index, scores) : []);
}

/** Shows the details of one byte. */
function point(place) {
  view.pointed = place;
  const value = valueAt(state.cell, place);
  const cell = value === undefined ? 'not on this page' : unsquashed(value).toFixed(2);
  const next = guesses(place).filter(({ probability }) => probability > 0);
  $('details').replaceChildren(
    element('strong', '', `byte ${place.toLocaleString('en')}: ${named(text[place])}`),
    element('span', '', ` · cost ${bitsAt(place).toFixed(1)} bits · cell ${label(state.cell)} is `
      + `${cell} · next: `),
    element('span', 'mono', next.map(({ byte, probability }) => (
      `${named(byte)} ${Math.round(100 * probability)} %`)).join(' · ')),
  );
  for (const made of document.querySelectorAll('.byte')) {
    made.classList.toggle('pointed', made.place === place);
  }
}

// Controls.
for (const button of document.querySelectorAll('[data-colour]')) {
  button.addEventListener('click', () => (
    button.dataset.colour === 'cell' ? choose(state.cell) : colourBy(button.dataset.colour)));
}
for (const button of document.querySelectorAll('[data-property]')) {
  button.addEventListener('click', () => chooseProperty(Number(button.dataset.property)));
}
const fromInputs = () => {
  const cell = Math.min(Math.max(0, Math.round(Number($('cell').value)) || 0), data.cells_per_layer - 1);
  choose(Number($('layer').value) * data.cells_per_layer + cell);
};
$('layer').addEventListener('change', fromInputs);
$('cell').addEventListener('change', fromInputs);
$('before').addEventListener('click', () => choose(state.cell - 1));
$('after').addEventListener('click', () => choose(state.cell + 1));
$('guesses').addEventListener('click', () => {
  view.withGuesses = !view.withGuesses;
  $('guesses').setAttribute('aria-pressed', view.withGuesses);
  view.layOut();
});
$('to-window').addEventListener('click', () => view.show(data.window[0], 0));
$('place').addEventListener('change', () => {
  const place = Math.min(Math.max(0, Number($('place').value) || 0), text.length - 1);
  view.show(place);
  point(place);
});
for (const kind of ['pointerover', 'click']) {
  $('text').addEventListener(kind, (event) => {
    const made = event.target.closest('.byte');
    if (made && made.place !== view.pointed) point(made.place);
  });
}
$('search').addEventListener('submit', (event) => {
  event.preventDefault();
  const found = search($('pattern').value, text, valueAt);
  for (const button of document.querySelectorAll('[data-property]')) {
    button.setAttribute('aria-pressed', false);
  }
  if (typeof found === 'string') list('no cells', found, []);
  else list(`/${$('pattern').value}/`, `on ${$('window-words').textContent}`, found);
});

// Charts.
async function drawSaturation() {
  const layer = Number($('saturation-layer').value);
  const spec = data.saturation[layer];
  spec.columns = Math.max(1, Math.floor($('saturation').clientWidth / 290));
  const { view: chart } = await vegaEmbed($('saturation'), spec, {
    actions: false, ast: true, renderer: 'svg', defaultStyle: false,
  });
  chart.addEventListener('click', (_, item) => {
    if (item?.datum?.cell !== undefined) choose(item.datum.cell);
  });
}
$('saturation-layer').addEventListener('change', drawSaturation);

view.layOut();
if (data.first_property !== null) chooseProperty(data.first_property);
else choose(0);
await drawSaturation();
document.documentElement.dataset.ready = 'yes';
