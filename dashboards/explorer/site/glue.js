// The runtime's own loader, given the program that the page has compiled once for all workers.

import load from './runtime/ort-wasm-simd-threaded.mjs'

async function begin(imports, done) {
  const program = await self.program
  done(await WebAssembly.instantiate(program, imports), program)
}
export default config => load(Object.assign(config, {instantiateWasm: begin}))
