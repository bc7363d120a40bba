// The page: what the visitor does goes to the worker, what the worker says is shown.

import { Text } from "./text.js";

const at = (id) => document.getElementById(id);
const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
const order = (command, more = {}) => worker.postMessage({ command, ...more });

let about = null;
let texts = [];
let busy = true;

function status(sentence, wrong = false) {
  at("status").textContent = sentence;
  at("status").classList.toggle("wrong", wrong);
}

function setBusy(value) {
  busy = value;
  const dead = about === null;
  for (const id of ["generate", "open", "restart", "fork"]) at(id).disabled = dead || busy;
  at("fork").disabled ||= texts.length > 1;
  at("stop").disabled = dead || !busy;
  for (const button of document.querySelectorAll(".save, .keep")) button.disabled = dead || busy;
}

function addText(heading) {
  const text = new Text(about, heading, {
    onSave: () => order("save", { index: texts.indexOf(text) }),
    onKeep: () => order("keep", { index: texts.indexOf(text) }),
  });
  texts.push(text);
  at("texts").append(text.element);
  return text;
}

/** As many texts as the worker has: a second is the first's fork, and of two the one kept stays. */
function follow(told, kept) {
  if (kept !== undefined) {
    texts[1 - kept].element.remove();
    texts = [texts[kept]];
  } else if (told.length === 1) {
    at("texts").replaceChildren();
    texts = [];
    addText("Text");
  } else addText("Fork").copyFrom(texts[0]);
  texts.forEach((text, i) => text.show(told[i].memory, told[i].read));
}

const answers = {
  ready(said) {
    about = said;
    const millions = (said.parameters / 1e6).toFixed(1);
    at("about").textContent =
      `A recurrent language model of ${millions} million weights, in your browser. ` +
      "Its whole memory is the picture below.";
    follow([{ memory: said.initial, read: 0 }]);
    status("Ready.");
    setBusy(false);
  },
  reading({ index, done, of, memory, read }) {
    texts[index].show(memory, read);
    status(`Reading: token ${done.toLocaleString("en")} of ${of.toLocaleString("en")}.`);
  },
  token(said) {
    if (at("status").textContent !== "Writing …") status("Writing …");
    texts[said.index].token(said);
  },
  done() {
    texts.forEach((text) => text.end());
    status("Done. Generate again to go on.");
    setBusy(false);
  },
  texts({ texts: told, kept, opened }) {
    follow(told, kept);
    if (opened) texts[0].write(`[a memory of ${told[0].read.toLocaleString("en")} tokens]\n`, "note");
    status(opened ? "The state is loaded. Generate goes on from it." : "Ready.");
    setBusy(false);
  },
  saved({ bytes, read }) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([bytes], { type: "application/octet-stream" }));
    link.download = `state-${read}.safetensors`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
    status(`Saved ${link.download}, ${bytes.length.toLocaleString("en")} bytes.`);
  },
  failed({ reason, fatal }) {
    if (fatal) about = null;
    texts.forEach((text) => text.end());
    status(reason, true);
    setBusy(false);
  },
};

worker.onmessage = ({ data }) => answers[data.kind](data);
worker.onerror = (event) => {
  event.preventDefault();
  answers.failed({ reason: "The page's worker could not start; update the browser.", fatal: true });
};

function generate() {
  if (at("generate").disabled || !at("form").reportValidity()) return;
  const prompt = at("prompt").value;
  at("prompt").value = "";
  setBusy(true);
  for (const text of texts) {
    text.write(prompt, "prompt");
    text.begin();
  }
  const number = (id) => Number(at(id).value);
  const seed = at("seed").value === "" ? null : number("seed");
  order("generate", { prompt, temperature: number("temperature"), seed, most: number("most") });
}

at("form").onsubmit = (event) => {
  event.preventDefault();
  generate();
};
at("prompt").onkeydown = (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) generate();
};
document.onkeydown = (event) => {
  if (event.key === "Escape") order("stop");
};
at("temperature").oninput = () => {
  at("temperature-shown").textContent = Number(at("temperature").value).toFixed(2).replace(/0$/, "");
};
at("stop").onclick = () => order("stop");
at("fork").onclick = () => order("fork");
at("restart").onclick = () => order("restart");
at("open").onclick = () => at("file").click();
at("file").onchange = async () => {
  const [file] = at("file").files;
  at("file").value = "";
  if (file) order("open", { bytes: new Uint8Array(await file.arrayBuffer()) });
};

globalThis.smtTexts = () => texts; // the ids of what was written, for whoever opens the console
order("load");
