// Numbers that a seed makes, the same in every browser.

/** Returns a function of draws in [0, 1): sfc32. seed and stream: 32 bits each; a stream is a sequence of its own. */
export function drawsOf(seed, stream) {
  let a = stream, b = seed, c = 0, counter = 1;
  const draw = () => {
    const sum = (a + b + counter++) >>> 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (((c << 21) | (c >>> 11)) + sum) | 0;
    return sum / 2 ** 32;
  };
  for (let i = 0; i < 12; i++) draw(); // the first numbers of near seeds are alike
  return draw;
}
