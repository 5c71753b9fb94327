// Passages, with what thoughts quote of them marked.

// Parts from start to end, in order and without overlaps.
function merged(parts) {
  const found = [];
  for (const [start, end] of parts.slice().sort((one, other) => one[0] - other[0])) {
    const last = found.at(-1);
    if (last && start <= last[1]) last[1] = Math.max(last[1], end);
    else found.push([start, end]);
  }
  return found;
}

function markedText(text, parts) {
  const made = make("div", {class: "text", dir: "auto"});
  if (text === null) {
    made.append(make("i", {}, "not in the corpus"));
    return made;
  }
  let done = 0;
  for (const [start, end] of merged(parts)) {
    made.append(text.slice(done, start), make("mark", {}, text.slice(start, end)));
    done = end;
  }
  made.append(text.slice(done));
  return made;
}

function quotesOf(steps, candidate) {
  return steps.flatMap(step => step.quotes).filter(quote => quote[0] === candidate).map(quote => quote.slice(1));
}

// How a judgment is told: by a class for the colour, a sign and words.
function judgmentOf(candidate, most) {
  const grade = candidate.grade;
  if (grade === null || grade === undefined) return {name: "unjudged", sign: "?", words: "not judged"};
  if (grade <= 0) return {name: "irrelevant", sign: "○", words: "not relevant"};
  const named = grade < most ? {name: "related", sign: "◆"} : {name: "relevant", sign: "●"};
  return {...named, words: most > 1 ? `grade ${grade}` : "relevant"};
}

function greatestGrade(candidates) {
  return Math.max(1, ...candidates.map(each => each.grade ?? 0));
}
