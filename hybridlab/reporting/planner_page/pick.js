// hybridlab/analysis/pick.py and what reports say of it, with its names.
const order = (plan) => {
  const model = facts.whispers[plan.asr_model];
  const bits = Math.min(facts.significand_bits[plan.asr_dtype], facts.released_bits);
  return [model.published_wer ?? Infinity, -model.parameters, facts.released_bits - bits,
    Object.keys(facts.backends).indexOf(plan.asr_backend), plan.total[EXPECTED]];
};
const is_before = (one, other) => {
  const place = one.findIndex((value, at) => value !== other[at]);
  return place >= 0 && one[place] < other[place];
};
const plan_leaves = (plan, margin_bytes) =>
  plan.fit === "fits" && plan.margin_bytes >= margin_bytes;
const pick_of = (plans, margin_bytes) => plans
  .filter((plan) => plan_leaves(plan, margin_bytes))
  .reduce((best, plan) => (best && !is_before(order(plan), order(best)) ? best : plan), null);

const best_by_size = (plans, margin_bytes) => [...new Set(plans.map((plan) => plan.asr_model))]
  .map((size) => {
    const own = plans.filter((plan) => plan.asr_model === size);
    return pick_of(own, margin_bytes)
      || own.reduce((one, other) => (other.total[EXPECTED] < one.total[EXPECTED] ? other : one));
  });

const candidates = (asked) => {
  const sizes = asked.asr_model === "auto" ? facts.whisper_sizes : [asked.asr_model];
  const combinations = native_combinations(facts.cards[asked.card]).filter(([backend, dtype]) =>
    ["auto", backend].includes(asked.asr_backend) && ["auto", dtype].includes(asked.asr_dtype));
  return sizes.flatMap((size) => combinations.map((kept) => plan_pair(asked, size, ...kept)));
};
const pick = (asked) => pick_of(candidates(asked), asked.margin_bytes);

const why_not = (plan, best, margin_bytes) => {
  if (plan.fit !== "fits") return plan.fit;
  if (!plan_leaves(plan, margin_bytes)) return "below margin";
  const [own, others] = [order(plan), order(best)];
  const place = own.findIndex((value, at) => value !== others[at]);
  return place < 0 ? "pick" : facts.why_later[place] || "more bytes";
};

const recognizer_name = (plan) => `${plan.asr_model} (${plan.asr_backend}, ${plan.asr_dtype})`;
const serve_line = (plan) => [
  "hybridlab serve", `--llm-model ${plan.llm_model}`, `--llm-dtype ${plan.llm_dtype}`,
  ...(plan.attention === "auto" ? [] : [`--attention ${plan.attention}`]),
  `--asr-model ${plan.asr_model}`, `--asr-backend ${plan.asr_backend}`,
  `--asr-dtype ${plan.asr_dtype}`].join(" ");

const remedy = (plan, asked) => {
  if (plan_leaves(plan, asked.margin_bytes)) return null;
  const { asr_model, llm_dtype } = plan;
  const open = { ...asked, asr_model, llm_dtype, asr_backend: "auto", asr_dtype: "auto" };
  const expanded = { ...open, attention: "expanded_kv" };
  const ways = [[open, ""], [expanded, " with --attention expanded_kv"]];
  for (const [way, option] of ways) {
    const other = pick(way);
    if (other) return `fits as ${other.asr_backend} ${other.asr_dtype}${option}`;
  }
  const [plain_s, expanded_s] = ways.map(
    ([way]) => longest_audio_s((audio_s) => pick(with_audio(way, audio_s)) !== null));
  if (!expanded_s) return null;
  const beyond = `${expanded_s} s with --attention expanded_kv`;
  const plainly = `${plain_s} s of audio`;
  if (expanded_s <= plain_s) return `fits up to ${plainly}`;
  return plain_s ? `fits up to ${plainly}, ${beyond}` : `fits up to ${beyond}`;
};

// -------------------------------------------------------------------- units.py, as words
const format_bytes = (n_bytes) => (Math.abs(n_bytes) >= GIB
  ? `${(n_bytes / GIB).toFixed(2)} GiB` : `${(n_bytes / MIB).toFixed(0)} MiB`);
const percent = (share) => `${(100 * share).toFixed(1)} %`;

// ---------------------------------------- plan_report.py and, of one pair, fit_report.py
const conclusion = ({ asked, best, by_size, pairs }) => {
  const { title } = facts.cards[asked.card], margin = `a margin of ${(asked.margin_bytes / GIB).toFixed(2)} GiB`;
  const names = [asked.asr_backend, asked.asr_dtype].filter((name) => name !== "auto");
  const kept = names.length ? ` (${names.join(", ")})` : "";
  if (!best && asked.asr_model !== "auto") {
    return `${asked.asr_model}${kept} does not fit on ${title} with ${margin}.`;
  }
  if (!best) return `No Whisper${kept} fits on ${title} with ${margin}.`;
  const spare = `${format_bytes(best.margin_bytes)} to spare.`;
  if (pairs.length === 1) {
    return `On ${title}: ${recognizer_name(best)} fits with ${margin}; ${spare}`;
  }
  const wer = facts.whispers[best.asr_model].published_wer;
  const most = wer === null ? "the largest" : `the lowest published WER (${percent(wer)})`;
  const why = by_size.length === 1 ? "the most precise" : most;
  return `On ${title}: ${recognizer_name(best)}, ${why} of what fits with ${margin}; ${spare}`;
};
const remedies = (by_size, asked) => {
  const sizes = new Map();
  for (const plan of by_size) {
    const help = remedy(plan, asked);
    if (help) sizes.set(help, [...(sizes.get(help) || []), plan.asr_model]);
  }
  return [...sizes].map(([help, own]) => `${own.join(", ")}: ${help}.`);
};
const longest_audio_of = (plan, asked) => longest_audio_s((audio_s) => plan_leaves(
  plan_pair({ ...with_audio(asked, audio_s), llm_dtype: plan.llm_dtype },
    plan.asr_model, plan.asr_backend, plan.asr_dtype), asked.margin_bytes));

/** What the page shows of a question; `pairs` is empty where nothing runs so on this card. */
const plan = (asked) => {
  const pairs = candidates(asked), best = pick_of(pairs, asked.margin_bytes);
  return { asked, pairs, best, by_size: best_by_size(pairs, asked.margin_bytes) };
};
