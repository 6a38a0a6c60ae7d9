// Tables that sort, heat maps to choose from, sliders. Without this script the page shows all that it has.
'use strict';

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
