/** People followed through a video: boxes from the poses before, ids, the One-Euro filter (Casiez et al., CHI 2012). */

import { iou } from "./geometry.js";

/** @typedef {import("./geometry.js").Box} Box */
/** @typedef {import("./estimator.js").Pose} Pose */
/** @typedef {import("./estimator.js").Keypoint} Keypoint */
/** @typedef {{minCutoff: number, beta: number, derivativeCutoff: number, minScore: number}} OneEuro */
/**
 * @typedef {object} TrackingSettings
 * @property {number} detectEvery the detector looks at every n-th frame, and where nobody is followed
 * @property {number} startScore lowest box score that begins a track
 * @property {number} lostScore mean of the best third of the keypoint scores below which a track ends
 * @property {number} covered IoU from which a detection and a track are the same person
 * @property {number} unconfirmed detections in a row that may miss a track before it ends
 * @property {number} certain lowest score of keypoints that say where the person is
 * @property {number} margin by which a box is wider than its keypoints, of its longer side
 * @property {number} shrink of a box from frame to frame, of the way
 * @property {OneEuro} smoothing
 */
/** @typedef {{x: number, y: number, vx: number, vy: number, seconds: number}} Filtered */
/** @typedef {{id: number, box: Box, score: number, missed: number, filters: Map<string, Filtered>}} Track id 0: new */

export class PoseTracker {
  /** @type {Track[]} */
  #tracks = [];
  #nextId = 1;
  #sinceDetection = Infinity;

  /** @param {import("./estimator.js").PoseEstimator} estimator */
  constructor(estimator) {
    this.estimator = estimator;
    this.settings = estimator.settings.tracking;
  }

  /**
   * The people in the next frame, with `id`s and smoothed keypoints.
   * @param {ImageData} image
   * @param {number} seconds the frame's time
   * @returns {Promise<Pose[]>}
   */
  async next(image, seconds) {
    if (++this.#sinceDetection >= this.settings.detectEvery || !this.#tracks.length) {
      this.#meet(await this.estimator.detect(image));
      this.#sinceDetection = 0;
    }
    const tracks = this.#tracks, found = await this.estimator.posesIn(image, tracks);
    const certain = found.filter((pose) => this.#confidence(pose) >= this.settings.lostScore);
    // Of two poses of one person, the one who is followed already stays.
    const kept = this.estimator.distinct(certain, (pose) => pose.score + (tracks[found.indexOf(pose)].id ? 1 : 0));
    const lost = tracks.some((track, i) => track.id && !kept.includes(found[i]));
    if (lost) this.#sinceDetection = Infinity; // the detector looks for them in the next frame
    this.#tracks = tracks.filter((_, i) => kept.includes(found[i]));
    return kept.map((pose) => {
      const track = tracks[found.indexOf(pose)], size = Math.sqrt(Math.max(pose.box.width * pose.box.height, 1));
      track.id ||= this.#nextId++;
      track.box = this.#nextBox(pose.keypoints, track.box);
      const keypoints = pose.keypoints.map((keypoint) => this.#smoothed(track, keypoint, size, seconds));
      return { ...pose, keypoints, id: track.id };
    });
  }

  /**
   * Compare detections with the tracks: those that fit renew a track's box, others begin tracks.
   * @param {{box: Box, score: number}[]} detections
   */
  #meet(detections) {
    const { covered, startScore, unconfirmed } = this.settings;
    const known = this.#tracks, met = new Set();
    for (const { box, score } of detections) {
      const overlaps = known.map((track) => (met.has(track) ? -1 : iou(track.box, box)));
      const best = known[overlaps.indexOf(Math.max(...overlaps))];
      if (best && Math.max(...overlaps) >= covered) {
        Object.assign(best, { box, score, missed: 0 });
        met.add(best);
      } else if (score >= startScore) {
        this.#tracks = [...this.#tracks, { id: 0, box, score, missed: 0, filters: new Map() }];
      }
    }
    for (const track of known) if (!met.has(track)) track.missed++;
    this.#tracks = this.#tracks.filter((track) => track.missed < unconfirmed);
  }

  /** @param {Pose} pose */
  #confidence({ keypoints }) {
    const best = keypoints.map(({ score }) => score).sort((a, b) => b - a).slice(0, Math.ceil(keypoints.length / 3));
    return best.reduce((sum, score) => sum + score, 0) / best.length;
  }

  /**
   * Where to look next: around the certain keypoints, and not at once without what the last box held.
   * @param {Keypoint[]} keypoints
   * @param {Box} box
   * @returns {Box}
   */
  #nextBox(keypoints, box) {
    const { certain, margin, shrink } = this.settings;
    const seen = keypoints.filter(({ score }) => score >= certain);
    if (seen.length < 2) return box;
    const [xs, ys] = [seen.map(({ x }) => x), seen.map(({ y }) => y)];
    const [x1, y1, x2, y2] = [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)];
    const more = margin * Math.max(x2 - x1, y2 - y1), keep = 1 - shrink;
    const low = [x1 - more, y1 - more].map((value, i) => value - keep * Math.max(value - box[i], 0));
    const high = [x2 + more, y2 + more].map((value, i) => value + keep * Math.max(box[i + 2] - value, 0));
    return [low[0], low[1], high[0], high[1]];
  }

  /**
   * @param {Track} track
   * @param {Keypoint} keypoint
   * @param {number} size of the person, in pixels
   * @param {number} seconds
   * @returns {Keypoint}
   */
  #smoothed({ filters }, keypoint, size, seconds) {
    const { minCutoff, beta, derivativeCutoff, minScore } = this.settings.smoothing;
    const { x, y, name } = keypoint, last = filters.get(name);
    if (keypoint.score < minScore) return keypoint;
    const step = last ? seconds - last.seconds : 0;
    if (!last || step <= 0) {
      if (!last) filters.set(name, { x, y, vx: 0, vy: 0, seconds });
      return last ? { ...keypoint, x: last.x, y: last.y } : keypoint;
    }
    const weight = (/** @type {number} */ cutoff) => 1 - 1 / (2 * Math.PI * cutoff * step + 1);
    const slow = weight(derivativeCutoff);
    const vx = last.vx + slow * ((x - last.x) / step - last.vx), vy = last.vy + slow * ((y - last.y) / step - last.vy);
    const quick = weight(minCutoff + (beta * Math.hypot(vx, vy)) / size);
    const filtered = { x: last.x + quick * (x - last.x), y: last.y + quick * (y - last.y), vx, vy, seconds };
    filters.set(name, filtered);
    return { ...keypoint, x: filtered.x, y: filtered.y };
  }
}
