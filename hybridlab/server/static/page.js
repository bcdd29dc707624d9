// The form: what is sent, what comes back, and what went wrong, in one line.

import { follow } from "./ledger.js";
import * as server from "./server.js";
import { readable, record, whyNoMicrophone } from "./sound.js";
import * as texts from "./texts.js";

const element = (id) => document.getElementById(id);
const TRANSCRIPT = "transcript";
let sound = null;
let recording = null;
let sending = null;
let answers = true; // whether a Voxtral is served
let unfollow = () => {};

// ----------------------------------------------------------------------------------- the server

async function meet() {
  unfollow();
  const token = element("token").value.trim();
  try {
    const models = await server.models(token);
    const names = models.map((model) => model.id);
    const warnings = new Set(models.flatMap((model) => model.warning ?? []));
    answers = names.some((name) => name.startsWith("voxtral"));
    element("asking").hidden = element("answered").hidden = !answers;
    element("served").textContent = `This server has ${names.join(" and ")}.`;
    element("limits").textContent = [...warnings].map(server.sentence).join(" ");
    element("limits").hidden = !warnings.size;
    tell("");
    unfollow = follow(token, refused);
  } catch (error) {
    if (error.status === 503) setTimeout(meet, 1000); // still loading
    if (error.status === 401) return refused(error);
    element("served").textContent = error.message;
  }
}

function refused(error) {
  element("served").textContent = "This server wants a bearer token.";
  if (element("token").value) tell(error.message);
}

function tell(message) {
  element("error").textContent = message;
  element("error").hidden = !message;
}

// ------------------------------------------------------------------------------------ the sound

function take(file) {
  sound = file;
  const player = element("player");
  URL.revokeObjectURL(player.src);
  player.src = URL.createObjectURL(file);
  player.hidden = false;
  tell("");
}

function listen() {
  const drop = element("drop");
  element("file").addEventListener("change", ({ target }) => {
    if (!target.files.length) return;
    element("recorded").textContent = "";
    take(target.files[0]);
  });
  for (const name of ["dragover", "dragleave", "drop"]) {
    drop.addEventListener(name, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", name === "dragover");
    });
  }
  drop.addEventListener("drop", ({ dataTransfer }) => {
    const [file] = dataTransfer.files;
    if (!file) return;
    element("file").value = "";
    element("recorded").textContent = file.name;
    take(file);
  });
}

async function toggleRecording() {
  const button = element("record");
  try {
    if (recording === null) {
      recording = await record();
      element("recorded").textContent = "recording";
    } else {
      const ending = recording;
      recording = null;
      take(await ending.stop());
      element("file").value = "";
      element("recorded").textContent = "recorded";
    }
  } catch (error) {
    const denied = error.name === "NotAllowedError" || error.name === "NotFoundError";
    tell(denied ? "There is no microphone that this page may use." : error.message);
    element("recorded").textContent = "";
  }
  button.textContent = recording ? "Stop recording" : "Record";
  button.setAttribute("aria-pressed", String(recording !== null));
}

// ---------------------------------------------------------------------------------- the request

async function send() {
  tell("");
  const questions = element("question").value.split("\n").filter((line) => line.trim());
  if (!sound) return tell("Choose a file or record something first.");
  if (answers && !questions.length) return tell("Write a question about the sound.");
  begin();
  let waiting = [TRANSCRIPT, ...(answers ? questions.keys() : [])];
  tellWaiting(waiting);
  const started = performance.now();
  try {
    const form = await filled(questions);
    const how = { token: element("token").value.trim(), signal: sending.signal };
    for await (const [name, part] of answers ? server.hybrid(form, how) : server.transcription(form, how)) {
      const seconds = (performance.now() - started) / 1000;
      if (name === "transcript") texts.transcribed(part, seconds);
      else if (name === "delta") texts.grow(part, questions[part.index]);
      else if (name === "answer") texts.answered(part, seconds);
      if (name === "transcript") waiting = waiting.filter((what) => what !== TRANSCRIPT);
      else if (name === "answer") waiting = waiting.filter((what) => what !== part.index);
      tellWaiting(waiting);
    }
    element("state").textContent = "Done.";
  } catch (error) {
    const cancelled = error.name === "AbortError";
    element("state").textContent = cancelled ? "Cancelled." : "";
    if (!cancelled) tell(error.message);
  } finally {
    end();
  }
}

async function filled(questions) {
  const form = new FormData();
  form.append("file", await readable(sound));
  if (answers) for (const question of questions) form.append("question", question);
  const language = element("language").value.trim().toLowerCase();
  if (language) form.append("language", language);
  return form;
}

function begin() {
  sending = new AbortController();
  element("send").disabled = true;
  element("cancel").disabled = false;
  texts.clear();
}

/** waiting: `TRANSCRIPT`, and numbers of questions. */
function tellWaiting(waiting) {
  const count = waiting.filter((what) => what !== TRANSCRIPT).length;
  const parts = waiting.includes(TRANSCRIPT) ? ["a transcript"] : [];
  if (count) parts.push(count === 1 ? "an answer" : `${count} answers`);
  element("state").textContent = parts.length ? `Waiting for ${parts.join(" and ")}.` : "";
}

function end() {
  texts.stopped();
  element("send").disabled = false;
  element("cancel").disabled = true;
}

const why = whyNoMicrophone();
element("record").disabled = Boolean(why);
element("recorded").textContent = why;
element("record").addEventListener("click", toggleRecording);
element("send").addEventListener("click", send);
element("cancel").addEventListener("click", () => sending?.abort());
element("token").addEventListener("change", meet);
listen();
meet();
