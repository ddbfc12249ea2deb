/** The page: photos, videos and the webcam in, skeletons and JSON out. Nothing is sent anywhere. */

import { PoseEstimator } from "./estimator.js";
import { drawPoses, pixelsOf } from "./images.js";
import { PoseTracker } from "./tracking.js";

/** @typedef {import("./estimator.js").Pose} Pose */
/** @typedef {import("./images.js").ImageSource} ImageSource */

/**
 * @template {HTMLElement} T
 * @param {string} id
 * @param {new () => T} kind
 * @returns {T}
 */
function element(id, kind) {
  const found = document.getElementById(id);
  if (!(found instanceof kind)) throw new Error(`The page has no ${id}.`);
  return found;
}

const canvas = element("canvas", HTMLCanvasElement), video = element("video", HTMLVideoElement);
const file = element("file", HTMLInputElement), camera = element("camera", HTMLButtonElement);
const backends = element("backend", HTMLSelectElement), threshold = element("threshold", HTMLInputElement);
const status = element("status", HTMLElement), json = element("json", HTMLElement);
const details = element("details", HTMLDetailsElement), download = element("download", HTMLButtonElement);

const backend = new URLSearchParams(location.search).get("backend") === "webgpu" ? "webgpu" : "wasm";
/** @type {[number, number][]} */
let limbs = [];
/** @type {{image: ImageData, poses: Pose[], result: unknown}} */
let shown = { image: new ImageData(1, 1), poses: [], result: null };
let turn = 0; // counts what was opened: whoever is not the newest ends
const loading = load();

async function load() {
  const settings = await (await fetch("settings.json")).json();
  limbs = settings.skeleton.limbs;
  element("model", HTMLElement).textContent = settings.name;
  element("licence", HTMLElement).textContent = settings.licence;
  const gpu = "gpu" in navigator && /** @type {{requestAdapter: () => Promise<unknown>}} */ (navigator.gpu);
  const adapter = settings.runtime.webgpu && gpu && (await gpu.requestAdapter());
  if (adapter) backends.add(new Option("GPU (WebGPU)", "webgpu"));
  backends.value = backend;
  element("backends", HTMLElement).hidden = backends.length < 2;
  if (backends.value !== backend) throw new Error("This browser has no WebGPU, or the page was written without it.");
  const estimator = await PoseEstimator.load(settings, backend);
  await estimator.estimate(new ImageData(64, 64)); // the first run takes longest
  for (const control of [file, camera, backends]) control.disabled = false;
  status.textContent = "Ready. Choose a photo, a video or the webcam.";
  return estimator;
}

/**
 * @param {ImageData} image
 * @param {Pose[]} poses
 * @param {unknown} result what the download holds
 * @returns {string} how many there are
 */
function show(image, poses, result) {
  shown = { image, poses, result };
  drawPoses(canvas, image, poses, limbs, Number(threshold.value));
  element("stage", HTMLElement).classList.add("filled");
  const people = poses.length === 1 ? "1 person" : `${poses.length} people`;
  canvas.setAttribute("aria-label", `The image with the skeletons of ${people}`);
  if (details.open) json.textContent = JSON.stringify(poses, rounded, 1);
  download.disabled = false;
  return people;
}

/**
 * @param {string} _
 * @param {unknown} value
 */
function rounded(_, value) {
  return typeof value === "number" ? Number(value.toFixed(2)) : value;
}

function redraw() {
  element("score", HTMLOutputElement).value = threshold.value;
  if (shown.result) show(shown.image, shown.poses, shown.result);
}

/** @param {File} blob */
async function open(blob) {
  const own = stop();
  if (blob.type.startsWith("video/")) {
    video.src = URL.createObjectURL(blob);
    return follow(own, true);
  }
  status.textContent = "Looking …";
  const image = await pixelsOf(blob), estimator = await loading, begun = performance.now();
  const poses = await estimator.estimate(image);
  if (own === turn) status.textContent = `${show(image, poses, poses)}, ${Math.round(performance.now() - begun)} ms`;
}

/**
 * Look at the newest frame again and again.
 * @param {number} own turn
 * @param {boolean} recorded the download holds all frames, not the newest one
 */
async function follow(own, recorded) {
  const tracker = new PoseTracker(await loading), frames = [];
  let rate = 0, told = -Infinity;
  await video.play();
  for (let begun = performance.now(); own === turn && !video.ended; ) {
    const seconds = await nextFrame();
    if (own !== turn || video.paused) break;
    const image = await pixelsOf(video), poses = await tracker.next(image, seconds);
    if (own !== turn) return;
    if (recorded) frames.push({ seconds, poses });
    const people = show(image, poses, recorded ? frames : poses), now = performance.now();
    rate += (rate ? 0.1 : 1) * (1000 / (now - begun) - rate);
    begun = now;
    if (now - told < 1000) continue; // screen readers are told once a second
    status.textContent = `${people}, ${Math.round(rate)} frames a second`;
    told = now;
  }
  const all = video.getVideoPlaybackQuality().totalVideoFrames;
  if (own === turn) status.textContent = `The video has ended; ${frames.length} of its ${all} frames were looked at.`;
}

let wake = () => {};

/**
 * Wait for the next frame, or the end.
 * @returns {Promise<number>} its time in seconds
 */
function nextFrame() {
  return new Promise((resolve) => {
    wake = () => resolve(video.currentTime);
    if ("requestVideoFrameCallback" in video) video.requestVideoFrameCallback((_, { mediaTime }) => resolve(mediaTime));
    else requestAnimationFrame(wake);
  });
}

async function toggleCamera() {
  const on = camera.getAttribute("aria-pressed") === "true", own = stop();
  if (on) {
    status.textContent = "The webcam is off.";
    return;
  }
  if (!navigator.mediaDevices) throw new Error("Browsers give the webcam to pages from https or localhost alone.");
  const stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "user", width: 640, height: 480 } });
  if (own !== turn) return release(stream); // something else was opened before the user allowed the webcam
  video.srcObject = stream;
  camera.setAttribute("aria-pressed", "true");
  await follow(own, false);
}

/** @param {MediaStream} stream */
function release(stream) {
  for (const track of stream.getTracks()) track.stop();
}

/** End what is going on, and begin another turn. */
function stop() {
  video.pause();
  if (video.srcObject instanceof MediaStream) release(video.srcObject);
  if (video.src) URL.revokeObjectURL(video.src);
  video.srcObject = null;
  video.removeAttribute("src");
  camera.setAttribute("aria-pressed", "false");
  return ++turn;
}

function save() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(shown.result)], { type: "application/json" }));
  link.download = "poses.json";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

/** @param {unknown} error */
function fail(error) {
  status.textContent = error instanceof Error ? error.message : String(error);
}

/** @param {FileList | null | undefined} files */
function openFirst(files) {
  if (files?.[0] && !file.disabled) open(files[0]).catch(fail);
}

loading.catch(fail);
file.addEventListener("change", () => openFirst(file.files));
camera.addEventListener("click", () => toggleCamera().catch(fail));
download.addEventListener("click", save);
threshold.addEventListener("input", redraw);
details.addEventListener("toggle", redraw);
video.addEventListener("pause", () => wake());
backends.addEventListener("change", () => location.assign(`?backend=${backends.value}`));
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  openFirst(event.dataTransfer?.files);
});

/** For scripts; `tracker` follows people from frame to frame: `(await leanpose.tracker()).next(imageData, seconds)`. */
const api = {
  ready: loading.then(() => backend),
  estimate: async (/** @type {ImageSource} */ image) => (await loading).estimate(await pixelsOf(image)),
  tracker: async () => new PoseTracker(await loading),
};
Object.assign(window, { leanpose: api });
