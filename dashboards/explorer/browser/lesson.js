// The card of a lesson: a text, a prediction to choose, the answer, the next step.

class Lesson {
  constructor(parent, send, texts) {
    this.texts = texts
    this.card = make('aside', parent, {className: 'lesson', hidden: true})
    this.card.setAttribute('aria-label', 'Card of steps')
    this.send = send
  }
  show(lesson) { // one step, or nothing
    this.card.hidden = !lesson.title
    this.card.replaceChildren()
    if (!lesson.title) return
    const {number, count} = lesson
    make('h3', this.card, {}, lesson.title).dataset.test = 'lesson'
    make('div', this.card, {className: 'step'}, `step ${number + 1} of ${count}`)
    make('div', this.card, {innerHTML: lesson.text})
    const ask = make('fieldset', this.card, {className: 'choices'}, make('legend', null, {innerHTML: lesson.ask}))
    lesson.choices.forEach((choice, i) => {
      const label = make('label', ask, {})
      make('input', label, {type: 'radio', name: 'guess', value: i})
      label.append(` ${choice}`)
    })
    const buttons = make('div', this.card, {className: 'buttons'})
    button(buttons, 'Check', () => {
      const guess = ask.querySelector(':checked')
      if (guess) this.send({guess: Number(guess.value)})
      else set(this.answer, this.texts.choose_first)
    })
    button(buttons, 'Back', () => this.send({step: number - 1}), {disabled: number === 0})
    button(buttons, 'Next', () => this.send({step: number + 1}), {disabled: number === count - 1})
    this.answer = make('div', this.card, {className: 'answer', role: 'status'})
    button(this.card, 'Printable sheet', () => this.send({save: 'sheet'}))
  }
  reveal({text}) { if (this.answer) this.answer.innerHTML = text }
}
