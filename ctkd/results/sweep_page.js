"use strict";
// Sorts, filters and opens the rows of a sweep's page. Sorting and filters are in the address after
// #, so that a link to the page keeps them.
const all = (selector) => [...document.querySelectorAll(selector)];
const search = document.getElementById("search"), table = document.getElementById("table");
const bodies = all("#table tbody"), heads = all("#table th"), selects = all(".filters select");
const cards = document.getElementById("cards");
let sort = "", down = false;

function readAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  sort = (given.get("sort") ?? "").replace(/^-/, "");
  down = (given.get("sort") ?? "").startsWith("-");
  search.value = given.get("search") ?? "";
  for (const select of selects) select.value = given.get(select.dataset.name) ?? "";
  draw();
}
function writeAddress() {
  const given = new URLSearchParams();
  if (sort) given.set("sort", (down ? "-" : "") + sort);
  if (search.value) given.set("search", search.value);
  for (const select of selects) if (select.value) given.set(select.dataset.name, select.value);
  history.replaceState(null, "", given.size ? "#" + given : location.pathname + location.search);
  draw();
}
function passes(body) {
  const values = JSON.parse(body.dataset.values);
  return search.value.toLowerCase().split(/\s+/).every((word) => body.dataset.words.includes(word)) &&
    selects.every((select) => !select.value || values[select.dataset.name]?.includes(select.value));
}
function order(one, other) {
  const column = heads.findIndex((head) => head.dataset.title === sort);
  if (column < 0) return one.dataset.cell - other.dataset.cell;
  const [x, y] = [one, other].map((body) => body.rows[0].cells[column].dataset.key);
  if (!x || !y) return !x - !y; // a row without a value comes last
  const difference = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
  return down ? -difference : difference;
}
function draw() {
  const kept = new Set(bodies.filter(passes).map((body) => body.dataset.cell));
  for (const body of [...bodies].sort(order)) {
    body.hidden = !kept.has(body.dataset.cell);
    table.append(body);
    const card = cards?.querySelector(`figure[data-cell="${body.dataset.cell}"]`);
    if (card) cards.append(card);
  }
  for (const card of cards?.children ?? []) card.hidden = !kept.has(card.dataset.cell);
  for (const point of all("#charts svg [data-cell], #learning svg [data-cell]")) point.classList.toggle("faint", !kept.has(point.dataset.cell));
  for (const head of heads) head.ariaSort = head.dataset.title !== sort ? "none" : down ? "descending" : "ascending";
  document.getElementById("shown").textContent = kept.size === bodies.length ? "" : `${kept.size} of ${bodies.length} cells`;
}
for (const head of heads) head.querySelector("button").onclick = () => {
  down = sort === head.dataset.title ? !down : head.classList.contains("number") && head.dataset.title !== "p";
  sort = head.dataset.title;
  writeAddress();
};
for (const body of bodies) {
  const [row, detail] = body.rows;
  row.onclick = () => { detail.hidden = !detail.hidden; body.classList.toggle("open", !detail.hidden); };
  row.onkeydown = (event) => { if (event.key === "Enter") row.click(); };
}
for (const point of all("#charts svg [data-cell], #learning svg [data-cell]")) {
  const title = document.createElementNS("http://www.w3.org/2000/svg", "title");
  title.textContent = bodies[point.dataset.cell].dataset.hint;
  point.append(title);
}
for (const link of all("a.save")) link.onclick = () => {
  const text = new XMLSerializer().serializeToString(link.parentElement.querySelector("svg"));
  link.href = "data:image/svg+xml;charset=utf-8," + encodeURIComponent(text);
};
for (const select of selects) select.onchange = writeAddress;
search.oninput = writeAddress;
document.getElementById("clear").onclick = () => {
  search.value = "";
  for (const select of selects) select.value = "";
  writeAddress();
};
addEventListener("hashchange", readAddress);
readAddress();
