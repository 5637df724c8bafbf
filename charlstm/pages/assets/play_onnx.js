// Writes with the model that is in the page, which ONNX Runtime (`ort`) runs.

// Of a longer prompt only the last bytes are read one by one, with the states of cells; those
// before are read in windows, which is faster.
const BYTES_WITH_STATES = 1024;
const WINDOW_LENGTH = 16;
const STATE_STEPS = 32767;
const BUSY_MILLISECONDS = 12;

/** Lets the browser do what else there is to do, if it has been waiting. */
const channel = new MessageChannel();
let lastBreath = performance.now();
async function breathe() {
  if (performance.now() - lastBreath < BUSY_MILLISECONDS) return;
  await new Promise((resolve) => {
    channel.port1.onmessage = resolve;
    channel.port2.postMessage(0);
  });
  lastBreath = performance.now();
}

class ModelInPage {
  async models() {
    const model = data.model;
    Object.assign(ort.env.wasm, { numThreads: 1, proxy: false });
    ort.env.logLevel = 'error';
    try {
      ort.env.wasm.wasmBinary = (await blob('runtime')).buffer;
      this.session = await ort.InferenceSession.create(await blob('network'), {
        executionProviders: ['wasm'],
      });
    } catch (error) {
      throw new Refused(`This browser cannot run the model (${error.message}): it takes a browser `
        + 'of 2023 or newer that allows WebAssembly.');
    }
    for (const name of ['runtime', 'network']) document.getElementById(`blob-${name}`).remove();
    this.model = model;
    this.symbols = new Map(model.alphabet.map((byte, symbol) => [byte, symbol]));
    this.forget();
    return [model];
  }

  /** Goes back to a text of no bytes. */
  forget() {
    this.text = []; // the bytes that were read
    this.logprobs = [];
    this.states = []; // tanh of all cells after each byte, in steps; null where it is not known
    this.logits = null; // of what comes next
    this.zero();
  }

  zero() {
    const { num_layers: layers, hidden_size: hidden } = this.model;
    const zeros = () => new ort.Tensor('float32', new Float32Array(layers * hidden), [layers, 1, hidden]);
    [this.h, this.c] = [zeros(), zeros()];
  }

  /** Reads bytes: at most so many that the state need not be set to zero among them. */
  async step(bytes) {
    const resetEvery = this.model.reset_every;
    if (resetEvery && this.text.length % resetEvery === 0) this.zero();
    const symbols = BigInt64Array.from(bytes, (byte) => BigInt(this.symbols.get(byte)));
    const { logits, h1, c1 } = await this.session.run({
      symbols: new ort.Tensor('int64', symbols, [bytes.length, 1]), h0: this.h, c0: this.c,
    });
    [this.h, this.c] = [h1, c1];
    const size = this.model.alphabet.length;
    for (const [index, byte] of bytes.entries()) {
      this.logprobs.push(this.logits && logprobOf(this.logits, this.symbols.get(byte)));
      this.text.push(byte);
      this.states.push(null);
      this.logits = logits.data.slice(index * size, (index + 1) * size);
    }
    if (bytes.length > 1) return;
    const states = Int16Array.from(c1.data, (c) => Math.round(Math.tanh(c) * STATE_STEPS));
    this.states[this.states.length - 1] = states;
  }

  /** Returns what a back end yields of one byte. */
  item(place, cells) {
    const states = this.states[place];
    return {
      bytes: [this.text[place]],
      logprobs: [this.logprobs[place]],
      cells: [states ? cells.map((cell) => states[cell] / STATE_STEPS) : []],
    };
  }

  /** Returns the indices of cells of these names in the whole stack. */
  indices(names) {
    return names.map((name) => {
      const [layer, cell] = name.split(':').map(Number);
      return layer * this.model.hidden_size + cell;
    });
  }

  async* read({ prompt, cells }, signal) {
    if (prompt.length < this.text.length || this.text.some((byte, place) => byte !== prompt[place])) {
      this.forget();
    }
    const indices = this.indices(cells);
    for (let place = 0; place < prompt.length;) {
      if (signal.aborted) return;
      if (place === this.text.length) await this.step(prompt.subarray(place, this.stopAfter(prompt)));
      await breathe();
      for (; place < this.text.length; place++) yield this.item(place, indices);
    }
  }

  /** Returns where the window ends that begins behind what was read. */
  stopAfter(prompt) {
    const place = this.text.length;
    if (place >= prompt.length - BYTES_WITH_STATES) return place + 1;
    const resetEvery = this.model.reset_every || Infinity;
    const left = Math.min(prompt.length - BYTES_WITH_STATES - place, resetEvery - (place % resetEvery));
    return place + Math.min(WINDOW_LENGTH, left);
  }

  async* write({ prompt, numBytes, temperature, topP, seed, cells, echo }, signal) {
    for await (const item of this.read({ prompt, cells }, signal)) if (echo) yield item;
    const [indices, random] = [this.indices(cells), generator(seed)];
    for (let made = 0; made < numBytes && !signal.aborted; made++) {
      const symbol = drawSymbol(this.logits, random(), temperature, topP);
      await this.step([this.model.alphabet[symbol]]);
      yield this.item(this.text.length - 1, indices);
      await breathe();
    }
  }
}

const backEnd = new ModelInPage();
