// The trajectory of an evolution: steps as they come, a bar to play them, and the errors over time.

const STARTS_AT = 1 // the step that is shown at first: one application of a network
const RATES = [5, 10, 25, 50] // steps a second

class Player {
  // `shown(frame)` is called with each step that is painted.
  constructor(parent, fields, shown) {
    Object.assign(this, {fields, shown, frames: [], wanted: STARTS_AT, playing: false})
    this.bar = make('div', parent, {className: 'player', role: 'group', hidden: true})
    this.bar.setAttribute('aria-label', 'Time')
    this.switch = button(this.bar, '▶', () => this.toggle(), {className: 'play', title: 'Play or pause: space'})
    this.slider = make('input', this.bar, {type: 'range', min: 0, step: 1})
    this.slider.setAttribute('aria-label', 'Step in time')
    this.slider.addEventListener('input', () => this.seek(Number(this.slider.value)))
    this.says = make('output', this.bar, {})
    this.says.dataset.test = 'step'
    this.rate = make('select', make('label', this.bar, {className: 'model'}, 'Steps a second '), {})
    this.rate.append(...RATES.map(rate => make('option', null, {value: rate, selected: rate === 25}, `${rate}`)))
    this.toggle(false)
  }

  configure({steps, predictors, system}) {
    this.fields.timed = steps > 0
    if (system !== this.system || !steps) { this.toggle(false); this.clear(); this.wanted = STARTS_AT }
    Object.assign(this, {steps, predictors, system})
    this.bar.hidden = !steps
    this.fields.columns.classList.toggle('timed', steps > 0)
    this.slider.max = steps
    const chart = this.chart = this.fields.course
    chart.onpointerdown = event => { chart.setPointerCapture(event.pointerId); this.point(event) }
    chart.onpointermove = event => { if (event.buttons) this.point(event) }
  }

  begin(first) { // step 1 of another trajectory; before it every state is the initial one
    const {source} = first.arrays, none = new Float32Array(source.length), at = {error: 0, correlation: 1}
    const arrays = {source, solution: source}, numbers = {}
    for (const key of Object.keys(first.numbers)) { arrays[key] = none; numbers[key] = at }
    this.id = first.id
    this.frames = []
    for (const frame of [{...first, step: 0, arrays, numbers}, first]) this.keep(frame)
    this.seek(this.wanted)
    this.drawChart()
  }
  receive(step) {
    if (step.film !== this.id) return
    step.arrays.source = this.frames[0].arrays.source
    this.keep(step)
    if (this.wanted >= step.step && !this.playing) this.seek(this.wanted) // where the slider stands
    this.drawChart()
  }
  keep(frame) { // all steps have the same colours
    this.fields.prepare(frame)
    const limits = (this.frames[0] ?? frame).limits
    limits[0] = Math.min(limits[0], frame.limits[0])
    limits[1] = Math.max(limits[1], frame.limits[1])
    frame.limits = limits
    frame.empty = {}
    for (const [key, {error}] of Object.entries(frame.numbers)) if (error == null) frame.empty[key] = 'Not finite'
    this.frames[frame.step] = frame
  }
  clear() {
    this.frames = []
    this.chart?.replaceChildren()
    this.id = null
  }

  seek(step) { // to a step, or the last that has come
    this.wanted = step
    const frame = this.frames[Math.min(step, this.frames.length - 1)]
    if (!frame) return
    this.at = frame.step
    this.slider.value = this.frames.at(-1).over ? frame.step : step
    const says = `step ${frame.step} of ${this.steps}, t = ${number(frame.time * frame.step)}`
    set(this.says, says)
    this.slider.setAttribute('aria-valuetext', says)
    this.slider.style.setProperty('--come', `${100 * (this.frames.length - 1) / this.steps}%`)
    this.fields.paint(frame)
    this.now?.setAttribute('transform', `translate(${this.across(frame.step)} 0)`)
    this.shown(frame)
  }
  toggle(on = !this.playing) {
    this.switch.textContent = on ? '❚❚' : '▶'
    this.switch.ariaLabel = on ? 'Pause' : 'Play'
    if (on === this.playing) return
    this.playing = on
    let due = 0
    const turn = now => {
      if (!this.playing) return
      requestAnimationFrame(turn)
      if (now < due - 2) return
      const wait = 1000 / Number(this.rate.value)
      due = Math.max(due, now - wait) + wait
      if (this.at + 1 < this.frames.length) this.seek(this.at + 1)
      else if (this.frames.at(-1)?.over) this.seek(0) // else it has not come yet
    }
    if (on) requestAnimationFrame(turn)
  }

  across(step) { return this.size.left + step / this.steps * (this.size.width - this.size.left - this.size.right) }
  point(event) {
    const {left, right, width} = this.size, box = this.chart.getBoundingClientRect()
    const share = ((event.clientX - box.left) * width / box.width - left) / (width - left - right)
    this.toggle(false)
    this.seek(Math.round(this.steps * Math.min(1, Math.max(0, share))))
  }
  drawChart() {
    const {chart, frames} = this, last = frames.at(-1)
    if (!last) return
    const em = textSize(chart), {left, right, top, bottom, width, height} = this.size = {
      width: chart.clientWidth || CUT_WIDTH, height: chart.clientHeight || CUT_HEIGHT, left: 4.4 * em, right: 7.4 * em, top: 8, bottom: 2.7 * em}
    chart.setAttribute('viewBox', `0 0 ${width} ${height}`)
    chart.replaceChildren()
    const up = errorAxis(chart, this.size)
    for (let step = 0; step <= this.steps; step += 10) tick(chart, this.across(step), height - bottom + 1.2 * em, `${step}`)
    tick(chart, (left + width - right) / 2, height - 3, 'steps')
    const ends = []
    for (const {key, name, color, dash} of this.predictors) {
      const known = frames.slice(1).filter(({numbers}) => numbers[key]?.error != null)
      if (!known.length) continue
      const points = known.map(({step, numbers}) => [this.across(step), up(numbers[key].error)])
      draw('path', chart, {d: through(points), stroke: color, 'stroke-dasharray': dash, class: 'curve', 'data-course': key, 'data-points': known.length})
      const lost = last.lost[key], error = frames[lost]?.numbers[key].error
      if (error != null) {
        const mark = draw('circle', chart, {cx: this.across(lost), cy: up(error), r: 5, fill: color, class: 'mark'})
        draw('title', mark, {}, `${name} loses the trajectory at step ${lost}: correlation below 0.8`)
      }
      ends.push({name, color, x: points.at(-1)[0], y: points.at(-1)[1]})
    }
    nameEnds(chart, ends, height - bottom, top)
    this.now = draw('g', chart, {class: 'handle', transform: `translate(${this.across(this.at)} 0)`})
    draw('line', this.now, {y1: top, y2: height - bottom})
  }
}
