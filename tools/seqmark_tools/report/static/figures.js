"use strict";
// Draws the figures from the JSON in the page. Colours of the page (text, grid, guides) are set
// here, for the theme; colours of the data come with the traces.

const report = JSON.parse(document.getElementById("report-data").textContent);
const root = document.documentElement;
const MARKS = {
  circle: "●", square: "■", diamond: "◆", "triangle-up": "▲", cross: "✚", star: "★", x: "✖",
  hexagon: "⬢", "circle-open": "○", "square-open": "□", "diamond-open": "◇", "triangle-up-open": "△",
  "cross-open": "✛", "star-open": "☆", "x-open": "✕", "hexagon-open": "⬡",
};
const DASH_ARRAYS = { solid: "", dash: "6 3", dot: "2 3", dashdot: "6 3 2 3" };

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

function pageColours() {
  const style = getComputedStyle(root);
  const get = (name) => style.getPropertyValue(name).trim();
  return { ink: get("--ink"), muted: get("--muted"), grid: get("--grid"), card: get("--card") };
}

// The layout of a panel as it is drawn here: the data's own, in the page's colours and sizes.
function themedLayout(layout) {
  const colours = pageColours();
  const axis = (own) => ({
    gridcolor: colours.grid, zerolinecolor: colours.grid, linecolor: colours.muted,
    tickcolor: colours.muted, automargin: true, ...own,
    title: { standoff: 8, font: { size: 12 }, ...(own && own.title) },
  });
  return {
    margin: { l: 56, r: 14, t: 10, b: 40 },
    font: { family: "system-ui, 'DejaVu Sans', sans-serif", size: 12, color: colours.ink },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    showlegend: false, hovermode: "closest", dragmode: "zoom",
    hoverlabel: { namelength: -1 },
    ...layout,
    xaxis: axis(layout.xaxis), yaxis: axis(layout.yaxis),
  };
}

function themedTraces(traces) {
  const { muted } = pageColours();
  return traces.map((trace) => trace.meta === "guide"
    ? { ...trace, line: { ...trace.line, color: muted }, textfont: { color: muted, size: 11 } }
    : { ...trace });
}

const SETTINGS = {
  displaylogo: false, responsive: true,
  modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
};

function panelTable(panel) {
  const lines = [["series", panel.x_name, panel.y_name]];
  for (const trace of panel.traces) {
    if (trace.meta === "guide") continue;
    trace.x.forEach((x, i) => lines.push([trace.name, x, trace.y[i]]));
  }
  return lines;
}

function toCsv(lines) {
  const quote = (value) => {
    const text = value === null || value === undefined ? "" : String(value);
    return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return lines.map((line) => line.map(quote).join(",")).join("\n") + "\n";
}

function download(name, text) {
  const link = element("a", { download: name, href: URL.createObjectURL(new Blob([text], { type: "text/csv" })) });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

class FigureView {
  constructor(node) {
    this.node = node;
    this.figure = report.figures[node.dataset.figure];
    this.panels = node.querySelector(".panels");
    this.legend = node.querySelector(".legend");
    this.text = node.querySelector(".view-text");
    this.select = node.querySelector("select");
    this.hidden = new Set();
    this.plots = [];
    if (this.select) this.select.addEventListener("change", () => this.pick());
    node.querySelector(".csv").addEventListener("click", () => this.save());
    this.details = node.querySelector("details.data");
    this.details.addEventListener("toggle", () => this.fillData());
  }

  get view() { return this.figure.views[this.select ? this.select.selectedIndex : 0]; }

  pick() {
    this.hidden.clear();
    return this.draw();
  }

  async draw() {
    this.plots.forEach((plot) => Plotly.purge(plot));
    this.panels.replaceChildren();
    this.panels.classList.toggle("single", this.view.panels.length === 1);
    this.plots = this.view.panels.map((panel) => {
      const plot = element("div", { class: "plot", role: "img",
        "aria-label": `${this.figure.title}: ${panel.title}. Its numbers are under Data.` });
      this.panels.append(element("div", { class: "panel" }, element("h4", {}, panel.title), plot,
        ...(panel.note ? [element("p", { class: "notes" }, panel.note)] : [])));
      return plot;
    });
    if (this.text) this.text.textContent = this.view.text;
    this.drawLegend();
    this.fillData();
    await Promise.all(this.plots.map((plot, i) => this.drawPlot(plot, this.view.panels[i])));
    this.node.dataset.drawn = "true";
  }

  drawPlot(plot, panel) {
    const traces = themedTraces(panel.traces);
    for (const trace of traces) {
      if (this.hidden.has(trace.legendgroup)) trace.visible = false;
    }
    return Plotly.react(plot, traces, themedLayout(panel.layout), SETTINGS);
  }

  redraw() {
    return Promise.all(this.plots.map((plot, i) => this.drawPlot(plot, this.view.panels[i])));
  }

  drawLegend() {
    const shown = new Map();
    for (const panel of this.view.panels) {
      for (const trace of panel.traces) {
        if (trace.legendgroup && !shown.has(trace.legendgroup)) shown.set(trace.legendgroup, trace);
      }
    }
    const rank = ([, trace]) => trace.legendrank ?? 1000;
    const chips = [...shown].sort((a, b) => rank(a) - rank(b)).map(([name, trace]) => {
      const chip = element("button", { type: "button", "aria-pressed": "true" }, swatch(trace), name);
      chip.addEventListener("click", () => this.toggle(name, chip));
      return chip;
    });
    const sets = [];
    if (chips.length > 4) {
      for (const [label, visible] of [["all", true], ["none", false]]) {
        const button = element("button", { type: "button", class: "set" }, label);
        button.addEventListener("click", () => {
          this.hidden = new Set(visible ? [] : shown.keys());
          chips.forEach((chip) => chip.setAttribute("aria-pressed", String(visible)));
          this.redraw();
        });
        sets.push(button);
      }
    }
    this.legend.replaceChildren(...chips, ...sets);
  }

  toggle(name, chip) {
    const hide = !this.hidden.has(name);
    if (hide) this.hidden.add(name); else this.hidden.delete(name);
    chip.setAttribute("aria-pressed", String(!hide));
    this.redraw();
  }

  fillData() {
    if (!this.details.open) return;
    const holder = this.details.querySelector(".scroll");
    holder.replaceChildren(...this.view.panels.map((panel) => {
      const [header, ...lines] = panelTable(panel);
      const table = element("table", {}, element("caption", {}, panel.title),
        element("thead", {}, element("tr", {}, ...header.map((text) => element("th", { scope: "col" }, text)))));
      table.append(element("tbody", {}, ...lines.map((line) => element("tr", {}, ...line.map((value) =>
        element("td", typeof value === "number" ? { class: "n" } : {},
          typeof value === "number" ? String(Number(value.toPrecision(6))) : String(value)))))));
      return table;
    }));
  }

  save() {
    const lines = [];
    for (const panel of this.view.panels) {
      panelTable(panel).forEach((line, i) => lines.push([i ? panel.title : "panel", ...line]));
    }
    download(`${this.figure.key}.csv`, toCsv(lines));
  }
}

function swatch(trace) {
  const colour = (trace.line && trace.line.color) || (trace.marker && trace.marker.color) || "currentColor";
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  for (const [key, value] of Object.entries({ width: 26, height: 12, "aria-hidden": "true" })) svg.setAttribute(key, value);
  const add = (tag, attributes, text) => {
    const node = document.createElementNS(svg.namespaceURI, tag);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (text) node.textContent = text;
    svg.append(node);
  };
  if (trace.type === "bar") {
    add("rect", { x: 6, width: 14, height: 12, rx: 2, fill: colour });
  } else {
    if (trace.mode.includes("lines")) {
      add("line", { x1: 0, x2: 26, y1: 6, y2: 6, stroke: colour, "stroke-width": 2,
        "stroke-dasharray": DASH_ARRAYS[trace.line.dash || "solid"] || "" });
    }
    if (trace.mode.includes("markers")) {
      add("text", { x: 13, y: 10, "font-size": 11, "text-anchor": "middle", fill: colour },
        MARKS[trace.marker.symbol] || "●");
    }
  }
  return svg;
}

const figureViews = [...document.querySelectorAll("figure[data-figure]")].map((node) => new FigureView(node));

const THEMES = ["auto", "light", "dark"];
const THEME_WORDS = { auto: ["◐ auto", "as the system"], light: ["○ light", "light"], dark: ["● dark", "dark"] };

function readTheme() {
  try { return localStorage.getItem("seqmark-theme") || "auto"; } catch { return "auto"; }
}

function applyTheme(theme) {
  if (theme === "auto") delete root.dataset.theme; else root.dataset.theme = theme;
  const button = document.getElementById("theme");
  button.textContent = THEME_WORDS[theme][0];
  button.setAttribute("aria-label", `Colours: ${THEME_WORDS[theme][1]}`);
  try { localStorage.setItem("seqmark-theme", theme); } catch { /* a page without storage */ }
}

function redrawAll() { return Promise.all(figureViews.map((view) => view.redraw())); }

let theme = THEMES.includes(readTheme()) ? readTheme() : "auto";
applyTheme(theme);
document.getElementById("theme").addEventListener("click", () => {
  theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
  applyTheme(theme);
  redrawAll();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redrawAll);
document.getElementById("print").addEventListener("click", () => window.print());
// Paper is white: figures take the light colours, and the widths of the printed page.
matchMedia("print").addEventListener("change", async () => {
  await redrawAll();
  figureViews.forEach((view) => view.plots.forEach((plot) => Plotly.Plots.resize(plot)));
});
