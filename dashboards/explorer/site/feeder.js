// Stands where the server stands for the served page: hears what the stage says, keeps the state, and tells it of frames.
// All sentences, ranges and curves are those that Python wrote into page.json; all numbers of a frame come of its graphs.

import {render} from './stage.js'
import {numbers, unpacked, unzipped} from './files.js'

const RESTS_AFTER = 60 // ms without a move: then the frame of full resolution follows

// Workers: they and the program that they run are on their way before the page is. -----------------------------------

const workers = [], answers = new Map()
let asked = 0
for (let i = 0; i < Math.min(3, Math.max(1, navigator.hardwareConcurrency ?? 2)); i++) {
  const worker = new Worker(new URL('worker.js', import.meta.url), {type: 'module'})
  worker.onmessage = ({data: {id, found, error}}) => {
    const {resolve, reject} = answers.get(id)
    answers.delete(id)
    if (error) reject(new Error(error))
    else resolve(found)
  }
  workers.push(worker)
}
const tellAll = message => workers.forEach(worker => worker.postMessage(message))
const ask = (number, message) => new Promise((resolve, reject) => {
  const id = ++asked
  answers.set(id, {resolve, reject})
  workers[number % workers.length].postMessage({id, ...message})
})
const beside = i => 1 + i % Math.max(1, workers.length - 1) // a worker, not the solver's where there are others
const packed = unpacked('page.json.gz')
unzipped('runtime/ort-wasm-simd-threaded.wasm.gz')
  .then(body => WebAssembly.compileStreaming(new Response(body, {headers: {'Content-Type': 'application/wasm'}})))
  .then(program => tellAll({program}), error => notice(`The program of the networks cannot be loaded: ${error.message}`))
const page = JSON.parse(new TextDecoder().decode(await packed))
tellAll({begin: page})

// State ---------------------------------------------------------------------------------------------------------------

const systemOf = () => page.systems[state.system], modelOf = () => systemOf().models[state.model], resultOf = () => modelOf().results[state.result]
const radians = Math.PI / 180
const kept = {} // parameters by system
let preferred = null
const state = {system: '', model: '', result: 'none', dial: 0, parameters: {}, drawn: false, gaussians: [], painted: {}, seed: 3, sparsity: 0.6}

const clamp = (value, low, high) => Math.min(Math.max(value, low), high)
const nearest = (values, value) => values.reduce((best, each) => Math.abs(each - value) < Math.abs(best - value) ? each : best)
function setDial(value) {
  state.dial = nearest(systemOf().setup.dial.values, value)
}
function chooseSystem(name) {
  kept[state.system] = state.parameters
  const next = page.systems[name]
  if (!next) throw new Error(`there is no such equation here; expected one of ${Object.keys(page.systems).join(', ')}. ${SERVED}`)
  state.system = name
  state.model = preferred in next.models ? preferred : next.model
  state.parameters = {...Object.fromEntries(next.parameters.map(one => [one.name, one.default])), ...kept[name]}
  state.result = modelOf().result
  state.dial = modelOf().start
  state.seed = nearest(seeds(), state.seed)
}
function chooseModel(name) {
  if (!(name in systemOf().models)) throw new Error(`there is no such operator here; choose one of ${Object.keys(systemOf().models).join(', ')}`)
  const moved = state.dial !== modelOf().opening
  preferred = name === systemOf().model ? null : name
  state.model = name
  state.result = modelOf().result
  if (!moved) state.dial = modelOf().opening
}
const setParameter = (one, value) => { state.parameters = {...state.parameters, [one.name]: clamp(value, one.low, one.most)} }
function placeGaussians(rows) {
  Object.assign(state, {gaussians: placed(rows), drawn: true})
}
const coefficientsOf = () => Object.keys(systemOf().setup.coefficients)
function paint(name, rows) {
  if (!coefficientsOf().includes(name)) throw new Error(`there is no coefficient ${name} to paint`)
  const {[name]: _, ...others} = state.painted
  state.painted = rows.length ? {...others, [name]: placed(rows)} : others
}
function placed(rows) {
  const placed = rows.map(row => row.map(Number))
  if (!placed.every(row => row.length === 3 && row.every(Number.isFinite))) throw new Error('expected x, y and an amplitude for each Gaussian, all finite')
  return placed.map(([x, y, size]) => [((x % 1) + 1) % 1, ((y % 1) + 1) % 1, clamp(size, -1, 1)])
}
const seeds = () => systemOf().seeds ?? page.seeds
const drawRandom = seed => { state.drawn = false; state.seed = nearest(seeds(), seed) }

// Addresses are those of the served page, see link.py -------------------------------------------------------------------

const short = (value, digits) => `${Number(value.toPrecision(digits))}`
function query() {
  const values = {...(lesson.name === 'none' ? {} : {lesson: lesson.name, step: lesson.number + 1}), system: state.system, model: state.model, dial: short(state.dial, 6)}
  for (const one of systemOf().parameters) {
    const value = state.parameters[one.name]
    if (Math.abs(value - one.default) > 1e-9 * Math.max(Math.abs(value), Math.abs(one.default))) values[`p.${one.name}`] = short(one.angle ? value / radians : value, 4)
  }
  const text = rows => rows.map(row => row.map(value => short(value, 3)).join()).join(';')
  if (state.drawn) values.draw = text(state.gaussians) || 'none'
  else Object.assign(values, {seed: state.seed, sparsity: state.sparsity})
  for (const name of coefficientsOf()) if (state.painted[name]) values[`paint.${name}`] = text(state.painted[name])
  values.result = resultOf().name
  return `${new URLSearchParams(values)}`.replaceAll('%3A', ':').replaceAll('%2C', ',').replaceAll('%3B', ';')
}
function restore(text) { // gives what of it makes no sense
  const given = new URLSearchParams(text), problems = []
  const attempt = (name, act) => {
    const value = given.get(name)
    if (value == null) return
    try { act(value) } catch (error) { problems.push(`${name}=${value.slice(0, 60)} in the address is left out: ${error.message}`) }
  }
  const between = (text, low, high) => {
    const value = Number(text)
    if (text === '' || !(value >= low && value <= high)) throw new Error(`expected a number from ${low} to ${high}`)
    return value
  }
  const among = (values, value, what) => {
    if (!values.includes(value)) throw new Error(`this page has ${what}; all others are where the page has a server`)
    return value
  }
  attempt('system', chooseSystem)
  if (problems.length) return problems
  attempt('model', chooseModel)
  attempt('dial', value => { const {low, high} = systemOf().setup.dial; setDial(between(value, low, high)) })
  for (const one of systemOf().parameters) attempt(`p.${one.name}`, value => {
    const unit = one.angle ? radians : 1
    setParameter(one, unit * between(value, one.low / unit, one.most / unit + 1e-6))
  })
  attempt('sparsity', value => { state.drawn = false; state.sparsity = among(page.sparsities, between(value, 0, 1), 'sparsities in steps of 0.05 up to 0.95') })
  attempt('seed', value => drawRandom(among(seeds(), between(value, 0, 2 ** 31 - 1), `the seeds 0 to ${seeds().at(-1)}`)))
  const rows = value => value === 'none' ? [] : value.split(';').filter(Boolean).map(row => row.split(','))
  attempt('draw', value => placeGaussians(rows(value)))
  for (const name of coefficientsOf()) { paint(name, []); attempt(`paint.${name}`, value => paint(name, rows(value))) }
  attempt('result', value => {
    const known = Object.entries(modelOf().results).find(([, one]) => one.name === value || one.name.startsWith(`${value}:`))
    if (!known) throw new Error('there is no such fine-tuning here')
    state.result = known[0]
  })
  return problems
}
const choices = () => JSON.stringify([lesson.name, state.system, state.model, state.result, state.drawn, state.seed, Object.keys(state.painted)])

// What the stage is told ------------------------------------------------------------------------------------------------

let hears = null, turn = 0, chosen = null
let lesson = {name: 'none', number: 0, guesses: {}}
const offered = [page.lessons.none, ...Object.entries(page.lessons.steps).map(([value, [{message}]]) => ({value, label: message.title}))]
const model = {...page.component, id: 'stage', send_msg: message => hear(message), on: (_, act) => { hears = act }}
const tell = message => hears({data: message})
const notice = (text, more = {}) => tell({kind: 'notice', text: text[0].toUpperCase() + text.slice(1), ...more})

function setUp() {
  const own = systemOf()
  tell({kind: 'curves', reset: true, curves: {}}) // those of before may be of another dial
  tell({
    kind: 'setup', ...page.common, ...own.setup, ...modelOf().setup, window: resultOf().window, shown: state.result,
    system: state.system, model: state.model, drawn: state.drawn, gaussians: state.gaussians, training: null,
    coefficients: Object.fromEntries(coefficientsOf().map(name => [name, state.painted[name] ?? null])),
    dial: {...own.setup.dial, value: state.dial}, lessons: offered, lesson: lesson.name, turn,
  })
  const curves = {}
  for (const [key, name] of Object.entries(operators())) curves[key] = page.curves[state.system][name]
  tell({kind: 'curves', reset: true, curves})
  settings()
  showTab()
}
function operators() { // in the order of the page
  const known = {...modelOf().operators, ...resultOf().operators}
  return Object.fromEntries(page.common.predictors.filter(({key}) => key in known).map(({key}) => [key, known[key]]))
}
function tellAddress() {
  const now = choices(), text = query()
  tell({kind: 'address', query: text, push: chosen !== null && chosen !== now})
  chosen = now
  document.getElementById('local').href = `http://localhost:5006/explore?${text}`
}

const fill = (template, values) => template.replace(/\{(\w+)\}/g, (_, name) => values[name])
const percent = value => value == null || !isFinite(value) ? '–' : value >= 0.995 ? `${Math.round(100 * value).toLocaleString('en')} %`
  : value >= 1e-4 ? `${Number((100 * value).toPrecision(2))} %` : `${Number((100 * value).toPrecision(1))} %`
function sentence({dial, numbers, largest}) {
  const own = modelOf(), {limit} = systemOf(), {error, average, largest: above, drawn} = page.sentence
  const parts = [own.heads[systemOf().setup.dial.values.indexOf(dial)]]
  if (numbers.zero_shot) {
    const known = page.curves[state.system][state.model].find(([value]) => value === dial)?.[1] ?? means.get(meanKey(dial))
    parts.push(fill(error, {error: percent(numbers.zero_shot.error), average: known ? fill(average, {mean: percent(known)}) : ''}))
  }
  if (limit != null && largest > limit && own.trained) parts.push(fill(above, {largest: short(largest, 3), limit}))
  if (state.drawn) parts.push(drawn)
  return parts.join(' ')
}

// Frames ----------------------------------------------------------------------------------------------------------------

const files = new Map()
const once = name => { // numbers of a file
  if (!files.has(name)) files.set(name, unpacked(name).then(buffer => numbers(buffer, Float32Array)))
  return files.get(name)
}
const finite = value => Number.isFinite(value) ? value : null

async function asks(n) { // what a frame is of: the source, the dial and the parameters as tensors, and how they are taken
  const {system, dial} = state, {parameters, zero_mean, fields, setup} = systemOf(), kind = zero_mean ? 'centred' : 'plain'
  const double = (data, dims) => ({type: 'float64', data: Float64Array.from(data), dims})
  const values = {
    dial: double([dial], [1]), parameters: double(parameters.map(one => state.parameters[one.name]), [1, parameters.length]),
  }
  const takes = {source: 'source', dial: 'dial', parameters: 'parameters'}
  if (fields) { // each as it was drawn, or as it is painted; then all of them together, where the dial stands
    const all = await once(`sources/${system}.gz`), points = page.points[1], makes = []
    fields.forEach((name, i) => {
      const from = points * points * (fields.length * seeds().indexOf(state.seed) + i)
      values[name] = {type: 'float32', data: everyOther(all.subarray(from, from + points * points), points / n), dims: [1, n, n]}
    })
    for (const [name, rows] of [...coefficientsOf().map(name => [name, state.painted[name]]), ['source', state.drawn && someGaussians()]]) if (rows) {
      values[`${name} rows`] = double(rows.flat(), [rows.length, 3])
      makes.push({graph: name === 'source' ? `drawn-${n}` : `painted-${n}`, takes: {rows: `${name} rows`}, gives: {[name === 'source' ? kind : 'field']: name}})
    }
    makes.push({graph: `varied-${system}`, takes: Object.fromEntries([...fields, 'dial'].map(name => [name, name])),
      gives: {fields: 'fields', ...Object.fromEntries(setup.further.map(({key}) => [`${key}_shown`, key]))}})
    return {values, makes}
  }
  if (state.drawn) {
    someGaussians()
    values.given = double(state.gaussians.flat(), [state.gaussians.length, 3])
    return {values, takes, makes: [{graph: `drawn-${n}`, takes: {rows: 'given'}, gives: {[kind]: 'source'}}]}
  }
  if (systemOf().time) {
    const all = await once(`sources/${system}.gz`), from = n * n * seeds().indexOf(state.seed)
    values.source = {type: 'float32', data: all.slice(from, from + n * n), dims: [1, n, n]}
    return {values, takes, makes: []}
  }
  const from = 144 * (page.seeds.indexOf(state.seed) * page.sparsities.length + page.sparsities.indexOf(state.sparsity))
  values.given = {type: 'float32', data: (await once('amplitudes.gz')).slice(from, from + 144), dims: [1, 12, 12]}
  return {values, takes, makes: [{graph: `random-${n}`, takes: {amplitudes: 'given'}, gives: {[kind]: 'source'}}]}
}
function someGaussians() {
  if (!state.gaussians.some(([, , size]) => size)) throw new Error('The source is empty: click on its field to place a Gaussian, or choose a preset.')
  return state.gaussians
}
function everyOther(data, step) { // points in both directions
  const n = Math.sqrt(data.length)
  return data.filter((_, i) => i % n % step === 0 && Math.floor(i / n) % step === 0)
}
function iterations(n) { // of the solver of a system whose coefficients are fields
  const {system} = state, {iterations, tolerances} = systemOf(), kept = ['iterate', 'left', 'one', 'other']
  const gives = Object.fromEntries([...kept, 'length'].map(name => [name, name]))
  return [
    {graph: `first-${system}`, takes: {source: 'fields'}, gives},
    {graph: `iterated-${system}`, takes: {source: 'fields', ...Object.fromEntries(kept.map(name => [`${name}_before`, name]))}, gives,
      times: iterations, share: tolerances[page.points.indexOf(n)]},
    {graph: `last-${system}`, takes: {source: 'fields', iterate: 'iterate'}, gives: {solution: 'solution', rms: 'rms', largest: 'largest'}},
  ]
}
const single = tensor => ({...tensor, type: 'float32', data: Float32Array.from(tensor.data)})

let prepared = '' // of which networks the sessions are on their way
let solvedLast = null // fields of the last frame, which the spectrum is of
async function compute(n) {
  const {system, dial} = state, shown = Object.entries(operators()), at = turn, {given} = resultOf(), {fields, setup} = systemOf()
  solvedLast = null
  const {values, takes, makes} = await asks(n)
  const further = setup.further.map(({key}) => key), wanted = ['source', 'solution', 'rms', 'largest', ...further, fields ? 'fields' : 'coefficients']
  const solving = ask(0, {values, wanted, steps: [...makes, ...fields ? iterations(n) : [
    {graph: `solve-${system}`, takes, gives: {coefficients: 'coefficients', solution: 'solution', rms: 'rms', largest: 'largest'}}]]})
  const measuring = shown.map(([, name]) => [
    {graph: page.networks[system][name], weights: name, takes: {source: 'source', ...fields ? {} : {coefficients: 'coefficients'}}, gives: {prediction: 'prediction'}},
    {graph: `measure-${system}`, takes: {prediction: 'prediction', solution: 'solution', source: 'source', ...fields ? {} : {coefficients: 'exact'}},
      gives: {error: 'error', relative: 'relative', residual: 'residual', lower: 'lower', upper: 'upper'}},
  ])
  const names = `${system} ${shown.map(([, name]) => name)}`
  if (prepared !== names) measuring.forEach((steps, i) => ask(i + 1, {steps}))
  prepared = names
  const solved = await solving
  if (!fields && ![...solved.coefficients.data].every(Number.isFinite)) throw new Error('The dial cannot be set so far with this source and flow direction: turn the flow or lower the ratio.')
  const known = fields ? {source: solved.fields, solution: solved.solution}
    : {source: solved.source, solution: solved.solution, exact: solved.coefficients, coefficients: single(solved.coefficients)}
  const measured = await Promise.all(measuring.map((steps, i) => ask(i + 1, {values: known, wanted: ['error', 'relative', 'residual', 'lower', 'upper'], steps})))
  const arrays = Object.fromEntries(['source', 'solution', ...further].map(name => [name, solved[name].data])), numbers = {}
  shown.forEach(([key], i) => {
    const {error, relative, residual, lower, upper} = measured[i]
    arrays[key] = error.data
    numbers[key] = {error: finite(relative.data[0]), residual: finite(residual.data[0]), bounds: [lower.data[0], finite(upper.data[0])]}
  })
  solvedLast = {shown, coefficients: solved.coefficients, arrays}
  return {system, dial, points: n, given, rms: solved.rms.data[0] || 1, residual: null,
    largest: solved.largest.data[0], learning: [], numbers, arrays, turn: at}
}

// The mean error of the operator over the sources of the curves, where the dial stands and they have no point.
const means = new Map(), meanKey = dial => `${state.system} ${state.model} ${dial}`
async function average(frame) {
  const {system, model, dial} = state, n = page.points[0], {sweep, parameters} = systemOf(), key = meanKey(dial)
  if (!sweep || means.has(key) || page.curves[system][model].some(([value]) => value === dial)) return
  const all = await once('amplitudes.gz'), from = 144 * page.seeds.length * page.sparsities.length, count = (all.length - from) / 144
  const {values, takes} = await asks(n), make = {graph: `random-${n}`, takes: {amplitudes: 'given'}, gives: {[systemOf().zero_mean ? 'centred' : 'plain']: 'source'}}
  values.given = {type: 'float32', data: all.slice(from), dims: [count, 12, 12]}
  values.dial = {...values.dial, data: new Float64Array(count).fill(dial), dims: [count]}
  values.parameters = {...values.parameters, data: Float64Array.from(sweep), dims: [count, parameters.length]}
  const {source, coefficients, solution} = await ask(0, {values, wanted: ['source', 'coefficients', 'solution'], steps: [
    make, {graph: `solve-${system}`, takes, gives: {coefficients: 'coefficients', solution: 'solution'}}]})
  if (wanted) return
  const {relative} = await ask(1, {values: {source, solution, exact: coefficients, coefficients: single(coefficients)}, wanted: ['relative'], steps: [
    {graph: page.networks[system][model], weights: model, takes: {source: 'source', coefficients: 'coefficients'}, gives: {prediction: 'prediction'}},
    {graph: `measure-${system}`, takes: {prediction: 'prediction', solution: 'solution', source: 'source', coefficients: 'exact'}, gives: {relative: 'relative'}}]})
  means.set(key, relative.data.reduce((sum, value) => sum + value, 0) / count)
  if (!wanted && meanKey(state.dial) === key) tell({kind: 'sentence', text: sentence(frame)})
}

// An evolution: one step after another, of the solver and of each network from its own last state; see films.py.
class Film {
  constructor() {
    Object.assign(this, {system: state.system, dial: state.dial, at: turn, shown: operators(), given: resultOf().given, number: 0})
    this.states = {}
    this.errors = Object.fromEntries(Object.keys(this.shown).map(key => [key, []]))
    this.correlation = {}
    this.lost = {}
    this.seconds = Object.fromEntries(['solver', ...Object.keys(this.shown)].map(key => [key, []]))
  }
  get over() { return this.number === page.systems[this.system].setup.steps }
  async begin(n) {
    const {system} = this, {needed} = page.systems[system], {values, takes, makes} = await asks(n)
    this.kept = ['state', 'coefficients', ...needed]
    const beginning = ask(0, {values, wanted: ['source', ...this.kept], steps: [
      ...makes, {graph: `begin-${system}`, takes, gives: Object.fromEntries(this.kept.map(name => [name, name]))}]})
    ask(0, {steps: [{graph: `advance-${system}`}]})
    Object.values(this.shown).forEach((name, i) => ask(beside(i), {steps: [this.network(name), {graph: 'compare'}]}))
    const {seconds, ...known} = await beginning
    this.known = known
    for (const key of Object.keys(this.shown)) this.states[key] = known.source
  }
  network(name) {
    return {graph: page.networks[this.system][name], weights: name, takes: {source: 'source', coefficients: 'coefficients'}, gives: {prediction: 'prediction'}}
  }
  async solve() { // the next state of the solver
    const {source, ...values} = this.known
    const found = await ask(0, {values, wanted: ['state', 'shown'], steps: [{graph: `advance-${this.system}`,
      takes: Object.fromEntries(this.kept.map(name => [name, name])), gives: {next: 'state', shown: 'shown'}, times: page.systems[this.system].substeps}]})
    this.known.state = found.state
    return found
  }
  async step(n, more = false) { // with more to come the solver goes on while the networks follow
    const {system, shown} = this, {time} = page.systems[system]
    if (!this.number) await this.begin(n)
    const {source} = this.known, coefficients = single(this.known.coefficients)
    const keys = Object.keys(shown).filter(key => this.states[key])
    const following = Promise.all(keys.map((key, i) => ask(beside(i), {values: {source: this.states[key], coefficients}, wanted: ['prediction'], steps: [this.network(shown[key])]})))
    const {shown: solution, seconds} = await (this.ahead ?? this.solve())
    this.seconds.solver.push(seconds)
    this.number++
    this.ahead = more && !this.over ? this.solve() : null
    this.ahead?.catch(() => {}) // it is said when the step is due, if it ever is
    const predicted = await Promise.all((await following).map(async ({prediction, seconds}, i) => {
      this.seconds[keys[i]].push(seconds)
      return [keys[i], prediction, await ask(beside(i), {values: {prediction, solution}, wanted: ['error', 'relative', 'correlation', 'size', 'rms'], steps: [
        {graph: 'compare', takes: {prediction: 'prediction', solution: 'solution'}, gives: {error: 'error', relative: 'relative', correlation: 'correlation', size: 'size', rms: 'rms'}}]})]
    }))
    const arrays = {solution: solution.data, ...(this.number === 1 ? {source: source.data} : {})}, numbers = {}
    for (const key of Object.keys(shown)) if (!this.states[key]) { this.errors[key].push(Infinity); numbers[key] = {error: null, correlation: this.correlation[key] = 0} }
    let scale = 1
    for (const [key, prediction, {error, relative, correlation, size, rms}] of predicted) {
      const sound = size.data[0] < 1e6
      this.states[key] = sound ? prediction : null
      this.errors[key].push(sound ? relative.data[0] : Infinity)
      this.correlation[key] = sound ? correlation.data[0] : 0
      if (sound) arrays[key] = error.data
      scale = rms.data[0] || 1
      numbers[key] = {error: sound ? finite(relative.data[0]) : null, correlation: this.correlation[key]}
    }
    for (const key of Object.keys(shown)) if (this.correlation[key] < page.correlated) this.lost[key] ??= this.number
    return {system, dial: this.dial, points: n, given: this.given, rms: scale, learning: [], numbers, arrays, turn: this.at, step: this.number,
      time, lost: {...this.lost}, over: this.over, sentence: this.sentence()}
  }
  sentence() {
    const {film} = page, duration = value => value < 0.01 ? `${Number((1000 * value).toPrecision(2))} ms` : `${Math.round(1000 * value)} ms`
    const middle = key => { const all = this.seconds[key].toSorted((a, b) => a - b); return duration(all[all.length >> 1]) }
    const solver = fill(film.solver, {duration: middle('solver')}), keys = Object.keys(this.shown)
    if (!keys.length) return fill(film.none, {solver})
    const ends = key => {
      const when = key in this.lost ? fill(film.lost, {step: this.lost[key]}) : this.over ? film.never : film.yet, blown = this.errors[key].indexOf(Infinity)
      return blown < 0 ? when : fill(film.blows, {when, step: 1 + blown})
    }
    const named = key => page.common.predictors.find(one => one.key === key).name, [first, ...others] = keys, errors = this.errors[first]
    return fill(film.follows, {
      name: named(first), first: percent(errors[0]), tenth: errors.length >= 10 ? fill(film.tenth, {error: percent(errors[9])}) : '', correlated: page.correlated,
      said: [ends(first), ...others.map(key => `${named(key).toLowerCase()} ${ends(key)}`)].join(', '), solver, duration: middle(first),
    })
  }
}
let film = null, latest = null

let wanted = false, running = false, number = 0, resting = 0
function request() {
  wanted = true
  clearTimeout(resting)
  if (!running) loop()
}
async function loop() {
  running = true
  while (wanted) {
    wanted = false
    await show(page.points[0])
  }
  running = false
  resting = setTimeout(rest, RESTS_AFTER)
}
async function rest() {
  running = true
  tellAddress()
  if (systemOf().time) await runOn(film)
  else await show(page.points[1], () => !wanted)
  if (!wanted) document.documentElement.dataset.rests = number
  if (!wanted && latest) await average(latest).catch(() => {}) // the sentence does without
  running = false
  if (wanted) loop()
  else showTab()
}
async function runOn(one) { // until another frame is asked for
  const id = number
  document.documentElement.dataset.rests = number
  while (one && !one.over && !wanted) {
    const step = await one.step(page.points[0], true)
    if (!wanted) tell({kind: 'step', film: id, ...step})
  }
}
async function show(n, still = () => true) {
  const chosenNow = choices()
  try {
    film = systemOf().time ? new Film() : null
    const frame = film ? await film.step(n) : await compute(n)
    if (!still() || choices() !== chosenNow) return
    latest = film ? null : frame
    tell({kind: 'frame', sentence: film ? '' : sentence(frame), ...frame, id: ++number})
  } catch (error) {
    notice(error.message, {id: ++number})
  }
}

// What the stage says -----------------------------------------------------------------------------------------------------

const parameterAcross = value => {
  const [first] = systemOf().parameters
  if (first) setParameter(first, value)
  else { state.drawn = false; state.sparsity = nearest(page.sparsities, value) }
}
const SERVED = 'This needs the page that has a server: `sciml-fm explore` on your machine opens it.'
const MESSAGES = {
  turn: value => { turn = value; return false },
  dial: value => setDial(value),
  across: parameterAcross,
  gaussians: rows => { const before = state.drawn; placeGaussians(rows); if (!before) setUp() },
  coefficients: rows => { for (const [name, each] of Object.entries(rows)) paint(name, each); setUp() },
  random: () => { drawRandom(state.seed); setUp() },
  ready: () => setUp(),
  address: value => { openLesson(value); restore(value); chosen = choices(); setUp() },
  system: name => { chooseSystem(name); setUp(); opening() },
  model: name => { chooseModel(name); setUp() },
  result: value => { state.result = value; setUp() },
  lesson: name => { lesson = {name, number: 0, guesses: {}}; setUp(); showStep(0) },
  step: value => showStep(value),
  guess: value => answer(value),
  insight: name => { tab = name; showTab(); return false },
  training: () => { notice(SERVED); return false },
  save: () => { notice(SERVED); return false },
}
function hear(message) {
  let changed = false
  for (const [name, act] of Object.entries(MESSAGES)) {
    if (!(name in message)) continue
    try { if (act(message[name]) !== false) changed = true } catch (error) { notice(error.message) }
  }
  if (changed) request()
}
function openLesson(text) { // the one that an address names, or none
  const given = new URLSearchParams(text), name = page.lessons.steps[given.get('lesson')] ? given.get('lesson') : 'none'
  if (name !== lesson.name) lesson = {name, number: 0, guesses: {}}
  showStep(Number(given.get('step') ?? 1) - 1 || 0)
}
function showStep(value) {
  const steps = page.lessons.steps[lesson.name]
  if (!steps) { tell({kind: 'lesson', name: 'none', title: '', covers: []}); return }
  lesson.number = clamp(value, 0, steps.length - 1)
  restore(steps[lesson.number].at)
  setUp()
  tellStep()
}
function tellStep() {
  const step = page.lessons.steps[lesson.name]?.[lesson.number], guess = lesson.guesses[lesson.number]
  if (step) tell({...step.message, guess: guess ?? null, covers: guess == null ? step.message.covers : []})
}
function answer(guess) {
  const steps = page.lessons.steps[lesson.name], step = steps?.[lesson.number]
  if (!step) return
  lesson.guesses[lesson.number] ??= guess
  restore(step.then)
  setUp()
  const ends = {}
  if (step === steps.at(-1)) {
    ends.score = fill(page.lessons.score, {right: steps.filter(({right}, i) => lesson.guesses[i] === right).length, count: steps.length})
    ends.next = offered[offered.findIndex(one => one.value === lesson.name) + 1] ?? null
  }
  tell({kind: 'answer', text: step.answers[guess], ...ends})
}
// What the operators make of single waves, and where the energy of their errors lies, of the frame at rest; see insight.py.
async function spectrum() {
  const {system} = state, {last, waves, tried} = page.spectrum, {shown, coefficients, arrays} = solvedLast ?? {}, id = number, {sweep} = systemOf()
  if (!sweep) throw new Error('The spectrum is there for equations that a Fourier symbol solves at once; this one is solved step by step.')
  if (!arrays) return
  const asked = vectors => ({
    wavevectors: {type: 'float64', data: Float64Array.from(vectors.flat()), dims: [vectors.length, 2]},
    exactly: {...coefficients, data: Float64Array.from({length: vectors.length * coefficients.data.length}, (_, i) => coefficients.data[i % coefficients.data.length]),
      dims: [vectors.length, coefficients.data.length]},
  })
  const answers = {graph: `answers-${system}`, takes: {wavevectors: 'wavevectors', coefficients: 'exactly'}, gives: {exact: 'exact', strong: 'strong'}}
  const {strong} = await ask(0, {values: asked(waves), wanted: ['strong'], steps: [answers]})
  const chosen = waves.filter((_, i) => tried[i] || strong.data[i]), shells = chosen.map(wave => Math.round(Math.hypot(...wave))), parts = []
  for (let i = 0; i < chosen.length; i += 16) parts.push(chosen.slice(i, i + 16)) // so many fit beside each other
  const wanted = ['gain', 'off', 'leak'], wavenumbers = Array.from({length: last}, (_, i) => i + 1), operators = {}
  await Promise.all(shown.map(async ([key, name], i) => {
    const found = Object.fromEntries(wanted.map(each => [each, []]))
    const network = wave => ({graph: page.networks[system][name], weights: name, takes: {source: wave, coefficients: 'coefficients'}, gives: {prediction: wave}})
    for (const part of parts) {
      if (number !== id) return
      const values = asked(part), some = await ask(i + 1, {values: {...values, coefficients: single(values.exactly)}, wanted, steps: [
        {graph: 'waves', takes: {wavevectors: 'wavevectors'}, gives: {cosine: 'cosine', sine: 'sine'}}, answers, network('cosine'), network('sine'),
        {graph: 'projection', takes: {cosine: 'cosine', sine: 'sine', wavevectors: 'wavevectors', exact: 'exact'}, gives: {gain: 'gain', off: 'off', leak: 'leak'}}]})
      for (const each of wanted) found[each].push(...some[each].data)
    }
    const mean = (values, shell) => {
      const own = values.filter((value, i) => shells[i] === shell && !Number.isNaN(value))
      return finite(own.reduce((sum, value) => sum + value, 0) / own.length)
    }
    operators[key] = Object.fromEntries(wanted.map(each => [each, wavenumbers.map(shell => mean(found[each], shell))]))
  }))
  const names = ['solution', ...shown.map(([key]) => key)], n = Math.sqrt(arrays.solution.length)
  const fields = {type: 'float32', data: Float32Array.from(names.flatMap(name => [...arrays[name]])), dims: [names.length, n, n]}
  const {energy} = await ask(0, {values: {fields}, wanted: ['energy'], steps: [{graph: 'energy', takes: {fields: 'fields'}, gives: {energy: 'energy'}}]})
  const line = i => [...energy.data.slice(i * n / 2, i * n / 2 + last + 1)].map(finite)
  if (number !== id || tab !== 'spectrum') return
  const resonant = new Set(waves.flatMap((wave, i) => strong.data[i] ? [Math.round(Math.hypot(...wave))] : []))
  tell({kind: 'insight', tab, system, wavenumbers, resonant: wavenumbers.map(shell => resonant.has(shell)), operators,
    energy: {wavenumbers: [0, ...wavenumbers], solution: line(0), errors: Object.fromEntries(shown.map(([key], i) => [key, line(i + 1)]))}})
}

let tab = 'errors' // that is open below the fields
function showTab() {
  if (tab === 'examples') tell({kind: 'insight', tab, ...modelOf().examples})
  else if (tab === 'atlas') {
    const {errors, ...found} = page.atlas[state.system], [first] = systemOf().parameters
    tell({kind: 'insight', tab, ...found, errors: Object.fromEntries(Object.entries(operators()).map(([key, name]) => [key, errors[name]])),
      at: {dial: state.dial, across: first ? state.parameters[first.name] : state.sparsity}})
  } else if (tab === 'spectrum' && !running) spectrum().catch(error => notice(error.message))
}

// The frame that a system opens with, as Python computed it: it is there before the networks are.
async function opening() {
  const at = `${state.system} ${state.model} ${state.dial}`, before = number
  const buffer = await unpacked(`frames/${state.system}.gz`)
  if (number !== before || `${state.system} ${state.model} ${state.dial}` !== at || state.drawn || coefficientsOf().some(name => state.painted[name]) || state.seed !== 3 || state.model !== systemOf().model || state.dial !== modelOf().start) return
  hears({data: buffer})
}

// Parameters beside the dial, and the source -------------------------------------------------------------------------------

function settings() {
  const box = document.querySelector('#settings div')
  if (box.contains(document.activeElement)) return
  box.replaceChildren()
  const input = (title, options, act) => {
    const label = document.createElement('label'), field = Object.assign(document.createElement('input'), options)
    field.addEventListener('input', () => { act(Number(field.value)); request() })
    label.append(`${title} `, field)
    box.append(label)
  }
  for (const one of systemOf().parameters) {
    const unit = one.angle ? radians : 1, step = one.step ? one.step / unit : one.angle ? 5 : (one.high - one.low) / 100
    input(`${one.title}${one.angle ? ' (°)' : ''}`, {type: 'range', min: one.low / unit, max: one.high / unit, step, value: state.parameters[one.name] / unit, title: one.help},
      value => setParameter(one, unit * value))
  }
  input('Seed of the source', {type: 'number', min: 0, max: seeds().at(-1), value: state.seed}, value => { drawRandom(value); setUp() })
  if (!systemOf().seeds) input('Sparsity', {type: 'range', min: 0, max: page.sparsities.at(-1), step: 0.05, value: state.sparsity}, value => { state.drawn = false; state.sparsity = nearest(page.sparsities, value) })
  for (const [name, rows] of Object.entries(page.presets)) {
    const button = Object.assign(document.createElement('button'), {type: 'button', textContent: name})
    button.addEventListener('click', () => { placeGaussians(rows); setUp(); request() })
    box.append(button)
  }
}
document.getElementById('theme').addEventListener('click', () => {
  const {dataset} = document.documentElement
  dataset.theme = dataset.theme === 'dark' ? 'light' : 'dark'
  try { localStorage.theme = dataset.theme } catch {}
})

chooseSystem(page.opens)
const problems = restore(location.search)
render({model, el: document.getElementById('stage')})
openLesson(location.search)
if (lesson.name !== 'none') request()
opening()
if (problems.length) notice(problems.join(' '))
