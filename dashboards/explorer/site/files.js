// Files of this site, which are compressed, whatever the host makes of them.

export async function unzipped(name) {
  const answer = await fetch(new URL(name, import.meta.url))
  if (!answer.ok) throw new Error(`${name}: ${answer.status}`)
  return answer.body.pipeThrough(new DecompressionStream('gzip'))
}
export const unpacked = async name => new Response(await unzipped(name)).arrayBuffer()

// Numbers whose first bytes come before all second ones, and so on: so they are smaller when compressed.
export function numbers(buffer, Type, from = 0, count = (buffer.byteLength - from) / Type.BYTES_PER_ELEMENT) {
  const size = Type.BYTES_PER_ELEMENT, bytes = new Uint8Array(buffer, from, count * size), found = new Uint8Array(count * size)
  for (let byte = 0, i = 0; byte < size; byte++) for (let to = byte; to < found.length; to += size) found[to] = bytes[i++]
  return new Type(found.buffer)
}
