// Puts the page together.
const FIRST = 3; // labels drawn at first
const FEW = 12; // labels

function showHardest() {
  const found = DATA.hardest;
  if (!found) return;
  byId("hardest").hidden = false;
  byId("hardest-note").textContent = found.note;
  const head = element("tr", {}, ...found.head.map((text) => element("th", { scope: "col", text })));
  const rows = found.rows.map((row) => element("tr", {}, ...row.map((text) => element("td", {}, element("bdi", { text })))));
  document.querySelector("#hardest table").replaceChildren(element("thead", {}, head), element("tbody", {}, ...rows));
}

function drawAll() {
  showChosen();
  showRows(true);
  drawCurves();
  drawHistogram();
  drawHeatmap();
}

function print(begins) {
  printing = begins;
  drawAll();
}

function start() {
  if (COUNT <= FEW && DATA.distribution) document.querySelector("main").className = "few"; // the table leaves room below
  startTable();
  startCurves();
  startHeatmap();
  const worse = DATA.rows.verdict ? table.order.filter((k) => VERDICTS[ROW("verdict")[k]] === "worse").length : 0;
  table.order.slice(0, Math.min(MOST, Math.max(FIRST, worse))).reverse().forEach((label) => {
    state.chosen.unshift(label);
  });
  state.chosen.forEach((label, slot) => state.slots.set(label, slot));
  showHardest();
  showChosen();
  refill(); // which draws the histogram and the heatmap
  drawCurves();
  let width = innerWidth;
  new ResizeObserver(() => { // the curves are as tall as what is beside them
    if (!printing) requestAnimationFrame(innerWidth === width ? drawCurves : drawAll);
    width = innerWidth;
  }).observe(byId("curve"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  addEventListener("beforeprint", () => print(true));
  addEventListener("afterprint", () => print(false));
  requestAnimationFrame(() => requestAnimationFrame(() => performance.mark("first frame")));
}

start();
