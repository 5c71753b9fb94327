// Elements are made here alone, and texts go in as text: nothing in them is ever read as HTML.
function at(id) {
  return document.getElementById(id);
}

function make(tag, given = {}, ...inside) {
  const made = document.createElement(tag);
  return filled(made, given, inside);
}

function draw(tag, given = {}, ...inside) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  return filled(made, given, inside);
}

function filled(made, given, inside) {
  for (const [name, value] of Object.entries(given)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...inside.filter(each => each !== null && each !== undefined));
  return made;
}

// A text of somebody else's: its direction of writing stays its own.
function foreign(text, tag = "bdi") {
  return make(tag, {dir: "auto"}, text);
}

function rowOf(cells, tag = "td") {
  return make("tr", {}, ...cells.map(cell => cell instanceof Element && /^T[DH]$/.test(cell.tagName) ? cell : make(tag, {}, cell)));
}

function tableOf(caption, headings, rows) {
  // A heading stands over its figures as they do.
  const figures = Array.from(rows[0]?.children ?? [], each => each.classList.contains("figure"));
  const head = rowOf(headings.map((each, index) => each instanceof Element ? each : make("th", {scope: "col", class: figures[index] ? "figure" : null}, each)));
  // For narrow windows, which show no row of headings.
  for (const row of rows) Array.from(row.children).forEach((cell, index) => { if (typeof headings[index] === "string") cell.dataset.heading = headings[index]; });
  return make("table", {}, make("caption", {}, caption), make("thead", {}, head), make("tbody", {}, ...rows));
}

function figure(value, digits = 4, sign = false) {
  if (value === null || value === undefined) return "–";
  const shown = value.toFixed(digits);
  return sign && value > 0 ? "+" + shown : shown.replace(/^-(0\.?0*)$/, "$1");
}

async function opened(name) {
  const piece = at(name);
  if (piece === null) return null;
  if (typeof DecompressionStream === "undefined") throw new Error("this browser can't open compressed data: use a newer one");
  const bytes = Uint8Array.from(atob(piece.textContent), sign => sign.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  return JSON.parse(await new Response(stream).text());
}
