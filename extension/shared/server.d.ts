// What the server says, made from its own description (scanner/contract.py, api/messages.py) by `make docs`.
// Do not edit: tests/test_schema.py fails while it differs.

/**
 * Where the evidence for `manipulated` lies in one crop.
 *
 * `grid` is size x size bytes, row by row (base64 in JSON): 0 = none, 255 = the strongest cell.
 * `peak` is the strongest cell's contribution before scaling (unit: activation).
 * `crop_to_frame` is the 2x3 affine (a, b, c, d, e, f) that takes crop coordinates 0..1 to frame
 * pixels: x = a*u + b*v + c, y = d*u + e*v + f.
 */
export interface AttentionMap {
  readonly size: number;
  readonly grid: string;
  readonly peak: number;
  readonly crop_to_frame: readonly [number, number, number, number, number, number];
}

/** A list of URLs and how far it is; `states` counts its scans by state. */
export interface Batch {
  readonly id: string;
  readonly count: number;
  readonly created_s: number;
  readonly states: Readonly<Record<string, number>>;
  readonly results: string;
}

/**
 * Where the verdict came from; distance (bits) and age for a remembered one.
 *
 * `near` is provisional: it is the verdict on another picture, whose sha256 is `root`, of which this one is a
 * re-encoded copy. With `audit` these very bytes are to be scanned, too, when there is time.
 * `by` tells what of an `exact` one was the same: the URL alone, which was not asked again, the bytes, or the pixels.
 */
export interface CacheInfo {
  readonly kind: 'exact' | 'miss' | 'near';
  readonly distance: number | null;
  readonly age_s: number | null;
  readonly root: string | null;
  readonly audit: boolean;
  readonly by?: 'pixels' | 'sha256' | 'url' | null;
}

/** The shape of every refusal. */
export interface ErrorBody {
  readonly error: ErrorDetail;
}

/** `code` is stable and for programs, `message` says what to change, `request_id` finds the trace in the log. */
export interface ErrorDetail {
  readonly code: string;
  readonly message: string;
  readonly request_id: string;
  readonly retryable: boolean;
}

/** One face in one frame: where, when, how likely manipulated, and why. */
export interface FaceEvidence {
  readonly box: readonly [number, number, number, number];
  readonly frame: number;
  readonly track: number;
  readonly score: number | null;
  readonly quality: number;
  readonly attention: AttentionMap | null;
  readonly warnings: readonly string[];
}

/** Why there is no verdict; `code` is one of `scanner.errors`. */
export interface Failure {
  readonly code: string;
  readonly message: string;
  readonly retryable: boolean;
  readonly retry_after_s: number | null;
}

/** A report that a verdict is wrong, beside what the verdict said. The medium itself is not kept. */
export interface Feedback {
  readonly scan: string;
  readonly created_s: number;
  readonly expected: string;
  readonly note: string;
  readonly source: string;
  readonly sha256: string;
  readonly label: Label;
  readonly score: number | null;
  readonly model_id: string;
}

/** One row of a lookup: the key as asked, and what is known; null: nothing. */
export interface Found {
  readonly key: string;
  readonly known: Known | null;
}

/** One sampled frame; `time_s` is null for a still picture, `score` when no face was judged. */
export interface FrameEvidence {
  readonly index: number;
  readonly time_s: number | null;
  readonly width: number;
  readonly height: number;
  readonly score: number | null;
}

/** `ok`, or what is missing. */
export interface Health {
  readonly status: 'ok' | 'unavailable';
  readonly checks: Readonly<Record<string, string>>;
}

/** The short form of a remembered verdict: all but the evidence. */
export interface Known {
  readonly label: Label;
  readonly score: number | null;
  readonly reason: string;
  readonly thresholds: Thresholds;
  readonly sha256: string;
  readonly model_id: string;
  readonly age_s: number | null;
}

/** What we say of a medium. */
export type Label = 'authentic' | 'inconclusive' | 'manipulated' | 'no_face';

/** Paths on this server; `page` is for people. */
export interface Links {
  readonly self: string;
  readonly events: string;
  readonly report: string;
  readonly overlay: string;
  readonly receipt: string;
  readonly page: string;
}

/** Up to 1,000 keys; one row comes back for each, in the same order. Never scans. */
export interface LookUp {
  readonly keys: readonly string[];
}

/** One row for each key, in the same order. */
export interface LookedUp {
  readonly rows: readonly Found[];
}

/** What was judged. */
export interface Media {
  readonly kind: 'animation' | 'image' | 'video';
  readonly format: string;
  readonly size_bytes: number;
  readonly width: number;
  readonly height: number;
  readonly sha256: string;
  readonly duration_s: number | null;
  readonly frame_count: number | null;
}

/** Who judged; `model_id` = digest of weights + preprocessing + thresholds. */
export interface ModelInfo {
  readonly model_id: string;
  readonly backend: string;
  readonly precision: string;
}

/** Exactly one of `verdict` and `failure` is set; `source` is as the user gave it. */
export interface Outcome {
  readonly source: string;
  readonly verdict: Verdict | null;
  readonly failure: Failure | null;
}

/** Compare the full digests yourself: the server does not learn which one you meant. */
export interface PrefixMatches {
  readonly matches: readonly PrefixRow[];
  readonly keep_s: number;
}

/** One file whose SHA-256 starts with the prefix. */
export interface PrefixRow {
  readonly sha256: string;
  readonly known: Known;
}

/** A part of the whole picture that looks inpainted (not a face); pictures only, no videos or animations. */
export interface Region {
  readonly box: readonly [number, number, number, number];
  readonly score: number;
}

/**
 * One ask, from the queue to its outcome. Times are seconds since 1970.
 *
 * `id` and `links` are null when the verdict is remembered and the scan that found it is forgotten.
 * `position` counts the scans ahead, `stage` and `percent` tell what is done. `outcome` comes with the last state.
 */
export interface Scan {
  readonly id: string | null;
  readonly state: 'cancelled' | 'done' | 'failed' | 'queued' | 'running';
  readonly source: string;
  readonly queue: 'bulk' | 'interactive';
  readonly stage: string | null;
  readonly percent: number | null;
  readonly position: number | null;
  readonly attempt: number;
  readonly created_s: number | null;
  readonly started_s: number | null;
  readonly finished_s: number | null;
  readonly outcome: Outcome | null;
  readonly links: Links | null;
}

/** One signature; `keyid` is a hint which key to try, nothing more. */
export interface Signature {
  readonly keyid: string;
  readonly sig: string;
}

/** A DSSE envelope: `payload` is a Receipt as JSON in base64. `laescan verify` checks it offline. */
export interface SignedReceipt {
  readonly payloadType: string;
  readonly payload: string;
  readonly signatures: readonly Signature[];
}

/** The stretch of a video with the strongest evidence. */
export interface Span {
  readonly start_s: number;
  readonly end_s: number;
  readonly score: number;
}

/** Have a list of URLs judged when nothing more urgent waits. */
export interface SubmitBatch {
  readonly urls: readonly string[];
  readonly rescan?: boolean;
}

/** Tell that a verdict is wrong: what the medium is, as far as the sender knows, and anything else in words. */
export interface SubmitFeedback {
  /** What the label should have been; `other`: something else is wrong, as the note says. */
  readonly expected: 'authentic' | 'manipulated' | 'other';
  readonly note?: string;
}

/** Have one URL judged. `rescan` asks for a new scan even when a verdict is remembered. */
export interface SubmitScan {
  /** An http or https URL of a picture, a video or a page that shows one. */
  readonly url: string;
  readonly rescan?: boolean;
}

/** Label rule: score >= manipulated -> manipulated, <= authentic -> authentic, else inconclusive. */
export interface Thresholds {
  readonly authentic: number;
  readonly manipulated: number;
}

/**
 * The answer for one medium, with its evidence.
 *
 * `score` is the larger of what the faces (of a picture: its `frames[0].score`) and the strongest region say.
 * `region_threshold` is null where only faces were looked at; it is never below `thresholds.manipulated`, so the label
 * rule holds for every score.
 */
export interface Verdict {
  readonly version: 1;
  readonly label: Label;
  readonly score: number | null;
  readonly thresholds: Thresholds;
  readonly reason: string;
  readonly faces: readonly FaceEvidence[];
  readonly frames: readonly FrameEvidence[];
  readonly worst_span: Span | null;
  readonly regions: readonly Region[];
  readonly region_threshold: number | null;
  readonly media: Media;
  readonly model: ModelInfo;
  readonly cache: CacheInfo;
  readonly timings_s: Readonly<Record<string, number>>;
  readonly warnings: readonly string[];
}

/** What is remembered; empty when nothing is. */
export interface Verdicts {
  readonly verdicts: readonly Verdict[];
}
