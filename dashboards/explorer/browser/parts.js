// The stage in the browser is these files, one after another, in the order that stage.py names; they share one scope.
//
// Python sends one binary message a frame (see stage.py) and hears {dial: 7.5}, {gaussians: [...]} and the like. Colours,
// limits, hover, cut and crosshair are worked out here, without the server.

const SVG = 'http://www.w3.org/2000/svg'

function make(tag, parent, options = {}, ...children) {
  const element = document.createElement(tag)
  for (const [key, value] of Object.entries(options))
    if (key in element && key !== 'style') element[key] = value
    else element.setAttribute(key, value)
  element.append(...children)
  parent?.append(element)
  return element
}

function draw(tag, parent, attributes = {}, text = '') {
  const element = document.createElementNS(SVG, tag)
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value)
  if (text) element.textContent = text
  parent?.append(element)
  return element
}

function button(parent, name, act, options = {}) {
  const element = make('button', parent, {type: 'button', ...options}, name)
  element.addEventListener('click', act)
  return element
}

// What all charts are drawn of: the text at a tick, a line through points, an axis of errors, names at the ends of curves.
const tick = (svg, x, y, text, anchor = 'middle') => draw('text', svg, {x, y, class: 'tick', 'text-anchor': anchor}, text)
const through = points => points.map(([x, y], i) => `${i ? 'L' : 'M'}${x.toFixed(1)} ${y.toFixed(1)}`).join('')
const textSize = svg => parseFloat(getComputedStyle(svg).fontSize)
const SMALLEST = 1e-4, LARGEST = 10 // of an axis of errors, which is logarithmic
function errorAxis(svg, {left, right, top, bottom, width, height}) {
  const up = error => height - bottom - Math.log(Math.min(LARGEST, Math.max(SMALLEST, error)) / SMALLEST) / Math.log(LARGEST / SMALLEST) * (height - top - bottom)
  for (const error of [1e-4, 1e-3, 1e-2, 1e-1, 1, 10]) {
    draw('line', svg, {x1: left, x2: width - right, y1: up(error), y2: up(error), class: 'grid'})
    tick(svg, left - 5, up(error) + 0.35 * textSize(svg), `${100 * error} %`, 'end')
  }
  return up
}
function nameEnds(svg, ends, low, high) { // {name, color, x, y}, none over another and all between two heights
  const step = 1.05 * textSize(svg)
  ends.sort((a, b) => a.y - b.y).forEach((end, i) => { end.y = Math.max(end.y, i ? ends[i - 1].y + step : high) })
  ends.toReversed().forEach((end, i, list) => { end.y = Math.min(end.y, i ? list[i - 1].y - step : low) })
  for (const {name, color, x, y} of ends) {
    const text = tick(svg, x + 5, y + 0.35 * textSize(svg), name, 'start')
    text.setAttribute('style', `--curve: ${color}`)
    text.classList.add('end')
  }
}

const set = (element, text) => { if (element.textContent !== text) element.textContent = text }

const percent = value => value == null || !isFinite(value) ? '–'
  : value >= 0.995 ? `${Math.round(100 * value).toLocaleString('en')} %`
  : value >= 1e-4 ? `${Number((100 * value).toPrecision(2))} %` : `${Number((100 * value).toPrecision(1))} %`
// Bounds of an error in two digits, rounded outwards. Above 1000 %, the end of the dial's axis, one says nothing.
const rounded = (value, round) => {
  const size = 100 * value, unit = 10 ** (Math.floor(Math.log10(size)) - 1)
  return size > 0 ? Number((round(size / unit) * unit).toPrecision(2)) : 0
}
const between = ([lower, upper], resonant) => {
  if (!lower && (upper == null || upper > 10)) return 'cannot be estimated'
  if (upper == null || upper > 10) return `estimated above ${rounded(lower, Math.floor)} %${resonant ? ', near a resonance' : ''}`
  return `estimated ${rounded(lower, Math.floor)} to ${rounded(upper, Math.ceil)} %`
}
const number = value => Number(value.toPrecision(4)).toString().replace('-', '−')

const brief = value => number(Number(value.toPrecision(2)))

// A message: length of the header, the header as JSON, then one int16 array a field, or the bytes of a file.
function unpack(data) {
  if (data.kind) return data // the static page makes messages here
  const bytes = data instanceof ArrayBuffer ? new Uint8Array(data) : new Uint8Array(data.buffer, data.byteOffset, data.byteLength)
  const length = new DataView(bytes.buffer, bytes.byteOffset, 4).getUint32(0, true)
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + length)))
  header.rest = bytes.slice(4 + length) // a copy, which begins at a multiple of two
  const numbers = new Int16Array(header.rest.buffer, 0, header.rest.length >> 1) // little-endian, as every browser's machine is
  header.arrays = {}
  let at = 0
  for (const {name, middle, step} of header.fields) {
    const count = header.points ** 2, values = header.arrays[name] = new Float32Array(count)
    for (let i = 0; i < count; i++) values[i] = middle + step * numbers[at + i]
    at += count
  }
  return header
}
