/** Pixels of whatever holds an image, and skeletons drawn on them. */

/** @typedef {import("./estimator.js").Pose} Pose */
/** @typedef {Blob | ImageData | ImageBitmap | HTMLImageElement | HTMLVideoElement | HTMLCanvasElement} ImageSource */

const SCRATCH = document.createElement("canvas");
// Blue, orange and pale yellow, as in leanpose's own pictures: they stay apart for colour-blind eyes.
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
    const width = Math.max(1.5, 0.014 * Math.max(box.width, box.height));
    const lines = limbs.map(([a, b]) => [keypoints[a], keypoints[b]]);
    const dots = keypoints.map((point) => [point, point]);
    for (const [a, b] of [...lines, ...dots]) {
      if (a.score < threshold || b.score < threshold) continue;
      const sides = [side(a.name), side(b.name)].filter((one) => one !== "centre");
      const line = new Path2D();
      line.moveTo(a.x + 0.5, a.y + 0.5);
      line.lineTo(b.x + 0.5, b.y + 0.5);
      for (const [colour, more] of [[OUTLINE, a === b ? 3.2 : 1.8], [COLOURS[sides[0] && sides.at(-1) === sides[0] ? sides[0] : "centre"], a === b ? 2.2 : 1]]) {
        context.strokeStyle = String(colour);
        context.lineWidth = width * Number(more);
        context.stroke(line);
      }
    }
  }
}
