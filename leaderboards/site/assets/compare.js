// Two rows of one table side by side. What it shows stands in the page itself, as JSON: a file may not fetch another.
"use strict";

const board = JSON.parse(document.getElementById("board-data").textContent);
const chosen = Object.fromEntries(["table", "first", "second"].map((name) => [name, document.getElementById(`choose-${name}`)]));
const result = document.getElementById("comparison");

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  Object.entries(attributes).forEach(([name, value]) => made.setAttribute(name, value));
  made.append(...children);
  return made;
}

function offer(select, items, preferred) {
  select.replaceChildren(...items.map((item) => new Option(item.title ?? item.name, item.identifier)));
  if (items.some((item) => item.identifier === preferred)) {
    select.value = preferred;
  }
}

function offerRows(table, first, second) {
  offer(chosen.first, table.rows, first);
  const other = table.rows.find((row) => row.identifier !== chosen.first.value);
  offer(chosen.second, table.rows, second ?? other.identifier);
}

function signed(value) {
  const text = Math.abs(value).toFixed(2);
  return Number(text) === 0 ? text : (value > 0 ? "+" : "\u2212") + text;
}

function figureText(figure) {
  if (!figure) {
    return [""];
  }
  const spread = figure.spread ? ` \u00b1 ${figure.spread}${figure.over === "trials" ? " over trials" : ""}` : "";
  return [figure.text, element("span", { class: "spread" }, spread)];
}

function differenceText(first, second, name) {
  const pair = first.pairs[second.identifier]?.[name];
  if (pair) {
    return [pair.points, " ", element("span", { class: "spread" }, pair.interval)];
  }
  const [a, b] = [first.figures[name], second.figures[name]];
  return [a && b ? signed(a.mean - b.mean) : ""];
}

function line(header, cells, kind) {
  return element("tr", {}, element("th", { scope: "row" }, header), ...cells.map((cell) => element("td", { class: kind }, ...cell)));
}

function comparisonTable(caption, headers, lines, kind) {
  const head = headers.map((header, place) => element("th", { scope: "col", class: place ? kind : "" }, header));
  const table = element(
    "table",
    { class: "sides" },
    element("caption", {}, element("span", {}, caption)),
    element("thead", {}, element("tr", {}, ...head)),
    element("tbody", {}, ...lines),
  );
  return element("div", { class: "scroll", role: "region", "aria-label": caption, tabindex: "0" }, table);
}

function verdict(first, second) {
  const pair = first.pairs[second.identifier]?.rank1;
  if (!pair || pair.apart === null) {
    return "These two rows were not compared query by query; their difference has no interval.";
  }
  const apart = pair.apart ? "leaves zero out: they can be told apart" : "holds zero: they cannot be told apart";
  return `The rank-1 of ${first.name} less that of ${second.name} is ${pair.points} points; its interval, ${pair.interval}, ${apart}.`;
}

function figuresTable(first, second) {
  const lines = board.figures
    .filter(([name]) => first.figures[name] || second.figures[name])
    .map(([name, header]) =>
      line(header, [figureText(first.figures[name]), figureText(second.figures[name]), differenceText(first, second, name)], "number"),
    );
  const caption = "Percent; the difference in points, with its 95 % interval where there is one";
  return comparisonTable(caption, ["figure", first.name, second.name, "first less second"], lines, "number");
}

function factsTable(first, second) {
  const lines = first.facts.map(([header, text], place) => line(header, [[text], [second.facts[place][1]]], "fact"));
  return comparisonTable("What else the table says of them", ["", first.name, second.name], lines, "fact");
}

function show() {
  const table = board.tables.find((found) => found.identifier === chosen.table.value);
  const [first, second] = [chosen.first, chosen.second].map((select) => table.rows.find((row) => row.identifier === select.value));
  const heading = element("h2", {}, `${first.name} and ${second.name}`);
  const same = first === second;
  const parts = same ? [element("p", {}, "Choose two different rows.")] : [element("p", {}, verdict(first, second)), figuresTable(first, second), factsTable(first, second)];
  result.replaceChildren(heading, ...parts);
  result.hidden = false;
}

function remember() {
  location.replace("#" + Object.values(chosen).map((select) => encodeURIComponent(select.value)).join("/"));
}

function start() {
  const [table, first, second] = location.hash.slice(1).split("/").map(decodeURIComponent);
  offer(chosen.table, board.tables, table);
  offerRows(board.tables.find((found) => found.identifier === chosen.table.value), first, second);
  show();
}

if (board.tables.length) {
  chosen.table.addEventListener("change", () => offerRows(board.tables.find((found) => found.identifier === chosen.table.value)));
  chosen.table.form.addEventListener("change", () => {
    show();
    remember();
  });
  window.addEventListener("hashchange", start);
  start();
  chosen.table.form.hidden = false;
}
