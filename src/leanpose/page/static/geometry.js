/** Crops and resized images from RGBA pixels. Points are (x, y), pixel centres at whole numbers; boxes x1, y1, x2, y2. */

/** @typedef {[number, number, number, number]} Box */
/** @typedef {{kx: number, ky: number, tx: number, ty: number}} Affine image → crop: x → kx · x + tx, y → ky · y + ty */

/**
 * The map from the image to a person's crop: the box, padded, with its shorter side grown to the aspect of the crop.
 * @param {Box} box in image pixels
 * @param {number} height of the crop
 * @param {number} width of the crop
 * @param {number} padding how much larger than the box the region is
 * @param {"msra" | "udp"} warp the pixel convention
 * @returns {Affine}
 */
export function cropMatrix([x1, y1, x2, y2], height, width, padding, warp) {
  const regionWidth = Math.max((x2 - x1) * padding, 1, (Math.max((y2 - y1) * padding, 1) * width) / height);
  const udp = warp === "udp" ? 1 : 0;
  const kx = (width - udp) / regionWidth;
  const ky = udp ? (height - 1) / ((regionWidth * height) / width) : kx;
  const [cx, cy] = [(x1 + x2) / 2, (y1 + y2) / 2];
  return { kx, ky, tx: 0.5 * (width - udp) - kx * cx, ty: 0.5 * (height - udp) - ky * cy };
}

/**
 * Cut one crop out of an image: linear interpolation, black outside of it.
 * @param {ImageData} image
 * @param {Affine} matrix
 * @param {number} height of the crop
 * @param {number} width of the crop
 * @param {Uint8Array} out RGB, height × width × 3
 */
export function warpImage(image, { kx, ky, tx, ty }, height, width, out) {
  const [left, xShare] = sources(width, (u) => (u - tx) / kx);
  const [top, yShare] = sources(height, (v) => (v - ty) / ky);
  for (let v = 0, at = 0; v < height; v++) {
    for (let u = 0; u < width; u++) {
      const x = left[u], y = top[v], fx = xShare[u], fy = yShare[v];
      const inX = x >= 0 && x < image.width, inX1 = x >= -1 && x < image.width - 1;
      const inY = y >= 0 && y < image.height, inY1 = y >= -1 && y < image.height - 1;
      const first = 4 * (y * image.width + x), below = first + 4 * image.width;
      for (let c = 0; c < 3; c++) {
        const a = inX && inY ? image.data[first + c] : 0, b = inX1 && inY ? image.data[first + 4 + c] : 0;
        const d = inX && inY1 ? image.data[below + c] : 0, e = inX1 && inY1 ? image.data[below + 4 + c] : 0;
        const upper = a + fx * (b - a);
        out[at++] = Math.round(upper + fy * (d + fx * (e - d) - upper));
      }
    }
  }
}

/**
 * Fit an image into the upper left of a detector's input: linear interpolation, edges repeated, padding elsewhere.
 * @param {ImageData} image
 * @param {{size: [number, number], padding: number, mean: number[], std: number[]}} input its size (height, width), and
 *   mean and deviation of its channels, which are B, G, R
 * @returns {{pixels: Float32Array, factor: number}} 3 × height × width, and input pixels per image pixel
 */
export function placeImage(image, { size: [height, width], padding, mean, std }) {
  const factor = Math.min(height / image.height, width / image.width);
  const h = Math.min(height, Math.max(1, Math.floor(image.height * factor + 0.5)));
  const w = Math.min(width, Math.max(1, Math.floor(image.width * factor + 0.5)));
  const [left, xShare] = sources(w, (u) => ((u + 0.5) * image.width) / w - 0.5);
  const [top, yShare] = sources(h, (v) => ((v + 0.5) * image.height) / h - 0.5);
  // OpenCV computes in whole numbers of 1 / 2048, and the detector's boxes move by what is rounded otherwise.
  const shareOf = (/** @type {number} */ share) => Math.round(Math.fround(share) * 2048);
  const pixels = new Float32Array(3 * height * width);
  for (let c = 0; c < 3; c++) {
    const plane = pixels.subarray(c * height * width, (c + 1) * height * width);
    plane.fill((padding - mean[c]) / std[c]);
    for (let v = 0; v < h; v++) {
      const row = Math.max(top[v], 0) * image.width, below = Math.min(top[v] + 1, image.height - 1) * image.width;
      const fy = shareOf(yShare[v]);
      for (let u = 0; u < w; u++) {
        const x = 4 * Math.max(left[u], 0) + 2 - c, x1 = 4 * Math.min(left[u] + 1, image.width - 1) + 2 - c;
        const fx = shareOf(xShare[u]);
        const upper = (image.data[4 * row + x] * (2048 - fx) + image.data[4 * row + x1] * fx) >> 4;
        const lower = (image.data[4 * below + x] * (2048 - fx) + image.data[4 * below + x1] * fx) >> 4;
        const value = (((upper * (2048 - fy)) >> 16) + ((lower * fy) >> 16) + 2) >> 2;
        plane[v * width + u] = (value - mean[c]) / std[c];
      }
    }
  }
  return { pixels, factor };
}

/**
 * For each output pixel of a side: the source pixel before it, and how far it is from there to the next one.
 * @param {number} length
 * @param {(position: number) => number} source
 * @returns {[Int32Array, Float64Array]}
 */
function sources(length, source) {
  const pixel = new Int32Array(length), share = new Float64Array(length);
  for (let i = 0; i < length; i++) {
    pixel[i] = Math.floor(source(i));
    share[i] = source(i) - pixel[i];
  }
  return [pixel, share];
}

/**
 * Intersection over union.
 * @param {Box} a
 * @param {Box} b
 */
export function iou(a, b) {
  const width = Math.max(0, Math.min(a[2], b[2]) - Math.max(a[0], b[0]));
  const height = Math.max(0, Math.min(a[3], b[3]) - Math.max(a[1], b[1]));
  return (width * height) / Math.max(area(a) + area(b) - width * height, 1e-9);
}

/** @param {Box} box */
function area([x1, y1, x2, y2]) {
  return Math.max(x2 - x1, 0) * Math.max(y2 - y1, 0);
}
