// The reading pane: shows what Python sends in `shown`, sends back keys, notes, filters and marked text.
// Texts become text nodes only, never HTML. Offsets from and to Python count code points.

const HUES = [210, 40, 130, 330, 270, 0]
const HELP = [
  ['j k or → ←', 'next and previous row'], ['↓ ↑ Space', 'scroll'], ['o', 'next row without a verdict'], ['p f', 'pass, fail: then the next row'],
  ['l h', 'next and previous part'], ['1 to 9', 'a label of the part, or of the row; again: off'],
  ['a x', 'accept or reject the extracted text'], ['select text', 'mark it, or correct the current text; with Alt: only select'],
  ['s', 'mark text by keys: → ← the end, Shift → ← the start, ↓ ↑ ten words, Enter saves, Escape leaves'],
  ['n', 'write a note: Enter saves, Shift Enter begins a line, Escape leaves'], ['u', 'undo, also what you did before a restart'],
  ['/', 'filter: words, is:open, is:failed, is:passed, is:noted, label:NAME'], ['m', 'whole texts, where they are shortened'],
  ['?', 'this help'],
]

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag)
  for (const [name, value] of Object.entries(attributes)) {
    if (name === 'onclick') node.onclick = value
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? '' : value)
  }
  node.append(...children.filter(child => child !== null && child !== undefined))
  return node
}

const hasPairs = text => /[\ud800-\udfff]/.test(text)
const toPoints = (text, unit) => hasPairs(text) ? [...text.slice(0, unit)].length : unit
function unitsOf(text) { // code point -> index in the JavaScript string
  if (!hasPairs(text)) return point => point
  const at = [0]
  for (const character of text) at.push(at[at.length - 1] + character.length)
  return point => at[Math.min(point, at.length - 1)]
}

function paint(panel, extra) { // the text as a list of nodes, marked stretches in <mark>
  const unit = unitsOf(panel.text)
  const marks = panel.marks.map(([start, end, group, title]) => ({ start: unit(start), end: unit(end), group, title }))
  if (extra) marks.push({ ...extra, group: 'edit', title: 'being marked' })
  const borders = [...new Set([0, panel.text.length, ...marks.flatMap(m => [m.start, m.end])])].sort((a, b) => a - b)
  return borders.slice(0, -1).map((start, i) => {
    const end = borders[i + 1], piece = panel.text.slice(start, end)
    const here = marks.filter(m => m.start <= start && end <= m.end)
    if (!here.length) return document.createTextNode(piece)
    const ending = panel.numbered ? here.filter(m => m.end === end).map(m => m.group + 1).join(' ') : null
    const node = make('mark', { title: [...new Set(here.map(m => m.title).filter(Boolean))].join(', ') || null, 'data-number': ending || null }, piece)
    const groups = [...new Set(here.map(m => m.group))]
    const layer = g => g === 'edit' ? 'linear-gradient(hsla(300,90%,50%,.45) 0 0)' : `linear-gradient(hsla(${HUES[g % 6]},90%,55%,.3) 0 0)`
    node.style.backgroundImage = groups.map(layer).join(', ')
    return node
  })
}

function render({ model, el }) {
  el.classList.add('afb')
  el.tabIndex = 0
  el.setAttribute('role', 'region')
  el.setAttribute('aria-label', 'Review. Press question mark for the keys.')
  el.dataset.lmSuppressShortcuts = 'true'
  const head = make('div', { class: 'afb-head' }), foot = make('div', { class: 'afb-foot' })
  const body = make('div', { class: 'afb-body' })
  const note = make('textarea', { class: 'afb-note', rows: 3, 'aria-label': 'note', placeholder: 'What do you notice? Enter saves, Escape leaves', hidden: true })
  const search = make('input', { class: 'afb-search', 'aria-label': 'filter', placeholder: 'words, is:open, is:failed, label:NAME; empty: all', hidden: true })
  const message = make('div', { class: 'afb-message', role: 'status', 'aria-live': 'polite' })
  const help = make('dl', { class: 'afb-help', hidden: true, 'aria-label': 'keys' }, ...HELP.flatMap(([key, does]) => [make('dt', {}, key), make('dd', {}, does)]))
  const tools = make('div', { class: 'afb-tools', role: 'toolbar', 'aria-label': 'actions' })
  el.replaceChildren(head, tools, search, help, body, foot, note, message)
  let shown = {}, texts = [], edit = null

  const send = content => model.send({ row: shown.row, ...content })
  const press = key => send({ kind: 'key', key })
  const button = (key, name, pressed) => make('button', {
    type: 'button', class: 'afb-key', 'data-key': key, 'aria-pressed': pressed === undefined ? null : String(Boolean(pressed)),
    'aria-keyshortcuts': key, onclick: () => { el.focus({ preventScroll: true }); act(key) },
  }, make('kbd', {}, key), ` ${name}`)

  function drawHead() {
    const verdict = shown.verdict === true ? 'passed' : shown.verdict === false ? 'failed' : 'open'
    head.replaceChildren(
      make('span', { class: 'afb-at' }, `${shown.at}/${shown.of}`), make('strong', { class: 'afb-title', dir: 'auto' }, shown.title),
      make('span', { class: `afb-verdict afb-${verdict}` }, verdict), make('span', { class: 'afb-progress' }, shown.progress))
    tools.replaceChildren(button('k', 'previous'), button('j', 'next'), button('p', 'pass', shown.verdict === true), button('f', 'fail', shown.verdict === false),
      ...(shown.spans ? [button('a', 'accept'), button('x', 'reject')] : []), ...(shown.panels.some(p => p.offset !== null) ? [button('s', 'mark')] : []), button('n', 'note'), button('u', 'undo'),
      button('/', 'filter'), button('?', 'help'), ...(shown.long ? [button('m', 'whole text')] : []))
  }

  function drawPanel(panel, i) {
    const text = make('div', { class: 'afb-text', dir: 'auto', 'data-panel': i }, ...paint(panel))
    texts[i] = text
    const names = new Map(panel.marks.filter(m => m[3]).map(m => [m[3], m[2]]))
    const legend = [...names].map(([title, group]) => {
      const sign = make('mark', {}, title)
      sign.style.backgroundImage = `linear-gradient(hsla(${HUES[group % 6]},90%,55%,.3) 0 0)`
      return sign
    })
    return make('section', { class: 'afb-panel', 'aria-label': panel.title }, make('div', { class: 'afb-quiet' }, panel.title, ...legend.flatMap(sign => [' ', sign])), text)
  }

  function drawParts() {
    const list = make('ol', { class: 'afb-parts', 'aria-label': 'parts' }, ...shown.parts.map((part, i) => make('li', {
      class: i === shown.part ? 'afb-current' : null, 'aria-current': i === shown.part ? 'true' : null,
      onclick: () => send({ kind: 'part', part: i }),
    }, make('span', { dir: 'auto' }, part.title), ...part.labels.map(label => make('span', { class: `afb-label ${label.suggested ? 'afb-suggested' : ''}` }, label.name + (label.suggested ? '?' : ''))),
      part.note ? make('q', { class: 'afb-quiet', dir: 'auto' }, part.note) : null)))
    return shown.parts.length ? list : null
  }

  function drawBody() {
    texts = []
    const panels = shown.panels.map(drawPanel)
    const plain = panels.filter((_, i) => !shown.panels[i].side), sides = panels.filter((_, i) => shown.panels[i].side)
    const keys = make('div', { class: 'afb-keys', role: 'group', 'aria-label': 'labels' }, ...shown.keys.map(label => {
      const node = button(label.key, label.name + (label.suggested ? '?' : ''), label.on)
      if (label.suggested) node.classList.add('afb-suggested')
      return node
    }))
    const facts = make('table', {}, ...shown.facts.map(([name, value]) => make('tr', {}, make('th', { scope: 'row' }, name), make('td', { dir: 'auto' }, value))))
    body.replaceChildren(...plain, ...(sides.length ? [make('div', { class: 'afb-sides' }, ...sides)] : []),
      ...(shown.facts.length ? [make('details', {}, make('summary', {}, 'about this'), facts)] : []))
    foot.replaceChildren(...[drawParts()].filter(Boolean), keys,
      ...(shown.note ? [make('div', { class: 'afb-noted', dir: 'auto' }, 'Note: ', shown.note)] : []),
      ...shown.others.map(other => make('div', { class: 'afb-quiet', dir: 'auto' }, other)))
    const current = foot.querySelector('.afb-current')
    if (current) current.parentNode.scrollTop = current.offsetTop - current.parentNode.offsetTop - 30
  }

  function draw() {
    const before = shown, inside = el.contains(document.activeElement) && ![note, search].includes(document.activeElement)
    shown = model.get('shown')
    if (!shown.panels) return
    edit = null
    if (before.row !== shown.row) { note.hidden = true; body.scrollTop = 0 }
    drawHead()
    drawBody()
    message.textContent = shown.message
    message.classList.toggle('afb-error', Boolean(shown.error))
    if (inside) el.focus({ preventScroll: true })
    el.dataset.tick = shown.tick
  }

  function open(box, text) { box.hidden = false; box.value = text || ''; box.focus(); box.select() }
  function close(box) { box.hidden = true; el.focus({ preventScroll: true }) }

  function act(key) {
    if (key === 'n') open(note, shown.note)
    else if (key === '/') open(search, shown.filter)
    else if (key === '?') help.hidden = !help.hidden
    else if (key === 's') startEdit()
    else press(key)
  }

  // Marking by keys: `edit` is a stretch of words of one panel, in units of the JavaScript string.
  function startEdit() {
    const open = shown.panels.map((p, i) => i).filter(i => shown.panels[i].offset !== null)
    if (!open.length) { message.textContent = 'there is no text here that can be marked'; return }
    const span = shown.parts[shown.part]?.span
    const inside = i => span && shown.panels[i].offset <= span[0] && span[0] < shown.panels[i].offset + [...shown.panels[i].text].length
    const index = open.find(inside) ?? open[0], panel = shown.panels[index], unit = unitsOf(panel.text)
    const words = [...panel.text.matchAll(/\S+/g)].map(m => [m.index, m.index + m[0].length])
    if (!words.length) { message.textContent = 'this text is empty'; return }
    const find = (at, side) => { const i = words.findIndex(w => side ? w[1] >= at : w[1] > at); return i < 0 ? words.length - 1 : i }
    const first = inside(index) ? find(unit(span[0] - panel.offset), 0) : 0
    edit = { index, words, first, last: inside(index) ? Math.max(first, find(unit(span[1] - panel.offset), 1)) : first }
    drawEdit()
  }
  function drawEdit() {
    const panel = shown.panels[edit.index], extra = { start: edit.words[edit.first][0], end: edit.words[edit.last][1] }
    texts[edit.index].replaceChildren(...paint(panel, extra))
    const marks = [...texts[edit.index].querySelectorAll('mark')].filter(m => m.title.includes('being marked'))
    marks[marks.length - 1]?.scrollIntoView({ block: 'nearest' })
    message.textContent = `marking: ${panel.text.slice(extra.start, extra.end)}`
  }
  function editKey(event) {
    const by = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 10, ArrowUp: -10 }[event.key]
    const within = i => Math.max(0, Math.min(i, edit.words.length - 1))
    if (event.key === 'Escape') { edit = null; drawBody(); message.textContent = 'nothing was marked' }
    else if (event.key === 'Enter') sendSpan(edit.index, edit.words[edit.first][0], edit.words[edit.last][1])
    else if (by && event.shiftKey) { edit.first = within(edit.first + by); edit.last = Math.max(edit.first, edit.last); drawEdit() }
    else if (by) { edit.last = within(edit.last + by); edit.first = Math.min(edit.first, edit.last); drawEdit() }
  }
  function sendSpan(index, start, end) {
    const text = shown.panels[index].text
    edit = null
    send({ kind: 'span', panel: index, start: toPoints(text, start), end: toPoints(text, end) })
  }

  function onSelect(event) {
    const selection = getSelection()
    if (event.altKey || !selection.rangeCount || selection.isCollapsed) return
    const range = selection.getRangeAt(0), index = texts.findIndex(t => t.contains(range.startContainer) && t.contains(range.endContainer))
    if (index < 0 || shown.panels[index].offset === null) return
    const before = document.createRange()
    before.selectNodeContents(texts[index])
    before.setEnd(range.startContainer, range.startOffset)
    const start = before.toString().length, end = start + range.toString().length
    selection.removeAllRanges()
    el.focus({ preventScroll: true })
    sendSpan(index, start, end)
  }

  const SENT = new Set([...'jkopflhaxum123456789', 'ArrowRight', 'ArrowLeft'])
  function onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return
    if ([note, search].includes(event.target)) {
      event.stopPropagation()
      if (event.key === 'Escape') { close(event.target); event.preventDefault() }
      else if (event.key === 'Enter' && !event.shiftKey) {
        event.preventDefault()
        send(event.target === note ? { kind: 'note', text: note.value } : { kind: 'filter', text: search.value })
        close(event.target)
      }
      return
    }
    if (edit) { event.preventDefault(); event.stopPropagation(); editKey(event); return }
    if (event.target !== el && ['Enter', ' '].includes(event.key)) { event.stopPropagation(); return } // on a button
    const scroll = { ArrowDown: 60, ArrowUp: -60, ' ': 400, PageDown: 400, PageUp: -400 }[event.key]
    if (scroll && body.scrollHeight > body.clientHeight) body.scrollBy(0, scroll)
    else if (event.key === 'Escape' && !help.hidden) help.hidden = true
    else if (SENT.has(event.key) || ['n', '/', '?', 's'].includes(event.key)) act(event.key)
    else return
    event.preventDefault()
    event.stopPropagation()
  }

  el.addEventListener('keydown', onKey)
  body.addEventListener('mouseup', onSelect)
  model.on('change:shown', draw)
  draw()
  if (document.activeElement === document.body) setTimeout(() => el.focus({ preventScroll: true }))
  return () => { el.removeEventListener('keydown', onKey); model.off('change:shown', draw) }
}

export default { render }
