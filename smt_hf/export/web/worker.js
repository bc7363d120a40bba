// The model, away from the page: a long prompt leaves the page as quick as before.
// A text has a memory of its own; the page may keep two of them.

import { Tokenizer } from "./bpe.js";
import { drawsOf } from "./random.js";
import { readState, writeState } from "./state.js";

// The smallest module with a SIMD instruction.
const SIMD = [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11];
const RUNTIME = ["ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"];
const PAUSE = 12; // milliseconds of work, after which messages of the page are looked at

let ort, session, about, tokenizer, initial;
let texts = [];
let stopped = false;

const fresh = () => ({ memory: initial.slice(), read: 0, logits: null });
const say = (kind, more = {}) => postMessage({ kind, ...more });

const tell = (more = {}) => say("texts", { texts: texts.map(({ memory, read }) => ({ memory, read })), ...more });

async function load() {
  if (!WebAssembly.validate(Uint8Array.from(SIMD))) {
    throw new Error("This browser has no WebAssembly SIMD, which the model needs; update it.");
  }
  about = await (await found("./model.json")).json();
  const base = new URL(about.runtime, self.location.href);
  const [api, mjs, wasm] = await Promise.all(RUNTIME.map((name) => runtimeUrl(base, name)));
  ort = await import(api).catch(() => { throw unreachable(base); });
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmPaths = { mjs, wasm };
  const model = new Uint8Array(await (await found("./model.onnx")).arrayBuffer());
  try {
    session = await ort.InferenceSession.create(model, { executionProviders: ["wasm"] });
  } catch (error) {
    throw new Error(`This runtime cannot run the model (${firstLine(error)}); export it again.`);
  }
  tokenizer = new Tokenizer(about.tokenizer);
  const bytes = Uint8Array.from(atob(about.initial_memory), (character) => character.charCodeAt(0));
  initial = new Float32Array(bytes.buffer);
  texts = [fresh()];
  await step(fresh(), about.nothing); // the first run makes buffers
  const { memory, layers, title, parameters } = about;
  say("ready", { memory, layers, title, parameters, initial, modelBytes: model.length });
}

async function found(path) {
  const answer = await fetch(path).catch(() => null);
  if (!answer?.ok) throw new Error(`${path.slice(2)} could not be loaded; serve the folder as it was exported.`);
  return answer;
}

const unreachable = (base) => new Error(`The runtime could not be loaded from ${base}; check the network.`);

/** Where to load a file of the runtime: at its own address, or, if it has to be checked, at that of the checked bytes. */
async function runtimeUrl(base, name) {
  const url = base + name, integrity = about.integrity[name];
  if (!integrity) return url;
  const answer = await fetch(url, { integrity }).catch(() => null);
  if (answer?.ok) return URL.createObjectURL(await answer.blob());
  const there = await fetch(url, { method: "HEAD" }).catch(() => null); // the browser does not say why it refused
  if (!there?.ok) throw unreachable(base);
  throw new Error(
    `${name} of ${base.host} is not the file that this page was made for, so it was not run; ` +
    "reload the page, or export it with --runtime.",
  );
}

const firstLine = (error) => String(error?.message ?? error).split("\n")[0].slice(0, 200);

/** Read one token. */
async function step(text, token) {
  const { logits, next_memory } = await session.run({
    token: new ort.Tensor("int64", BigInt64Array.of(BigInt(token)), [1]),
    memory: new ort.Tensor("float32", text.memory, [1, ...about.memory]),
  });
  text.memory = next_memory.data.slice();
  text.logits = logits.data.slice(0, tokenizer.size); // a model may have more ids than its tokenizer
  if (token !== about.nothing) text.read += 1;
}

/** The most probable id, or one drawn. draw: a function of numbers in [0, 1). */
function choose(logits, temperature, draw) {
  let best = 0;
  for (let i = 1; i < logits.length; i++) if (logits[i] > logits[best]) best = i;
  if (temperature <= 0) return best;
  const weights = Float64Array.from(logits, (value) => Math.exp((value - logits[best]) / temperature));
  let left = draw() * weights.reduce((sum, weight) => sum + weight, 0);
  for (let i = 0; i < weights.length; i++) if ((left -= weights[i]) < 0) return i;
  return best;
}

let last = 0;
/** Lets messages in, every few milliseconds. */
async function pause() {
  if (performance.now() - last < PAUSE) return;
  await new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => { port1.close(); resolve(); };
    port2.postMessage(0);
  });
  last = performance.now();
}

async function readPrompt(index, prompt) {
  const text = texts[index];
  let ids = tokenizer.encode(prompt, text.read === 0);
  if (!ids.length && text.read === 0 && about.bos !== null) ids = [about.bos];
  if (!ids.length && text.logits === null) ids = [about.nothing];
  for (let i = 0; i < ids.length && !stopped; i++) {
    await step(text, ids[i]);
    if (performance.now() - last >= PAUSE) {
      say("reading", { index, done: i + 1, of: ids.length, memory: text.memory.slice(), read: text.read });
    }
    await pause();
  }
}

/** Every text reads the prompt, then they go on in turn. seed: null for a random one. */
async function generate({ prompt, temperature, seed, most }) {
  stopped = false;
  seed ??= Math.floor(Math.random() * 2 ** 32);
  const draws = texts.map((_, index) => drawsOf(seed, index)); // a fork and the first write different texts
  const going = new Set(texts.keys());
  const ends = new Set([about.eos].flat()); // one id, a list of them, or null
  for (const index of going) await readPrompt(index, prompt);
  for (let count = 0; count < most && going.size && !stopped; count++) {
    for (const index of going) {
      const text = texts[index];
      const id = choose(text.logits, temperature, draws[index]);
      await step(text, id);
      say("token", { index, id, bytes: tokenizer.bytesOf(id), memory: text.memory.slice(), read: text.read });
      if (ends.has(id)) going.delete(index);
    }
    await pause();
  }
  say("done");
}

const commands = {
  load,
  generate,
  stop() { stopped = true; },
  restart() {
    texts = [fresh()];
    tell();
  },
  fork() {
    texts = [texts[0], { ...texts[0] }]; // a step puts another memory in, it does not write into this one
    tell();
  },
  keep({ index }) {
    texts = [texts[index]];
    tell({ kept: index });
  },
  save({ index }) {
    const { memory, read } = texts[index];
    say("saved", { bytes: writeState(memory, initial, about.memory, read), read });
  },
  open({ bytes }) {
    const { memory, numTokens } = readState(bytes, initial, about.memory);
    texts = [{ memory, read: numTokens, logits: null }];
    tell({ opened: true });
  },
};

self.onmessage = async ({ data: { command, ...rest } }) => {
  try {
    await commands[command](rest);
  } catch (error) {
    say("failed", { reason: firstLine(error), fatal: command === "load" });
  }
};
