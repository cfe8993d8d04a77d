// @ts-check
// Key presses in, names of actions out; the help lists the same table.

/** @typedef {{keys: string[], shown: string, words: string, action: string}} Shortcut */

const key = (keys, shown, words, action) => ({ keys, shown, words, action });

/** Keys are as `KeyboardEvent.key`, lower case, with `ctrl+` and `shift+` where they matter. @type {Shortcut[]} */
export const SHORTCUTS = [
  key(["b"], "B", "Brush", "brush"),
  key(["e"], "E", "Eraser", "eraser"),
  key(["g"], "G", "Polygon: click its corners, or drag around", "polygon"),
  key(["r"], "R", "Box", "box"),
  key(["h"], "H", "Move the picture", "hand"),
  key(["["], "[", "Smaller brush", "smaller"),
  key(["]"], "]", "Larger brush", "larger"),
  key(["ctrl+z"], "Ctrl Z", "Undo", "undo"),
  key(["ctrl+shift+z", "ctrl+y"], "Ctrl Shift Z", "Redo", "redo"),
  key(["delete"], "Delete", "Clear the mask", "clear"),
  key(["v"], "V", "Mask on or off", "mask"),
  key(["m"], "M", "Where the model looks", "attention"),
  key(["d"], "D", "Difference to the original", "difference"),
  key(["o"], "O", "The original instead", "original"),
  key(["a"], "A", "Mask from the difference", "begin"),
  key(["+", "="], "+", "Zoom in", "in"),
  key(["-"], "−", "Zoom out", "out"),
  key(["0"], "0", "Fit", "fit"),
  key(["n", "pagedown"], "N", "Keep this mask, next picture", "next"),
  key(["shift+n", "pageup"], "Shift N", "Previous picture", "previous"),
  key(["s"], "S", "Skip: leave this picture out", "skip"),
  key(["?"], "?", "This help", "help"),
];

/** What the canvas listens to while it has the focus. */
export const PEN_KEYS = [
  ["Arrows", "Move the pen; with Shift pixel by pixel"],
  ["Space", "Pen down and up, a corner; held: drag the picture"],
  ["Enter", "Close the polygon"],
  ["Backspace", "Take the last corner back"],
  ["Esc", "Drop what is begun"],
];

/** @param {KeyboardEvent} event @param {boolean} letters whether single letters count @returns {string | null} */
export function actionOf(event, letters) {
  if (event.altKey) return null;
  const name = event.key.toLowerCase();
  const command = event.ctrlKey || event.metaKey;
  if (!command && !letters && name.length === 1) return null;
  const shift = event.shiftKey && /^[a-z]$/.test(name); // of other keys Shift is how they are typed
  const typed = `${command ? "ctrl+" : ""}${shift ? "shift+" : ""}${name}`;
  return SHORTCUTS.find(({ keys }) => keys.includes(typed))?.action ?? null;
}

/** Fill the list of the help. @param {HTMLElement} list a <dl> */
export function explain(list) {
  const rows = [...SHORTCUTS.map(({ shown, words }) => [shown, words]), ...PEN_KEYS];
  for (const [shown, words] of rows) {
    const row = document.createElement("div"), term = document.createElement("dt"), meaning = document.createElement("dd");
    for (const part of shown.split(" ")) term.append(Object.assign(document.createElement("kbd"), { textContent: part }));
    meaning.textContent = words;
    row.append(term, meaning);
    list.append(row);
  }
}
