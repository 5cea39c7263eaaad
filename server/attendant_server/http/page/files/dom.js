// Elements without markup in strings: text is never read as HTML.

const SVG = "http://www.w3.org/2000/svg";

function filled(node, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== undefined && child !== null));
  return node;
}

/** An element of HTML; properties that begin with "on" are listeners. */
export function el(tag, props = {}, ...children) {
  return filled(document.createElement(tag), props, children);
}

/** An element of SVG. */
export function svg(tag, props = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), props, children);
}

export const byId = (id) => document.getElementById(id);

/** A table with a caption; the first cell of each row is its header. */
export function table(caption, head, rows, props = {}) {
  return el(
    "table",
    props,
    el("caption", {}, caption),
    el("thead", {}, el("tr", {}, head.map((text) => el("th", { scope: "col" }, text)))),
    el(
      "tbody",
      {},
      rows.map(([first, ...cells]) =>
        el("tr", {}, el("th", { scope: "row", dir: "auto" }, first), cells.map((cell) => el("td", {}, cell))),
      ),
    ),
  );
}

/** A part that scrolls sideways by itself, also by keys. */
export function scrolling(label, ...children) {
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label }, ...children);
}

/** Replaces the options of a select, and keeps its value if it is still there. */
export function setOptions(select, options) {
  const before = select.value;
  select.replaceChildren(...options.map(([value, text]) => el("option", { value }, text)));
  if (options.some(([value]) => value === before)) select.value = before;
}

/** Adds to a text that grows, and stays at its end unless the reader has scrolled away. */
export function grow(box, node, text) {
  const isAtEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 24;
  node.append(text);
  if (isAtEnd) box.scrollTop = box.scrollHeight;
}

export const number = (value, digits = 2) =>
  value.toLocaleString("en", { maximumFractionDigits: digits, minimumFractionDigits: digits });
