// One query: its rankings as pictures, call by call, and its candidates.

function chance(value) {
  if (value === null) return "";
  return make("span", {class: "chance"}, make("meter", {min: 0, max: 1, value, "aria-hidden": "true"}), " " + value.toFixed(3));
}

function gradeCell(candidate, most) {
  const judged = judgmentOf(candidate, most);
  return make("td", {class: `judgment ${judged.name}`}, make("span", {class: "sign", "aria-hidden": "true"}, judged.sign), " " + judged.words);
}

function identified(candidate) {
  return make("th", {scope: "row"}, foreign(candidate.id));
}

function stepOf(step, number, candidates) {
  const most = greatestGrade(candidates), named = step.outcome.map(each => candidates[each].id);
  const heading = make("summary", {}, make("b", {}, `Call ${number}: `), foreign(shortened(named.join(", "), 80)), make("span", {class: "quiet"}, ` · ${step.tokens[0]} tokens in, ${step.tokens[1]} out`), ...step.flags.map(flag => make("span", {class: "flag"}, " · ! " + flag)));
  const made = make("details", {class: "step"}, heading);
  made.addEventListener("toggle", () => {
    if (!made.open || made.childElementCount > 1) return;
    const rows = step.shown.map((each, place) => rowOf([
      make("td", {}, `[${place + 1}]`), identified(candidates[each]), gradeCell(candidates[each], most),
      ...(step.chances ? [make("td", {class: "figure"}, chance(step.chances[place]))] : []),
      make("td", {}, step.said[place]),
      make("td", {class: "passage"}, markedText(candidates[each].text, step.quotes.filter(quote => quote[0] === each).map(quote => quote.slice(1)))),
    ]));
    const headings = ["", "id", "judgment", ...(step.chances ? ["probability"] : []), "outcome", "passage"];
    if (step.thought) made.append(make("h4", {}, "Thought"), foreign(step.thought, "blockquote"));
    made.append(make("h4", {}, "Answer"), foreign(step.answer || "nothing", "blockquote"));
    made.append(make("div", {class: "wide", role: "region", tabindex: 0, "aria-label": `Call ${number}`}, tableOf(`What call ${number} showed`, headings, rows)));
  });
  return made;
}

function rankingOf(traced, candidates) {
  const made = make("div");
  for (const note of traced.notes) made.append(make("p", {class: "flag"}, "! " + note));
  made.append(make("p", {}, traced.summary));
  made.append(legendOf(), make("div", {class: "wide picture", role: "region", tabindex: 0, "aria-label": "Picture of the ranking"}, pictureOf(traced, candidates)));
  const steps = traced.steps.map((step, index) => stepOf(step, index + 1, candidates));
  const open = make("button", {type: "button", "aria-pressed": "false", onclick: () => {
    const all = open.getAttribute("aria-pressed") !== "true";
    open.setAttribute("aria-pressed", String(all));
    open.textContent = all ? "Close all calls" : "Open all calls";
    for (const step of steps) step.open = all;
  }}, "Open all calls");
  made.append(make("h3", {}, "Calls"), steps.length ? open : make("p", {}, "No call was made."), ...steps);
  return made;
}

// All candidates: ranks in each run, and where the trace on show has them before and after.
function candidatesOf(piece, traced, runs) {
  const {candidates, ranks} = piece, most = greatestGrade(candidates);
  const before = new Map((traced?.before ?? []).map((each, place) => [each, place + 1]));
  const after = new Map((traced?.after ?? []).map((each, place) => [each, place + 1]));
  const first = each => after.get(each) ?? Infinity, listed = candidates.map((_, each) => each);
  listed.sort((one, other) => first(one) - first(other) || (ranks[0][one] ?? Infinity) - (ranks[0][other] ?? Infinity) || one - other);
  const rows = listed.map(each => {
    const marks = traced ? quotesOf(traced.steps, each) : [];
    const cells = traced ? [before.get(each) ?? "–", after.get(each) ?? "–"] : [];
    const row = rowOf([
      ...cells.map(cell => make("td", {class: "figure"}, String(cell))), identified(candidates[each]), gradeCell(candidates[each], most),
      ...ranks.map(rank => make("td", {class: "figure"}, String(rank[each] ?? "–"))),
      make("td", {class: "passage"}, markedText(candidates[each].text, marks)),
    ]);
    if (traced && before.has(each)) {
      const turn = on => document.querySelector(`.line[data-candidate="${each}"]`)?.classList.toggle("on", on);
      row.tabIndex = 0;
      for (const [kind, on] of [["focusin", true], ["mouseenter", true], ["focusout", false], ["mouseleave", false]]) row.addEventListener(kind, () => turn(on));
    }
    return row;
  });
  const headings = [...(traced ? ["before", "after"] : []), "id", "judgment", ...runs.map(run => `rank: ${run.name}`), "passage"];
  return make("div", {class: "wide", role: "region", tabindex: 0, "aria-label": "Candidates"}, tableOf(traced ? "Before and after, and ranks in the runs; what the thoughts quote is marked" : "Ranks in the runs", headings, rows));
}

async function showQuery(data, number, neighbours) {
  const place = at("query"), row = data.queries[number];
  place.replaceChildren(make("p", {role: "status"}, "Opening …"));
  try {
    const piece = await opened(`q${number}`), traces = [];
    for (const run of data.runs) {
      const traced = run.trace === null ? null : await opened(`t${run.trace}-${number}`);
      if (traced) traces.push([run.name, traced]);
    }
    const heading = make("h2", {tabindex: -1}, "Query ", foreign(row.id));
    const turn = (label, to) => to === undefined ? null : make("a", {href: `#query-${to}`}, label);
    const body = make("div"), chosen = traces.length ? traces.length - 1 : null;
    const show = index => {
      const traced = index === null ? null : traces[index][1];
      body.replaceChildren(...(traced ? [rankingOf(traced, piece.candidates)] : []), make("h3", {}, "Candidates"), candidatesOf(piece, traced, data.runs));
    };
    const choice = traces.length > 1 ? chooser("Ranking", traces.map(([name]) => name), chosen, show) : null;
    place.replaceChildren(
      make("nav", {"aria-label": "Queries"}, make("a", {href: "#queries"}, "All queries"), turn("Previous query", neighbours[0]), turn("Next query", neighbours[1])),
      heading, make("p", {class: "asked", dir: "auto"}, piece.query), valuesOf(data, row), ...(choice ? [choice] : []), body,
    );
    show(chosen);
    heading.focus();
  } catch (error) {
    place.replaceChildren(make("p", {role: "alert"}, "Error: " + error.message));
  }
}

function valuesOf(data, row) {
  const rows = data.runs.map((run, index) => {
    const costs = run.trace === null ? null : row.costs[run.trace];
    return rowOf([make("th", {scope: "row"}, run.name), ...data.measures.map((_, each) => make("td", {class: "figure"}, figure(row.values[index]?.[each]))),
      ...["calls", "tokens", "repairs"].map(name => make("td", {class: "figure"}, costs ? String(costs[name]) : "–"))]);
  });
  return make("div", {class: "wide", role: "region", tabindex: 0, "aria-label": "Measures of this query"}, tableOf("Measures of this query", ["run", ...data.measures, "calls", "tokens", "repairs"], rows));
}

function chooser(label, names, chosen, onChange) {
  const select = make("select", {onchange: () => onChange(select.selectedIndex)}, ...names.map(name => make("option", {}, name)));
  select.selectedIndex = chosen;
  return make("label", {}, label + " ", select);
}
