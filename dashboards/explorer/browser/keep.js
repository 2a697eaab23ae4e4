// What leaves the page: its address, the fields, a picture, the commands that make them again.

const ON_WHITE = 'svg{color:#222;--page:#fff}text{font:13px system-ui,sans-serif;fill:#222}.title{font-size:15px;font-weight:600}'

function save(name, type, bytes) {
  const link = make('a', null, {href: URL.createObjectURL(new Blob([bytes], {type})), download: name})
  link.click()
  setTimeout(() => URL.revokeObjectURL(link.href), 10000)
}

// The dial, the fields, the errors and the cut as one picture; fields are embedded as they are painted.
function picture(dial, fields, sentence, style) {
  const present = list => Object.entries(list).filter(([key]) => !fields.parts[key].column.classList.contains('absent'))
  const upperRow = present(fields.fields), errors = present(fields.errors), count = upperRow.length, first = count - errors.length
  const gap = 12, scale = 64, width = Math.max(1000, dial.size.width), side = (width - scale) / count - gap
  const lines = sentence.match(new RegExp(`.{1,${Math.floor(width / 7)}}(\\s|$)`, 'g')) ?? []
  const dialHeight = dial.size.height * width / dial.size.width
  const upper = dialHeight + 20 * lines.length + 34, lower = upper + side + 44, height = lower + side + 30
  const svg = draw('svg', null, {xmlns: SVG, width: width + 16, height: height + 8, viewBox: `-8 -8 ${width + 16} ${height + 8}`})
  draw('style', svg, {}, ON_WHITE + style)
  draw('rect', svg, {x: -8, y: -8, width: '100%', height: '100%', fill: '#fff'})
  const inner = (node, x, y, w, h) => {
    const copy = node.cloneNode(true)
    for (const [name, value] of Object.entries({x, y, width: w, height: h, xmlns: SVG})) copy.setAttribute(name, value)
    svg.append(copy)
  }
  inner(dial.chart, 0, 0, width, dialHeight)
  lines.forEach((line, i) => draw('text', svg, {x: 0, y: dialHeight + 20 * (i + 1)}, line))
  const image = (field, title, note, below, x, y) => {
    draw('text', svg, {x, y: y - 6, class: 'title'}, title)
    draw('text', svg, {x: x + side, y: y - 6, 'text-anchor': 'end', class: 'title'}, note)
    draw('text', svg, {x, y: y + side + 14, class: 'tick'}, below)
    if (field.painted) draw('image', svg, {x, y, width: side, height: side, href: field.canvas.toDataURL()})
    else draw('text', svg, {x: x + side / 2, y: y + side / 2, 'text-anchor': 'middle'}, field.empty.textContent)
  }
  const column = i => i * (side + gap)
  upperRow.forEach(([key, field], i) => {
    const {column: section, big, bounds} = fields.parts[key]
    image(field, section.ariaLabel, big.textContent, bounds?.textContent ?? '', column(i), upper)
  })
  draw('text', svg, {x: 0, y: lower - 6, class: 'title'}, [...fields.where.parentElement.children].map(part => part.textContent).join(' '))
  inner(fields.timed ? fields.course : fields.cut, 0, lower, column(first) - gap, side)
  errors.forEach(([, field], i) => image(field, 'Error, of rms u', '', '', column(i + first), lower))
  if (fields.frame) fields.values.draw(svg, column(count), upper, side)
  fields.shares.draw(svg, column(count), lower, side)
  draw('text', svg, {x: 0, y: height - 8, class: 'tick'}, location.href)
  return new XMLSerializer().serializeToString(svg)
}

async function saveAsPng(source) {
  const image = new Image()
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(source)}`
  await image.decode()
  const canvas = make('canvas', null, {width: 2 * image.width, height: 2 * image.height})
  canvas.getContext('2d').drawImage(image, 0, 0, canvas.width, canvas.height)
  canvas.toBlob(blob => save('sciml-fm.png', 'image/png', blob))
}

function copyBySelection(parent, text) {
  const area = make('textarea', parent, {value: text})
  area.select()
  document.execCommand('copy')
  area.remove()
}

function copyButton(parent, name, text) { // `text()` gives what is copied
  const copy = button(parent, name, async () => {
    if (navigator.clipboard) await navigator.clipboard.writeText(text())
    else copyBySelection(parent, text()) // of a page without TLS from another machine, which is given no clipboard
    copy.textContent = 'Copied'
    setTimeout(() => { copy.textContent = name }, 1500)
  })
}

class Keep {
  // `send({save: what})` asks the server for a file, which comes as a message; `drawn()` gives the picture.
  constructor(parent, send, drawn) {
    const menu = make('details', parent, {className: 'menu'}, make('summary', null, {}, 'Keep'))
    const list = make('div', menu, {})
    const entry = (name, act) => button(list, name, () => { menu.open = false; act() })
    copyButton(list, 'Copy link', () => location.href)
    entry('Fields, HDF5', () => send({save: 'hdf5'}))
    entry('Fields, NPZ', () => send({save: 'npz'}))
    entry('Picture, PNG', () => saveAsPng(drawn()))
    entry('Picture, SVG', () => save('sciml-fm.svg', 'image/svg+xml', drawn()))
    entry('Python', () => send({save: 'python'}))
    document.addEventListener('pointerdown', event => { if (!event.composedPath().includes(menu)) menu.open = false })
    menu.addEventListener('keydown', event => { if (event.key === 'Escape') { menu.open = false; menu.firstChild.focus() } })
    this.dialog = make('dialog', parent, {className: 'commands'})
    this.dialog.setAttribute('aria-label', 'Commands that make this again')
  }
  receive({name, type, rest}) { // texts are shown, to be copied; files are saved
    if (type !== 'text/x-python') return save(name, type, rest)
    const text = new TextDecoder().decode(rest)
    this.dialog.replaceChildren(make('pre', null, {tabIndex: 0}, text))
    copyButton(this.dialog, 'Copy', () => text)
    button(this.dialog, 'Save', () => save(name, type, rest))
    button(this.dialog, 'Close', () => this.dialog.close())
    this.dialog.showModal()
  }
}
