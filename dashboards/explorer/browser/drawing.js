// A field that is painted: a press places a Gaussian, a stroke a row of them; they are dragged, and moved or removed by keyboard.

const NEAR = 0.045 // a Gaussian is taken hold of within this distance
const APART = 0.06 // of those of a stroke
const LONGEST = 32 // Gaussians of strokes together: every server takes so many

class Drawing {
  // `told(rows)` has the Gaussians, null for the random field, and gives the move's number.
  constructor(parent, field, name, texts, told) {
    Object.assign(this, {field, told, history: [], rows: null, moved: 0, sign: 1, held: null, chosen: null})
    const tools = this.tools = make('div', parent, {className: 'tools'})
    make('small', tools, {}, texts.paint)
    const signs = button(tools, '+', () => {
      this.sign = -this.sign
      signs.textContent = this.sign > 0 ? '+' : '−'
      signs.setAttribute('aria-label', `Sign of the next Gaussian: ${this.sign > 0 ? 'positive' : 'negative'}`)
    }, {title: 'Sign of the next Gaussian'})
    signs.setAttribute('aria-label', 'Sign of the next Gaussian: positive')
    this.back = button(tools, '↶', () => this.undo(), {title: 'Undo: Ctrl+Z', ariaLabel: 'Undo'})
    button(tools, 'Random', () => this.change(null), {title: texts.random})
    this.overlay = draw('svg', field.frame, {viewBox: '0 0 1 1', class: 'handles'})
    const {frame} = field
    Object.assign(frame, {tabIndex: 0, role: 'group', ariaLabel: `${name}; ${texts.paint_keys}`})
    frame.classList.add('painted')
    frame.addEventListener('pointerdown', event => {
      if (event.button) return
      event.preventDefault()
      frame.setPointerCapture(event.pointerId)
      const [x, y] = field.place(event), rows = this.rows ?? []
      this.held = rows.findIndex(([a, b]) => Math.hypot(a - x, b - y) < NEAR)
      this.stroke = this.held < 0
      if (this.stroke) { this.held = rows.length; this.change([...rows, [x, y, this.sign]]) }
      else { this.history.push(rows); this.draw() }
      this.chosen = this.held
    })
    frame.addEventListener('pointermove', event => {
      if (this.held == null) return
      const [x, y] = field.place(event), last = this.rows.at(-1)
      if (!this.stroke) this.change(this.rows.map((row, i) => i === this.held ? [x, y, row[2]] : row), false)
      else if (Math.hypot(last[0] - x, last[1] - y) > APART && this.rows.length < LONGEST) this.change([...this.rows, [x, y, this.sign]], false)
    })
    frame.addEventListener('pointerup', () => { this.held = null })
    frame.addEventListener('pointercancel', () => { if (this.held != null) { this.held = null; this.undo() } }) // a finger that scrolls
    frame.addEventListener('keydown', event => {
      if (event.key !== 'Enter' || event.composedPath()[0] !== frame) return
      this.change([...this.rows ?? [], [0.5, 0.5, this.sign]])
      this.overlay.lastChild.focus()
    })
    this.draw()
  }

  configure(rows, turn) {
    if (this.held != null || turn < this.moved) return // said before the last move here was heard
    if (JSON.stringify(rows) !== JSON.stringify(this.rows)) this.history.push(this.rows)
    this.rows = rows
    this.draw()
  }
  change(rows, keep = true) { // `keep`: it is undone by itself
    if (keep) this.history.push(this.rows)
    this.rows = rows?.length ? rows : null
    this.draw()
    this.moved = this.told(this.rows)
  }
  undo() { if (this.history.length) this.change(this.history.pop(), false) }
  draw() {
    const focused = [...this.overlay.children].indexOf(this.overlay.getRootNode().activeElement)
    this.overlay.replaceChildren()
    this.tools.classList.toggle('busy', Boolean(this.rows || this.history.length))
    this.field.frame.classList.toggle('drawing', Boolean(this.rows))
    this.back.disabled = !this.history.length
    ;(this.rows ?? []).forEach(([x, y, amplitude], i) => {
      const circle = draw('circle', this.overlay, {
        cx: x, cy: 1 - y, r: 0.028, tabindex: 0, role: 'button',
        class: `${amplitude > 0 ? 'positive' : 'negative'}${i === this.chosen ? ' chosen' : ''}`, 'aria-label': `Gaussian ${i + 1}, x ${x.toFixed(2)}, y ${y.toFixed(2)}`,
      })
      circle.addEventListener('keydown', event => {
        const step = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1]}[event.key]
        if (step) this.change(this.rows.map((row, j) => j === i ? [(row[0] + step[0] / 64 + 1) % 1, (row[1] + step[1] / 64 + 1) % 1, row[2]] : row))
        else if (event.key === 'Delete' || event.key === 'Backspace') this.change(this.rows.filter((_, j) => j !== i))
        else return
        event.preventDefault()
        this.overlay.children[Math.min(i, (this.rows?.length ?? 0) - 1)]?.focus()
      })
    })
    this.overlay.children[focused]?.focus()
  }
}
