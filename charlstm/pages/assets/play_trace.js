// Holds what is known of a text: its bytes, how surprising each was, and states of cells.

/** Returns an array with room for `length` items, and the content of the one given. */
function roomFor(array, length, fill) {
  if (length <= array.length) return array;
  const larger = new array.constructor(Math.max(1024, length, 2 * array.length)).fill(fill);
  larger.set(array);
  return larger;
}

class Trace {
  constructor() {
    this.clear();
    this.cells = new Map(); // Float32Array by name, NaN where the value is not known
  }

  clear() {
    this.length = 0;
    this.all = new Uint8Array(0);
    this.logprobs = new Float32Array(0); // natural logarithms; NaN where there is none
    for (const name of this.cells?.keys() ?? []) this.cells.set(name, new Float32Array(0));
  }

  /** The bytes: Uint8Array, valid until more are added. */
  get bytes() {
    return this.all.subarray(0, this.length);
  }

  /** Adds bytes of which nothing else is known yet. */
  add(bytes) {
    this.all = roomFor(this.all, this.length + bytes.length, 0);
    this.all.set(bytes, this.length);
    this.length += bytes.length;
    this.logprobs = roomFor(this.logprobs, this.length, NaN);
    this.logprobs.fill(NaN, this.length - bytes.length, this.length);
    for (const [name, values] of this.cells) {
      const roomier = roomFor(values, this.length, NaN);
      roomier.fill(NaN, this.length - bytes.length, this.length);
      this.cells.set(name, roomier);
    }
  }

  /** Notes what a back end says of byte `place`: its logarithm, and the states of `names`. */
  note(place, logprob, names, states) {
    this.logprobs[place] = logprob ?? NaN;
    for (const [index, name] of names.entries()) {
      const values = this.cells.get(name); // it may have been removed meanwhile
      if (values) values[place] = states[index] ?? NaN;
    }
  }

  /** Follows a cell from now on. */
  follow(name) {
    this.cells.set(name, new Float32Array(this.length).fill(NaN));
  }

  /** Returns how many bits byte `place` cost; NaN if that is not known. */
  bits(place) {
    return -this.logprobs[place] / Math.LN2;
  }

  /** Returns tanh of a cell's state after byte `place`; NaN if it is not known. */
  state(name, place) {
    return this.cells.get(name)?.[place] ?? NaN;
  }

  /** Returns true if some cell's state is not known at some byte. */
  hasGaps() {
    for (const values of this.cells.values()) {
      if (values.subarray(0, this.length).some(Number.isNaN)) return true;
    }
    return false;
  }
}
