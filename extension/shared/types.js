// @ts-check
// The shapes that travel: what the server says (server.d.ts, made from its contract), what we keep, what is shown.
// Nothing runs here.

/** @typedef {import('./server').Label} Label */
/** @typedef {import('./server').AttentionMap} AttentionMap */
/** @typedef {import('./server').Verdict} Verdict */
/** @typedef {import('./server').Failure} Failure */
/** What is kept of a scan's end. @typedef {{ verdict: Verdict | null, failure: Failure | null }} Outcome */
/** @typedef {import('./server').Scan} Scan */

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
 * What a user said of a verdict. `sent`: the server has it, too; `trouble`: why it has not, or has it still.
 * @typedef {object} Dispute
 * @property {'authentic' | 'manipulated' | 'other'} expected
 * @property {string} note
 * @property {boolean} sent
 * @property {{ code: string, message: string } | null} trouble
 */
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
 * @property {boolean | null} differs whether the server was given another file than this browser; null: nobody compared
 * @property {boolean} declined whether the user said no to sending what the browser has
 * @property {Dispute | null} disputed
 */

/** @typedef {Label | 'failed' | 'offline' | 'consent' | 'checking'} State */
/** @typedef {{ score: number, low: number, high: number, number: string, told: string }} Gauge */
/** @typedef {{ name: string, words: string, state: State, box: readonly number[], frame: number, map: AttentionMap | null }} FaceView */
/** @typedef {{ words: string, box: readonly number[] }} RegionView */
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
 * @property {RegionView[]} regions
 * @property {{ width: number, height: number }[]} frames sizes, as `faces[].frame` counts
 * @property {[string, string][]} facts
 * @property {{ question: string, site: string } | null} consent  `site` empty: only once
 * @property {string | null} link
 * @property {boolean} report
 * @property {{ words: string, sent: boolean } | null} disputed
 * @property {string} server where a report would go to
 * @property {boolean} wanted whether the page is to send what it shows
 * @property {boolean} compared whether the page is to say which file it shows
 * @property {string | null} thumb
 */

export {};
