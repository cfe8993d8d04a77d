// @ts-check
// A map or two pictures in, a layer in the colours of the report out: the stronger, the less see-through.

const DIFFERENCE_GAIN = 4; // a forged pixel differs by a tenth of the scale and should be well seen

/** @typedef {(t: number) => [number, number, number, number]} Paint 0..1 to RGBA */

/** @param {number[][]} ramp 256 RGB colours @returns {Paint} */
export function paint(ramp) {
  return (t) => {
    const [r, g, b] = ramp[Math.round(255 * Math.min(1, t))];
    return [r, g, b, 255 * Math.min(0.85, 0.15 + 1.1 * t)];
  };
}

/** Where the model looks: a small grey picture, smoothly enlarged. @param {ImageBitmap} map @param {Paint} colour */
export function attention(map, width, height, colour) {
  return layer(pixels(map, width, height), (d, i) => d[i] / 255, width, height, colour);
}

/** Where the forgery differs from its original. @param {ImageBitmap} fake @param {ImageBitmap} original */
export function difference(fake, original, colour) {
  const { width, height } = fake;
  const before = pixels(original, width, height);
  const grey = (d, i) => 0.299 * d[i] + 0.587 * d[i + 1] + 0.114 * d[i + 2];
  const strength = (d, i) => (DIFFERENCE_GAIN * Math.abs(grey(d, i) - grey(before, i))) / 255;
  return layer(pixels(fake, width, height), strength, width, height, colour);
}

function pixels(bitmap, width, height) {
  const ctx = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  ctx.imageSmoothingQuality = "high";
  ctx.drawImage(bitmap, 0, 0, width, height);
  return ctx.getImageData(0, 0, width, height).data;
}

function layer(data, strength, width, height, colour) {
  const image = new ImageData(width, height);
  for (let i = 0; i < data.length; i += 4) image.data.set(colour(strength(data, i)), i);
  const canvas = new OffscreenCanvas(width, height);
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}
