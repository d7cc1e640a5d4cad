'use strict';
// A phone: WeChat's side of a mini-program, as far as push-code.js sees it.
//
// The script runs in a JavaScript world of its own that ends with ES5: no Promise, no Map, no
// Object.assign. Storage outlives a run; memory does not. Callbacks come later and in order, when
// `settle` is called; time passes when a test says so. Source: wechat-api.md, section 8.

const fs = require('node:fs');
const path = require('node:path');
const vm = require('node:vm');

const ROOT = path.join(__dirname, '..', '..', 'producers', 'miniprogram');
const SCRIPT = path.join(ROOT, 'push-code.js');

// what came after ES5, by its edition's own list of globals and of what older ones gained
const LATER = `(function (world) {
  for (const name of ['Promise', 'Symbol', 'Map', 'Set', 'WeakMap', 'WeakSet', 'WeakRef', 'Proxy',
    'Reflect', 'BigInt', 'globalThis', 'Intl', 'Atomics', 'SharedArrayBuffer', 'AggregateError',
    'FinalizationRegistry', 'WebAssembly', 'Iterator']) delete world[name];
  for (const [object, names] of [
    [Object, ['assign', 'entries', 'values', 'fromEntries', 'is', 'hasOwn', 'setPrototypeOf']],
    [Array, ['from', 'of']],
    [Array.prototype, ['includes', 'find', 'findIndex', 'findLast', 'fill', 'flat', 'flatMap',
      'at', 'keys', 'values', 'entries', 'copyWithin', 'toSorted', 'with']],
    [String.prototype, ['startsWith', 'endsWith', 'includes', 'repeat', 'padStart', 'padEnd',
      'trimStart', 'trimEnd', 'at', 'replaceAll', 'matchAll', 'normalize', 'codePointAt']],
    [Number, ['isFinite', 'isInteger', 'isNaN', 'parseInt', 'parseFloat', 'isSafeInteger']],
    [Math, ['trunc', 'sign', 'cbrt', 'log2', 'log10', 'hypot', 'clz32', 'imul', 'fround']],
  ]) for (const name of names) delete object[name];
})(this)`;

class Phone {
  constructor(options = {}) {
    this.storage = new Map();
    this.clock = Date.parse('2026-11-24T08:00:00Z'); // the phone's idea of the time
    this.library = '3.5.0';
    this.codes = 0;
    this.requests = []; // what was sent, oldest first
    this.queue = [];
    this.answer = () => 'fail'; // (request) -> {status, data, header}, 'fail' or 'hang'
    this.login = () => `code-${(this.codes += 1)}`; // '' fails, 'hang' never answers
    this.popup = (ids) => Object.fromEntries(ids.map((id) => [id, 'accept']));
    this.popups = []; // ids of each popup that was asked for
    this.visited = []; // pages that were opened
    this.full = false; // storage
    this.warnings = [];
    Object.assign(this, options);
  }

  // -- a run of the mini-program ------------------------------------------------------------------

  /** Start the mini-program anew: what was in memory is gone, and so are pending callbacks. */
  boot() {
    this.queue = [];
    this.hidden = [];
    const phone = this;
    const globals = {
      console: {warn: (text) => this.warnings.push(text)},
      wx: this.wx(),
      clock: () => phone.clock,
      module: {exports: {}},
      Page: (spec) => this.specs.push(spec),
      App: (spec) => this.specs.push(spec),
    };
    this.specs = [];
    const world = vm.createContext(globals);
    vm.runInContext(LATER, world);
    vm.runInContext('Date.now = clock', world);
    vm.runInContext(fs.readFileSync(SCRIPT, 'utf8'), world, {filename: SCRIPT});
    this.world = world;
    this.pushCode = world.module.exports;
    return this.pushCode;
  }

  /** Run a file of the sample; returns what it gave to Page or App. */
  run(file) {
    const name = path.join(ROOT, file);
    const code = `(function (require) {${fs.readFileSync(name, 'utf8')}\n})`;
    const found = (wanted) => {
      if (path.resolve(path.dirname(name), wanted) !== SCRIPT) throw new Error(`no ${wanted}`);
      return this.pushCode;
    };
    vm.runInContext(code, this.world, {filename: name})(found);
    return this.specs.at(-1);
  }

  hide() {
    for (const seen of this.hidden) seen();
  }

  // -- wx -----------------------------------------------------------------------------------------

  wx() {
    const phone = this;
    const wx = {
      getStorageSync: (key) => (phone.storage.has(key) ? phone.storage.get(key) : ''),
      setStorageSync(key, value) {
        if (phone.full) throw new Error('setStorageSync:fail exceed storage max size');
        phone.storage.set(key, value);
      },
      getAppBaseInfo: () => ({SDKVersion: phone.library}),
      getSystemInfoSync: () => ({SDKVersion: phone.library}),
      onAppHide: (seen) => phone.hidden.push(seen),
      login(options) {
        const code = phone.login();
        if (code === 'hang') return;
        if (code) phone.later(options.success, {code, errMsg: 'login:ok'});
        else phone.later(options.fail, {errMsg: 'login:fail'});
      },
      request(options) {
        phone.requests.push(options);
        phone.send(options);
        return {abort() {}};
      },
      navigateTo: ({url}) => phone.visited.push(url),
      requestSubscribeMessage(options) {
        phone.popups.push([...options.tmplIds]);
        const said = phone.popup(options.tmplIds);
        if (said === 'hang') return;
        if (said.errCode) phone.later(options.fail, said);
        else phone.later(options.success, {errMsg: 'requestSubscribeMessage:ok', ...said});
      },
    };
    for (const name of this.missing || []) delete wx[name];
    return wx;
  }

  /** Answer a request later, as the test's service does; any status is a success to wx.request. */
  send(options) {
    const said = this.answer(options);
    if (said === 'hang') return;
    if (said === 'fail') return this.later(options.fail, {errMsg: 'request:fail '});
    const {status, data = {}, header = {}} = said;
    this.later(options.success, {statusCode: status, data, header, errMsg: 'request:ok'});
  }

  later(callback, value) {
    if (callback) this.queue.push(() => callback(value));
  }

  /** Let all callbacks come that are on their way, and those that they lead to. */
  settle() {
    for (let most = 1000; this.queue.length; most -= 1) {
      if (!most) throw new Error('the script goes round and round');
      this.queue.shift()();
    }
  }

  // -- what a user does ---------------------------------------------------------------------------

  /** Tap a form's button. */
  static submit(formId, {form = {}, button, value = {}} = {}) {
    const detail = {formId, value};
    if (button) detail.target = {id: '', dataset: button};
    return {
      type: 'submit',
      timeStamp: 1,
      detail,
      target: {id: 'form', dataset: form},
      currentTarget: {id: 'form', dataset: form},
    };
  }

  // -- looking on ---------------------------------------------------------------------------------

  kept() {
    return JSON.parse(this.storage.get('wxbroadcast:push-code') || '{"codes": [], "results": []}');
  }

  /** form_ids that wait on the phone. */
  waiting() {
    return this.kept().codes.map((code) => code.formId);
  }

  sent(tail) {
    return this.requests.filter((request) => request.url.endsWith(tail));
  }

  /** What was uploaded, call by call. */
  uploads() {
    return this.sent('/collect').map((request) => JSON.parse(request.data));
  }
}

/** A service that is well: it stores, and remembers what, as the real one does. */
class Service {
  constructor(phone) {
    this.stored = new Set();
    this.out = false; // the user wants no messages
    this.calls = [];
    this.tickets = 0;
    this.templates = [];
    this.skip = []; // undefined: an older service, which knows no such list
    this.ahead = 0; // of the phone's clock, ms
    this.trouble = []; // answers to the next calls, before any other
    this.phone = phone;
    phone.answer = (request) => this.serve(request);
  }

  serve(request) {
    const where = new URL(request.url);
    if (where.host !== 'push.example.com') return {status: 200}; // the page's own backend
    const header = {Date: new Date(this.phone.clock + this.ahead).toUTCString()};
    this.calls.push(`${request.method} ${where.pathname.replace('/v1/apps/shop', '')}`);
    const wrong = this.trouble.length ? this.trouble.shift() : null;
    if (wrong === 'fail' || wrong === 'hang') return wrong;
    if (wrong && wrong.stores) this.store(JSON.parse(request.data));
    if (wrong) return wrong.stores ? wrong.says : {header, ...wrong};
    if (where.pathname.endsWith('/login')) {
      this.tickets += 1;
      return {status: 200, data: {token: `v1.${this.tickets}`, expires_in_s: 7200}, header};
    }
    if (request.header.Authorization !== `Bearer v1.${this.tickets}`) return {status: 401, header};
    if (where.pathname.endsWith('/plan')) {
      const templates = this.templates.map((id) => ({template_id: id}));
      return {status: 200, data: {app: 'shop', openid: 'o', templates, skip: this.skip}, header};
    }
    if (where.pathname.endsWith('/opt-in')) {
      this.out = request.method === 'DELETE';
      return {status: 200, data: {out: this.out}, header};
    }
    return {status: 200, data: this.store(JSON.parse(request.data)), header};
  }

  store(uploads) {
    const before = this.stored.size;
    for (const upload of uploads) {
      for (const {formId} of upload.formIds || []) this.stored.add(formId);
      for (const id of Object.keys(upload.subscriptions || {})) {
        this.stored.add(`${id} ${upload.subscriptions[id]} ${upload.id}`);
      }
    }
    return {lines: uploads.length, new: this.stored.size - before, known: 0, refused: {}, listed: []};
  }
}

/** A phone whose mini-program runs and knows where the service is. */
function opened(options = {}) {
  const phone = new Phone(options);
  const service = new Service(phone);
  const pushCode = phone.boot();
  pushCode.start({url: 'https://push.example.com', app: 'shop'});
  return {phone, service, pushCode};
}

module.exports = {Phone, Service, opened, SCRIPT, ROOT};
