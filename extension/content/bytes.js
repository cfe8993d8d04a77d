// @ts-check
// What the browser has of a medium, after its user agreed: the file itself, else a copied frame, else what the screen shows.

var bytes = (() => {
  const MOST_BYTES = 30_000_000;
  const MOST_COMPARED = 10_000_000;
  const MOST_SIDE = 4096;

  /** @param {Blob} blob @returns {Promise<string>} */
  const base64 = (blob) => new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(String(reader.result).split(',', 2)[1] ?? '');
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });

  /** The file, where the page may read it: data:, blob:, its own and what others share. @param {string} address */
  async function file(address) {
    try {
      const response = await fetch(address, { cache: 'force-cache' });
      const blob = await response.blob();
      const fits = response.ok && blob.size > 0 && blob.size <= MOST_BYTES && !/^(text|application\/(json|xhtml))/.test(blob.type);
      return fits ? blob : null;
    } catch {
      return null; // another site's, or no more there
    }
  }

  /** The frame that a video shows, where the page may read it. @param {HTMLVideoElement} video @returns {Promise<Blob | null>} */
  async function frame(video) {
    const scale = Math.min(1, MOST_SIDE / Math.max(video.videoWidth, video.videoHeight));
    const canvas = dom.el('canvas', { width: Math.round(video.videoWidth * scale), height: Math.round(video.videoHeight * scale) });
    try {
      canvas.getContext('2d').drawImage(video, 0, 0, canvas.width, canvas.height);
      return await new Promise((resolve) => canvas.toBlob(resolve, 'image/png'));
    } catch {
      return null; // another site's: the canvas may not be read
    }
  }

  /** @param {Element} element @param {string | null} shown address of a background @returns {Promise<object>} a message without its id */
  async function read(element, shown) {
    if (element instanceof HTMLVideoElement) {
      const whole = element.currentSrc.startsWith('blob:') ? await file(element.currentSrc) : null;
      if (whole?.type.startsWith('video/')) return { type: 'upload', means: 'bytes', mime: whole.type, base64: await base64(whole) };
      const still = await frame(element);
      if (still) return { type: 'upload', means: 'frame', mime: 'image/png', base64: await base64(still) };
    } else {
      const address = shown ?? (/** @type {HTMLImageElement} */ (element).currentSrc || /** @type {HTMLImageElement} */ (element).src);
      const blob = await file(address);
      if (blob) return { type: 'upload', means: 'bytes', mime: blob.type || 'application/octet-stream', base64: await base64(blob) };
    }
    return screen(element);
  }

  /** The file behind an address that the page shows, for comparison; null where the page may not read it. @param {string} address */
  async function copy(address) {
    const blob = await file(address);
    return blob && blob.size <= MOST_COMPARED ? base64(blob) : null;
  }

  /** @param {Element} element */
  async function screen(element) {
    element.scrollIntoView({ block: 'nearest', behavior: 'instant' });
    await host.without(); // our own badge is not part of the picture
    const rect = place.common(element.getBoundingClientRect(), { x: 0, y: 0, width: innerWidth, height: innerHeight });
    const { x = 0, y = 0, width = 1, height = 1 } = rect ?? {};
    return { type: 'capture', rect: { x, y, width, height }, ratio: devicePixelRatio };
  }

  return { read, copy };
})();
