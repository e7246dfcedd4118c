// Means of labels over steps in colour, in the order of the table.
const SHOWN = 100; // rows
const heat = { rows: [], side: 14, left: 0, width: 0, due: false };

// After the next frame: what is typed or clicked shows at once, whatever the heatmap takes.
function heatmapLater() {
  if (heat.due) return;
  heat.due = true;
  requestAnimationFrame(() => setTimeout(() => { heat.due = false; drawHeatmap(); }));
}

function drawHeatmap() {
  const steps = MAIN.steps.length;
  if (steps < 2) return;
  byId("heat").hidden = false;
  heat.rows = table.rows.slice(0, SHOWN);
  const canvas = byId("heatmap");
  heat.side = heat.rows.length > 60 ? 6 : heat.rows.length > 25 ? 10 : 18;
  const [context, width, height] = drawing(canvas, heat.rows.length * heat.side + 30);
  heat.left = heat.side < 10 ? 8 : Math.min(150, width * 0.28);
  heat.width = width - heat.left - 10;
  const scale = byId("scale").value;
  const means = MAIN.column("mean");
  const common = scale !== "common" ? null : heat.rows.map((k) => bounds(means.subarray(k * steps, (k + 1) * steps))).reduce(([a, b], [c, d]) => [Math.min(a, c), Math.max(b, d)], [Infinity, -Infinity]);
  const image = new ImageData(steps, Math.max(heat.rows.length, 1));
  const ramp = Array.from({ length: 256 }, (_, k) => [...cividis(k / 255), 255]);
  heat.rows.forEach((label, r) => {
    const of = scale === "rank" ? ranks(means.subarray(label * steps, (label + 1) * steps)) : means.subarray(label * steps, (label + 1) * steps);
    const [low, high] = common || bounds(of);
    of.forEach((mean, s) => {
      const at = 4 * (r * steps + s);
      if (!Number.isFinite(mean)) return; // transparent: no samples
      image.data.set(ramp[high > low ? Math.round(255 * along(mean, low, high)) : 128], at);
    });
  });
  const small = document.createElement("canvas");
  [small.width, small.height] = [image.width, image.height];
  small.getContext("2d").putImageData(image, 0, 0);
  context.imageSmoothingEnabled = false;
  context.drawImage(small, 0, 0, steps, heat.rows.length, heat.left, 0, heat.width, heat.rows.length * heat.side);
  context.fillStyle = theme("soft");
  if (heat.side >= 10) {
    context.textAlign = "right";
    context.textBaseline = "middle";
    context.font = `${Math.min(12, heat.side)}px system-ui, "DejaVu Sans", sans-serif`;
    heat.rows.forEach((label, r) => context.fillText(`\u2068${shortened(DATA.names[label], Math.floor(heat.left / 7))}\u2069`, heat.left - 6, (r + 0.5) * heat.side, heat.left - 8));
  }
  context.font = '12px system-ui, "DejaVu Sans", sans-serif';
  context.textAlign = "center";
  context.textBaseline = "top";
  const said = ORIGIN ? MAIN.steps.map(String) : MAIN.names;
  const wide = Math.max(50, ...[0, steps - 1].map((s) => context.measureText(said[s]).width + 10));
  const each = Math.max(1, Math.ceil(steps / Math.max(2, Math.floor(heat.width / wide))));
  for (let s = 0; s < steps; s += each) context.fillText(said[s], heat.left + ((s + 0.5) / steps) * heat.width, height - 24);
  canvas.setAttribute("aria-label", `Means of ${heat.rows.length} labels over ${steps} steps of ${MAIN.name}`);
  byId("heat-note").textContent = (heat.rows.length < table.rows.length ? `The first ${SHOWN} of ${quantity(table.rows.length)} labels, in the order of the table: sort or search it to see others. ` : "In the order of the table. ")
    + "A click draws a label's curve. Steps at which a label has no samples, or a mean that is not finite, are left blank."
    + (ORIGIN ? ` Steps are counted from ${DATA.origin}.` : "");
  showRamp(common);
}

// The place of each value among the others: one early spike does not make all the rest alike.
function ranks(values) {
  const ascending = Array.from(values).filter(Number.isFinite).sort((a, b) => a - b);
  return Array.from(values, (value) => (Number.isFinite(value) ? ascending.indexOf(value) : NaN));
}

function bounds(values) { // infinite if there is none
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) {
    if (!Number.isFinite(value)) continue;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return [low, high];
}

function showRamp(common) {
  const bar = element("i");
  bar.style.background = `linear-gradient(to right, ${CIVIDIS.map((rgb) => `rgb(${rgb.join(",")})`).join(",")})`;
  const [low, high] = common ? common.map((value) => number(value, 3)) : ["lowest", "highest"];
  byId("ramp").replaceChildren(low, bar, high);
}

function cellAt(event) {
  const r = Math.floor(event.offsetY / heat.side);
  const s = Math.floor(((event.offsetX - heat.left) / heat.width) * MAIN.steps.length);
  return r >= 0 && r < heat.rows.length && s < MAIN.steps.length ? [heat.rows[r], Math.max(s, -1), r] : null;
}

function startHeatmap() {
  const canvas = byId("heatmap");
  const tip = byId("heatmap-tip");
  byId("scale").addEventListener("change", drawHeatmap);
  canvas.addEventListener("pointermove", (event) => {
    const hit = cellAt(event);
    tip.hidden = hit === null;
    if (hit === null) return;
    const [label, s] = hit;
    const name = element("strong", {}, element("bdi", { text: shortened(DATA.names[label], 40) }));
    const said = s < 0 ? "" : present(MAIN, label, s)
      ? `step ${MAIN.names[s]}: ${number(valueAt(MAIN, "mean", label, s), DIGITS.f4)} (n ${quantity(valueAt(MAIN, "count", label, s))})` : `step ${MAIN.names[s]}: no samples`;
    tip.replaceChildren(name, element("div", { text: said }));
    placeTip(tip, canvas, event.offsetX, event.offsetY);
  });
  canvas.addEventListener("pointerleave", () => { tip.hidden = true; });
  canvas.addEventListener("click", (event) => {
    const hit = cellAt(event);
    if (hit === null) return;
    moveTo(hit[2], false);
    toggle(hit[0]);
  });
}
