// The server's routes, as the page uses them. The bearer token is handed in with each call.

async function ask(path, { token, ...options }) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  let response;
  try {
    response = await fetch(path, { ...options, headers, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server cannot be reached; is it running?");
  }
  if (!response.ok) throw await failure(response);
  return response;
}

async function failure(response) {
  const body = await response.json().catch(() => ({}));
  const error = new Error(said(body, `The server answered with status ${response.status}.`));
  error.status = response.status;
  return error;
}

function said(body, otherwise) {
  const message = body.error?.message;
  return message ? sentence(message) : otherwise;
}

/** The models that are served, each with its `id` and, perhaps, a `warning`. */
export async function models(token) {
  return (await (await ask("v1/models", { token })).json()).data;
}

/** With a capital at its beginning and a full stop. */
export function sentence(words) {
  return `${words[0].toUpperCase()}${words.slice(1)}.`;
}

/** Transcript, words of answers (`delta`) and answers as `[name, part]`, each as soon as it is
 * there. */
export async function* hybrid(form, { token, signal }) {
  form.append("stream", "true");
  const response = await ask("v1/hybrid", { method: "POST", body: form, token, signal });
  for await (const [name, part] of events(response.body)) {
    if (name === "error") throw new Error(said(part, "The server failed."));
    if (name === "done") return;
    yield [name, part];
  }
  throw new Error("The connection ended before the last answer.");
}

/** A transcript alone, of a server without a Voxtral. */
export async function* transcription(form, { token, signal }) {
  form.append("model", "whisper-1");
  form.append("response_format", "verbose_json");
  const options = { method: "POST", body: form, token, signal };
  yield ["transcript", await (await ask("v1/audio/transcriptions", options)).json()];
}

/** Server-sent events of a body as `[name, data]`. */
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value;
    const blocks = text.split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      const field = (name) => block.match(new RegExp(`^${name}: (.*)$`, "m"))?.[1];
      yield [field("event"), JSON.parse(field("data"))];
    }
  }
}

/** Bytes of the device by owner, its capacity, and what requests may still take. */
export async function ledger(token) {
  const text = await (await ask("metrics", { token })).text();
  const value = (name) => Number(text.match(new RegExp(`^${name} (\\S+)$`, "m"))?.[1]);
  const owners = text.matchAll(/^hybridlab_ledger_bytes\{owner="([^"]+)"\} (\S+)$/gm);
  return {
    owners: [...owners].map(([, owner, bytes]) => [owner, Number(bytes)]),
    capacity: value("hybridlab_capacity_bytes"),
    margin: value("hybridlab_margin_bytes"),
  };
}
