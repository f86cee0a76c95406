"use strict";
(() => {
  const runs = JSON.parse(document.getElementById("data").textContent);
  if (!runs.length) return;
  const CLIP = 3, FULL = 0.6, THICKEST = 4;
  const POLARITY = { "1": "helpful", "0": "neutral", "-1": "misleading" };
  const BADGE = { "right": "helpful", "wrong": "misleading", "not judged": "neutral" };
  const find = (id) => document.getElementById(id);
  // text is only ever set as text: what a model wrote is never markup
  const make = (tag, className, text) => {
    const node = document.createElement(tag);
    if (className) node.className = className;
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const signed = (value, digits = 2) => (value > 0 ? "+" : value < 0 ? "−" : "") + Math.abs(value).toFixed(digits);
  const verdictOf = (row) => (row.outcome > 0 ? "right" : row.outcome < 0 ? "wrong" : "not judged");
  let row, teacher;

  const values = () => (teacher < 0 ? row.pull.map((pull) => pull * CLIP) : row.teachers[teacher].log_ratio);
  const gates = () => (teacher < 0 ? row.pull.map(Math.abs) : row.teachers[teacher].gate);

  function showTokens() {
    const box = find("completion");
    box.replaceChildren();
    const shown = row.teachers.length ? values() : row.tokens.map(() => 0);
    const open = row.teachers.length ? gates() : null;
    row.tokens.forEach((token, place) => {
      const node = make("span", row.mask[place] ? "" : "out");
      node.tabIndex = place ? -1 : 0;
      const strength = Math.min(Math.abs(shown[place]) / CLIP, 1) * FULL;
      if (row.mask[place] && strength) {
        node.style.backgroundColor = `rgba(var(${shown[place] > 0 ? "--like" : "--unlike"}), ${strength.toFixed(3)})`;
      }
      if (row.mask[place] && open && open[place] > 0.02) {
        node.style.boxShadow = `inset 0 -${(open[place] * THICKEST).toFixed(1)}px 0 var(--gate)`;
      }
      token.split("\n").forEach((part, line) => {
        if (line) node.append(make("span", "newline", "↵"), "\n");
        node.append(part);
      });
      for (const event of ["mouseenter", "focus", "click"]) node.addEventListener(event, () => tell(place));
      node.addEventListener("keydown", (event) => {
        const move = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
        const other = move && box.children[place + move];
        if (other) { other.focus(); event.preventDefault(); }
      });
      box.append(node);
    });
  }

  function tell(place) {
    const parts = [`token ${place + 1} ${JSON.stringify(row.tokens[place])}`, `student ${signed(row.student[place])} nats`];
    if (!row.mask[place]) parts.push("does not count");
    else if (teacher < 0) parts.push(`net pull ${signed(row.pull[place])}`);
    else if (row.teachers.length) {
      const of = row.teachers[teacher];
      parts.push(`log-ratio ${signed(of.log_ratio[place])} nats`);
      if (of.gate) parts.push(`gate ${of.gate[place].toFixed(2)}`);
    }
    find("token").textContent = parts.join(" · ");
  }

  function teacherRow(place, text, cells) {
    const line = make("tr", place === teacher ? "chosen" : "");
    const input = make("input");
    Object.assign(input, { type: "radio", name: "teacher", checked: place === teacher });
    input.setAttribute("aria-label", text);
    input.addEventListener("change", () => choose(place));
    line.addEventListener("click", () => choose(place));
    const first = make("td");
    first.append(input);
    const second = make("td");
    second.append(make("div", "text", text));
    line.append(first, second, ...cells);
    return line;
  }

  function showTeachers() {
    const body = find("teachers").tBodies[0];
    body.replaceChildren();
    if (row.pull) {
      const rest = make("td", "", "where they pull the student, together");
      rest.colSpan = 4;
      body.append(teacherRow(-1, "All teachers", [rest]));
    }
    row.teachers.forEach((of, place) => {
      const polarity = make("td");
      if (of.polarity !== null) polarity.append(make("span", `badge ${POLARITY[of.polarity]}`, POLARITY[of.polarity]));
      const stance = of.stance === null ? "" : of.stance > 0 ? "likes it" : of.stance < 0 ? "dislikes it" : "neither";
      body.append(teacherRow(place, of.text || of.sources.join(" + "), [
        make("td", "number", of.weight.toFixed(3)),
        make("td", "number", of.stance_score === null ? "" : signed(of.stance_score, 3)),
        make("td", "", stance),
        polarity,
      ]));
    });
  }

  function choose(place) {
    if (place === teacher) return;
    teacher = place;
    showTokens();
    showTeachers();
    find("teachers").querySelector("tr.chosen input").focus({ preventScroll: true });
  }

  function show() {
    const run = runs[find("run").value];
    row = run.rows[find("rollout").value];
    // the teacher with most to say, to begin with
    const scores = row.teachers.map((of) => Math.abs(of.stance_score ?? 0));
    teacher = scores.length ? scores.indexOf(Math.max(...scores)) : 0;
    const verdict = verdictOf(row);
    find("verdict").replaceChildren(
      make("span", `badge ${BADGE[verdict]}`, verdict),
      make("span", "", `answer ${row.answer ?? "none found"}, right is ${row.reference_answer}`),
      make("span", "absent", `step ${row.step} · ${row.tokens.length} tokens · ${row.finish_reason}`),
    );
    find("problem").textContent = row.problem;
    find("asked").open = row.problem.length < 200;
    find("token").textContent = "Point at a token, or walk through them with the arrow keys.";
    showTokens();
    showTeachers();
  }

  function fillRollouts(shown) {
    const run = runs[find("run").value];
    find("rollout").replaceChildren(...run.rows.map((one, place) => {
      const option = make("option", "", `step ${one.step} · ${one.problem_id} · ${verdictOf(one)}`);
      option.value = place;
      return option;
    }));
    find("rollout").value = shown;
    find("some").textContent = run.rows.length < run.all ? `${run.rows.length} of ${run.all} that were logged` : "";
    show();
  }

  function step(by) {
    const select = find("rollout");
    select.value = Math.min(Math.max(Number(select.value) + by, 0), select.options.length - 1);
    show();
  }

  runs.forEach((run, place) => {
    const option = make("option", "", run.run);
    option.value = place;
    find("run").append(option);
  });
  find("run").closest("label").hidden = runs.length < 2;
  find("run").addEventListener("change", () => fillRollouts(runs[find("run").value].shown));
  find("rollout").addEventListener("change", show);
  find("previous").addEventListener("click", () => step(-1));
  find("next").addEventListener("click", () => step(1));
  fillRollouts(runs[0].shown);
  find("viewer").hidden = false;
})();
