// One text on the page: its words, the picture of its memory, and its figures.

const BRIGHT = 2.2; // a value of a memory, whose mean square is 1, that has the full colour
const POSITIVE = [224, 110, 20], NEGATIVE = [28, 110, 214];

const bytes = (count) =>
  count < 10_000 ? `${count.toLocaleString("en")} bytes` :
  count < 1e6 ? `${(count / 1e3).toFixed(1)} kB` : `${(count / 1e6).toFixed(2)} MB`;

export class Text {
  /** about: what the worker said when it was ready. heading: shown where there are two. */
  constructor(about, heading, { onSave, onKeep }) {
    this.about = about;
    this.element = document.getElementById("text").content.firstElementChild.cloneNode(true);
    this.find = (name) => this.element.querySelector(name);
    this.find("h2").textContent = heading;
    this.element.setAttribute("aria-label", heading);
    this.find(".save").onclick = onSave;
    this.find(".keep").onclick = onKeep;
    this.log = this.find(".log");
    this.ids = [];
    this.decoder = new TextDecoder("utf-8", { ignoreBOM: true }); // a character may come in several tokens
    this.waiting = "";
    this.drawing = false;
    this.layOut();
  }

  /** Every memory token is a band of rows, so that the picture has a good shape for any K and D. */
  layOut() {
    const [K, D] = this.about.memory;
    this.rows = Math.max(1, Math.round(Math.sqrt((0.3 * D) / K)));
    this.columns = Math.ceil(D / this.rows);
    this.canvas = this.find("canvas");
    this.canvas.width = this.columns;
    this.canvas.height = K * (this.rows + 1) - 1; // one row of nothing between two bands
    this.find(".caption").textContent = `${K} memory tokens × ${D} values, all that the model knows of the text`;
    this.stateBytes = 4 * K * D;
    this.cacheBytesPerToken = 2 * this.about.layers * D * 4;
    this.find(".state").textContent = bytes(this.stateBytes);
    this.find(".state").dataset.bytes = this.stateBytes;
  }

  /** The same words and figures in another text. */
  copyFrom(other) {
    other.flush();
    this.log.replaceChildren(...[...other.log.childNodes].map((node) => node.cloneNode(true)));
    this.log.scrollTop = this.log.scrollHeight;
    this.ids = [...other.ids];
    this.decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  }

  write(text, kind) {
    this.flush();
    if (!text) return;
    const span = document.createElement("span");
    span.className = kind;
    span.textContent = text;
    this.log.append(span);
    this.log.scrollTop = this.log.scrollHeight;
  }

  begin() {
    this.started = null;
    this.log.setAttribute("aria-busy", "true"); // a screen reader reads the text when it is whole
  }

  end() {
    this.waiting += this.decoder.decode();
    this.flush();
    this.log.setAttribute("aria-busy", "false");
  }

  token({ id, bytes, memory, read }) {
    const now = performance.now();
    this.started ??= { now, count: this.ids.length };
    this.ids.push(id);
    this.waiting += this.decoder.decode(bytes, { stream: true });
    const seconds = (now - this.started.now) / 1000;
    if (seconds > 0.02) this.speed = (this.ids.length - 1 - this.started.count) / seconds;
    this.show(memory, read);
  }

  /** Draw when the browser next does. */
  show(memory, read) {
    this.memory = memory;
    this.read = read;
    if (this.drawing) return;
    this.drawing = true;
    requestAnimationFrame(() => {
      this.drawing = false;
      this.flush();
      this.draw();
    });
  }

  flush() {
    if (!this.waiting) return;
    const atEnd = this.log.scrollHeight - this.log.scrollTop - this.log.clientHeight < 40;
    const last = this.log.lastChild;
    if (last?.nodeType === Node.TEXT_NODE) last.appendData(this.waiting);
    else this.log.append(this.waiting);
    this.waiting = "";
    if (atEnd) this.log.scrollTop = this.log.scrollHeight;
  }

  draw() {
    const [K, D] = this.about.memory;
    const context = this.canvas.getContext("2d");
    const image = context.createImageData(this.canvas.width, this.canvas.height);
    for (let k = 0; k < K; k++) {
      for (let d = 0; d < D; d++) {
        const value = this.memory[k * D + d];
        const row = k * (this.rows + 1) + Math.floor(d / this.columns);
        const at = 4 * (row * this.columns + (d % this.columns));
        image.data.set(value > 0 ? POSITIVE : NEGATIVE, at);
        image.data[at + 3] = 255 * Math.min(1, Math.abs(value) / BRIGHT);
      }
    }
    context.putImageData(image, 0, 0);
    const cache = this.cacheBytesPerToken * this.read, most = Math.max(cache, this.stateBytes);
    this.canvas.setAttribute("aria-label", `The memory after ${this.read} tokens: ${K} by ${D} values`);
    this.find(".cache").textContent = bytes(cache);
    this.find(".cache").dataset.bytes = cache;
    this.find(".own").style.width = `${(100 * this.stateBytes) / most}%`;
    this.find(".other").style.width = `${(100 * cache) / most}%`;
    this.find(".read").textContent = this.read.toLocaleString("en");
    this.find(".speed").textContent = this.speed ? Math.round(this.speed).toLocaleString("en") : "–";
  }
}
