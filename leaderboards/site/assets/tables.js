// Sorting and filtering of the tables on a page. Without this script every table stands whole, in the board's order.
"use strict";

const BEST_FIRST = { most: "descending", least: "ascending", text: "ascending" };
const OTHER_WAY = { ascending: "descending", descending: "ascending" };
const words = new Intl.Collator("en", { numeric: true });

function compareOrders(first, second, numeric) {
  return numeric ? Number(first) - Number(second) : words.compare(first, second);
}

// Cells without a value stay last, whichever way the column is sorted; equal ones keep the board's order.
function sortRows(table, column, direction) {
  const body = table.tBodies[0];
  const numeric = table.tHead.rows[0].cells[column].dataset.first !== "text";
  const sign = direction === "descending" ? -1 : 1;
  const rows = [...body.rows].sort((a, b) => Number(a.dataset.place) - Number(b.dataset.place));
  if (direction) {
    rows.sort((a, b) => {
      const [first, second] = [a.cells[column].dataset.order, b.cells[column].dataset.order];
      if (first === undefined || second === undefined) {
        return (first === undefined) - (second === undefined);
      }
      return sign * compareOrders(first, second, numeric);
    });
  }
  body.append(...rows);
  table.dataset.sorted = direction ? "column" : "board";
}

// Best first, then the other way, then the board's own order.
function nextDirection(header) {
  const best = BEST_FIRST[header.dataset.first];
  const now = header.getAttribute("aria-sort");
  if (now === best) {
    return OTHER_WAY[best];
  }
  return now === "none" ? best : null;
}

function makeSortable(table) {
  [...table.tBodies[0].rows].forEach((row, place) => (row.dataset.place = place));
  const headers = [...table.tHead.rows[0].cells];
  headers.forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    header.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const direction = nextDirection(header);
      headers.forEach((other) => other.setAttribute("aria-sort", "none"));
      header.setAttribute("aria-sort", direction ?? "none");
      sortRows(table, column, direction);
    });
  });
}

function offerExtraInformation(select, rows) {
  const found = new Set(rows.flatMap((row) => JSON.parse(row.dataset.extra)));
  [...found].sort(words.compare).forEach((text) => select.add(new Option(text, `has ${text}`)));
}

function passes(row, wanted) {
  const extra = JSON.parse(row.dataset.extra);
  const text = row.dataset.search.toLowerCase();
  return (
    wanted.words.every((word) => text.includes(word)) &&
    (!wanted.kind || row.dataset.kind === wanted.kind) &&
    Number(row.dataset.verified) >= wanted.verified &&
    (!wanted.extra || (wanted.extra === "none" ? extra.length === 0 : extra.includes(wanted.extra.slice(4))))
  );
}

function makeFilterable(form) {
  const field = (name) => form.querySelector(`#filter-${name}`);
  const tables = [...document.querySelectorAll("table.board")];
  const rows = tables.flatMap((table) => [...table.tBodies[0].rows]);
  const status = form.querySelector("[role=status]");
  const apply = () => {
    const wanted = {
      words: field("text").value.toLowerCase().split(/\s+/).filter(Boolean),
      kind: field("kind").value,
      verified: Number(field("verified").value),
      extra: field("extra").value,
    };
    rows.forEach((row) => (row.hidden = !passes(row, wanted)));
    tables.forEach((table) => {
      table.hidden = [...table.tBodies[0].rows].every((row) => row.hidden);
      table.nextElementSibling.hidden = !table.hidden;
    });
    const shown = rows.filter((row) => !row.hidden).length;
    status.textContent = shown === rows.length ? `${rows.length} rows` : `${shown} of ${rows.length} rows`;
  };
  offerExtraInformation(field("extra"), rows);
  form.addEventListener("input", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(apply));
  form.hidden = false;
  apply();
}

document.querySelectorAll("table.board").forEach(makeSortable);
document.querySelectorAll("form.filters").forEach(makeFilterable);
