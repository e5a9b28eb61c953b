// Elements of the page and how numbers are written. All texts of the run go in through textContent.

const phone = window.matchMedia("(max-width: 700px)");

function element(parent, tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return parent.appendChild(made);
}

function shape(parent, tag, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  return parent.appendChild(made);
}

// What would turn the direction of writing around, or not be seen at all, is shown by its number.
const UNSEEN = new RegExp(
  "[\\u0000-\\u0008\\u000b-\\u001f\\u007f-\\u009f\\u061c\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u2069\\ufeff]"
  + "|[\\ud800-\\udbff](?![\\udc00-\\udfff])|(?<![\\ud800-\\udbff])[\\udc00-\\udfff]", "g", // half a pair
);
const visible = (text) => text.replace(UNSEEN, (c) => `<${c.charCodeAt(0).toString(16).padStart(2, "0")}>`);

const short = (text, room) => (text.length > room ? text.slice(0, Math.max(room - 1, 0)) + "\u2026" : text);
const UNKNOWN = "\u2013";
const number = (x) => (typeof x === "number" ? (Math.round(x * 1000) / 1000).toLocaleString("en-US") : UNKNOWN);
const signed = (x) => (typeof x === "number" && x > 0 ? "+" : "") + number(x);
const count = (n, what) => `${number(n)} ${what}${n === 1 ? "" : "s"}`;

// Green, orange, and blue for what is reached in part, the darker the more.
function colourOf(success) {
  if (success >= 1) return "#009e73";
  if (success <= 0) return "#d55e00";
  const mix = [[0x7a, 0], [0xb8, 0x72], [0xe0, 0xb2]].map(([a, b]) => Math.round(a + (b - a) * success));
  return `rgb(${mix.join(",")})`;
}
const glyphOf = (success) => (success >= 1 ? "\u2713" : success > 0 ? "\u00bd" : "\u2717");
const reached = (success) => (success >= 1 ? "goal reached" : success > 0 ? `score ${number(success)}` : "not reached");
