// The table of labels: sorted, searched, and drawn as far as it is in view, so that 10,000 rows scroll like ten.
const HEIGHT = 30; // of a row
const SPARK = 96; // width of a sparkline
const PRINTED = 100; // rows on paper
const COLUMNS = [
  { key: "name", title: "label", kind: "text name", first: 1 },
  { key: "spark", title: "trend", kind: "text spark" },
  { key: "after", title: "latest", first: -1, width: "86px" },
  { key: "relative", title: "change", first: -1, needs: "relative", width: "78px" },
  { key: "q", title: "q", first: 1, needs: "q", width: "64px" },
  { key: "n", title: "n", kind: "minor", first: -1, width: `${Math.max(48, 14 + 8.5 * quantity(ROW("n").reduce((a, b) => Math.max(a, b), 0)).length)}px` },
  { key: "max", title: "min – max", kind: "minor", first: -1, width: "156px" },
  { key: "verdict", title: "verdict", kind: "text minor", first: 1, needs: "q", width: "100px" },
].filter((column) => !column.needs || DATA.rows[column.needs]);

const table = {
  order: Array.from(unpacked(DATA.order)), rows: [], focus: 0, sort: null, from: -1, to: -1,
  body: document.querySelector("#table tbody"), scroller: byId("scroller"),
};
const folded = DATA.names.map((name) => name.toLowerCase().normalize());

function sorted() {
  if (table.sort === null) return table.order.slice();
  const { key, direction } = table.sort;
  if (key === "name") {
    const collator = new Intl.Collator("en", { numeric: true });
    const places = table.order.slice().sort((a, b) => a - b);
    return places.sort((a, b) => direction * collator.compare(DATA.names[a], DATA.names[b]));
  }
  const column = ROW(key);
  const rank = (k) => (Number.isNaN(column[k]) ? Infinity : direction * column[k]); // NaN is last either way
  return table.order.slice().sort((a, b) => (rank(a) === rank(b) ? 0 : rank(a) < rank(b) ? -1 : 1));
}

function refill() {
  const words = byId("search").value.toLowerCase().normalize().split(/\s+/).filter(Boolean);
  const only = byId("only").value;
  const verdict = DATA.rows.verdict ? ROW("verdict") : null;
  table.rows = sorted().filter((k) => words.every((word) => folded[k].includes(word))
    && (only === "all" || (verdict && VERDICTS[verdict[k]] === only) || (only === "drawn" && state.chosen.includes(k))));
  table.focus = 0;
  table.scroller.scrollTop = 0;
  byId("found").textContent = table.rows.length === COUNT
    ? `${quantity(COUNT)} labels` : `${quantity(table.rows.length)} of ${quantity(COUNT)} labels`;
  byId("table").setAttribute("aria-rowcount", table.rows.length + 1);
  showRows(true);
  showDetail();
  heatmapLater();
}

function head() {
  const cells = COLUMNS.map((column) => {
    if (!column.first) return element("th", { class: column.kind, scope: "col" }, element("button", { type: "button", disabled: true, text: column.title }));
    const button = element("button", { type: "button", text: column.title, onclick: () => sortBy(column) });
    return element("th", { class: column.kind || "", scope: "col", "data-key": column.key }, button);
  });
  document.querySelector("#table thead").replaceChildren(element("tr", {}, ...cells));
  const widths = COLUMNS.map((column) => {
    const col = element("col", { class: column.kind || "" });
    if (column.width) col.style.width = column.width;
    return col;
  });
  byId("table").prepend(element("colgroup", {}, ...widths));
}

function sortBy(column) {
  const before = table.sort;
  const again = before !== null && before.key === column.key;
  // A third click returns to the order of the verdicts.
  if (again && before.direction !== column.first) table.sort = null;
  else table.sort = { key: column.key, direction: again ? -column.first : column.first };
  for (const cell of document.querySelectorAll("#table th[data-key]")) {
    const column = COLUMNS.find((one) => one.key === cell.dataset.key);
    const active = table.sort !== null && table.sort.key === column.key;
    const up = active && table.sort.direction === 1;
    if (active) cell.setAttribute("aria-sort", up ? "ascending" : "descending");
    else cell.removeAttribute("aria-sort");
    cell.firstChild.textContent = column.title + (active ? (up ? " ↑" : " ↓") : "");
  }
  refill();
}

function sparkline(label) {
  const box = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  box.setAttribute("viewBox", `0 0 ${SPARK} 24`);
  box.setAttribute("aria-hidden", "true");
  const size = MAIN.steps.length;
  const means = MAIN.column("mean").subarray(label * size, (label + 1) * size);
  const [low, high] = bounds(means);
  if (low > high) return box;
  const first = MAIN.steps[0];
  const reach = MAIN.steps[size - 1] - first || 1;
  let path = "";
  let last = null;
  for (let s = 0; s < size; s++) {
    if (!Number.isFinite(means[s])) { last = null; continue; }
    const x = (2 + ((SPARK - 6) * (MAIN.steps[s] - first)) / reach).toFixed(1);
    const y = (high > low ? 21 - 18 * along(means[s], low, high) : 12).toFixed(1);
    path += `${last ? "L" : "M"}${x} ${y}`;
    last = [x, y];
  }
  const line = document.createElementNS(box.namespaceURI, "path");
  line.setAttribute("d", path);
  box.append(line);
  if (last) {
    const dot = document.createElementNS(box.namespaceURI, "circle");
    for (const [name, value] of Object.entries({ cx: last[0], cy: last[1], r: 2.2 })) dot.setAttribute(name, value);
    box.append(dot);
  }
  return box;
}

function cell(column, label) {
  const kind = column.kind || "";
  if (column.key === "name") {
    const name = element("bdi", { text: DATA.names[label] });
    const made = element("td", { class: kind, title: DATA.names[label] }, name);
    const place = state.chosen.indexOf(label);
    if (place >= 0) {
      const swatch = element("span", { class: "swatch" });
      swatch.style.borderTopColor = colour(state.slots.get(label));
      made.prepend(swatch);
    }
    return made;
  }
  if (column.key === "spark") return element("td", { class: kind }, sparkline(label));
  if (column.key === "max") {
    const ends = ROW("n")[label] ? `${number(ROW("min")[label], 3)} – ${number(ROW("max")[label], 3)}` : "–";
    return element("td", { class: kind, text: ends });
  }
  const value = ROW(column.key)[label];
  if (column.key === "verdict") return element("td", { class: `${kind} ${VERDICTS[value]}`, text: VERDICTS[value] });
  const write = { after: (x) => (ROW("n")[label] ? steady(x, 4) : "–"), relative: percent, q: significance, n: quantity }[column.key];
  const tone = column.key === "relative" && ROW("verdict") ? VERDICTS[ROW("verdict")[label]] : "";
  return element("td", { class: `${kind} ${tone === "worse" || tone === "better" ? tone : ""}`, text: write(value) });
}

function row(place) {
  const label = table.rows[place];
  const focused = place === table.focus;
  return element("tr", {
    class: focused ? "row focus" : "row", tabindex: focused ? 0 : -1, "aria-rowindex": place + 2,
    "aria-selected": state.chosen.includes(label), "data-place": place,
  }, ...COLUMNS.map((column) => cell(column, label)));
}

function space(rows) {
  const filler = element("td");
  filler.style.height = `${rows * HEIGHT}px`;
  return element("tr", { class: "space", "aria-hidden": true }, filler);
}

function showRows(always = false) {
  const seen = Math.ceil(innerHeight / HEIGHT); // the table grows with its rows, up to a share of the window
  const top = Math.floor(table.scroller.scrollTop / HEIGHT);
  let from = Math.max(0, top - 10);
  let to = Math.min(table.rows.length, top + seen + 10);
  if (printing) [from, to] = [0, Math.min(table.rows.length, PRINTED)];
  if (!always && from === table.from && to === table.to) return;
  [table.from, table.to] = [from, to];
  const held = document.activeElement && document.activeElement.classList.contains("row");
  const made = [];
  for (let place = from; place < to; place++) made.push(row(place));
  if (from && !printing) made.unshift(space(from));
  if (to < table.rows.length && !printing) made.push(space(table.rows.length - to));
  table.body.replaceChildren(...made);
  if (held) focusedRow()?.focus({ preventScroll: true });
}

function focusedRow() { return table.body.querySelector("tr.focus"); }

function moveTo(place, take = true) {
  if (!table.rows.length) return;
  table.focus = Math.min(Math.max(place, 0), table.rows.length - 1);
  const above = table.focus * HEIGHT;
  const room = table.scroller.clientHeight - 2 * HEIGHT; // the head stays in view
  if (above < table.scroller.scrollTop) table.scroller.scrollTop = above;
  else if (above > table.scroller.scrollTop + room) table.scroller.scrollTop = above - room;
  showRows(true);
  if (take) focusedRow()?.focus({ preventScroll: true });
  showDetail();
}

function showDetail() {
  const label = table.rows[table.focus];
  const detail = byId("detail");
  drawHistogram();
  if (label === undefined) { detail.replaceChildren("No label matches."); return; }
  const name = element("strong", {}, element("bdi", { text: DATA.names[label] }));
  const at = (key) => ROW(key)[label];
  if (!DATA.rows.before) {
    detail.replaceChildren(name, `: mean ${number(at("after"), 6)}, standard deviation ${number(at("std"), 6)}, ${quantity(at("n"))} samples.`);
    return;
  }
  let text = `: ${number(at("before"), 6)} → ${number(at("after"), 6)} (${percent(at("relative"))})`;
  if (Number.isFinite(at("low"))) text += `, 95 % confidence interval of the difference ${number(at("low"))} to ${number(at("high"))}`;
  if (Number.isFinite(at("g"))) text += `, Hedges’ g ${number(at("g"), 3)}`;
  if (DATA.rows.q) text += `; ${DATA.methods[at("method")]}${Number.isNaN(at("q")) ? "" : `, p = ${significance(at("p"))}, q = ${significance(at("q"))}`}`;
  if (DATA.rows.q && at("q") < DATA.alpha && VERDICTS[at("verdict")] === "no evidence") text += " (but ranks and means disagree, so this is no evidence)";
  text += `; ${quantity(at("n_before"))} → ${quantity(at("n"))} samples.`;
  detail.replaceChildren(name, text);
}

function startTable() {
  head();
  const choices = [["all", "all labels"], ...(DATA.rows.verdict ? VERDICTS.map((one) => [one, one]) : []), ["drawn", "those drawn"]];
  byId("only").append(...choices.map(([value, text]) => element("option", { value, text })));
  byId("search").addEventListener("input", refill);
  byId("only").addEventListener("change", refill);
  table.scroller.addEventListener("scroll", () => showRows());
  table.body.addEventListener("click", (event) => {
    const hit = event.target.closest("tr.row");
    if (!hit) return;
    moveTo(Number(hit.dataset.place));
    toggle(table.rows[table.focus]);
  });
  table.body.addEventListener("keydown", (event) => {
    const page = Math.max(1, Math.floor(table.scroller.clientHeight / HEIGHT) - 2);
    const by = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity }[event.key];
    if (by !== undefined) moveTo(table.focus + by);
    else if (event.key === " " || event.key === "Enter") toggle(table.rows[table.focus]);
    else return;
    event.preventDefault();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
    byId("search").focus();
    event.preventDefault();
  });
}
