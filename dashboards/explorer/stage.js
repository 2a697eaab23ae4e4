// The stage in the browser: the dial over its error curve, the fields, the cut, the source that is drawn.
//
// Python sends one binary message a frame (see stage.py) and hears {dial: 7.5}, {gaussians: [...]} and the like. Colours,
// limits, hover, cut and crosshair are worked out here, without the server.

const N_COLOURS = 256
const SVG = 'http://www.w3.org/2000/svg'
const SMALLEST = 1e-4, LARGEST = 10 // of the error axis
const NEAR = 0.045 // a Gaussian is taken hold of within this distance
const CUT_WIDTH = 400, CUT_HEIGHT = 190

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

const percent = value => value == null || !isFinite(value) ? '–'
  : value >= 0.995 ? `${Math.round(100 * value).toLocaleString('en')} %`
  : value >= 1e-4 ? `${Number((100 * value).toPrecision(2))} %` : `${(100 * value).toExponential(0)} %`
const number = value => Number(value.toPrecision(4)).toString().replace('-', '−')

function lookup(colours) { // hex colours as one 32-bit word a pixel, as canvases keep them
  return Uint32Array.from(colours, colour => {
    const value = parseInt(colour.slice(1), 16)
    return (255 << 24 | (value & 255) << 16 | (value >> 8 & 255) << 8 | value >> 16) >>> 0
  })
}

// A message: length of the header, the header as JSON, then one int16 array a field. -----------------------------------

function unpack(data) {
  const bytes = data instanceof ArrayBuffer ? new Uint8Array(data) : new Uint8Array(data.buffer, data.byteOffset, data.byteLength)
  const length = new DataView(bytes.buffer, bytes.byteOffset, 4).getUint32(0, true)
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + length)))
  const numbers = new Int16Array(bytes.slice(4 + length).buffer) // little-endian, as every browser's machine is
  header.arrays = {}
  let at = 0
  for (const {name, middle, step} of header.fields ?? []) {
    const count = header.points ** 2, values = header.arrays[name] = new Float32Array(count)
    for (let i = 0; i < count; i++) values[i] = middle + step * numbers[at + i]
    at += count
  }
  return header
}

class Field { // one canvas, its crosshair, and what is said where there is nothing to paint
  constructor(parent, label) {
    this.frame = make('div', parent, {className: 'field'})
    this.canvas = make('canvas', this.frame, {role: 'img'})
    this.canvas.setAttribute('aria-label', label)
    this.cross = make('div', this.frame, {className: 'cross'})
    this.row = make('div', this.frame, {className: 'row'})
    this.empty = make('div', this.frame, {className: 'empty'})
    this.label = label
  }
  paint(values, points, table, says = '') { // `table` gives the colour of a value
    this.empty.textContent = values ? '' : says
    this.canvas.style.visibility = values ? 'visible' : 'hidden'
    if (!values) return
    if (this.canvas.width !== points) {
      this.canvas.width = this.canvas.height = points
      this.context = this.canvas.getContext('2d')
      this.image = this.context.createImageData(points, points)
      this.pixels = new Uint32Array(this.image.data.buffer)
    }
    for (let y = 0; y < points; y++) // row 0 is at the bottom
      table(values, y * points, points, this.pixels, (points - 1 - y) * points)
    this.context.putImageData(this.image, 0, 0)
  }
}

// Reading down: the dial, the fields, the drawing, the choices, and last what happens with a message. -----------------------
export function render({model, el}) {
  const root = make('div', el, {className: 'operator-stage'})
  make('style', root, {}, STYLE)
  const tables = {solution: lookup(model.palettes.solution), error: lookup(model.palettes.error)}
  const send = message => model.send_msg(message)
  let setup = null, frame = null, curves = {}, cutRow = 0.5, dragging = false, wanted = null, scheduled = false

  const bar = make('div', root, {className: 'bar'})
  const systems = make('fieldset', bar, {className: 'choice'}, make('legend', null, {}, 'Equation'))
  const models = make('select', make('label', bar, {className: 'model'}, 'Model '), {})
  const lessons = make('select', make('label', bar, {className: 'model'}, 'Lesson '), {})
  lessons.addEventListener('change', () => send({lesson: lessons.value}))
  const equation = make('div', bar, {className: 'equation'})
  models.addEventListener('change', () => send({model: models.value}))
  const share = make('button', bar, {type: 'button', className: 'share', hidden: true}, 'Copy link')
  share.addEventListener('click', async () => {
    await navigator.clipboard.writeText(location.href)
    share.textContent = 'Copied'
    setTimeout(() => { share.textContent = 'Copy link' }, 1500)
  })
  const notice = make('div', root, {className: 'notice', role: 'alert'})
  notice.dataset.test = 'notice'

  // The dial is the error curve -----------------------------------------------------------------------------------------
  const dial = make('div', root, {className: 'dial'})
  const chart = draw('svg', dial, {preserveAspectRatio: 'none', 'aria-hidden': 'true'})
  const slider = make('input', dial, {type: 'range', min: 0, step: 1})
  const under = make('div', root, {className: 'under'})
  const sentence = make('p', under, {className: 'sentence', role: 'status'})
  sentence.dataset.test = 'sentence'
  const size = {width: 1000, height: 130, left: 46, right: 14, top: 8, bottom: 22}

  const across = value => {
    const {low, high, logarithmic} = setup.dial
    const t = logarithmic ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low)
    return size.left + t * (size.width - size.left - size.right)
  }
  const up = error => {
    const t = Math.log(Math.min(LARGEST, Math.max(SMALLEST, error)) / SMALLEST) / Math.log(LARGEST / SMALLEST)
    return size.height - size.bottom - t * (size.height - size.top - size.bottom)
  }
  function valueAt(x) { // nearest value that the dial can take; near a whole number that was trained on, that
    const values = setup.dial.values
    let best = values[0]
    for (const value of values) if (Math.abs(across(value) - x) < Math.abs(across(best) - x)) best = value
    const whole = Math.round(best)
    return setup.dial.whole && values.includes(whole) && Math.abs(across(whole) - x) < 9 ? whole : best
  }
  function drawChart() {
    if (!setup || !setup.dial) return
    size.width = Math.max(300, dial.clientWidth)
    chart.setAttribute('viewBox', `0 0 ${size.width} ${size.height}`)
    chart.replaceChildren()
    const bottom = size.height - size.bottom
    if (setup.trained) {
      const [a, b] = setup.trained.map(across)
      draw('rect', chart, {x: a, y: size.top, width: Math.max(2, b - a), height: bottom - size.top, class: 'trained'})
      const label = draw('text', chart, {x: (a + b) / 2, y: size.top + 12, class: 'tick', 'text-anchor': 'middle'}, 'pre-trained here')
      if (b - a < 100) { label.setAttribute('x', a + 2); label.setAttribute('text-anchor', 'start') }
    }
    for (const error of [1e-4, 1e-3, 1e-2, 1e-1, 1, 10]) {
      draw('line', chart, {x1: size.left, x2: size.width - size.right, y1: up(error), y2: up(error), class: 'grid'})
      draw('text', chart, {x: size.left - 5, y: up(error) + 4, class: 'tick', 'text-anchor': 'end'}, `${100 * error} %`)
    }
    for (const value of setup.dial.ticks) {
      draw('line', chart, {x1: across(value), x2: across(value), y1: bottom, y2: bottom + 4, class: 'axis'})
      draw('text', chart, {x: across(value), y: size.height - 6, class: 'tick', 'text-anchor': 'middle'}, `${value}`)
    }
    for (const value of setup.resonances)
      draw('path', chart, {d: `M${across(value)} ${bottom}l-3 -7h6z`, class: 'resonance'})
    if (setup.dial.whole && setup.trained)
      for (let value = setup.trained[0]; value <= setup.trained[1]; value++)
        draw('circle', chart, {cx: across(value), cy: bottom, r: 3, class: 'dot'})
    if (setup.window) {
      const [a, b] = setup.window.map(across)
      draw('path', chart, {d: `M${a + 5} ${size.top}h-5V${bottom}h5M${b - 5} ${size.top}h5V${bottom}h-5`, class: 'window'})
    }
    for (const one of setup.predictors) {
      const points = curves[one.key] ?? []
      const d = points.map(([x, y], i) => `${i ? 'L' : 'M'}${across(x).toFixed(1)} ${up(y).toFixed(1)}`).join('')
      draw('path', chart, {d, stroke: one.color, 'stroke-dasharray': one.dash, class: 'curve', 'data-curve': one.key, 'data-points': points.length})
    }
    handle = draw('g', chart, {class: 'handle'})
    draw('line', handle, {y1: 0, y2: bottom})
    draw('circle', handle, {cy: bottom - 2, r: 9})
    marks = draw('g', chart)
    placeHandle(dialShown ?? setup.dial.value)
    drawMarks()
  }
  let handle = null, marks = null, dialShown = null
  function placeHandle(value) {
    dialShown = value
    handle?.setAttribute('transform', `translate(${across(value)} 0)`)
    const index = setup.dial.values.indexOf(value)
    if (index >= 0) slider.value = index
    slider.setAttribute('aria-valuetext', `${value}`)
  }
  function drawMarks() { // errors of the example on the stage, which is no mean
    if (!marks || !frame) return
    marks.replaceChildren()
    for (const one of setup.predictors) {
      const error = frame.numbers[one.key]?.error
      if (error) draw('path', marks, {d: `M${across(frame.dial)} ${up(error) - 7}l6 7l-6 7l-6 -7z`, fill: one.color, class: 'mark'})
    }
  }
  function turn(value) { // at once here, and to the server with the next picture of the screen
    placeHandle(value)
    wanted = {...wanted, dial: value}
    schedule()
  }
  function schedule() {
    if (scheduled) return
    scheduled = true
    requestAnimationFrame(() => { scheduled = false; const message = wanted; wanted = null; if (message) send(message) })
  }
  slider.addEventListener('input', () => turn(setup.dial.values[Number(slider.value)]))
  slider.addEventListener('keydown', event => { // a tenth of the range
    const pages = {PageUp: 1, PageDown: -1}[event.key]
    if (!pages) return
    event.preventDefault()
    const last = setup.dial.values.length - 1
    slider.value = Math.min(last, Math.max(0, Number(slider.value) + pages * Math.max(1, Math.round(last / 10))))
    turn(setup.dial.values[Number(slider.value)])
  })
  const pointed = event => (event.clientX - chart.getBoundingClientRect().left) * size.width / chart.getBoundingClientRect().width
  chart.addEventListener('pointerdown', event => {
    dragging = true
    chart.setPointerCapture(event.pointerId)
    slider.focus({preventScroll: true})
    turn(valueAt(pointed(event)))
  })
  chart.addEventListener('pointermove', event => { if (dragging) turn(valueAt(pointed(event))) })
  for (const name of ['pointerup', 'pointercancel']) chart.addEventListener(name, () => { dragging = false })

  // The fields ----------------------------------------------------------------------------------------------------------
  const columns = make('div', root, {className: 'columns'})
  const fields = {}, errors = {}, parts = {}
  const readout = make('div', root, {className: 'readout', role: 'status'})
  let cut = null, cutLines = {}

  function build() {
    columns.replaceChildren()
    cutLines = {}
    const all = [{key: 'source', name: 'Source f', color: '#888888'}, {key: 'solution', name: 'Exact u', color: '#888888'}, ...setup.predictors]
    for (const one of all) {
      const column = make('section', columns, {className: 'column', style: `border-color: ${one.color}`})
      column.setAttribute('aria-label', one.name)
      const head = make('div', column, {className: 'head'})
      make('h3', head, {}, one.name)
      const big = make('div', head, {className: 'big'})
      big.dataset.test = `${one.key}-error`
      fields[one.key] = new Field(column, one.name)
      parts[one.key] = {column, head, big}
      watchField(fields[one.key], one.key)
    }
    const cutBox = make('section', columns, {className: 'cut'})
    cutBox.setAttribute('aria-label', 'Cut through the fields')
    make('h3', cutBox, {}, 'Cut ', make('small', null, {className: 'where'}))
    cut = draw('svg', cutBox, {viewBox: `0 0 ${CUT_WIDTH} ${CUT_HEIGHT}`, preserveAspectRatio: 'none', role: 'img', 'aria-label': 'Exact and predicted solutions along the cut'})
    cutLines.solution = draw('path', cut, {class: 'line exact'})
    for (const one of setup.predictors) {
      cutLines[`${one.key}-band`] = draw('path', cut, {fill: one.color, class: 'band'})
      cutLines[one.key] = draw('path', cut, {stroke: one.color, 'stroke-dasharray': one.dash, class: 'line'})
    }
    for (const one of setup.predictors) {
      const column = make('section', columns, {className: 'misfit'})
      column.setAttribute('aria-label', `Error of ${one.name}`)
      make('h3', column, {title: 'of the root mean square of u'}, 'Error ', make('small', null, {}, 'white 0.1 %, full 100 %'))
      errors[one.key] = new Field(column, `Error of ${one.name}`)
      watchField(errors[one.key], one.key)
    }
    buildDrawing(parts.source.head, fields.source)
  }

  // Colours of a row of values. A logarithm is read off the bits of a float: its exponent, and linear between powers of 2.
  const bits = new Int32Array(1), float = new Float32Array(bits.buffer)
  const bitsOf = value => { float[0] = value; return bits[0] }
  const logarithmic = scale => { // 0.1 % of the scale is white, 100 % full, to either side
    const low = bitsOf(1e-3 * scale), factor = 127.5 / (bitsOf(scale) - low), colours = tables.error
    return (values, from, count, pixels, to) => {
      const words = new Int32Array(values.buffer, 4 * from, count)
      for (let i = 0; i < count; i++) {
        const t = ((words[i] & 0x7fffffff) - low) * factor
        const size = t < 0 ? 0 : t > 127.5 ? 127.5 : t
        pixels[to + i] = colours[(words[i] < 0 ? 127.5 - size : 127.5 + size) | 0]
      }
    }
  }
  const linear = (low, high) => {
    const factor = (N_COLOURS - 1) / (high - low || 1), colours = tables.solution
    return (values, from, count, pixels, to) => {
      for (let i = 0; i < count; i++) {
        const t = (values[from + i] - low) * factor
        pixels[to + i] = colours[t < 0 ? 0 : t > N_COLOURS - 1 ? N_COLOURS - 1 : t | 0]
      }
    }
  }
  const extent = values => {
    let low = Infinity, high = -Infinity
    for (let i = 0; i < values.length; i++) { const v = values[i]; if (v < low) low = v; if (v > high) high = v }
    return [low, high]
  }

  function paint() {
    const {points, arrays} = frame, exact = arrays.solution
    let [low, high] = extent(exact)
    const span = high - low || 1, limits = [low - span / 2, high + span / 2]
    const shown = {}
    for (const one of setup.predictors) {
      const off = arrays[one.key]
      if (!off) continue
      const sum = shown[one.key] = new Float32Array(exact.length)
      for (let i = 0; i < sum.length; i++) sum[i] = exact[i] + off[i]
      const [a, b] = extent(shown[one.key])
      low = Math.min(low, Math.max(a, limits[0])) // a prediction far off would flatten all others
      high = Math.max(high, Math.min(b, limits[1]))
    }
    frame.shown = shown
    frame.limits = [low, high]
    fields.source.paint(arrays.source, points, linear(...extent(arrays.source)))
    fields.solution.paint(exact, points, linear(low, high))
    for (const one of setup.predictors) {
      fields[one.key].paint(shown[one.key], points, linear(low, high), one.empty)
      errors[one.key].paint(arrays[one.key], points, logarithmic(frame.rms))
      const numbers = frame.numbers[one.key]
      set(parts[one.key].big, numbers ? percent(numbers.error) : '–')
      parts[one.key].head.title = numbers ? `residual of the equation ${percent(numbers.residual)}${one.adapted ? `, ${frame.given}` : ''}` : ''
      parts[one.key].column.classList.toggle('bad', Boolean(numbers && numbers.error > 0.05))
    }
    parts.solution.head.title = `residual of the equation ${percent(frame.residual)}`
    set(sentence, frame.sentence)
    drawCut()
    drawMarks()
  }
  const set = (element, text) => { if (element.textContent !== text) element.textContent = text }

  function drawCut() {
    if (!frame) return
    const {points, limits: [low, high], shown, spreads} = frame, row = Math.min(points - 1, Math.round(cutRow * points))
    const y = value => (CUT_HEIGHT - 6 - (value - low) / (high - low || 1) * (CUT_HEIGHT - 12)).toFixed(1)
    const line = values => Array.from({length: points}, (_, i) => `${i ? 'L' : 'M'}${(i / (points - 1) * CUT_WIDTH).toFixed(1)} ${y(values[row * points + i])}`).join('')
    cutLines.solution.setAttribute('d', line(frame.arrays.solution))
    for (const one of setup.predictors) {
      cutLines[one.key].setAttribute('d', shown[one.key] ? line(shown[one.key]) : '')
      const spread = frame.arrays[`${one.key}-spread`]
      let band = ''
      if (spread && shown[one.key]) {
        const upper = shown[one.key].map((v, i) => v + spread[i]), lower = shown[one.key].map((v, i) => v - spread[i])
        const back = Array.from({length: points}, (_, i) => points - 1 - i).map(i => `L${(i / (points - 1) * CUT_WIDTH).toFixed(1)} ${y(lower[row * points + i])}`).join('')
        band = `${line(upper)}${back}Z`
      }
      cutLines[`${one.key}-band`].setAttribute('d', band)
    }
    set(columns.querySelector('.where'), ` at y = ${(row / points).toFixed(2)}; grey: exact`)
    for (const field of [...Object.values(fields), ...Object.values(errors)]) field.row.style.bottom = `${100 * cutRow}%`
  }

  function place(event, field) { // where on the unit square, y upwards
    const box = field.canvas.getBoundingClientRect()
    return [(event.clientX - box.left) / box.width, 1 - (event.clientY - box.top) / box.height].map(v => Math.min(0.9999, Math.max(0, v)))
  }
  function watchField(field, key) {
    field.frame.addEventListener('pointermove', event => {
      if (!frame || event.pointerType === 'touch') return
      const [x, y] = place(event, field), points = frame.points
      const i = Math.floor(y * points) * points + Math.floor(x * points)
      for (const one of [...Object.values(fields), ...Object.values(errors)]) {
        one.cross.style.left = `${100 * x}%`
        one.cross.style.bottom = `${100 * y}%`
        one.cross.style.display = 'block'
      }
      const says = [`x ${x.toFixed(2)}, y ${y.toFixed(2)}`, `f ${number(frame.arrays.source[i])}`, `u ${number(frame.arrays.solution[i])}`]
      for (const one of setup.predictors) if (frame.shown[one.key]) says.push(`${one.name.toLowerCase()} ${number(frame.shown[one.key][i])}`)
      readout.textContent = says.join('   ')
    })
    field.frame.addEventListener('pointerleave', () => {
      for (const one of [...Object.values(fields), ...Object.values(errors)]) one.cross.style.display = 'none'
      readout.textContent = ''
    })
    if (key !== 'source') field.frame.addEventListener('click', event => { cutRow = place(event, field)[1]; drawCut() })
  }

  // The source, drawn by hand -------------------------------------------------------------------------------------------
  let gaussians = [], held = null, chosen = null, sign = 1, drawing = null, overlay = null
  function buildDrawing(column, field) {
    const tools = make('div', column, {className: 'tools'})
    const label = make('label', tools, {})
    drawing = make('input', label, {type: 'checkbox'})
    drawing.dataset.test = 'draw'
    label.append(' draw')
    const signs = make('button', tools, {type: 'button', title: 'Sign of the next Gaussian'}, '+')
    signs.setAttribute('aria-label', 'Sign of the next Gaussian: positive')
    const clear = make('button', tools, {type: 'button'}, 'Clear')
    overlay = draw('svg', field.frame, {viewBox: '0 0 1 1', class: 'handles'})
    drawing.addEventListener('change', () => {
      field.frame.classList.toggle('drawing', drawing.checked)
      if (drawing.checked && !setup.drawn) change([])
      if (!drawing.checked && setup.drawn) send({random: true})
    })
    signs.addEventListener('click', () => {
      sign = -sign
      signs.textContent = sign > 0 ? '+' : '−'
      signs.setAttribute('aria-label', `Sign of the next Gaussian: ${sign > 0 ? 'positive' : 'negative'}`)
    })
    clear.addEventListener('click', () => { drawing.checked = true; field.frame.classList.add('drawing'); change([]) })
    field.frame.addEventListener('pointerdown', event => {
      if (!drawing.checked) return
      event.preventDefault()
      const [x, y] = place(event, field)
      held = gaussians.findIndex(([a, b]) => Math.hypot(a - x, b - y) < NEAR)
      if (held < 0) { held = gaussians.length; change([...gaussians, [x, y, sign]]) }
      chosen = held
      field.frame.setPointerCapture(event.pointerId)
      handles()
    })
    field.frame.addEventListener('pointermove', event => {
      if (held == null) return
      const [x, y] = place(event, field)
      change(gaussians.map((row, i) => i === held ? [x, y, row[2]] : row))
    })
    for (const name of ['pointerup', 'pointercancel']) field.frame.addEventListener(name, () => { held = null })
    handles()
  }
  function change(rows) {
    gaussians = rows
    handles()
    wanted = {...wanted, gaussians: rows}
    schedule()
  }
  function handles() { // they take the keyboard too: arrows move, Delete removes
    if (!overlay) return
    overlay.replaceChildren()
    if (!drawing.checked) return
    gaussians.forEach(([x, y, amplitude], i) => {
      const circle = draw('circle', overlay, {
        cx: x, cy: 1 - y, r: 0.028, tabindex: 0, role: 'button', class: i === chosen ? 'chosen' : '',
        fill: amplitude > 0 ? '#b2182b' : '#2166ac', 'aria-label': `Gaussian ${i + 1}, x ${x.toFixed(2)}, y ${y.toFixed(2)}`,
      })
      circle.addEventListener('keydown', event => {
        const step = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1]}[event.key]
        if (step) change(gaussians.map((row, j) => j === i ? [(row[0] + step[0] / 64 + 1) % 1, (row[1] + step[1] / 64 + 1) % 1, row[2]] : row))
        else if (event.key === 'Delete' || event.key === 'Backspace') change(gaussians.filter((_, j) => j !== i))
        else return
        event.preventDefault()
        overlay.children[Math.min(i, gaussians.length - 1)]?.focus()
      })
    })
  }

  // Examples ------------------------------------------------------------------------------------------------------------
  const examples = make('fieldset', bar, {className: 'choice examples'}, make('legend', null, {}, 'Fine-tuned on'))
  function radios(parent, name, options, value, message) {
    const legend = parent.querySelector('legend')
    parent.replaceChildren(legend)
    for (const option of options) {
      const label = make('label', parent, {title: option.title ?? ''})
      const input = make('input', label, {type: 'radio', name: `${name}-${model.id ?? 'stage'}`, value: option.value, checked: option.value === value})
      make('span', label, {}, option.label)
      input.addEventListener('change', () => { if (input.checked) send({[message]: option.value}) })
    }
  }

  function offer(menu, options, value) {
    menu.replaceChildren(...options.map(one => make('option', null, {value: one.value, selected: one.value === value}, one.label)))
  }

  // Messages ------------------------------------------------------------------------------------------------------------
  function configure(next) {
    const first = !setup || JSON.stringify(setup.predictors) !== JSON.stringify(next.predictors)
    const other = !setup || setup.system !== next.system
    setup = next
    if (other) { frame = null; dialShown = null }
    radios(systems, 'system', setup.systems, setup.system, 'system')
    offer(models, setup.models, setup.model)
    offer(lessons, setup.lessons ?? [], setup.lesson)
    lessons.parentElement.hidden = !setup.lessons
    equation.innerHTML = setup.equation
    radios(examples, 'examples', setup.results, setup.shown, 'result')
    slider.max = setup.dial.values.length - 1
    slider.setAttribute('aria-label', setup.dial.title)
    if (first) build()
    if (held == null) gaussians = setup.gaussians
    drawing.checked = setup.drawn
    fields.source.frame.classList.toggle('drawing', setup.drawn)
    handles()
    drawChart()
  }
  model.on('msg:custom', event => {
    const message = unpack(event.data ?? event)
    if (message.kind === 'setup') configure(message)
    if (message.kind === 'notice') { notice.textContent = message.text; if (message.id != null) send({painted: message.id}) }
    if (message.kind === 'sentence') set(sentence, message.text)
    if (message.kind === 'address') {
      history.replaceState(null, '', `?${message.query}`)
      share.hidden = false
    }
    if (message.kind === 'curves') { curves = message.reset ? message.curves : {...curves, ...message.curves}; drawChart() }
    if (message.kind === 'frame' && setup && message.system === setup.system) {
      frame = message
      notice.textContent = ''
      paint()
      if (!dragging && !scheduled && message.last) placeHandle(message.dial)
      root.dispatchEvent(new CustomEvent('stage-painted', {bubbles: true, composed: true, detail: {dial: message.dial, index: setup.dial.values.indexOf(message.dial), id: message.id}}))
      root.dataset.dial = message.dial
      root.dataset.painted = message.id
      send({painted: message.id})
    } else if (message.kind === 'frame') send({painted: message.id})
  })
  new ResizeObserver(() => drawChart()).observe(dial)
  send({ready: true})
}

const STYLE = `
.operator-stage { font-family: system-ui, sans-serif; font-size: 14px; color: inherit; container-type: inline-size; display: flex; flex-direction: column; gap: 4px; }
.operator-stage h3 { font-size: 14px; margin: 2px 0 3px; font-weight: 600; white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
.operator-stage small { font-weight: 400; font-size: 12px; opacity: .85; }
.bar { display: flex; flex-wrap: wrap; gap: 4px 18px; align-items: center; }
.choice { border: 0; margin: 0; padding: 0; display: flex; flex-wrap: wrap; gap: 2px; align-items: center; min-width: 0; }
.choice legend { float: left; padding: 0 8px 0 0; font-weight: 600; }
.choice input { position: absolute; opacity: 0; }
.choice label { position: relative; }
.choice span { display: inline-block; padding: 4px 10px; border: 1px solid #8888; cursor: pointer; border-radius: 4px; }
.choice input:checked + span { background: #005a91; color: #fff; border-color: #005a91; }
.choice input:focus-visible + span, .operator-stage :focus-visible { outline: 3px solid #d55e00; outline-offset: 1px; }
.model select { font: inherit; padding: 3px; max-width: 21ch; background: transparent; color: inherit; border: 1px solid #8888; border-radius: 4px; }
.model select option { color: #000; background: #fff; }
.equation math { font-size: 15px; }
.notice { color: #b3261e; font-weight: 600; min-height: 0; }
.dial { position: relative; }
.dial svg { display: block; width: 100%; height: 130px; cursor: ew-resize; touch-action: none; }
.dial input { display: block; width: calc(100% - 44px); margin: 0 6px 0 38px; accent-color: #d55e00; height: 14px; }
.trained { fill: #0072b2; fill-opacity: .16; }
.grid { stroke: currentColor; stroke-opacity: .13; }
.axis { stroke: currentColor; }
.tick { font-size: 11px; fill: currentColor; }
.resonance { fill: #cc79a7; }
.dot { fill: #0072b2; }
.window { fill: none; stroke: #009e73; stroke-width: 2; }
.curve { fill: none; stroke-width: 2.5; }
.handle line { stroke: #d55e00; stroke-width: 2; }
.handle circle { fill: #d55e00; stroke: #fff; stroke-width: 2; }
.mark { stroke: #fff; stroke-width: 1; }
.sentence { margin: 0; font-size: 15px; }
.columns { --side: max(130px, calc(50vh - 184px)); display: grid; grid-template-columns: repeat(5, minmax(0, var(--side))); justify-content: space-between; gap: 4px 10px; }
.column { border-top: 3px solid; }
.cut { grid-column: span 2; min-width: 0; }
.cut { display: flex; flex-direction: column; }
.cut svg { width: 100%; height: 0; flex: 1; min-height: 100px; border: 1px solid #8884; box-sizing: border-box; }
.line { fill: none; stroke-width: 2; vector-effect: non-scaling-stroke; }
.exact { stroke: #888; stroke-width: 5; stroke-opacity: .5; }
.band { fill-opacity: .2; }
.field { position: relative; aspect-ratio: 1; border: 1px solid #8888; overflow: hidden; }
.field canvas { width: 100%; height: 100%; display: block; }
.field .empty { position: absolute; inset: 0; display: flex; align-items: center; justify-content: center; text-align: center; opacity: .8; }
.cross { position: absolute; width: 11px; height: 11px; margin: 0 0 -6px -6px; border: 1.5px solid #fff; outline: 1px solid #000; border-radius: 50%; pointer-events: none; display: none; }
.row { position: absolute; left: 0; right: 0; border-top: 1.5px dotted #fff; mix-blend-mode: difference; pointer-events: none; }
.big { font-size: 20px; font-weight: 700; font-variant-numeric: tabular-nums; line-height: 1.25; }
.head { display: flex; justify-content: space-between; align-items: baseline; gap: 6px; height: 28px; }
.head .big:empty { display: none; }
.readout { min-height: 1.3em; font-size: 12px; white-space: pre-wrap; font-variant-numeric: tabular-nums; }
.tools { display: flex; gap: 6px; align-items: center; font-size: 13px; white-space: nowrap; }
.tools label { display: flex; align-items: center; gap: 4px; }
.tools:not(:has(:checked)) button { display: none; }
.under { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 2px 20px; align-items: center; }
.share, .tools button { font: inherit; background: transparent; color: inherit; border: 1px solid #8888; border-radius: 4px; padding: 1px 9px; cursor: pointer; }
.handles { position: absolute; inset: 0; width: 100%; height: 100%; pointer-events: none; }
.handles circle { stroke: #fff; stroke-width: .008; }
.handles .chosen { stroke-width: .014; }
.drawing { touch-action: none; cursor: crosshair; }
@container (min-width: 1500px) { .columns { --side: max(130px, calc(50vh - 200px)) } .operator-stage, .operator-stage h3, .sentence { font-size: 18px } .big { font-size: 28px } .operator-stage small, .readout { font-size: 15px } }
@container (max-width: 700px) {
  .columns { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  .dial { position: sticky; bottom: 0; z-index: 2; background: Canvas; order: 9; }
  .cut { grid-column: span 2; }
}
`
