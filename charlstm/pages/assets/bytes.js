// Reads the page's data, and says how a byte is shown.

const data = JSON.parse(document.getElementById('data').textContent);

/** Returns the bytes that the page has under `name`: Uint8Array. */
async function blob(name) {
  const packed = atob(document.getElementById(`blob-${name}`).textContent);
  const bytes = Uint8Array.from(packed, (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('deflate'));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** Makes an element of a class, with text that is shown literally. */
function element(tag, className = '', text = '') {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

const hexadecimal = (byte) => byte.toString(16).toUpperCase().padStart(2, '0');

const strict = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
const MARKS = new Map([[0x0a, '↵'], [0x0d, '␍'], [0x09, '→'], [0x20, ' ']]);
// Control, format (which could reverse the line), private, unassigned; separators.
const UNSHOWN = /[\p{C}\p{Z}]/u;

/**
 * Returns how byte `place` of `text` is shown: {text, kind}. The kinds are glyph, a character;
 * rest, a further byte of a character that is shown at its first byte; mark, a sign for white
 * space; hex, two digits.
 */
function shown(text, place) {
  const byte = text[place];
  if (MARKS.has(byte)) return { text: MARKS.get(byte), kind: 'mark' };
  if (byte < 0x80) {
    return byte > 0x20 && byte < 0x7f
      ? { text: String.fromCharCode(byte), kind: 'glyph' }
      : { text: hexadecimal(byte), kind: 'hex' };
  }
  for (let start = place; start >= 0 && start > place - 4; start--) {
    const length = text[start] >= 0xf0 ? 4 : text[start] >= 0xe0 ? 3 : text[start] >= 0xc0 ? 2 : 0;
    if (!length) continue;
    if (start + length <= place) break;
    try {
      const character = strict.decode(text.subarray(start, start + length));
      if (UNSHOWN.test(character)) break;
      if (start < place) return { text: '', kind: 'rest' };
      // A combining mark is shown on a circle, as in tables of characters.
      return { text: /\p{M}/u.test(character) ? `◌${character}` : character, kind: 'glyph' };
    } catch {
      break;
    }
  }
  return { text: hexadecimal(byte), kind: 'hex' };
}

/** Returns how a byte without neighbours is shown, such as a prediction. */
function shownAlone(byte) {
  return shown(Uint8Array.of(byte), 0);
}

/** Returns a byte in words: `0x41 A`, `0x0A line break`. */
function named(byte) {
  const words = { 0x0a: 'line break', 0x0d: 'carriage return', 0x09: 'tab', 0x20: 'space' };
  const { text, kind } = shownAlone(byte);
  return `0x${hexadecimal(byte)}${byte in words ? ` ${words[byte]}` : kind === 'glyph' ? ` ${text}` : ''}`;
}
