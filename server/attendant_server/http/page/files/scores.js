// A score between 0 and 1 as a bar beside its number.

import { el, number } from "./dom.js";

/** The number, and a bar of its share of the width. */
export function bar(value, digits = 3) {
  const length = el("span", { class: "bar", "aria-hidden": "true" });
  length.style.setProperty("--share", String(Math.min(1, Math.max(0, value)).toFixed(4)));
  return el("span", { class: "barred" }, el("span", { class: "value" }, number(value, digits)), length);
}
