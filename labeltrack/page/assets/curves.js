// The curves of chosen labels, with bands; hovering shows values, dragging zooms.
const BANDS = [["std", "± standard deviation"], ["sem", "± standard error"], ["range", "minimum to maximum"], ["none", "none"]];
const DASHES = [[], [6, 4], [2, 3], [9, 3, 2, 3]];
const MARGIN = { left: 62, right: 14, top: 10, bottom: 34 };
const NAMES = [...new Set(TRACKS.flatMap((track) => track.names))].sort((a, b) => (BigInt(a) < BigInt(b) ? -1 : 1)); // of steps
const STEPS = NAMES.map(placeOf);
const WHOLE = STEPS.length > 1 ? [STEPS[0], STEPS[STEPS.length - 1]] : [STEPS[0] - 1, STEPS[0] + 1];
const CLOSEST = 2 ** -44 * Math.max(...WHOLE.map(Math.abs)); // steps that doubles still tell apart
const MOST = 8; // labels drawn

const state = { chosen: [], slots: new Map(), view: WHOLE.slice(), hover: null, drag: null, scale: null };

function toggle(label) {
  const place = state.chosen.indexOf(label);
  if (place >= 0) {
    state.chosen.splice(place, 1);
    state.slots.delete(label);
  } else {
    if (state.chosen.length >= MOST) state.slots.delete(state.chosen.shift());
    const taken = new Set(state.slots.values());
    let slot = 0;
    while (taken.has(slot)) slot++;
    state.slots.set(label, slot); // a label keeps its colour while others come and go
    state.chosen.push(label);
  }
  showChosen();
  showRows(true);
  drawCurves();
}

function showChosen() {
  byId("chosen").replaceChildren(...state.chosen.map((label) => {
    const swatch = element("span", { class: "swatch" });
    swatch.style.borderTopColor = colour(state.slots.get(label));
    const name = element("bdi", { text: DATA.names[label] });
    const button = element("button", { type: "button", title: `Remove ${DATA.names[label]}`, onclick: () => toggle(label) }, swatch, name);
    return element("li", {}, button);
  }));
}

// The points of a label in view, with one on either side, so that lines leave the figure.
function points(track, label, band) {
  const found = [];
  for (let s = 0; s < track.steps.length; s++) {
    if (s + 1 < track.steps.length && track.steps[s + 1] < state.view[0]) continue;
    if (s > 0 && track.steps[s - 1] > state.view[1]) break;
    const mean = present(track, label, s) ? valueAt(track, "mean", label, s) : NaN;
    found.push({ x: track.steps[s], name: track.names[s], mean, ends: band === "none" ? [NaN, NaN] : bandAt(track, band, label, s) });
  }
  return found;
}

// What is drawn in view as [step, low, high], and the steps among these that would flatten all others: these are few and
// far off, and none is the last of a line.
function extents(lines, log) {
  const found = new Map();
  for (const { of } of lines) {
    for (const point of of) {
      if (point.x < state.view[0] || point.x > state.view[1]) continue;
      for (const value of [point.mean, ...point.ends]) {
        if (!Number.isFinite(value) || (log && value <= 0)) continue;
        const at = log ? Math.log10(value) : value;
        const [, low, high] = found.get(point.name) || [0, Infinity, -Infinity];
        found.set(point.name, [point.x, Math.min(low, at), Math.max(high, at), point.name]);
      }
    }
  }
  const all = [...found.values()].sort((a, b) => a[0] - b[0]);
  if (log || all.length < 4) return [all, []];
  const [bottom, top] = [1, 2].map((column) => all.map((one) => one[column]).sort((a, b) => a - b)[all.length >> 1]);
  const beyond = (one) => Math.max(one[2] - top, bottom - one[1]);
  const usual = all.slice().sort((a, b) => beyond(a) - beyond(b)).slice(0, -Math.max(1, Math.floor(all.length / 10)));
  const [low, high] = span(usual);
  const room = 20 * Math.max(high - low, 0.05 * Math.max(Math.abs(low), Math.abs(high)));
  const far = all.filter((one) => room && (one[2] > high + room || one[1] < low - room));
  const last = lines.map(({ track, label }) => track.steps.findLast((_, s) => Number.isFinite(valueAt(track, "mean", label, s))));
  return far.some((one) => last.includes(one[0])) ? [all, []] : [all.filter((one) => !far.includes(one)), far];
}

function span(of) {
  return of.reduce(([low, high], one) => [Math.min(low, one[1]), Math.max(high, one[2])], [Infinity, -Infinity]);
}

function reach(kept) {
  const [low, high] = span(kept);
  if (low > high) return [0, 1];
  const pad = (high / 2 - low / 2) * 0.1 || Math.abs(low) * 0.05 || 1;
  return [Math.max(low - pad, -Number.MAX_VALUE), Math.min(high + pad, Number.MAX_VALUE)];
}

function noteCut(context, far, [low, high], right) {
  const [lowest, highest] = span(far);
  const ends = [...(lowest < low ? [lowest] : []), ...(highest > high ? [highest] : [])].map((end) => number(end, 3));
  const text = `axis cut: ${far.length > 1 ? `${far.length} steps reach` : `step ${far[0][3]} reaches`} ${ends.join(" and ")}`;
  context.textAlign = "right";
  context.textBaseline = "top";
  const wide = context.measureText(text).width;
  context.fillStyle = theme("paper");
  context.fillRect(right - wide - 10, MARGIN.top - 2, wide + 10, 18);
  context.fillStyle = theme("ink");
  context.fillText(text, right - 4, MARGIN.top);
}

function drawCurves() {
  const canvas = byId("curve");
  const [context, width, height] = drawing(canvas);
  const log = byId("log").checked;
  const band = byId("band").value;
  const lines = [];
  for (const track of TRACKS.filter((one) => one.shown)) {
    for (const label of state.chosen) lines.push({ track, label, of: points(track, label, band) });
  }
  const [kept, far] = extents(lines, log);
  const [low, high] = reach(kept);
  const right = width - MARGIN.right;
  const bottom = height - MARGIN.bottom;
  const scale = {
    x: (step) => MARGIN.left + ((step - state.view[0]) / (state.view[1] - state.view[0])) * (right - MARGIN.left),
    y: (value) => bottom - along(log ? Math.log10(value) : value, low, high) * (bottom - MARGIN.top),
    step: (x) => state.view[0] + ((x - MARGIN.left) / (right - MARGIN.left)) * (state.view[1] - state.view[0]),
    right, bottom,
  };
  state.scale = scale;
  axes(context, scale, log ? decades(low, high).map((at) => 10 ** at) : ticks(low, high, 6));
  context.save();
  context.beginPath();
  context.rect(MARGIN.left - 4, MARGIN.top - 4, right - MARGIN.left + 8, bottom - MARGIN.top + 8);
  context.clip();
  for (const line of lines) if (band !== "none") drawBand(context, scale, line, log, low);
  for (const line of lines) drawLine(context, scale, line);
  context.restore();
  if (far.length) noteCut(context, far, [low, high], right);
  if (!lines.length) {
    context.fillStyle = theme("soft");
    context.textAlign = "center";
    context.fillText("Choose labels in the table.", (MARGIN.left + right) / 2, (MARGIN.top + bottom) / 2);
  }
  if (state.drag) {
    context.fillStyle = theme("soft");
    context.globalAlpha = 0.2;
    const [from, to] = [state.drag.from, state.drag.to].sort((a, b) => a - b);
    context.fillRect(from, MARGIN.top, to - from, bottom - MARGIN.top);
    context.globalAlpha = 1;
  }
  if (state.hover !== null) {
    context.strokeStyle = theme("soft");
    context.lineWidth = 1;
    context.beginPath();
    context.moveTo(scale.x(STEPS[state.hover]), MARGIN.top);
    context.lineTo(scale.x(STEPS[state.hover]), bottom);
    context.stroke();
  }
  const said = state.chosen.map((label) => DATA.names[label]).join(", ");
  const [from, to] = state.view.map((at) => Number(at.toFixed(2)));
  canvas.setAttribute("aria-label", `${DATA.metric} over steps ${from} to ${to}${COUNTED} of ${said || "no label"}`);
}

function axes(context, scale, values) {
  context.lineWidth = 1;
  context.strokeStyle = theme("line");
  context.fillStyle = theme("soft");
  context.textBaseline = "middle";
  context.textAlign = "right";
  for (const value of values) {
    const y = Math.round(scale.y(value)) + 0.5;
    context.beginPath();
    context.moveTo(MARGIN.left, y);
    context.lineTo(scale.right, y);
    context.stroke();
    context.fillText(number(value), MARGIN.left - 8, y);
  }
  context.textAlign = "center";
  context.textBaseline = "top";
  const span = state.view[1] - state.view[0];
  const wide = Math.max(60, ...state.view.map((at) => context.measureText(String(Math.round(at))).width + 16));
  const room = Math.min(10, Math.floor((scale.right - MARGIN.left) / wide));
  for (const step of ticks(state.view[0], state.view[1], Math.min(room, Math.max(1, span)))) {
    if (Math.abs(step - Math.round(step)) > 1e-6) continue;
    context.fillText(String(Math.round(step)), scale.x(step), scale.bottom + 6);
  }
  context.fillText(`step${COUNTED}`, (MARGIN.left + scale.right) / 2, scale.bottom + 20);
}

function drawBand(context, scale, { track, label, of }, log, low) {
  const floor = log ? 10 ** low : -Infinity; // a band below zero is cut on a log axis
  context.fillStyle = colour(state.slots.get(label));
  context.globalAlpha = track.place ? 0.08 : 0.14;
  let run = [];
  const close = () => {
    if (run.length > 1) {
      context.beginPath();
      run.forEach((point, i) => context[i ? "lineTo" : "moveTo"](scale.x(point.x), scale.y(Math.max(point.ends[1], floor))));
      run.reverse().forEach((point) => context.lineTo(scale.x(point.x), scale.y(Math.max(point.ends[0], floor))));
      context.fill();
    }
    run = [];
  };
  for (const point of of) {
    if (Number.isFinite(point.mean) && point.ends.every(Number.isFinite)) run.push(point);
    else close();
  }
  close();
  context.globalAlpha = 1;
}

function drawLine(context, scale, { track, label, of }) {
  context.strokeStyle = context.fillStyle = colour(state.slots.get(label));
  context.lineWidth = 2;
  context.setLineDash(DASHES[track.place % DASHES.length]);
  context.beginPath();
  let open = false;
  for (const point of of) {
    const y = scale.y(point.mean);
    if (Number.isFinite(y)) context[open ? "lineTo" : "moveTo"](scale.x(point.x), y);
    open = Number.isFinite(y);
  }
  context.stroke();
  context.setLineDash([]);
  const joined = (point) => point !== undefined && Number.isFinite(scale.y(point.mean));
  of.forEach((point, i) => {
    const y = scale.y(point.mean);
    if (!Number.isFinite(y) || (of.length > 40 && (joined(of[i - 1]) || joined(of[i + 1])))) return;
    context.beginPath();
    context.arc(scale.x(point.x), y, 2.6, 0, 7);
    context.fill();
  });
}

function zoom(factor, centre = (state.view[0] + state.view[1]) / 2) {
  const least = STEPS.length > 1 ? Math.min(Math.max(2, CLOSEST), WHOLE[1] - WHOLE[0]) : 2;
  const span = Math.min(Math.max((state.view[1] - state.view[0]) * factor, least), WHOLE[1] - WHOLE[0]);
  const share = (centre - state.view[0]) / (state.view[1] - state.view[0]);
  look(centre - share * span, span);
}

function look(from, span) {
  const start = Math.min(Math.max(from, WHOLE[0]), WHOLE[1] - span);
  state.view = [start, start + span];
  drawCurves();
}

function hoverAt(x, y) {
  const step = state.scale.step(x);
  const inside = x >= MARGIN.left - 6 && x <= state.scale.right + 6 && state.chosen.length;
  showStep(inside ? STEPS.reduce((a, at, b) => (Math.abs(at - step) < Math.abs(STEPS[a] - step) ? b : a), 0) : null, x, y);
}

function showStep(nearest, x, y) {
  const tip = byId("curve-tip");
  state.hover = nearest;
  if (nearest === null) tip.hidden = true;
  else {
    const lines = [element("strong", { text: `step ${NAMES[nearest]}` })];
    for (const track of TRACKS.filter((one) => one.shown)) {
      const s = track.names.indexOf(NAMES[nearest]);
      if (s < 0) continue;
      if (TRACKS.filter((one) => one.shown).length > 1) lines.push(element("div", {}, element("bdi", { text: track.name })));
      for (const label of state.chosen) {
        const swatch = element("span", { class: "swatch" });
        swatch.style.borderTopColor = colour(state.slots.get(label));
        const there = present(track, label, s);
        const text = there ? `${number(valueAt(track, "mean", label, s), DIGITS.f4)} (n ${quantity(valueAt(track, "count", label, s))})` : "no samples";
        lines.push(element("div", {}, element("span", {}, swatch, element("bdi", { text: shortened(DATA.names[label], 24) })), element("span", { text })));
      }
    }
    tip.replaceChildren(...lines);
    placeTip(tip, byId("curve"), x, y);
  }
  drawCurves();
}

function startCurves() {
  const there = BANDS.filter(([name]) => name === "none" || MAIN.columns[name === "range" ? "min" : "std"]);
  byId("band").append(...there.map(([value, text]) => element("option", { value, text })));
  if (DATA.band && there.some(([value]) => value === DATA.band)) byId("band").value = DATA.band;
  byId("band").addEventListener("change", drawCurves);
  byId("log").addEventListener("change", drawCurves);
  if (TRACKS.length > 1) {
    byId("tracks").append(...TRACKS.map((track) => {
      const box = element("input", { type: "checkbox", onchange: (event) => { track.shown = event.target.checked; drawCurves(); } });
      box.checked = track.shown;
      const dash = ["———", "– – –", "· · · ·", "– · –"][track.place % DASHES.length];
      return element("label", {}, box, element("bdi", { text: track.name }), ` ${dash}`);
    }));
  }
  byId("in").addEventListener("click", () => zoom(0.5));
  byId("out").addEventListener("click", () => zoom(2));
  byId("all").addEventListener("click", () => look(WHOLE[0], WHOLE[1] - WHOLE[0]));
  const canvas = byId("curve");
  canvas.addEventListener("pointerdown", (event) => {
    state.drag = { from: event.offsetX, to: event.offsetX };
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (state.drag) state.drag.to = Math.min(Math.max(event.offsetX, MARGIN.left), state.scale.right);
    hoverAt(event.offsetX, event.offsetY);
  });
  canvas.addEventListener("pointerup", () => {
    const drag = state.drag;
    state.drag = null;
    if (drag && Math.abs(drag.to - drag.from) > 8) {
      const [from, to] = [state.scale.step(drag.from), state.scale.step(drag.to)].sort((a, b) => a - b);
      look(from, Math.max(to - from, Math.min(Math.max(1, CLOSEST), WHOLE[1] - WHOLE[0])));
    } else drawCurves();
  });
  canvas.addEventListener("pointercancel", () => { state.drag = null; drawCurves(); });
  canvas.addEventListener("pointerleave", () => { state.hover = null; byId("curve-tip").hidden = true; drawCurves(); });
  canvas.addEventListener("dblclick", () => look(WHOLE[0], WHOLE[1] - WHOLE[0]));
  canvas.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return; // the page scrolls
    event.preventDefault();
    zoom(event.deltaY > 0 ? 1.25 : 0.8, state.scale.step(event.offsetX));
  }, { passive: false });
  canvas.addEventListener("keydown", (event) => {
    const span = state.view[1] - state.view[0];
    if (event.key === "+" || event.key === "=") zoom(0.5);
    else if (event.key === "-") zoom(2);
    else if (event.key === "0") look(WHOLE[0], WHOLE[1] - WHOLE[0]);
    else if (event.key === "ArrowLeft" || event.key === "ArrowRight") hoverBeside(event.key === "ArrowLeft" ? -1 : 1, span);
    else return;
    event.preventDefault();
  });
}

// With arrow keys the hovered step moves, and the view with it.
function hoverBeside(by, span) {
  const now = state.hover === null ? STEPS.findLastIndex((step) => step <= state.view[1]) - by : state.hover;
  const next = Math.min(Math.max(now + by, 0), STEPS.length - 1);
  const step = STEPS[next];
  if (step < state.view[0]) look(step, span);
  else if (step > state.view[1]) look(step - span, span);
  if (state.chosen.length) showStep(next, state.scale.x(step), MARGIN.top + 20);
}
