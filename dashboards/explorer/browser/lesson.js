// The card of a lesson: a text, a prediction to choose, the answer, the next step. What would give the answer away is
// covered by the style sheet, from the eye and from a screen reader, until one has chosen.

class Lesson {
  constructor(parent, send, texts) {
    Object.assign(this, {send, texts})
    this.card = make('aside', parent, {className: 'lesson', hidden: true, tabIndex: -1})
    this.card.setAttribute('aria-label', 'Card of steps')
  }
  cover(names) { this.card.closest('.operator-stage').dataset.covers = names.join(' ') }
  show(lesson) { // one step, or nothing; the keyboard stays here from step to step
    const focused = this.card.contains(this.card.getRootNode().activeElement)
    this.card.hidden = !lesson.title
    this.card.replaceChildren()
    this.cover(lesson.covers)
    if (!lesson.title) return
    const {number, count, guess} = lesson, answered = guess != null
    button(this.card, '×', () => this.send({lesson: 'none'}), {className: 'leave', title: 'Leave it', ariaLabel: 'Close this card'})
    make('h3', this.card, {}, lesson.title).dataset.test = 'lesson'
    make('div', this.card, {className: 'step'}, `step ${number + 1} of ${count}`)
    make('div', this.card, {innerHTML: lesson.text})
    const ask = make('fieldset', this.card, {className: 'choices'}, make('legend', null, {innerHTML: lesson.ask}))
    lesson.choices.forEach((choice, i) => {
      const label = make('label', ask, {})
      make('input', label, {type: 'radio', name: 'guess', value: i, checked: i === guess})
      label.append(` ${choice}`)
    })
    const buttons = make('div', this.card, {className: 'buttons'})
    this.check = button(buttons, 'Check', () => {
      const guess = ask.querySelector(':checked')
      if (guess) this.send({guess: Number(guess.value)})
      else set(this.answer, this.texts.choose_first)
    }, {className: answered ? '' : 'main-act'})
    button(buttons, 'Back', () => this.send({step: number - 1}), {disabled: number === 0})
    this.next = button(buttons, answered ? 'Next' : 'Skip', () => this.send({step: number + 1}), {disabled: number === count - 1, className: answered ? 'main-act' : ''})
    this.answer = make('div', this.card, {className: 'answer', role: 'status'})
    this.end = make('div', this.card, {className: 'answer'})
    button(this.card, 'Printable sheet', () => this.send({save: 'sheet'}))
    if (focused) this.card.focus()
  }
  reveal(lesson) {
    if (!this.answer) return
    this.cover([])
    this.answer.innerHTML = lesson.text
    set(this.next, 'Next')
    this.check.className = ''
    this.next.className = this.next.disabled ? '' : 'main-act'
    this.end.replaceChildren()
    const {score, next} = lesson
    if (score) make('p', this.end, {}, score).dataset.test = 'score'
    if (next) button(this.end, `Next lesson: ${next.label}`, () => this.send({lesson: next.value}), {className: 'main-act'})
  }
}
