// Shows the text byte by byte. Only the visible rows are in the document.

const ROW_HEIGHT = 20;
const GUESS_HEIGHT = 15;
// Browsers cannot lay out much higher elements; a longer text scrolls proportionally.
const MOST_PIXELS = 8e6;

class TextView {
  /**
   * @param scroller: the element that scrolls.
   * @param text: Uint8Array, the bytes.
   * @param paint: (place) → the CSS colour behind that byte, or null if it is unknown.
   * @param guesses: (place) → [{byte, probability}], the likeliest first; shown if `withGuesses`.
   */
  constructor(scroller, text, paint, guesses) {
    Object.assign(this, { scroller, text, paint, guesses, withGuesses: false, pointed: -1 });
    this.space = scroller.appendChild(element('div'));
    this.sheet = this.space.appendChild(element('div', 'sheet'));
    scroller.addEventListener('scroll', () => this.drawSoon(), { passive: true });
    new ResizeObserver(() => this.layOut()).observe(scroller);
  }

  get rowHeight() {
    return ROW_HEIGHT + (this.withGuesses ? 5 * GUESS_HEIGHT + 8 : 0);
  }

  /** Splits the text into rows that fit the width; a line break ends a row. */
  layOut() {
    const first = this.rows ? this.rows[Math.floor(this.position())] : 0;
    const gutter = matchMedia('(max-width: 40rem)').matches ? 6 : 74;
    this.byteWidth = this.withGuesses ? 15 : 9.5;
    this.columns = Math.max(8, Math.floor((this.scroller.clientWidth - gutter - 4) / this.byteWidth));
    const starts = [0];
    for (let place = 0, start = 0; place + 1 < this.text.length; place++) {
      if (this.text[place] === 0x0a || place + 1 - start >= this.columns) {
        start = place + 1;
        starts.push(start);
      }
    }
    this.rows = Uint32Array.from(starts);
    this.total = this.rows.length * this.rowHeight;
    this.space.style.height = `${Math.min(this.total, MOST_PIXELS)}px`;
    this.sheet.style.height = `${this.scroller.clientHeight}px`;
    this.show(first, 0);
  }

  /** Returns the row at the top of the view; the fraction is its hidden share. */
  position() {
    const { scrollTop, scrollHeight, clientHeight } = this.scroller;
    const range = Math.max(1, scrollHeight - clientHeight);
    const scale = Math.max(1, (this.total - clientHeight) / range);
    return Math.min((scrollTop * scale) / this.rowHeight, this.rows.length - 1);
  }

  /** Scrolls to a byte and shows it `above` rows below the top. */
  show(place, above = 2) {
    const row = this.rowOf(place) - above;
    const { scrollHeight, clientHeight } = this.scroller;
    const scale = Math.max(1, (this.total - clientHeight) / Math.max(1, scrollHeight - clientHeight));
    this.scroller.scrollTop = Math.max(0, (row * this.rowHeight) / scale);
    this.draw();
  }

  rowOf(place) {
    let low = 0;
    let high = this.rows.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.rows[middle] <= place) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  drawSoon() {
    this.waiting ??= requestAnimationFrame(() => {
      this.waiting = undefined;
      this.draw();
    });
  }

  draw() {
    if (!this.rows) return;
    const position = this.position();
    const first = Math.floor(position);
    const count = Math.ceil(this.scroller.clientHeight / this.rowHeight) + 1;
    const drawn = document.createDocumentFragment();
    for (let row = first; row < Math.min(first + count, this.rows.length); row++) {
      drawn.append(this.row(row));
    }
    if (drawn.firstChild) {
      drawn.firstChild.style.marginTop = `${-(position - first) * this.rowHeight}px`;
    }
    this.sheet.style.setProperty('--byte-width', `${this.byteWidth}px`);
    this.sheet.replaceChildren(drawn);
  }

  row(index) {
    const [start, end] = [this.rows[index], this.rows[index + 1] ?? this.text.length];
    const line = element('div', 'row');
    line.style.height = `${this.rowHeight}px`;
    line.append(element('span', 'place', start.toLocaleString('en')));
    for (let place = start; place < end; place++) line.append(this.byte(place));
    return line;
  }

  byte(place) {
    const made = element('span', 'byte');
    made.place = place;
    const { text, kind } = shown(this.text, place);
    const glyph = made.appendChild(element('b', kind, text));
    const colour = this.paint(place);
    if (colour === null) glyph.classList.add('unknown');
    else glyph.style.background = colour;
    if (place === this.pointed) made.classList.add('pointed');
    if (this.withGuesses) {
      const came = this.text[place + 1];
      for (const { byte, probability } of this.guesses(place)) {
        const guess = shownAlone(byte);
        const sign = byte === 0x20 ? '␣' : guess.text;
        const cell = made.appendChild(element('i', probability ? guess.kind : '', probability ? sign : ''));
        cell.style.background = `rgb(var(--likely) / ${(0.8 * probability).toFixed(2)})`;
        if (byte === came && probability) cell.classList.add('came');
      }
    }
    return made;
  }
}
