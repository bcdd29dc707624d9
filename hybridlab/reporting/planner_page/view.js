// The page: controls to a question, the question to the URL's hash and back, and the answer drawn.
const element = (name) => document.getElementById(`planner-${name}`);
const form = element("form");
const HASH = "#planner?";  // other hashes are the surrounding page's own
const LOOKS = { fits: "good", depends: "warn", "does not fit": "bad" };

const made = (tag, look = "", words = "") => {
  const node = document.createElement(tag);
  if (look) node.className = look;
  if (words) node.textContent = words;
  return node;
};
const label_of = (name) => form.querySelector(`label[for="planner-${name}"]`).textContent;

// ------------------------------------------------------------------------------ the question
/** The controls' values by the names of `facts.first`. */
const values_of = () => {
  const controls = [...form.elements].filter((control) => control.name);
  const all = Object.fromEntries(controls.map((control) => [control.name, control.value]));
  const { asr_kept, ...values } = all;
  const [asr_backend, asr_dtype] = asr_kept.split("/");
  return { ...values, asr_backend, asr_dtype };
};

/** What is wrong with the numbers, and the control that is. */
const wrong_number = (values) => {
  for (const [name, [least, most, is_whole]] of Object.entries(facts.numbers)) {
    const text = values[name], value = Number(text);
    const is_good = text !== "" && value >= least && value <= most && !(is_whole && value % 1);
    if (!is_good) {
      const kind = is_whole ? "a whole number from " : "";
      return [name, `${label_of(name)} is ${text || "empty"}; give ${kind}${least} to ${most}.`];
    }
  }
  return null;
};

const question_of = (values) => {
  const number = Object.fromEntries(
    Object.keys(facts.numbers).map((name) => [name, Number(values[name])]));
  const { margin_gb, ...request } = number;
  return { ...values, request, margin_bytes: Math.trunc(margin_gb * GB) };
};

/** The hash says what differs from the first question. */
const to_hash = (values) => {
  const changed = Object.entries(values)
    .filter(([name, value]) => String(facts.first[name]) !== value);
  const hash = changed.length ? HASH + new URLSearchParams(changed) : "";
  if (location.hash.startsWith(HASH) || hash) {
    history.replaceState(null, "", hash || location.pathname + location.search);
  }
};

/** Controls from the hash; what it asks wrongly, in words. */
const from_hash = () => {
  const asked = Object.fromEntries(new URLSearchParams(location.hash.slice(HASH.length)));
  const known = Object.keys(facts.first);
  const wrong = Object.keys(asked).filter((name) => !known.includes(name))
    .map((name) => `The link asks for ${name}; choose one of: ${known.join(", ")}.`);
  const values = { ...facts.first, ...asked };
  values.asr_kept = `${values.asr_backend}/${values.asr_dtype}`;
  for (const control of form.elements) {
    if (!(control.name in values)) continue;
    const value = String(values[control.name]);
    const options = [...(control.options || [])].map((option) => option.value);
    if (options.length && !options.includes(value)) {
      const good = options.join(", ");
      wrong.push(`The link has ${value} as ${label_of(control.name)}; choose one of: ${good}.`);
    } else {
      control.value = value;
    }
  }
  return wrong;
};

// -------------------------------------------------------------------------------- the answer
const share = (n_bytes, reach) => `${100 * n_bytes / reach}%`;

const drawn_moment = (found, name, reach) => {
  const row = made("div", "moment"), track = made("span", "track"), bar = made("span", "bar");
  const [low, expected, high] = found.moments[name];
  const owned = Object.fromEntries(Object.keys(facts.owners).map((owner) => [owner, 0]));
  for (const [owner, size] of Object.entries(found.ledger[name])) {
    owned[facts.planner_owners[owner]] += size[EXPECTED];
  }
  for (const [owner, n_bytes] of Object.entries(owned).filter(([, n_bytes]) => n_bytes)) {
    const part = made("i");
    Object.assign(part.dataset, { owner, bytes: n_bytes });
    part.style.flex = `${n_bytes} 0 0`;
    part.title = `${facts.owners[owner]}: ${format_bytes(n_bytes)}`;
    bar.append(part);
  }
  bar.style.width = share(expected, reach);
  const range = made("span", "range"), line = made("span", "capacity");
  range.style.left = share(low, reach);
  range.style.width = share(high - low, reach);
  line.style.left = share(found.capacity[EXPECTED], reach);
  track.setAttribute("aria-hidden", "true");
  track.append(bar, range, line);
  const words = made("span", "", facts.moments[name]);
  row.append(words, track, made("span", "", format_bytes(expected)));
  return row;
};

/** What it leaves, and what breaks first: the words of the figure of a report. */
const words_of = (found, asked) => {
  const spare = format_bytes(Math.abs(found.margin_bytes));
  if (found.margin_bytes < 0) {
    const name = ["load_peak", "request_peak"].reduce((one, other) =>
      (found.moments[other][EXPECTED] > found.moments[one][EXPECTED] ? other : one));
    return `${spare} short, ${facts.while[name]}`;
  }
  const seconds = longest_audio_of(found, asked);
  return seconds ? `${spare} free, audio up to ${seconds} s fits`
    : `${spare} free; no length of audio leaves the margin`;
};

/** One bar: idle, then the request peak; the load peak and the worst moment as marks on it. */
const drawn_sum = (found, asked, reach) => {
  const row = made("div", "sum"), track = made("span", "track");
  const at = Object.fromEntries(Object.entries(found.moments)
    .map(([name, size]) => [name, share(size[EXPECTED], reach)]));
  const [low, expected, high] = found.total;
  const place = (look, left, width = "") => {
    const part = made("span", look);
    Object.assign(part.style, { left, width });
    return part;
  };
  track.setAttribute("aria-hidden", "true");
  track.append(
    place("beyond", share(found.capacity[EXPECTED], reach)),
    place("held request", "0", at.request_peak), place("held idle", "0", at.idle),
    place("range", share(low, reach), share(high - low, reach)),
    place("capacity", share(found.capacity[EXPECTED], reach)),
    place("tick", at.load_peak), place("mark", share(expected, reach)));
  row.append(track, made("span", "words", words_of(found, asked)));
  return row;
};

const drawn_owners = (found, reach) => {
  const fold = made("details"), rows = Object.keys(facts.moments)
    .map((name) => drawn_moment(found, name, reach));
  const seen = new Set(rows.flatMap((row) =>
    [...row.querySelectorAll("[data-owner]")].map((part) => part.dataset.owner)));
  const parts = Object.entries(facts.owners).filter(([owner]) => seen.has(owner));
  const legend = made("p", "legend");
  legend.append(...parts.map(([owner, words]) => legend_entry(words, "", owner)));
  fold.append(made("summary", "soft", "Three moments, by owner"), ...rows, legend);
  return fold;
};

const legend_entry = (words, look, owner) => {
  const swatch = made("i", look), shown = made("span", "", words);
  if (owner) swatch.dataset.owner = owner;
  shown.prepend(swatch);
  return shown;
};

const drawn_size = (found, { asked, best }, is_asked, reach) => {
  const look = LOOKS[found.fit], row = made("li", look), head = made("div", "head");
  const wer = facts.whispers[found.asr_model].published_wer;
  const kept = `${found.asr_backend}, ${found.asr_dtype}`;
  head.append(made("b", "", found.asr_model),
    made("span", "soft", `${kept}; WER ${wer === null ? "not published" : percent(wer)}`),
    made("span", `badge ${look}`, `${facts.fit_signs[found.fit]} ${found.fit}`));
  // of a size that is not asked for there is no pick to compare with
  const leaves = plan_leaves(found, asked.margin_bytes);
  const why = leaves && !is_asked ? "not asked for" : why_not(found, best, asked.margin_bytes);
  const mark = made("span", why === "pick" ? "badge good" : "badge", why);
  if (why !== found.fit) head.append(mark);
  row.classList.toggle("picked", why === "pick");
  const [low, expected, high] = found.total.map(format_bytes);
  row.append(head, drawn_sum(found, asked, reach),
    made("div", "soft", `${expected} (${low} to ${high}) at the worst moment`),
    drawn_owners(found, reach));
  return row;
};

const drawn_legend = (capacity) => {
  const usable = `${format_bytes(capacity[LOW])} to ${format_bytes(capacity[HIGH])}`;
  const { idle, request_peak, load_peak } = facts.moments;
  element("legend").replaceChildren(legend_entry(`capacity ${usable}`, "line"),
    legend_entry(`${idle}, then ${request_peak}`), legend_entry(load_peak, "tick"),
    legend_entry("worst moment, with its range", "mark"));
};

/** The six sizes, and the one that is asked for where it is none of them. */
const shown_sizes = (answer) => {
  if (answer.asked.asr_model === "auto") return answer.by_size;
  const all = plan({ ...answer.asked, asr_model: "auto" }).by_size;
  const own = answer.by_size[0];
  const others = all.map((found) => (found.asr_model === own.asr_model ? own : found));
  return others.includes(own) ? others : [...others, own];
};

const draw = (answer) => {
  const { asked, best, by_size } = answer, sizes = shown_sizes(answer);
  const { capacity } = sizes[0];
  const reach = 1.02 * Math.max(capacity[HIGH], ...sizes.map((found) => found.total[HIGH]));
  element("answer").textContent = conclusion(answer);
  element("serve").hidden = !best;
  element("command").textContent = best ? serve_line(best) : "";
  const help = remedies(by_size, asked);
  element("help").hidden = !help.length;
  element("remedies").replaceChildren(...help.map((words) => made("li", "", words)));
  const rows = sizes.map((found) => drawn_size(found, answer, by_size.includes(found), reach));
  element("sizes").replaceChildren(...rows);
  drawn_legend(capacity);
};

// ------------------------------------------------------------------------------- both together
/** Dtypes that the card does not compute in cannot be chosen. */
const offer_native = (card) => {
  const native = new Set(native_combinations(card).map((kept) => kept.join("/")));
  for (const option of form.elements.asr_kept.options) {
    option.disabled = !option.value.endsWith("/auto") && !native.has(option.value);
  }
  form.elements.llm_dtype.options[0].textContent = `auto (${default_voxtral_dtype(card)})`;
};

const show = (wrong = []) => {
  const values = values_of(), card = facts.cards[values.card];
  offer_native(card);
  const [name, words] = wrong_number(values) || [];
  const answer = name ? null : plan(question_of(values));
  const problems = [...wrong, ...(words ? [words] : [])];
  if (answer && !answer.pairs.length) {
    problems.push(`${card.title} computes in ${card.native_dtypes.join(", ")}, not in `
      + `${values.asr_dtype}: choose another of ${label_of("asr_kept")}.`);
  }
  for (const control of form.elements) control.removeAttribute("aria-invalid");
  if (name) form.elements[name].setAttribute("aria-invalid", "true");
  element("error").hidden = !problems.length;
  element("error").textContent = problems.join(" ");
  const is_answered = Boolean(answer && answer.pairs.length);
  element("result").hidden = !is_answered;
  if (is_answered) draw(answer);
  return values;
};

const copy = async () => {
  const button = element("copy");
  try {
    await navigator.clipboard.writeText(element("command").textContent);
    button.textContent = "Copied";
  } catch {  // a page that may not write to the clipboard can still select
    getSelection().selectAllChildren(element("command"));
    button.textContent = "Selected: press Ctrl+C";
  }
  setTimeout(() => { button.textContent = "Copy"; }, 2000);
};

form.addEventListener("input", () => to_hash(show()));
form.addEventListener("submit", (event) => event.preventDefault());
element("copy").addEventListener("click", copy);
const read = () => show(location.hash.startsWith(HASH) ? from_hash() : []);
addEventListener("hashchange", () => { if (location.hash.startsWith(HASH)) read(); });
read();
// For a console, and for the test that asks the package the same.
root.planner = { plan, conclusion, remedies, longest_audio_of, serve_line, question_of };
