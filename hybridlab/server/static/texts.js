// Transcript and answers on the page, an answer's words as they come.

const element = (id) => document.getElementById(id);

export function clear() {
  element("transcript").replaceChildren();
  element("answers").replaceChildren();
}

export function transcribed(part, seconds) {
  element("transcript").append(paragraph(part.text, "said"), paragraph(signed(part, seconds), "soft"));
}

/** More of an answer. Readers of screens are told it once it is whole. */
export function grow({ index, text }, question) {
  const block = blockOf(index, question);
  block.setAttribute("aria-busy", "true");
  block.querySelector(".said").append(text);
}

/** The whole answer, in place of what has grown. */
export function answered(part, seconds) {
  const block = blockOf(part.index, part.question);
  block.querySelector(".said").textContent = part.text;
  block.append(paragraph(signed(part, seconds), "soft"));
  block.removeAttribute("aria-busy");
}

/** Nothing grows any more; what is not whole says so. */
export function stopped() {
  for (const block of element("answers").querySelectorAll("[aria-busy]")) {
    block.removeAttribute("aria-busy");
    block.append(paragraph("not finished", "soft"));
  }
}

/** The place of an answer, in the order of the questions. */
function blockOf(index, question) {
  const blocks = [...element("answers").children];
  const found = blocks.find((block) => Number(block.dataset.index) === index);
  if (found) return found;
  const made = document.createElement("div");
  made.className = "answer";
  made.dataset.index = index;
  made.append(paragraph(question, "soft"), paragraph("", "said"));
  element("answers").insertBefore(made, blocks.find((block) => Number(block.dataset.index) > index) ?? null);
  return made;
}

/** Who said it, and how long after sending it was here. */
function signed(part, seconds) {
  const instead = part.instead_of ? ` in place of ${part.instead_of}` : "";
  const length = part.duration ? ` for ${part.duration.toFixed(1)} s of sound` : "";
  const cut = part.finish_reason === "length" ? ", cut at the limit of tokens" : "";
  return `${part.model}${instead}, after ${seconds.toFixed(2)} s${length}${cut}`;
}

function paragraph(text, kind) {
  const made = document.createElement("p");
  made.textContent = text;
  made.className = kind;
  return made;
}
