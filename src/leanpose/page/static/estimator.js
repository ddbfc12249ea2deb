/** From an image to poses: detector, crops, pose model. The same steps and constants as `leanpose.PoseEstimator`. */

import { cropMatrix, placeImage, warpImage } from "./geometry.js";

/** @typedef {import("./geometry.js").Box} Box */
/** @typedef {{x: number, y: number, score: number, name: string}} Keypoint */
/** @typedef {{xMin: number, yMin: number, xMax: number, yMax: number, width: number, height: number}} BoundingBox */
/** @typedef {{score: number, keypoints: Keypoint[], box: BoundingBox, id?: number}} Pose as TensorFlow.js has it */
/** @typedef {{data: ArrayLike<number | bigint>, dims: readonly number[]}} Tensor */
/** @typedef {{run: (inputs: Record<string, Tensor>) => Promise<Record<string, Tensor>>}} Session */
/** @typedef {"wasm" | "webgpu"} Backend */
/** @typedef {{module: string, loader: string, binary: string}} RuntimeFiles */
/**
 * What is used of onnxruntime-web.
 * @typedef {object} Runtime
 * @property {{wasm: Record<string, unknown>}} env
 * @property {new (type: string, data: ArrayBufferView, dims: number[]) => Tensor} Tensor
 * @property {{create: (model: Uint8Array, options: object) => Promise<Session>}} InferenceSession
 */
/**
 * settings.json, written by `leanpose page`.
 * @typedef {object} Settings
 * @property {string} name of the model
 * @property {string} licence of its weights
 * @property {{keypoints: string[], limbs: [number, number][], sigmas: number[]}} skeleton
 * @property {{height: number, width: number, padding: number, warp: "msra" | "udp"}} crop
 * @property {{size: [number, number], padding: number, mean: number[], std: number[], threshold: number}} detector
 * @property {{calibrated: boolean, keypoint: number, person: number, outsideMargin: number}} scores
 * @property {{oks: number, score: number, bodyShare: number}} duplicates
 * @property {import("./tracking.js").TrackingSettings} tracking
 * @property {Partial<Record<Backend, RuntimeFiles>>} runtime
 * @property {{pose: string, detector: string}} models
 */

const BATCH = 8; // crops in one pass
const MAX_THREADS = 4;

/**
 * The bytes of a file of this folder that is compressed with gzip.
 * @param {string} name
 */
async function unpacked(name) {
  const answer = await fetch(new URL(name, import.meta.url));
  if (!answer.ok || !answer.body) throw new Error(`The file ${name} is missing beside this page.`);
  const stream = answer.body.pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

export class PoseEstimator {
  /** @type {Promise<unknown>} */
  #busy = Promise.resolve();

  /**
   * @param {Settings} settings
   * @param {Runtime} runtime
   * @param {Session} detector
   * @param {Session} model
   */
  constructor(settings, runtime, detector, model) {
    this.settings = settings;
    this.runtime = runtime;
    this.detector = detector;
    this.model = model;
  }

  /**
   * Load the networks that lie beside this file.
   * @param {Settings} settings
   * @param {Backend} backend
   */
  static async load(settings, backend) {
    const files = settings.runtime[backend];
    if (!files) throw new Error(`This page was written without the backend ${backend}.`);
    const packed = [files.binary, settings.models.detector, settings.models.pose].map(unpacked);
    const runtime = /** @type {Runtime} */ (await import(new URL(files.module, import.meta.url).href));
    const [wasmBinary, detector, model] = await Promise.all(packed);
    // Several threads need memory that they share, which browsers give isolated pages alone.
    const numThreads = crossOriginIsolated ? Math.min(MAX_THREADS, navigator.hardwareConcurrency) : 1;
    const wasmPaths = { mjs: new URL(files.loader, import.meta.url).href };
    Object.assign(runtime.env.wasm, { wasmBinary: wasmBinary.buffer, wasmPaths, numThreads });
    const options = { executionProviders: [backend], graphOptimizationLevel: "all", logSeverityLevel: 3 };
    const open = (/** @type {Uint8Array} */ file) => runtime.InferenceSession.create(file, options);
    return new PoseEstimator(settings, runtime, await open(detector), await open(model));
  }

  /**
   * One run of a network; runs follow each other, whoever asks.
   * @param {Session} session
   * @param {Record<string, Tensor>} inputs
   */
  #run(session, inputs) {
    const run = this.#busy.then(() => session.run(inputs));
    this.#busy = run.catch(() => {});
    return run;
  }

  /**
   * All people in an image.
   * @param {ImageData} image
   * @returns {Promise<Pose[]>}
   */
  async estimate(image) {
    const poses = await this.posesIn(image, await this.detect(image));
    return this.distinct(poses.filter((pose) => pose.score >= this.settings.scores.person));
  }

  /**
   * The people that the detector finds, the best first.
   * @param {ImageData} image
   * @returns {Promise<{box: Box, score: number}[]>}
   */
  async detect(image) {
    const { detector } = this.settings;
    const { pixels, factor } = placeImage(image, detector);
    const input = new this.runtime.Tensor("float32", pixels, [1, 3, ...detector.size]);
    const { dets, labels } = await this.#run(this.detector, { input });
    const people = [];
    for (let i = 0; i < labels.data.length; i++) {
      const [x1, y1, x2, y2, score] = Array.from({ length: 5 }, (_, k) => Number(dets.data[5 * i + k]));
      if (Number(labels.data[i]) !== 0 || score < detector.threshold) continue;
      const [left, right] = [x1, x2].map((x) => Math.min(Math.max(x / factor, 0), image.width));
      const [top, bottom] = [y1, y2].map((y) => Math.min(Math.max(y / factor, 0), image.height));
      /** @type {Box} */
      const box = [left, top, right, bottom];
      if (box[2] > box[0] && box[3] > box[1]) people.push({ box, score });
    }
    return people.sort((a, b) => b.score - a.score);
  }

  /**
   * One pose for each box.
   * @param {ImageData} image
   * @param {{box: Box, score: number}[]} people
   * @returns {Promise<Pose[]>}
   */
  async posesIn(image, people) {
    const { height, width, padding, warp } = this.settings.crop;
    const poses = [];
    for (let start = 0; start < people.length; start += BATCH) {
      const batch = people.slice(start, start + BATCH), size = height * width * 3;
      const crops = new Uint8Array(batch.length * size);
      const matrices = batch.map(({ box }, i) => {
        const matrix = cropMatrix(box, height, width, padding, warp);
        warpImage(image, matrix, height, width, crops.subarray(i * size, (i + 1) * size));
        return matrix;
      });
      const images = new this.runtime.Tensor("uint8", crops, [batch.length, height, width, 3]);
      const { keypoints, scores } = await this.#run(this.model, { images });
      for (const [i, { box, score }] of batch.entries()) {
        const { kx, ky, tx, ty } = matrices[i];
        poses.push(this.#pose(image, box, score, (k) => {
          const at = i * this.settings.skeleton.keypoints.length + k;
          const [u, v] = [Number(keypoints.data[2 * at]), Number(keypoints.data[2 * at + 1])];
          return [(u - tx) / kx, (v - ty) / ky, Number(scores.data[at])];
        }));
      }
    }
    return poses;
  }

  /**
   * @param {ImageData} image
   * @param {Box} box
   * @param {number} boxScore
   * @param {(index: number) => [number, number, number]} point x, y and score of a keypoint
   * @returns {Pose}
   */
  #pose(image, box, boxScore, point) {
    const [xMin, yMin, xMax, yMax] = box, width = xMax - xMin, height = yMax - yMin;
    const { scores } = this.settings, margin = scores.outsideMargin * Math.max(width, height);
    let sum = 0, counted = 0;
    const keypoints = this.settings.skeleton.keypoints.map((name, k) => {
      const [x, y, raw] = point(k);
      // Nobody can see a joint that is not in the image: outside of it the score falls to 0.
      const beyond = Math.max(-0.5 - x, -0.5 - y, x - image.width + 0.5, y - image.height + 0.5);
      const score = raw * Math.min(Math.max(1 - beyond / margin, 0), 1);
      if (score > scores.keypoint) {
        sum += scores.calibrated ? score * score : score;
        counted++;
      }
      return { x, y, score, name };
    });
    const score = (boxScore * sum) / Math.max(counted, 1);
    return { score, keypoints, box: { xMin, yMin, xMax, yMax, width, height } };
  }

  /**
   * Of poses of the same person the best one, in the order in which they came.
   * @param {Pose[]} poses
   * @param {(pose: Pose) => number} worth
   * @returns {Pose[]}
   */
  distinct(poses, worth = (pose) => pose.score) {
    /** @type {Pose[]} */
    const kept = [];
    const limit = this.settings.duplicates.oks;
    for (const pose of [...poses].reverse().sort((a, b) => worth(b) - worth(a))) {
      if (kept.every((other) => this.#similarity(pose, other) <= limit)) kept.push(pose);
    }
    return poses.filter((pose) => kept.includes(pose));
  }

  /**
   * Object keypoint similarity over the keypoints that are visible in both.
   * @param {Pose} one
   * @param {Pose} other
   */
  #similarity(one, other) {
    const { score, bodyShare } = this.settings.duplicates;
    const size = (bodyShare * (one.box.width * one.box.height + other.box.width * other.box.height)) / 2;
    let sum = 0, counted = 0;
    this.settings.skeleton.sigmas.forEach((sigma, k) => {
      const [a, b] = [one.keypoints[k], other.keypoints[k]];
      if (a.score < score || b.score < score) return;
      sum += Math.exp(-((a.x - b.x) ** 2 + (a.y - b.y) ** 2) / (8 * sigma * sigma * Math.max(size, 1e-9)));
      counted++;
    });
    return sum / Math.max(counted, 1);
  }
}
