// Runs graphs of ONNX, one job after another. A job is a list of steps over named tensors: what one gives, another takes.

import * as ort from './runtime/ort.wasm.min.mjs'
import {numbers, unpacked} from './files.js'

ort.env.wasm.numThreads = 1 // more would need headers that few hosts set
ort.env.wasm.wasmPaths = {mjs: new URL('glue.js', import.meta.url).href}

let page = null, known = null
self.program = new Promise(resolve => { known = resolve }) // see glue.js
const sessions = new Map(), weights = new Map()

const once = (map, key, make) => { if (!map.has(key)) map.set(key, make()); return map.get(key) }

// float16 by its bits
const HALF = Float32Array.from({length: 65536}, (_, bits) => {
  const power = bits >> 10 & 31, fraction = bits & 1023
  return (bits & 32768 ? -1 : 1) * (power ? 2 ** (power - 25) * (1024 + fraction) : 2 ** -24 * fraction)
})
async function readWeights(name) { // as build.py stores them
  const {parts, parent, block} = page.weights[name]
  const [bytes, base] = await Promise.all([unpacked(`weights/${name}.gz`), parent && once(weights, parent, () => readWeights(parent))])
  const found = new Float32Array(parts.reduce((sum, [count]) => sum + count, 0))
  let from = 0, to = 0
  const take = (Type, count) => numbers(bytes, Type, (from += count * Type.BYTES_PER_ELEMENT) - count * Type.BYTES_PER_ELEMENT, count)
  for (const [count, kind] of parts) {
    if (kind === 'float') found.set(take(Float32Array, count), to)
    if (kind === 'half') { const bits = take(Uint16Array, count); for (let i = 0; i < count; i++) found[to + i] = HALF[bits[i]] }
    if (kind === 'shares') {
      const largest = take(Float32Array, Math.ceil(count / block)), shares = take(Int8Array, count)
      for (let i = 0; i < count; i++) found[to + i] = Math.fround(shares[i] / 127) * largest[Math.floor(i / block)] + (base ? base[to + i] : 0)
    }
    to += count
  }
  return found
}

let last = Promise.resolve() // one session after another: while it makes one, the runtime knows of no other's weights
function begin(graph, name) {
  const files = Promise.all([unpacked(`graphs/${graph}.onnx.gz`), name && once(weights, name, () => readWeights(name))])
  const made = last.then(() => files).then(([model, own]) => ort.InferenceSession.create(new Uint8Array(model), {
    externalData: own ? [{path: 'weights', data: new Uint8Array(own.buffer)}] : [], executionProviders: ['wasm'], graphOptimizationLevel: 'basic', logSeverityLevel: 3}))
  last = made.catch(() => {})
  return made
}
const session = (graph, name) => once(sessions, `${graph} ${name ?? ''}`, () => begin(graph, name))

// {graph, weights, takes: {input: tensor}, gives: {output: tensor}, times}; their sessions are begun at once. A step is taken so
// many times; or, of an iteration, until its `length` is that share of the first.
async function run({values, steps, wanted}) {
  for (const {graph, weights} of steps) session(graph, weights).catch(() => {}) // it is said where it is used
  if (!values) return {} // they were to be begun
  const known = {}
  let seconds = 0
  for (const [name, {type, data, dims}] of Object.entries(values)) known[name] = new ort.Tensor(type, data, dims)
  for (const {graph, weights, takes, gives, times = 1, share} of steps) {
    const own = await session(graph, weights), began = performance.now(), length = () => known.length.data[0], enough = share && share * length()
    for (let i = 0; i < times && !(share && length() <= enough); i++) {
      const feeds = Object.fromEntries(Object.entries(takes).map(([input, name]) => [input, known[name]]))
      const found = await own.run(feeds, Object.keys(gives))
      for (const [output, name] of Object.entries(gives)) known[name] = found[output]
    }
    if (share && !(length() <= enough)) throw new Error(`The solver has not converged after ${times} iterations: set the dial lower.`)
    seconds += (performance.now() - began) / 1000
  }
  return Object.fromEntries([['seconds', seconds]].concat(wanted.map(name => [name, {type: known[name].type, data: known[name].data, dims: known[name].dims}])))
}

self.onmessage = async ({data}) => {
  if (data.begin) { page = data.begin; return }
  if (data.program) { known(data.program); return }
  try {
    postMessage({id: data.id, found: await run(data)})
  } catch (error) {
    postMessage({id: data.id, error: `${error.message ?? error}`})
  }
}
