// The models that the caller may use, asked for once and again when the credential changes.

import { call } from "./api.js";
import { setOptions } from "./dom.js";

export const TRANSLATION = "MODEL_KIND_TRANSLATION";
export const EMBEDDING = "MODEL_KIND_EMBEDDING";
export const LANGUAGE_MODEL = "MODEL_KIND_LANGUAGE_MODEL";
export const READY = "MODEL_STATE_READY";

let models = [];
const described = new Map();
const listeners = [];

/** The name that requests give. */
export const nameOf = (model) => (model.isDefault ? model.name : `${model.name}/${model.version}`);

/** The models of a kind; all without one. */
export const modelsOf = (kind) => models.filter((model) => !kind || model.kind === kind);

/** Calls `listener` now and whenever the models have changed. */
export function onModels(listener) {
  listeners.push(listener);
  listener();
}

/** Asks the server for its models. Throws ApiError. */
export async function refresh() {
  described.clear();
  models = [];
  try {
    models = (await call("ModelService", "ListModels", {})).models ?? [];
  } finally {
    for (const listener of listeners) listener();
  }
}

/** Everything about a model, by its name; asked for once. Throws ApiError. */
export function describe(name) {
  if (!described.has(name)) {
    const asked = call("ModelService", "GetModel", { model: name });
    described.set(name, asked);
    asked.catch(() => described.delete(name));
  }
  return described.get(name);
}

/** The models of a kind with their descriptions; those that cannot be described are left out. */
export async function describedOf(kind) {
  const names = modelsOf(kind).map(nameOf);
  const found = await Promise.all(names.map((name) => describe(name).catch(() => null)));
  return names.map((name, index) => [name, found[index]]).filter(([, description]) => description);
}

/** Keeps the options of a select those of a kind of models. */
export function offerModels(select, kind) {
  onModels(() => setOptions(select, withDefaultFirst(modelsOf(kind)).map((model) => [nameOf(model), nameOf(model)])));
}

const withDefaultFirst = (found) => found.toSorted((a, b) => Number(!!b.isDefaultOfKind) - Number(!!a.isDefaultOfKind));

/** A tag and its name in English: "German (de)". */
export function languageName(tag) {
  try {
    const name = new Intl.DisplayNames("en", { type: "language" }).of(tag);
    return name && name !== tag ? `${name} (${tag})` : tag;
  } catch {
    return tag;
  }
}
