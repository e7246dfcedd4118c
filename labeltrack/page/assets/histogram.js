// The samples of the label in focus, before and after.
const SAMPLES = DATA.distribution ? lazy(DATA.distribution.columns) : null;
const BINS = DATA.distribution ? DATA.distribution.bins : 0;

function drawHistogram() {
  if (!SAMPLES) return;
  byId("distribution").hidden = false;
  const label = table.rows[table.focus];
  const place = label === undefined ? -1 : SAMPLES("labels").indexOf(label);
  const canvas = byId("histogram");
  const [context, width, height] = drawing(canvas);
  const note = byId("histogram-note");
  byId("histogram-tip").hidden = true;
  if (place < 0) {
    note.textContent = label === undefined ? "" : `The samples of ${DATA.names[label]} are not in this page: they are not all finite, or there are too many labels. It has those of ${quantity(SAMPLES("labels").length)}.`;
    canvas.onpointermove = null;
    return;
  }
  const counts = ["before", "after"].map((side) => SAMPLES(side).subarray(place * BINS, (place + 1) * BINS));
  const totals = counts.map((side) => side.reduce((a, b) => a + b, 0));
  const shares = counts.map((side, i) => Array.from(side, (count) => count / (totals[i] || 1)));
  const most = Math.max(...shares[0], ...shares[1]) || 1;
  const log = SAMPLES("log")[place] === 1;
  const [low, high] = [SAMPLES("low")[place], SAMPLES("high")[place]];
  const left = 46;
  const right = width - 14;
  const bottom = height - 34;
  const x = (bin) => left + (bin / BINS) * (right - left);
  const y = (share) => bottom - (share / most) * (bottom - 22);
  context.fillStyle = theme("soft");
  context.strokeStyle = theme("line");
  context.textBaseline = "middle";
  context.textAlign = "right";
  for (const share of ticks(0, most, 4)) {
    const at = Math.round(y(share)) + 0.5;
    context.beginPath();
    context.moveTo(left, at);
    context.lineTo(right, at);
    context.stroke();
    context.fillText(`${number(100 * share, 3)} %`, left - 6, at);
  }
  context.textAlign = "center";
  context.textBaseline = "top";
  const toX = (value) => x(BINS * ((log ? Math.log10(value / low) / Math.log10(high / low) : along(value, low, high)) || 0));
  const marks = log ? decades(Math.log10(low), Math.log10(high)).map((at) => 10 ** at) : ticks(low, high, Math.max(3, Math.floor(width / 80)));
  for (const value of marks) context.fillText(number(value), Math.min(Math.max(toX(value), left + 12), right - 12), bottom + 5);
  context.fillText(`${DATA.metric}${log ? " (log)" : ""}`, (left + right) / 2, bottom + 20);
  outline(context, shares[0], x, y, bottom, theme("before"), true);
  outline(context, shares[1], x, y, bottom, colour(0), false);
  legendOf(context, right);
  const edge = (bin) => (log ? low * (high / low) ** (bin / BINS) : low * (1 - bin / BINS) + high * (bin / BINS));
  canvas.onpointermove = (event) => {
    const bin = Math.floor(((event.offsetX - left) / (right - left)) * BINS);
    const tip = byId("histogram-tip");
    if (bin < 0 || bin >= BINS) { tip.hidden = true; return; }
    const line = (side) => element("div", {}, element("span", { text: side === 0 ? "before" : "after" }), element("span", { text: `${quantity(counts[side][bin])} (${number(100 * shares[side][bin], 3)} %)` }));
    tip.replaceChildren(element("strong", { text: `${number(edge(bin))} to ${number(edge(bin + 1))}` }), line(0), line(1));
    placeTip(tip, canvas, event.offsetX, event.offsetY);
  };
  canvas.onpointerleave = () => { byId("histogram-tip").hidden = true; };
  const name = shortened(DATA.names[label], 80);
  canvas.setAttribute("aria-label", `Distribution of ${DATA.metric} of ${name} before and after`);
  const odd = !DATA.distribution.note && ["n_before", "n"].some((key, i) => ROW(key)[label] > totals[i]);
  const said = `${DATA.distribution.sides}${DATA.distribution.note}.${odd ? " Those that are not finite are left out." : ""}`;
  note.replaceChildren(element("bdi", { text: name }), `: ${quantity(totals[0])} samples before, ${quantity(totals[1])} after, ${said}`);
}

function outline(context, shares, x, y, bottom, paint, filled) {
  context.beginPath();
  context.moveTo(x(0), bottom);
  shares.forEach((share, bin) => {
    context.lineTo(x(bin), y(share));
    context.lineTo(x(bin + 1), y(share));
  });
  context.lineTo(x(BINS), bottom);
  context.fillStyle = context.strokeStyle = paint;
  if (filled) {
    context.globalAlpha = 0.35;
    context.fill();
    context.globalAlpha = 1;
  } else {
    context.lineWidth = 2;
    context.stroke();
    context.lineWidth = 1;
  }
}

function legendOf(context, right) {
  context.textAlign = "left";
  context.textBaseline = "middle";
  context.globalAlpha = 0.35;
  context.fillStyle = theme("before");
  context.fillRect(right - 130, 4, 14, 10);
  context.globalAlpha = 1;
  context.strokeStyle = colour(0);
  context.lineWidth = 2;
  context.strokeRect(right - 56, 5, 14, 8);
  context.lineWidth = 1;
  context.fillStyle = theme("soft");
  context.fillText("before", right - 111, 9);
  context.fillText("after", right - 37, 9);
}
