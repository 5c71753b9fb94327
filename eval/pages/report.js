// Which part of the page is shown: the table of queries, or the query that the address names.
const data = JSON.parse(at("data").textContent);
const traced = data.runs.findLastIndex(run => run.trace !== null);
const state = {run: traced > 0 ? traced : data.runs.length > 1 ? 1 : 0, measure: 0, column: 0, falling: false, filter: "", shown: PAGE, order: []};

function follow() {
  const named = /^#query-(\d+)$/.exec(location.hash), number = named ? Number(named[1]) : null;
  const one = number !== null && number < data.queries.length;
  at("overview").hidden = one;
  at("query").hidden = !one;
  if (!one) {
    if (location.hash === "#queries") at("queries").focus();
    return;
  }
  scrollTo(0, 0);
  const here = state.order.indexOf(number);
  showQuery(data, number, here < 0 ? [] : [state.order[here - 1], state.order[here + 1]]);
}

queriesTable(data, state);
addEventListener("hashchange", follow);
// What is packed stands behind this script.
addEventListener("DOMContentLoaded", follow);
