// In place of the errors: the atlas, the spectrum, or the error against the number of examples.

const TABS = {errors: 'Errors', atlas: 'Atlas', spectrum: 'Spectrum', examples: 'Examples'}
function chart(parent, title, size, label = title) { // an empty one with its title
  const box = make('figure', parent, {className: 'chart'}, make('figcaption', null, {}, title))
  return draw('svg', box, {width: size.width, height: size.height, viewBox: `0 0 ${size.width} ${size.height}`, role: 'img', 'aria-label': label})
}

// A chart of lines over a common axis, logarithmic upwards. `lines` are {name, color, dash, points: [[x, y], ...]}.
function lineChart(parent, {title, x, y, lines, size, ticks = null, marked = [], unit = value => `${value}`, named = false}) {
  const svg = chart(parent, title, size)
  const xs = ticks ?? [...new Set(lines.flatMap(line => line.points.map(point => point[0])))]
  const ys = lines.flatMap(line => line.points.map(point => point[1])).filter(value => value > 0)
  let [low, high] = ys.length ? [Math.floor(Math.log10(Math.min(...ys))), Math.ceil(Math.log10(Math.max(...ys)))] : [-1, 0]
  low = Math.max(low, high - 6) // below that it is rounding
  if (low === high) low -= 1
  const across = value => size.left + (xs.indexOf(value) + 0.5) / xs.length * (size.width - size.left - size.right)
  const up = value => size.height - size.bottom - (Math.max(low, Math.log10(value)) - low) / (high - low) * (size.height - size.top - size.bottom)
  for (let power = low; power <= high; power++) {
    draw('line', svg, {x1: size.left, x2: size.width - size.right, y1: up(10 ** power), y2: up(10 ** power), class: 'grid'})
    tick(svg, size.left - 5, up(10 ** power) + 0.35 * size.em, unit(10 ** power), 'end')
  }
  for (const value of xs) tick(svg, across(value), size.height - 1.75 * size.em, `${value}`)
  for (const value of marked) draw('path', svg, {d: `M${across(value)} ${size.height - size.bottom}l-4 -9h8z`, class: 'resonance'})
  tick(svg, (size.left + size.width) / 2, size.height - 4, x)
  const ends = []
  for (const {name, color, dash, points, act} of lines) {
    const known = points.filter(point => point[1] >= 10 ** low)
    if (known.length > 1) draw('path', svg, {d: through(known.map(([a, b]) => [across(a), up(b)])), stroke: color, 'stroke-dasharray': dash, class: 'curve'})
    if (named && known.length) ends.push({name, color, x: across(known.at(-1)[0]) + 4, y: up(known.at(-1)[1])})
    for (const point of known) {
      const dot = draw('circle', svg, {cx: across(point[0]), cy: up(point[1]), r: act ? 6 : 3, fill: color})
      draw('title', dot, {}, `${name}, ${point[0]}: ${y(point[1])}${point[2] ? `, ${point[2]}` : ''}`)
      if (!act) continue
      dot.classList.add('choice-of')
      dot.addEventListener('click', () => act(point))
    }
  }
  nameEnds(svg, ends, size.height - size.bottom, size.top)
}

const apart = ([j, i], [b, a]) => Math.hypot(2 * (j - b), i - a) // an atlas has twice as many columns as rows

class Insight {
  constructor(fields, send, chosen) { // `chosen()` is called when a visitor has opened another tab
    Object.assign(this, {fields, send, chosen})
    this.shown = 'errors'
    this.list = make('div', fields.middle, {className: 'tabs', role: 'tablist'})
    this.list.setAttribute('aria-label', 'Below the fields')
    this.tabs = Object.entries(TABS).map(([key, label]) => {
      const tab = button(this.list, label, () => this.choose(key), {role: 'tab', id: `tab-${key}`})
      tab.setAttribute('aria-controls', key === 'errors' ? 'errors' : 'insight')
      tab.dataset.tab = key
      return tab
    })
    this.list.addEventListener('keydown', event => {
      const step = {ArrowRight: 1, ArrowLeft: -1}[event.key]
      if (!step) return
      const there = this.tabs.filter(tab => tab.checkVisibility()) // a page may be without some
      const next = there[(there.findIndex(tab => tab.dataset.tab === this.shown) + step + there.length) % there.length]
      this.choose(next.dataset.tab)
      next.focus()
    })
    fields.panel.id = 'insight'
    fields.below.id = 'errors'
    this.mark()
  }
  configure(setup) {
    const other = this.setup && ['system', 'model', 'shown'].some(name => (this.setup[name] || 'none') !== (setup[name] || 'none'))
    this.setup = setup
    if (other && this.shown !== 'errors') this.measure() // what is there is of another operator
  }
  painted() { // another example: what is told of waves is still of the last one
    if (this.shown === 'spectrum') this.fields.panel.classList.add('stale')
  }
  choose(key) {
    if (key === this.shown) return key === 'errors' && this.fields.below.firstChild.click() // a phone has them folded
    this.open(key)
    this.chosen()
  }
  open(key) {
    if (key === this.shown) return
    this.shown = key
    this.mark()
    this.measure()
    this.send({insight: key})
  }
  measure() { // the page is meanwhile as high as it will be, where the charts stand in one row
    const {panel} = this.fields
    panel.replaceChildren(this.shown === 'errors' ? '' : 'Measuring …')
    panel.classList.remove('stale')
  }
  mark() {
    for (const tab of this.tabs) {
      const chosen = tab.dataset.tab === this.shown
      tab.ariaSelected = String(chosen)
      tab.tabIndex = chosen ? 0 : -1
    }
    this.fields.panel.setAttribute('aria-labelledby', `tab-${this.shown}`)
    this.fields.columns.classList.toggle('insightful', this.shown !== 'errors')
    this.fields.readout.textContent = this.fields.idle = this.fields.texts[this.shown] ?? ''
  }
  show(message) {
    if (message.tab !== this.shown || message.system !== this.setup.system) return
    const {panel} = this.fields
    panel.replaceChildren()
    panel.classList.remove('stale')
    this[message.tab](make('div', panel, {className: 'charts'}), message)
    panel.dataset.shown = message.tab
  }
  size(count) { // of one of several charts beside each other, as high as the errors are
    const {panel} = this.fields, style = getComputedStyle(panel), em = parseFloat(style.getPropertyValue('--tick'))
    const width = Math.max(260, Math.min(42 * em, panel.clientWidth / count - 12))
    return {width, height: parseFloat(style.minHeight) - 1.5 * parseFloat(style.fontSize) - 1, left: 4.7 * em, right: em, top: 6, bottom: 3 * em, em}
  }
  known(values) { return this.setup.predictors.filter(one => values[one.key]) }

  atlas(parent, {dial, across, errors, measured, at}) {
    const known = measured.flatMap((row, j) => row.flatMap((there, i) => there ? [[j, i]] : []))
    // From coarse to fine: a point that is not measured yet looks as the nearest that is.
    const nearby = measured.map((row, j) => row.map((there, i) => there ? [j, i] : known.reduce((best, one) =>
      apart(one, [j, i]) < apart(best, [j, i]) ? one : best)))
    const size = this.size(3), colours = this.fields.scales.error.slice(N_COLOURS / 2), degrees = across.angle ? 180 / Math.PI : 1
    const name = value => number(value * degrees) + (across.angle ? '°' : '')
    for (const one of this.known(errors)) {
      const svg = chart(parent, one.name, size, `Mean error of ${one.name} over ${dial.title} and ${across.title}`)
      const w = (size.width - size.left - size.right) / dial.values.length, h = (size.height - size.top - size.bottom) / across.values.length
      const left = i => size.left + i * w, top = j => size.height - size.bottom - (j + 1) * h
      nearby.forEach((row, j) => row.forEach(([from, to], i) => {
        const error = errors[one.key][from][to]
        if (error == null) return
        const shade = Math.min(1, Math.max(0, Math.log10(error / 1e-3) / 3))
        const cell = draw('rect', svg, {x: left(i), y: top(j), width: w + 0.3, height: h + 0.3, fill: colours[Math.round(shade * (colours.length - 1))], class: 'cell'})
        draw('title', cell, {}, `${dial.title} ${number(dial.values[i])}, ${across.title} ${name(across.values[j])}: ${measured[j][i] ? percent(error) : 'not measured yet'}`)
        cell.addEventListener('click', () => this.send({dial: dial.values[i], across: across.values[j]}))
      }))
      const nearest = (values, value) => values.reduce((best, other, i) => Math.abs(other - value) < Math.abs(values[best] - value) ? i : best, 0)
      draw('rect', svg, {x: left(nearest(dial.values, at.dial)), y: top(nearest(across.values, at.across)), width: w, height: h, class: 'here'})
      dial.values.forEach((value, i) => { if (i % 4 === 0) tick(svg, left(i) + w / 2, size.height - 1.75 * size.em, number(Number(value.toPrecision(2)))) })
      across.values.forEach((value, j) => { if (across.title && j % 3 === 0) tick(svg, size.left - 4, top(j) + h / 2 + 0.35 * size.em, name(value), 'end') })
      tick(svg, (size.left + size.width) / 2, size.height - 4, dial.title)
      draw('text', svg, {transform: `translate(${size.em} ${size.height / 2 - 10}) rotate(-90)`, class: 'tick', 'text-anchor': 'middle'}, across.title)
    }
  }

  spectrum(parent, {wavenumbers, resonant, operators, energy}) {
    const size = this.size(4), marked = wavenumbers.filter((_, i) => resonant[i])
    const lines = (name, values) => this.known(values).map(one => ({...one, points: wavenumbers.map((k, i) => [k, values[one.key][name][i]])}))
    const x = 'wavenumber |k|'
    lineChart(parent, {size, title: 'Gain, learned over exact', x, marked, lines: lines('gain', operators), y: number})
    lineChart(parent, {size, title: 'Relative error, |learned / exact − 1|', x, marked, lines: lines('off', operators), y: percent, unit: percent})
    lineChart(parent, {size, title: 'Leak into other waves', x, marked, lines: lines('leak', operators), y: percent, unit: percent})
    const points = values => energy.wavenumbers.map((k, i) => [k, values[i]])
    lineChart(parent, {size, title: 'Energy of u (grey) and of the errors', x, y: value => value.toExponential(1), unit: value => value.toExponential(0), lines: [
      {name: 'Exact', color: this.fields.colours.exact, dash: 'none', points: points(energy.solution)},
      ...this.known(energy.errors).map(one => ({...one, points: points(energy.errors[one.key])})),
    ]})
  }

  examples(parent, {windows}) {
    if (!windows.length) parent.append(make('p', null, {}, this.fields.texts.nothing_tuned))
    for (const {task, zero_shot, curves, unlabelled} of windows) {
      const act = ([, , , value]) => this.send({result: value})
      const all = [...Object.values(curves).flat(), ...unlabelled]
      const ticks = [...new Set([0, ...all.map(([count]) => count)])].sort((a, b) => a - b)
      const lines = this.known(curves).map(one => ({...one, act, points: curves[one.key]}))
      if (zero_shot) lines.push({name: 'Zero-shot', color: this.setup.predictors[0].color, dash: 'none', points: [[0, zero_shot]]})
      if (unlabelled.length) lines.push({name: 'No labels', color: this.fields.colours.unlabelled, dash: 'none', act, points: unlabelled})
      lineChart(parent, {title: task, named: true, size: {...this.size(3), right: 6.5 * this.size(3).em}, x: 'examples given', lines, ticks, y: percent, unit: percent})
    }
  }
}
