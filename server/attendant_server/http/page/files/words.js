// A text and its translation as words: a word shows the words it is linked to, by pointer and by keys.

import { el, number } from "./dom.js";

const WORDS = new Intl.Segmenter(undefined, { granularity: "word" });

export class WordText {
  /** `onWord(start)` is called when a word of the translation is chosen. Offsets are UTF-16 units. */
  constructor(source, hypothesis, status, onWord) {
    this.links = hypothesis.alignments ?? [];
    this.status = status;
    this.texts = { source, target: hypothesis.text };
    this.words = { source: [], target: [] };
    this.source = this.shown("source", this.places("source"));
    this.target = this.shown("target", this.places("target"), onWord);
  }

  /** The places of words: those of the links, and without links those of the segmenter. */
  places(side) {
    const linked = this.links.map((link) => [link[`${side}Start`] ?? 0, link[`${side}End`]]);
    const own = [...WORDS.segment(this.texts[side])].filter((each) => each.isWordLike).map(({ index, segment }) => [index, index + segment.length]);
    const all = [...linked, ...own].toSorted((a, b) => a[0] - b[0] || a[1] - b[1]);
    const found = [];
    for (const place of all) if (!found.length || place[0] >= found.at(-1)[1]) found.push(place);
    return found;
  }

  shown(side, places, onWord) {
    const text = this.texts[side];
    const label = side === "target" ? "Words of the translation" : "Words of the text";
    const line = el("span", { role: "group", "aria-label": label });
    let end = 0;
    for (const [start, stop] of places) {
      line.append(text.slice(end, start), this.word(side, start, stop, onWord));
      end = stop;
    }
    line.append(text.slice(end));
    this.words[side][0]?.setAttribute("tabindex", "0");
    line.addEventListener("keydown", (event) => this.move(event, side));
    return line;
  }

  word(side, start, stop, onWord) {
    const word = el("span", { class: "word", role: "button", tabindex: "-1" }, this.texts[side].slice(start, stop));
    Object.assign(word, { place: [start, stop] });
    for (const kind of ["mouseenter", "focus"]) word.addEventListener(kind, () => this.mark(side, word));
    for (const kind of ["mouseleave", "blur"]) word.addEventListener(kind, () => this.unmark());
    const choose = () => onWord?.(start);
    word.addEventListener("click", choose);
    word.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      choose();
    });
    this.words[side].push(word);
    return word;
  }

  /** Arrow keys move among the words of a line, which is one stop of the tabulator. */
  move(event, side) {
    const words = this.words[side];
    const at = words.indexOf(document.activeElement);
    const isRtl = getComputedStyle(event.currentTarget).direction === "rtl";
    const steps = { ArrowRight: isRtl ? -1 : 1, ArrowLeft: isRtl ? 1 : -1, Home: -at, End: words.length - 1 - at };
    const next = words[at + (steps[event.key] ?? NaN)];
    if (!next) return;
    event.preventDefault();
    words[at].setAttribute("tabindex", "-1");
    next.setAttribute("tabindex", "0");
    next.focus();
  }

  mark(side, word) {
    this.unmark();
    const other = side === "source" ? "target" : "source";
    const links = this.links.filter((link) => covers(link, side, word.place));
    word.classList.add("here");
    for (const link of links) {
      for (const each of this.words[other]) if (covers(link, other, each.place)) each.classList.add("linked");
    }
    const parts = links.map((link) => `“${this.texts[other].slice(link[`${other}Start`] ?? 0, link[`${other}End`])}” (${number(link.weight ?? 0)})`);
    if (this.links.length) this.status.textContent = `“${word.textContent}” ${side === "target" ? "comes from" : "became"} ${parts.join(", ") || "no word"}`;
  }

  unmark() {
    for (const word of [...this.words.source, ...this.words.target]) word.classList.remove("here", "linked");
  }
}

const covers = (link, side, [start, stop]) => (link[`${side}Start`] ?? 0) < stop && link[`${side}End`] > start;
