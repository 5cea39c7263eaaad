// Begins the page: views by the fragment of the address, the credential, the list of models.

import { credential, setCredential } from "./api.js";
import { refresh } from "./catalog.js";
import { byId } from "./dom.js";
import { clearErrors, setStatus, showError } from "./forms.js";
import * as attention from "./attention.js";
import * as embeddings from "./embeddings.js";
import * as figures from "./figures.js";
import * as generate from "./generate.js";
import * as labels from "./labels.js";
import * as masks from "./masks.js";
import * as models from "./models.js";
import * as translate from "./translate.js";

const VIEWS = { translate, attention, embeddings, masks, labels, generate, models, figures };
const begun = new Set();
let shown = null;

function show(isFirst) {
  const asked = location.hash.slice(1);
  if (asked && !Object.hasOwn(VIEWS, asked)) return; // the fragment of another link, such as #main
  const name = asked || "translate";
  if (shown) VIEWS[shown].hide?.();
  shown = name;
  for (const view of Object.keys(VIEWS)) byId(`view-${view}`).hidden = view !== name;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (!begun.has(name)) VIEWS[name].begin();
  begun.add(name);
  VIEWS[name].show?.();
  document.title = `${byId(`title-${name}`).textContent} – attendant`;
  if (isFirst) return;
  scrollTo(0, 0);
  byId("main").focus({ preventScroll: true });
}

/** Asks for the models; returns the error, or null. */
async function load() {
  const notice = byId("server");
  try {
    await refresh();
    notice.hidden = true;
    return null;
  } catch (error) {
    notice.textContent = error.words ?? String(error);
    notice.hidden = false;
    if (error.code === "unauthenticated") byId("access").open = true;
    return error;
  }
}

function beginAccess() {
  const form = byId("access-form");
  const key = byId("key");
  key.value = credential();
  const use = async (value) => {
    clearErrors(form);
    setCredential(value);
    const error = await load();
    if (error) {
      showError(form, error);
    } else {
      setStatus(form, value ? "In use." : "Forgotten.");
      if (value) byId("access").open = false;
    }
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    use(key.value.trim());
  });
  byId("forget").addEventListener("click", () => {
    key.value = "";
    use("");
  });
  byId("access").addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    byId("access").open = false;
    byId("access").querySelector("summary").focus();
  });
}

beginAccess();
addEventListener("hashchange", () => show(false));
show(true);
load();
