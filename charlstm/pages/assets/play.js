// Runs the page to write with. `backEnd` is the server, or the model in the page.

const $ = (id) => document.getElementById(id);
const calm = matchMedia('(prefers-reduced-motion: reduce)');

const trace = new Trace();
const state = { colour: 'surprise', cell: null };
let models = [];
let model = null;
let numPrompt = 0; // bytes of the text that are the prompt's
let latest = -1; // the byte of which something was noted last
let changed = [Infinity, 0]; // the bytes whose colours changed since the text was drawn

const count = (number, thing) => `${number.toLocaleString('en')} ${thing}${number === 1 ? '' : 's'}`;

function paint(place) {
  if (state.colour === 'nothing') return 'transparent';
  if (state.colour === 'cell') return cellColour(trace.state(state.cell, place));
  const bits = trace.bits(place);
  if (Number.isNaN(bits)) return 'transparent';
  return `rgb(var(--surprise) / calc(var(--surprise-most) * ${Math.min(1, bits / 8).toFixed(3)}))`;
}

const view = new WrittenText($('text'), trace, paint, showDetails);
const grid = new CellGrid($('cells'), trace, (name) => colourBy('cell', name), removeCell);

// Drawing: at most once a frame, and only what is new.
let waiting = false;
function drawSoon() {
  if (waiting) return;
  waiting = true;
  if (document.hidden || calm.matches) setTimeout(draw, 250);
  else requestAnimationFrame(draw);
}

function draw() {
  waiting = false;
  const before = view.at.length;
  view.grow(numPrompt);
  const [from, to] = changed;
  view.recolour(from, Math.min(to, before));
  changed = [Infinity, 0];
  if (view.pointed?.start < to && view.pointed?.end > from) showDetails(view.pointed);
  else if (running || !view.pointed) grid.light(latest);
}

/** Shows what is known of a character that is pointed at. */
function showDetails(made) {
  const lines = [];
  if (made) {
    for (let place = made.start; place < made.end; place++) {
      const bits = trace.bits(place);
      const cost = Number.isNaN(bits) ? 'no probability: nothing is before it'
        : `probability ${percent(2 ** -bits)} · ${bits.toFixed(2)} bits`;
      const line = element('div');
      line.append(
        element('strong', '', `byte ${place.toLocaleString('en')}: ${named(trace.bytes[place])}`),
        element('span', '', ` · ${cost}`),
      );
      lines.push(line);
    }
    const names = [...trace.cells.keys()].slice(0, 16);
    const states = names.map((name) => `${name}\u00a0${cellText(trace.state(name, made.end - 1))}`);
    lines.push(element('div', 'muted mono', states.join(' · ')));
  } else if (trace.length) {
    lines.push(element('div', 'muted', 'Point at a byte, or use the arrow keys in the text.'));
  }
  $('details').replaceChildren(...lines);
  // While text is written the cells follow it, wherever the pointer happens to rest.
  grid.light(made && !running ? made.end - 1 : latest);
}

function percent(probability) {
  return probability < 0.001 ? '< 0.1 %' : `${(100 * probability).toFixed(1)} %`;
}

// Messages.
function say(words) {
  $('status').textContent = words;
}

/** Shows a message until the next one, perhaps with a button that does something about it. */
function notify(words, label = '', act = null) {
  $('notice-text').textContent = words;
  $('notice').hidden = !words;
  $('notice-action').hidden = !act;
  $('notice-action').textContent = label;
  $('notice-action').onclick = act;
}

function askForKey(words) {
  $('key-says').textContent = words;
  $('key-form').hidden = false;
  $('key').focus();
}

function fail(error) {
  if (error instanceof KeyNeeded) askForKey(error.message);
  else notify(error.message);
  if (!(error instanceof Refused)) console.error(error);
}

function showState() {
  const [isBusy, isEmpty] = [running !== null, trace.length === 0];
  const hadFocus = document.activeElement;
  $('write').disabled = isBusy || !model;
  $('stop').disabled = !isBusy;
  $('go-on').disabled = isBusy || isEmpty;
  $('copy').disabled = isEmpty;
  $('clear').disabled = isBusy || isEmpty;
  $('model').disabled = isBusy;
  $('text').classList.toggle('writing', isBusy);
  $('text').setAttribute('aria-busy', isBusy);
  if (!hadFocus?.disabled) return;
  const next = isBusy ? $('stop') : isEmpty ? $('prompt') : $('go-on');
  next.focus({ preventScroll: true });
}

// Cells.
function colourBy(colour, cell = state.cell) {
  [state.colour, state.cell] = [colour, cell];
  for (const button of document.querySelectorAll('[data-colour]')) {
    button.setAttribute('aria-pressed', button.dataset.colour === colour);
  }
  $('chosen').textContent = cell === null ? 'cell' : `cell ${cell}`;
  $('chosen').parentElement.disabled = cell === null;
  $('legend-surprise').hidden = colour !== 'surprise';
  $('legend-cell').hidden = colour !== 'cell';
  grid.mark(colour === 'cell' ? cell : null);
  view.recolour();
}

function addCell(name) {
  trace.follow(name);
  grid.add(name);
  state.cell ??= name;
}

function removeCell(name) {
  trace.cells.delete(name);
  const [first = null] = trace.cells.keys();
  if (state.cell !== name) return;
  colourBy(state.colour === 'cell' && first === null ? 'surprise' : state.colour, first);
}

async function addTypedCell() {
  try {
    const name = parseCell($('cell').value, model);
    if (trace.cells.has(name)) throw new Error(`${name} is there already.`);
    if (trace.cells.size >= MOST_CELLS) throw new Error(`At most ${MOST_CELLS} cells: remove one.`);
    addCell(name);
    colourBy('cell', name);
    $('cell').value = '';
    $('cells-say').textContent = `Added ${name}.`;
    isIncomplete = trace.length > 0;
    grid.light(latest);
    await fillIn();
  } catch (error) {
    $('cells-say').textContent = error.message;
  }
}

// Models.
function chooseModel(chosen) {
  clear();
  for (const name of [...trace.cells.keys()]) {
    grid.delete(name);
    trace.cells.delete(name);
  }
  [model, state.cell] = [chosen, null];
  for (const name of spreadCells(model.num_layers, model.hidden_size)) addCell(name);
  colourBy('surprise');
  $('name').textContent = model.id;
  $('facts').textContent = [
    `${count(model.num_layers, 'layer')} of ${count(model.hidden_size, 'cell')}`,
    count(model.num_parameters, 'parameter'),
    ...(typeof model.bits_per_byte === 'number'
      ? [`${model.bits_per_byte.toFixed(3)} bits per byte on validation`] : []),
    `knows ${model.alphabet.length === 256 ? 'all 256' : `${model.alphabet.length} of 256`} bytes`,
  ].join(' · ');
  $('cell').placeholder = `${model.num_layers - 1}:${Math.floor(model.hidden_size / 2)}`;
  grid.light(-1);
  showState();
}

async function start() {
  notify('');
  $('key-form').hidden = true;
  say('Loading …');
  try {
    models = await backEnd.models();
    if (!models.length) throw new Refused('The server has no model.');
    $('model').replaceChildren(...models.map(({ id }) => element('option', '', id)));
    $('choose-model').hidden = models.length < 2;
    chooseModel(models.find(({ id }) => id === model?.id) ?? models[0]);
  } catch (error) {
    fail(error);
    if (!(error instanceof KeyNeeded)) notify(error.message, 'Try again', start);
  }
  say('');
}

// Controls.
for (const name of ['temperature', 'top-p']) {
  const show = () => {
    $(`${name}-value`).textContent = Number($(name).value).toFixed(2);
  };
  $(name).addEventListener('input', show);
  show(); // a browser may have kept another value
}
for (const button of document.querySelectorAll('[data-colour]')) {
  button.addEventListener('click', () => colourBy(button.dataset.colour));
}
$('compose').addEventListener('submit', (event) => {
  event.preventDefault();
  write();
});
$('add-cell').addEventListener('submit', (event) => {
  event.preventDefault();
  addTypedCell();
});
$('key-form').addEventListener('submit', (event) => {
  event.preventDefault();
  backEnd.setKey($('key').value);
  $('key').value = '';
  start();
});
$('stop').addEventListener('click', () => running?.abort());
$('go-on').addEventListener('click', goOn);
$('clear').addEventListener('click', () => {
  clear();
  $('prompt').focus();
});
$('copy').addEventListener('click', async () => {
  await copy(new TextDecoder().decode(trace.bytes));
  say(`Copied ${count(trace.length, 'byte')}.`);
});
$('model').addEventListener('change', () => chooseModel(models[$('model').selectedIndex]));
document.addEventListener('keydown', (event) => {
  if (event.key === 'Escape') running?.abort();
  if (event.key !== 'Enter' || !(event.ctrlKey || event.metaKey) || event.defaultPrevented) return;
  event.preventDefault();
  write();
});

/** Copies a text, also on pages to which browsers do not give the clipboard (http). */
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const field = document.body.appendChild(element('textarea'));
    const focused = document.activeElement;
    field.value = text;
    field.select();
    document.execCommand('copy');
    field.remove();
    focused.focus();
  }
}

await start();
document.documentElement.dataset.ready = 'yes';
