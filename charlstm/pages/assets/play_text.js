// Shows a text that grows: what is there is never drawn again, apart from its colours.

class WrittenText {
  /**
   * @param scroller: the element that scrolls.
   * @param trace: the text.
   * @param paint: (place) → the CSS colour behind that byte, or null if it is unknown.
   * @param pointed: called with the element of a character that is pointed at, or null.
   */
  constructor(scroller, trace, paint, pointed) {
    Object.assign(this, { scroller, trace, paint, onPoint: pointed });
    this.clear();
    for (const kind of ['pointerover', 'click']) {
      scroller.addEventListener(kind, (event) => {
        const made = event.target.closest('.byte');
        if (made) this.point(made);
      });
    }
    scroller.addEventListener('pointerleave', (event) => {
      if (event.pointerType === 'mouse') this.point(null);
    });
    scroller.addEventListener('blur', () => this.point(null));
    scroller.addEventListener('keydown', (event) => this.move(event));
  }

  clear() {
    this.at = []; // the element of each byte; bytes of one character have the same
    this.line = null;
    this.pointed = null;
    this.scroller.replaceChildren();
  }

  /** Shows what was added to the trace. The first `numPrompt` bytes are the prompt's. */
  grow(numPrompt) {
    const { scroller, trace } = this;
    const isAtEnd = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 40;
    const text = trace.bytes;
    while (this.at.length < text.length) this.append(text, this.at.length, numPrompt);
    if (isAtEnd) scroller.scrollTop = scroller.scrollHeight;
  }

  append(text, place, numPrompt) {
    const { text: sign, kind } = shown(text, place);
    if (kind === 'rest') {
      this.join(text, place);
      return;
    }
    if (!this.line) this.line = this.scroller.appendChild(element('div', 'line'));
    const made = this.line.appendChild(element('span', `byte ${kind}`, sign));
    if (place < numPrompt) made.classList.add('prompt');
    [made.start, made.end] = [place, place + 1];
    this.at.push(made);
    this.colour(made);
    if (text[place] === 0x0a) {
      made.classList.add('break');
      this.line = null;
    }
  }

  /** Makes one element of the bytes of a character; until its last came, each had its own. */
  join(text, place) {
    let start = place - 1;
    while (shown(text, start).kind === 'rest') start--;
    const made = this.at[start];
    for (const other of this.at.slice(start + 1)) if (other !== made) other.remove();
    made.textContent = shown(text, start).text;
    made.classList.replace('hex', 'glyph');
    made.end = place + 1;
    this.at.fill(made, start);
    this.at.push(made);
    this.colour(made);
  }

  /** Colours one character: each of its bytes has a stripe. */
  colour(made) {
    const colours = [];
    for (let place = made.start; place < made.end; place++) colours.push(this.paint(place));
    made.classList.toggle('unknown', colours.every((colour) => colour === null));
    if (colours.length === 1) {
      made.style.background = colours[0] ?? '';
      return;
    }
    const share = 100 / colours.length;
    const stripes = colours.map((colour, index) => (
      `${colour ?? 'transparent'} ${share * index}% ${share * (index + 1)}%`));
    made.style.background = `linear-gradient(90deg, ${stripes.join(', ')})`;
  }

  /** Colours the bytes from `start` to `end` anew. */
  recolour(start = 0, end = this.at.length) {
    for (let place = start; place < Math.min(end, this.at.length);) {
      this.colour(this.at[place]);
      place = this.at[place].end;
    }
  }

  point(made) {
    if (made === this.pointed) return;
    this.pointed?.classList.remove('pointed');
    this.pointed = made;
    made?.classList.add('pointed');
    this.onPoint(made);
  }

  /** Points at another character by the arrow keys, Home and End. */
  move(event) {
    if (!this.at.length || event.ctrlKey || event.metaKey || event.altKey) return;
    const last = this.at.length - 1;
    const place = {
      ArrowLeft: () => (this.pointed ? Math.max(0, this.pointed.start - 1) : last),
      ArrowRight: () => (this.pointed ? Math.min(last, this.pointed.end) : 0),
      ArrowUp: () => this.near(-1),
      ArrowDown: () => this.near(1),
      Home: () => 0,
      End: () => last,
    }[event.key]?.();
    if (place === undefined) return;
    event.preventDefault();
    this.point(this.at[place]);
    this.pointed.scrollIntoView({ block: 'nearest' });
  }

  /** Returns the place of the nearest byte in the row above (-1) or below (1). */
  near(direction) {
    if (!this.pointed) return direction < 0 ? this.at.length - 1 : 0;
    const from = this.pointed.getBoundingClientRect();
    let best = this.pointed.start;
    let [row, distance] = [null, Infinity];
    for (let place = best; this.at[place];) {
      const made = this.at[place];
      const box = made.getBoundingClientRect();
      if (Math.abs(box.top - from.top) > from.height / 2) {
        row ??= box.top;
        if (Math.abs(box.top - row) > from.height / 2) break;
        const apart = Math.abs(box.left - from.left);
        if (apart < distance) [best, distance] = [made.start, apart];
      }
      place = direction < 0 ? made.start - 1 : made.end;
    }
    return best;
  }
}
