// Tables that sort, heat maps to choose from, sliders, pictures to enlarge, charts to read. Without it all is shown.
// The studio has this script too; its content comes and goes, so pictures and charts are found when they are used.
'use strict';
const above = document.createElement('div'); // what lies over the page
above.className = 'report';

for (const table of document.querySelectorAll('table[data-script="sort"]')) {
  const body = table.tBodies[0], original = Array.from(body.rows), headers = Array.from(table.tHead.rows[0].cells);
  const value = (row, column) => {
    const cell = row.cells[column];
    return column === 0 ? cell.firstChild.textContent.trim()
      : cell.dataset.value === undefined ? null : Number(cell.dataset.value);
  };
  const compare = (a, b) => typeof a === 'string' ? a.localeCompare(b, 'en', {numeric: true}) : a < b ? -1 : +(a > b);
  headers.forEach((header, column) => {
    const button = document.createElement('button');
    const lowFirst = header.dataset.better !== 'higher';
    button.type = 'button';
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener('click', () => {
      const first = lowFirst ? 'ascending' : 'descending', second = lowFirst ? 'descending' : 'ascending';
      const before = header.getAttribute('aria-sort');
      const order = before === null ? first : before === first ? second : null;
      headers.forEach((other) => other.removeAttribute('aria-sort'));
      if (order !== null) header.setAttribute('aria-sort', order);
      const known = (row) => value(row, column) !== null;
      const rows = order === null ? original : original.filter(known).sort((a, b) =>
        (order === 'ascending' ? 1 : -1) * compare(value(a, column), value(b, column))
      ).concat(original.filter((row) => !known(row)));
      body.append(...rows);
    });
  });
  for (const hint of table.closest('section').querySelectorAll('.script-only')) hint.hidden = false;
}

for (const viewer of document.querySelectorAll('[data-script="viewer"]')) {
  const panels = Array.from(viewer.querySelectorAll('.panel'));
  const chosen = (kind) => {
    const input = viewer.querySelector(`input[data-kind="${kind}"]:checked`);
    return input === null ? '0' : input.value;
  };
  const show = () => {
    const image = chosen('image'), tap = chosen('tap');
    for (const panel of panels) panel.hidden = panel.dataset.image !== image || panel.dataset.tap !== tap;
  };
  viewer.querySelector('.controls').hidden = false;
  viewer.addEventListener('change', show);
  show();
}

for (const pairs of document.querySelectorAll('[data-script="slider"]')) {
  pairs.classList.add('sliding');
  for (const figure of pairs.querySelectorAll('figure')) {
    const pair = figure.querySelector('.pair'), slider = figure.querySelector('input');
    const show = () => pair.style.setProperty('--cut', slider.value + '%');
    const follow = (event) => {
      const box = pair.getBoundingClientRect();
      slider.value = 100 * (event.clientX - box.left) / box.width;
      show();
    };
    pair.addEventListener('pointermove', (event) => {
      if (event.pointerType === 'mouse' || event.buttons) follow(event);
    });
    pair.addEventListener('pointerdown', follow);
    slider.addEventListener('input', show);
    slider.hidden = false;
    show();
  }
}

{
  const enlarged = document.createElement('dialog'), picture = document.createElement('img');
  const pictures = '.gallery img, .views img, .studio-card img, .studio-figures img';
  enlarged.className = 'enlarged';
  enlarged.append(picture);
  enlarged.addEventListener('click', () => enlarged.close());
  const enlarge = (image) => {
    const scale = Math.min(0.94 * innerWidth / image.naturalWidth, 0.92 * innerHeight / image.naturalHeight);
    Object.assign(picture, {src: image.src, alt: image.alt, width: scale * image.naturalWidth});
    picture.className = image.className;
    document.body.append(above);
    above.append(enlarged);
    enlarged.showModal();
  };
  document.addEventListener('click', (event) => {
    const image = event.target.closest('.overlay')?.querySelector('img') ?? event.target;
    if (image.matches?.(pictures)) enlarge(image);
  });
  document.addEventListener('keydown', (event) => {
    if (event.key === 'Enter' && event.target.matches?.(pictures)) enlarge(event.target);
  });
  for (const image of document.querySelectorAll(pictures)) image.tabIndex = 0;
}

{
  const tip = document.createElement('div'), svg = 'http://www.w3.org/2000/svg';
  const words = (value) => Math.abs(value) < 1e4 ? String(+value.toPrecision(4)) : value.toLocaleString('en');
  const clear = () => {
    tip.remove();
    for (const old of document.querySelectorAll('svg .pointed')) old.remove();
  };
  tip.className = 'tip';
  const point = (event) => {
    clear();
    const chart = event.target.closest?.('svg[data-lines]');
    if (!chart) return;
    const {x: [xScale, xStart], y: [yScale, yStart], lines} = JSON.parse(chart.dataset.lines);
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(chart.getScreenCTM().inverse());
    const wanted = (at.x - xStart) / xScale, near = (a, b) => Math.abs(a - wanted) <= Math.abs(b - wanted) ? a : b;
    const every = lines.flatMap(([, , xs]) => xs);
    if (!every.length) return;
    const x = every.reduce((best, value) => near(best, value));
    const shown = lines.map(([name, colour, xs, ys]) => [name, colour, ys[xs.indexOf(x)]]);
    tip.replaceChildren(`${x.toLocaleString('en')} images`);
    for (const [name, colour, y] of shown.filter(([, , y]) => y !== undefined)) {
      const dot = document.createElementNS(svg, 'circle'), line = document.createElement('div');
      const place = {class: 'pointed', cx: xStart + xScale * x, cy: yStart + yScale * y, r: 4, fill: colour};
      for (const [key, value] of Object.entries(place)) dot.setAttribute(key, value);
      chart.append(dot);
      line.textContent = `${name}: ${words(y)}`;
      line.style.borderColor = colour;
      tip.append(line);
    }
    document.body.append(above);
    above.append(tip);
    tip.style.left = `${Math.max(0, Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8))}px`;
    tip.style.top = `${Math.max(0, event.clientY - tip.offsetHeight - 14)}px`;
  };
  document.addEventListener('pointermove', point);
  document.addEventListener('pointerdown', point);
  document.addEventListener('scroll', clear, {passive: true});
}
