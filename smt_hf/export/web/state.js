// A state as a file of safetensors, in the format of `save_state` and `load_state` of smt_hf.

const FORMAT = "smt_state";
const VERSION = 1;
const SAME_MEMORY = 0.05; // another model's initial memory differs by about 1

/** memory and initial: Float32Array of K·D. Returns the bytes of a file. */
export function writeState(memory, initial, [K, D], numTokens) {
  const size = memory.byteLength;
  const header = JSON.stringify({
    __metadata__: { format: FORMAT, version: String(VERSION), num_tokens: String(numTokens) },
    initial_memory: { dtype: "F32", shape: [K, D], data_offsets: [0, size] },
    memory: { dtype: "F32", shape: [1, K, D], data_offsets: [size, 2 * size] },
  });
  const text = new TextEncoder().encode(header.padEnd(Math.ceil(header.length / 8) * 8));
  const bytes = new Uint8Array(8 + text.length + 2 * size);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(text.length), true);
  bytes.set(text, 8);
  bytes.set(new Uint8Array(initial.buffer, initial.byteOffset, size), 8 + text.length);
  bytes.set(new Uint8Array(memory.buffer, memory.byteOffset, size), 8 + text.length + size);
  return bytes;
}

/** Returns { memory, numTokens }. Throws an Error of one sentence for a file that is no state of this model. */
export function readState(bytes, initial, [K, D]) {
  let header, data;
  try {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const length = Number(view.getBigUint64(0, true));
    header = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes.subarray(8, 8 + length)));
    data = bytes.subarray(8 + length);
  } catch {
    throw new Error("This file is not a saved state.");
  }
  const about = header?.__metadata__ ?? {};
  if (about.format !== FORMAT) throw new Error("This file is not a saved state.");
  if (!(Number(about.version) <= VERSION)) {
    throw new Error(`This state has format ${about.version}; this page reads up to ${VERSION}.`);
  }
  const ends = Object.values(header).map((entry) => entry?.data_offsets?.[1] ?? 0);
  if (ends.some((end) => !(end <= data.length))) {
    throw new Error("This state is damaged: the file has lost its end.");
  }
  const start = tensor(header.initial_memory, data, K * D);
  if (start === null || start.some((value, i) => !(Math.abs(value - initial[i]) <= SAME_MEMORY))) {
    throw new Error("This state was made by another model; load one that this model saved.");
  }
  const memory = tensor(header.memory, data, K * D);
  const numTokens = Number(about.num_tokens);
  if (memory === null || !memory.every(Number.isFinite) || !Number.isInteger(numTokens) || numTokens < 0) {
    throw new Error("This state is damaged, or holds more than one text.");
  }
  return { memory, numTokens };
}

/** The float32 values, or null where the file has no such tensor. */
function tensor(entry, data, size) {
  const [from, to] = entry?.data_offsets ?? [];
  if (entry?.dtype !== "F32" || to - from !== 4 * size || !(from >= 0) || to > data.length) return null;
  return new Float32Array(data.slice(from, to).buffer);
}
