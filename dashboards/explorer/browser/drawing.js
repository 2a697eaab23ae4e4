// The source, drawn by hand: Gaussians that are placed, dragged, and moved or removed by keyboard.

const NEAR = 0.045 // a Gaussian is taken hold of within this distance

class Drawing {
  // `told.change(rows)` has the Gaussians, `told.random()` asks for a random source instead; both give the move's number.
  constructor(head, field, told) {
    this.field = field
    this.told = told
    this.rows = []
    this.moved = 0 // number of the last move made here
    this.sign = 1
    this.held = this.chosen = null
    const tools = make('div', head, {className: 'tools'})
    const label = make('label', tools, {})
    this.switch = make('input', label, {type: 'checkbox'})
    this.switch.dataset.test = 'draw'
    label.append(' draw')
    const signs = button(tools, '+', () => {
      this.sign = -this.sign
      signs.textContent = this.sign > 0 ? '+' : '−'
      signs.setAttribute('aria-label', `Sign of the next Gaussian: ${this.sign > 0 ? 'positive' : 'negative'}`)
    }, {title: 'Sign of the next Gaussian'})
    signs.setAttribute('aria-label', 'Sign of the next Gaussian: positive')
    button(tools, 'Add', () => { this.change([...this.rows, [0.5, 0.5, this.sign]]); this.overlay.lastChild.focus() },
      {title: 'Place a Gaussian in the middle'})
    button(tools, 'Clear', () => this.change([]))
    this.overlay = draw('svg', field.frame, {viewBox: '0 0 1 1', class: 'handles'})
    this.switch.addEventListener('change', () => {
      field.frame.classList.toggle('drawing', this.switch.checked)
      if (this.switch.checked) this.change(this.rows)
      else { this.draw(); this.moved = told.random() } // what was drawn stays, for the next time
    })
    field.frame.addEventListener('pointerdown', event => {
      if (!this.switch.checked) return
      event.preventDefault()
      const [x, y] = field.place(event)
      this.held = this.rows.findIndex(([a, b]) => Math.hypot(a - x, b - y) < NEAR)
      if (this.held < 0) { this.held = this.rows.length; this.change([...this.rows, [x, y, this.sign]]) }
      this.chosen = this.held
      field.frame.setPointerCapture(event.pointerId)
      this.draw()
    })
    field.frame.addEventListener('pointermove', event => {
      if (this.held == null) return
      const [x, y] = field.place(event)
      this.change(this.rows.map((row, i) => i === this.held ? [x, y, row[2]] : row))
    })
    for (const name of ['pointerup', 'pointercancel']) field.frame.addEventListener(name, () => { this.held = null })
  }

  configure({drawn, gaussians, turn}) {
    if (this.held != null || turn < this.moved) return // said before the last move here was heard
    this.rows = gaussians
    this.switch.checked = drawn
    this.field.frame.classList.toggle('drawing', drawn)
    this.draw()
  }
  change(rows) {
    this.rows = rows
    this.draw()
    this.moved = this.told.change(rows)
  }
  draw() {
    const focused = [...this.overlay.children].indexOf(this.overlay.getRootNode().activeElement)
    this.overlay.replaceChildren()
    if (!this.switch.checked) return
    this.rows.forEach(([x, y, amplitude], i) => {
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
        this.overlay.children[Math.min(i, this.rows.length - 1)]?.focus()
      })
    })
    this.overlay.children[focused]?.focus()
  }
}
