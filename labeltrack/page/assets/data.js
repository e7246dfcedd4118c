// What the page shows, and how numbers and colours are written. Names are put into the page as text, never as HTML.
const DATA = JSON.parse(document.getElementById("data").textContent);
const TYPES = { f8: Float64Array, f4: Float32Array, i4: Int32Array, u4: Uint32Array, u2: Uint16Array, u1: Uint8Array };
const DIGITS = { f4: 6 }; // of columns that were rounded for drawing: to 6 decimal digits, which float32 keeps

function unpacked(column) {
  if (!column) return null;
  const text = atob(column.data);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = text.charCodeAt(i);
  return new TYPES[column.type](bytes.buffer);
}

// Columns are unpacked when they are first used.
function lazy(columns) {
  const kept = new Map();
  return (name) => {
    if (!kept.has(name)) kept.set(name, unpacked(columns[name]));
    return kept.get(name);
  };
}

const COUNT = DATA.names.length;
const ROW = lazy(DATA.rows);
// Steps are texts, as doubles do not hold all of them; their places on an axis are counted from the origin.
const ORIGIN = BigInt(DATA.origin);
const COUNTED = ORIGIN ? `, counted from ${DATA.origin}` : "";
const placeOf = (step) => Number(BigInt(step) - ORIGIN);
const TRACKS = DATA.tracks.map((track, place) => ({
  ...track, place, names: track.steps, steps: track.steps.map(placeOf), column: lazy(track.columns), shown: place === 0 || track.shown,
}));
const MAIN = TRACKS[0];
const VERDICTS = ["worse", "no evidence", "better", "too few"];

function valueAt(track, name, label, step) {
  const column = track.column(name);
  if (!column) return NaN;
  return column[column.length === COUNT ? label : label * track.steps.length + step];
}

function present(track, label, step) {
  return valueAt(track, "count", label, step) > 0;
}

// The lower and upper end of a band at a step.
function bandAt(track, band, label, step) {
  if (band === "range") return [valueAt(track, "min", label, step), valueAt(track, "max", label, step)];
  const mean = valueAt(track, "mean", label, step);
  const std = valueAt(track, "std", label, step);
  const half = band === "std" ? std : std / Math.sqrt(valueAt(track, "count", label, step));
  return [mean - half, mean + half];
}

function number(value, digits = 4) {
  if (Number.isNaN(value)) return "NaN";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  const size = Math.abs(value);
  const text = size !== 0 && (size < 1e-3 || size >= 1e7)
    ? value.toExponential(digits - 1).replace(/\.?0+e/, "e") : Number(value.toPrecision(digits)).toString();
  return text.replace("-", "−").replace("e+", "e");
}

function steady(value, digits) { // as number(), but with all its digits, so that columns of numbers align
  if (!Number.isFinite(value)) return number(value);
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e7)) return number(value, digits);
  return value.toPrecision(digits).includes("e") ? number(value, digits) : value.toPrecision(digits).replace("-", "−");
}

function percent(value) {
  if (Number.isNaN(value)) return "–";
  if (!Number.isFinite(value)) return value > 0 ? "+∞" : "−∞";
  if (value === 0) return "0 %";
  const size = Math.abs(100 * value);
  const text = size >= 1e4 ? size.toExponential(1) : size.toFixed(size >= 100 ? 0 : size >= 10 ? 1 : 2);
  return `${value < 0 ? "−" : "+"}${text} %`;
}

function quantity(value) {
  return value.toLocaleString("en-US");
}

function significance(value) {
  if (Number.isNaN(value)) return "–";
  return value < 1e-99 ? "< 1e−99" : value < 1e-3 ? value.toExponential(0).replace("-", "−") : value.toPrecision(2);
}

function element(tag, options = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (name === "class") made.className = value;
    else if (name === "text") made.textContent = value;
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

function byId(id) { return document.getElementById(id); }

// -- colours: those of Okabe and Ito, which stay apart for the colour-blind; darker on white, lighter on black -------

const LIGHT = ["#c04a00", "#0067a3", "#007a59", "#a8487f", "#8a6100", "#2f86b8", "#5a5a5a", "#6b3fa0"];
const DARK = ["#ff8a4a", "#5fb4ec", "#2fc79b", "#e893c2", "#e6ae2e", "#a6dcf7", "#c4c4c4", "#b99af0"];
const CIVIDIS = [[0, 34, 78], [53, 69, 108], [102, 105, 112], [148, 142, 119], [200, 184, 102], [254, 232, 56]];
let printing = false;

function isDark() { return !printing && matchMedia("(prefers-color-scheme: dark)").matches; }

function colour(place) { return (isDark() ? DARK : LIGHT)[place % LIGHT.length]; }

function theme(name) {
  if (printing) return { ink: "#000", soft: "#444", line: "#bbb", paper: "#fff", before: "#666", worse: "#a03c00" }[name];
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

function cividis(share) {
  const at = Math.min(Math.max(share, 0), 1) * (CIVIDIS.length - 1);
  const k = Math.min(Math.floor(at), CIVIDIS.length - 2);
  return CIVIDIS[k].map((from, i) => Math.round(from + (CIVIDIS[k + 1][i] - from) * (at - k)));
}

// -- canvases ---------------------------------------------------------------------------------------------------------

function drawing(canvas, height) {
  const width = canvas.clientWidth || 600;
  const ratio = printing ? 3 : window.devicePixelRatio || 1;
  if (height) canvas.style.height = `${height}px`;
  const tall = height || canvas.clientHeight;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(tall * ratio);
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  context.font = '12px system-ui, "Segoe UI", "DejaVu Sans", sans-serif';
  return [context, width, tall];
}

// How far a value is from one end to the other; halves, as the difference may be more than a double holds.
function along(value, low, high) { return (value / 2 - low / 2) / (high / 2 - low / 2); }

function ticks(low, high, most) {
  const rough = 2 * ((high / 2 - low / 2) / Math.max(most, 1));
  if (!(rough > 0) || !Number.isFinite(rough)) return [low];
  const power = 10 ** Math.floor(Math.log10(rough));
  const unit = [1, 2, 5, 10].find((k) => k * power >= rough) * power;
  const found = [];
  for (let k = Math.ceil(low / unit - 1e-9); k <= high / unit + 1e-9 && found.length < 50; k++) found.push(k * unit);
  return found;
}

function decades(low, high) { // of an axis of base-10 logarithms
  const few = high - low < 3;
  const found = [];
  const stride = Math.max(1, Math.ceil((high - low) / 7));
  for (let k = Math.floor(low); k <= high; k += stride) {
    for (const m of few ? [1, 2, 5] : [1]) {
      const at = k + Math.log10(m);
      if (at >= low && at <= high) found.push(at);
    }
  }
  return found.length > 1 ? found : ticks(low, high, 4);
}

function shortened(text, most) { return text.length > most ? `${text.slice(0, most - 1)}…` : text; }

function placeTip(tip, canvas, x, y) {
  tip.hidden = false;
  const room = canvas.clientWidth;
  const left = x + 14 + tip.offsetWidth > room ? x - 14 - tip.offsetWidth : x + 14;
  tip.style.left = `${Math.max(0, left)}px`;
  tip.style.top = `${Math.max(0, Math.min(y + 10, canvas.clientHeight - tip.offsetHeight))}px`;
}
