// The runs of a study as a table: a heading sorts it, a run's name opens the run, and a button saves the records.

export function render({model, el}) {
  const style = document.createElement('style'), save = document.createElement('button'), table = document.createElement('table')
  style.textContent = model.style
  save.textContent = 'Download as CSV'
  save.addEventListener('click', () => model.send_msg({csv: true}))
  const box = document.createElement('div')
  box.className = 'runs'
  box.append(table)
  el.append(style, save, box)
  let by = model.columns.length - 1, sign = 1
  const text = (value, name) => value == null ? '–' : name === 'error' ? `${Number((100 * value).toPrecision(3))} %`
    : typeof value === 'number' && name !== 'seed' ? value.toLocaleString('en', {maximumSignificantDigits: 6}) : `${value}`
  const compare = (a, b) => a == null ? 1 : b == null ? -1 : typeof a === 'string' ? a.localeCompare(b) : a - b
  function paint() {
    const head = table.createTHead(), body = document.createElement('tbody')
    head.replaceChildren()
    const line = head.insertRow()
    // What is the same in all runs tells none from another.
    const shown = model.columns.map((_, i) => i).filter(i => !i || new Set(model.rows.map(row => row[i + 1])).size > 1)
    const kind = i => model.rows.some(row => typeof row[i + 1] === 'number') ? 'number' : ''
    shown.forEach((i, at) => {
      const name = model.columns[i], cell = document.createElement('th'), button = document.createElement('button')
      cell.scope = 'col'
      cell.className = kind(i)
      cell.ariaSort = i !== by ? 'none' : sign > 0 ? 'ascending' : 'descending'
      button.textContent = name
      button.addEventListener('click', () => {
        sign = i === by ? -sign : 1
        by = i
        paint()
        table.tHead.rows[0].cells[at].firstChild.focus()
      })
      cell.append(button)
      line.append(cell)
    })
    for (const [identity, ...values] of model.rows.toSorted((a, b) => sign * compare(a[by + 1], b[by + 1]))) {
      const row = body.insertRow()
      row.dataset.run = identity
      row.addEventListener('click', () => model.send_msg({open: identity}))
      shown.forEach(i => {
        const cell = row.insertCell(), said = text(values[i], model.columns[i])
        cell.className = kind(i)
        if (i) { cell.textContent = said; return }
        const button = document.createElement('button')
        button.textContent = said
        cell.append(button)
      })
    }
    table.tBodies[0]?.remove()
    table.append(body)
    mark()
  }
  function mark() { for (const row of table.tBodies[0].rows) row.ariaSelected = row.dataset.run === model.chosen }
  model.on('rows', paint)
  model.on('chosen', mark)
  model.on('msg:custom', event => {
    const link = document.createElement('a')
    link.href = URL.createObjectURL(new Blob([(event.data ?? event).csv], {type: 'text/csv'}))
    link.download = 'records.csv'
    link.click()
    setTimeout(() => URL.revokeObjectURL(link.href), 1000)
  })
  paint()
}
