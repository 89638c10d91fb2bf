// The table of a sweep's page. Its state (sorting, filters) lives in the address after #, to be shared.
const URGENCY = ["failed", "killed", "stopped", "unknown", "running", "queued", "cancelled"];
const wordOf = (cell) => URGENCY.find((word) => cell.runs.some((run) => run.state === word)) ?? "finished";


// --- the table -----------------------------------------------------------------------------
const ends = D.axes.map((axis) => axis.split(".").at(-1));
const short = new Map(D.axes.map((axis, i) => [axis, ends.filter((end) => end === ends[i]).length > 1 ? axis : ends[i]]));
const columns = [
  // A phone shows the cell's name in place of a column for each axis.
  { title: "cell", kind: D.axes.length ? "narrow" : "", text: (c) => c.name, key: (c) => c.name },
  ...D.axes.map((axis) => ({
    title: short.get(axis), hint: axis, kind: "wide", text: (c) => c.labels[axis] ?? "–",
    key: (c) => c.labels[axis] === undefined ? null : numeric(c.labels[axis]) ?? c.labels[axis],
  })),
  { title: "state", kind: "wide", text: (c) => c.state, key: (c) => c.state },
  { title: "n", number: true, kind: "wide", text: (c) => String(c.n), key: (c) => c.n },
  { title: "last %", number: true, text: (c) => spread(c.last), key: (c) => c.last?.[0] ?? null },
  { title: "chosen %", number: true, kind: "wide", text: (c) => spread(c.chosen), key: (c) => c.chosen?.[0] ?? null,
    hint: "at the epoch that is best on images set aside for choosing it" },
  { title: "best %", number: true, kind: "wide", text: (c) => spread(c.best), key: (c) => c.best?.[0] ?? null },
  { title: "Δ baseline", number: true, key: (c) => c.difference,
    text: (c) => c.baseline === c.name ? "baseline" : c.difference === null ? "–" : signed(c.difference) },
  { title: "95 % interval", number: true, key: (c) => c.interval?.[0] ?? null,
    text: (c) => c.interval ? `[${signed(c.interval[0])}, ${signed(c.interval[1])}]` : "–" },
  { title: "p", number: true, text: (c) => c.p === null ? "–" : c.p < 0.001 ? "<0.001" : fixed(c.p, 3), key: (c) => c.p },
  { title: "T at the end", number: true, text: (c) => spread(c.T), key: (c) => c.T?.[0] ?? null },
  { title: "published", number: true, key: (c) => c.published?.[0] ?? null,
    text: (c) => c.published ? fixed(c.published[0]) : "–",
    hint: (c) => c.published ? `${c.published[1]}, ${c.published[2] ? c.published[2] + " epoch" : "epoch not stated"}` : "" },
].filter((column) => column.title !== "chosen %" || D.cells.some((c) => c.chosen))
  .filter((column) => column.title !== "published" || D.cells.some((c) => c.published))
  .filter((column) => !(["Δ baseline", "95 % interval", "p"].includes(column.title) && !D.cells.some((c) => c.baseline)));

const state = { sort: null, down: false, search: "", picks: {}, open: new Set() };

function readHash() {
  const told = new URLSearchParams(location.hash.slice(1));
  const sort = told.get("sort") ?? "";
  state.sort = columns.findIndex((column) => column.title === sort.replace(/^-/, ""));
  state.down = sort.startsWith("-");
  state.search = told.get("search") ?? "";
  state.picks = {};
  for (const [name, value] of told) if (!["sort", "search"].includes(name)) state.picks[name] = value;
}
function writeHash() {
  const told = new URLSearchParams();
  if (state.sort >= 0) told.set("sort", (state.down ? "-" : "") + columns[state.sort].title);
  if (state.search) told.set("search", state.search);
  for (const [name, value] of Object.entries(state.picks)) if (value) told.set(name, value);
  history.replaceState(null, "", told.size ? "#" + told : location.pathname + location.search);
  draw();
}
function passes(cell) {
  const words = [...Object.values(cell.labels), cell.name, cell.state].join(" ").toLowerCase();
  if (!state.search.toLowerCase().split(/\s+/).every((word) => words.includes(word))) return false;
  return Object.entries(state.picks).every(([name, value]) => !value ||
    (name === "state" ? cell.runs.some((run) => run.state === value) : cell.labels[name] === value));
}
function sorted(cells) {
  if (state.sort < 0) return cells;
  const key = columns[state.sort].key, sign = state.down ? -1 : 1;
  return [...cells].sort((a, b) => {
    const x = key(a), y = key(b);
    if (x === null || y === null) return (x === null) - (y === null); // what has no value comes last
    if (typeof x === typeof y) return sign * (x < y ? -1 : x > y ? 1 : 0);
    return sign * String(x).localeCompare(String(y));
  });
}
function drawHead() {
  const row = make("tr");
  columns.forEach((column, index) => {
    const button = make("button", { type: "button" }, column.title);
    button.onclick = () => {
      state.down = state.sort === index ? !state.down : Boolean(column.number && column.title !== "p");
      state.sort = index;
      writeHash();
    };
    const sort = state.sort !== index ? "none" : state.down ? "descending" : "ascending";
    const kind = `${column.number ? "number" : ""} ${column.kind ?? ""}`;
    row.append(make("th", { class: kind, scope: "col", title: typeof column.hint === "string" ? column.hint : "", "aria-sort": sort }, button));
  });
  $("table").tHead.replaceChildren(row);
}
function detail(cell) {
  const box = make("td", { colspan: columns.length });
  for (const run of cell.runs) {
    const links = make("p");
    for (const [kind, path] of Object.entries(run.links)) {
      links.append(make("a", { href: encodeURI(path).replace(/#/g, "%23") }, kind));
    }
    const reached = run.last === undefined || run.last === null ? "" : `, ${fixed(run.last)} %`;
    const title = make("p", {}, make("b", {}, `seed ${run.seed}`), " ",
      make("span", { class: run.state }, run.state), ` – epoch ${run.epoch} of ${run.epochs}${reached}`);
    const parts = [title, links];
    if (run.error) parts.push(make("p", { class: "error" }, run.error));
    if (run.command) parts.push(make("code", {}, run.command));
    box.append(make("div", { class: "run" }, ...parts));
  }
  return make("tr", { class: "detail" }, box);
}
function drawRows(cells) {
  const rows = [];
  for (const cell of cells) {
    const row = make("tr", { class: "cell" + (state.open.has(cell.name) ? " open" : ""), tabindex: 0 });
    columns.forEach((column) => {
      const text = column.text(cell);
      let kind = `${column.number ? "number" : ""} ${column.kind ?? ""}`;
      if (column.kind === "narrow" && cell.state !== "finished") kind += " " + wordOf(cell);
      if (column.title === "state") kind += " " + wordOf(cell);
      if (column.title === "Δ baseline" && cell.interval && cell.interval[0] * cell.interval[1] > 0) kind += " sure";
      row.append(make("td", { class: kind, title: typeof column.hint === "function" ? column.hint(cell) : text }, text));
    });
    const toggle = () => {
      state.open[state.open.has(cell.name) ? "delete" : "add"](cell.name);
      draw();
    };
    row.onclick = toggle;
    row.onkeydown = (event) => { if (event.key === "Enter") toggle(); };
    rows.push(row);
    if (state.open.has(cell.name)) rows.push(detail(cell));
  }
  $("table").tBodies[0].replaceChildren(...rows);
}

// --- the whole -----------------------------------------------------------------------------
const near = new IntersectionObserver((entries) => { // a thousand landscapes are not drawn at once
  for (const entry of entries) if (entry.isIntersecting) { entry.target.fill(); near.unobserve(entry.target); }
}, { rootMargin: "800px" });
const cards = new Map(D.cells.filter((c) => c.runs.some((run) => run.temperature?.length)).map((c) => [c, card(c)]));

function draw() {
  const kept = D.cells.filter(passes), cells = sorted(kept);
  drawHead();
  drawRows(cells);
  $("shown").textContent = cells.length === D.cells.length ? "" : `${cells.length} of ${D.cells.length} cells`;
  const charts = D.axes.map((axis) => parameterChart(axis, kept)).filter(Boolean);
  $("charts").replaceChildren(...charts);
  $("parameters").classList.toggle("hidden", !charts.length);
  $("cards").replaceChildren(...cells.filter((c) => cards.has(c)).map((c) => cards.get(c)));
  $("temperatures").classList.toggle("hidden", !$("cards").children.length);
  for (const figure of $("cards").children) near.observe(figure);
  if ($("search").value !== state.search) $("search").value = state.search;
  for (const select of $("selects").children) select.value = state.picks[select.dataset.name] ?? "";
}
function start() {
  const runs = D.cells.flatMap((c) => c.runs), counted = new Map();
  for (const run of runs) counted.set(run.state, (counted.get(run.state) ?? 0) + 1);
  $("title").textContent = D.name;
  $("made").textContent = `${D.cells.length} cells, ${runs.length} runs; made ${D.made}`;
  for (const [word, number] of counted) $("counts").append(make("span", { class: "chip " + word }, `${number} ${word}`));
  for (const note of D.notes) $("notes").append(make("li", {}, note));
  const picks = D.axes.map((axis) => [axis, [...new Set(D.cells.map((c) => c.labels[axis]).filter((l) => l !== undefined))]]);
  for (const [name, values] of [...picks, ["state", [...counted.keys()]]]) {
    if (values.length < 2) continue;
    const select = make("select", { "aria-label": name, "data-name": name }, make("option", { value: "" }, `${short.get(name) ?? name}: all`));
    for (const value of values) select.append(make("option", { value }, `${short.get(name) ?? name}: ${value}`));
    select.onchange = () => { state.picks[name] = select.value; writeHash(); };
    $("selects").append(select);
  }
  $("search").oninput = (event) => { state.search = event.target.value; writeHash(); };
  $("clear").onclick = () => { state.search = ""; state.picks = {}; writeHash(); };
  addEventListener("hashchange", () => { readHash(); draw(); });
  readHash();
  draw();
}
start();
