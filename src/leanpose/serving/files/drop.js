// @ts-check
"use strict";

/**
 * @typedef {{ score: number | null }} Person
 * @typedef {{ below_person_threshold: number, above_max_people: number }} LeftOut
 * @typedef {{ index: number, name: string | null, people: number, left_out: LeftOut, notices: string[],
 *   poses: { people: Person[] }, drawn: string | null }} ImageAnswer
 */

/**
 * @template {HTMLElement} T
 * @param {string} id
 * @param {new () => T} kind
 * @returns {T}
 */
function element(id, kind) {
  const found = document.getElementById(id);
  if (!(found instanceof kind)) throw new Error(`#${id} is missing`);
  return found;
}

const drop = element("drop", HTMLLabelElement);
const input = element("files", HTMLInputElement);
const threshold = element("threshold", HTMLInputElement);
const key = element("key", HTMLInputElement);
const statusLine = element("status", HTMLParagraphElement);
const results = element("results", HTMLDivElement);
/** @type {File[]} */
let chosen = [];
let latest = 0;

/** @param {string} text @param {boolean} wrong */
function say(text, wrong = false) {
  statusLine.textContent = text;
  statusLine.className = wrong ? "error" : "";
}

/** @param {number} count */
function people(count) {
  return count === 1 ? "1 person" : `${count} people`;
}

/** @param {ImageAnswer} answer */
function figure(answer) {
  const name = answer.name ?? `Photo ${answer.index + 1}`;
  const scores = answer.poses.people.map((person) => (person.score === null ? "?" : person.score.toFixed(2)));
  const hidden = answer.left_out.below_person_threshold;
  const sentences = [`${name}: ${people(answer.people)}`];
  if (scores.length) sentences.push(`scores ${scores.join(", ")}`);
  if (hidden) sentences.push(`${people(hidden)} below the score`);
  sentences.push(...answer.notices);
  const holder = document.createElement("figure");
  if (answer.drawn !== null) {
    const image = document.createElement("img");
    image.src = `data:image/jpeg;base64,${answer.drawn}`;
    image.alt = `${name} with the skeletons of ${people(answer.people)}`;
    holder.append(image);
  }
  const caption = document.createElement("figcaption");
  caption.textContent = sentences.join("; ");
  holder.append(caption);
  return holder;
}

async function send() {
  if (!chosen.length) return;
  const turn = ++latest;
  const body = new FormData();
  for (const file of chosen) body.append("images", file, file.name);
  say(`Looking at ${chosen.length === 1 ? chosen[0].name : `${chosen.length} photos`} …`);
  /** @type {Record<string, string>} */
  const headers = key.value ? { "X-API-Key": key.value } : {};
  const query = new URLSearchParams({ draw: "true", person_threshold: threshold.value || "0" });
  try {
    const response = await fetch(`v1/poses?${query}`, { method: "POST", body, headers });
    const answer = await response.json();
    if (turn !== latest) return;
    if (!response.ok) throw new Error(answer.error);
    /** @type {ImageAnswer[]} */
    const images = answer.images;
    results.replaceChildren(...images.map(figure));
    say(`Found ${people(images.reduce((sum, image) => sum + image.people, 0))}.`);
  } catch (error) {
    if (turn === latest) say(error instanceof Error ? error.message : String(error), true);
  }
}

/** @param {FileList | null | undefined} files */
function take(files) {
  chosen = [...(files ?? [])];
  void send();
}

input.addEventListener("change", () => take(input.files));
threshold.addEventListener("change", () => void send());
key.addEventListener("change", () => void send());
for (const kind of ["dragenter", "dragover"]) {
  drop.addEventListener(kind, (event) => { event.preventDefault(); drop.classList.add("over"); });
}
for (const kind of ["dragleave", "drop"]) {
  drop.addEventListener(kind, (event) => { event.preventDefault(); drop.classList.remove("over"); });
}
drop.addEventListener("drop", (event) => take(event.dataTransfer?.files));
element("form", HTMLFormElement).addEventListener("submit", (event) => event.preventDefault());
