// JavaScript clients of an export: onnxruntime in Node and in a browser, LiteRT.js in a browser.
// Inputs: the model's bytes, and clips as numbers, one after the other, with the shape of all of them.
// In Node: node clients.mjs NODE_MODULES MODEL INPUTS.json, which prints the scores as JSON.

export async function onnx(ort, model, {name, shape, values}) {
  const session = await ort.InferenceSession.create(model);
  const {scores} = await session.run({[name]: new ort.Tensor('float32', Float32Array.from(values), shape)});
  return Array.from(scores.data);
}

export async function litert(core, wasm, model, {shape, values}) {
  await core.loadLiteRt(wasm);
  const opened = await core.loadAndCompile(model, {accelerator: 'wasm'});
  const one = [1, ...shape.slice(1)], size = one.reduce((product, length) => product * length, 1), scores = [];
  for (let start = 0; start < values.length; start += size) {
    const input = new core.Tensor(Float32Array.from(values.slice(start, start + size)), one);
    const [output] = await opened.run(input);
    scores.push(...output.toTypedArray());
    input.delete();
    output.delete();
  }
  return scores;
}

if (typeof process !== 'undefined') {
  const [modules, model, inputs] = process.argv.slice(2);
  const {createRequire} = await import('node:module');
  const {readFileSync} = await import('node:fs');
  const ort = createRequire(`${modules}/`)('onnxruntime-node');
  console.log(JSON.stringify(await onnx(ort, readFileSync(model), JSON.parse(readFileSync(inputs)))));
}
