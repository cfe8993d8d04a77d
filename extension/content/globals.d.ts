// What our scripts share in the page's isolated world, beside the `var` of each file.
declare var laescan: { isAlive: () => boolean, stop: () => void } | undefined;
declare var laescanStyles: string;
/** Firefox only: a copy that belongs to the page. */
declare var cloneInto: (<T>(value: T, scope: Window) => T) | undefined;
