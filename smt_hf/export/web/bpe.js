// Byte-level BPE as GPT-2's, and plain bytes, which are BPE without merges.

const WORDS = /'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\p{White_Space}\p{L}\p{N}]+|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+/gu;

/** The character that stands for each byte in a vocabulary. */
function byteCharacters() {
  const printable = (b) => (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
  let next = 256;
  return Array.from({ length: 256 }, (_, b) => String.fromCharCode(printable(b) ? b : next++));
}

const escaped = (text) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");

export class Tokenizer {
  /** described: `tokenizer` of model.json. */
  constructor({ pieces, merges, words, special, prefix }) {
    const ids = new Map(pieces.map((piece, id) => [piece, id]));
    const characters = byteCharacters();
    const byteOf = new Map(characters.map((character, byte) => [character, byte]));
    this.words = words;
    this.prefix = prefix;
    this.special = new Map(Object.entries(special));
    this.specialAt = this.special.size
      ? new RegExp([...this.special.keys()].sort((a, b) => b.length - a.length).map(escaped).join("|"), "g")
      : null;
    this.idOfByte = characters.map((character) => ids.get(character));
    this.bytes = pieces.map((piece) => Uint8Array.from(piece ?? "", (character) => byteOf.get(character)));
    this.size = pieces.length;
    this.merges = new Map();
    merges.forEach(([left, right], rank) => {
      const pair = this.pair(ids.get(left), ids.get(right));
      this.merges.set(pair, [rank, ids.get(left + right)]);
    });
  }

  pair(left, right) {
    return left * this.size + right;
  }

  /** Ids of a text, with the prefix where it is the first that is read. */
  encode(text, first = true) {
    const found = first ? [...this.prefix] : [];
    let end = 0;
    for (const match of this.specialAt ? text.matchAll(this.specialAt) : []) {
      this.encodePlain(text.slice(end, match.index), found);
      found.push(this.special.get(match[0]));
      end = match.index + match[0].length;
    }
    this.encodePlain(text.slice(end), found);
    return found;
  }

  encodePlain(text, found) {
    const encoder = new TextEncoder();
    const known = new Map();
    for (const [word] of this.words ? text.matchAll(WORDS) : text ? [[text]] : []) {
      let ids = known.get(word);
      if (ids === undefined) {
        ids = this.merged(Array.from(encoder.encode(word), (byte) => this.idOfByte[byte]));
        known.set(word, ids);
      }
      for (const id of ids) found.push(id);
    }
  }

  /** Each time, all pairs of the lowest rank become one piece. */
  merged(ids) {
    while (ids.length > 1 && this.merges.size) {
      let lowest = Infinity, best = -1, becomes = -1;
      for (let i = 0; i + 1 < ids.length; i++) {
        const pair = this.pair(ids[i], ids[i + 1]);
        const merge = this.merges.get(pair);
        if (merge !== undefined && merge[0] < lowest) [lowest, becomes, best] = [...merge, pair];
      }
      if (best < 0) break;
      const next = [];
      for (let i = 0; i < ids.length; i++) {
        if (i + 1 < ids.length && this.pair(ids[i], ids[i + 1]) === best) {
          next.push(becomes);
          i++;
        } else next.push(ids[i]);
      }
      ids = next;
    }
    return ids;
  }

  /** The bytes of one token; a special one has none. One character may be spread over several tokens. */
  bytesOf(id) {
    return this.bytes[id] ?? new Uint8Array(0);
  }
}
