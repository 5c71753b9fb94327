// The table of queries: for one run and one measure, sorted by any column, by mouse or keyboard.
const PAGE = 100;

function queriesTable(data, state) {
  const traces = data.runs.some(run => run.trace !== null);
  const trace = () => data.runs[state.run].trace, value = (row, run) => row.values[run]?.[state.measure] ?? null;
  const gain = row => value(row, state.run) === null ? null : value(row, state.run) - value(row, 0);
  const cost = name => row => trace() === null ? null : row.costs[trace()]?.[name] ?? null;
  const several = data.runs.length > 1;
  const columns = [
    {name: "query", of: row => row.id},
    ...(several ? [{name: data.runs[0].name, of: row => value(row, 0)}] : []),
    {name: () => data.runs[state.run].name, of: row => value(row, state.run)},
    ...(several ? [{name: "gain", of: gain, sign: true}] : []),
    ...(traces ? ["repairs", "tokens", "calls"].map(name => ({name, of: cost(name), digits: 0})) : []),
  ];
  const named = column => typeof column.name === "function" ? column.name() : column.name;

  function sorted() {
    const words = state.filter.toLowerCase(), {of} = columns[state.column];
    const kept = data.queries.map((row, number) => ({row, number})).filter(({row}) => !words || (row.id + " " + row.query).toLowerCase().includes(words));
    const turn = state.falling ? -1 : 1;
    kept.sort((one, other) => {
      const [a, b] = [of(one.row), of(other.row)];
      if (a === null || b === null) return (a === null) - (b === null);
      return turn * (typeof a === "string" ? a.localeCompare(b, undefined, {numeric: true}) : a - b) || one.number - other.number;
    });
    return kept;
  }

  function headings() {
    return columns.map((column, index) => {
      const on = index === state.column, arrow = on ? (state.falling ? " ↓" : " ↑") : "";
      const button = make("button", {type: "button", onclick: () => {
        state.falling = on ? !state.falling : index > 0;
        state.column = index;
        show();
        at("table").querySelectorAll("thead button")[index].focus();
      }}, named(column), make("span", {"aria-hidden": "true"}, arrow));
      return make("th", {scope: "col", class: index ? "figure" : null, "aria-sort": on ? (state.falling ? "descending" : "ascending") : "none"}, button);
    });
  }

  function show() {
    const rows = sorted(), shown = rows.slice(0, state.shown);
    state.order = rows.map(each => each.number);
    const lines = shown.map(({row, number}) => rowOf([
      make("th", {scope: "row"}, make("a", {href: `#query-${number}`}, foreign(row.id)), " ", make("span", {class: "asked", dir: "auto"}, row.query)),
      ...columns.slice(1).map(column => make("td", {class: "figure" + (column.sign && column.of(row) ? column.of(row) > 0 ? " better" : " worse" : "")}, figure(column.of(row), column.digits ?? 4, column.sign))),
    ]));
    at("table").replaceChildren(tableOf(`Queries by ${data.measures[state.measure]}; gains are over ${data.runs[0].name}`, headings(), lines));
    at("count").textContent = `${shown.length} of ${rows.length} queries shown`;
    const more = make("button", {type: "button", onclick: () => { state.shown += PAGE; show(); at("more").firstElementChild?.focus(); }}, "Show more queries");
    at("more").replaceChildren(...(shown.length < rows.length ? [more] : []));
  }

  const filter = make("input", {type: "search", oninput: () => { state.filter = filter.value; state.shown = PAGE; show(); }});
  at("controls").replaceChildren(
    ...(several ? [chooser("Run", data.runs.slice(1).map(run => run.name), state.run - 1, index => { state.run = index + 1; show(); })] : []),
    ...(data.measures.length > 1 ? [chooser("Measure", data.measures, state.measure, index => { state.measure = index; show(); })] : []),
    make("label", {}, "Search ", filter),
  );
  show();
}
