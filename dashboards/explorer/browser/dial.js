// The dial is the error curve: relative error along its whole range, and a handle to drag.

const SMALLEST = 1e-4, LARGEST = 10 // of the error axis

class Dial {
  // `told.turn(value)` is called when the dial is turned, `told.window(low, high)` when the brackets are dragged.
  constructor(parent, told) {
    this.told = told
    this.box = make('div', parent, {className: 'dial'})
    this.chart = draw('svg', this.box, {'aria-hidden': 'true'})
    this.slider = make('input', this.box, {type: 'range', min: 0, step: 1})
    this.size = {width: 1000, height: 130, left: 46, right: 14, top: 8, bottom: 22}
    this.curves = {}
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
  up(error) {
    const {top, bottom, height} = this.size
    const t = Math.log(Math.min(LARGEST, Math.max(SMALLEST, error)) / SMALLEST) / Math.log(LARGEST / SMALLEST)
    return height - bottom - t * (height - top - bottom)
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
    this.place(value)
    this.told.turn(value)
  }
  place(value) {
    this.value = value
    this.handle?.setAttribute('transform', `translate(${this.across(value)} 0)`)
    const index = this.values.indexOf(value)
    if (index >= 0) this.slider.value = index
    this.slider.setAttribute('aria-valuetext', `${value}`)
  }

  show(curves, reset) {
    this.curves = reset ? curves : {...this.curves, ...curves}
    this.draw()
  }
  draw() {
    const {chart, setup, size} = this
    if (!setup) return
    size.width = Math.max(300, this.box.clientWidth)
    chart.setAttribute('viewBox', `0 0 ${size.width} ${size.height}`)
    chart.replaceChildren()
    const bottom = size.height - size.bottom, {top, left, right, width} = size
    if (setup.trained) {
      const [a, b] = setup.trained.map(value => this.across(value))
      draw('rect', chart, {x: a, y: top, width: Math.max(2, b - a), height: bottom - top, class: 'trained'})
      if (b - a < 100) tick(chart, a + 2, top + 12, 'pre-trained here', 'start')
      else tick(chart, (a + b) / 2, top + 12, 'pre-trained here')
    }
    for (const error of [1e-4, 1e-3, 1e-2, 1e-1, 1, 10]) {
      draw('line', chart, {x1: left, x2: width - right, y1: this.up(error), y2: this.up(error), class: 'grid'})
      tick(chart, left - 5, this.up(error) + 4, `${100 * error} %`, 'end')
    }
    for (const value of setup.dial.ticks) {
      const x = this.across(value)
      draw('line', chart, {x1: x, x2: x, y1: bottom, y2: bottom + 4, class: 'axis'})
      tick(chart, x, size.height - 6, `${value}`)
    }
    for (const value of setup.resonances)
      draw('path', chart, {d: `M${this.across(value)} ${bottom}l-3 -7h6z`, class: 'resonance'})
    if (setup.dial.whole && setup.trained)
      for (let value = setup.trained[0]; value <= setup.trained[1]; value++)
        draw('circle', chart, {cx: this.across(value), cy: bottom, r: 3, class: 'dot'})
    if (setup.window) this.brackets(setup.window, 'window')
    for (const one of setup.predictors) {
      const points = this.curves[one.key] ?? []
      const d = through(points.map(([x, y]) => [this.across(x), this.up(y)]))
      draw('path', chart, {d, stroke: one.color, 'stroke-dasharray': one.dash, class: 'curve', 'data-curve': one.key, 'data-points': points.length})
    }
    if (this.ends) {
      this.brackets(this.ends, 'window chosen')
      this.ends.forEach((value, end) => draw('rect', chart, {x: this.across(value) - 9, y: top, width: 18, height: bottom - top, class: 'grip', 'data-end': end}))
    }
    this.handle = draw('g', chart, {class: 'handle'})
    draw('line', this.handle, {y1: 0, y2: bottom})
    draw('circle', this.handle, {cy: bottom - 2, r: 9})
    this.marks = draw('g', chart)
    this.place(this.value)
    this.mark(this.frame)
  }
  brackets([low, high], name) {
    const bottom = this.size.height - this.size.bottom, {top} = this.size, a = this.across(low), b = this.across(high)
    draw('path', this.chart, {d: `M${a + 5} ${top}h-5V${bottom}h5M${b - 5} ${top}h5V${bottom}h-5`, class: name})
  }
  mark(frame) { // errors of the example on the stage, which need not match the average
    this.frame = frame
    this.marks?.replaceChildren()
    if (!this.marks || !frame) return
    for (const one of this.setup.predictors) {
      const error = frame.numbers[one.key]?.error
      if (error) draw('path', this.marks, {d: `M${this.across(frame.dial)} ${this.up(error) - 7}l6 7l-6 7l-6 -7z`, fill: one.color, class: 'mark'})
    }
  }
}
