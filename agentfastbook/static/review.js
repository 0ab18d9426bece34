// The reading pane: shows what Python sends in `shown`, sends back keys, notes, filters and marked text.
// Selecting text only selects it: nothing is sent before a key or a button says so.
// Texts become text nodes only, never HTML. Offsets from and to Python count code points.

const HUES = [210, 40, 130, 330, 270, 0]
const HELP = [
  ['j k or → ←', 'next and previous row'],
  ['↓ ↑ Space', 'scroll'],
  ['o', 'next row without a verdict'],
  ['p f', 'pass, fail: then the next row'],
  ['l h', 'next and previous part'],
  ['1 to 9', 'a label of the part, or of the row; again: off'],
  ['a x', 'accept or reject the extracted text'],
  ['s with a selection', 'the selected text replaces the context, is added as one, or is marked; selecting alone changes nothing'],
  ['s without', 'mark text by keys: → ← the end, Shift → ← the start, ↓ ↑ ten words, Enter saves, Escape leaves'],
  ['n', 'write a note: Enter saves, Shift Enter begins a line, Escape leaves'],
  ['u', 'undo, also what you did before a restart'],
  ['/', 'filter: words, is:open, is:failed, is:passed, is:noted, label:NAME'],
  ['m', 'whole texts, where they are shortened'],
  ['?', 'this help'],
]

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag)
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith('on')) node[name] = value
    else if (value !== null && value !== false) node.setAttribute(name, value === true ? '' : value)
  }
  node.append(...children.filter(child => child !== null))
  return node
}

const layer = group => group === 'edit' ? 'linear-gradient(hsla(300, 90%, 50%, .45) 0 0)'
  : `linear-gradient(hsla(${HUES[group % HUES.length]}, 90%, 55%, .3) 0 0)`

const begin = text => [...text].length > 180 ? `${[...text].slice(0, 180).join('')}…` : text
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
    const ending = panel.numbered ? here.filter(m => m.end === end).map(m => m.group + 1).join(' ') : ''
    const titles = [...new Set(here.map(m => m.title).filter(Boolean))].join(', ')
    const node = make('mark', { title: titles || null, 'data-number': ending || null }, piece)
    node.style.backgroundImage = [...new Set(here.map(m => m.group))].map(layer).join(', ')
    return node
  })
}

function render({ model, el }) {
  el.classList.add('afb')
  el.tabIndex = 0
  el.setAttribute('role', 'region')
  el.setAttribute('aria-label', 'Review. Press question mark for the keys.')
  el.dataset.lmSuppressShortcuts = 'true'
  const head = make('div', { class: 'afb-head', role: 'status', 'aria-live': 'polite', 'aria-atomic': 'true' })
  const foot = make('div', { class: 'afb-foot' })
  const body = make('div', { class: 'afb-body' })
  const note = make('textarea', { class: 'afb-note', rows: 3, 'aria-label': 'note', hidden: true,
    placeholder: 'What do you notice? Enter saves, Escape leaves' })
  const search = make('input', { class: 'afb-search', 'aria-label': 'filter', hidden: true,
    placeholder: 'words, is:open, is:failed, label:NAME; empty: all' })
  const message = make('div', { class: 'afb-message', role: 'status', 'aria-live': 'polite' })
  const help = make('dl', { class: 'afb-help', hidden: true, 'aria-label': 'keys' },
    ...HELP.flatMap(([key, does]) => [make('dt', {}, key), make('dd', {}, does)]))
  const tools = make('div', { class: 'afb-tools', role: 'toolbar', 'aria-label': 'actions' })
  el.replaceChildren(head, tools, search, help, body, foot, note, message)
  let shown = {}, texts = [], edit = null, picked = null, waiting = null

  const send = content => {
    clearTimeout(waiting)
    waiting = setTimeout(() => {
      message.textContent = 'no answer, so nothing was saved yet: is the kernel running? Run the cell again'
      message.classList.add('afb-error')
    }, 5000)
    model.send({ row: shown.row, ...content })
  }
  const press = key => send({ kind: 'key', key })
  const button = (key, name, pressed = null) => make('button', {
    type: 'button', class: 'afb-key', 'data-key': key, 'aria-keyshortcuts': key,
    'aria-pressed': pressed === null ? null : String(pressed),
    onmousedown: event => event.preventDefault(), // so that selected text stays selected
    onclick: () => { el.focus({ preventScroll: true }); act(key) },
  }, make('kbd', {}, key), ` ${name}`)

  function drawHead() {
    const verdict = shown.verdict === true ? 'passed' : shown.verdict === false ? 'failed' : 'open'
    head.replaceChildren(
      make('span', { class: 'afb-at' }, `${shown.at}/${shown.of}`),
      make('strong', { class: 'afb-title', dir: 'auto' }, shown.title),
      make('span', { class: `afb-verdict afb-${verdict}` }, verdict),
      make('span', { class: 'afb-progress' }, shown.progress))
    const markable = shown.panels.some(panel => panel.offset !== null)
    tools.replaceChildren(
      button('k', 'previous'), button('j', 'next'),
      button('p', 'pass', verdict === 'passed'), button('f', 'fail', verdict === 'failed'),
      ...(shown.spans ? [button('a', 'accept'), button('x', 'reject')] : []),
      ...(markable ? [button('s', 'mark by keys')] : []),
      button('n', 'note'), button('u', 'undo'), button('/', 'filter'), button('?', 'help'),
      ...(shown.long ? [button('m', 'whole text')] : []))
  }

  function drawPanel(panel, i) {
    const text = make('div', { class: 'afb-text', dir: 'auto', 'data-panel': i }, ...paint(panel))
    texts[i] = text
    const names = new Map(panel.marks.filter(m => m[3]).map(m => [m[3], m[2]]))
    const legend = [...names].flatMap(([title, group]) => {
      const sign = make('mark', {}, title)
      sign.style.backgroundImage = layer(group)
      return [' ', sign]
    })
    const title = make('div', { class: 'afb-quiet' }, panel.title, ...legend)
    return make('section', { class: 'afb-panel', 'aria-label': panel.title }, title, text)
  }

  function drawPart(part, i) {
    const current = i === shown.part
    const labels = part.labels.map(label => make('span',
      { class: `afb-label ${label.suggested ? 'afb-suggested' : ''}` }, label.name + (label.suggested ? '?' : '')))
    return make('li', { class: current ? 'afb-current' : null, 'aria-current': current ? 'true' : null,
      onclick: () => send({ kind: 'part', part: i }) }, make('span', { dir: 'auto' }, begin(part.title)), ...labels,
      part.note ? make('q', { class: 'afb-quiet', dir: 'auto' }, part.note) : null)
  }

  function drawBody() {
    texts = []
    const panels = shown.panels.map(drawPanel), side = shown.panels.map(panel => panel.side)
    const sides = panels.filter((_, i) => side[i])
    const facts = shown.facts.map(([name, value]) =>
      make('tr', {}, make('th', { scope: 'row' }, name), make('td', { dir: 'auto' }, value)))
    body.replaceChildren(...panels.filter((_, i) => !side[i]),
      ...(sides.length ? [make('div', { class: 'afb-sides' }, ...sides)] : []),
      ...(facts.length ? [make('details', {}, make('summary', {}, 'about this'), make('table', {}, ...facts))] : []))
  }

  function drawFoot() {
    const keys = shown.keys.map(label => {
      const node = button(label.key, label.name + (label.suggested ? '?' : ''), label.on)
      if (label.suggested) node.classList.add('afb-suggested')
      return node
    })
    const parts = make('ol', { class: 'afb-parts', 'aria-label': 'parts' }, ...shown.parts.map(drawPart))
    foot.replaceChildren(...(shown.parts.length ? [parts] : []),
      make('div', { class: 'afb-keys', role: 'group', 'aria-label': 'labels' }, ...keys),
      ...(shown.note ? [make('div', { class: 'afb-noted', dir: 'auto' }, 'Note: ', shown.note)] : []),
      ...shown.others.map(other => make('div', { class: 'afb-quiet', dir: 'auto' }, other)))
    const current = foot.querySelector('.afb-current')
    if (current) parts.scrollTop = current.offsetTop - 30
  }

  function draw() {
    const before = shown, active = document.activeElement
    const inside = el.contains(active) && active !== note && active !== search
    shown = model.get('shown')
    if (!shown.panels) return
    edit = picked = null
    clearTimeout(waiting)
    if (before.row !== shown.row) { note.hidden = true; body.scrollTop = 0 }
    drawHead()
    drawBody()
    drawFoot()
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
    else if (key === 's' && picked) sendSpan(picked.index, picked.start, picked.end)
    else if (key === 's') startEdit()
    else press(key)
  }

  // Marking by keys: `edit` is a stretch of words of one panel, in units of the JavaScript string.
  function startEdit() {
    const open = shown.panels.map((p, i) => i).filter(i => shown.panels[i].offset !== null)
    if (!open.length) { message.textContent = 'there is no text here that can be marked'; return }
    const span = shown.parts[shown.part]?.span
    const inside = i => {
      const { offset, text } = shown.panels[i]
      return span && offset <= span[0] && span[0] < offset + [...text].length
    }
    const index = open.find(inside) ?? open[0], panel = shown.panels[index], unit = unitsOf(panel.text)
    const words = [...panel.text.matchAll(/\S+/g)].map(m => [m.index, m.index + m[0].length])
    if (!words.length) { message.textContent = 'this text is empty'; return }
    const within = i => i < 0 ? words.length - 1 : i
    edit = { index, words, first: 0, last: 0 }
    if (inside(index)) {
      const start = unit(span[0] - panel.offset), end = unit(span[1] - panel.offset)
      edit.first = within(words.findIndex(word => word[1] > start))
      edit.last = Math.max(edit.first, within(words.findIndex(word => word[1] >= end)))
    }
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
    else if (by) {
      if (event.shiftKey) edit.first = within(edit.first + by)
      else edit.last = within(edit.last + by)
      if (event.shiftKey) edit.last = Math.max(edit.first, edit.last)
      else edit.first = Math.min(edit.first, edit.last)
      drawEdit()
    }
  }
  function sendSpan(index, start, end) {
    const text = shown.panels[index].text
    edit = picked = null
    getSelection().removeAllRanges()
    send({ kind: 'span', panel: index, start: toPoints(text, start), end: toPoints(text, end) })
  }

  // Selected text: `picked` is the stretch of one panel that `s` would send.
  function selectedStretch() {
    const selection = getSelection()
    if (selection.rangeCount !== 1 || selection.isCollapsed) return null
    const range = selection.getRangeAt(0), index = texts.findIndex(text => text.contains(range.startContainer))
    if (index < 0 || shown.panels[index].offset === null) return null
    const inside = document.createRange(), after = document.createRange()
    inside.selectNodeContents(texts[index])
    after.setStart(inside.endContainer, inside.endOffset)
    if (range.compareBoundaryPoints(Range.END_TO_END, inside) > 0) { // a triple click ends where the next text begins
      after.setEnd(range.endContainer, range.endOffset)
      if (after.toString().trim()) return null
    } else inside.setEnd(range.endContainer, range.endOffset)
    const end = inside.toString().length
    inside.setStart(range.startContainer, range.startOffset)
    const start = end - inside.toString().length
    return start < end ? { index, start, end } : null
  }
  function whatMarkingDoes() {
    if (!shown.spans) return 'mark the selection'
    return shown.parts[shown.part]?.span ? `replace context ${shown.part + 1} by the selection` : 'add the selection as a context'
  }
  function onSelect() {
    if (edit || !shown.panels) return
    const mark = tools.querySelector('[data-key=s]')
    picked = selectedStretch()
    if (!mark || (!picked && !mark.classList.contains('afb-ready'))) return
    mark.replaceChildren(make('kbd', {}, 's'), ` ${picked ? whatMarkingDoes() : 'mark by keys'}`)
    mark.classList.toggle('afb-ready', Boolean(picked))
    message.classList.remove('afb-error')
    message.textContent = picked ? `selected, not saved: ${begin(shown.panels[picked.index].text.slice(picked.start, picked.end))}` : ''
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
    else if (event.key === 'Escape' && picked) getSelection().removeAllRanges()
    else if (event.key === 'Escape' && !help.hidden) help.hidden = true
    else if (SENT.has(event.key) || ['n', '/', '?', 's'].includes(event.key)) act(event.key)
    else return
    event.preventDefault()
    event.stopPropagation()
  }

  el.addEventListener('keydown', onKey)
  document.addEventListener('selectionchange', onSelect)
  model.on('change:shown', draw)
  draw()
  if (document.activeElement === document.body) setTimeout(() => el.focus({ preventScroll: true }))
  return () => {
    clearTimeout(waiting)
    el.removeEventListener('keydown', onKey)
    document.removeEventListener('selectionchange', onSelect)
    model.off('change:shown', draw)
  }
}

export default { render }
