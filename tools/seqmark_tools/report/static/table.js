// The table of every row: filters, sorts, copies the command that measures a row again.

const FIRST_ROWS = 200;

class RowTable {
  constructor(node) {
    this.node = node;
    this.columns = report.table.columns;
    this.rows = report.table.rows.map((row) => ({
      ...row,
      search: [...row.values.filter((value) => typeof value === "string"), row.reason]
        .join(" ").toLowerCase(),
    }));
    this.body = node.querySelector("tbody");
    this.count = node.querySelector(".count");
    this.more = node.querySelector(".more");
    this.text = node.querySelector("input");
    this.selects = [...node.querySelectorAll("select")];
    this.sorted = { column: -1, ascending: true };
    this.shown = this.rows;
    this.limit = FIRST_ROWS;
    this.text.addEventListener("input", () => this.filter());
    this.selects.forEach((select) => select.addEventListener("change", () => this.filter()));
    node.querySelectorAll("th[data-column]").forEach((head) => head.querySelector("button")
      .addEventListener("click", () => this.sort(Number(head.dataset.column))));
    this.more.addEventListener("click", () => { this.limit = Infinity; this.draw(); });
    node.querySelector(".csv").addEventListener("click", () => this.save());
    this.body.addEventListener("click", (event) => this.copy(event));
    this.draw();
  }

  filter() {
    const terms = this.text.value.toLowerCase().split(/\s+/).filter(Boolean);
    const wanted = this.selects.map((select) => [Number(select.dataset.column), select.value]);
    this.shown = this.rows.filter((row) =>
      wanted.every(([column, value]) => !value || String(row.values[column]) === value) &&
      terms.every((term) => term.startsWith("-") && term.length > 1
        ? !row.search.includes(term.slice(1)) : row.search.includes(term)));
    this.limit = FIRST_ROWS;
    this.order();
  }

  sort(column) {
    const again = this.sorted.column === column;
    this.sorted = { column, ascending: again ? !this.sorted.ascending : true };
    this.node.querySelectorAll("th[data-column]").forEach((head) => {
      const own = Number(head.dataset.column) === column;
      head.setAttribute("aria-sort", !own ? "none" : this.sorted.ascending ? "ascending" : "descending");
    });
    this.order();
  }

  // Rows without a value stay last in both directions.
  order() {
    const { column, ascending } = this.sorted;
    if (column >= 0) {
      const sign = ascending ? 1 : -1;
      this.shown = [...this.shown].sort((a, b) => {
        const [x, y] = [a.values[column], b.values[column]];
        if (x === null || y === null) return (x === null) - (y === null);
        return sign * (typeof x === "number" ? x - y : String(x).localeCompare(String(y)));
      });
    }
    this.draw();
  }

  draw() {
    const rows = this.shown.slice(0, this.limit);
    this.body.replaceChildren(...rows.map((row) => this.line(row)));
    this.count.textContent = `${this.shown.length} of ${this.rows.length} rows`;
    this.more.hidden = rows.length === this.shown.length;
    this.more.textContent = `Show all ${this.shown.length}`;
  }

  line(row) {
    const line = element("tr");
    this.columns.forEach((column, i) => {
      const text = row.texts[i] ?? (row.values[i] === null ? "" : String(row.values[i]));
      const cell = element("td", {}, text);
      if (column.number) cell.classList.add("n");
      if (column.key === "name") cell.classList.add("name");
      if (column.key === "sol" && row.values[i] !== null) {
        cell.classList.add("share");
        cell.style.setProperty("--to", `${Math.min(100 * row.values[i], 100)}%`);
      }
      if (column.key === "status" && row.values[i] !== "measured") {
        cell.classList.add(row.values[i] === "error" ? "bad" : "warn");
        cell.append(element("br"), element("small", {}, row.reason));
      }
      line.append(cell);
    });
    const again = element("td", { class: "again" });
    if (row.command) {
      again.append(element("button", { type: "button", title: row.command,
        "aria-label": `Copy the command that measures ${row.values[0]} again`,
        "data-command": row.command }, "copy"));
    }
    line.append(again);
    return line;
  }

  async copy(event) {
    const button = event.target.closest("button[data-command]");
    if (!button) return;
    const { command } = button.dataset;
    try {
      await navigator.clipboard.writeText(command);
    } catch { // not allowed here: the old way
      const area = element("textarea", { "aria-hidden": "true" });
      area.value = command;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
      button.focus();
    }
    this.node.querySelector(".copied").textContent = command;
    button.textContent = "copied";
    setTimeout(() => { button.textContent = "copy"; }, 1500);
  }

  save() {
    const header = [...this.columns.map((column) => column.key), "reason", "command"];
    download("rows.csv", toCsv([header,
      ...this.shown.map((row) => [...row.values, row.reason, row.command])]));
  }
}

const rowTableNode = document.querySelector(".rows");
const rowTable = rowTableNode && new RowTable(rowTableNode);

// The page is ready when what is in view is drawn; the rest follows, so that printing has it too.
(async () => {
  const inView = (view) => view.node.getBoundingClientRect().top < innerHeight;
  for (const view of figureViews.filter(inView)) await view.draw();
  root.dataset.ready = "true";
  for (const view of figureViews.filter((one) => !one.node.dataset.drawn)) {
    await new Promise((resolve) => { setTimeout(resolve); });
    await view.draw();
  }
  root.dataset.drawn = "true";
})();
