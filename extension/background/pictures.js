// @ts-check
// Pictures in, smaller pictures out: thumbnails of the history, and the part of the screen that shows a medium.

const THUMB_PX = 112;

/** A square thumbnail as a data: URL; null for what the browser cannot read. @param {Blob} picture */
export async function thumbnail(picture) {
  const image = await createImageBitmap(picture).catch(() => null);
  if (!image) return null;
  const side = Math.min(image.width, image.height);
  const canvas = new OffscreenCanvas(THUMB_PX, THUMB_PX);
  const top = image.height > image.width ? (image.height - side) / 4 : (image.height - side) / 2; // portraits: heads are up
  pen(canvas).drawImage(image, (image.width - side) / 2, top, side, side, 0, 0, THUMB_PX, THUMB_PX);
  return `data:image/jpeg;base64,${await base64Of(await canvas.convertToBlob({ type: 'image/jpeg', quality: 0.8 }))}`;
}

/**
 * What the screen shows there, as PNG; `rect` is in CSS pixels of the viewport.
 * @param {number} windowId @param {{ x: number, y: number, width: number, height: number }} rect @param {number} ratio
 */
export async function screenPart(windowId, rect, ratio) {
  const shot = await chrome.tabs.captureVisibleTab(windowId, { format: 'png' });
  const image = await createImageBitmap(blobOf(shot.slice(shot.indexOf(',') + 1), 'image/png'));
  const [width, height] = [Math.max(1, Math.round(rect.width * ratio)), Math.max(1, Math.round(rect.height * ratio))];
  const canvas = new OffscreenCanvas(width, height);
  pen(canvas).drawImage(image, -rect.x * ratio, -rect.y * ratio);
  return canvas.convertToBlob({ type: 'image/png' });
}

/** @param {OffscreenCanvas} canvas */
function pen(canvas) {
  const context = canvas.getContext('2d');
  if (!context) throw new Error('no canvas');
  return context;
}

/** @param {string} base64 @param {string} type */
export const blobOf = (base64, type) => new Blob([Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0))], { type });

/** @param {Blob} blob */
async function base64Of(blob) {
  const bytes = new Uint8Array(await blob.arrayBuffer());
  return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(''));
}
