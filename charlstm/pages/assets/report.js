// Draws the report's curves over updates, seconds or bytes.

const data = JSON.parse(document.getElementById('data').textContent);

async function draw(x) {
  for (const button of document.querySelectorAll('[data-x]')) {
    button.setAttribute('aria-pressed', button.dataset.x === x);
  }
  for (const [index, spec] of data.charts.entries()) {
    for (const point of spec.data.values) point.x = point[x];
    for (const layer of spec.layer) {
      if (!layer.encoding.x?.field) continue;
      layer.encoding.x.title = data.x_titles[x];
      layer.encoding.x.axis.format = x === 'bytes' ? '~s' : ',d';
    }
    await vegaEmbed(document.getElementById(`chart-${index}`), spec, {
      actions: false, ast: true, renderer: 'svg', defaultStyle: false,
    });
  }
}

for (const button of document.querySelectorAll('[data-x]')) {
  button.addEventListener('click', () => draw(button.dataset.x));
}
for (const swatch of document.querySelectorAll('[data-swatch]')) {
  swatch.style.background = `var(--series-${((swatch.dataset.swatch - 1) % 8) + 1})`;
}
if (data.charts.length) await draw('step');
document.documentElement.dataset.ready = 'yes';
