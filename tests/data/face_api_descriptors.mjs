// Descriptors of face-api.js' own network: node face_api_descriptors.mjs PACKAGE IN OUT
//
// PACKAGE is the unpacked npm package @vladmandic/face-api, IN has (N, 150, 150, 3) RGB in [0, 255] and OUT gets
// (N, 128), both raw float32. Needs nothing but Node: the package's build for browsers brings its own TensorFlow.js,
// which asks Node for a module that bundling has emptied; `types` below stands in for what it wants of it.
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { pathToFileURL } from "node:url";
import util from "node:util";

const [folder, input, output] = process.argv.slice(2);
globalThis.emptiedUtil = util;
const bundle = fs
  .readFileSync(path.join(folder, "dist", "face-api.esm.js"), "utf8")
  .replace(/this\.util=\w+\(\)/, "this.util=globalThis.emptiedUtil");
const copy = path.join(fs.mkdtempSync(path.join(os.tmpdir(), "face-api-")), "face-api.mjs");
fs.writeFileSync(copy, bundle);
const { tf, FaceRecognitionNet, NetInput } = await import(pathToFileURL(copy));
fs.rmSync(path.dirname(copy), { recursive: true });
await tf.setBackend("cpu");

const model = path.join(folder, "model", "face_recognition_model");
const [{ weights }] = JSON.parse(fs.readFileSync(`${model}-weights_manifest.json`, "utf8"));
const network = new FaceRecognitionNet();
network.loadFromWeightMap(tf.io.decodeWeights(new Uint8Array(fs.readFileSync(`${model}.bin`)).buffer, weights));

const pixels = new Float32Array(new Uint8Array(fs.readFileSync(input)).buffer);
const size = 150 * 150 * 3;
const found = [];
for (let start = 0; start < pixels.length; start += size) {
  const chip = tf.tensor4d(pixels.slice(start, start + size), [1, 150, 150, 3]);
  found.push(...(await network.forwardInput(new NetInput([chip])).data()));
}
fs.writeFileSync(output, new Uint8Array(new Float32Array(found).buffer));
