// @ts-check
// The shapes that travel: what the server says (scanner/contract.py, api/messages.py), what we keep, what is shown.
// Nothing runs here.

/** @typedef {'manipulated' | 'inconclusive' | 'authentic' | 'no_face'} Label */
/** @typedef {{ size: number, grid: string, peak: number, crop_to_frame: number[] }} AttentionMap  grid: base64 */
/**
 * @typedef {object} Face
 * @property {number[]} box x0, y0, x1, y1 in pixels of the frame
 * @property {number} frame index into `frames`
 * @property {number} track
 * @property {number | null} score
 * @property {AttentionMap | null} attention
 * @property {string[]} warnings
 */
/** @typedef {{ index: number, time_s: number | null, width: number, height: number, score: number | null }} Frame */
/**
 * @typedef {object} Verdict
 * @property {Label} label
 * @property {number | null} score
 * @property {{ authentic: number, manipulated: number }} thresholds
 * @property {{ box: number[], score: number }[]} regions
 * @property {string} reason
 * @property {Face[]} faces
 * @property {Frame[]} frames
 * @property {{ start_s: number, end_s: number, score: number } | null} worst_span
 * @property {{ kind: 'image' | 'animation' | 'video', format: string, size_bytes: number, width: number, height: number, sha256: string, duration_s: number | null }} media
 * @property {{ model_id: string, backend: string, precision: string }} model
 * @property {{ kind: 'miss' | 'exact' | 'near', distance: number | null, age_s: number | null }} cache
 * @property {string[]} warnings
 */
/** @typedef {{ code: string, message: string, retryable: boolean }} Failure */
/** @typedef {{ verdict: Verdict | null, failure: Failure | null }} Outcome */
/**
 * @typedef {object} Scan
 * @property {string | null} id
 * @property {'queued' | 'running' | 'done' | 'failed' | 'cancelled'} state
 * @property {string | null} stage
 * @property {number | null} percent
 * @property {number | null} position
 * @property {Outcome | null} outcome
 */

/**
 * What somebody pointed at. `url` is what the server is asked to fetch; null when only this browser has the medium.
 * @typedef {object} Source
 * @property {'image' | 'video' | 'link' | 'page' | 'selection'} kind
 * @property {string | null} url
 * @property {string} page
 * @property {boolean} held whether the page shows the medium, so that its bytes or its picture can be had from here
 * @property {'page_instead' | null} note
 */
/** @typedef {'new' | 'following' | 'consent' | 'sending' | 'trouble' | 'ended'} Phase */
/** @typedef {'bytes' | 'frame' | 'screen'} Means  how an upload was made: the file itself, a copied frame, what the screen shows */
/**
 * One check, kept until the history drops it. `turn` counts the asks, so that each has an Idempotency-Key of its own.
 * @typedef {object} Check
 * @property {string} id
 * @property {number} turn
 * @property {number} createdMs
 * @property {number | null} tab
 * @property {Source} source
 * @property {string} server
 * @property {Phase} phase
 * @property {boolean} rescan
 * @property {string | null} scan the server's id
 * @property {string | null} stage
 * @property {number | null} percent
 * @property {number | null} position
 * @property {Means | null} sent
 * @property {Outcome | null} outcome
 * @property {number | null} endedMs
 * @property {{ code: string, message: string } | null} trouble
 * @property {string | null} thumb
 * @property {boolean} disputed
 */

/** @typedef {Label | 'failed' | 'offline' | 'consent' | 'checking'} State */
/** @typedef {{ score: number, low: number, high: number, number: string, told: string }} Gauge */
/** @typedef {{ name: string, words: string, state: State, box: number[], frame: number, map: AttentionMap | null }} FaceView */
/** @typedef {{ time: number, score: number | null, state: State, clock: string, words: string }} FrameView */
/** @typedef {{ end: number, low: number, high: number, frames: FrameView[], span: { start: number, end: number } | null, told: string }} Timeline */
/**
 * All that is shown of a check, in words: surfaces only draw it.
 * @typedef {object} View
 * @property {string} id
 * @property {State} state
 * @property {boolean} busy
 * @property {string} headline
 * @property {string} detail one line: the stage while busy, the source otherwise
 * @property {number | null} percent
 * @property {string} reason
 * @property {boolean} english whether `reason` is the server's own sentence
 * @property {string} advice
 * @property {string[]} notes
 * @property {string} remembered
 * @property {string} when
 * @property {Gauge | null} gauge
 * @property {Timeline | null} timeline
 * @property {FaceView[]} faces
 * @property {{ width: number, height: number }[]} frames sizes, as `faces[].frame` counts
 * @property {[string, string][]} facts
 * @property {{ question: string, site: string } | null} consent
 * @property {string | null} link
 * @property {boolean} report
 * @property {boolean} disputed
 * @property {boolean} wanted whether the page is to send what it shows
 * @property {string | null} thumb
 */

export {};
