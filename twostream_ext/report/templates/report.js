"use strict";

// Tables are sorted by a click on a head: upwards, then downwards. Cells without a value stay last.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  for (const [column, head] of heads.entries()) {
    if (head.tagName !== "TH") continue;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const downwards = head.getAttribute("aria-sort") === "ascending";
      for (const each of heads) each.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", downwards ? "descending" : "ascending");
      sortRows(table.tBodies[0], column, downwards);
    });
  }
}

function sortRows(body, column, downwards) {
  const isNumber = body.rows[0]?.cells[column].classList.contains("number");
  const valueOf = (row) => {
    const cell = row.cells[column];
    if (!isNumber) return cell.textContent.trim();
    return "value" in cell.dataset ? Number(cell.dataset.value) : null;
  };
  const compare = (one, other) => {
    const [first, second] = [valueOf(one), valueOf(other)];
    if (first === null || second === null) return (first === null) - (second === null);
    const order = isNumber ? first - second : first.localeCompare(second, undefined, { numeric: true });
    return downwards ? -order : order;
  };
  body.append(...[...body.rows].sort(compare));
}

// The cell of the confusion matrix under the pointer, in words.
const cells = document.getElementById("cells");
if (cells) {
  const { classes, sizes, counts } = JSON.parse(document.getElementById("confusion-counts").textContent);
  const found = new Map(counts.map(([row, column, videos]) => [row * classes.length + column, videos]));
  const readout = document.getElementById("readout");
  const name = (text) => {
    const shown = document.createElement("b");
    shown.className = "name";
    shown.textContent = text;
    return shown;
  };
  const tell = (event) => {
    const box = cells.getBoundingClientRect();
    const place = (offset, length) => Math.min(classes.length - 1, Math.max(0, Math.floor((offset / length) * classes.length)));
    const row = place(event.clientY - box.top, box.height);
    const column = place(event.clientX - box.left, box.width);
    const videos = found.get(row * classes.length + column) ?? 0;
    const verb = row === column ? " recognised: " : " taken for ";
    const rest = row === column ? [] : [name(classes[column]), ": "];
    readout.replaceChildren(name(classes[row]), verb, ...rest, `${videos} of ${sizes[row]} videos`);
  };
  cells.addEventListener("pointermove", tell);
  cells.addEventListener("pointerdown", tell);
}
