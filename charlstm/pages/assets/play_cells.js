// Shows the chosen cells: each lights up with its state, and has a strip of its last states.

const MOST_CELLS = 64;
const DEFAULT_CELLS = 12;
const STRIP_BYTES = 40;

/** Returns the CSS colour of tanh of a cell's state, or null if it is not known. */
function cellColour(value) {
  if (Number.isNaN(value)) return null;
  const side = value < 0 ? 'low' : 'high';
  return `rgb(var(--${side}) / calc(var(--${side}-most) * ${Math.abs(value).toFixed(3)}))`;
}

/** Returns a state as text, with its sign. */
function cellText(value) {
  if (Number.isNaN(value)) return '–';
  const size = Math.abs(value).toFixed(2);
  return `${value < 0 && Number(size) ? '−' : '+'}${size}`;
}

/** Returns names of cells, spread evenly over the layers. */
function spreadCells(numLayers, hiddenSize) {
  const names = [];
  const perLayer = Math.min(hiddenSize, Math.max(1, Math.ceil(DEFAULT_CELLS / numLayers)));
  for (let layer = 0; layer < Math.min(numLayers, MOST_CELLS); layer++) {
    for (let index = 0; index < perLayer && names.length < MOST_CELLS; index++) {
      names.push(`${layer}:${Math.floor(((index + 0.5) * hiddenSize) / perLayer)}`);
    }
  }
  return names;
}

/** Returns the name of the cell that was typed, or throws an error that says what is wrong. */
function parseCell(typed, { num_layers: numLayers, hidden_size: hiddenSize }) {
  const found = /^\s*(\d+)\s*:\s*(\d+)\s*$/.exec(typed);
  if (!found) throw new Error('Write LAYER:CELL, such as 0:17.');
  const [layer, cell] = [Number(found[1]), Number(found[2])];
  if (layer >= numLayers) throw new Error(`The model has layers 0 to ${numLayers - 1}.`);
  if (cell >= hiddenSize) throw new Error(`A layer has cells 0 to ${hiddenSize - 1}.`);
  return `${layer}:${cell}`;
}

class CellGrid {
  /**
   * @param list: the element with an item for each cell.
   * @param trace: the text and the cells' states.
   * @param choose: called with the name of a cell that is clicked.
   * @param remove: called with the name of a cell that is to go.
   */
  constructor(list, trace, choose, remove) {
    Object.assign(this, { list, trace, choose, remove, lamps: new Map() });
  }

  add(name) {
    const item = element('li', 'lamp');
    const button = item.appendChild(element('button', 'choose'));
    button.type = 'button';
    button.setAttribute('aria-pressed', false);
    const glow = button.appendChild(element('span', 'glow'));
    button.append(element('span', 'label', name));
    const value = button.appendChild(element('span', 'value', '–'));
    const strip = button.appendChild(element('canvas'));
    [strip.width, strip.height] = [STRIP_BYTES, 1];
    button.addEventListener('click', () => this.choose(name));
    const cross = item.appendChild(element('button', 'remove', '×'));
    cross.type = 'button';
    cross.setAttribute('aria-label', `Remove cell ${name}`);
    cross.addEventListener('click', () => {
      const next = (item.nextElementSibling ?? item.previousElementSibling)?.querySelector('.remove');
      this.delete(name);
      (next ?? $('cell')).focus();
      this.remove(name);
    });
    this.list.append(item);
    this.lamps.set(name, { item, button, glow, value, strip });
  }

  delete(name) {
    this.lamps.get(name).item.remove();
    this.lamps.delete(name);
  }

  /** Marks the cell by which the text is coloured; null for none. */
  mark(chosen) {
    for (const [name, { button }] of this.lamps) {
      button.setAttribute('aria-pressed', name === chosen);
    }
  }

  /** Lights each cell as it was after byte `place`; -1 for a text of no bytes. */
  light(place) {
    const colours = stripColours();
    for (const [name, { glow, value, strip }] of this.lamps) {
      const state = place < 0 ? NaN : this.trace.state(name, place);
      glow.style.backgroundColor = cellColour(state) ?? 'transparent';
      value.textContent = cellText(state);
      const context = strip.getContext('2d');
      context.clearRect(0, 0, STRIP_BYTES, 1);
      for (let back = 0; back < STRIP_BYTES && back <= place; back++) {
        const past = this.trace.state(name, place - back);
        if (Number.isNaN(past)) continue;
        context.fillStyle = past < 0 ? colours.low : colours.high;
        context.globalAlpha = Math.abs(past) * 0.9;
        context.fillRect(STRIP_BYTES - 1 - back, 0, 1, 1);
      }
    }
  }
}

/** Returns the colours of the theme in the form that a canvas takes. */
function stripColours() {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => `rgb(${style.getPropertyValue(name).trim().split(/\s+/).join(', ')})`;
  return { low: colour('--low'), high: colour('--high') };
}
