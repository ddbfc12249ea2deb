/** Pixels of whatever holds an image, and skeletons drawn on them. */

/** @typedef {import("./estimator.js").Pose} Pose */
/** @typedef {Blob | ImageData | ImageBitmap | HTMLImageElement | HTMLVideoElement | HTMLCanvasElement} ImageSource */

const SCRATCH = document.createElement("canvas");
// Blue, orange and pale yellow, as in leanpose's own images: they stay apart for colour-blind eyes.
/** @type {Record<string, string>} */
const COLOURS = { left: "#28aaff", right: "#ff7a18", centre: "#faeb82" };
const OUTLINE = "#121216";

/**
 * An image's pixels, transparent parts on white.
 * @param {ImageSource} source
 * @returns {Promise<ImageData>}
 */
export async function pixelsOf(source) {
  if (source instanceof ImageData) return source;
  const options = /** @type {const} */ ({ colorSpaceConversion: "none", premultiplyAlpha: "none" });
  const image = source instanceof Blob ? await createImageBitmap(source, options) : source;
  const video = image instanceof HTMLVideoElement, element = image instanceof HTMLImageElement;
  const width = video ? image.videoWidth : element ? image.naturalWidth : image.width;
  const height = video ? image.videoHeight : element ? image.naturalHeight : image.height;
  Object.assign(SCRATCH, { width, height });
  const context = SCRATCH.getContext("2d", { willReadFrequently: true });
  if (!context || !width || !height) throw new Error(`An image of ${width} × ${height} pixels cannot be read.`);
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.drawImage(image, 0, 0);
  return context.getImageData(0, 0, width, height);
}

/** @param {string} name of a keypoint */
function side(name) {
  return name.startsWith("left_") ? "left" : name.startsWith("right_") ? "right" : "centre";
}

/**
 * How large a keypoint is drawn: those that lie close together are smaller.
 * @param {string} name
 */
function fineness(name) {
  return /face|hand|thumb|finger/.test(name) ? 0.4 : /nose|eye|ear|head/.test(name) ? 0.7 : 1;
}

/**
 * The image with the people's skeletons: left limbs blue, right ones orange.
 * @param {HTMLCanvasElement} canvas
 * @param {ImageData} image
 * @param {Pose[]} poses
 * @param {[number, number][]} limbs
 * @param {number} threshold keypoints from this score on are drawn
 */
export function drawPoses(canvas, image, poses, limbs, threshold) {
  Object.assign(canvas, { width: image.width, height: image.height });
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.putImageData(image, 0, 0);
  context.lineCap = "round";
  for (const { keypoints, box } of poses) {
    const size = Math.max(1.2, 0.012 * Math.max(box.width, box.height));
    const lines = limbs.map(([a, b]) => [keypoints[a], keypoints[b]]);
    for (const [a, b] of [...lines, ...keypoints.map((point) => [point, point])]) {
      if (a.score < threshold || b.score < threshold) continue;
      const sides = new Set([side(a.name), side(b.name)].filter((one) => one !== "centre"));
      const colour = COLOURS[sides.size === 1 ? [...sides][0] : "centre"];
      const width = size * Math.min(fineness(a.name), fineness(b.name)) * (a === b ? 2 : 1);
      context.beginPath();
      context.moveTo(a.x + 0.5, a.y + 0.5);
      context.lineTo(b.x + 0.5, b.y + 0.5);
      stroke(context, OUTLINE, width + 0.8 * size);
      stroke(context, colour, width);
    }
  }
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {string} colour
 * @param {number} width
 */
function stroke(context, colour, width) {
  Object.assign(context, { strokeStyle: colour, lineWidth: width });
  context.stroke();
}
