// One ranking as a picture: a line per candidate, from its place before to its place after, call by call.

// The place of each candidate after each call, from 0: a list per call, the first one before any.
function placesOf(traced) {
  const before = traced.before, after = new Map(traced.after.map((each, place) => [each, place]));
  const columns = [new Map(before.map((each, place) => [each, place]))];
  let order = before.slice();
  traced.steps.forEach((step, index) => {
    if (index === traced.steps.length - 1) {
      columns.push(after);
      return;
    }
    if (traced.moves) {
      // What was shown takes its own places in its new order.
      const shown = new Set(step.shown), coming = step.outcome.values();
      order = order.map(each => shown.has(each) ? coming.next().value ?? each : each);
      columns.push(new Map(order.map((each, place) => [each, place])));
      return;
    }
    // Whoever no later call asks about has its place; the others wait in their first order.
    const settled = before.filter(each => traced.settled[each] <= index + 1 && traced.settled[each] > 0);
    const taken = new Set(settled.map(each => after.get(each))), column = new Map(settled.map(each => [each, after.get(each)]));
    let place = 0;
    for (const each of before) {
      if (column.has(each)) continue;
      while (taken.has(place)) place += 1;
      column.set(each, place);
      place += 1;
    }
    columns.push(column);
  });
  return columns;
}

function shortened(text, most) {
  const signs = Array.from(text);
  return signs.length <= most ? text : signs.slice(0, most - 1).join("") + "…";
}

function pictureOf(traced, candidates) {
  const columns = placesOf(traced), count = traced.before.length, last = columns.length - 1;
  const most = greatestGrade(candidates), left = new Set(traced.left);
  const row = count > 40 ? 15 : 20, side = 150, top = 30, gap = last ? Math.max(7, Math.min(110, 640 / last)) : 110;
  const width = 2 * side + gap * Math.max(1, last), height = top + row * count + 26;
  const x = step => side + gap * step, y = place => top + row * (place + 0.5);
  const picture = draw("svg", {viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-labelledby": "picture-title picture-told"});
  picture.append(draw("title", {id: "picture-title"}, "How the ranking came about"), draw("desc", {id: "picture-told"}, toldOf(traced, candidates, most)));
  const every = Math.ceil(26 / gap);
  for (let step = 0; step <= last; step += 1) {
    const told = step % every === 0 || step === 1 || step === last;
    if (told) picture.append(draw("line", {class: "grid", x1: x(step), x2: x(step), y1: top, y2: top + row * count}));
    if (step && told && (step === last || last - step >= every)) picture.append(draw("text", {class: "axis", x: x(step), y: height - 8, "text-anchor": "middle"}, String(step)));
  }
  picture.append(
    draw("text", {class: "axis", x: side - 8, y: 18, "text-anchor": "end"}, "before"),
    draw("text", {class: "axis", x: x(Math.max(1, last)) + 8, y: 18}, "after"),
    draw("text", {class: "axis", x: side - 8, y: height - 8, "text-anchor": "end"}, "call"),
  );
  // The best judged ones last, so that they lie on top.
  const weight = each => candidates[each].grade ?? -1;
  for (const each of traced.before.slice().sort((one, other) => weight(one) - weight(other))) {
    const candidate = candidates[each], judged = judgmentOf(candidate, most), out = left.has(each);
    const leaves = out ? traced.settled[each] : last, path = step => columns[step].get(each);
    const line = draw("g", {class: `line ${judged.name}`, "data-candidate": each});
    line.append(draw("title", {}, `${candidate.id}: ${judged.words}, ${path(0) + 1} before, ${path(last) + 1} after` + (out ? `, excluded in call ${leaves}` : "")));
    line.append(draw("path", {class: "catch", d: curve(0, last, path, x, y)}));
    line.append(draw("path", {class: "way", d: curve(0, leaves, path, x, y)}));
    if (leaves < last) line.append(draw("path", {class: "gone", d: curve(leaves, last, path, x, y)}));
    if (out) line.append(draw("path", {class: "exit", d: `M${x(leaves) - 4},${y(path(leaves)) - 4}l8,8m0,-8l-8,8`}));
    line.append(
      draw("text", {x: side - 8, y: y(path(0)) + 4, "text-anchor": "end"}, `${shortened(candidate.id, 14)} ${path(0) + 1} ${judged.sign}`),
      draw("text", {x: x(Math.max(1, last)) + 8, y: y(path(last)) + 4}, `${judged.sign} ${path(last) + 1} ${shortened(candidate.id, 14)}`),
    );
    picture.append(line);
  }
  return picture;
}

function curve(from, to, place, x, y) {
  let way = `M${x(from)},${y(place(from))}`;
  for (let step = from + 1; step <= to; step += 1) {
    const one = y(place(step - 1)), other = y(place(step)), middle = (x(step - 1) + x(step)) / 2;
    way += one === other ? `H${x(step)}` : `C${middle},${one} ${middle},${other} ${x(step)},${other}`;
  }
  return way;
}

// The picture in words, for who can't see it.
function toldOf(traced, candidates, most) {
  const places = new Map(traced.before.map((each, place) => [each, place + 1]));
  const said = traced.after.slice(0, 5).map((each, place) => `${place + 1}. ${candidates[each].id} (${places.get(each)} before, ${judgmentOf(candidates[each], most).words})`);
  return `${traced.before.length} candidates in ${traced.steps.length} calls. The first ones after: ${said.join("; ")}. The tables below say all.`;
}

function legendOf() {
  const entries = [["relevant", "●", "of the greatest grade"], ["related", "◆", "of a lower grade"], ["irrelevant", "○", "not relevant"], ["unjudged", "?", "not judged"]];
  const signs = entries.map(([name, sign, words]) => make("li", {class: name}, make("span", {class: "sign", "aria-hidden": "true"}, sign), " ", words));
  return make("ul", {class: "legend"}, ...signs, make("li", {}, make("span", {"aria-hidden": "true"}, "×"), " excluded with this call; pale behind it"));
}
