// Writes: asks the back end, and takes what it yields. One thing is under way at a time.

const MOST_SEED = 2 ** 32;
let running = null; // the AbortController of what is under way
let pieces = 0; // how often the text was gone on with
let isIncomplete = false; // a cell was added that is not known for the whole text

/** Takes what a back end yields, from byte `place` of the text on. */
async function take(stream, place, names) {
  const first = trace.length;
  let since = performance.now(); // when the first new byte came
  for await (const { bytes, logprobs, cells } of stream) {
    if (trace.length === first) since = performance.now();
    for (const [index, byte] of bytes.entries()) {
      if (place === trace.length) trace.add([byte]);
      else if (trace.all[place] !== byte) throw new Refused('Another text was read than this one.');
      trace.note(place, logprobs[index], names, cells[index] ?? []);
      changed = [Math.min(changed[0], place), Math.max(changed[1], place + 1)];
      latest = place++;
    }
    const seconds = (performance.now() - since) / 1000;
    const rate = seconds > 0.5 ? ` · ${Math.round((trace.length - first) / seconds)} bytes/s` : '';
    $('count').textContent = trace.length > first ? `${count(trace.length, 'byte')}${rate}`
      : `read ${place.toLocaleString('en')} of ${count(first, 'byte')}`;
    drawSoon();
  }
}

/** Runs what takes its time, until it ends, fails or is stopped; returns false if it failed. */
async function run(words, work, done) {
  const control = new AbortController();
  running = control;
  notify('');
  say(words);
  showState();
  let failure = null;
  try {
    await work(control.signal);
  } catch (error) {
    if (!control.signal.aborted) failure = error;
  }
  say(failure ? '' : `${control.signal.aborted ? 'Stopped. ' : ''}${done()}`);
  if (failure) fail(failure);
  running = null;
  draw();
  showState();
  showDetails(view.pointed);
  return !failure;
}

/** Writes on from the text that is there. */
async function continueText(echo) {
  const length = Number($('length').value);
  const [temperature, topP] = [Number($('temperature').value), Number($('top-p').value)];
  const given = $('seed').value === '' ? Math.floor(Math.random() * MOST_SEED) : Number($('seed').value);
  const seed = (given + ($('seed').value === '' ? 0 : pieces)) % MOST_SEED;
  const names = [...trace.cells.keys()];
  const options = {
    model, prompt: trace.bytes.slice(), numBytes: length, temperature, topP, seed, cells: names, echo,
  };
  const start = trace.length;
  pieces++;
  if (echo) isIncomplete = false;
  const isDone = await run(
    'Writing …',
    (signal) => take(backEnd.write(options, signal), echo ? 0 : start, names),
    () => `Wrote ${count(trace.length - start, 'byte')}, ${
      temperature === 0 ? 'each the likeliest' : `seed ${seed}`}.`,
  );
  if (isDone) await fillIn();
}

/** Has the text read again if a cell was added that is not known for all of it. */
async function fillIn() {
  if (!isIncomplete || running || !trace.length) return;
  isIncomplete = false;
  const names = [...trace.cells.keys()];
  const options = { model, prompt: trace.bytes.slice(), cells: names };
  const isDone = await run(
    'Reading the text for the new cell …',
    (signal) => take(backEnd.read(options, signal), 0, names),
    () => `Read ${count(trace.length, 'byte')}.`,
  );
  if (isDone) await fillIn();
}

function areSettingsValid() {
  return [$('length'), $('seed')].every((input) => input.reportValidity());
}

async function write() {
  if (running || !model || !areSettingsValid()) return;
  const typed = $('prompt').value;
  const unknown = unknownIn(typed);
  if (unknown.size) {
    notify(unknownWords(unknown), 'Leave them out', () => {
      $('prompt').value = Array.from(typed).filter((character) => !unknown.has(character)).join('');
      notify('');
      $('prompt').focus();
    });
    return;
  }
  clear();
  const first = model.alphabet.includes(0x0a) ? 0x0a : model.alphabet[0];
  trace.add(typed ? new TextEncoder().encode(typed) : [first]);
  numPrompt = trace.length;
  draw();
  bringIntoView($('text'));
  await continueText(true);
}

/** Scrolls the page if less than half of the text's place is in view, as on a phone. */
function bringIntoView(made) {
  const { top, bottom, height } = made.getBoundingClientRect();
  if (Math.min(bottom, innerHeight) - Math.max(top, 0) > height / 2) return;
  made.parentElement.scrollIntoView({ behavior: calm.matches ? 'auto' : 'smooth', block: 'start' });
}

async function goOn() {
  if (running || !trace.length || !areSettingsValid()) return;
  await continueText(isIncomplete || latest < trace.length - 1); // it may have been stopped early
}

function clear() {
  trace.clear();
  view.clear();
  [numPrompt, pieces, latest, isIncomplete] = [0, 0, -1, false];
  $('count').textContent = '';
  say('');
  notify('');
  draw();
  showDetails(null);
  showState();
}

/** Returns the characters of a text that have bytes outside the model's alphabet, with these. */
function unknownIn(typed) {
  const known = new Set(model.alphabet);
  const found = new Map();
  for (const character of typed) {
    const bytes = new TextEncoder().encode(character);
    if (!bytes.every((byte) => known.has(byte))) found.set(character, bytes);
  }
  return found;
}

function unknownWords(unknown) {
  const names = [...unknown.values()].slice(0, 8).map((bytes) => {
    if (bytes.length === 1) return named(bytes[0]);
    const sign = shown(bytes, 0);
    const digits = Array.from(bytes, (byte) => `0x${hexadecimal(byte)}`).join(' ');
    return sign.kind === 'glyph' ? `${digits} ${sign.text}` : digits;
  });
  const more = unknown.size > names.length ? ` and ${unknown.size - names.length} more` : '';
  return `The model does not know ${names.join(', ')}${more}: its text had no such bytes.`;
}
