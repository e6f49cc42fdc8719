/* Line charts as SVG: thin raw line, smoothed line over it, values under the pointer. */

const SVG = "http://www.w3.org/2000/svg";
const CHART = { width: 560, height: 300, left: 58, right: 14, top: 12, bottom: 44 };

function svg(tag, attributes, parent, text) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  parent?.append(made);
  return made;
}

function roundTicks(low, high, count) {
  const rough = (high - low) / count || 1, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].find((factor) => factor * power >= rough) * power, ticks = [];
  for (let tick = Math.ceil(low / step - 1e-9) * step; tick <= high + step * 1e-6; tick += step) ticks.push(tick);
  return ticks;
}

function logTicks(low, high) {
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) {
    for (const factor of [1, 2, 5]) if (factor * 10 ** power >= low && factor * 10 ** power <= high) ticks.push(factor * 10 ** power);
  }
  return ticks;
}

function numberText(value) {
  const size = Math.abs(value);
  if (size >= 10000) return `${Number((value / 1000).toPrecision(3))}k`;
  return size && size < 0.001 ? value.toExponential(1) : String(Number(value.toPrecision(4)));
}

/* The mean of the neighbours on both sides, of as many on each, so that the line does not lag behind a steep fall. */
function smoothed(points) {
  const widest = Math.round(points.length / 40);
  return points.map(([x], i) => {
    const reach = Math.min(widest, i, points.length - 1 - i), near = points.slice(i - reach, i + reach + 1);
    return [x, near.reduce((sum, [, y]) => sum + y, 0) / near.length];
  });
}

function drawCurve(curve) {
  const figure = element("figure", "card curve"), caption = element("figcaption", "", curve.title), plot = element("div", "plot");
  const all = curve.series.flatMap((series) => series.points), xs = all.map(([x]) => x), ys = all.map(([, y]) => y);
  const [x0, x1] = [Math.min(...xs), Math.max(...xs)];
  let [y0, y1] = [Math.min(...ys), Math.max(...ys)];
  const logarithmic = y0 > 0 && y1 / y0 > 50;
  if (!logarithmic) {
    const room = (y1 - y0) * 0.06 || Math.abs(y1) * 0.1 || 1;
    [y0, y1] = [y0 >= 0 && y0 < (y1 - y0) * 0.3 ? 0 : y0 - room, y1 + room];
  }
  const scale = logarithmic ? Math.log10 : (value) => value;
  const px = (x) => CHART.left + ((x - x0) / (x1 - x0 || 1)) * (CHART.width - CHART.left - CHART.right);
  const py = (y) => CHART.height - CHART.bottom - ((scale(y) - scale(y0)) / (scale(y1) - scale(y0) || 1)) * (CHART.height - CHART.top - CHART.bottom);
  const image = svg("svg", { viewBox: `0 0 ${CHART.width} ${CHART.height}`, role: "img", "aria-label": `${curve.title}: ${curve.yLabel} over ${curve.xLabel}` }, plot);
  for (const tick of logarithmic ? logTicks(y0, y1) : roundTicks(y0, y1, 5)) {
    svg("line", { x1: CHART.left, x2: CHART.width - CHART.right, y1: py(tick), y2: py(tick), class: "grid" }, image);
    svg("text", { x: CHART.left - 8, y: py(tick) + 4, "text-anchor": "end" }, image, numberText(tick));
  }
  for (const tick of roundTicks(x0, x1, 6)) svg("text", { x: px(tick), y: CHART.height - CHART.bottom + 18, "text-anchor": "middle" }, image, numberText(tick));
  svg("line", { x1: CHART.left, x2: CHART.width - CHART.right, y1: CHART.height - CHART.bottom, y2: CHART.height - CHART.bottom, class: "axis" }, image);
  svg("text", { x: (CHART.left + CHART.width - CHART.right) / 2, y: CHART.height - 6, "text-anchor": "middle", class: "label" }, image, curve.xLabel);
  const middleY = (CHART.top + CHART.height - CHART.bottom) / 2;
  svg("text", { x: 14, y: middleY, "text-anchor": "middle", transform: `rotate(-90 14 ${middleY})`, class: "label" }, image, curve.yLabel + (logarithmic ? " (log)" : ""));
  const legend = element("ul", "legend");
  curve.series.forEach((series, i) => {
    const line = (points) => points.map(([x, y], k) => `${k ? "L" : "M"}${px(x).toFixed(1)} ${py(y).toFixed(1)}`).join("");
    const noisy = series.points.length > 60;
    if (noisy) svg("path", { d: line(series.points), class: `series s${i % 6} raw` }, image);
    svg("path", { d: line(noisy ? smoothed(series.points) : series.points), class: `series s${i % 6}` }, image);
    if (series.points.length < 25) for (const [x, y] of series.points) svg("circle", { cx: px(x), cy: py(y), r: 2.6, class: `point s${i % 6}` }, image);
    const entry = element("li", `s${i % 6}`, series.name);
    legend.append(entry);
  });
  followPointer(curve, plot, image, { x0, x1, px, py });
  figure.append(caption, legend, plot);
  return figure;
}

function followPointer(curve, plot, image, { x0, x1, px, py }) {
  const mark = svg("g", { class: "pointer", visibility: "hidden" }, image), tip = element("div", "tip");
  const rule = svg("line", { y1: CHART.top, y2: CHART.height - CHART.bottom }, mark);
  const dots = curve.series.map((_, i) => svg("circle", { r: 4, class: `point s${i % 6}` }, mark));
  tip.hidden = true;
  plot.append(tip);
  image.addEventListener("pointermove", (event) => {
    const box = image.getBoundingClientRect(), inner = CHART.width - CHART.left - CHART.right;
    const share = (((event.clientX - box.left) / box.width) * CHART.width - CHART.left) / inner;
    const wanted = x0 + Math.min(Math.max(share, 0), 1) * (x1 - x0);
    const nearest = curve.series.map(({ points }) => points.reduce((best, point) => Math.abs(point[0] - wanted) < Math.abs(best[0] - wanted) ? point : best));
    const at = nearest.reduce((best, point) => Math.abs(point[0] - wanted) < Math.abs(best[0] - wanted) ? point : best)[0];
    rule.setAttribute("x1", px(at));
    rule.setAttribute("x2", px(at));
    nearest.forEach(([x, y], i) => { dots[i].setAttribute("cx", px(x)); dots[i].setAttribute("cy", py(y)); });
    tip.replaceChildren(element("b", "", `${curve.xLabel} ${numberText(at)}`), ...nearest.map(([, y], i) => element("span", `s${i % 6}`, `${curve.series[i].name} ${numberText(y)}`)));
    mark.setAttribute("visibility", "visible");
    tip.hidden = false;
    const left = (px(at) / CHART.width) * box.width;
    tip.style.left = `${left > box.width * 0.6 ? left - tip.offsetWidth - 12 : left + 12}px`;
  });
  image.addEventListener("pointerleave", () => { mark.setAttribute("visibility", "hidden"); tip.hidden = true; });
}

if (reportData.curves.length) document.getElementById("curves").append(...reportData.curves.map(drawCurve));
