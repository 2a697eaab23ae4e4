// The fields, their errors and the cut: one canvas each, painted through a table of colours.

const N_COLOURS = 256
const UNSURE = 'zero_shot' // the prediction that the ensemble tells of
const CUT_WIDTH = 400, CUT_HEIGHT = 190

function lookup(colours) { // hex colours as one 32-bit word a pixel, as canvases keep them
  return Uint32Array.from(colours, colour => {
    const value = parseInt(colour.slice(1), 16)
    return (255 << 24 | (value & 255) << 16 | (value >> 8 & 255) << 8 | value >> 16) >>> 0
  })
}

// Colours of a row of values. A logarithm is read off the bits of a float: its exponent, and linear between powers of 2.
const bits = new Int32Array(1), float = new Float32Array(bits.buffer)
const bitsOf = value => { float[0] = value; return bits[0] }
function logarithmic(scale, colours) { // 0.1 % of the scale is white, 100 % full, to either side
  const low = bitsOf(1e-3 * scale), factor = 127.5 / (bitsOf(scale) - low)
  return (values, from, count, pixels, to) => {
    const words = new Int32Array(values.buffer, 4 * from, count)
    for (let i = 0; i < count; i++) {
      const t = ((words[i] & 0x7fffffff) - low) * factor
      const size = t < 0 ? 0 : t > 127.5 ? 127.5 : t
      pixels[to + i] = colours[(words[i] < 0 ? 127.5 - size : 127.5 + size) | 0]
    }
  }
}
function linear(low, high, colours) {
  const factor = (N_COLOURS - 1) / (high - low || 1)
  return (values, from, count, pixels, to) => {
    for (let i = 0; i < count; i++) {
      const t = (values[from + i] - low) * factor
      pixels[to + i] = colours[t < 0 ? 0 : t > N_COLOURS - 1 ? N_COLOURS - 1 : t | 0]
    }
  }
}
function extent(values) {
  let low = Infinity, high = -Infinity
  for (let i = 0; i < values.length; i++) { const v = values[i]; if (v < low) low = v; if (v > high) high = v }
  return [low, high]
}

function heading(parent, name, title = '') {
  const head = make('div', parent, {className: 'head', title})
  make('h3', head, {}, name)
  return head
}

class Scale { // the colours of fields with their values, beside them
  constructor(parent, name, colours) {
    this.colours = colours
    this.section = make('section', parent, {className: 'scaled'})
    this.section.setAttribute('aria-label', `Colours of ${name}`)
    heading(this.section, name)
    this.bar = make('div', this.section, {className: 'scale', style: `background: linear-gradient(to top, ${colours.filter((_, i) => i % 5 === 0)})`})
  }
  show(ticks) { // [share of the height, text]
    this.ticks = ticks
    this.bar.replaceChildren(...ticks.map(([share, text]) => make('span', null, {style: `bottom: ${100 * share}%`}, text)))
  }
  draw(svg, x, y, height) { // in a picture
    const step = height / this.colours.length
    this.colours.forEach((fill, i) => draw('rect', svg, {x, y: y + height - (i + 1) * step, width: 12, height: 1.5 * step, fill}))
    for (const [share, text] of this.ticks) tick(svg, x + 16, y + (1 - share) * height + 4, text, 'start')
  }
}
const DECADES = [-100, -10, -1, 0.1, 1, 10, 100].map((value, i) => [i / 6, `${value > 0.1 ? '+' : i === 3 ? '±' : '−'}${Math.abs(value)} %`])

class Field { // one canvas, its crosshair, and what is said where there is nothing to paint
  constructor(parent, label) {
    this.frame = make('div', parent, {className: 'field'})
    this.canvas = make('canvas', this.frame, {role: 'img'})
    this.canvas.setAttribute('aria-label', label)
    this.cross = make('div', this.frame, {className: 'cross'})
    this.row = make('div', this.frame, {className: 'row'})
    this.empty = make('div', this.frame, {className: 'empty'})
  }
  paint(values, points, table, says = '') { // `table` gives the colour of a value
    set(this.empty, values ? '' : says)
    this.canvas.style.visibility = values ? 'visible' : 'hidden'
    this.painted = Boolean(values)
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
  place(event) { // where on the unit square, y upwards
    const box = this.canvas.getBoundingClientRect()
    return [(event.clientX - box.left) / box.width, 1 - (event.clientY - box.top) / box.height].map(v => Math.min(0.9999, Math.max(0, v)))
  }
}

const DASHES = {none: 'solid', '8 4': 'dashed'} // of a line in a heading, by that of the curve

class Fields {
  // `next(value)` is called when a button of the card that says what to do next is pressed: with the number of a result,
  // or with nothing for *Train live*.
  constructor(parent, {colours, scales, texts}, next) {
    Object.assign(this, {colours, scales, texts, next})
    this.tables = {solution: lookup(scales.solution), error: lookup(scales.error)}
    this.cutRow = 0.5
    this.columns = make('div', parent, {className: 'columns'})
    this.pair = make('div', null, {className: 'pair'}) // the predictions: on a phone, swiped beside the exact solution
    this.switch = make('div', null, {className: 'switch'})
    const fold = button(null, 'Errors and cut', () => { fold.ariaExpanded = String(this.below.classList.toggle('open')) }, {ariaExpanded: 'false'})
    this.below = make('div', null, {className: 'below'}, fold) // folded on a phone only
    this.panel = make('div', null, {className: 'panel', role: 'tabpanel', tabIndex: 0}) // what a tab shows instead
    this.middle = make('div', null, {className: 'middle'}) // between the fields and what is below them
    this.readout = make('div', null, {className: 'readout'})
    this.idle = '' // what is said while nothing is pointed at
    this.pointed = null // x and y on the unit square, while something is
  }

  // Build the columns for a list of predictors, which changes with the page's plug-ins only, and for what further fields
  // an equation has, such as coefficients that vary in space. Headings end with the symbol of their field.
  build(predictors, further, [source, solution]) {
    Object.assign(this, {predictors, further, alone: null, frame: null})
    this.symbols = [source, solution].map(name => name.split(' ').at(-1))
    this.columns.classList.toggle('varying', further.length > 0)
    this.fields = {}
    this.errors = {}
    this.parts = {}
    this.lines = {}
    this.columns.replaceChildren()
    this.pair.replaceChildren()
    this.switch.replaceChildren()
    this.below.replaceChildren(this.below.firstChild)
    if (further.length) {
      const small = make('div', this.columns, {className: 'small'})
      for (const one of further) this.column(small, one)
    }
    this.column(this.columns, {key: 'source', name: source})
    this.column(this.columns, {key: 'solution', name: solution, color: this.colours.exact, dash: 'none'})
    this.columns.append(this.pair)
    this.bars = make('div', this.columns, {className: 'bars'})
    this.values = new Scale(this.bars, this.symbols[1], this.scales.solution)
    this.columns.append(this.switch, this.middle, this.below, this.panel)
    this.middle.append(this.readout)
    for (const one of predictors) {
      this.column(this.pair, one)
      this.parts[one.key].way = button(this.switch, one.name, () => this.parts[one.key].column.scrollIntoView({behavior: 'smooth', block: 'nearest', inline: 'start'}))
    }
    const box = make('section', this.below, {className: 'cut'})
    box.setAttribute('aria-label', this.timed ? 'Errors over time' : 'Cut through the fields')
    const graph = make('div', box, {className: 'graph'})
    this.where = make('small', heading(graph, this.timed ? 'Error over time' : 'Cut'), {className: 'where'})
    this.cut = draw('svg', graph, {viewBox: `0 0 ${CUT_WIDTH} ${CUT_HEIGHT}`, preserveAspectRatio: 'none', role: 'img', class: 'through', 'aria-label': 'Exact and predicted solutions along the cut'})
    this.course = draw('svg', graph, {class: 'course', role: 'img', 'aria-label': 'Errors over time'}) // of an evolution, in its place
    this.lines.solution = draw('path', this.cut, {class: 'line exact'})
    for (const one of predictors) {
      if (one.key === UNSURE) this.lines.band = draw('path', this.cut, {fill: one.color, class: 'band'})
      this.lines[one.key] = draw('path', this.cut, {stroke: one.color, 'stroke-dasharray': one.dash, class: 'line'})
    }
    this.doubt = make('section', box, {className: 'spread', hidden: true})
    this.doubt.setAttribute('aria-label', 'Spread of an ensemble')
    this.apart = make('small', heading(this.doubt, 'Spread', this.texts.spread), {})
    this.apart.dataset.test = 'spread'
    this.spread = new Field(this.doubt, 'Spread of an ensemble')
    this.watch(this.spread)
    this.card = make('section', this.below, {className: 'card'})
    this.card.setAttribute('aria-label', 'What to do next')
    for (const one of predictors) {
      const section = this.parts[one.key].misfit = make('section', this.below, {className: 'misfit'})
      section.setAttribute('aria-label', `Error of ${one.name}`)
      const head = heading(section, 'Error', this.timed ? '' : this.texts.bounds)
      this.parts[one.key].bounds = make('small', head, {className: 'bounds'})
      this.parts[one.key].bounds.dataset.test = `${one.key}-bounds`
      this.errors[one.key] = new Field(section, `Error of ${one.name}`)
      this.watch(this.errors[one.key])
    }
    this.shares = new Scale(this.below, 'of rms u', this.scales.error)
    this.shares.bar.title = this.texts.error_scale
    this.shares.show(DECADES)
  }
  column(parent, {key, name, color, dash, about}) {
    const column = make('section', parent, {className: 'column'})
    column.setAttribute('aria-label', name)
    column.dataset.key = key
    const head = heading(column, name, about)
    if (color) head.firstChild.prepend(make('span', null, {className: 'swatch', style: `border-top: 3px ${DASHES[dash] ?? 'dotted'} ${color}`}))
    const big = make('div', head, {className: 'big'})
    big.dataset.test = `${key}-error`
    this.fields[key] = new Field(column, name)
    this.parts[key] = {column, head, big}
    this.watch(this.fields[key], key !== 'source')
  }

  // Without a fine-tuning the error of the first prediction stands beside it, larger, and below is what to do next; without
  // any operator that stands there.
  arrange({numbers}) {
    const {columns, predictors: [first], parts, pair, card, below} = this
    const shown = this.predictors.filter(({key}) => numbers[key]), alone = !shown.length ? 'none' : shown.at(-1) === first ? 'alone' : ''
    for (const {key} of this.predictors) for (const part of ['column', 'misfit', 'way']) parts[key][part].classList.toggle('absent', !numbers[key])
    columns.style.setProperty('--count', alone ? 4 : 2 + shown.length)
    if (alone === this.alone) return
    this.alone = alone
    columns.classList.toggle('alone', alone !== '')
    below.firstChild.nextSibling.after(card, ...this.predictors.map(({key}) => parts[key].misfit), this.shares.section)
    if (alone) pair.after(alone === 'none' ? card : parts[first.key].misfit)
    if (alone) this.bars.append(this.shares.section)
  }
  offer({results, model, models, trains}) { // what to do next
    const known = results.slice(1), {next_choose, next_train, next_none, next_model} = this.texts
    this.card.replaceChildren(make('p', null, {}, !model ? (models.length > 1 ? next_model : next_none) : known.length ? next_choose : next_train))
    if (!model || !(known.length || trains)) return
    const buttons = make('div', this.card, {className: 'buttons'})
    for (const one of known) button(buttons, one.label, () => this.next(one.value), {title: one.title})
    if (trains) button(buttons, 'Train live', () => this.next(), {className: known.length ? '' : 'main-act'})
  }
  get all() { return [...Object.values(this.fields), ...Object.values(this.errors), this.spread] }

  // What follows when the dial rests: the spread of the ensemble that was trained as the zero-shot operator was.
  paintSpread({frame: id, points, arrays, relative}) {
    const {frame} = this
    if (!frame || frame.id !== id || frame.points !== points) return
    frame.arrays.spread = arrays.spread
    this.spread.paint(arrays.spread, points, logarithmic(frame.rms, this.tables.error))
    set(this.apart, percent(relative))
    this.doubt.classList.remove('stale')
    this.drawCut()
  }

  // The predicted fields and the range of colours.
  prepare(frame) {
    const {arrays} = frame, exact = arrays.solution
    let [low, high] = extent(exact)
    const span = high - low || 1, limits = [low - span / 2, high + span / 2]
    const shown = frame.shown = {}
    for (const {key} of this.predictors) {
      const off = arrays[key]
      if (!off) continue
      const sum = shown[key] = new Float32Array(exact.length)
      for (let i = 0; i < sum.length; i++) sum[i] = exact[i] + off[i]
      const [a, b] = extent(sum)
      low = Math.min(low, Math.max(a, limits[0])) // a prediction far off would flatten all others
      high = Math.max(high, Math.min(b, limits[1]))
    }
    frame.limits = [low, high]
  }
  paint(frame) { // one that was prepared
    this.frame = frame
    this.arrange(frame)
    const {points, arrays, shown, limits: [low, high]} = frame, exact = arrays.solution, {solution, error} = this.tables
    for (const key of ['source', ...this.further.map(each => each.key)]) {
      const ends = extent(arrays[key])
      this.fields[key].paint(arrays[key], points, linear(...ends, solution))
      this.parts[key].head.title = `colours from ${ends.map(brief).join(' to ')}`
    }
    this.values.show([0, 0.5, 1].map(share => [share, brief(low + share * (high - low))]))
    this.fields.solution.paint(exact, points, linear(low, high, solution))
    for (const one of this.predictors) {
      this.fields[one.key].paint(shown[one.key], points, linear(low, high, solution), frame.empty?.[one.key])
      this.errors[one.key].paint(arrays[one.key], points, logarithmic(frame.rms, error))
      const numbers = frame.numbers[one.key], {big, bounds, head, column} = this.parts[one.key]
      set(big, numbers ? percent(numbers.error) : '–')
      set(bounds, !numbers ? '' : this.timed ? `correlation ${numbers.correlation.toFixed(2)}` : between(numbers.bounds, this.resonant))
      head.title = numbers ? `residual of the equation ${percent(numbers.residual)}${one.adapted ? `, ${frame.given}` : ''}` : ''
      column.classList.toggle('learning', frame.learning.includes(one.key))
    }
    this.doubt.classList.add('stale')
    this.parts.solution.head.title = `residual of the equation ${percent(frame.residual)}`
    this.drawCut()
  }

  // There is no frame of what the page is set to: that of before would be taken for it.
  blank() {
    this.frame = null
    for (const field of this.all) field.paint(null)
    for (const {big, bounds} of Object.values(this.parts)) { set(big, ''); if (bounds) set(bounds, '') }
    for (const line of Object.values(this.lines)) line.setAttribute('d', '')
    this.doubt.classList.add('stale')
    this.read()
  }

  drawCut() {
    const {frame, lines} = this
    if (this.pointed) this.read()
    if (!frame || this.timed) return
    const {points, limits: [low, high], shown} = frame, row = Math.min(points - 1, Math.round(this.cutRow * points))
    const y = value => CUT_HEIGHT - 6 - (value - low) / (high - low || 1) * (CUT_HEIGHT - 12)
    const x = i => i / (points - 1) * CUT_WIDTH
    const cut = values => Array.from(values.subarray(row * points, (row + 1) * points), (value, i) => [x(i), y(value)])
    const line = values => through(cut(values))
    lines.solution.setAttribute('d', line(frame.arrays.solution))
    for (const {key} of this.predictors) {
      lines[key].setAttribute('d', shown[key] ? line(shown[key]) : '')
    }
    const {spread} = frame.arrays, middle = shown[UNSURE]
    let band = ''
    if (spread && middle) {
      const upper = cut(middle.map((v, i) => v + spread[i])), lower = cut(middle.map((v, i) => v - spread[i]))
      band = `${through([...upper, ...lower.toReversed()])}Z`
    }
    lines.band.setAttribute('d', band)
    set(this.where, `at y = ${(row / points).toFixed(2)}; grey: exact`)
    for (const field of this.all) field.row.style.bottom = `${100 * this.cutRow}%`
  }

  read() { // what is pointed at, of the frame that is painted
    const {frame, pointed} = this
    for (const {cross} of this.all) cross.style.display = pointed ? 'block' : 'none'
    if (!pointed || !frame) { this.readout.textContent = this.idle; return }
    const [x, y] = pointed, {points, arrays} = frame
    const i = Math.floor(y * points) * points + Math.floor(x * points)
    for (const {cross} of this.all) Object.assign(cross.style, {left: `${100 * x}%`, bottom: `${100 * y}%`})
    const says = [`x ${x.toFixed(2)}, y ${y.toFixed(2)}`, ...this.further.map(({key, name}) => `${name.toLowerCase()} ${number(arrays[key][i])}`), `${this.symbols[0]} ${number(arrays.source[i])}`, `${this.symbols[1]} ${number(arrays.solution[i])}`]
    for (const one of this.predictors) if (frame.shown[one.key]) says.push(`${one.name.toLowerCase()} ${number(frame.shown[one.key][i])}`)
    if (arrays.spread) says.push(`spread ${number(arrays.spread[i])}`)
    this.readout.textContent = says.join('   ')
  }

  watch(field, cuts = true) {
    field.frame.addEventListener('pointermove', event => {
      if (event.pointerType === 'touch') return
      this.pointed = field.place(event)
      this.read()
    })
    field.frame.addEventListener('pointerleave', () => {
      this.pointed = null
      this.read()
    })
    if (!cuts || this.timed) return
    field.frame.addEventListener('click', event => { this.cutRow = field.place(event)[1]; this.drawCut() })
    field.frame.tabIndex = 0 // by keyboard, the cut moves up and down
    field.frame.setAttribute('role', 'group')
    field.frame.setAttribute('aria-label', `${field.canvas.getAttribute('aria-label')}; arrows up and down move the cut`)
    field.frame.addEventListener('keydown', event => {
      const step = {ArrowUp: 1, ArrowDown: -1}[event.key]
      if (!step) return
      event.preventDefault()
      this.cutRow = Math.min(0.9999, Math.max(0, this.cutRow + step / 32))
      this.drawCut()
    })
  }
}
