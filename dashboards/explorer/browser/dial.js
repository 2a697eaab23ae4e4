// The dial is the error curve: relative error along its whole range, and a handle to drag.

const visited = (name, now = false) => { // whether something was done before, in this browser; an iframe may have no storage
  try { return now ? localStorage[name] = 'yes' : localStorage[name] } catch { return true }
}

class Dial {
  // `told.turn(value)` is called when the dial is turned, `told.window(low, high)` when the brackets are dragged.
  constructor(parent, texts, told) {
    Object.assign(this, {texts, told, curves: {}})
    this.box = make('div', parent, {className: 'dial'})
    this.chart = draw('svg', this.box, {'aria-hidden': 'true'})
    this.slider = make('input', this.box, {type: 'range', min: 0, step: 1}) // for the keyboard, and not seen
    this.size = {width: 1000, height: 96, left: 46, right: 80, top: 6, bottom: 20}
    this.held = null // what is dragged: 'handle', or end 0 or 1 of the window
    this.slider.addEventListener('input', () => this.turn(this.values[Number(this.slider.value)]))
    this.slider.addEventListener('keydown', event => { // a tenth of the range
      const pages = {PageUp: 1, PageDown: -1}[event.key]
      if (!pages) return
      event.preventDefault()
      const last = this.values.length - 1
      this.slider.value = Math.min(last, Math.max(0, Number(this.slider.value) + pages * Math.max(1, Math.round(last / 10))))
      this.turn(this.values[Number(this.slider.value)])
    })
    this.chart.addEventListener('pointerdown', event => {
      const x = this.pointed(event)
      this.held = event.target.classList.contains('grip') ? Number(event.target.dataset.end) : 'handle'
      this.chart.setPointerCapture(event.pointerId)
      if (this.held === 'handle') { this.slider.focus({preventScroll: true}); this.turn(this.valueAt(x)) }
    })
    this.chart.addEventListener('pointermove', event => {
      if (this.held === null) return
      const value = this.valueAt(this.pointed(event))
      if (this.held === 'handle') this.turn(value)
      else this.stretch(this.held, value)
    })
    for (const name of ['pointerup', 'pointercancel']) this.chart.addEventListener(name, () => { this.held = null })
    new ResizeObserver(() => this.draw()).observe(this.box)
  }

  configure(setup) {
    const other = this.setup?.system !== setup.system
    this.setup = setup
    this.values = setup.dial.values
    if (other) { this.value = setup.dial.value; this.frame = null }
    this.slider.max = this.values.length - 1
    this.slider.setAttribute('aria-label', setup.dial.title)
    this.train(setup.training)
  }
  train(ends) { // the window of a training, or null; not while it is dragged here
    if (typeof this.held !== 'number') this.ends = ends
    this.draw()
  }

  across(value) {
    const {low, high, logarithmic} = this.setup.dial, {left, right, width} = this.size
    const t = logarithmic ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low)
    return left + t * (width - left - right)
  }
  pointed(event) {
    const box = this.chart.getBoundingClientRect()
    return (event.clientX - box.left) * this.size.width / box.width
  }
  valueAt(x) { // nearest value that the dial can take; near a whole number that was trained on, that
    let best = this.values[0]
    for (const value of this.values) if (Math.abs(this.across(value) - x) < Math.abs(this.across(best) - x)) best = value
    const whole = Math.round(best)
    return this.setup.dial.whole && this.values.includes(whole) && Math.abs(this.across(whole) - x) < 9 ? whole : best
  }
  stretch(end, value) {
    const other = this.ends[1 - end]
    if (end ? value <= other : value >= other) return
    this.ends = end ? [other, value] : [value, other]
    this.draw()
    this.told.window(...this.ends)
  }
  turn(value) { // at once here; the server follows
    if (this.caption) { visited('dialled', true); this.caption.remove() }
    this.place(value)
    this.told.turn(value)
  }
  place(value) {
    this.value = value
    if (this.handle) {
      this.handle.setAttribute('transform', `translate(${this.across(value)} 0)`)
      const says = `‹ ${number(value)} ›`, em = textSize(this.chart), wide = (0.6 * says.length + 0.6) * em
      set(this.says, says)
      this.pill.setAttribute('x', -wide / 2)
      this.pill.setAttribute('width', wide)
      for (const [x, label] of this.ticks) label.style.visibility = Math.abs(x - this.across(value)) < (wide + 0.6 * label.textContent.length * em) / 2 ? 'hidden' : ''
    }
    const index = this.values.indexOf(value)
    if (index >= 0) this.slider.value = index
    this.slider.setAttribute('aria-valuetext', `${value}`)
  }

  show(curves, reset) {
    this.curves = reset ? curves : {...this.curves, ...curves}
    this.draw()
  }
  draw() {
    const {chart, setup} = this
    if (!setup || !chart.clientHeight) return
    const em = textSize(chart), width = Math.max(300, chart.clientWidth), height = chart.clientHeight
    const {top, left, right, bottom} = this.size = {width, height, left: 4.4 * em, right: 7.7 * em, top: 6, bottom: 1.9 * em}
    const floor = height - bottom, trained = setup.model ? setup.trained?.map(value => this.across(value)) : null
    chart.setAttribute('viewBox', `0 0 ${width} ${height}`)
    chart.replaceChildren()
    if (trained) draw('rect', chart, {x: trained[0], y: top, width: Math.max(2, trained[1] - trained[0]), height: floor - top, class: 'trained'})
    this.up = errorAxis(chart, this.size)
    this.ticks = []
    let free = -Infinity // where the last number ended
    for (const value of setup.dial.ticks) {
      const x = this.across(value), half = 0.32 * `${value}`.length * em
      draw('line', chart, {x1: x, x2: x, y1: floor, y2: floor + 4, class: 'axis'})
      if (x - half < free) continue
      free = x + half + 2
      this.ticks.push([x, tick(chart, x, floor + 1.3 * em, `${value}`)])
    }
    if (setup.window) this.brackets(setup.window, 'window')
    const ends = []
    for (const one of setup.predictors) {
      const points = (this.curves[one.key] ?? []).map(([x, y]) => [this.across(x), this.up(y)])
      draw('path', chart, {d: through(points), stroke: one.color, 'stroke-dasharray': one.dash, class: 'curve', 'data-curve': one.key, 'data-points': points.length})
      if (points.length) ends.push({...one, x: width - right, y: points.at(-1)[1]})
    }
    tick(chart, width - right + 5, top + 0.35 * em, setup.steps ? this.texts.curves_in_time : this.texts.curves, 'start')
    const low = ends.some(({y}) => y > floor - 1.7 * em)
    nameEnds(chart, ends, floor, top + 1.3 * em)
    if (trained) this.label(trained, 'pre-trained here', top + em)
    const full = this.marked(floor, em) || low // else the axis has its name at the bottom
    if (0.55 * setup.dial.title.length * em < (width - left - right) / 2) tick(chart, width - right - 4, full ? top + em : floor - 0.5 * em, setup.dial.title, 'end')
    const chosen = this.ends ?? setup.window
    if (chosen) {
      const inside = chosen.map(value => this.across(value)), over = trained && inside[0] < trained[1] + 8 * em
      this.label(inside, this.ends ? 'to fine-tune here' : 'fine-tuned here', top + (over ? 2.1 : 1) * em)
    }
    if (this.ends) {
      this.brackets(this.ends, 'window chosen')
      this.ends.forEach((value, end) => draw('rect', chart, {x: this.across(value) - 9, y: top, width: 18, height: floor - top, class: 'grip', 'data-end': end}))
    }
    this.handle = draw('g', chart, {class: 'handle'})
    draw('line', this.handle, {y1: 0, y2: floor})
    this.pill = draw('rect', this.handle, {y: floor + 1, height: 1.7 * em, rx: 0.85 * em})
    this.says = draw('text', this.handle, {y: floor + 1.35 * em, 'text-anchor': 'middle', class: 'value'})
    this.marks = draw('g', chart)
    this.place(this.value)
    this.mark(this.frame)
    if (!trained || visited('dialled')) return
    const x = this.across(this.value), out = x >= trained[0] && x <= trained[1], left_of = !out && x > trained[1]
    const says = out ? `${this.texts.drag_out} →` : left_of ? `← ${this.texts.drag_in}` : `${this.texts.drag_in} →`, long = 0.6 * says.length * em
    const leftwards = left_of && x > long + 10
    this.caption = draw('text', chart, {x: leftwards ? x - 10 : Math.min(x + 10, width - long), y: floor - (leftwards ? 1.9 : 0.6) * em, 'text-anchor': leftwards ? 'end' : 'start', class: 'tick caption'}, says)
  }
  brackets([low, high], name) {
    const bottom = this.size.height - this.size.bottom, {top} = this.size, a = this.across(low), b = this.across(high)
    draw('path', this.chart, {d: `M${a + 5} ${top}h-5V${bottom}h5M${b - 5} ${top}h5V${bottom}h-5`, class: name})
  }
  label([a, b], text, y) { // of a range, from its left end: the handle often stands in the middle; beside it where it is narrow
    const wide = 0.55 * text.length * textSize(this.chart)
    if (b - a > wide + 8) tick(this.chart, a + 8, y, text, 'start')
    else if (a < this.size.left + 1) tick(this.chart, a + 2, y, text, 'start')
    else if (a - wide < this.size.left || b + wide < this.size.width - this.size.right) tick(this.chart, Math.min(b + 6, this.size.width - this.size.right - wide), y, text, 'start')
    else tick(this.chart, a - 6, y, text, 'end')
  }
  marked(floor, em) { // resonances, and whole numbers that were trained on, each named in the widest gap between them; how many kinds
    const {resonances, dial, trained} = this.setup, kinds = []
    const at = resonances.map(value => this.across(value))
    for (const x of at) draw('path', this.chart, {d: `M${x} ${floor}l-3 -7h6z`, class: 'resonance'})
    if (at.length) kinds.push('▾ resonance')
    if (dial.whole && trained) {
      for (let value = trained[0]; value <= trained[1]; value++) {
        at.push(this.across(value))
        draw('circle', this.chart, {cx: at.at(-1), cy: floor, r: 3, class: 'dot'})
      }
      kinds.push('• trained')
    }
    at.push(this.size.left, this.size.width - this.size.right)
    const gaps = at.sort((a, b) => a - b).slice(1).map((x, i) => [x - at[i], (x + at[i]) / 2]).sort((a, b) => b[0] - a[0])
    for (const text of kinds) { // what was trained is named where it was
      const gap = gaps.findIndex(([, x]) => !text.startsWith('•') || x < this.across(trained[1]))
      if (gap >= 0) tick(this.chart, gaps.splice(gap, 1)[0][1], floor - 0.4 * em, text)
    }
    return kinds.length
  }
  mark(frame) { // errors of the example on the stage, which need not match the average
    this.frame = frame
    this.marks?.replaceChildren()
    if (!this.marks || !frame) return
    for (const one of this.setup.predictors) {
      const error = frame.numbers[one.key]?.error
      if (error) draw('path', this.marks, {d: `M${this.across(frame.dial)} ${this.up(error) - 6}l5 6l-5 6l-5 -6z`, fill: one.color, class: 'mark'})
    }
  }
}
