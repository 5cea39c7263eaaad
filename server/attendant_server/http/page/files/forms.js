// Forms that call the server: one call at a time, cancelled by a button, faults beside their fields.

import { el } from "./dom.js";

/** Calls `work(signal, say)` when the form is sent; `say` writes the line of status. */
export function onSubmit(form, work) {
  const cancel = form.querySelector(".cancel");
  let running = null;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    running?.abort();
    const own = (running = new AbortController());
    begin(form, cancel);
    const say = (text) => own === running && setStatus(form, text);
    try {
      say((await work(own.signal, say)) ?? "");
    } catch (error) {
      if (error.name === "AbortError") say("Cancelled.");
      else if (own === running) showError(form, error);
    } finally {
      if (own === running) end(form, cancel);
    }
  });
  cancel?.addEventListener("click", () => {
    running?.abort();
    form.querySelector(".primary").focus();
  });
  for (const area of form.querySelectorAll("textarea")) {
    area.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
    });
  }
}

function begin(form, cancel) {
  clearErrors(form);
  setStatus(form, "Working …");
  form.setAttribute("aria-busy", "true");
  if (cancel) cancel.disabled = false;
}

function end(form, cancel) {
  form.removeAttribute("aria-busy");
  if (cancel) cancel.disabled = true;
}

export function setStatus(form, text, isBad = false) {
  const status = form.querySelector(".status");
  status.classList.toggle("bad", isBad);
  status.textContent = text;
}

/** Shows an error beside each field that it names, or in the line of status. */
export function showError(form, error) {
  if (error.name !== "ApiError" && !error.faults) console.error(error);
  const shown = (error.faults ?? []).map((fault) => showFault(form, fault)).filter(Boolean);
  const isOwn = shown.length && shown.every((control) => form.contains(control));
  setStatus(form, isOwn ? "Nothing was done: a field is not right." : (error.words ?? error.message), true);
  shown[0]?.focus();
}

/** Shows what is wrong with a field of the request; returns its control, or undefined. */
export function showFault(form, { field, description }) {
  const owner = field === "key" ? document.getElementById("access-form") : form;
  const place = [...owner.querySelectorAll("[data-fields]")].find((each) =>
    namesOf(field).some((name) => each.dataset.fields.split(" ").includes(name)),
  );
  const control = place?.querySelector("input, select, textarea");
  if (!control) return undefined;
  const enclosing = place.closest("details");
  if (enclosing) enclosing.open = true;
  addError(place, control, `${place.hasAttribute("data-lines") ? textOf(field) : ""}${description}`);
  return control;
}

function addError(place, control, text) {
  const id = `${control.id}-error`;
  let message = place.querySelector(".error");
  if (!message) {
    message = el("p", { class: "error", id });
    place.append(message);
    const described = control.getAttribute("aria-describedby");
    control.setAttribute("aria-describedby", described ? `${described} ${id}` : id);
  }
  message.append(el("span", {}, text));
  control.setAttribute("aria-invalid", "true");
}

export function clearErrors(form) {
  for (const place of form.querySelectorAll("[data-fields]")) {
    const message = place.querySelector(".error");
    if (!message) continue;
    const control = place.querySelector("[aria-invalid]");
    const described = control.getAttribute("aria-describedby").split(" ").filter((id) => id !== message.id);
    if (described.length) control.setAttribute("aria-describedby", described.join(" "));
    else control.removeAttribute("aria-describedby");
    control.removeAttribute("aria-invalid");
    message.remove();
  }
}

/** The names by which a field may be known here, the longest first: "options.beam_size", "beam_size". */
function namesOf(field) {
  const parts = field.replaceAll(/\[\d+\]/g, "").split(".");
  return parts.map((_, index) => parts.slice(index).join("."));
}

/** "Text 2: " for the second of the texts in an area with one on each line. */
function textOf(field) {
  const index = /\[(\d+)\]/.exec(field);
  return index ? `Text ${Number(index[1]) + 1}: ` : "";
}

/** The number in a field; undefined if it is empty. Throws what the field is told. */
export function numberIn(input, field) {
  if (input.value.trim() === "" && !input.validity.badInput) return undefined;
  if (input.validity.badInput || !Number.isFinite(Number(input.value))) throw invalid(field, "must be a number");
  return Number(input.value);
}

/** A whole number in a field that the contract does not let be negative. */
export function countIn(input, field) {
  const found = numberIn(input, field);
  if (found !== undefined && (!Number.isInteger(found) || found < 0)) throw invalid(field, "must be a whole number");
  return found;
}

/** An error that this page finds before the server does. */
export function invalid(field, description) {
  const words = `${field}: ${description}`;
  return Object.assign(new Error(words), { faults: [{ field, description }], words });
}

/** The lines of an area that are not empty. */
export const linesIn = (area) => area.value.split("\n").filter((line) => line.trim());
