// The composer: a whole broadcast made by somebody who is no engineer. What is right and what is not, the
// server's dry run says alone; nothing of WeChat's rules stands here.
import {beginning, FEW, filled, looked, nameOf} from './files.js';
import {$, alarm, api, ask, el, moment, number, say, section, span, state, table, word} from './parts.js';

const PAUSE_MS = 350; // between the last key and the dry run
const fresh = () => ({
  app: '', channel: 'subscribe', source: 'audience', audience: 'all', expression: '', looked: null, own: false, list: '',
  template_id: '', data: {}, page: '', when: 'now', at: '', zone: '', every: '', name: '', rate: '', weight: '', purpose: '', hours: '',
  carry_over: false, skip_bad: false, openids: '', key: '',
});
let draft = fresh();
let known = {of: '', catalogue: null, audiences: []}; // what the server said of the app
let found = null; // of the last dry run
let tried = null; // of the last test send
let owner = ''; // whose draft it is
let busy = false;
let later = 0;
let asking = 0;

export function composerView() {
  if (!state.session.apps.length) return [el('h1', {}, word('new')), el('p', {class: 'warn'}, word('no_app'))];
  if (owner !== state.session.key) [draft, found, tried, owner] = [fresh(), null, null, state.session.key];
  if (!state.session.apps.includes(draft.app)) [draft.app] = state.session.apps;
  load();
  soon();
  return [el('h1', {}, word('new')),
    el('div', {class: 'two'},
      el('form', {id: 'composer', onsubmit: go},
        step('step_app', choice('app', state.session.apps.map((one) => [one, one])), choice('channel', ['subscribe', 'template'].map((one) => [one, word(`channel_${one}`)]))),
        step('step_whom', whom()),
        step('step_what', what()),
        step('step_when', when()),
        el('details', {}, el('summary', {}, word('more')), details()),
        el('div', {class: 'row'}, el('button', {class: 'main', id: 'go', disabled: busy}, word(draft.when === 'every' ? 'make_series' : draft.when === 'at' ? 'plan_it' : 'send_it')))),
      el('div', {class: 'beside'}, section('preview-title', word('preview'), el('div', {id: 'preview'})),
        section('reach-title', word('reach'), el('div', {id: 'reach', 'aria-live': 'polite'})), testing()))];
}

const step = (name, ...inside) => el('fieldset', {}, el('legend', {}, word(name)), inside);

function redraw() {
  if (!$('composer')) return;
  const focused = document.activeElement?.id;
  $('main').replaceChildren(...composerView());
  if (focused) $(focused)?.focus();
  shown();
}

// -- fields -----------------------------------------------------------------------------------

// those after which other fields are asked for
const TURNS = ['app', 'channel', 'source', 'template_id', 'when', 'own'];

function changed(name, value) {
  draft[name] = value;
  if (['app', 'channel'].includes(name)) Object.assign(draft, {template_id: '', data: {}});
  if (name === 'template_id' && template()) draft.data = {};
  if (name === 'app') Object.assign(draft, {audience: 'all', looked: null, own: false});
  if (TURNS.includes(name) && !(name === 'template_id' && !listed().length)) redraw();
  else soon();
}

const labelled = (name, control, ...after) => el('div', {class: 'field'}, el('label', {for: name}, word(name)), control, after);

function choice(name, options) {
  return labelled(name, el('select', {id: name, onchange: (event) => changed(name, event.target.value), value: draft[name]},
    options.map(([value, text]) => el('option', {value}, text))));
}

function input(name, given = {}, ...after) {
  return labelled(name, el('input', {id: name, value: draft[name], autocomplete: 'off', oninput: (event) => changed(name, event.target.value), ...given}), after);
}

function tick(name) {
  return el('label', {class: 'tick', for: name}, el('input', {id: name, type: 'checkbox', checked: draft[name], onchange: (event) => changed(name, event.target.checked)}), word(name));
}

function whom() {
  const sources = [['audience', word('source_audience')], ['expression', word('source_expression')], ['file', word('source_file')]];
  return [choice('source', sources),
    draft.source === 'audience' ? choice('audience', (known.audiences.length ? known.audiences : [{name: draft.audience}]).map((one) => [one.name, one.members === undefined ? one.name : `${one.name} (${number(one.members)})`])) : null,
    draft.source === 'expression' ? [input('expression', {placeholder: 'vip & active - churned', spellcheck: 'false', 'aria-describedby': 'size'}), el('p', {class: 'soft', id: 'size', 'aria-live': 'polite'}, word('expression_help'))] : null,
    draft.source === 'file' ? dropped() : null];
}

function dropped() {
  const take = async (file) => {
    if (!file) return;
    try {
      alarm('');
      draft.looked = await looked(file);
      Object.assign(draft, {own: draft.looked.columns.length > 1, list: nameOf(file)});
      redraw();
    } catch { alarm(word('unreadable')); }
  };
  const over = (event) => { event.preventDefault(); event.currentTarget.classList.toggle('over', event.type === 'dragover'); };
  const one = draft.looked;
  return [el('label', {class: 'drop', for: 'file', ondragover: over, ondragleave: over, ondrop: (event) => { over(event); take(event.dataTransfer.files[0]); }},
    word('drop'), el('input', {id: 'file', type: 'file', accept: '.txt,.csv,.jsonl,.ndjson,text/plain,text/csv', onchange: (event) => take(event.target.files[0])})),
  one ? el('p', {class: 'soft'}, `${one.file.name} · ${number(Math.ceil(one.file.size / 1024))} kB`, one.columns.length ? ` · ${one.columns.join(', ')}` : '') : null,
  one?.columns.length > 1 ? tick('own') : null,
  one && draft.own ? [el('p', {class: 'soft'}, word('own_help')), tick('skip_bad')] : null,
  one && !draft.own ? [input('list', {spellcheck: 'false'}), el('button', {type: 'button', id: 'store', disabled: busy, onclick: store}, word('store'))] : null];
}

async function store() {
  await alone(async () => {
    const got = await api('PUT', `/v1/apps/${draft.app}/audiences/${encodeURIComponent(draft.list)}`, draft.looked.file, {'Content-Type': draft.looked.media});
    const bad = got.listed.slice(0, 5).map((row) => `${row.row}: ${row.detail}`).join('; ');
    say(`${draft.list}: ${number(got.rows - got.bad)} ${word('stored')}${got.bad ? `, ${number(got.bad)} ${word('bad_rows')} (${bad})` : ''}`);
    Object.assign(draft, {source: 'audience', audience: draft.list});
    known.of = '';
  });
}

const listed = () => known.catalogue?.templates ?? [];
const template = () => listed().find((one) => one.template_id === draft.template_id);
const typeable = () => template()?.fields ?? [];
const isFree = () => !typeable().length; // what fields it has is not known

function what() {
  const isAsked = !known.catalogue; // the answer is on its way
  const choose = isAsked || listed().length
    ? choice('template_id', [['', isAsked ? '…' : '—'], ...listed().map((one) => [one.template_id, one.title || one.template_id])])
    : input('template_id', {spellcheck: 'false', maxlength: '128'});
  const why = known.catalogue && !listed().length ? el('p', {class: 'soft'}, known.catalogue.trouble || word('no_templates')) : null;
  return [choose, el('button', {type: 'button', id: 'read-anew', class: 'apart', onclick: () => { known.of = ''; load(true); }}, word('read_anew')), why,
    draft.template_id || !(isAsked || listed().length) ? (isFree() ? freeFields() : typeable().map(field)) : null, input('page', {placeholder: 'pages/index/index', spellcheck: 'false'})];
}

function field(one) {
  const id = `field-${one.key}`;
  const given = {id, value: draft.data[one.key] ?? '', 'aria-describedby': `fault-${one.key}`, oninput: (event) => { draft.data[one.key] = event.target.value; soon(); }};
  const control = one.values?.length
    ? el('select', given, ['', ...one.values].map((value) => el('option', {value}, value || '—')))
    : el('input', {...given, placeholder: one.example ?? '', autocomplete: 'off'});
  return el('div', {class: 'field'}, el('label', {for: id}, el('span', {}, one.label || one.key, ' ', el('code', {class: 'soft'}, one.key))), control,
    one.example && !one.values?.length ? el('button', {type: 'button', class: 'plain small', 'aria-label': `${word('example')}: ${one.example}`, onclick: () => { insert(one.key, one.example, true); }}, `${word('example')}: ${one.example}`) : null,
    draft.own && draft.looked ? draft.looked.columns.filter((column) => column !== 'openid').map((column) => el('button', {type: 'button', class: 'small', 'aria-label': `${one.key}: {${column}}`, onclick: () => insert(one.key, `{${column}}`)}, `{${column}}`)) : null,
    el('span', {class: 'fault', id: `fault-${one.key}`}));
}

function insert(key, text, whole = false) {
  const at = $(`field-${key}`);
  at.value = whole ? text : at.value.slice(0, at.selectionStart) + text + at.value.slice(at.selectionEnd);
  draft.data[key] = at.value;
  at.focus();
  soon();
}

function freeFields() {
  if (!Object.keys(draft.data).length && draft.channel === 'template') draft.data = {keyword1: ''};
  const name = el('input', {id: 'new-field', placeholder: draft.channel === 'template' ? 'keyword2' : 'thing1', spellcheck: 'false', size: '14'});
  return [Object.keys(draft.data).map((key) => field({key})),
    el('div', {class: 'row'}, el('label', {for: 'new-field'}, word('field_key')), name,
      el('button', {type: 'button', id: 'add-field', onclick: () => { if (/^[a-z_]+[0-9]+$/.test(name.value)) { draft.data[name.value] ??= ''; redraw(); } }}, word('add_field')))];
}

function when() {
  const zones = el('datalist', {id: 'zones'}, Intl.supportedValuesOf('timeZone').map((one) => el('option', {value: one})));
  const times = [['now', word('when_now')], ['at', word('when_at')], ...(draft.own ? [] : [['every', word('when_every')]])];
  return [choice('when', times),
    draft.when === 'at' ? input('at', {type: 'datetime-local', required: true}) : null,
    draft.when === 'every' ? [input('name', {required: true, placeholder: 'evening', spellcheck: 'false'}), input('every', {required: true, placeholder: '0 21 * * *', spellcheck: 'false', 'aria-describedby': 'every-help'}), el('p', {class: 'soft', id: 'every-help'}, word('every_help'))] : null,
    draft.when === 'now' ? null : [input('zone', {list: 'zones', placeholder: word('zone_help'), spellcheck: 'false'}), zones]];
}

function details() {
  return [input('rate', {type: 'number', min: '0', step: 'any'}), input('weight', {type: 'number', min: '1', step: '1'}),
    input('purpose', {spellcheck: 'false'}), input('hours', {type: 'number', min: '0.1', max: '168', step: 'any'}), tick('carry_over')];
}

// -- what the server says ---------------------------------------------------------------------

async function load(refresh = false) {
  const of = `${draft.app} ${draft.channel}`;
  if (known.of === of) return;
  known = {of, catalogue: null, audiences: []};
  try {
    const [catalogue, {audiences}] = await Promise.all([
      api('GET', `/v1/apps/${draft.app}/templates?channel=${draft.channel}&refresh=${refresh}`),
      api('GET', `/v1/apps/${draft.app}/audiences?limit=1000`)]);
    if (known.of === of) { known = {of, catalogue, audiences}; redraw(); }
  } catch (error) {
    if (known.of === of) { known = {...known, catalogue: {templates: [], trouble: error.message}}; redraw(); }
  }
}

function given() {
  const made = {channel: draft.channel, template_id: draft.template_id, data: Object.fromEntries(Object.entries(draft.data)), page: draft.page};
  if (!draft.own || draft.source !== 'file') made.audience = draft.source === 'expression' ? draft.expression : draft.audience;
  else if (draft.skip_bad) made.skip_bad = true;
  if (draft.rate !== '') made.rate = Number(draft.rate);
  if (draft.weight !== '') made.weight = Number(draft.weight);
  if (draft.hours !== '') made.expires_in_s = Math.round(Number(draft.hours) * 3600);
  if (draft.purpose) made.purpose = draft.purpose;
  if (draft.carry_over) made.carry_over = true;
  if (draft.when === 'at') made.at = draft.at;
  if (draft.when === 'every') Object.assign(made, {every: draft.every, name: draft.name});
  if (draft.when !== 'now' && draft.zone) made.zone = draft.zone;
  return made;
}

const hasRows = () => draft.source === 'file' && draft.own && draft.looked;
const row = () => (hasRows() ? draft.looked.first : {});

function bodyOf(spec, rows) {
  if (!rows) return spec;
  const form = new FormData();
  form.append('spec', new Blob([JSON.stringify(spec)], {type: 'application/json'}));
  form.append('rows', rows, 'rows');
  return form;
}

function soon() {
  clearTimeout(later);
  asking += 1; // what is on its way is of an older draft
  later = setTimeout(look, PAUSE_MS);
  queueMicrotask(shown);
}

async function look() {
  if (!$('composer')) return;
  const mine = asking;
  if (draft.source === 'expression' && draft.expression) await measure(mine);
  const isReady = draft.template_id && (draft.source !== 'file' || hasRows()) && (draft.source !== 'expression' || draft.expression) && (draft.when !== 'at' || draft.at) && (draft.when !== 'every' || draft.every);
  if (!isReady) { found = null; shown(); return; }
  try {
    const rows = hasRows() ? await beginning(draft.looked.file) : null;
    const got = await api('POST', `/v1/apps/${draft.app}/broadcasts/dry-run`, bodyOf(given(), rows));
    if (mine === asking) { found = got; shown(); }
  } catch (error) {
    if (mine === asking) { found = {faults: [error.message], notes: []}; shown(); }
  }
}

async function measure(mine) {
  let text;
  try {
    const got = await api('GET', `/v1/apps/${draft.app}/audience-size?of=${encodeURIComponent(draft.expression)}`);
    text = `${got.exact ? '' : '≈ '}${number(got.members)} ${word('users')}`;
  } catch (error) { text = error.message; }
  if (mine === asking && $('size')) $('size').textContent = text;
}

// -- what is shown beside ---------------------------------------------------------------------

function shown() {
  if (!$('composer')) return;
  const keys = Object.keys(draft.data).concat(typeable().map((one) => one.key));
  const faults = found?.faults ?? [];
  const of = (key) => faults.filter((one) => one.split(/[^a-z_0-9]+/).includes(key));
  for (const key of new Set(keys)) {
    const typed = draft.data[key] ?? '';
    const said = typed ? of(key) : [];
    if ($(`fault-${key}`)) $(`fault-${key}`).textContent = said.join(' ');
    if (said.length) $(`field-${key}`)?.setAttribute('aria-invalid', 'true');
    else $(`field-${key}`)?.removeAttribute('aria-invalid');
  }
  $('preview')?.replaceChildren(phone());
  $('reach')?.replaceChildren(...reach());
}

function phone() {
  const fields = isFree() ? Object.keys(draft.data).map((key) => ({key, label: key})) : typeable();
  return el('div', {class: 'phone'},
    el('div', {class: 'phone-top'}, word('service_notice')),
    el('div', {class: 'bubble'}, el('div', {class: 'soft'}, draft.app), el('b', {}, template()?.title || draft.template_id || '…'),
      el('dl', {}, fields.map((one) => [el('dt', {}, one.label || one.key), el('dd', {}, filled(draft.data[one.key] || one.example || '…', row()))])),
      draft.page ? el('div', {class: 'phone-foot'}, word('open_page')) : null));
}

function reach() {
  if (!found) return [el('p', {class: 'soft'}, word('not_yet'))];
  const lines = [['recipients', found.recipients], ['reachable', found.reachable], ['no_permit', found.no_permit], ['suppressed', found.suppressed], ['kept', found.kept],
    ['capped', found.capped], ['ending_first', found.ending], ['late', found.late]].filter(([name, n]) => n || name === 'reachable');
  const times = [['starts', moment(found.starts_at_ms)], ['first_send', moment(found.begins_at_ms)], ['last_send', moment(found.ends_at_ms)], ['lasts', span(found.eta_s)]].filter(([, text]) => text);
  const part = hasRows() && draft.looked.file.size > FEW ? el('p', {class: 'soft'}, word('first_rows')) : null;
  return [found.faults.length ? el('ul', {class: 'bad'}, found.faults.map((one) => el('li', {}, one))) : el('p', {class: 'good'}, word('all_well')),
    found.recipients === undefined ? null : [table('reach-title', [word('what'), '>' + word('users')], lines.map(([name, n]) => [word(name), number(n ?? 0)])), part],
    times.length ? el('p', {}, times.map(([name, text]) => `${word(name)} ${text}`).join(' · ')) : null,
    [...new Set([found.hindered, ...found.notes])].filter(Boolean).map((one) => el('p', {class: 'warn'}, one))].flat(Infinity).filter(Boolean);
}

function testing() {
  return section('test-title', word('test_send'), input('openids', {spellcheck: 'false', placeholder: 'oAnna oBert'}),
    el('button', {type: 'button', id: 'test', disabled: busy, onclick: () => alone(test)}, word('test_now')),
    tried ? [table('test-title', [word('user'), word('state'), word('meaning'), word('do')],
      tried.trials.map((one) => [one.openid, one.errcode ? `${word(one.outcome)} (${one.errcode})` : word(one.outcome || one.state), one.meaning, one.advice])), tried.waits ? el('p', {class: 'warn'}, tried.waits) : null] : null);
}

async function test() {
  const openids = draft.openids.split(/[\s,;]+/).filter(Boolean);
  const {channel, template_id, data, page} = given();
  const asked = {channel, template_id, data, page, openids};
  if (hasRows()) asked.rows = [row()];
  tried = await api('POST', `/v1/apps/${draft.app}/broadcasts/test-send`, asked);
}

// -- going ------------------------------------------------------------------------------------

async function alone(work) {
  if (busy) return;
  busy = true;
  redraw();
  try { alarm(''); say('…'); await work(); if ($('said').textContent === '…') say(word('done')); } catch (error) { say(''); alarm(error.message); } finally { busy = false; redraw(); }
}

async function go(event) {
  event.preventDefault();
  await alone(async () => {
    if (draft.source === 'file' && !hasRows()) throw new Error(word('store_first'));
    const spec = given(), rows = hasRows() ? draft.looked.file : null;
    found = await api('POST', `/v1/apps/${draft.app}/broadcasts/dry-run`, bodyOf(spec, rows)); // of the whole file
    if (found.faults.length) throw new Error(found.faults.join('; '));
    const question = `${template()?.title || draft.template_id}: ${number(found.reachable)} ${word('of')} ${number(found.recipients)} ${word('users')}${found.starts_at_ms ? `, ${moment(found.starts_at_ms)}` : ''}. ${word('sure_go')}`;
    if (!(await ask(question))) { say(' '); return; }
    await create(spec, rows);
  });
}

// The key stays what it is until an answer comes: whatever is lost on the way is made once.
async function create(spec, rows) {
  const isSeries = draft.when === 'every';
  draft.key ||= `page-${crypto.getRandomValues(new Uint32Array(4)).join('-')}`;
  let made;
  try {
    made = await api('POST', `/v1/apps/${draft.app}/${isSeries ? 'series' : 'broadcasts'}`, bodyOf(spec, rows), isSeries ? {} : {'Idempotency-Key': draft.key});
  } catch (error) {
    if (error.status >= 400 && error.status < 500 && error.status !== 409) draft.key = ''; // nothing was made
    throw error;
  }
  const {app, channel} = draft;
  draft = Object.assign(fresh(), {app, channel});
  [found, tried] = [null, null];
  say(`${word('made')} ${made.id ?? made.name}${made.note ? `. ${made.note}` : ''}`);
  if (made.id) location.hash = `#/b/${made.id}`;
}
