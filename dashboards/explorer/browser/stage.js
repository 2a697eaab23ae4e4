// The stage itself: what is chosen above, the dial, the fields, and what happens with a message.

export function render({model, el}) {
  const root = make('div', el, {className: 'operator-stage'})
  make('style', root, {}, model.style)
  const send = message => model.send_msg(message)
  let setup = null, frame = null, turns = 0

  // The first message is sent at once; later ones of the same animation frame are merged into one.
  let wanted = null, resting = true
  function soon(message) {
    wanted = {...wanted, ...message}
    if (resting) flush()
  }
  function move(message) { // of a hand: answers tell of which move they are, so that an old one does not undo a new one
    soon({turn: ++turns, ...message})
    return turns
  }
  function flush() {
    send(wanted)
    wanted = null
    resting = false
    requestAnimationFrame(() => { resting = true; if (wanted) flush() })
  }

  const bar = make('div', root, {className: 'bar'})
  const menu = (name, message, said = `${name} `) => {
    const select = make('select', make('label', bar, {className: 'model'}, said), {ariaLabel: name})
    select.addEventListener('change', () => send({[message]: select.value}))
    return select
  }
  const systems = menu('Equation', 'system')
  const equation = make('div', bar, {className: 'equation'})
  const models = menu('Model', 'model')
  const examples = make('fieldset', bar, {className: 'choice examples'}, make('legend', null, {}, 'Fine-tuned on'))
  const lessons = menu('Lesson', 'lesson', '')
  lessons.parentElement.classList.add('lessons')
  const tools = make('div', bar, {className: 'keep'})
  const trains = button(tools, 'Train live', () => send({training: !setup.training}), {className: 'main-act', hidden: true})

  const dial = new Dial(root, model.texts, {
    turn: value => move({dial: value}),
    window: (low, high) => soon({window: [low, high]}),
  })
  const under = make('div', root, {className: 'under'})
  const notice = make('div', under, {className: 'notice', role: 'alert'}) // in place of the sentence
  notice.dataset.test = 'notice'
  const sentence = make('p', under, {className: 'sentence', role: 'status'})
  sentence.dataset.test = 'sentence'
  const say = (line, text) => { set(line, text); line.title = text }
  under.addEventListener('click', () => under.classList.toggle('whole')) // its line is cut where it is long
  const body = make('div', root, {className: 'body'})
  const fields = new Fields(make('div', body, {className: 'main'}), model, result => send(result ? {result} : {training: true}))
  const player = new Player(dial.box, fields, step => {
    root.dataset.step = step.step
    root.dispatchEvent(new CustomEvent('step-painted', {detail: step.step}))
  })
  // What is chosen can be undone by Back: the server says what is an entry of its own. A notebook tells no address.
  let address = null
  const enter = (push, query = address) => {
    address = query
    history[push ? 'pushState' : 'replaceState']({tab: insight.shown}, '', query)
  }
  window.addEventListener('popstate', event => {
    if (address == null) return
    if (location.search !== address) send({address: address = location.search})
    insight.open(event.state?.tab ?? 'errors')
  })
  const insight = new Insight(fields, send, () => address != null && enter(true))
  const lesson = new Lesson(body, send, model.texts)
  const keep = new Keep(tools, send, () => picture(dial, fields, sentence.textContent, model.style))
  const present = button(tools, 'Present', () => document.fullscreenElement ? document.exitFullscreen() : root.requestFullscreen(), {className: 'present'})
  root.addEventListener('fullscreenchange', () => set(present, document.fullscreenElement ? 'Leave' : 'Present'))
  let drawings = {}, drawn = null // what is painted, and what of it was painted last
  new ResizeObserver(() => { // on a phone the examples stick to the bottom with the dial
    const phone = root.clientWidth <= 860
    if (phone !== dial.box.contains(examples)) phone ? dial.box.prepend(examples) : bar.insertBefore(examples, lessons.parentElement)
  }).observe(root)

  function radios(parent, name, options, value, message) {
    const legend = parent.querySelector('legend'), focused = parent.contains(root.getRootNode().activeElement)
    parent.replaceChildren(legend)
    for (const option of options) {
      const label = make('label', parent, {title: option.title ?? ''})
      const input = make('input', label, {type: 'radio', name: `${name}-${model.id ?? 'stage'}`, value: option.value, checked: option.value === value})
      make('span', label, {}, option.label)
      input.addEventListener('change', () => { if (input.checked) send({[message]: option.value}) })
      if (focused && input.checked) input.focus()
    }
  }
  function offer(select, options, value) {
    select.replaceChildren(...options.map(one => make('option', null, {value: one.value, selected: one.value === value, title: one.title ?? ''}, one.label)))
    select.title = select.selectedOptions[0]?.label ?? '' // where there is no room for all of it
  }

  function configure(next) {
    const first = !setup || ['predictors', 'further', 'names'].some(name => JSON.stringify(setup[name]) !== JSON.stringify(next[name]))
    if (setup?.system !== next.system) frame = null
    setup = next
    fields.timed = setup.steps > 0
    offer(systems, setup.systems, setup.system)
    const inTime = setup.systems.map((one, i) => one.in_time && systems.options[i]).filter(Boolean)
    if (inTime.length) make('optgroup', systems, {label: 'In time'}, ...inTime)
    systems.title = setup.systems.find(one => one.value === setup.system)?.title ?? ''
    offer(models, setup.models, setup.model)
    offer(lessons, setup.lessons, setup.lesson)
    lessons.parentElement.hidden = setup.lessons.length < 2
    equation.innerHTML = setup.equation
    radios(examples, 'examples', setup.results, setup.shown, 'result')
    examples.append('\u00a0examples')
    trains.hidden = !setup.trains
    trains.ariaExpanded = String(Boolean(setup.training))
    if (first) {
      fields.build(setup.predictors, setup.further, setup.names)
      const drawing = (key, parent, told) => drawings[key] = new Drawing(parent, fields.fields[key], fields.parts[key].column.ariaLabel, model.texts, rows => {
        drawn = drawings[key]
        return move(told(rows))
      })
      drawings = {}
      drawing('source', fields.parts.source.head, rows => rows ? {gaussians: rows} : {random: true})
      for (const key of Object.keys(setup.coefficients)) drawing(key, fields.parts[key].column, rows => ({coefficients: {[key]: rows ?? []}}))
    }
    for (const [key, drawing] of Object.entries(drawings)) drawing.configure(key !== 'source' ? setup.coefficients[key] : setup.drawn ? setup.gaussians : null, setup.turn)
    fields.offer(setup)
    dial.configure(setup)
    fields.doubt.hidden = !setup.ensemble
    fields.resonant = setup.resonances.length > 0
    insight.configure(setup)
    player.configure(setup)
  }

  function paint(message) {
    frame = message
    say(notice, '')
    if (setup.steps) player.begin(frame)
    else { fields.prepare(frame); fields.paint(frame) }
    insight.painted()
    dial.mark(frame)
    say(sentence, frame.sentence)
    // A frame asked for before the last turn of the dial does not turn it back.
    if (dial.held === null && frame.turn >= turns) dial.place(frame.dial)
    root.dispatchEvent(new CustomEvent('stage-painted', {bubbles: true, composed: true, detail: {dial: frame.dial, index: setup.dial.values.indexOf(frame.dial), id: frame.id}}))
    root.dataset.dial = frame.dial
    root.dataset.painted = frame.id
  }
  const hear = {
    setup: configure,
    frame: message => { if (setup && message.system === setup.system) paint(message) },
    step: message => { if (frame && message.film === frame.id) { player.receive(message); say(sentence, message.sentence) } },
    spread: message => fields.paintSpread(message),
    notice: message => {
      say(notice, message.text)
      if (message.id == null || !setup) return
      frame = null
      fields.blank()
      player.clear()
      dial.mark(null)
      say(sentence, '')
    },
    sentence: message => say(sentence, message.text),
    window: message => dial.train(message.ends),
    curves: message => dial.show(message.curves, message.reset),
    lesson: message => { lessons.value = message.name; lesson.show(message); root.classList.toggle('teaching', Boolean(message.title)) },
    answer: message => lesson.reveal(message),
    insight: message => insight.show(message),
    file: message => keep.receive(message),
    address: message => enter(message.push, `?${message.query}`),
  }
  model.on('msg:custom', event => {
    const message = unpack(event.data ?? event)
    hear[message.kind]?.(message)
    if (message.id != null) send({painted: message.id})
  })
  document.addEventListener('keydown', event => { // space plays, where it means nothing else, and what was painted is undone
    const at = event.composedPath()[0]
    if (event.key === 'Escape' && document.fullscreenElement) document.exitFullscreen() // a browser without a window does not
    if (!(at === document.body || root.contains(at))) return
    if (event.key === 'z' && (event.ctrlKey || event.metaKey) && drawn) { event.preventDefault(); drawn.undo() }
    if (event.key !== ' ' || !setup?.steps) return
    if (at.closest('button, select, summary, a, input:not([type=range])')) return
    event.preventDefault()
    player.toggle()
  })
  send({ready: true})
}
