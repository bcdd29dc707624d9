// hybridlab/planner/ in its order and with its names, for a page without a server. Left out is what
// the page cannot ask: the host as a card, rows of unlike length, other ways of loading, swaps. The
// tables of `facts` are the catalog's own, with the bytes of weights.
// tests/browser/test_planner_page.py holds this file and pick.js against the Python.
const FLOAT32 = facts.bytes_per_dtype.float32;
const GB = 1e9, MIB = 1024 ** 2, GIB = 1024 ** 3;

// ---------------------------------------------- estimate.py: bytes as [low, expected, high]
const ZERO = [0, 0, 0];
const exact = (n_bytes) => Array(3).fill(Math.trunc(n_bytes));
const total = (parts) => parts.reduce((sum, part) => sum.map((n, bound) => n + part[bound]), ZERO);
const largest = (parts) => ZERO.map((_, bound) => Math.max(...parts.map((part) => part[bound])));
const times = (size, shares) => size.map((n, bound) => Math.trunc(shares[bound] * n));
const [LOW, EXPECTED, HIGH] = [0, 1, 2];

// ------------------------------------------------------------------ catalog/kernels.py
const attention_kernel = (card, dtype, { attention = "auto", grouped = false, engine }) => {
  if (engine === "ctranslate2") return "scores";
  if (["math", "efficient", "flash"].includes(attention)) return attention;
  const is_half = dtype !== "float32", [major] = card.compute_capability;
  if (is_half && major >= 9) return "cudnn";
  if (is_half && major >= 8) return "flash";
  return !grouped && (dtype !== "bfloat16" || major >= 8) ? "efficient" : "math";
};

// ---------------------------------------------------------------------- activations.py
const windows_of = (request) => Math.max(1, Math.ceil(request.audio_s / facts.window_s));
const whisper_windows_of = (request) => request.audio_s <= facts.window_s
  ? 1 : Math.ceil(request.audio_s / (facts.window_s - facts.window_reach_s));

const compute_dtype = (dtype, backend, card) => {
  if (["int8", "int4"].includes(dtype)) return "float16";
  const half = facts.backends[backend].half_activations && card.native_dtypes.includes("float16");
  return half ? "float16" : dtype;
};
const whisper_kernel = (card, backend, dtype) => attention_kernel(
  card, compute_dtype(dtype, backend, card), { engine: facts.backends[backend].engine });
const reads_groups = (attention) => attention !== "expanded_kv";
const voxtral_kernel = (card, dtype, attention) => {
  const computes_in = compute_dtype(dtype, "transformers", card);
  return attention_kernel(card, computes_in, { attention, grouped: reads_groups(attention) });
};

const math_bytes = ({ rows, length, heads, kv_heads, head_dim, width, causal }) => {
  const one = 4 * rows * heads * head_dim * length;
  let copies = kv_heads === heads ? one : 3 * one;
  if (width < FLOAT32) {
    copies = kv_heads === heads ? 4 * one : 4 * one + 2 * one * kv_heads / heads;
  }
  const mask = causal ? FLOAT32 * length ** 2 : 0;
  const scores = facts.math_bytes_per_score.map((n) => n * rows * heads * length ** 2);
  return total([scores, exact(copies + mask)]);
};

const prepare_bytes = (rows, mel_bins, backend) => {
  if (!facts.backends[backend].features_on_device) return ZERO;
  const kept = rows * mel_bins * facts.mel_frames_per_window * 4;
  return exact(facts.spectrogram_window_bytes + kept);
};

const encoder_bytes = (encoder, { rows, width, backend, kernel }) => {
  const unit = encoder.positions * encoder.d_model * width;
  const feed_forward = exact(rows * facts.backends[backend].encoder_tensors * unit);
  const attending = exact(rows * 6 * unit);
  if (kernel === "scores") {
    const scores = exact(rows * encoder.heads * encoder.positions ** 2 * width);
    return largest([feed_forward, total([attending, scores])]);
  }
  if (kernel !== "math") return feed_forward;
  const { heads, positions: length } = encoder;
  const head_dim = Math.floor(encoder.d_model / heads);
  const scores_and_copies = math_bytes(
    { rows, length, heads, kv_heads: heads, head_dim, width, causal: false });
  return largest([feed_forward, total([attending, scores_and_copies])]);
};

const features_bytes = (rows, mel_bins, width, backend) => {
  const cast = width < FLOAT32 ? width : 0;
  const segment = facts.backends[backend].copies_segment ? width : 0;
  return rows * mel_bins * facts.mel_frames_per_window * (FLOAT32 + cast + segment);
};

const whisper_phases = (model, request, { backend, dtype, card }) => {
  const known = facts.backends[backend];
  const width = facts.bytes_per_dtype[compute_dtype(dtype, backend, card)];
  const windows = request.batch * whisper_windows_of(request);
  let rows = known.windows_in_turn ? request.batch : windows;
  if (known.beams_window_by_window && request.beams > 1) rows = 1;
  const { d_model: d, mel_bins } = model.encoder;
  const unit = model.encoder.positions * d * width;
  let features = features_bytes(rows, mel_bins, width, backend);
  if (known.features_on_device) {
    features += (windows - rows) * mel_bins * facts.mel_frames_per_window * FLOAT32;
  }
  const kernel = whisper_kernel(card, backend, dtype);
  const encoding = encoder_bytes(model.encoder, { rows, width, backend, kernel });
  let encode = total([encoding, exact(features)]);
  const tokens = Math.min(request.new_tokens + 4, facts.whisper_max_target_positions);
  const token_bytes = model.self_kv_values_per_token * tokens * width
    + 2 * FLOAT32 * model.vocab_size;
  const hypotheses = rows * request.beams;
  const heard = known.copies_audio_per_beam ? hypotheses : rows;
  const cross_kv = model.cross_kv_values * width;
  let decode = heard * (unit + known.fresh_cross_kv * unit + cross_kv) + features;
  decode += hypotheses * token_bytes;
  const copies = known.copies_audio_per_beam ? facts.unsure_beams : Number(rows > 1);
  let again = (rows + copies + known.fresh_cross_kv) * unit + features + cross_kv;
  again += facts.unsure_beams * token_bytes;
  if (width < facts.bytes_per_dtype[dtype]) {
    decode += model.vocab_size * d * width;
    again += model.vocab_size * d * width;
    encode = total([encode, [0, 0, Math.trunc(4 * d * d * width)]]);
  }
  return { prepare: prepare_bytes(windows, mel_bins, backend), encode,
    decode: [decode, decode, Math.max(decode, request.beams === 1 ? again : 0)] };
};

const voxtral_kv_bytes = (model, tokens, width) =>
  Math.trunc(model.text.kv_values_per_token * tokens * width);

const voxtral_phases = (model, request, { dtype, card, attention }) => {
  const computes_in = compute_dtype(dtype, "transformers", card);
  const width = facts.bytes_per_dtype[computes_in];
  const { text, encoder } = model, rows = request.batch, windows = windows_of(request) * rows;
  const encode = encoder_bytes(encoder, {
    rows: windows, width, backend: "transformers",
    kernel: attention_kernel(card, computes_in, { attention }),
  });
  const features = windows * encoder.mel_bins * facts.mel_frames_per_window * width;
  const length = facts.voxtral_tokens_per_window * windows_of(request) + facts.prompt_tokens;
  const every = length + request.new_tokens;
  const whole_kv = voxtral_kv_bytes(model, every, width) * rows;
  const hidden = length * text.hidden * width * rows;
  const heard = facts.voxtral_tokens_per_window * windows * text.hidden * width;
  const rotary = 2 * length * text.head_dim * width;
  const prompt_kv = voxtral_kv_bytes(model, length, width) * rows;
  const kept = prompt_kv + features + heard + rotary;
  const feed_forward = exact(4 * hidden + 3 * length * text.ffn * width * rows);
  const query = length * text.heads * text.head_dim * width * rows;
  const grouped = reads_groups(attention), kernel = voxtral_kernel(card, dtype, attention);
  const attending = total([
    exact(3 * hidden + query), attention_bytes(model, length, rows, width, kernel, grouped)]);
  const logits = (FLOAT32 + width) * text.vocab_size * rows;
  let step = whole_kv / (2 * text.layers) + logits;
  if (kernel === "math") {
    const upcast = width < FLOAT32 ? text.kv_heads : 0;
    step += 2 * FLOAT32 * (text.heads + upcast) * text.head_dim * every * rows;
  }
  return {
    prepare: prepare_bytes(windows, encoder.mel_bins, "transformers"),
    encode: total([encode, exact(features + hidden)]),
    prefill: total([exact(kept), largest([feed_forward, attending])]),
    decode: exact(whole_kv + features + step),
    head: exact(whole_kv + features + logits),
  };
};

const attention_bytes = (model, length, rows, width, kernel, grouped) => {
  const { heads, kv_heads, head_dim } = model.text;
  const one = length * heads * head_dim * width * rows, expanded = grouped ? 0 : 2 * one;
  if (kernel !== "math") return exact(one + expanded);
  const held = math_bytes(
    { rows, length, heads, kv_heads: grouped ? kv_heads : heads, head_dim, width, causal: true });
  return total([held, exact(expanded)]);
};

// ------------------------------------------------------------------------ allocator.py
const tensors_cache_bytes = (backend, n_bytes) =>
  facts.backends[backend].float32_build ? times(exact(n_bytes), facts.shares.tensors) : ZERO;

const request_cache_bytes = (phases, kernel) => {
  if (kernel === "scores") return ZERO;
  const names = Object.keys(phases);
  const phase = names.reduce((one, other) =>
    phases[other][EXPECTED] > phases[one][EXPECTED] ? other : one);
  let kind = { prepare: "encode", head: "decode" }[phase] || phase;
  if (kernel === "math" && kind !== "decode") kind = "scores";
  return times(largest(Object.values(phases)), facts.shares[kind]);
};

// ---------------------------------------------------------------------- memory_plan.py
const fit_of = (needed, capacity) => {
  if (needed[HIGH] <= capacity[LOW]) return "fits";
  return needed[LOW] > capacity[HIGH] ? "does not fit" : "depends";
};

const default_voxtral_dtype = (card) =>
  card.native_dtypes.includes("bfloat16") ? "bfloat16" : "float16";

const plan_pair = (asked, asr_model, asr_backend, asr_dtype) => {
  const { request, attention } = asked, card = facts.cards[asked.card];
  const whisper = facts.whispers[asr_model], voxtral = facts.voxtrals[asked.llm_model];
  const llm_dtype = asked.llm_dtype === "auto" ? default_voxtral_dtype(card) : asked.llm_dtype;
  const [asr_bytes, load_bytes] = whisper.weights_and_load_bytes[asr_backend][asr_dtype];
  const kept = { backend: asr_backend, dtype: asr_dtype, card };
  const heard = whisper_phases(whisper, request, kept);
  const asked_of_llm = voxtral_phases(voxtral, request, { dtype: llm_dtype, card, attention });
  const caches = [
    request_cache_bytes(heard, whisper_kernel(card, asr_backend, asr_dtype)),
    request_cache_bytes(asked_of_llm, voxtral_kernel(card, llm_dtype, attention)),
  ];
  const cache = total([facts.resident_cache_bytes, tensors_cache_bytes(asr_backend, asr_bytes)]);
  const loading_cache = tensors_cache_bytes(asr_backend, load_bytes - asr_bytes);
  const resident = {
    context: total([card.context_bytes, facts.backends[asr_backend].library_bytes]),
    "llm weights": exact(voxtral.weights_bytes[llm_dtype]),
    "asr weights": exact(asr_bytes),
  };
  const workspaces = exact(card.workspace_bytes);
  const ledger = {
    load_peak: { ...resident, "second copy": exact(load_bytes - asr_bytes),
      "allocator cache": total([cache, loading_cache]) },
    idle: { ...resident, workspaces, "allocator cache": cache },
    request_peak: { ...resident, workspaces,
      request: largest([...Object.values(heard), ...Object.values(asked_of_llm)]),
      "allocator cache": total([cache, largest(caches)]) },
  };
  const moments = Object.fromEntries(
    Object.entries(ledger).map(([name, owners]) => [name, total(Object.values(owners))]));
  const capacity = [card.usable_bytes, card.usable_bytes, card.usable_bytes_max];
  const needed = largest([moments.load_peak, moments.request_peak]);
  return {
    card: asked.card, llm_model: asked.llm_model, llm_dtype, asr_model, asr_backend, asr_dtype,
    attention, capacity, ledger, moments, total: needed, fit: fit_of(needed, capacity),
    margin_bytes: capacity[EXPECTED] - needed[EXPECTED],
  };
};

const native_combinations = (card) => Object.entries(facts.backends).flatMap(([backend, known]) =>
  known.dtypes.filter((dtype) => dtype === "int8" || card.native_dtypes.includes(dtype))
    .map((dtype) => [backend, dtype]));

// --------------------------------------------------------------------------- limits.py
const largest_fitting = (fits, most) => {
  if (!fits(1)) return 0;
  let good = 1, bad = 2;
  while (bad <= most && fits(bad)) [good, bad] = [bad, 2 * bad];
  bad = Math.min(bad, most + 1);
  while (bad - good > 1) {
    const middle = Math.floor((good + bad) / 2);
    [good, bad] = fits(middle) ? [middle, bad] : [good, middle];
  }
  return good;
};
const longest_audio_s = (fits) => {
  const most = Math.floor(facts.voxtral_max_answer_s / facts.window_s);
  return largest_fitting((n) => fits(n * facts.window_s), most) * facts.window_s;
};
const with_audio = (asked, audio_s) => ({ ...asked, request: { ...asked.request, audio_s } });
